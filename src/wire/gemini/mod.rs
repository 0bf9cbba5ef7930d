//! Gemini's `generateContent` as a client wire. Wire facts: the Gemini API reference, "Generating
//! content", "Function calling", "Thinking", "Thought signatures", "Structured outputs", "Grounding",
//! "Tokens" and "Models", Google's API improvement proposals on errors, and the types of Google's own
//! clients. Its JSON is protobuf's: members are in camel case, and in snake case too.
//!
//! Lives here: `decode` (request to neutral request) with its `parts`, `generation`, `tools` and
//! `schema`, `encode` (frames to pieces of a stream) and `whole` (frames to one answer) with
//! `grounding`, `signature` (thought signatures that are not Google's), `forward` (a body that is
//! passed on to a provider of the same wire) with its `gate`, `count` (tokens of a request), `models`
//! (which there are), `errors` (their shape).

mod count;
mod decode;
mod encode;
mod errors;
mod fields;
mod forward;
mod gate;
mod generation;
mod grounding;
mod models;
mod parts;
mod schema;
mod serve;
mod signature;
mod tools;
mod whole;

pub use decode::{DecodedGemini, GeminiRequest, decode};
pub use encode::StreamEncoder;
pub use gate::GeminiGate;
pub use models::one as model;
pub use serve::{documented, routes};
pub use whole::response;

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::frame::{StopReason, Usage};

/// The name of a smith's own model: a path cannot leave it out.
const OWN: &str = "smith";

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events, which `alt=sse` asks for.
    Events,
    /// A list whose items come one by one.
    List,
}

/// A member by either of its names.
fn member<'a>(object: &'a Value, camel: &str, snake: &str) -> &'a Value {
    match &object[camel] {
        Value::Null => &object[snake],
        found => found,
    }
}

/// What only Google does, where another is asked.
fn unsupported(field: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::bad_request("unsupported", why).param(field)
}

/// Gemini's `finishReason`.
fn finish_reason(stop: StopReason, has_refused: bool) -> &'static str {
    match stop {
        _ if has_refused => "SAFETY",
        StopReason::MaxTokens => "MAX_TOKENS",
        StopReason::ContentFilter => "SAFETY",
        _ => "STOP",
    }
}

/// `promptFeedback`, which stands in the place of an answer that is refused as a whole.
fn blocked(stop: StopReason, refusal: &str) -> Value {
    let reason = match stop {
        StopReason::ContentFilter => "SAFETY",
        _ => "OTHER",
    };
    match refusal {
        "" => json!({ "blockReason": reason }),
        why => json!({ "blockReason": reason, "blockReasonMessage": why }),
    }
}

/// Gemini's `usageMetadata`, whose candidates have no thoughts in them.
fn usage_out(usage: &Usage) -> Value {
    let mut out = json!({
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output.saturating_sub(usage.reasoning),
        "totalTokenCount": usage.total(),
    });
    for (name, count) in [
        ("cachedContentTokenCount", usage.cache_read),
        ("thoughtsTokenCount", usage.reasoning),
    ] {
        if count > 0 {
            out[name] = json!(count);
        }
    }
    out
}
