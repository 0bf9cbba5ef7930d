//! How an answer begins: its first bytes tell what it is. What it was asked to be, and what its
//! label says, is no proof: servers label JSON as an event stream and the other way round, stream
//! what they were asked for whole, and answer 200 with a failure or a web page.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::ModelError;
use super::fault::{Fault, description_of};
use super::provider::ProviderApi;
use crate::coding::Unpacker;
use crate::frame::Frame;
use crate::json::Entries;
use crate::lenient::{well_formed, without_bom};
use crate::sse::{Event, Odd, odd};
use crate::upstream::UpstreamResponse;

const MARK: &[u8] = b"\xef\xbb\xbf";
/// A member of an answer that is larger is not looked into for what it says of a failure.
const LARGE_MEMBER: usize = 16 * 1024;
/// Most blanks before an answer.
const MOST_BLANK: usize = 1024 * 1024;
/// Of what is no answer, this much is read for what it says.
const TEXT_BYTES: usize = 16 * 1024;

/// An answer with a good status, and no failure by what is known so far.
pub enum Answered {
    /// An event stream, of which nothing is read yet.
    Events(UpstreamResponse),
    /// JSON.
    Whole(Whole),
}

/// A whole answer.
pub struct Whole {
    pub body: Bytes,
    /// Its members; the answer itself and large ones as `true`.
    pub outline: Value,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Events,
    Json,
    Other,
}

/// What a body is that begins so; `None` while that is open.
fn kind_of(begun: &[u8], is_labelled: bool) -> Option<Kind> {
    if begun.len() < MARK.len() && MARK.starts_with(begun) {
        return None;
    }
    let begun = without_bom(begun).trim_ascii_start();
    let first = begun.first()?;
    match first {
        b'{' | b'[' | b'"' => return Some(Kind::Json),
        b':' => return Some(Kind::Events),
        b'<' => return Some(Kind::Other),
        _ => {}
    }
    for field in [&b"data"[..], b"event", b"id", b"retry"] {
        if begun.len() <= field.len() && field.starts_with(begun) {
            return None;
        }
        if let Some(rest) = begun.strip_prefix(field)
            && matches!(rest.first(), Some(b':' | b'\n' | b'\r'))
        {
            return Some(Kind::Events);
        }
    }
    // Unknown fields are allowed in a stream.
    Some(if is_labelled {
        Kind::Events
    } else {
        Kind::Other
    })
}

/// Reads as much of an answer as tells what it is; a whole one is read to its end, up to `limit`
/// bytes.
pub(super) async fn open(
    mut response: UpstreamResponse,
    limit: usize,
) -> Result<Answered, ModelError> {
    let is_labelled = response.is_event_stream();
    let mut begun = BytesMut::new();
    let mut blank = 0;
    let kind = loop {
        let Some(chunk) = response.chunk().await? else {
            break match begun.is_empty() {
                true => return Err(ModelError::Malformed("an empty answer".to_owned())),
                false => Kind::Other,
            };
        };
        // Mostly all that is looked at.
        if begun.is_empty() && kind_of(&chunk, is_labelled) == Some(Kind::Events) {
            response.put_back(chunk);
            response.forget_headers();
            return Ok(Answered::Events(response));
        }
        if begun.is_empty()
            && response.is_as_it_is()
            && let Some(unpacker) = Unpacker::recognized(&chunk)
        {
            response.unpack(unpacker, chunk);
            continue;
        }
        begun.extend_from_slice(&chunk);
        if let Some(kind) = kind_of(&begun, is_labelled) {
            break kind;
        }
        // Some servers send line breaks until there is an answer.
        if without_bom(&begun).trim_ascii().is_empty() {
            blank += begun.len();
            if blank > MOST_BLANK {
                return Err(ModelError::Malformed("nothing but blanks".to_owned()));
            }
            begun.clear();
        }
    };
    response.put_back(begun.freeze());
    match kind {
        Kind::Events => {
            response.forget_headers();
            Ok(Answered::Events(response))
        }
        Kind::Json => Whole::of(response.body(limit).await?).map(Answered::Whole),
        Kind::Other => {
            let begun = response.beginning(TEXT_BYTES).await;
            let what = description_of(without_bom(&begun));
            let what = what.unwrap_or_else(|| "bytes that are no text".to_owned());
            Err(ModelError::Malformed(what))
        }
    }
}

impl Whole {
    /// An error when the body is no JSON, or tells of a failure.
    fn of(body: Bytes) -> Result<Self, ModelError> {
        let body = match body.starts_with(MARK) {
            true => body.slice(MARK.len()..),
            false => body,
        };
        let (body, outline) = match outline_of(&body) {
            Ok(outline) => (body, outline),
            Err(error) => {
                let no_json = || format!("an answer that is no JSON: {error}");
                // By a hair, it may be.
                let mended = Bytes::from(well_formed(&body).into_owned());
                match outline_of(&mended) {
                    Ok(outline) => (mended, outline),
                    Err(_) => {
                        let listed =
                            listed(&body).ok_or_else(|| ModelError::Malformed(no_json()))?;
                        let outline = outline_of(&listed);
                        (
                            listed,
                            outline.map_err(|_| ModelError::Malformed(no_json()))?,
                        )
                    }
                }
            }
        };
        match Fault::in_answer(&outline) {
            Some(fault) => Err(ModelError::InStream(Box::new(fault))),
            None if outline.is_object() || outline.is_array() => Ok(Self { body, outline }),
            None => Err(ModelError::Malformed(format!(
                "an answer that is no JSON object, but {}",
                outline.to_string().chars().take(80).collect::<String>()
            ))),
        }
    }

    /// An error unless there is a list that holds something under `name`, where the answer is.
    pub fn must_hold(&self, name: &str) -> Result<(), ModelError> {
        match &self.outline[name] {
            Value::Array(list) if !list.is_empty() => Ok(()),
            Value::Bool(true) => Ok(()),
            // Of several pieces, each is looked at where it is read.
            _ if self.is_in_pieces() => Ok(()),
            _ => Err(ModelError::Malformed(format!("an answer without '{name}'"))),
        }
    }

    /// Whether it came as the events of a stream.
    pub fn is_in_pieces(&self) -> bool {
        matches!(&self.outline, Value::Array(pieces) if !pieces.is_empty())
    }

    /// Its frames, by the rules of the wire that it was asked in.
    pub fn frames(&self, api: &dyn ProviderApi) -> Result<Vec<Frame>, ModelError> {
        let incomplete = |error| match error {
            ModelError::Cut => ModelError::Malformed("an answer that holds nothing".to_owned()),
            other => other,
        };
        if !self.body.trim_ascii_start().starts_with(b"[") {
            return api.decode_full(&self.body).map_err(incomplete);
        }
        // The events of a stream as a list: how Gemini streams when it is not told otherwise.
        let events: Vec<&RawValue> =
            serde_json::from_slice(&self.body).map_err(|e| ModelError::Malformed(e.to_string()))?;
        let mut decoder = api.decoder();
        let mut frames = Vec::new();
        for event in events {
            let event = Event {
                name: None,
                data: self.body.slice_ref(event.get().as_bytes()),
                id: None,
                retry: None,
            };
            let read = decoder.event(&event, &mut frames);
            read.map_err(|error| match error {
                ModelError::Malformed(_) => {
                    ModelError::Malformed("a list that holds no answer".to_owned())
                }
                other => other,
            })?;
        }
        decoder.finish(&mut frames).map_err(incomplete)?;
        Ok(frames)
    }
}

/// The list of what are JSON objects in lines, as some servers stream.
fn listed(body: &[u8]) -> Option<Bytes> {
    let Some(Odd::Events(events)) = odd(None, body) else {
        return None;
    };
    let objects: Vec<&[u8]> = events
        .into_iter()
        .filter(|event| event.starts_with(b"{"))
        .collect();
    Some(Bytes::from([b"[", &objects.join(&b',')[..], b"]"].concat()))
}

/// Members that hold the answer, in all wires: that they hold something is all that must be known.
const ANSWERS: [&str; 5] = ["choices", "output", "candidates", "content", "data"];

/// Members that tell nothing of a failure, in all wires; most answers have hardly any other.
const BESIDE: [&str; 12] = [
    "id",
    "created",
    "created_at",
    "model",
    "usage",
    "system_fingerprint",
    "service_tier",
    "usageMetadata",
    "modelVersion",
    "responseId",
    "provider",
    "prompt_filter_results",
];

/// What an answer's members are, without the answer itself and what is large in it: a failure is small.
fn outline_of(body: &[u8]) -> Result<Value, serde_json::Error> {
    let is_small = body.len() <= LARGE_MEMBER;
    if body.trim_ascii_start().starts_with(b"[") {
        if is_small {
            return serde_json::from_slice(body);
        }
        let list: Vec<&RawValue> = serde_json::from_slice(body)?;
        return Ok(list.into_iter().take(1).map(small).collect());
    }
    let members: Entries<&RawValue> = match serde_json::from_slice(body) {
        Ok(members) => members,
        Err(_) if is_small => return serde_json::from_slice(body),
        Err(error) => return Err(error),
    };
    let mut outline = Map::new();
    for (name, raw) in members {
        if BESIDE.contains(&name.as_str()) {
            continue;
        }
        let is_answer = ANSWERS.contains(&name.as_str()) && holds_something(raw);
        let value = match is_answer {
            true => Value::Bool(true),
            false => small(raw),
        };
        outline.insert(name, value);
    }
    Ok(Value::Object(outline))
}

/// Whether it is a list that is not empty.
fn holds_something(raw: &RawValue) -> bool {
    let inner = raw.get().strip_prefix('[').map(str::trim_start);
    inner.is_some_and(|inner| !inner.starts_with(']'))
}

fn small(raw: &RawValue) -> Value {
    match raw.get().len() <= LARGE_MEMBER {
        true => serde_json::from_str(raw.get()).unwrap_or(Value::Bool(true)),
        false => Value::Bool(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_bytes_tell_what_it_is() {
        for (begun, kind) in [
            (&b"data: x"[..], Some(Kind::Events)),
            (b"data\n", Some(Kind::Events)),
            (b": hi\n", Some(Kind::Events)),
            (b"\n\r\nevent:x", Some(Kind::Events)),
            (b"\xef\xbb\xbfid: 1", Some(Kind::Events)),
            (b"retry:3", Some(Kind::Events)),
            (b" \n{\"a\":1}", Some(Kind::Json)),
            (b"[", Some(Kind::Json)),
            (b"\xef\xbb\xbf{", Some(Kind::Json)),
            (b"\"text\"", Some(Kind::Json)),
            (b"<!DOCTYPE html>", Some(Kind::Other)),
            (b"upstream error", Some(Kind::Other)),
            (b"database down", Some(Kind::Other)),
            (b"dat", None),
            (b"data", None),
            (b"e", None),
            (b"\xef\xbb", None),
            (b"\n\n", None),
            (b"", None),
        ] {
            assert_eq!(kind_of(begun, false), kind, "{begun:?}");
        }
        assert_eq!(kind_of(b"x: 1\n", true), Some(Kind::Events));
        assert_eq!(kind_of(b"{\"error\":1}", true), Some(Kind::Json));
    }

    fn whole(value: &Value) -> Result<Whole, ModelError> {
        Whole::of(Bytes::from(value.to_string()))
    }

    #[test]
    fn failures_are_found_beside_what_is_large() {
        let large = "x".repeat(LARGE_MEMBER);
        let answer = whole(&json!({ "choices": [{ "text": large }], "error": null }));
        assert!(answer.expect("an answer").must_hold("choices").is_ok());
        let failure =
            whole(&json!({ "padding": large, "error": { "message": "no", "code": 429 } }));
        assert!(matches!(failure, Err(ModelError::InStream(fault)) if fault.message == "no"));
        assert!(whole(&json!([{ "error": { "message": large } }])).is_ok());
        assert!(whole(&json!([{ "error": { "message": "no" } }])).is_err());
        for without in [
            json!({ "choices": null }),
            json!({ "choices": [] }),
            json!({}),
            json!([]),
        ] {
            assert!(whole(&without).expect("JSON").must_hold("choices").is_err());
        }
        for other in [&b"{\"choices\":["[..], b"\"oops\"", b"null", b"3", b""] {
            assert!(Whole::of(Bytes::from_static(other)).is_err());
        }
    }
}
