//! Frames as the pieces of a streamed answer: each is a whole `GenerateContentResponse`. A call of a
//! function comes in one piece, as this wire has no others.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;
use serde_json::{Value, json};

use super::errors::write_error;
use super::grounding::Grounds;
use super::whole::{called, said};
use super::{Form, blocked, finish_reason, signature, usage_out};
use crate::error::ApiError;
use crate::frame::{Escaped, Frame, Signer, StopReason, Usage};
use crate::model::provider::Ruler;
use crate::sse;
use crate::wire::{AnswerEncoder, FrameEncoder, failure};

const BEFORE_PARTS: &[u8] = b"{\"candidates\":[{\"content\":{\"parts\":[";

/// Writes one streamed answer.
pub struct StreamEncoder {
    form: Form,
    shows_thoughts: bool,
    /// What stands behind the parts of a piece.
    behind: Bytes,
    /// The members at the end of each piece.
    head: Value,
    is_ended: bool,
    has_said: bool,
    calls: Vec<Call>,
    ruler: Ruler,
    cited: Vec<Value>,
    /// Escaped.
    refusal: BytesMut,
    events: u64,
}

/// A call whose arguments are still told.
struct Call {
    index: u32,
    id: Bytes,
    name: Bytes,
    /// Escaped.
    arguments: BytesMut,
}

fn unescaped(escaped: BytesMut) -> String {
    Escaped::from_valid(escaped.freeze()).unescape()
}

impl StreamEncoder {
    /// `model` as the client shall see it.
    pub fn new(id: &str, model: &str, shows_thoughts: bool, form: Form) -> Self {
        let head = json!({ "modelVersion": model, "responseId": id });
        let mut behind = BytesMut::from(&b"],\"role\":\"model\"},\"index\":0}],"[..]);
        behind.put_slice(&head.to_string().as_bytes()[1..]);
        Self {
            form,
            shows_thoughts,
            behind: behind.freeze(),
            head,
            is_ended: false,
            has_said: false,
            calls: Vec::new(),
            ruler: Ruler::default(),
            cited: Vec::new(),
            refusal: BytesMut::new(),
            events: 0,
        }
    }

    fn piece(&mut self, data: &[&[u8]], buf: &mut BytesMut) {
        let is_first = self.events == 0;
        self.events += 1;
        match self.form {
            Form::Events => sse::write_event(buf, None, None, data),
            Form::List => {
                buf.put_slice(if is_first { b"[" } else { b",\n" });
                data.iter().for_each(|data| buf.put_slice(data));
            }
        }
    }

    /// A piece with one part.
    fn part(&mut self, part: &[&[u8]], buf: &mut BytesMut) {
        self.has_said = true;
        let behind = self.behind.clone();
        let mut data = smallvec::SmallVec::<[&[u8]; 8]>::new();
        data.push(BEFORE_PARTS);
        data.extend_from_slice(part);
        data.push(&behind);
        self.piece(&data, buf);
    }

    fn text(&mut self, text: &Escaped, buf: &mut BytesMut) {
        self.ruler.add(text, false);
        let bytes = text.as_bytes();
        // A picture comes in one frame.
        if memmem::find(bytes, b"](data:image").is_some() {
            for part in said(&text.unescape()) {
                self.part(&[part.to_string().as_bytes()], buf);
            }
            return;
        }
        self.part(&[b"{\"text\":\"", bytes, b"\"}"], buf);
    }

    fn signed(&mut self, signer: Signer, signature: &Bytes, redacted: bool, buf: &mut BytesMut) {
        if signature.is_empty() || signer != Signer::Google && !self.shows_thoughts {
            return;
        }
        let signature = String::from_utf8_lossy(signature);
        let signature = signature::written(signer, redacted, &signature);
        let part = match signer {
            Signer::Google => json!({ "text": "", "thoughtSignature": signature }),
            _ => json!({ "text": "", "thought": true, "thoughtSignature": signature }),
        };
        self.part(&[part.to_string().as_bytes()], buf);
    }

    fn end_call(&mut self, index: u32, signature: &Bytes, buf: &mut BytesMut) {
        let Some(at) = self.calls.iter().position(|call| call.index == index) else {
            return;
        };
        let call = self.calls.remove(at);
        let (id, name) = (
            String::from_utf8_lossy(&call.id),
            String::from_utf8_lossy(&call.name),
        );
        let signature = String::from_utf8_lossy(signature);
        let signature = Some(&*signature).filter(|signature| !signature.is_empty());
        let part = called(&id, &name, &unescaped(call.arguments), signature);
        self.part(&[part.to_string().as_bytes()], buf);
    }

    /// Calls whose end was not told end with the answer.
    fn end_calls(&mut self, buf: &mut BytesMut) {
        while let Some(index) = self.calls.first().map(|call| call.index) {
            self.end_call(index, &Bytes::new(), buf);
        }
    }
}

impl FrameEncoder for StreamEncoder {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        match frame {
            // Of a run's next answer, whose calls are counted anew.
            Frame::ModelStarted { .. } => self.end_calls(buf),
            Frame::Text(text) => self.text(text, buf),
            Frame::Cited(told) => self
                .cited
                .extend(serde_json::from_slice::<Value>(told).ok()),
            Frame::Reasoning(text) if self.shows_thoughts => {
                let thought = [
                    &b"{\"text\":\""[..],
                    text.as_bytes(),
                    b"\",\"thought\":true}",
                ];
                self.part(&thought, buf);
            }
            Frame::ReasoningDone {
                signer,
                signature,
                redacted,
            } => self.signed(*signer, signature, *redacted, buf),
            Frame::Refusal(text) => self.refusal.put_slice(text.as_bytes()),
            Frame::ToolStarted { index, id, name } => self.calls.push(Call {
                index: *index,
                id: id.clone(),
                name: name.clone(),
                arguments: BytesMut::new(),
            }),
            Frame::ToolArgs { index, delta } => {
                let mut calls = self.calls.iter_mut();
                if let Some(call) = calls.find(|call| call.index == *index) {
                    call.arguments.put_slice(delta.as_bytes());
                }
            }
            Frame::ToolDone { index, signature } => self.end_call(*index, signature, buf),
            Frame::RunCompleted { stop, usage, .. } => self.finish(*stop, usage, buf),
            Frame::RunFailed {
                code,
                message,
                param,
            } => self.fail(&failure(code, message, param), buf),
            Frame::RunCancelled { reason } => self.fail(&ApiError::run_cancelled(reason), buf),
            _ => {}
        }
    }

    fn written(&self) -> u64 {
        self.events
    }
}

impl AnswerEncoder for StreamEncoder {
    fn finish(&mut self, stop: StopReason, usage: &Usage, buf: &mut BytesMut) {
        self.end_calls(buf);
        let refusal = unescaped(std::mem::take(&mut self.refusal));
        let is_blocked = !refusal.is_empty() || stop == StopReason::ContentFilter;
        let mut last = json!({});
        if !self.has_said && is_blocked {
            last["promptFeedback"] = blocked(stop, &refusal);
        } else {
            // Clients keep no answer of which a piece has no part.
            let mut candidate = json!({
                "content": { "parts": [{ "text": "" }], "role": "model" },
                "finishReason": finish_reason(stop, !refusal.is_empty()),
                "index": 0,
            });
            if !refusal.is_empty() {
                candidate["finishMessage"] = json!(refusal);
            }
            let mut grounds = Grounds::default();
            for told in std::mem::take(&mut self.cited) {
                grounds.add(&told, &self.ruler, 0);
            }
            if let Some(metadata) = grounds.metadata() {
                candidate["groundingMetadata"] = metadata;
            }
            last["candidates"] = json!([candidate]);
        }
        last["usageMetadata"] = usage_out(usage);
        if let (Value::Object(last), Value::Object(head)) = (&mut last, self.head.take()) {
            last.extend(head);
        }
        self.piece(&[last.to_string().as_bytes()], buf);
        if self.form == Form::List {
            buf.put_slice(b"\n]");
        }
        self.is_ended = true;
    }

    fn fail(&mut self, error: &ApiError, buf: &mut BytesMut) {
        write_error(error, self.form, self.events > 0, buf);
        self.events += 1;
        self.is_ended = true;
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Frame {
        Frame::Text(Escaped::escape(text))
    }

    fn stream(form: Form, frames: &[Frame]) -> Vec<Value> {
        let mut encoder = StreamEncoder::new("r", "m", true, form);
        let mut buf = BytesMut::new();
        for frame in frames {
            encoder.frame(frame, &mut buf);
        }
        encoder.finish(StopReason::EndTurn, &Usage::default(), &mut buf);
        let out = String::from_utf8(buf.to_vec()).expect("UTF-8");
        match form {
            Form::List => serde_json::from_str(&out).expect("a list"),
            Form::Events => {
                let events = out.split("\n\n").filter(|event| !event.is_empty());
                let data = events.map(|event| event.strip_prefix("data: ").expect("data"));
                data.map(|data| serde_json::from_str(data).expect("JSON"))
                    .collect()
            }
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        let frames = [
            Frame::Reasoning(Escaped::escape("hm")),
            Frame::ReasoningDone {
                signer: Signer::OpenAi,
                signature: "{}".into(),
                redacted: false,
            },
            text("say \"ä\""),
            text("![image](data:image/png;base64,iVBORw0KGgo=)"),
            Frame::ToolStarted {
                index: 0,
                id: "c".into(),
                name: "f".into(),
            },
            Frame::ToolArgs {
                index: 0,
                delta: Escaped::escape("{\"x\":"),
            },
            Frame::ToolArgs {
                index: 0,
                delta: Escaped::escape("1}"),
            },
            Frame::ToolDone {
                index: 0,
                signature: "c2ln".into(),
            },
        ];
        let pieces = stream(Form::Events, &frames);
        assert_eq!(pieces, stream(Form::List, &frames));
        let parts: Vec<&Value> = pieces
            .iter()
            .map(|piece| &piece["candidates"][0]["content"]["parts"][0])
            .collect();
        assert_eq!(*parts[0], json!({ "text": "hm", "thought": true }));
        assert!(parts[1]["thoughtSignature"].is_string() && parts[1]["thought"] == true);
        assert_eq!(*parts[2], json!({ "text": "say \"ä\"" }));
        assert_eq!(parts[3]["inlineData"]["mimeType"], "image/png");
        assert_eq!(
            *parts[4],
            json!({ "functionCall": { "id": "c", "name": "f", "args": { "x": 1 } },
                "thoughtSignature": "c2ln" })
        );
        assert_eq!(pieces[5]["candidates"][0]["finishReason"], "STOP");
        assert!(pieces[5]["usageMetadata"]["totalTokenCount"].is_u64());
        assert!(pieces.iter().all(|piece| piece["responseId"] == "r"));
    }

    #[test]
    fn what_is_refused_as_a_whole_has_no_candidate() {
        let refused = stream(Form::Events, &[Frame::Refusal(Escaped::escape("no"))]);
        assert_eq!(
            refused[0]["promptFeedback"],
            json!({ "blockReason": "OTHER", "blockReasonMessage": "no" })
        );
        assert!(refused[0].get("candidates").is_none());
        let late = [text("well"), Frame::Refusal(Escaped::escape("no"))];
        let late = stream(Form::Events, &late);
        let candidate = &late[1]["candidates"][0];
        assert_eq!(candidate["finishReason"], "SAFETY");
        assert_eq!(candidate["finishMessage"], "no");
    }
}
