//! Tools, what they may ask of the outside, and where parsers of strangers' documents run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Outgoing connections to addresses that tenants name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Networks (CIDR) that tenants' URLs may reach although they are private.
    pub allow_networks: Vec<ipnet::IpNet>,
}

/// Tools of smiths.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// Where `web_search` asks: `GET <url>?q=…&format=json`, answered as SearXNG does.
    pub web_search_url: Option<String>,
    /// Sent to it as a bearer token.
    pub web_search_key: Option<String>,
    /// How long a human may take for an approval, in seconds; then it is taken for rejected.
    pub approval_timeout_s: u64,
    /// Calls to one MCP server at a time, on each node.
    pub mcp_concurrency: usize,
    /// How long a call to an MCP server may take, in seconds; waiting for a human does not count.
    pub call_timeout_s: u64,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            web_search_url: None,
            web_search_key: None,
            approval_timeout_s: 7 * 24 * 3600,
            mcp_concurrency: 16,
            call_timeout_s: 60,
        }
    }
}

/// Child processes that parse what strangers wrote: documents, pages, archives, large schemas.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Children at once; the first job starts one.
    pub workers: usize,
    /// What each of them may take, in MiB.
    pub memory_mb: u64,
    /// How long a document may take to become text, in seconds.
    pub document_timeout_s: u64,
    /// The program that is started; absent: this one.
    pub program: Option<PathBuf>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            workers: 2,
            memory_mb: 256,
            document_timeout_s: 60,
            program: None,
        }
    }
}
