//! Anthropic Messages as a client wire. Wire facts: the Anthropic API reference, "Messages", "Count
//! message tokens", "Streaming messages", "Extended thinking", "Citations", "Structured outputs" and
//! "Errors", and the types of Anthropic's own clients.
//!
//! Lives here: `decode` (request to neutral request) with its `blocks` and `tools`, `encode` (frames
//! to events) and `whole` (frames to one message) with `citations`, `thinking` (whether it is shown,
//! and signatures that are not Anthropic's), `forward` (a body that is passed on to a provider of the
//! same wire) with its `gate`, `count` (tokens of a request), `errors` (their shape).

mod blocks;
mod citations;
mod count;
mod decode;
mod encode;
mod errors;
mod fields;
mod forward;
mod gate;
mod serve;
mod thinking;
mod tools;
mod whole;

pub use decode::{DecodedMessages, MessagesRequest, decode};
pub use encode::StreamEncoder;
pub use gate::MessagesGate;
pub use serve::{documented, routes};
pub use thinking::Display;
pub use whole::message;

use serde_json::{Value, json};

use crate::frame::{StopReason, Usage};

/// Anthropic's `stop_reason`.
fn stop_reason(stop: StopReason, has_refused: bool) -> &'static str {
    match stop {
        _ if has_refused => "refusal",
        StopReason::MaxTokens => "max_tokens",
        StopReason::ToolCalls => "tool_use",
        StopReason::ContentFilter => "refusal",
        _ => "end_turn",
    }
}

/// `stop_details`, which only a refusal has.
fn stop_details(stop_reason: &str, explanation: &str) -> Value {
    match (stop_reason, explanation) {
        ("refusal", "") => json!({ "type": "refusal", "category": null, "explanation": null }),
        ("refusal", why) => json!({ "type": "refusal", "category": null, "explanation": why }),
        _ => Value::Null,
    }
}

/// Anthropic's `usage`, whose input has no cached tokens in it.
fn usage_out(usage: &Usage) -> Value {
    let cached = usage.cache_read + usage.cache_write;
    let mut out = json!({
        "input_tokens": usage.input.saturating_sub(cached),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    });
    if usage.reasoning > 0 {
        out["output_tokens_details"] = json!({ "thinking_tokens": usage.reasoning });
    }
    out
}

/// A message without content, as a stream begins with it.
fn begun(id: &str, model: &str) -> Value {
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "stop_details": null,
        "usage": usage_out(&Usage::default()),
    })
}
