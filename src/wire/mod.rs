//! The client wires: bytes to a run request, frames to bytes. One folder each, with what serves it
//! and its routes.
//!
//! Lives here beside them: who asks (`caller`), how a turn is begun and followed, whatever the wire (`turn`), how an
//! answer of a provider that speaks the client's wire is passed on (`forward`), keys of turns that
//! are sent again (`keyed`), decisions on runs that wait (`decision`), files that a request names
//! (`files`), and what it says of tools and of the answer's form (`choice`).

mod caller;
pub mod chat;
mod choice;
mod decision;
mod files;
mod forward;
mod keyed;
pub mod native;
mod plain;
pub mod responses;
mod turn;
pub mod ui;

pub use plain::{Plain, PlainEncoder};

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::frame::{Frame, StopReason, Usage};
use crate::lenient;
use crate::model::ModelError;
use crate::sse::EventTooLarge;
use crate::untrusted::{MAX_JSON_DEPTH, is_too_deep};

/// Frames on their way to a client, as the events of its wire.
pub trait FrameEncoder {
    /// Appends the events of `frame`. A run's terminal frame ends the stream.
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut);
    /// Events written so far.
    fn written(&self) -> u64;
}

/// An encoder whose stream may also end without a run's terminal frame.
pub trait AnswerEncoder: FrameEncoder {
    /// Appends what ends the stream well.
    fn finish(&mut self, stop: StopReason, usage: &Usage, buf: &mut BytesMut);
    /// Appends what tells of a failure, and ends the stream.
    fn fail(&mut self, error: &ApiError, buf: &mut BytesMut);
    /// Whether the stream has had its end.
    fn is_ended(&self) -> bool;
}

/// A provider's stream on its way to a client of the same wire.
pub trait Gate: Send + Sync {
    /// Takes one read and gives what may go on: whole events only, maybe nothing.
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, EventTooLarge>;
    /// Called at the end of the body: what may still go on, or `None` when the stream was cut.
    fn end(&mut self) -> Option<Bytes>;
    /// Whether the first piece of content, or the end of a good answer, has gone through: until then
    /// another provider may still be asked.
    fn has_content(&self) -> bool;
    /// The failure that came in the place of content.
    fn failure(&mut self) -> Option<ModelError>;
    /// Whether an error was let through since this was asked last: one behind content is the client's.
    fn told_error(&mut self) -> bool;
    /// Whether the stream's last event was seen.
    fn is_done(&self) -> bool;
    /// The usage, once it was told.
    fn usage(&self) -> Option<Usage>;
    /// Events let through.
    fn events(&self) -> u64;
    /// How this wire tells of a failure after the header.
    fn write_error(&self, error: &ApiError, buf: &mut BytesMut);
}

/// What a run's [`Frame::RunFailed`] tells of.
fn failure(code: &Bytes, message: &Bytes, param: &Option<Box<Bytes>>) -> ApiError {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let error = ApiError::of_code(text(code), text(message));
    match param {
        None => error,
        Some(param) => error.param(text(param)),
    }
}

/// The body of a request that is read here, not passed on: without a mark of the byte order, and
/// with half surrogates replaced. What is well-formed is not copied.
pub fn readable(body: &Bytes) -> Bytes {
    match lenient::well_formed(body) {
        Cow::Borrowed(same) => body.slice_ref(same),
        Cow::Owned(mended) => Bytes::from(mended),
    }
}

/// Refuses JSON that is nested deeper than what is kept of it could be read again, and a list, which
/// serde would take for an object's members in their order.
pub fn check_shape(body: &[u8]) -> Result<(), ApiError> {
    if is_too_deep(body) {
        return Err(ApiError::bad_request(
            "invalid_request",
            format!("the JSON is nested too deeply: {MAX_JSON_DEPTH} levels are allowed"),
        ));
    }
    match body.trim_ascii_start().first() {
        Some(b'[') => Err(ApiError::bad_request(
            "invalid_request",
            "the body must be a JSON object",
        )),
        _ => Ok(()),
    }
}

/// What is wrong with a member, in the words of JSON, without the place in the text where the member
/// itself is named.
pub fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return text;
    }
    let text = text.rfind(" at line ").map_or(&*text, |at| &text[..at]);
    if text.starts_with("data did not match any variant") {
        return "it has none of the forms that it may have".to_owned();
    }
    // What was sent comes first, and may say anything; what is expected are our own types.
    let Some((sent, expected)) = text.rsplit_once(", expected ") else {
        return text.to_owned();
    };
    let sent = match sent.split_once(": ") {
        Some((what, "map")) => format!("{what}: object"),
        Some((what, "sequence")) => format!("{what}: list"),
        _ => sent.to_owned(),
    };
    format!("{sent}, expected {}", name_of_type(expected))
}

/// A type of ours as JSON has it.
fn name_of_type(expected: &str) -> &str {
    let first = expected.split(' ').next().unwrap_or_default();
    match (first, expected) {
        ("struct", _) | (_, "a map") => "an object",
        ("tuple", _) | (_, "a sequence") => "a list",
        ("enum" | "internally" | "adjacently", _) => "one of the kinds that there are",
        ("u8" | "u16" | "u32" | "u64" | "usize", _) => "a whole number that is not negative",
        ("i8" | "i16" | "i32" | "i64" | "isize", _) => "a whole number",
        ("f32" | "f64", _) => "a number",
        (_, "unit") => "null",
        _ => expected,
    }
}

/// The member that is missing, or there twice, which the path does not name.
fn member_in(words: &str) -> Option<&str> {
    let rest = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|before| words.strip_prefix(before))?;
    rest.strip_suffix('`')
}

/// Parses a JSON body, which is an object; the error names the field at fault.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    check_shape(body)?;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = match error.path().to_string() {
            nowhere if matches!(nowhere.as_str(), "." | "?") => String::new(),
            path => path,
        };
        let words = match body.trim_ascii().is_empty() {
            true => "the body is empty".to_owned(),
            false => in_words(error.inner()),
        };
        let param = match (path.as_str(), member_in(&words)) {
            ("", None) => None,
            ("", Some(member)) => Some(member.to_owned()),
            (_, None) => Some(path),
            (path, Some(member)) => Some(format!("{path}.{member}")),
        };
        let bad = ApiError::bad_request("invalid_request", words);
        match param {
            Some(param) => bad.param(param),
            None => bad,
        }
    })?;
    deserializer
        .end()
        .map_err(|e| ApiError::bad_request("invalid_request", e.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Things {
        list: Option<Vec<u32>>,
        inner: Option<Box<Things>>,
        name: Option<String>,
    }

    #[test]
    fn faults_are_told_without_our_types() {
        for (body, message, param) in [
            ("null", "invalid type: null, expected an object", None),
            (
                "\"x, expected struct Y\"",
                "invalid type: string \"x, expected struct Y\", expected an object",
                None,
            ),
            (
                "{\"list\": {}}",
                "invalid type: object, expected a list",
                Some("list"),
            ),
            (
                "{\"list\": [-1]}",
                "invalid value: integer `-1`, expected a whole number that is not negative",
                Some("list[0]"),
            ),
            (
                "{\"inner\": 1}",
                "invalid type: integer `1`, expected an object",
                Some("inner"),
            ),
            (
                "{\"name\": [1]}",
                "invalid type: list, expected a string",
                Some("name"),
            ),
        ] {
            let error = parse::<Things>(body.as_bytes()).expect_err(body);
            assert_eq!(error.message, message, "{body}");
            assert_eq!(error.param.as_deref(), param, "{body}");
        }
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Inner {
        kind: String,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Option<Inner>,
    }

    #[test]
    fn members_that_are_missing_or_there_twice_are_named() {
        for (body, param, words) in [
            ("", None, "the body is empty"),
            ("{", None, "EOF"),
            ("{\"name\":\"x\",}", None, "trailing comma"),
            ("{}", Some("name"), "missing field"),
            (
                "{\"name\":\"a\",\"name\":\"b\"}",
                Some("name"),
                "duplicate field",
            ),
            (
                "{\"name\":\"x\",\"inner\":{}}",
                Some("inner.kind"),
                "missing field",
            ),
        ] {
            let error = parse::<Outer>(body.as_bytes()).expect_err(body);
            assert_eq!(error.param.as_deref(), param, "{body}: {}", error.message);
            assert!(error.message.contains(words), "{body}: {}", error.message);
        }
    }
}
