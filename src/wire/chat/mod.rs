//! OpenAI Chat Completions as a client wire (`wires.md`; `observed.md` 5 and 8.1).
//!
//! Lives here: `decode` (request to neutral request), `encode` (frames to chunks or to one
//! answer), `unnamed` (results that name no call), `tools` and `blocks` (of this wire's form and of
//! others'), `forward` (a body that is passed on to a provider of the same wire).

mod blocks;
pub mod custom;
pub mod decode;
pub mod encode;
mod fields;
pub mod forward;
mod serve;
mod tools;
mod unnamed;

pub use custom::CustomTools;
pub use decode::{ChatRequest, DecodedChat, decode};
pub use encode::{StreamEncoder, as_function_call, full_answer};
pub use forward::EventGate;
pub use serve::{documented, routes};

use crate::frame::{StopReason, Usage};
use serde_json::{Value, json};

/// OpenAI's `finish_reason`.
pub fn finish_reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::MaxTokens => "length",
        StopReason::ToolCalls => "tool_calls",
        StopReason::ContentFilter => "content_filter",
        _ => "stop",
    }
}

/// OpenAI's `usage` member.
pub fn usage_out(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": { "cached_tokens": usage.cache_read, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}
