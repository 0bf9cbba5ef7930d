//! Frames as the parts of a UI message. The same frames give the same parts, so that a client
//! which comes back reads the message from its first part on.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::frame::{Escaped, Frame, StopReason};
use crate::model::{arguments_object, type_of};
use crate::sse;
use crate::wire::{FrameEncoder, failure};

const DONE: &[u8] = b"data: [DONE]\n\n";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Reasoning => "reasoning",
        }
    }
}

struct Open {
    kind: Kind,
    id: String,
    /// What each of its deltas begins with.
    head: Bytes,
}

struct Call {
    /// Escaped already, for its deltas.
    id: Escaped,
    name: String,
    arguments: Vec<u8>,
    done: bool,
}

/// Writes one run as one UI message.
pub struct Encoder {
    run_id: String,
    message_id: String,
    open: Option<Open>,
    /// Texts and reasonings so far, which number their ids.
    pieces: usize,
    in_step: bool,
    /// Of the step under way, by their index in it.
    calls: Vec<Call>,
    /// Sources that were told, each once.
    sources: Vec<String>,
    written: u64,
}

fn text_of(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The AI SDK's spelling.
fn finish_reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::EndTurn => "stop",
        StopReason::MaxTokens => "length",
        StopReason::ToolCalls => "tool-calls",
        StopReason::ContentFilter => "content-filter",
        StopReason::Error => "error",
        StopReason::ApprovalRejected | StopReason::Cancelled => "other",
    }
}

impl Encoder {
    /// For a run that goes on: the message that was begun before, in which the `denied` calls will
    /// never have an output. Without that word `useChat` takes them for undecided, and asks again.
    pub fn going_on(&mut self, thread_id: &str, denied: &[String], buf: &mut BytesMut) {
        let thread_id = Bytes::copy_from_slice(thread_id.as_bytes());
        let smith_id = Bytes::new();
        self.frame(
            &Frame::RunStarted {
                smith_id,
                thread_id,
            },
            buf,
        );
        for id in denied {
            self.part(
                buf,
                &json!({ "type": "tool-output-denied", "toolCallId": id }),
            );
        }
    }

    /// For the run with this id; `message_id` is the one of its answer.
    pub fn new(run_id: &str, message_id: String) -> Self {
        Self {
            run_id: run_id.to_owned(),
            message_id,
            open: None,
            pieces: 0,
            in_step: false,
            calls: Vec::new(),
            sources: Vec::new(),
            written: 0,
        }
    }

    fn part(&mut self, buf: &mut BytesMut, part: &Value) {
        self.written += 1;
        sse::write_event(buf, None, None, &[part.to_string().as_bytes()]);
    }

    fn close(&mut self, buf: &mut BytesMut) {
        if let Some(open) = self.open.take() {
            let kind = format!("{}-end", open.kind.name());
            self.part(buf, &json!({ "type": kind, "id": open.id }));
        }
    }

    fn close_step(&mut self, buf: &mut BytesMut) {
        self.close(buf);
        for index in 0..self.calls.len() {
            self.call_done(index, buf);
        }
        self.calls.clear();
        if std::mem::take(&mut self.in_step) {
            self.part(buf, &json!({ "type": "finish-step" }));
        }
    }

    fn piece(&mut self, kind: Kind, text: &Escaped, buf: &mut BytesMut) {
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            self.close(buf);
            let id = format!("{}-{}", kind.name(), self.pieces);
            self.pieces += 1;
            let start = format!("{}-start", kind.name());
            self.part(buf, &json!({ "type": start, "id": id }));
            let name = kind.name();
            let head = format!("data: {{\"type\":\"{name}-delta\",\"id\":\"{id}\",\"delta\":\"");
            self.open = Some(Open {
                kind,
                id,
                head: head.into(),
            });
        }
        if let Some(open) = &self.open {
            buf.put_slice(&open.head);
            buf.put_slice(text.as_bytes());
            buf.put_slice(b"\"}\n\n");
            self.written += 1;
        }
    }

    fn call_done(&mut self, index: usize, buf: &mut BytesMut) {
        let Some(call) = self.calls.get_mut(index).filter(|call| !call.done) else {
            return;
        };
        call.done = true;
        let written = Bytes::from(std::mem::take(&mut call.arguments));
        let part = json!({
            "type": "tool-input-available",
            "toolCallId": call.id.unescape(),
            "toolName": call.name,
            "providerExecuted": true,
            "input": arguments_object(&Escaped::from_valid(written).unescape()),
        });
        self.part(buf, &part);
    }

    /// The wire tells where an answer is from, not which piece of it.
    fn source(&mut self, citation: &Bytes, buf: &mut BytesMut) {
        let citation: Value = serde_json::from_slice(citation).unwrap_or_default();
        let said = |name: &str| citation[name].as_str().filter(|text| !text.is_empty());
        let (source, mut part) = match said("url") {
            Some(url) => (url, json!({ "type": "source-url", "url": url })),
            None => {
                let name = said("filename").or(said("title")).or(said("file_id"));
                let name = name.unwrap_or("document");
                let media_type = type_of(name).unwrap_or("application/octet-stream");
                let mut part = json!({ "type": "source-document", "mediaType": media_type,
                    "title": name });
                if let Some(filename) = said("filename") {
                    part["filename"] = json!(filename);
                }
                (said("file_id").unwrap_or(name), part)
            }
        };
        if self.sources.iter().any(|told| told == source) {
            return;
        }
        part["sourceId"] = json!(format!("source-{}", self.sources.len()));
        self.sources.push(source.to_owned());
        if let (Some(_), Some(title)) = (said("url"), said("title")) {
            part["title"] = json!(title);
        }
        self.part(buf, &part);
    }

    fn end(&mut self, last: &Value, buf: &mut BytesMut) {
        self.close_step(buf);
        self.part(buf, last);
        buf.put_slice(DONE);
    }
}

impl FrameEncoder for Encoder {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        match frame {
            Frame::RunStarted { thread_id, .. } => {
                let metadata = json!({ "runId": self.run_id, "threadId": text_of(thread_id) });
                let start = json!({ "type": "start", "messageId": self.message_id,
                    "messageMetadata": metadata });
                self.part(buf, &start);
            }
            Frame::ModelStarted { .. } => {
                self.close_step(buf);
                self.in_step = true;
                self.part(buf, &json!({ "type": "start-step" }));
            }
            // There is no part for a refusal; it is what the assistant says.
            Frame::Text(text) | Frame::Refusal(text) => self.piece(Kind::Text, text, buf),
            Frame::Reasoning(text) => self.piece(Kind::Reasoning, text, buf),
            Frame::Cited(citation) => self.source(citation, buf),
            Frame::ReasoningDone { .. } => self.close(buf),
            Frame::ToolStarted { id, name, .. } => {
                self.close(buf);
                let (id, name) = (text_of(id), text_of(name));
                let start = json!({ "type": "tool-input-start", "toolCallId": id,
                    "toolName": name, "providerExecuted": true });
                self.part(buf, &start);
                self.calls.push(Call {
                    id: Escaped::escape(&id),
                    name,
                    arguments: Vec::new(),
                    done: false,
                });
            }
            Frame::ToolArgs { index, delta } => {
                if let Some(call) = self.calls.get_mut(*index as usize) {
                    call.arguments.extend_from_slice(delta.as_bytes());
                    buf.put_slice(b"data: {\"type\":\"tool-input-delta\",\"toolCallId\":\"");
                    buf.put_slice(call.id.as_bytes());
                    buf.put_slice(b"\",\"inputTextDelta\":\"");
                    buf.put_slice(delta.as_bytes());
                    buf.put_slice(b"\"}\n\n");
                    self.written += 1;
                }
            }
            Frame::ToolDone { index, .. } => self.call_done(*index as usize, buf),
            Frame::RunCompleted { stop, usage, .. } => {
                let metadata = json!({ "usage": {
                    "inputTokens": usage.input, "outputTokens": usage.output,
                    "totalTokens": usage.total() } });
                let finish = json!({ "type": "finish", "finishReason": finish_reason(*stop),
                    "messageMetadata": metadata });
                self.end(&finish, buf);
            }
            Frame::ToolCompleted(done) => {
                let (id, output) = (text_of(&done.id), done.output.unescape());
                let part = match done.is_error {
                    true => json!({ "type": "tool-output-error", "toolCallId": id,
                        "errorText": output, "providerExecuted": true }),
                    false => json!({ "type": "tool-output-available", "toolCallId": id,
                        "output": output, "providerExecuted": true }),
                };
                self.part(buf, &part);
            }
            Frame::ApprovalRequired(asked) => {
                let id = text_of(&asked.id);
                let approval = format!("{}::{id}", self.run_id);
                let part = json!({ "type": "tool-approval-request", "approvalId": approval,
                    "toolCallId": id });
                self.part(buf, &part);
            }
            Frame::RunPaused { .. } => {
                self.end(
                    &json!({ "type": "finish", "finishReason": "tool-calls" }),
                    buf,
                );
            }
            Frame::RunFailed {
                code,
                message,
                param,
            } => {
                self.close_step(buf);
                let error = failure(code, message, param);
                self.part(buf, &told_error(&error));
                self.end(&error_part(&error), buf);
            }
            Frame::RunCancelled { .. } => self.end(&json!({ "type": "abort" }), buf),
            _ => {}
        }
    }

    fn written(&self) -> u64 {
        self.written
    }
}

/// The wire's own part has no place for more than a text.
fn error_part(error: &ApiError) -> Value {
    json!({ "type": "error", "errorText": error.message })
}

/// What a program needs of an error, which clients see as it passes and do not keep.
fn told_error(error: &ApiError) -> Value {
    json!({ "type": "data-error", "transient": true, "data": {
        "code": error.code, "param": error.param, "message": error.message } })
}

/// What ends a stream in which nothing has been said with an error.
pub fn write_error(error: &ApiError, buf: &mut BytesMut) {
    for part in [told_error(error), error_part(error)] {
        sse::write_event(buf, None, None, &[part.to_string().as_bytes()]);
    }
    buf.put_slice(DONE);
}
