//! How many tokens a request has, for wires that tell it. Of a provider of the same wire it is asked; no
//! other tells before it has answered, so that for those it is an estimate, and said to be one.

use std::borrow::Cow;
use std::pin::pin;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::forward::SameWire;
use super::headers;
use super::turn::while_client_waits;
use crate::edge::{Exchange, Gone};
use crate::error::ApiError;
use crate::model::{Answered, ModelError, ModelRequest, Part, Route, Source};

/// Whose count it is.
pub enum Counted {
    ByProvider(u64),
    Estimated(u64),
    ClientLeft,
}

/// Asks routes of the same wire, each with its path and body; the count of the first that tells, as the
/// answer's `member`. `None`: they do not count.
pub async fn ask(
    exchange: &mut Exchange,
    same_wire: &'static SameWire,
    routes: &[Route],
    asked: &[(Cow<'static, str>, Bytes)],
    member: &'static str,
) -> Result<Option<Counted>, ApiError> {
    let told = headers::onward(exchange, same_wire.headers);
    let models = exchange.gateway.models.clone();
    let (models, told) = (&models, &told);
    let sent = models.try_routes(routes, |at| async move {
        let (path, body) = &asked[at];
        let answer = models.ask(&routes[at], path, body.clone(), false, told);
        let tokens = match Box::pin(answer).await?.0 {
            Answered::Whole(whole) => whole.outline[member].as_u64(),
            Answered::Events(_) => None,
        };
        let without = || ModelError::Malformed(format!("an answer without '{member}'"));
        tokens.ok_or_else(without)
    });
    let answer = while_client_waits(exchange, pin!(sent)).await;
    match answer.transpose().map_err(ApiError::from) {
        Ok(Some((tokens, _))) => Ok(Some(Counted::ByProvider(tokens))),
        Ok(None) => Ok(Some(Counted::ClientLeft)),
        // A server that speaks the wire without this.
        Err(error) if matches!(error.status.as_u16(), 404 | 405 | 501) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers with the count as `member`; an estimate has the header `IC-Token-Count: estimate`.
pub async fn answer(
    exchange: &mut Exchange,
    counted: Result<Counted, ApiError>,
    member: &str,
) -> Result<(), Gone> {
    let (tokens, is_estimate) = match counted {
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
    let mut body = json!({});
    body[member] = Value::from(tokens);
    let body = body.to_string();
    exchange.respond(StatusCode::OK, &extra, body.into()).await
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
pub fn estimate(request: &ModelRequest) -> u64 {
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
