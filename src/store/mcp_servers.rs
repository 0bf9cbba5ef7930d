//! MCP servers that a tenant has registered: their rows and the trait.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Result, Rows};

/// How calls to a server prove who is calling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum McpAuth {
    None,
    /// One secret for all callers.
    Bearer,
    /// The grant of the smith that calls.
    Oauth,
}

/// One rule of an approval policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// A glob over tool names.
    #[serde(rename = "match")]
    pub pattern: String,
    pub require: Option<String>,
}

/// What a tenant says of a server, but for its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpSettings {
    pub auth: McpAuth,
    /// Whose grants are used, with [`McpAuth::Oauth`].
    #[serde(default)]
    pub provider: Option<String>,
    /// `tenant` or `platform`: whose OAuth client asks for the grants.
    #[serde(default)]
    pub client_mode: Option<String>,
    #[serde(default)]
    pub catalog_slug: Option<String>,
    /// `None`: all tools; else only these.
    #[serde(default)]
    pub tool_allowlist: Option<Vec<String>>,
    #[serde(default)]
    pub approval_policy: Vec<ApprovalRule>,
}

/// A tool as its server lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct McpTool {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    /// JSON Schema of the arguments.
    #[serde(default)]
    pub input_schema: Map<String, Value>,
    #[serde(default)]
    pub destructive: bool,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub idempotent: bool,
}

/// A list of tools as a column of JSON text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct McpTools(pub Vec<McpTool>);

macro_rules! from_json_text {
    ($($document:ty),+) => {$(
        impl TryFrom<String> for $document {
            type Error = serde_json::Error;

            fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
                serde_json::from_str(&text)
            }
        }
    )+};
}

from_json_text!(McpSettings, McpTools);

#[derive(Clone, sqlx::FromRow)]
pub struct McpServerRow {
    pub id: String,
    pub tenant_id: String,
    /// Unique in its tenant.
    pub name: String,
    pub url: String,
    #[sqlx(try_from = "String")]
    pub settings: McpSettings,
    pub sealed: Option<Vec<u8>>,
    #[sqlx(try_from = "String")]
    pub tools: McpTools,
    pub tools_refreshed_at: Option<i64>,
    pub discovery_error: Option<String>,
    pub last_call_error: Option<String>,
    pub last_call_error_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// MCP servers.
#[async_trait]
pub trait McpServerStore: Send + Sync {
    /// Inserts, or replaces the server of that name, which keeps its id and its age; answers the
    /// row as it is kept.
    async fn put_mcp_server(&self, server: &McpServerRow) -> Result<McpServerRow>;
    async fn mcp_server(&self, tenant_id: &str, name: &str) -> Result<Option<McpServerRow>>;
    /// Newest first, ids below `before`.
    async fn mcp_servers(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<McpServerRow>>;
    /// Writes what a discovery found, when the server is still at the URL that was asked.
    async fn put_mcp_tools(&self, server: &McpServerRow) -> Result<bool>;
    /// Notes why a call failed.
    async fn note_mcp_error(&self, tenant_id: &str, name: &str, error: &str, at: i64)
    -> Result<()>;
    async fn delete_mcp_server(&self, tenant_id: &str, name: &str) -> Result<bool>;
}
