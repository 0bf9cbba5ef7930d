//! How many tokens a request has. Of a provider of the same wire it is asked; no other tells before it
//! has answered, so that for those it is an estimate, and said to be one.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use super::errors::MessagesErrorOut;
use super::forward::{SAME_WIRE, is_same, prepared};
use super::{MessagesRequest, decode};
use crate::auth::{Principal, Use};
use crate::edge::{Exchange, Gone, parse, readable};
use crate::error::ApiError;
use crate::model::{Answered, ModelError, ModelRequest, Part, Route, Source};
use crate::wire::caller::Caller;
use crate::wire::openai::rewrite::named_model;
use crate::wire::routed::Routed;
use crate::wire::turn::while_client_waits;
use crate::wire::{files, headers};

const PATH: &str = "/messages/count_tokens";

/// Whose count it is.
enum Counted {
    ByProvider(u64),
    Estimated(u64),
    ClientLeft,
}

/// Tells how many input tokens a request has. Anthropic's models are asked. For all others, and for a
/// smith, whose own instructions and tools are not in it, it is an estimate; then the answer has the
/// header `IC-Token-Count: estimate`.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header)),
    request_body = Object,
    responses((status = 200, body = Object),
        (status = "default", description = "An error, in Anthropic's envelope",
            body = MessagesErrorOut)))]
pub async fn count_tokens(exchange: &mut Exchange) -> Result<(), Gone> {
    let (tokens, is_estimate) = match Box::pin(counted(exchange)).await {
        Ok(Counted::ByProvider(tokens)) => (tokens, false),
        Ok(Counted::Estimated(tokens)) => (tokens, true),
        Ok(Counted::ClientLeft) => return Err(Gone),
        Err(error) => return exchange.respond_error(&error).await,
    };
    let mut extra = vec![(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    if is_estimate {
        let name = HeaderName::from_static("ic-token-count");
        extra.push((name, HeaderValue::from_static("estimate")));
    }
    let body = json!({ "input_tokens": tokens }).to_string();
    exchange.respond(StatusCode::OK, &extra, body.into()).await
}

async fn counted(exchange: &mut Exchange) -> Result<Counted, ApiError> {
    let Caller {
        principal,
        smith,
        thread,
    } = Caller::using(exchange, Use::Messages).await?;
    let body = exchange.body().await?;
    if smith.is_none() {
        let (model, _) = named_model::<MessagesRequest>(&body)?;
        let gateway = exchange.gateway.clone();
        let Routed {
            routes,
            permit: _held,
            ..
        } = Routed::begin(&gateway, &principal, &model, thread.is_some()).await?;
        if routes.iter().all(is_same) {
            match asked(exchange, &principal, &routes, body.clone()).await {
                Ok(Some(tokens)) => return Ok(Counted::ByProvider(tokens)),
                Ok(None) => return Ok(Counted::ClientLeft),
                // A server that speaks the wire without this.
                Err(error) if matches!(error.status.as_u16(), 404 | 405 | 501) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let body = readable(&body);
    let decoded = decode(parse::<MessagesRequest>(&body)?)?;
    Ok(Counted::Estimated(estimate(&decoded.into_request())))
}

/// The count of the first route that tells; `None` when the client left.
async fn asked(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    routes: &[Route],
    body: Bytes,
) -> Result<Option<u64>, ApiError> {
    let body = files::forwarded(exchange, principal, body).await?;
    let bodies = routes.iter().map(|route| prepared(&body, &route.model));
    let bodies: Vec<Bytes> = bodies.collect::<Result<_, _>>()?;
    let told = headers::onward(exchange, SAME_WIRE.headers);
    let models = exchange.gateway.models.clone();
    let (models, bodies, told) = (&models, &bodies, &told);
    let sent = models.try_routes(routes, |at| async move {
        let asked = models.ask(&routes[at], PATH, bodies[at].clone(), false, told);
        let tokens = match Box::pin(asked).await?.0 {
            Answered::Whole(whole) => whole.outline["input_tokens"].as_u64(),
            Answered::Events(_) => None,
        };
        let without = || ModelError::Malformed("an answer without 'input_tokens'".to_owned());
        tokens.ok_or_else(without)
    });
    let counted = while_client_waits(exchange, pin!(sent)).await.transpose()?;
    Ok(counted.map(|(tokens, _)| tokens))
}

/// Bytes of plain text that are a token, about: English and code have more.
const BYTES_OF_TOKEN: f64 = 3.5;
/// Around each message, call, result and tool.
const FRAME_TOKENS: u64 = 6;
/// The most that an image takes.
const IMAGE_TOKENS: u64 = 1_600;
/// Bytes of base64 that are a token of a document, about: a page of 60 KB is some 2,000 tokens.
const DOCUMENT_BYTES_OF_TOKEN: u64 = 40;
/// Of a document whose bytes are elsewhere.
const DOCUMENT_TOKENS: u64 = 2_000;

/// About how many tokens a request has.
fn estimate(request: &ModelRequest) -> u64 {
    let mut tokens = request.system.as_deref().map_or(0, of_text);
    for turn in &request.turns {
        tokens += FRAME_TOKENS + turn.parts.iter().map(of_part).sum::<u64>();
    }
    for tool in &request.tools {
        let description = tool.description.as_deref().map_or(0, of_text);
        let schema = of_text(&tool.parameters.to_string());
        tokens += FRAME_TOKENS + of_text(&tool.name) + description + schema;
    }
    tokens
}

/// A character outside of ASCII is about a token where a script has no short words.
fn of_text(text: &str) -> u64 {
    let plain = text.bytes().filter(u8::is_ascii).count();
    let other = text.chars().count() - plain;
    (plain as f64 / BYTES_OF_TOKEN).ceil() as u64 + other as u64
}

fn of_part(part: &Part) -> u64 {
    match part {
        Part::Text { text } | Part::Refusal { text } | Part::Name { name: text } => of_text(text),
        // Thinking of earlier turns is not counted, and what is redacted is not read.
        Part::Reasoning { .. } | Part::CacheHere { .. } | Part::Citation { .. } => 0,
        Part::Image { .. } => IMAGE_TOKENS,
        Part::File { source, .. } => match source {
            Source::Data { media_type, data } if media_type.starts_with("text/") => {
                (data.len() as f64 * 0.75 / BYTES_OF_TOKEN).ceil() as u64
            }
            Source::Data { data, .. } => data.len() as u64 / DOCUMENT_BYTES_OF_TOKEN,
            Source::Url { .. } | Source::FileId { .. } => DOCUMENT_TOKENS,
        },
        Part::Audio { data, .. } => data.len() as u64 / DOCUMENT_BYTES_OF_TOKEN,
        Part::ToolCall {
            name, arguments, ..
        } => FRAME_TOKENS + of_text(name) + of_text(arguments),
        Part::ToolResult { content, .. } => FRAME_TOKENS + content.iter().map(of_part).sum::<u64>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Role, Turn};

    #[test]
    fn an_estimate_grows_with_what_is_said() {
        let of = |text: &str| {
            estimate(&ModelRequest {
                turns: vec![Turn::text(Role::User, text)],
                ..ModelRequest::default()
            })
        };
        assert_eq!(of(""), FRAME_TOKENS);
        assert_eq!(of(&"word ".repeat(70)), FRAME_TOKENS + 100);
        assert_eq!(of("漢字"), FRAME_TOKENS + 2);
    }
}
