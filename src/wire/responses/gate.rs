//! A streamed response that is passed on to a client of the same wire.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::frame::Usage;
use crate::sse::{self, EventTooLarge, WholeEvents, first_event_end};
use crate::wire::Gate;

/// The events that a response ends with.
const LAST: [&str; 4] = [
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
];

/// Lets whole events through and reads the usage of the last one.
pub struct ResponsesGate {
    whole: WholeEvents,
    usage: Option<Usage>,
    done: bool,
    events: u64,
}

impl ResponsesGate {
    /// `limit`: the most bytes that one event may hold.
    pub fn new(limit: usize) -> Self {
        Self {
            whole: WholeEvents::new(limit),
            usage: None,
            done: false,
            events: 0,
        }
    }

    fn look(&mut self, events: &Bytes) {
        let mut rest = events.clone();
        // Only events whose text names one of the last are parsed.
        let may_end = LAST
            .iter()
            .any(|kind| memmem::find(events, kind.as_bytes()).is_some());
        if !may_end {
            self.events += memmem::find_iter(events, b"data:").count() as u64;
            return;
        }
        while !rest.is_empty() {
            let event = rest.split_to(first_event_end(&rest).unwrap_or(rest.len()));
            self.events += 1;
            let Some(at) = memmem::find(&event, b"data:") else {
                continue;
            };
            let Ok(data) = serde_json::from_slice::<Value>(event[at + 5..].trim_ascii()) else {
                continue;
            };
            if LAST.contains(&data["type"].as_str().unwrap_or_default()) {
                self.done = true;
                self.usage = usage_in(&data["response"]).or(self.usage);
            }
        }
    }
}

/// The usage that a response object tells.
pub fn usage_in(response: &Value) -> Option<Usage> {
    let usage = response["usage"].as_object()?;
    let count = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(0);
    let detail = |of: &str, name: &str| count(usage.get(of).and_then(|d| d.get(name)));
    Some(Usage {
        input: count(usage.get("input_tokens")),
        output: count(usage.get("output_tokens")),
        cache_read: detail("input_tokens_details", "cached_tokens"),
        cache_write: 0,
        reasoning: detail("output_tokens_details", "reasoning_tokens"),
    })
}

impl Gate for ResponsesGate {
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, EventTooLarge> {
        let whole = self.whole.pass(chunk)?;
        if !whole.is_empty() {
            self.look(&whole);
        }
        Ok(whole)
    }

    fn end(&mut self) -> Option<Bytes> {
        let rest = self.whole.rest();
        (rest.trim_ascii().is_empty() && self.done).then(Bytes::new)
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
        let event = json!({
            "type": "error",
            "sequence_number": self.events,
            "code": error.code,
            "message": error.message,
            "param": error.param,
        });
        sse::write_event(buf, Some("error"), None, &[event.to_string().as_bytes()]);
    }
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

    #[test]
    fn a_stream_without_its_last_event_is_cut() {
        let mut gate = ResponsesGate::new(1000);
        let end = STREAM.len() - 140;
        gate.pass(Bytes::copy_from_slice(&STREAM[..end]))
            .expect("small");
        assert!(gate.end().is_none());
    }
}
