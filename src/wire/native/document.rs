//! What the document says of bodies that are read more leniently than they are to be written.

use serde::Serialize;
use utoipa::ToSchema;

use super::rest::InputMessage;

/// What a native run is given.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `decode` takes")]
pub struct RunIn {
    input: Option<Vec<InputMessage>>,
    thread_id: Option<String>,
    stream: Option<bool>,
    channel: Option<String>,
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
    response_format: Option<serde_json::Map<String, serde_json::Value>>,
}

/// How a run is run again.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `serve` takes")]
pub struct ReplayIn {
    stream: Option<bool>,
}
