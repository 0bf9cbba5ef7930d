//! A streamed message that is passed on to a client of the same wire.

use bytes::{Bytes, BytesMut};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::errors;
use crate::error::ApiError;
use crate::frame::Usage;
use crate::lenient;
use crate::model::provider::{AnthropicCounts, is_end};
use crate::model::{Fault, ModelError};
use crate::sse::{self, EventTooLarge, Odd, WholeEvents, odd, raw_events};
use crate::wire::StreamGate;

/// Events of a message's content, which tell nothing else.
const CONTENT: [&[u8]; 3] = [
    b"content_block_start",
    b"content_block_delta",
    b"content_block_stop",
];
const STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Lets whole events through, reads the usage on the way, and sees the end.
pub struct MessagesGate {
    whole: WholeEvents,
    counts: AnthropicCounts,
    has_counts: bool,
    has_content: bool,
    failure: Option<Box<ModelError>>,
    /// Why it stopped has been told.
    finished: bool,
    told_error: bool,
    done: bool,
    events: u64,
}

/// What the client sees of an event.
enum Shown {
    AsItIs,
    Nothing,
    Instead(Vec<u8>),
}

impl MessagesGate {
    /// `limit`: the most bytes that one event may hold.
    pub fn new(limit: usize) -> Self {
        Self {
            whole: WholeEvents::new(limit),
            counts: AnthropicCounts::default(),
            has_counts: false,
            has_content: false,
            failure: None,
            finished: false,
            told_error: false,
            done: false,
            events: 0,
        }
    }

    fn look(&mut self, whole: Bytes) -> Bytes {
        let mut at = 0;
        // Set once something is left out or put right.
        let mut kept: Option<BytesMut> = None;
        for event in raw_events(&whole) {
            let from = at;
            at += event.bytes.len();
            let shown = match event.data() {
                Some(data) => self.event(event.name, data.trim_ascii()),
                // Comments that keep a connection open are not gathered.
                None if !self.has_content => Shown::Nothing,
                None => Shown::AsItIs,
            };
            if kept.is_none() && !matches!(shown, Shown::AsItIs) {
                kept = Some(BytesMut::from(&whole[..from]));
            }
            if let Some(kept) = &mut kept {
                match shown {
                    Shown::AsItIs => kept.extend_from_slice(event.bytes),
                    Shown::Nothing => {}
                    Shown::Instead(event) => kept.extend_from_slice(&event),
                }
            }
            if self.done || self.failure.is_some() {
                break;
            }
        }
        match kept {
            Some(kept) => kept.freeze(),
            // What is behind the end is nobody's.
            None => whole.slice(..at),
        }
    }

    fn event(&mut self, name: Option<&[u8]>, data: &[u8]) -> Shown {
        if name != Some(b"ping") {
            self.events += 1;
        }
        let is_content = |name: &[u8]| CONTENT.contains(&name) && names(data, name);
        if self.has_content && name.is_some_and(is_content) {
            return Shown::AsItIs;
        }
        self.examine(name, data)
    }

    /// Reads what an event tells.
    fn examine(&mut self, name: Option<&[u8]>, data: &[u8]) -> Shown {
        // Of servers that speak another wire, too.
        if data.is_empty() || data == b"[DONE]" || name == Some(b"ping") {
            return match name {
                Some(b"ping") => Shown::AsItIs,
                _ => Shown::Nothing,
            };
        }
        let mut is_mended = false;
        let parsed = serde_json::from_slice::<Value>(data).or_else(|error| {
            is_mended = true;
            serde_json::from_slice(&lenient::well_formed(data)).map_err(|_| error)
        });
        let mut told = match parsed {
            Ok(told) => told,
            Err(_) if matches!(odd(name, data), Some(Odd::Alive)) => return Shown::Nothing,
            Err(error) if !self.has_content => {
                return self.fail(ModelError::Malformed(format!(
                    "an event that is no JSON: {error}"
                )));
            }
            Err(_) => return Shown::AsItIs,
        };
        if !self.has_content
            && let Some(fault) = Fault::in_event(name, data)
        {
            return self.fail(ModelError::InStream(Box::new(fault)));
        }
        let named = name.map(|name| String::from_utf8_lossy(name).into_owned());
        let kind = told["type"].as_str().map(str::to_owned).or(named.clone());
        let kind = kind.unwrap_or_default();
        if let Some(failed) = self.tells(&kind, &told) {
            return failed;
        }
        // Clients go by both.
        let is_whole = named.as_deref() == Some(&*kind) && told["type"] == *kind;
        let is_word = kind
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        let is_named = is_word && !kind.is_empty() && told.is_object();
        if is_whole && !is_mended || !is_named {
            return Shown::AsItIs;
        }
        if let Value::Object(members) = &mut told {
            members.insert("type".to_owned(), json!(kind));
        }
        let mut event = BytesMut::new();
        sse::write_event(
            &mut event,
            Some(&kind),
            None,
            &[told.to_string().as_bytes()],
        );
        Shown::Instead(event.to_vec())
    }

    fn fail(&mut self, error: ModelError) -> Shown {
        self.failure = Some(Box::new(error));
        Shown::Nothing
    }

    fn count(&mut self, usage: &Value) {
        if usage.is_object() {
            self.has_counts = true;
            self.counts.add(usage);
        }
    }

    fn tells(&mut self, kind: &str, told: &Value) -> Option<Shown> {
        match kind {
            "message_start" => {
                self.count(&told["message"]["usage"]);
                let content = told["message"]["content"].as_array();
                self.has_content |= content.is_some_and(|blocks| !blocks.is_empty());
            }
            "content_block_start" => {
                let block = &told["content_block"];
                let is_said = |name: &str| block[name].as_str().is_some_and(|t| !t.is_empty());
                self.has_content |= match block["type"].as_str() {
                    // They begin empty; a call has its name.
                    None | Some("text" | "thinking") => is_said("text") || is_said("thinking"),
                    Some(_) => true,
                };
            }
            "content_block_delta" => self.has_content = true,
            "message_delta" => {
                self.count(&told["usage"]);
                let reason = told["delta"]["stop_reason"].as_str();
                self.finished |= reason.is_some_and(is_end);
                self.has_content |= self.finished;
            }
            "message_stop" => {
                self.count(&told["usage"]);
                if !self.has_content {
                    let message = "a stream that ends before it says anything";
                    return Some(self.fail(ModelError::Malformed(message.to_owned())));
                }
                self.done = true;
            }
            _ if kind == "error" || !told["error"].is_null() => {
                self.told_error = true;
                self.done = true;
            }
            _ => {}
        }
        None
    }
}

/// Whether an event's data says that it is of this type, as Anthropic writes it.
fn names(data: &[u8], kind: &[u8]) -> bool {
    let rest = data.strip_prefix(b"{\"type\":\"");
    let rest = rest.and_then(|rest| rest.strip_prefix(kind));
    rest.is_some_and(|rest| rest.starts_with(b"\""))
}

impl StreamGate for MessagesGate {
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, EventTooLarge> {
        let whole = self.whole.pass(chunk)?;
        match whole.is_empty() {
            true => Ok(whole),
            false => Ok(self.look(whole)),
        }
    }

    fn end(&mut self) -> Option<Bytes> {
        let is_json = |data: &[u8]| serde_json::from_slice::<IgnoredAny>(data).is_ok();
        let last = self.whole.last(is_json)?;
        let mut last = match last.is_empty() {
            true => BytesMut::new(),
            false => BytesMut::from(&self.look(last)[..]),
        };
        if !self.done {
            if !self.finished {
                return None;
            }
            last.extend_from_slice(STOP);
        }
        Some(last.freeze())
    }

    fn has_content(&self) -> bool {
        self.has_content
    }

    fn failure(&mut self) -> Option<ModelError> {
        self.failure.take().map(|failure| *failure)
    }

    fn told_error(&mut self) -> bool {
        std::mem::take(&mut self.told_error)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn usage(&self) -> Option<Usage> {
        self.has_counts.then(|| self.counts.usage())
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn write_error(&self, error: &ApiError, buf: &mut BytesMut) {
        errors::write_error(error, buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\
        \"content\":[],\"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":4,\
        \"output_tokens\":1}}}\n\n";
    const BLOCK: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\
        \"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\
        \"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"an error, message_stop\"}}\n\n";
    const END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\
        \"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\n\n";
    const ERROR: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\
        \"message\":\"no\"}}\n\n";

    fn pass(gate: &mut MessagesGate, events: &str) -> String {
        let out = gate.pass(Bytes::copy_from_slice(events.as_bytes()));
        String::from_utf8(out.expect("small").to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let stop = std::str::from_utf8(STOP).expect("UTF-8");
        let stream = [START, BLOCK, PING, DELTA, END, stop].concat();
        for cut in 0..stream.len() {
            let mut gate = MessagesGate::new(1000);
            let mut out = pass(&mut gate, &stream[..cut]);
            assert!(!gate.is_done());
            out += &pass(&mut gate, &stream[cut..]);
            assert_eq!(out, stream);
            assert!(gate.is_done() && gate.end().is_some() && gate.failure().is_none());
            assert_eq!(gate.events(), 5);
            let usage = gate.usage().expect("a usage");
            assert_eq!((usage.input, usage.cache_read, usage.output), (7, 4, 9));
        }
    }

    #[test]
    fn a_failure_before_content_is_told_and_behind_it_the_clients() {
        let mut gate = MessagesGate::new(1000);
        pass(&mut gate, &[START, PING, BLOCK].concat());
        assert!(!gate.has_content());
        pass(&mut gate, ERROR);
        assert!(gate.failure().is_some());
        let mut gate = MessagesGate::new(1000);
        pass(&mut gate, &[START, BLOCK, DELTA].concat());
        assert!(gate.has_content());
        assert_eq!(pass(&mut gate, ERROR), ERROR);
        assert!(gate.told_error() && gate.is_done() && gate.failure().is_none());
        let mut gate = MessagesGate::new(1000);
        pass(
            &mut gate,
            &[START, std::str::from_utf8(STOP).expect("UTF-8")].concat(),
        );
        assert!(gate.failure().is_some());
    }

    #[test]
    fn a_stream_is_cut_unless_its_end_was_told() {
        let mut gate = MessagesGate::new(1000);
        pass(&mut gate, &[START, BLOCK, DELTA].concat());
        assert!(gate.end().is_none());
        let mut gate = MessagesGate::new(1000);
        pass(&mut gate, &[START, BLOCK, DELTA, END.trim_end()].concat());
        let rest = gate.end().expect("an end");
        assert!(rest.ends_with(STOP) && gate.usage().is_some());
    }

    #[test]
    fn events_get_their_names_and_types() {
        let mut gate = MessagesGate::new(1000);
        pass(&mut gate, &[START, BLOCK, DELTA].concat());
        let delta = "{\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}";
        let named = pass(
            &mut gate,
            &format!("event: content_block_delta\ndata: {delta}\n\n"),
        );
        assert!(
            named.contains("\"type\":\"content_block_delta\""),
            "{named}"
        );
        let bare = "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n";
        let named = pass(&mut gate, bare);
        assert!(named.starts_with("event: content_block_stop\n"), "{named}");
        assert_eq!(pass(&mut gate, "data: [DONE]\n\n"), "");
    }
}
