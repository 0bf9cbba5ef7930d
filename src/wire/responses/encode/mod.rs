//! Frames as the events of a streamed response. The same frames give the same events with the same
//! `sequence_number`s, live or from the log, so that a client may go on after any of them.

mod pieces;

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::items::{self, Numbering, OwnCall};
use super::object::{Head, Status};
use crate::error::ApiError;
use crate::frame::{Escaped, Frame, StopReason, Usage};
use crate::sse;
use crate::wire::{AnswerEncoder, FrameEncoder, failure};
use pieces::{Open, delta_head, plain};

struct Call {
    id: String,
    output_index: usize,
    call_id: String,
    name: String,
    arguments: Vec<u8>,
    /// What each of its deltas begins with; `None` when they are told at its end.
    head: Option<Bytes>,
    done: bool,
}

/// Writes one streamed response.
pub struct StreamEncoder {
    head: Head,
    numbering: Numbering,
    /// Whether reasoning items carry `encrypted_content`.
    encrypted: bool,
    /// Events up to this number were seen already.
    after: Option<u64>,
    next: u64,
    begun: bool,
    ended: bool,
    open: Open,
    /// Of the model call under way, by their index in it.
    calls: Vec<Call>,
    /// Null while an item is under way.
    output: Vec<Value>,
    written: u64,
    /// The run, when its tools are the smith's own.
    own_tools_of: Option<String>,
    own_calls: HashMap<Bytes, (String, usize, OwnCall)>,
    /// `mcp_list_tools` items that the answer begins with, without their ids.
    listed: Vec<Value>,
    /// Characters of the model's answer before its last text, and of that, once it is complete.
    chars: [usize; 2],
    /// What came before the text that it is for.
    early: Vec<Value>,
    /// Where the items of the model's answer begin.
    answered_from: usize,
}

fn text_of(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl StreamEncoder {
    /// `numbering`: behind the input's items. `after`: the last event that was seen already.
    pub fn new(head: Head, numbering: Numbering, encrypted: bool, after: Option<u64>) -> Self {
        let numbering = numbering.with_tools(head.echo.get("tools"));
        Self {
            head,
            numbering,
            encrypted,
            after,
            next: 0,
            begun: false,
            ended: false,
            open: Open::Nothing,
            calls: Vec::new(),
            output: Vec::new(),
            written: 0,
            own_tools_of: None,
            own_calls: HashMap::new(),
            listed: Vec::new(),
            chars: [0; 2],
            early: Vec::new(),
            answered_from: 0,
        }
    }

    /// For an answer that begins with lists of tools.
    pub fn with_listed(mut self, listed: Vec<Value>) -> Self {
        self.listed = listed;
        self
    }

    /// For a run whose tools are the smith's own.
    pub fn with_own_tools(mut self, run_id: &str) -> Self {
        self.own_tools_of = Some(run_id.to_owned());
        self
    }

    /// The response object, with the items that are complete.
    pub fn response(&self, status: &Status) -> Value {
        let mut output = self.output.clone();
        output.retain(|item| !item.is_null());
        self.head.response(status, output)
    }

    fn own_call(&mut self, call: OwnCall, call_id: &Bytes, buf: &mut BytesMut) {
        self.close(buf);
        let kind = call.kind();
        let id = self.numbering.next(kind);
        let is_search = kind == "file_search_call";
        let mut begun = match is_search {
            true => call.members(None, false),
            false => OwnCall {
                arguments: String::new(),
                ..call.clone()
            }
            .members(None, false),
        };
        begun["id"] = json!(id);
        begun["type"] = json!(kind);
        let output_index = self.add(begun, buf);
        let place = json!({ "item_id": id, "output_index": output_index });
        if is_search {
            for step in ["in_progress", "searching"] {
                self.event(
                    buf,
                    &format!("response.file_search_call.{step}"),
                    place.clone(),
                );
            }
            self.own_calls
                .insert(call_id.clone(), (id, output_index, call));
            return;
        }
        self.event(buf, "response.mcp_call.in_progress", place.clone());
        let mut delta = place.clone();
        delta["delta"] = json!(call.arguments);
        self.event(buf, "response.mcp_call_arguments.delta", delta);
        let mut done = place;
        done["arguments"] = json!(call.arguments);
        self.event(buf, "response.mcp_call_arguments.done", done);
        self.own_calls
            .insert(call_id.clone(), (id, output_index, call));
    }

    fn own_call_done(
        &mut self,
        call_id: &Bytes,
        output: String,
        is_error: bool,
        buf: &mut BytesMut,
    ) {
        let Some((id, output_index, call)) = self.own_calls.remove(call_id) else {
            return;
        };
        let kind = call.kind();
        let event = match (kind, is_error) {
            ("file_search_call", _) => "response.file_search_call.completed",
            (_, true) => "response.mcp_call.failed",
            (_, false) => "response.mcp_call.completed",
        };
        let place = json!({ "item_id": id, "output_index": output_index });
        self.event(buf, event, place);
        let shows_results = self.numbering.shows_results();
        let mut item = call.members(Some((output, is_error)), shows_results);
        item["id"] = json!(id);
        item["type"] = json!(kind);
        self.done(output_index, item, buf);
    }

    fn approval(&mut self, item: Value, buf: &mut BytesMut) {
        self.close(buf);
        let output_index = self.add(item.clone(), buf);
        self.done(output_index, item, buf);
    }

    /// The number of the next event, when it is to be written.
    fn number(&mut self) -> Option<u64> {
        let number = self.next;
        self.next += 1;
        if self.after.is_some_and(|after| number <= after) {
            return None;
        }
        self.written += 1;
        Some(number)
    }

    fn event(&mut self, buf: &mut BytesMut, kind: &str, mut members: Value) {
        if let Some(number) = self.number() {
            members["type"] = json!(kind);
            members["sequence_number"] = json!(number);
            sse::write_event(buf, Some(kind), None, &[members.to_string().as_bytes()]);
        }
    }

    fn delta(&mut self, buf: &mut BytesMut, head: &Bytes, text: &Escaped) {
        if let Some(number) = self.number() {
            buf.put_slice(head);
            buf.put_slice(itoa::Buffer::new().format(number).as_bytes());
            buf.put_slice(b",\"delta\":\"");
            buf.put_slice(text.as_bytes());
            buf.put_slice(b"\"}\n\n");
        }
    }

    /// Appends the first two events, once.
    pub fn begin(&mut self, buf: &mut BytesMut) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let response = self.head.response(&Status::InProgress, Vec::new());
        for kind in ["response.created", "response.in_progress"] {
            self.event(buf, kind, json!({ "response": response }));
        }
        let lists = std::mem::take(&mut self.listed);
        for list in self.numbering.listed(&lists) {
            let item = list.to_value();
            let mut begun = item.clone();
            begun["tools"] = json!([]);
            let output_index = self.add(begun, buf);
            let place = json!({ "item_id": list.id, "output_index": output_index });
            self.event(buf, "response.mcp_list_tools.in_progress", place.clone());
            let end = match item["error"].is_null() {
                true => "response.mcp_list_tools.completed",
                false => "response.mcp_list_tools.failed",
            };
            self.event(buf, end, place);
            self.done(output_index, item, buf);
        }
    }

    fn call(&mut self, call_id: &Bytes, name: &Bytes, buf: &mut BytesMut) {
        self.close(buf);
        let (call_id, name) = (text_of(call_id), text_of(name));
        let shapes = self.numbering.shapes();
        let (kind, mut item) = shapes.call(&call_id, &name, None);
        let id = self.numbering.next(kind);
        item["id"] = json!(id);
        item["type"] = json!(kind);
        let output_index = self.add(item, buf);
        let head = || {
            let kind = "response.function_call_arguments.delta";
            delta_head(kind, &id, output_index, "")
        };
        self.calls.push(Call {
            head: shapes.is_function(&name).then(head),
            id,
            output_index,
            call_id,
            name,
            arguments: Vec::new(),
            done: false,
        });
    }

    fn call_done(&mut self, index: usize, buf: &mut BytesMut) {
        let Some(call) = self.calls.get_mut(index).filter(|call| !call.done) else {
            return;
        };
        call.done = true;
        let arguments = match call.arguments.is_empty() {
            true => "{}".to_owned(),
            false => plain(&call.arguments),
        };
        let output_index = call.output_index;
        let shapes = self.numbering.shapes();
        let (kind, mut item) = shapes.call(&call.call_id, &call.name, Some(&arguments));
        item["id"] = json!(call.id);
        item["type"] = json!(kind);
        let place = json!({ "item_id": call.id, "output_index": output_index });
        match kind {
            "function_call" => {
                let mut done = place;
                done["name"] = item["name"].clone();
                done["arguments"] = json!(arguments);
                self.event(buf, "response.function_call_arguments.done", done);
            }
            "custom_tool_call" => {
                let mut delta = place.clone();
                delta["delta"] = item["input"].clone();
                self.event(buf, "response.custom_tool_call_input.delta", delta);
                let mut done = place;
                done["input"] = item["input"].clone();
                self.event(buf, "response.custom_tool_call_input.done", done);
            }
            _ => {}
        }
        self.done(output_index, item, buf);
    }

    fn add(&mut self, item: Value, buf: &mut BytesMut) -> usize {
        self.begin(buf);
        let output_index = self.output.len();
        self.output.push(Value::Null);
        let added = json!({ "output_index": output_index, "item": item });
        self.event(buf, "response.output_item.added", added);
        output_index
    }

    fn done(&mut self, output_index: usize, item: Value, buf: &mut BytesMut) {
        self.output[output_index] = item.clone();
        let done = json!({ "output_index": output_index, "item": item });
        self.event(buf, "response.output_item.done", done);
    }

    /// Closes the message or the reasoning that is open.
    fn close(&mut self, buf: &mut BytesMut) {
        self.close_part(buf);
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => {}
            Open::Message(message) => {
                let item = json!({ "id": message.id, "type": "message", "role": "assistant",
                    "status": "completed", "content": message.content });
                self.done(message.output_index, item, buf);
            }
            reasoning @ Open::Reasoning(_) => {
                self.open = reasoning;
                self.close_reasoning(None, buf);
            }
        }
    }

    fn close_all(&mut self, buf: &mut BytesMut) {
        self.close(buf);
        for index in 0..self.calls.len() {
            self.call_done(index, buf);
        }
    }

    fn end(&mut self, status: &Status, kind: &str, buf: &mut BytesMut) {
        self.begin(buf);
        self.close_all(buf);
        let response = self.response(status);
        self.event(buf, kind, json!({ "response": response }));
        self.ended = true;
    }
}

impl FrameEncoder for StreamEncoder {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        match frame {
            Frame::ToolStarted { .. } | Frame::ToolArgs { .. } | Frame::ToolDone { .. }
                if self.own_tools_of.is_some() => {}
            Frame::ToolExecuting(call) => {
                let run_id = self.own_tools_of.as_deref().unwrap_or_default();
                let approval = || format!("{run_id}::{}", text_of(&call.id));
                let own = OwnCall {
                    server: text_of(&call.server),
                    name: text_of(&call.name),
                    arguments: text_of(&call.args),
                    approval: call.approved.then(approval),
                };
                self.own_call(own, &call.id, buf);
            }
            Frame::ToolCompleted(done) => {
                self.own_call_done(&done.id, done.output.unescape(), done.is_error, buf);
            }
            Frame::ApprovalRequired(asked) => {
                let run_id = self.own_tools_of.as_deref().unwrap_or_default();
                let id = format!("{run_id}::{}", text_of(&asked.id));
                let (server, name) = (text_of(&asked.server), text_of(&asked.name));
                let item = items::approval_request(&id, &server, &name, &text_of(&asked.args));
                self.approval(item, buf);
            }
            Frame::RunPaused { usage, .. } => {
                self.end(
                    &Status::Ended(StopReason::EndTurn, *usage),
                    "response.completed",
                    buf,
                );
            }
            Frame::RunStarted { .. } => self.begin(buf),
            Frame::ModelStarted { .. } => {
                self.begin(buf);
                self.close_all(buf);
                self.calls.clear();
                self.chars = [0; 2];
                self.early.clear();
                self.answered_from = self.output.len();
            }
            Frame::Cited(citation) => {
                if let Ok(citation) = serde_json::from_slice(citation) {
                    self.cite(citation, buf);
                }
            }
            Frame::Text(text) => self.text(text, false, buf),
            Frame::Refusal(text) => self.text(text, true, buf),
            Frame::Reasoning(text) => self.reasoning(text, buf),
            Frame::ReasoningDone {
                signer,
                signature,
                redacted,
            } => self.reasoning_done(*signer, signature, *redacted, buf),
            Frame::ToolStarted { id, name, .. } => self.call(id, name, buf),
            Frame::ToolArgs { index, delta } => {
                if let Some(call) = self.calls.get_mut(*index as usize) {
                    call.arguments.extend_from_slice(delta.as_bytes());
                    if let Some(head) = call.head.clone() {
                        self.delta(buf, &head, delta);
                    }
                }
            }
            Frame::ToolDone { index, .. } => self.call_done(*index as usize, buf),
            Frame::RunCompleted { stop, usage, .. } => self.finish(*stop, usage, buf),
            Frame::RunFailed {
                code,
                message,
                param,
            } => self.fail(&failure(code, message, param), buf),
            Frame::RunCancelled { reason } => {
                let reason = match reason.is_empty() {
                    true => "the response was cancelled".to_owned(),
                    false => text_of(reason),
                };
                self.end(&Status::Cancelled(reason), "response.failed", buf);
            }
            _ => {}
        }
    }

    fn written(&self) -> u64 {
        self.written
    }
}

impl AnswerEncoder for StreamEncoder {
    fn finish(&mut self, stop: StopReason, usage: &Usage, buf: &mut BytesMut) {
        let kind = match super::incomplete_reason(stop) {
            None => "response.completed",
            Some(_) => "response.incomplete",
        };
        self.end(&Status::Ended(stop, *usage), kind, buf);
    }

    fn fail(&mut self, error: &ApiError, buf: &mut BytesMut) {
        self.end(&Status::Failed(error.clone()), "response.failed", buf);
    }

    fn is_ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Signer;
    use crate::model::{Role, Turn};
    use crate::run::Collector;
    use crate::sse::Splitter;

    fn frames() -> Vec<Frame> {
        let text = |t: &str| Escaped::escape(t);
        let args = |index, t: &str| Frame::ToolArgs {
            index,
            delta: text(t),
        };
        let call = |index, id: &'static str| Frame::ToolStarted {
            index,
            id: id.into(),
            name: "f".into(),
        };
        let cited = |from: u64, to: u64| {
            let of = json!({ "type": "url_citation", "url": "https://x.example", "title": "",
                "start_index": from, "end_index": to });
            Frame::Cited(Bytes::from(of.to_string()))
        };
        let done = |index| Frame::ToolDone {
            index,
            signature: Bytes::new(),
        };
        vec![
            Frame::RunStarted {
                smith_id: "smt_1".into(),
                thread_id: "thr_1".into(),
            },
            Frame::ModelStarted {
                id: "x".into(),
                model: "m".into(),
            },
            Frame::Reasoning(text("Hm\n")),
            Frame::Reasoning(text("m")),
            Frame::ReasoningDone {
                signer: Signer::OpenAi,
                signature: Bytes::from_static(b"sig"),
                redacted: false,
            },
            cited(0, 3),
            Frame::Text(text("Let \"me\"")),
            cited(4, 8),
            Frame::Text(text(" see")),
            call(0, "c1"),
            args(0, "{\"a\":"),
            call(1, "c2"),
            args(0, "1}"),
            done(0),
            done(1),
            cited(1, 2),
            Frame::Text(text("So")),
            cited(12, 14),
            Frame::RunCompleted {
                stop: StopReason::ToolCalls,
                usage: Usage {
                    input: 3,
                    output: 2,
                    ..Usage::default()
                },
                warnings: Bytes::from_static(b"[]"),
            },
        ]
    }

    fn encoder(after: Option<u64>) -> StreamEncoder {
        let head = Head {
            id: "resp_B".to_owned(),
            created_at: 1,
            echo: serde_json::Map::new(),
        };
        StreamEncoder::new(head, Numbering::new("B"), true, after)
    }

    fn events(after: Option<u64>) -> Vec<Value> {
        let mut encoder = encoder(after);
        let mut buf = BytesMut::new();
        for frame in frames() {
            encoder.frame(&frame, &mut buf);
        }
        let mut splitter = Splitter::new(1 << 20);
        splitter.push(buf.freeze());
        let mut events = Vec::new();
        while let Some(event) = splitter.next_event().expect("events") {
            let value: Value = serde_json::from_slice(&event.data).expect("JSON");
            assert_eq!(
                event.name.as_deref(),
                value["type"].as_str().map(str::as_bytes)
            );
            events.push(value);
        }
        events
    }

    #[test]
    fn numbers_have_no_gap_and_pairs_are_closed() {
        let events = events(None);
        let numbers: Vec<u64> = events
            .iter()
            .filter_map(|e| e["sequence_number"].as_u64())
            .collect();
        assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
        let of = |kind: &str| events.iter().filter(|e| e["type"] == kind).count();
        assert_eq!(of("response.output_item.added"), 5);
        assert_eq!(of("response.output_item.done"), 5);
        assert_eq!(of("response.content_part.added"), 2);
        assert_eq!(of("response.content_part.done"), 2);
        let last = events.last().expect("events");
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"]["usage"]["total_tokens"], 5);
    }

    #[test]
    fn the_items_are_those_of_the_record() {
        let mut collector = Collector::default();
        for frame in frames() {
            collector.add(&frame);
        }
        let turn = Turn {
            role: Role::Assistant,
            parts: collector.finish().parts,
        };
        let recorded: Vec<Value> = Numbering::new("B")
            .items(&[turn])
            .iter()
            .map(|item| item.to_value())
            .collect();
        let events = events(None);
        let streamed = events.last().expect("events")["response"]["output"].clone();
        assert_eq!(streamed, Value::Array(recorded));
    }

    #[test]
    fn a_client_may_go_on_after_any_event() {
        let all = events(None);
        for after in 0..all.len() as u64 {
            assert_eq!(events(Some(after)), all[after as usize + 1..]);
        }
    }
}
