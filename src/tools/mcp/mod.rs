//! The MCP client: sessions with servers that tenants have registered. `rmcp` because it is the
//! protocol's own Rust SDK and follows its revisions.
//!
//! Lives here: `session` (sessions, kept and shared; what servers ask), `call` (one `tools/call`),
//! `transport` and `legacy` (the protocol's transports over the gateway's HTTP client, so that the
//! address guard holds), [`discover`], which lists a server's tools.

mod call;
mod legacy;
mod session;
mod transport;

use std::time::Duration;

use rmcp::model::Tool;

use crate::store::McpTool;

pub use call::{CallError, CallRequest, McpCall, Step, content_of};
pub use session::{Changes, Question, ServerKey, Sessions};
pub use transport::{GuardedHttp, HttpError};

/// How long a discovery may take, all pages included.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most tools that a server may list.
const MAX_TOOLS: usize = 1000;
/// The longest description that is kept, in characters.
const MAX_DESCRIPTION: usize = 16 * 1024;
/// The largest input schema that is kept, in bytes.
const MAX_SCHEMA: usize = 256 * 1024;

/// Lists the tools of a server. The error says for people what went wrong, and holds no secret.
pub async fn discover(sessions: &Sessions, key: &ServerKey) -> Result<Vec<McpTool>, String> {
    let asked = async {
        let session = sessions.open(key).await?;
        let listed = list(session.service.peer()).await;
        let _ = session.service.cancel().await;
        listed
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "the server gave no list of tools within {} s",
                PATIENCE.as_secs()
            ))
        })
}

async fn list(peer: &rmcp::service::Peer<rmcp::RoleClient>) -> Result<Vec<McpTool>, String> {
    let mut tools: Vec<McpTool> = Vec::new();
    let mut cursor = None;
    loop {
        let params = rmcp::model::PaginatedRequestParams::default().with_cursor(cursor);
        let page = peer.list_tools(Some(params)).await.map_err(|e| told(&e))?;
        tools.extend(page.tools.iter().map(tool));
        if tools.len() > MAX_TOOLS {
            return Err(format!("the server lists more than {MAX_TOOLS} tools"));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(tools);
        }
    }
}

fn tool(tool: &Tool) -> McpTool {
    let hints = tool.annotations.as_ref();
    let read_only = hints.and_then(|h| h.read_only_hint).unwrap_or(false);
    let schema = (*tool.input_schema).clone();
    let size = serde_json::to_string(&schema).map_or(0, |text| text.len());
    McpTool {
        name: tool.name.to_string(),
        description: tool
            .description
            .as_ref()
            .map(|text| text.chars().take(MAX_DESCRIPTION).collect()),
        input_schema: if size > MAX_SCHEMA {
            serde_json::Map::new()
        } else {
            schema
        },
        // The hint must be given: most servers leave it out for tools that destroy nothing.
        destructive: !read_only && hints.and_then(|h| h.destructive_hint) == Some(true),
        read_only,
        idempotent: hints.and_then(|h| h.idempotent_hint).unwrap_or(false),
    }
}

/// An error with its causes, short.
fn told(error: &dyn std::error::Error) -> String {
    const LONGEST: usize = 500;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    let text: String = text.chars().filter(|c| *c != '\0').collect();
    text.chars().take(LONGEST).collect()
}
