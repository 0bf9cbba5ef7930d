//! A streamed response that is passed on to a client of the same wire.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::frame::Usage;
use crate::model::provider::WireUsage;
use crate::model::{Fault, ModelError};
use crate::sse::{self, EventTooLarge, WholeEvents, raw_events};
use crate::wire::StreamGate;

/// The events that a response ends with, with the quotes around their names.
const LAST: [&[u8]; 6] = [
    b"\"response.completed\"",
    b"\"response.incomplete\"",
    b"\"response.failed\"",
    b"\"response.cancelled\"",
    b"\"response.done\"",
    b"\"error\"",
];

/// What comes before anything is said.
const OPENING: [&str; 7] = [
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.content_part.added",
    "response.reasoning_summary_part.added",
    "ping",
    "keepalive",
];

/// Lets whole events through and reads the usage of the last one.
pub struct ResponsesGate {
    whole: WholeEvents,
    usage: Option<Usage>,
    has_content: bool,
    failure: Option<Box<ModelError>>,
    /// An error was let through.
    told_error: bool,
    done: bool,
    events: u64,
}

impl ResponsesGate {
    /// `limit`: the most bytes that one event may hold.
    pub fn new(limit: usize) -> Self {
        Self {
            whole: WholeEvents::new(limit),
            usage: None,
            has_content: false,
            failure: None,
            told_error: false,
            done: false,
            events: 0,
        }
    }

    fn look(&mut self, whole: Bytes) -> Bytes {
        // Only events whose text names one of the last are parsed.
        let may_end =
            !self.has_content || LAST.iter().any(|kind| memmem::find(&whole, kind).is_some());
        let mut at = 0;
        let mut renamed = None;
        for event in raw_events(&whole) {
            let from = at;
            at += event.bytes.len();
            let Some(data) = event.data() else {
                continue;
            };
            self.events += 1;
            if may_end {
                let last = self.examine(event.name, data.trim_ascii());
                renamed = last.map(|last| (from, last));
            }
            if self.done || self.failure.is_some() {
                break;
            }
        }
        match renamed {
            None => whole.slice(..at),
            Some((from, last)) => {
                let mut out = BytesMut::from(&whole[..from]);
                let kind = last["type"].as_str();
                sse::write_event(&mut out, kind, None, &[last.to_string().as_bytes()]);
                out.freeze()
            }
        }
    }

    /// Reads what an event tells; the event to show instead, where the last has no name that clients
    /// know.
    fn examine(&mut self, name: Option<&[u8]>, data: &[u8]) -> Option<Value> {
        if !self.has_content
            && let Some(fault) = Fault::in_event(name, data)
        {
            self.failure = Some(Box::new(ModelError::InStream(Box::new(fault))));
            return None;
        }
        let mut event = match serde_json::from_slice::<Value>(data) {
            Ok(event) => event,
            Err(error) if !self.has_content && !data.is_empty() && data != b"[DONE]" => {
                let error = ModelError::Malformed(format!("an event that is no JSON: {error}"));
                self.failure = Some(Box::new(error));
                return None;
            }
            Err(_) => return None,
        };
        match event["type"].as_str() {
            Some("response.completed" | "response.incomplete" | "response.failed" | "error") => {
                self.has_content = true;
                self.done = true;
                let is_null = |value: &Value| value["error"].is_null();
                self.told_error |=
                    event["type"] == "error" || !is_null(&event) || !is_null(&event["response"]);
                self.usage = usage_in(&event["response"]).or(self.usage);
            }
            // Names of other servers, which no client waits for.
            Some("response.done" | "response.cancelled") => {
                self.has_content = true;
                self.done = true;
                self.usage = usage_in(&event["response"]).or(self.usage);
                let kind = match event["response"]["status"].as_str() {
                    Some("failed" | "cancelled") => "response.failed",
                    Some("incomplete") => "response.incomplete",
                    _ => "response.completed",
                };
                event["type"] = json!(kind);
                return Some(event);
            }
            // A message and a piece of reasoning begin empty; a call has its name.
            Some("response.output_item.added") => {
                let kind = event["item"]["type"].as_str();
                self.has_content |= !matches!(kind, Some("message" | "reasoning"));
            }
            Some(kind) => self.has_content |= !OPENING.contains(&kind),
            None => {}
        }
        None
    }
}

/// The usage that a response object tells, read as leniently as where it is translated.
pub fn usage_in(response: &Value) -> Option<Usage> {
    let usage = response["usage"].as_object()?;
    WireUsage::deserialize(usage).ok().map(Usage::from)
}

impl StreamGate for ResponsesGate {
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
        let last = match last.is_empty() {
            true => last,
            false => self.look(last),
        };
        self.done.then_some(last)
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
        self.usage
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn write_error(&self, error: &ApiError, buf: &mut BytesMut) {
        write_error(error, self.events, buf);
    }
}

/// The event that ends a stream with an error.
pub fn write_error(error: &ApiError, sequence_number: u64, buf: &mut BytesMut) {
    let event = json!({
        "type": "error",
        "sequence_number": sequence_number,
        "code": error.code,
        "message": error.message,
        "param": error.param,
    });
    sse::write_event(buf, Some("error"), None, &[event.to_string().as_bytes()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"event: response.created\ndata: {\"type\":\"response.created\"}\n\n\
        event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\
        \"delta\":\"an error, then response.completed\"}\n\n\
        event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":\
        {\"input_tokens\":3,\"output_tokens\":2,\"total_tokens\":5}}}\n\n";

    #[test]
    fn counts_come_in_many_forms() {
        let response = serde_json::json!({ "usage": { "input_tokens": 3.0, "output_tokens": "2",
            "input_tokens_details": null, "output_tokens_details": { "reasoning_tokens": 1.0 } } });
        let usage = usage_in(&response).expect("a usage");
        assert_eq!((usage.input, usage.output, usage.reasoning), (3, 2, 1));
    }

    #[test]
    fn the_end_and_its_usage_are_seen_however_it_is_cut() {
        for cut in 0..STREAM.len() {
            let mut gate = ResponsesGate::new(1000);
            let mut out = Vec::new();
            for part in [&STREAM[..cut], &STREAM[cut..]] {
                assert!(!gate.is_done());
                out.extend_from_slice(&gate.pass(Bytes::copy_from_slice(part)).expect("small"));
            }
            assert_eq!(out, STREAM);
            assert!(gate.is_done() && gate.end().is_some());
            assert_eq!(gate.events(), 3);
            assert_eq!(gate.usage().map(|u| (u.input, u.output)), Some((3, 2)));
        }
    }

    fn gate_after(events: &[&str]) -> ResponsesGate {
        let mut gate = ResponsesGate::new(1000);
        for event in events {
            let event = format!("data: {event}\n\n");
            gate.pass(Bytes::from(event)).expect("small");
        }
        gate
    }

    #[test]
    fn failures_before_content_are_told() {
        let created = "{\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\",\"error\":null}}";
        let progress = "{\"type\":\"response.in_progress\",\"response\":{\"error\":null}}";
        let message = "{\"type\":\"response.output_item.added\",\"item\":{\"type\":\"message\",\"content\":[]}}";
        for failure in [
            "{\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_is_overloaded\",\"message\":\"no\"}}}",
            "{\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"no\",\"param\":null}",
            "{\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"no\"}}",
            "{\"error\":{\"message\":\"no\"}}",
            "nonsense",
        ] {
            let mut gate = gate_after(&[created, progress, message, failure]);
            assert!(gate.failure().is_some() && !gate.has_content(), "{failure}");
        }
        for content in [
            "{\"type\":\"response.output_text.delta\",\"delta\":\"a\"}",
            "{\"type\":\"response.output_item.added\",\"item\":{\"type\":\"function_call\",\"name\":\"f\"}}",
            "{\"type\":\"response.reasoning_summary_text.delta\",\"delta\":\"a\"}",
            "{\"type\":\"response.completed\",\"response\":{\"error\":null}}",
        ] {
            let mut gate = gate_after(&[created, content]);
            assert!(gate.failure().is_none() && gate.has_content(), "{content}");
        }
        // Afterwards they are the client's.
        let delta = "{\"type\":\"response.output_text.delta\",\"delta\":\"error\"}";
        let mut gate = gate_after(&[created, delta]);
        assert!(!gate.is_done());
        gate.pass(Bytes::from_static(b"data: {\"type\":\"error\"}\n\n"))
            .expect("small");
        assert!(gate.is_done() && gate.failure().is_none());
    }

    #[test]
    fn a_stream_without_its_last_event_is_cut() {
        let mut gate = ResponsesGate::new(1000);
        let end = STREAM.len() - 140;
        gate.pass(Bytes::copy_from_slice(&STREAM[..end]))
            .expect("small");
        assert!(gate.end().is_none());
    }
}
