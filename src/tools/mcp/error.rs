//! What goes wrong between here and a server, below MCP.

use http::StatusCode;

use crate::upstream::UpstreamError;

/// Why a request did not get through.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{}", .0.about("the MCP server"))]
    Upstream(#[from] UpstreamError),
    #[error("the URL cannot be used: {0}")]
    Url(String),
    #[error("a header holds what no header may")]
    Header,
    #[error("the server answered with status {status}{}", behind(said))]
    Status { status: StatusCode, said: String },
    #[error(
        "the server sends on ({status}) to {to}, which is not followed: if that is the server's \
         address, register it"
    )]
    Moved { status: StatusCode, to: String },
    #[error("the server answered with what is no MCP message{}", behind(.0))]
    Unreadable(String),
}

/// What was said, behind what it is said of.
fn behind(said: &str) -> String {
    match said.is_empty() {
        true => String::new(),
        false => format!(": {said}"),
    }
}
