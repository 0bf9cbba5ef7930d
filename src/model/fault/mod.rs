//! What a provider says of its own failure, in whichever of the usual shapes it comes: an error
//! body, an error inside of an answer that began well, an event of a stream.
//!
//! Lives here: [`Fault`], what is read of it, and how long to wait (`pause`). Nobody speaks one
//! shape: gateways wrap other gateways' errors as texts inside of their own.

mod pause;
mod shape;

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use self::shape::Shape;
use super::beside::Beside;
use crate::error::ApiError;
use crate::lenient::without_bom;

/// Longest message that is kept, in characters.
const LONGEST_MESSAGE: usize = 2_000;
/// Of a text that is no JSON, this much is shown, in characters.
const LONGEST_TEXT: usize = 200;
/// When a provider names no time, a second is a fair guess.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// What a call that failed at its provider is told as, when nothing better is known.
pub(super) const FAILED: &str = "model_request_failed";

/// Why a call failed, as far as it matters for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The conversation is longer than the model takes: agents compact it and go on.
    ContextLength,
    /// Nothing is left to pay with: waiting does not help.
    Quota,
    RateLimit,
    Overloaded,
    /// The provider refused the configured key.
    Key,
    /// The request does not please the provider.
    Request,
    Other,
}

/// A provider's failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Of the answer, or as its body names it.
    pub status: Option<u16>,
    pub message: String,
    pub cause: Cause,
    /// The provider's own code, a short slug.
    pub code: Option<String>,
    /// The request's field at fault, in the provider's spelling.
    pub param: Option<String>,
    /// How long the provider wants to be left alone.
    pub pause: Option<Duration>,
    /// What the answer's headers tell on, as of a good one.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Whether an event is surely one of those that answers begin with, so that it need not be read as a
/// whole: it has the place of an answer, and no word of a failure however it may be written.
fn is_plain_beginning(data: &[u8]) -> bool {
    const PLACES: [&[u8]; 5] = [
        b"\"type\":\"message_start\"",
        b"\"type\":\"content_block_start\"",
        b"\"type\":\"response.",
        b"\"choices\":[{",
        b"\"candidates\":[{",
    ];
    const WORDS: [&[u8]; 3] = [b"rror", b"ailed", b"\\u"];
    let has = |words: &[&[u8]]| {
        words
            .iter()
            .any(|w| memchr::memmem::find(data, w).is_some())
    };
    !has(&WORDS) && has(&PLACES)
}

impl Fault {
    /// Of an answer with an error status.
    pub fn of_answer(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut shape = Shape::default();
        match serde_json::from_slice::<Value>(without_bom(body)) {
            Ok(value) => shape.read(&value),
            Err(_) => {
                if let Some(what) = description_of(body) {
                    shape.message =
                        format!("the model provider answered with status {status} and {what}");
                }
            }
        }
        // An error that says nothing of itself is known by its status.
        if shape.message.is_empty() {
            shape.message = format!("the model provider answered with status {status}");
        }
        let mut fault = Self::of_shape(Some(status), shape);
        let limited = matches!(fault.cause, Cause::RateLimit | Cause::Overloaded);
        fault.headers = Beside::of(headers).headers;
        let told = pause::of_headers(headers, limited);
        fault.pause = told.or(fault.pause);
        if fault.cause == Cause::Quota {
            fault.pause = None;
        }
        fault
    }

    /// The failure that JSON tells which came in the place of an answer, with a good status.
    pub fn in_answer(answer: &Value) -> Option<Self> {
        let mut shape = Shape::default();
        if !shape::is_failure(answer) {
            return None;
        }
        shape.read(answer);
        if shape.message.is_empty() {
            shape.message = "the model provider answered with an error without a message".into();
        }
        Some(Self::of_shape(None, shape))
    }

    /// The failure that an event of a stream tells.
    pub fn in_event(name: Option<&[u8]>, data: &[u8]) -> Option<Self> {
        let is_error = name == Some(b"error");
        if !is_error && is_plain_beginning(data) {
            return None;
        }
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            return is_error.then(|| {
                let message = short(&String::from_utf8_lossy(data));
                Self::of_shape(None, Shape::of_message(message))
            });
        };
        match is_error {
            true => {
                let mut shape = Shape::default();
                shape.read(&value);
                if shape.message.is_empty() {
                    shape.message = "the model provider's stream holds an error".into();
                }
                Some(Self::of_shape(None, shape))
            }
            false => Self::in_answer(&value),
        }
    }

    /// From a code, or a kind, and a message that a decoder has read.
    pub fn told(code: &str, message: &str) -> Self {
        let told = serde_json::json!({ "code": code, "message": message });
        let mut shape = Shape::default();
        shape.read(&told);
        Self::of_shape(None, shape)
    }

    /// From an error's JSON.
    pub fn told_by(error: &str) -> Self {
        let mut shape = Shape::default();
        match serde_json::from_str::<Value>(error) {
            Ok(error) => shape.read(&error),
            Err(_) => shape.message = error.to_owned(),
        }
        Self::of_shape(None, shape)
    }

    fn of_shape(status: Option<u16>, shape: Shape) -> Self {
        let status = status.or_else(|| shape.status());
        let cause = shape.cause(status);
        let pause = match cause {
            Cause::Quota => None,
            _ => shape.pause.or_else(|| pause::in_text(&shape.message)),
        };
        Self {
            status,
            cause,
            pause,
            code: shape.code.filter(|code| is_slug(code)),
            param: shape.param,
            message: shape.message.chars().take(LONGEST_MESSAGE).collect(),
            headers: Vec::new(),
        }
    }

    /// Takes `secret` out of what is told, should the provider have repeated it.
    pub fn without(mut self, secret: Option<&str>) -> Self {
        self.message = without_secret(self.message, secret);
        self.code = self.code.map(|code| without_secret(code, secret));
        self.param = self.param.map(|param| without_secret(param, secret));
        let repeats = |value: &HeaderValue| {
            let told = value.to_str().unwrap_or_default();
            secret.is_some_and(|secret| !secret.is_empty() && told.contains(secret))
        };
        self.headers.retain(|(_, value)| !repeats(value));
        self
    }

    /// Whether the same target may do better a little later.
    pub fn is_retryable(&self) -> bool {
        match self.cause {
            Cause::ContextLength | Cause::Quota | Cause::Key => false,
            Cause::RateLimit | Cause::Overloaded | Cause::Other => true,
            Cause::Request => matches!(self.status, Some(408 | 409 | 425)),
        }
    }

    /// Whether another target may do better.
    pub fn is_of_target(&self) -> bool {
        self.is_retryable()
            || matches!(self.cause, Cause::Quota | Cause::Key)
            || self.status == Some(404)
    }

    /// A short kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self.cause {
            Cause::ContextLength => "context_length",
            Cause::Quota => "quota",
            Cause::RateLimit => "rate_limited",
            Cause::Key => "key_refused",
            Cause::Request => "status_4xx",
            Cause::Overloaded | Cause::Other => "status_5xx",
        }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let seconds = |pause: Option<Duration>| {
            let pause = pause.unwrap_or(DEFAULT_PAUSE);
            pause.as_secs() + u64::from(pause.subsec_nanos() > 0)
        };
        let refused = |or: StatusCode| {
            let status = fault.status.filter(|status| (400..500).contains(status));
            status
                .and_then(|s| StatusCode::from_u16(s).ok())
                .unwrap_or(or)
        };
        let error = match fault.cause {
            Cause::ContextLength => Self::new(
                refused(StatusCode::BAD_REQUEST),
                "context_length_exceeded",
                fault.message,
            ),
            Cause::Quota => {
                let status = match fault.status {
                    Some(429) => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::PAYMENT_REQUIRED,
                };
                Self::new(status, "insufficient_quota", fault.message)
            }
            Cause::RateLimit => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                fault.message,
            )
            .retry_after(seconds(fault.pause)),
            Cause::Overloaded => {
                Self::unavailable("service_overloaded", fault.message, seconds(fault.pause))
            }
            Cause::Key => Self::new(
                StatusCode::BAD_GATEWAY,
                FAILED,
                format!(
                    "the model provider refused the configured key: {}",
                    fault.message
                ),
            ),
            Cause::Request => {
                let status = refused(StatusCode::BAD_REQUEST);
                let code = fault.code.map_or(Cow::Borrowed(FAILED), Cow::Owned);
                Self::new(status, code, fault.message)
            }
            Cause::Other => Self::new(StatusCode::BAD_GATEWAY, FAILED, fault.message),
        };
        match fault.param {
            Some(param) => error.param(param),
            None => error,
        }
    }
}

/// `text` without `secret`, which must not reach a client.
pub fn without_secret(text: String, secret: Option<&str>) -> String {
    /// Shorter than this it is no secret, nor is a part of it.
    const TELLING: usize = 8;
    let Some(secret) = secret.filter(|secret| secret.len() >= TELLING) else {
        return text;
    };
    let mut clean = match text.contains(secret) {
        true => text.replace(secret, "***"),
        false => text,
    };
    // Messages are cut to a length, and the cut may go through it.
    let parts = (TELLING..secret.len()).rev();
    let cut = parts
        .filter_map(|length| secret.get(..length))
        .find(|part| clean.ends_with(part));
    if let Some(part) = cut {
        clean.truncate(clean.len() - part.len());
        clean.push_str("***");
    }
    clean
}

/// Whether a provider's code may stand among ours.
fn is_slug(code: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=64).contains(&code.len()) && code.bytes().all(fits)
}

/// What a body is that is no JSON: a web page by its title, a text by its beginning.
pub fn description_of(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]);
    let text = text.trim();
    if text.is_empty() || text.contains(|c: char| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    if !text.starts_with('<') {
        return Some(format!("the text: {}", short(text)));
    }
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let from = at + lower[at..].find('>')? + 1;
        let to = from + lower[from..].find("</title")?;
        text.get(from..to)
    });
    Some(match title.map(short).filter(|title| !title.is_empty()) {
        Some(title) => format!("a web page: {title}"),
        None => "a web page".to_owned(),
    })
}

/// The beginning of a text, in one line.
fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests;
