//! OpenAI Responses as a client wire (`wires.md`; `observed.md` 6 and 8.1; the OpenAI API
//! reference, "Responses" and "Responses streaming").
//!
//! Lives here: `items` (items to turns and back), `decode` (request to neutral request), `object`
//! (the response object), `encode` (frames to events), `tools` (which tools are run by whom), `mounts`
//! (those that are run here for one call), `gate`
//! (a stream that is passed on to a client of the same wire).

pub mod decode;
pub mod encode;
pub mod gate;
pub mod items;
pub mod mounts;
pub mod object;
mod referred;
mod serve;
pub mod tools;

pub use decode::{Decoded, Input, ResponsesRequest, decode};
pub use encode::StreamEncoder;
pub use gate::ResponsesGate;
pub use object::{Head, Status};
pub use serve::routes;

use crate::frame::{StopReason, Usage};
use serde_json::{Value, json};

/// The body of a response's or a run's id; both name the same thing.
pub fn body_of(id: &str) -> Option<&str> {
    id.strip_prefix("resp_")
        .or_else(|| id.strip_prefix("run_"))
        .filter(|body| !body.is_empty())
}

/// `usage`.
pub fn usage_out(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": { "cached_tokens": usage.cache_read },
        "output_tokens": usage.output,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning },
        "total_tokens": usage.total(),
    })
}

/// `incomplete_details.reason`, where a stop leaves a response incomplete.
pub fn incomplete_reason(stop: StopReason) -> Option<&'static str> {
    match stop {
        StopReason::MaxTokens => Some("max_output_tokens"),
        StopReason::ContentFilter => Some("content_filter"),
        _ => None,
    }
}
