//! A streamed answer that is passed on to a client of the same wire, as events or as a list.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::Form;
use super::errors::write_error;
use crate::error::ApiError;
use crate::frame::Usage;
use crate::lenient;
use crate::model::provider::{gemini_usage, is_end};
use crate::model::{Fault, ModelError};
use crate::sse::{self, EventTooLarge, Odd, RawEvent, WholeEvents, odd, raw_events};
use crate::wire::StreamGate;

/// Lets whole events through, reads the usage on the way, and sees the end. Nothing but `data: ` goes
/// on: Google's own clients take anything else for JSON.
pub struct GeminiGate {
    whole: WholeEvents,
    form: Form,
    usage: Option<Value>,
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
    /// As this JSON.
    Instead(Vec<u8>),
}

/// Whether a candidate says something.
fn says(candidate: &Value) -> bool {
    let parts = match &candidate["content"]["parts"] {
        Value::Array(parts) => parts.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    };
    parts.into_iter().any(|part| match part.as_object() {
        Some(members) => members.iter().any(|(name, value)| match name.as_str() {
            "thought" | "thoughtSignature" | "thought_signature" => false,
            "text" => value.as_str().is_some_and(|text| !text.is_empty()),
            _ => !value.is_null(),
        }),
        None => part.as_str().is_some_and(|text| !text.is_empty()),
    })
}

impl GeminiGate {
    /// `limit`: the most bytes that one event may hold.
    pub fn new(limit: usize, form: Form) -> Self {
        Self {
            whole: WholeEvents::new(limit),
            form,
            usage: None,
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
        let mut kept = match self.form {
            Form::Events => None,
            Form::List => Some(BytesMut::with_capacity(whole.len())),
        };
        for event in raw_events(&whole) {
            let from = at;
            at += event.bytes.len();
            // The end of an event's empty line may come by itself.
            let is_blank = event.bytes.trim_ascii().is_empty();
            let shown = match event.data() {
                Some(data) => self.event(&event, &data),
                None if is_blank && self.form == Form::Events => Shown::AsItIs,
                None => Shown::Nothing,
            };
            let is_event = !is_blank && !matches!(shown, Shown::Nothing);
            if kept.is_none() && !matches!(shown, Shown::AsItIs) {
                kept = Some(BytesMut::from(&whole[..from]));
            }
            if let Some(kept) = &mut kept {
                self.show(shown, event.bytes, kept);
            }
            if is_event {
                self.events += 1;
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

    fn show(&self, shown: Shown, bytes: &[u8], out: &mut BytesMut) {
        let is_first = self.events == 0;
        match (shown, self.form) {
            (Shown::Nothing, _) => {}
            (Shown::AsItIs, _) => out.put_slice(bytes),
            (Shown::Instead(json), Form::Events) => sse::write_event(out, None, None, &[&json]),
            (Shown::Instead(json), Form::List) => {
                out.put_slice(if is_first { b"[" } else { b",\n" });
                out.put_slice(&json);
                if self.done {
                    out.put_slice(b"\n]");
                }
            }
        }
    }

    fn event(&mut self, event: &RawEvent<'_>, data: &[u8]) -> Shown {
        let trimmed = data.trim_ascii();
        // Of servers that speak another wire, too.
        if trimmed.is_empty() || trimmed == b"[DONE]" {
            return Shown::Nothing;
        }
        let mut mended = None;
        let parsed = serde_json::from_slice::<Value>(trimmed).or_else(|error| {
            let well = lenient::well_formed(trimmed).into_owned();
            let parsed = serde_json::from_slice(&well).map_err(|_| error);
            mended = Some(well);
            parsed
        });
        let told = match parsed {
            Ok(told) => told,
            Err(_) if matches!(odd(event.name, trimmed), Some(Odd::Alive)) => {
                return Shown::Nothing;
            }
            Err(error) if !self.has_content => {
                return self.fail(ModelError::Malformed(format!(
                    "an event that is no JSON: {error}"
                )));
            }
            Err(_) if self.form == Form::Events => return Shown::AsItIs,
            Err(_) => return Shown::Nothing,
        };
        if !self.has_content
            && let Some(fault) = Fault::in_event(event.name, trimmed)
        {
            return self.fail(ModelError::InStream(Box::new(fault)));
        }
        self.tells(&told);
        let is_plain = event.bytes.starts_with(b"data: ")
            && event.bytes.trim_ascii_end().len() == b"data: ".len() + data.trim_ascii_end().len();
        if is_plain && mended.is_none() && self.form == Form::Events {
            return Shown::AsItIs;
        }
        let mut json = mended.unwrap_or_else(|| trimmed.to_vec());
        // In JSON, line breaks stand between members alone.
        for byte in &mut json {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        Shown::Instead(json)
    }

    fn fail(&mut self, error: ModelError) -> Shown {
        self.failure = Some(Box::new(error));
        Shown::Nothing
    }

    fn tells(&mut self, told: &Value) {
        if !told["error"].is_null() {
            self.told_error = true;
            self.done = true;
            return;
        }
        let usage = super::member(told, "usageMetadata", "usage_metadata");
        if usage.is_object() {
            self.usage = Some(usage.clone());
        }
        let feedback = super::member(told, "promptFeedback", "prompt_feedback");
        let blocked = super::member(feedback, "blockReason", "block_reason");
        self.finished |= blocked.as_str().is_some_and(|reason| !reason.is_empty());
        let candidates = match &told["candidates"] {
            Value::Array(candidates) => candidates.iter().collect(),
            one => vec![one],
        };
        for candidate in candidates {
            let reason = super::member(candidate, "finishReason", "finish_reason");
            self.finished |= reason.as_str().is_some_and(is_end) || reason.is_u64();
            self.has_content |= says(candidate);
        }
        self.has_content |= self.finished;
    }
}

impl StreamGate for GeminiGate {
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
            // The wire has no last event.
            if !self.finished {
                return None;
            }
            if self.form == Form::List {
                last.put_slice(b"\n]");
            }
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
        let told = serde_json::value::to_raw_value(self.usage.as_ref()?).ok()?;
        gemini_usage(&told)
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn write_error(&self, error: &ApiError, buf: &mut BytesMut) {
        write_error(error, self.form, self.events > 0, buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str =
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}]}}]}\r\n\r\n";
    const TEXT: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"an error\"}]}}],\
        \"usageMetadata\":{\"promptTokenCount\":3}}\n\n";
    const END: &str = "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\
        \"promptTokenCount\":7,\"candidatesTokenCount\":2,\"thoughtsTokenCount\":3}}\n\n";
    const ERROR: &str =
        "data: {\"error\":{\"code\":503,\"message\":\"no\",\"status\":\"UNAVAILABLE\"}}\n\n";

    fn pass(gate: &mut GeminiGate, events: &str) -> String {
        let out = gate.pass(Bytes::copy_from_slice(events.as_bytes()));
        String::from_utf8(out.expect("small").to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let stream = [EMPTY, TEXT, END].concat();
        for form in [Form::Events, Form::List] {
            for cut in 0..stream.len() {
                let mut gate = GeminiGate::new(1000, form);
                let mut out = pass(&mut gate, &stream[..cut]);
                out += &pass(&mut gate, &stream[cut..]);
                let rest = gate.end().expect("an end");
                out += std::str::from_utf8(&rest).expect("UTF-8");
                match form {
                    Form::Events => assert_eq!(out, stream),
                    Form::List => {
                        let list: Vec<Value> = serde_json::from_str(&out).expect("a list");
                        assert_eq!(list.len(), 3);
                    }
                }
                assert!(!gate.is_done() && gate.failure().is_none());
                assert_eq!(gate.events(), 3);
                let usage = gate.usage().expect("a usage");
                assert_eq!((usage.input, usage.output, usage.reasoning), (7, 5, 3));
            }
        }
    }

    #[test]
    fn a_failure_before_content_is_told_and_behind_it_the_clients() {
        for form in [Form::Events, Form::List] {
            let mut gate = GeminiGate::new(1000, form);
            pass(&mut gate, EMPTY);
            assert!(!gate.has_content());
            pass(&mut gate, ERROR);
            assert!(gate.failure().is_some());
            let mut gate = GeminiGate::new(1000, form);
            let mut out = pass(&mut gate, TEXT);
            assert!(gate.has_content());
            out += &pass(&mut gate, ERROR);
            assert!(gate.told_error() && gate.is_done() && gate.failure().is_none());
            match form {
                Form::Events => assert_eq!(out, [TEXT, ERROR].concat()),
                Form::List => {
                    let list: Vec<Value> = serde_json::from_str(&out).expect("a list");
                    assert_eq!(list[1]["error"]["code"], 503);
                }
            }
        }
    }

    #[test]
    fn a_stream_is_cut_unless_its_end_was_told() {
        let mut gate = GeminiGate::new(1000, Form::Events);
        pass(&mut gate, TEXT);
        assert!(gate.end().is_none());
        let mut gate = GeminiGate::new(1000, Form::Events);
        pass(&mut gate, &[TEXT, END.trim_end()].concat());
        assert!(gate.end().is_some() && gate.usage().is_some());
        let mut gate = GeminiGate::new(1000, Form::List);
        pass(
            &mut gate,
            "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n",
        );
        assert!(gate.has_content() && gate.end().is_some());
    }

    #[test]
    fn nothing_but_data_goes_on() {
        let mut gate = GeminiGate::new(1000, Form::Events);
        let json = "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}";
        for odd in [
            format!(": alive\n\ndata:{json}\n\n"),
            format!("event: message\ndata: {json}\n\n"),
            format!("data: [DONE]\n\nid: 1\ndata: {json}\n\n"),
        ] {
            assert_eq!(pass(&mut gate, &odd), format!("data: {json}\n\n"));
        }
    }
}
