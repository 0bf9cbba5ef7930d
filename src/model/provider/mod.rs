//! The provider wires: how each one is asked and how its answers become frames.
//!
//! Lives here: the [`ProviderApi`] and [`StreamDecoder`] traits and one file for each wire.
//! Adding a wire is one file and one line in [`api`]. May import `frame`, `sse`, the neutral
//! request and error of `model`, and `config` for the wire's name.

mod anthropic;
mod cited;
mod finish;
mod gemini;
mod openai_chat;
mod openai_responses;
pub(super) mod reasoning;
mod repeat;
mod said;
mod usage;

pub use anthropic::Counts as AnthropicCounts;
pub use cited::Ruler;
pub use finish::is_end;
pub use gemini::usage_of as gemini_usage;
pub use usage::{WireUsage, usage_in_chunk};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use self::repeat::Repeating;
use self::said::Halves;
use super::error::ModelError;
use super::fault::Fault;
use super::param::Param;
use super::request::ModelRequest;
use crate::config::{ProviderWire, Rules};
use crate::frame::{Escaped, Frame};
use crate::lenient::mended;
use crate::sse::Event;

/// Calls, blocks and items of one answer, which are looked through for each piece of it. None has so
/// many, and whoever sends more would have a worker look for hours.
const MOST_OF_ONE_ANSWER: usize = 4096;

/// Refuses an answer that has more of something than any has.
fn check_count(count: usize) -> Result<(), ModelError> {
    match count > MOST_OF_ONE_ANSWER {
        true => Err(ModelError::Malformed(format!(
            "the answer has more than {MOST_OF_ONE_ANSWER} calls or parts"
        ))),
        false => Ok(()),
    }
}

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
    /// Where a body has `param`, as JSON Pointers (RFC 6901); nowhere: the wire has no place for it.
    fn places(&self, param: Param) -> &'static [&'static str];
    /// A decoder for one streamed answer.
    fn decoder(&self) -> Box<dyn StreamDecoder>;
    /// The same, which parses every event.
    #[cfg(test)]
    fn parser(&self) -> Box<dyn StreamDecoder>;
    /// The frames of an answer that was not streamed, as the wire's own file reads it.
    fn read_full(&self, body: &Bytes) -> Result<Vec<Frame>, ModelError>;
    /// The frames of an answer that was not streamed.
    fn decode_full(&self, body: &Bytes) -> Result<Vec<Frame>, ModelError> {
        let mut frames = self.read_full(body)?;
        let mut halves = Halves::default();
        halves.mend(&mut frames, 0);
        Ok(frames)
    }
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
    /// Takes note of a frame whose event was not handed over, as it only repeated another's shape;
    /// `is_plain`: its text is ASCII without escapes.
    fn repeated(&mut self, _frame: &Frame, _is_plain: bool) {}
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

/// Why a piece of an answer could not be read.
enum Unread {
    Json(serde_json::Error),
    Model(ModelError),
}

impl From<serde_json::Error> for Unread {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl From<ModelError> for Unread {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl Unread {
    /// `data`: what was read.
    fn into_error(self, data: &[u8]) -> ModelError {
        const SHOWN: usize = 120;
        match self {
            Self::Model(error) => error,
            Self::Json(error) => {
                let shown: String = String::from_utf8_lossy(data).chars().take(SHOWN).collect();
                ModelError::Malformed(format!("{error} in {shown:?}"))
            }
        }
    }
}

/// The failure that a member `error` tells of, whatever its shape.
fn failed_with(error: Option<&serde_json::value::RawValue>) -> ModelError {
    match error {
        Some(error) => ModelError::InStream(Box::new(Fault::told_by(error.get()))),
        None => ModelError::told("", "no message"),
    }
}

/// Reads `data`; where it is not what the wire says, reads it again as JSON that is mended, with
/// its shape put right. `read` parses before it does anything else.
fn leniently<R>(
    data: &Bytes,
    reshape: impl FnOnce(&mut Value),
    mut read: impl FnMut(&Bytes) -> Result<R, Unread>,
) -> Result<R, Unread> {
    if crate::untrusted::is_vast(data) {
        let message = "JSON with more values in lists and objects than can be held";
        return Err(ModelError::Malformed(message.to_owned()).into());
    }
    match read(data) {
        Err(Unread::Json(error)) => match mended(data, reshape) {
            Some(mended) => read(&mended),
            None => Err(Unread::Json(error)),
        },
        done => done,
    }
}

/// The escaped text of a raw JSON value of `source`, when it is a string that is not empty.
fn text_of(source: &Bytes, raw: Option<&serde_json::value::RawValue>) -> Option<Escaped> {
    let text = Escaped::from_token(source, raw?.get())?;
    (!text.is_empty()).then_some(text)
}

fn shared(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Tells the model to answer in JSON, for wires without a switch for it.
pub(super) const JSON_ONLY: &str =
    "Answer with one JSON object only: no other text, no code fence.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_very_many_parts_is_no_answer() {
        let list = |one: &str| [one; 5_000].join(",");
        for (wire, before, one, after) in [
            (
                ProviderWire::OpenaiChat,
                r#"{"choices":[{"message":{"tool_calls":["#,
                r#"{"id":"a","function":{"name":"f","arguments":"{}"}}"#,
                r#"]},"finish_reason":"tool_calls"}]}"#,
            ),
            (
                ProviderWire::OpenaiResponses,
                r#"{"status":"completed","output":["#,
                r#"{"type":"message","content":[{"text":"a"}]}"#,
                "]}",
            ),
            (
                ProviderWire::OpenaiResponses,
                r#"{"status":"completed","output":["#,
                r#"{"type":"reasoning","summary":[]}"#,
                "]}",
            ),
            (
                ProviderWire::Anthropic,
                r#"{"stop_reason":"tool_use","content":["#,
                r#"{"type":"tool_use","id":"a","name":"f","input":{}}"#,
                "]}",
            ),
            (
                ProviderWire::Gemini,
                r#"{"candidates":[{"finishReason":"STOP","content":{"parts":["#,
                r#"{"functionCall":{"name":"f","args":{}}}"#,
                "]}}]}",
            ),
        ] {
            let told = |list: &str| {
                let body = Bytes::from([before, list, after].concat());
                api(wire).decode_full(&body)
            };
            let error = told(&list(one)).expect_err("refused");
            assert!(error.to_string().contains("more than"), "{error}");
            if !one.contains("reasoning") {
                told(&[one; 3].join(",")).expect("an answer");
            }
            // Values without end, whatever they are.
            let error = told(&["{}"; 4_000_000].join(",")).expect_err("refused");
            assert!(error.to_string().contains("more values"), "{error}");
        }
    }
}
