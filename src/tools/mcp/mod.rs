//! The MCP client: sessions with servers that tenants have registered. `rmcp` because it is the
//! protocol's own Rust SDK and follows its revisions.
//!
//! Lives here: `session` (sessions, kept and shared; what servers ask), `call` (one `tools/call`),
//! `transport` and `legacy` (the protocol's transports over the gateway's HTTP client, so that the
//! address guard holds), `reading` (streams of events), `lenient` (what servers really send), `words` (what went wrong, for people),
//! [`discover`], which lists a server's tools.

mod call;
mod error;
mod key;
mod legacy;
mod lenient;
mod reading;
mod session;
mod transport;
mod words;

use std::collections::HashSet;
use std::time::Duration;

use rmcp::model::{ErrorCode, Tool};
use rmcp::service::ServiceError;

use crate::store::McpTool;

pub use call::{CallError, CallRequest, McpCall, Step, content_of};
pub use error::HttpError;
pub use key::ServerKey;
pub use session::{Changes, Question, Sessions};
pub use transport::GuardedHttp;

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
        let listed = list(&session).await;
        // A server may take its time to end a session; the list is here.
        tokio::spawn(session.service.cancel());
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

async fn list(session: &session::Session) -> Result<Vec<McpTool>, String> {
    let mut tools: Vec<McpTool> = Vec::new();
    let mut names = HashSet::new();
    let mut cursors = HashSet::new();
    let mut cursor = None;
    loop {
        let params = rmcp::model::PaginatedRequestParams::default().with_cursor(cursor);
        let page = match session.service.peer().list_tools(Some(params)).await {
            Ok(page) => page,
            // A server with resources and prompts alone.
            Err(ServiceError::McpError(error)) if error.code == ErrorCode::METHOD_NOT_FOUND => {
                return Ok(tools);
            }
            Err(error) => return Err(words::of_request(&error, &session.trouble)),
        };
        let before = tools.len();
        let listed = page.tools.iter().map(tool);
        tools.extend(listed.filter(|tool| names.insert(tool.name.clone())));
        if tools.len() > MAX_TOOLS {
            return Err(format!("the server lists more than {MAX_TOOLS} tools"));
        }
        cursor = page.next_cursor.filter(|cursor| !cursor.is_empty());
        // Some servers page for ever: a place where we were, or a page without anything new, is
        // the end.
        let is_new = |next: &String| cursors.insert(next.clone()) && tools.len() > before;
        if !cursor.as_ref().is_some_and(is_new) {
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
