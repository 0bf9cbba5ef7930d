//! A request that is passed on to a provider of the same wire: bytes stay as they are, but for
//! the model's name and, so that streams can be accounted for, the request for usage.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::frame::Usage;
use crate::model::provider::ChatUsage;
use crate::sse::{EventTooLarge, WholeEvents, first_event_end};
use crate::wire::{Gate, refuse_list};

/// What must be known of a body before it is passed on.
#[derive(Deserialize)]
pub struct Peek<'a> {
    #[serde(borrow, default)]
    pub model: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    pub stream: Option<bool>,
}

/// The spans of a body that are replaced.
#[derive(Deserialize)]
struct Spans<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    stream_options: Option<&'a RawValue>,
}

/// A member that is there, `null` or not; an `Option` alone would take `null` for absent.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// A body made ready for one target.
#[derive(Debug)]
pub struct Forwarded {
    pub body: Bytes,
    /// The usage chunk was asked for here, not by the client, who must not see it.
    pub hide_usage: bool,
}

/// Replaces `model`, and asks for usage when `ask_usage` and the client did not.
pub fn rewrite(body: &[u8], model: &str, ask_usage: bool) -> Result<Forwarded, ApiError> {
    refuse_list(body)?;
    let invalid = |e: serde_json::Error| ApiError::bad_request("invalid_request", e.to_string());
    let spans: Spans<'_> = serde_json::from_slice(body).map_err(invalid)?;
    let offset = |raw: &RawValue| raw.get().as_ptr() as usize - body.as_ptr() as usize;
    let model = serde_json::to_vec(model).map_err(ApiError::internal)?;
    let mut edits = vec![(offset(spans.model), spans.model.get().len(), model)];
    let mut hide_usage = false;
    if ask_usage {
        match spans.stream_options.filter(|raw| raw.get() != "null") {
            None => {
                hide_usage = true;
                let key = b"\"stream_options\":{\"include_usage\":true},".to_vec();
                let brace = body.iter().position(|b| *b == b'{').unwrap_or(0);
                // A null that is already there would come second and win.
                if let Some(null) = spans.stream_options {
                    edits.push((offset(null), 4, b"{\"include_usage\":true}".to_vec()));
                } else {
                    edits.push((brace + 1, 0, key));
                }
            }
            Some(raw) => {
                let mut options: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_str(raw.get())
                        .map_err(|_| ApiError::invalid("stream_options", "must be an object"))?;
                if options.get("include_usage") != Some(&true.into()) {
                    hide_usage = true;
                    options.insert("include_usage".into(), true.into());
                    let text = serde_json::to_vec(&options).map_err(ApiError::internal)?;
                    edits.push((offset(raw), raw.get().len(), text));
                }
            }
        }
    }
    edits.sort_unstable_by_key(|(at, ..)| *at);
    let mut out = BytesMut::with_capacity(body.len() + 64);
    let mut from = 0;
    for (at, len, text) in edits {
        out.extend_from_slice(&body[from..at]);
        out.extend_from_slice(&text);
        from = at + len;
    }
    out.extend_from_slice(&body[from..]);
    Ok(Forwarded {
        body: out.freeze(),
        hide_usage,
    })
}

/// The usage in a whole answer, if it tells.
pub fn usage_of_answer(body: &Bytes) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(default)]
        usage: Option<ChatUsage>,
    }
    let probe: Probe = serde_json::from_slice(body).ok()?;
    probe.usage.map(Usage::from)
}

/// Lets whole events through and reads the usage on the way.
pub struct EventGate {
    whole: WholeEvents,
    hide_usage: bool,
    usage: Option<Usage>,
    done: bool,
    finished: bool,
    events: u64,
}

impl EventGate {
    /// `limit`: the most bytes that one event may hold.
    pub fn new(limit: usize, hide_usage: bool) -> Self {
        Self {
            whole: WholeEvents::new(limit),
            hide_usage,
            usage: None,
            done: false,
            finished: false,
            events: 0,
        }
    }

    fn look(&mut self, whole: Bytes) -> Bytes {
        self.events += memmem::find_iter(&whole, b"data:").count() as u64;
        let tail = &whole[whole.len().saturating_sub(24)..];
        self.done |= memmem::find(tail, b"[DONE]").is_some();
        if !self.finished {
            self.finished = memmem::find(&whole, b"\"finish_reason\":\"").is_some()
                || memmem::find(&whole, b"\"finish_reason\": \"").is_some();
        }
        if memmem::find(&whole, b"\"usage\"").is_none() {
            return whole;
        }
        self.take_usage(whole)
    }

    /// The slow path, for the one or two reads that tell the usage.
    fn take_usage(&mut self, whole: Bytes) -> Bytes {
        let mut kept = BytesMut::with_capacity(whole.len());
        let mut rest = whole;
        while !rest.is_empty() {
            let event = rest.split_to(first_event_end(&rest).unwrap_or(rest.len()));
            if let Some((usage, only_usage)) = usage_of_event(&event) {
                self.usage = Some(usage);
                if self.hide_usage && only_usage {
                    self.events -= 1;
                    continue;
                }
            }
            kept.extend_from_slice(&event);
        }
        kept.freeze()
    }
}

impl Gate for EventGate {
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, EventTooLarge> {
        let whole = self.whole.pass(chunk)?;
        match whole.is_empty() {
            true => Ok(whole),
            false => Ok(self.look(whole)),
        }
    }

    fn end(&mut self) -> Option<Bytes> {
        let held = self.whole.rest();
        let rest = held.trim_ascii();
        if rest == b"data: [DONE]" || rest == b"data:[DONE]" {
            self.done = true;
            return Some(Bytes::from_static(b"data: [DONE]\n\n"));
        }
        if !rest.is_empty() || !(self.done || self.finished) {
            return None;
        }
        if self.done {
            Some(Bytes::new())
        } else {
            Some(Bytes::from_static(b"data: [DONE]\n\n"))
        }
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
        super::encode::write_error(error, buf);
    }
}

/// The usage that an event tells, and whether it tells nothing else.
fn usage_of_event(event: &[u8]) -> Option<(Usage, bool)> {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow, default)]
        choices: Option<Vec<&'a RawValue>>,
        #[serde(default)]
        usage: Option<ChatUsage>,
    }
    let at = memmem::find(event, b"data:")? + 5;
    let data = event[at..].trim_ascii();
    let probe: Probe<'_> = serde_json::from_slice(data).ok()?;
    let usage = Usage::from(probe.usage?);
    Some((usage, probe.choices.is_none_or(|c| c.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_no_request() {
        assert!(rewrite(b"[\"\"\r\r]\r\r", "m", true).is_err());
    }

    #[test]
    fn only_the_named_spans_change() {
        let body = br#"{ "messages":[{"role":"user","content":"\"model\":\"x\""}], "model" : "openai/gpt","stream":true }"#;
        let out = rewrite(body, "gpt", true).expect("rewritten");
        assert!(out.hide_usage);
        let text = std::str::from_utf8(&out.body).expect("utf-8");
        assert_eq!(
            text,
            r#"{"stream_options":{"include_usage":true}, "messages":[{"role":"user","content":"\"model\":\"x\""}], "model" : "gpt","stream":true }"#
        );
        let body = br#"{"model":"a/b","stream_options":{"include_usage":true}}"#;
        let out = rewrite(body, "b", true).expect("rewritten");
        assert!(!out.hide_usage);
        assert_eq!(
            &out.body[..],
            br#"{"model":"b","stream_options":{"include_usage":true}}"#
        );
        for body in [
            &br#"{"model":"a/b","stream_options":{"include_usage":false}}"#[..],
            br#"{"model":"a/b","stream_options":null}"#,
        ] {
            let out = rewrite(body, "b", true).expect("rewritten");
            assert!(out.hide_usage);
            let value: serde_json::Value = serde_json::from_slice(&out.body).expect("JSON");
            assert_eq!(value["stream_options"]["include_usage"], true);
        }
    }

    const STREAM: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

    fn through(parts: &[&[u8]], hide: bool) -> (Vec<u8>, EventGate, bool) {
        let mut gate = EventGate::new(1000, hide);
        let mut out = Vec::new();
        for part in parts {
            out.extend_from_slice(&gate.pass(Bytes::copy_from_slice(part)).expect("small"));
        }
        let end = gate.end();
        out.extend_from_slice(end.as_deref().unwrap_or_default());
        (out, gate, end.is_some())
    }

    #[test]
    fn the_hidden_usage_is_read_and_not_shown() {
        let (out, gate, whole) = through(&[STREAM], true);
        assert!(whole);
        assert_eq!(gate.usage().map(|u| (u.input, u.output)), Some((3, 2)));
        assert!(memmem::find(&out, b"prompt_tokens").is_none());
        assert!(out.ends_with(b"data: [DONE]\n\n"));
        let (out, ..) = through(&[STREAM], false);
        assert_eq!(out, STREAM);
    }

    #[test]
    fn a_cut_stream_is_told() {
        let cut = &STREAM[..100];
        let (out, _, whole) = through(&[cut], false);
        assert!(!whole);
        assert!(out.ends_with(b"\n\n"));
        let mut gate = EventGate::new(10, false);
        assert!(gate.pass(Bytes::from_static(&[b'x'; 11])).is_err());
    }

    proptest! {
        #[test]
        fn any_split_lets_the_same_through(
            cuts in proptest::collection::vec(0..STREAM.len(), 0..6), hide in any::<bool>(),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut parts = Vec::new();
            let mut from = 0;
            for cut in cuts {
                parts.push(&STREAM[from..cut]);
                from = cut;
            }
            parts.push(&STREAM[from..]);
            let (whole, ..) = through(&[STREAM], hide);
            let (split, gate, ended) = through(&parts, hide);
            prop_assert_eq!(split, whole);
            prop_assert!(ended && gate.usage().is_some());
        }
    }
}
