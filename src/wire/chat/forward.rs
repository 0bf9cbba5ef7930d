//! A request that is passed on to a provider of the same wire: bytes stay as they are, but for
//! the model's name and, so that streams can be accounted for, the request for usage.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::frame::Usage;
use crate::json::Entries;
use crate::lenient;
use crate::model::provider::{WireUsage, is_end, usage_in_chunk};
use crate::model::{Fault, ModelError};
use crate::sse::{EventTooLarge, Odd, WholeEvents, may_tell, odd, raw_events};
use crate::wire::StreamGate;
use crate::wire::openai::rewrite::present;

/// The body with the limit of its answer under the name that is known everywhere, for providers that
/// do not know the newer one.
pub fn with_older_limit(body: Bytes) -> Bytes {
    const NEWER: &[u8] = b"\"max_completion_tokens\"";
    #[derive(Deserialize)]
    struct Limits<'a> {
        #[serde(borrow)]
        max_completion_tokens: &'a RawValue,
        #[serde(borrow, default, deserialize_with = "present")]
        max_tokens: Option<&'a RawValue>,
    }
    if memchr::memmem::find(&body, NEWER).is_none() {
        return body;
    }
    let Ok(limits) = serde_json::from_slice::<Limits<'_>>(&body) else {
        return body;
    };
    match limits.max_tokens.map(RawValue::get) {
        None => {}
        // Many clients send all that they have, the unset as null: beside the other it would win.
        Some("null") => {
            let members = serde_json::from_slice::<Entries<&RawValue>>(&body);
            let renamed = members.and_then(|mut members| {
                members.retain(|name, _| name != "max_completion_tokens");
                members.insert("max_tokens".to_owned(), limits.max_completion_tokens);
                serde_json::to_vec(&members)
            });
            return renamed.map(Bytes::from).unwrap_or(body);
        }
        Some(_) => return body,
    }
    let value = limits.max_completion_tokens.get().as_ptr() as usize - body.as_ptr() as usize;
    let before = body[..value].trim_ascii_end();
    let before = before.strip_suffix(b":").unwrap_or(before).trim_ascii_end();
    let Some(before) = before.strip_suffix(NEWER) else {
        return body;
    };
    let mut out = BytesMut::with_capacity(body.len());
    out.extend_from_slice(before);
    out.extend_from_slice(b"\"max_tokens\":");
    out.extend_from_slice(&body[value..]);
    out.freeze()
}

/// The usage in a whole answer, if it tells.
pub fn usage_of_answer(body: &Bytes) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(default)]
        usage: Option<WireUsage>,
    }
    let probe: Probe = serde_json::from_slice(body).ok()?;
    probe.usage.map(Usage::from)
}

/// Whether the client asked for usage at the end of its stream.
pub fn asks_for_usage(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        stream_options: Option<Value>,
    }
    let probe = serde_json::from_slice::<Probe>(body).ok();
    probe.and_then(|probe| probe.stream_options?["include_usage"].as_bool()) == Some(true)
}

/// Whether the client asked with `functions`, as before there were tools.
pub fn has_functions(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        functions: Option<Value>,
        tools: Option<Value>,
    }
    let is_any = |list: &Option<Value>| {
        let list = list.as_ref().and_then(Value::as_array);
        list.is_some_and(|list| !list.is_empty())
    };
    let probe = serde_json::from_slice::<Probe>(body);
    probe.is_ok_and(|probe| is_any(&probe.functions) && !is_any(&probe.tools))
}

/// Whether bytes may tell more than content.
fn may_tell_more(bytes: &[u8]) -> bool {
    [&b"\"usage\""[..], b"\"finish_reason\"", b"\"error\""]
        .iter()
        .any(|name| may_tell(bytes, name))
}

/// What ends a stream.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// Lets whole events through, reads the usage on the way, and sees the end. An event's data is what
/// counts, not what the model wrote in it.
pub struct EventGate {
    whole: WholeEvents,
    hide_usage: bool,
    usage: Option<Usage>,
    has_content: bool,
    failure: Option<Box<ModelError>>,
    /// Its end has been told: by why it finished, or by an error that was let through.
    finished: bool,
    /// An error was let through.
    told_error: bool,
    done: bool,
    /// An event was not as it should be, so that all are looked at.
    has_odd: bool,
    events: u64,
}

/// What the client sees of an event.
enum Shown {
    AsItIs,
    Nothing,
    Instead(Vec<u8>),
}

impl EventGate {
    /// `limit`: the most bytes that one event may hold.
    pub fn new(limit: usize, hide_usage: bool) -> Self {
        Self {
            whole: WholeEvents::new(limit),
            hide_usage,
            usage: None,
            has_content: false,
            failure: None,
            finished: false,
            told_error: false,
            done: false,
            has_odd: false,
            events: 0,
        }
    }

    fn look(&mut self, whole: Bytes) -> Bytes {
        // Mostly none of them tells more than content, and none is looked at by itself.
        let may_any = !self.has_content || self.has_odd || may_tell_more(&whole);
        let mut at = 0;
        // Set once something is left out.
        let mut kept: Option<BytesMut> = None;
        for event in raw_events(&whole) {
            let from = at;
            at += event.bytes.len();
            let mut shown = Shown::AsItIs;
            if let Some(data) = event.data() {
                self.events += 1;
                let data = data.trim_ascii();
                // One that comes before content is a failure, and looked at.
                let is_error = self.has_content && event.name == Some(b"error");
                self.finished |= is_error;
                self.told_error |= is_error;
                if data == b"[DONE]" {
                    self.done = true;
                } else if !self.has_content
                    || self.has_odd
                    || !data.starts_with(b"{")
                    || may_any && may_tell_more(data)
                {
                    shown = self.examine(event.name, data);
                }
            } else if !self.has_content {
                // Comments that keep a connection open are not gathered.
                shown = Shown::Nothing;
            }
            if kept.is_none() && !matches!(shown, Shown::AsItIs) {
                kept = Some(BytesMut::from(&whole[..from]));
            }
            if let Some(kept) = &mut kept {
                match shown {
                    Shown::AsItIs => kept.extend_from_slice(event.bytes),
                    Shown::Nothing => {}
                    Shown::Instead(events) => kept.extend_from_slice(&events),
                }
            }
            if self.done || self.failure.is_some() {
                break;
            }
        }
        if self.done && !self.has_content && self.failure.is_none() {
            let message = "a stream that ends before it says anything";
            self.failure = Some(Box::new(ModelError::Malformed(message.to_owned())));
        }
        match kept {
            Some(kept) => kept.freeze(),
            // What is behind the end is nobody's.
            None => whole.slice(..at),
        }
    }

    /// What is shown of an event that is no JSON; `None` if nothing can be made of it.
    fn mend(&mut self, name: Option<&[u8]>, data: &[u8]) -> Option<Shown> {
        let mut instead = Vec::new();
        let mut show = |data: &[u8]| {
            for piece in [&b"data: "[..], data, b"\n\n"] {
                instead.extend_from_slice(piece);
            }
        };
        match odd(name, data) {
            Some(Odd::Alive) => return Some(Shown::Nothing),
            Some(Odd::Events(events)) => {
                // The event itself was counted.
                self.events += events.len() as u64 - 1;
                for data in events {
                    if data == b"[DONE]" {
                        self.done = true;
                        show(data);
                        break;
                    }
                    match self.examine(None, data) {
                        Shown::AsItIs => show(data),
                        Shown::Nothing => {}
                        Shown::Instead(_) => return None,
                    }
                }
            }
            None => {
                let mended = lenient::well_formed(data);
                serde_json::from_slice::<Value>(&mended).ok()?;
                match self.examine(None, &mended) {
                    Shown::Nothing => {}
                    _ => show(&mended),
                }
            }
        }
        self.has_odd = true;
        Some(Shown::Instead(instead))
    }

    /// Reads what an event tells.
    fn examine(&mut self, name: Option<&[u8]>, data: &[u8]) -> Shown {
        if data.is_empty() {
            return Shown::AsItIs;
        }
        let parsed = serde_json::from_slice::<Value>(data);
        if parsed.is_err()
            && name != Some(b"error")
            && let Some(shown) = self.mend(name, data)
        {
            return shown;
        }
        if !self.has_content {
            if let Some(fault) = Fault::in_event(name, data) {
                self.failure = Some(Box::new(ModelError::InStream(Box::new(fault))));
                return Shown::Nothing;
            }
            if let Err(error) = &parsed {
                let error = ModelError::Malformed(format!("an event that is no JSON: {error}"));
                self.failure = Some(Box::new(error));
                return Shown::Nothing;
            }
        }
        let Ok(chunk) = parsed else {
            return Shown::AsItIs;
        };
        let choices = chunk["choices"].as_array().map_or(&[][..], Vec::as_slice);
        for choice in choices {
            if !self.has_content && !choice["error"].is_null() {
                let fault = Fault::told_by(&choice["error"].to_string());
                self.failure = Some(Box::new(ModelError::InStream(Box::new(fault))));
                return Shown::Nothing;
            }
            self.told_error |= !choice["error"].is_null();
            self.finished |= choice["finish_reason"].as_str().is_some_and(is_end);
            self.has_content |= self.finished || is_content(choice);
        }
        let is_error = !chunk["error"].is_null();
        self.finished |= is_error;
        self.told_error |= is_error;
        match usage_in_chunk(&chunk) {
            Some(usage) => {
                self.usage = Some(usage);
                let is_hidden = self.hide_usage && choices.is_empty();
                self.events -= u64::from(is_hidden);
                match is_hidden {
                    true => Shown::Nothing,
                    false => Shown::AsItIs,
                }
            }
            None => Shown::AsItIs,
        }
    }
}

/// Whether a value is more than an empty form.
fn says(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => list.iter().any(says),
        Value::Object(members) => members.values().any(says),
        _ => false,
    }
}

/// Whether a choice holds a piece of an answer, and not only whose it is.
fn is_content(choice: &Value) -> bool {
    let delta = match &choice["delta"] {
        Value::Object(delta) => Some(delta),
        _ => choice["message"].as_object(),
    };
    let mut members = delta.into_iter().flatten();
    members.any(|(name, value)| name != "role" && says(value)) || says(&choice["text"])
}

impl StreamGate for EventGate {
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, EventTooLarge> {
        let whole = self.whole.pass(chunk)?;
        match whole.is_empty() {
            true => Ok(whole),
            false => Ok(self.look(whole)),
        }
    }

    fn end(&mut self) -> Option<Bytes> {
        let last = self.whole.last(|data| {
            let data = data.trim_ascii();
            data == b"[DONE]"
                || serde_json::from_slice::<IgnoredAny>(data).is_ok()
                || odd(None, data).is_some()
        })?;
        let mut last = match last.is_empty() {
            true => BytesMut::new(),
            false => BytesMut::from(&self.look(last)[..]),
        };
        if !self.done {
            if !self.finished {
                return None;
            }
            last.extend_from_slice(DONE);
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
        self.usage
    }

    fn events(&self) -> u64 {
        self.events
    }

    fn write_error(&self, error: &ApiError, buf: &mut BytesMut) {
        super::encode::write_error(error, buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::openai::rewrite::rewrite;
    use memchr::memmem;
    use proptest::prelude::*;

    #[test]
    fn the_limit_is_renamed_where_only_the_older_name_is_known() {
        let older = |body: &'static str| with_older_limit(Bytes::from_static(body.as_bytes()));
        for (given, sent) in [
            (
                r#"{"a":"\"max_completion_tokens\":1","max_completion_tokens" : 5,"b":1}"#,
                r#"{"a":"\"max_completion_tokens\":1","max_tokens":5,"b":1}"#,
            ),
            (
                r#"{"max_tokens":3,"max_completion_tokens":5}"#,
                r#"{"max_tokens":3,"max_completion_tokens":5}"#,
            ),
            (r#"{"max_tokens":3}"#, r#"{"max_tokens":3}"#),
            (
                r#"{"a": 1.50, "max_tokens" : null,"max_completion_tokens":5}"#,
                r#"{"a":1.50,"max_tokens":5}"#,
            ),
            (
                r#"{"max_completion_tokens":5,"b":[1, 2],"max_tokens":null}"#,
                r#"{"b":[1, 2],"max_tokens":5}"#,
            ),
            (
                r#"{"x":"max_completion_tokens"}"#,
                r#"{"x":"max_completion_tokens"}"#,
            ),
        ] {
            assert_eq!(older(given), sent.as_bytes());
        }
    }

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

    fn delta(delta: &str) -> String {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n")
    }

    #[test]
    fn what_the_model_writes_is_no_end() {
        let finish = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        for text in [
            "[DONE]",
            "data: [DONE]",
            "\\n\\ndata: [DONE]\\n\\n",
            "\\\"finish_reason\\\":\\\"stop\\\"",
            "\\\"usage\\\":{\\\"prompt_tokens\\\":1}",
            "\\\"error\\\":{}",
            "error",
        ] {
            let first = delta(&format!("{{\"content\":\"{text}\"}}"));
            let mut gate = EventGate::new(10_000, true);
            let out = gate.pass(Bytes::from(first.clone())).expect("small");
            assert_eq!(out, first);
            assert!(!gate.is_done() && gate.has_content());
            assert_eq!((gate.events(), gate.usage()), (1, None), "{text}");
            assert!(gate.end().is_none(), "{text}");
            let mut gate = EventGate::new(10_000, true);
            let all = format!("{first}{finish}data: [DONE]\n\n");
            assert_eq!(gate.pass(Bytes::from(all.clone())).expect("small"), all);
            assert!(gate.is_done());
            assert_eq!(gate.events(), 3);
        }
    }

    #[test]
    fn the_end_is_seen_in_all_its_spellings() {
        let first = delta("{\"content\":\"a\"}");
        for done in [
            "data: [DONE]\n\n",
            "data:[DONE]\n\n",
            "data: [DONE]\r\n\r\n",
            "data: [DONE]\r\r",
            ": bye\nevent: x\ndata: [DONE] \n\n",
            "id: 7\ndata:  [DONE]\n\n",
        ] {
            for cut in 0..done.len() {
                let mut gate = EventGate::new(1000, false);
                gate.pass(Bytes::from(first.clone())).expect("small");
                gate.pass(Bytes::copy_from_slice(&done.as_bytes()[..cut]))
                    .expect("small");
                gate.pass(Bytes::copy_from_slice(&done.as_bytes()[cut..]))
                    .expect("small");
                assert!(gate.is_done(), "{done:?} at {cut}");
            }
        }
        // What is behind it is not passed on.
        let (out, gate, _) = through(
            &[first.as_bytes(), b"data: [DONE]\n\ndata: more\n\n"],
            false,
        );
        assert!(gate.is_done() && out.ends_with(DONE));
    }

    #[test]
    fn data_of_several_lines_is_one_event() {
        let event = b"data: {\"choices\":[],\r\ndata: \"usage\":{\"prompt_tokens\":3,\r\ndata: \"completion_tokens\":2}}\r\n\r\n";
        let first = delta("{\"content\":\"a\"}");
        let (out, gate, _) = through(&[first.as_bytes(), event], true);
        assert_eq!(out, first.as_bytes());
        assert_eq!(gate.usage().map(|u| (u.input, u.output)), Some((3, 2)));
        assert_eq!(gate.events(), 1);
    }

    #[test]
    fn a_last_event_without_its_empty_line_counts() {
        let first = delta("{\"content\":\"a\"}");
        let finish =
            b"data: {\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}";
        let (out, _, whole) = through(&[first.as_bytes(), finish], false);
        assert!(whole);
        assert!(memmem::find(&out, b"\"b\"").is_some() && out.ends_with(DONE));
        let (_, _, whole) = through(&[first.as_bytes(), &finish[..40]], false);
        assert!(!whole);
    }

    #[test]
    fn content_is_what_says_something() {
        for (event, content) in [
            ("{\"role\":\"assistant\",\"content\":\"\"}", false),
            (
                "{\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"tool_calls\":[]}",
                false,
            ),
            ("{}", false),
            ("{\"content\":\"a\"}", true),
            ("{\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}", true),
            ("{\"reasoning_content\":\"a\"}", true),
            ("{\"reasoning\":\"a\"}", true),
            ("{\"refusal\":\"a\"}", true),
            (
                "{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\"}}]}",
                true,
            ),
        ] {
            let mut gate = EventGate::new(1000, false);
            gate.pass(Bytes::from(delta(event))).expect("small");
            assert_eq!(gate.has_content(), content, "{event}");
            assert!(gate.failure().is_none());
        }
        // An answer that is empty is one when it says that it is finished.
        let (_, gate, whole) = through(
            &[b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"],
            false,
        );
        assert!(gate.has_content() && whole);
    }

    #[test]
    fn failures_before_content_are_told_and_later_ones_passed_on() {
        let role = delta("{\"role\":\"assistant\",\"content\":\"\"}");
        for failure in [
            "data: {\"error\":{\"message\":\"no\",\"code\":429}}\n\n",
            "event: error\ndata: {\"message\":\"no\"}\n\n",
            "event: error\ndata: no\n\n",
            "data: {\"error\":\"no\"}\n\n",
            "data: {\"object\":\"error\",\"message\":\"no\"}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\",\"error\":{\"message\":\"no\"}}]}\n\n",
            "data: nonsense\n\n",
            "data: [DONE]\n\n",
        ] {
            for before in ["", ": wait\n\n", role.as_str()] {
                let mut gate = EventGate::new(1000, false);
                gate.pass(Bytes::from(format!("{before}{failure}")))
                    .expect("small");
                assert!(!gate.has_content());
                assert!(gate.failure().is_some(), "{before}{failure}");
            }
        }
        let first = delta("{\"content\":\"a\"}");
        let error = b"data: {\"error\":{\"message\":\"no\"}}\n\n";
        let (out, mut gate, whole) = through(&[first.as_bytes(), error], false);
        assert!(gate.failure().is_none() && whole);
        let wanted = [first.as_bytes(), error, DONE].concat();
        assert_eq!(out, wanted);
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
