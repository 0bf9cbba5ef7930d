//! OpenAI Responses as a client wire (`wires.md`; `observed.md` 6 and 8.1; the OpenAI API
//! reference, "Responses" and "Responses streaming").
//!
//! Lives here: `items` (turns to items), `turns` (and back), `decode` (request to neutral request), `object`
//! (the response object), `record` (a stored one), `rest` (what may be done with it),
//! `conversations` with `conversation_items`, `encode` (frames to events), `tools` (which tools are run by whom), `mounts`
//! (those that are run here for one call), `gate`
//! (a stream that is passed on to a client of the same wire).

mod conversation_items;
mod conversations;
pub mod decode;
pub mod encode;
mod fields;
pub mod gate;
pub mod items;
pub mod mounts;
pub mod object;
mod record;
mod referred;
mod rest;
mod serve;
mod smith;
pub mod tools;
pub mod turns;

pub use decode::{DecodedResponse, Input, ResponsesRequest, decode};
pub use encode::StreamEncoder;
pub use gate::ResponsesGate;
pub use object::{Head, Status};
pub use serve::routes;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::edge::AppState;
use crate::frame::{StopReason, Usage};
use serde_json::{Value, json};

/// The wire's name in metrics.
const WIRE: &str = "responses";
/// The hosted tool that stands in for the wire's own.
const WEB_SEARCH: &str = "web_search";

/// Its operations, and the routes of those that are no streams.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(serve::Operations::openapi())
        .routes(routes!(rest::one, rest::remove))
        .routes(routes!(rest::cancel))
        .routes(routes!(rest::input_items))
        .routes(routes!(conversations::list, conversations::create))
        .routes(routes!(
            conversations::one,
            conversations::update,
            conversations::remove
        ))
        .routes(routes!(conversation_items::list))
}

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
