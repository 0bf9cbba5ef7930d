//! The provider wires: how each one is asked and how its answers become frames.
//!
//! Lives here: the [`ProviderApi`] and [`StreamDecoder`] traits and one file for each wire.
//! Adding a wire is one file and one line in [`api`]. May import `frame`, `sse`, the neutral
//! request and error of `model`, and `config` for the wire's name.

mod anthropic;
mod gemini;
mod openai_chat;
mod openai_responses;
pub(super) mod reasoning;
mod repeat;

pub use openai_chat::{ChatUsage, map_finish_reason};

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use self::repeat::Repeating;
use super::error::ModelError;
use super::request::ModelRequest;
use crate::config::{ProviderWire, Rules};
use crate::frame::{Escaped, Frame};
use crate::sse::Event;

/// How a provider is asked.
pub trait ProviderApi: Send + Sync {
    /// The path after the base URL.
    fn path(&self, model: &str, stream: bool) -> String;
    /// The headers that carry `key`, and any the wire demands.
    fn headers(&self, key: Option<&str>) -> Vec<(HeaderName, HeaderValue)>;
    /// The request body, of a request that was made to fit `rules`. `stream_usage`: whether the
    /// provider knows `stream_options`.
    fn body(
        &self,
        request: &ModelRequest,
        rules: &Rules,
        stream: bool,
        stream_usage: bool,
    ) -> Result<Value, ModelError>;
    /// A decoder for one streamed answer.
    fn decoder(&self) -> Box<dyn StreamDecoder>;
    /// The same, which parses every event.
    #[cfg(test)]
    fn parser(&self) -> Box<dyn StreamDecoder>;
    /// The frames of an answer that was not streamed.
    fn decode_full(&self, body: &Bytes) -> Result<Vec<Frame>, ModelError>;
}

/// Turns one streamed answer into frames.
pub trait StreamDecoder: Send {
    /// Appends the frames of `event` to `out`.
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError>;
    /// Whether the last event did nothing but add its frames, or what is the same when done again:
    /// one that differs from it in the frame's text alone then differs in that frame alone.
    fn may_repeat(&self) -> bool {
        true
    }
    /// Whether the answer's last event has been seen, so that nothing needs waiting for.
    fn is_done(&self) -> bool;
    /// Called at the end of the body or after its last event: an answer that did not finish is [`ModelError::Cut`].
    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError>;
}

/// The implementation of a wire.
pub fn api(wire: ProviderWire) -> &'static dyn ProviderApi {
    match wire {
        ProviderWire::OpenaiChat => &openai_chat::OpenaiChat,
        ProviderWire::OpenaiResponses => &openai_responses::OpenaiResponses,
        ProviderWire::Anthropic => &anthropic::Anthropic,
        ProviderWire::Gemini => &gemini::Gemini,
    }
}

fn bearer(key: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    if let Some(key) = key {
        headers.extend(secret_header(
            http::header::AUTHORIZATION,
            &format!("Bearer {key}"),
        ));
    }
    headers
}

/// The headers of a JSON body with `key` in `name`, as it is.
pub fn keyed(name: &HeaderName, key: &str) -> Option<(HeaderName, HeaderValue)> {
    secret_header(name.clone(), key)
}

fn secret_header(name: HeaderName, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

fn malformed(event: &Event, error: &serde_json::Error) -> ModelError {
    let shown: String = String::from_utf8_lossy(&event.data)
        .chars()
        .take(120)
        .collect();
    ModelError::Malformed(format!("{error} in {shown:?}"))
}

/// The escaped text of a raw JSON value of `source`, when it is a string that is not empty.
fn text_of(source: &Bytes, raw: Option<&serde_json::value::RawValue>) -> Option<Escaped> {
    let text = Escaped::from_token(source, raw?.get())?;
    (!text.is_empty()).then_some(text)
}

/// Mostly one: then it needs no memory of its own.
type Few<T> = smallvec::SmallVec<[T; 1]>;

/// Text that is borrowed where it holds no escape; serde borrows a `Cow`, but not one in an `Option`.
fn borrowed<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<Cow<'a, str>>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let text = <Option<Text<'a>> as serde::Deserialize>::deserialize(from)?;
    Ok(text.map(|text| text.0))
}

fn shared(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Tells the model to answer in JSON, for wires without a switch for it.
pub(super) const JSON_ONLY: &str =
    "Answer with one JSON object only: no other text, no code fence.";
