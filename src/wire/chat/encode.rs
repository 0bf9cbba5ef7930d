//! Frames as `chat.completion.chunk` events, or one answer as `chat.completion`.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::custom::CustomTools;
use super::{finish_reason, usage_out};
use crate::error::ApiError;
use crate::frame::{Escaped, Frame, StopReason, Usage, citation};
use crate::model::Part;
use crate::run::Collected;
use crate::sse;
use crate::wire::openai::tools::input_of;
use crate::wire::{AnswerEncoder, FrameEncoder, failure};

/// Writes one streamed answer. Everything that every chunk repeats is made once.
pub struct StreamEncoder {
    /// `{"id":…,"object":…,"created":…,"model":…,"choices":[{"index":0,"delta":{`
    head: Bytes,
    /// The same without `choices`, for the usage chunk.
    envelope: Bytes,
    include_usage: bool,
    /// The client knows one call of a function, not tools.
    has_functions: bool,
    role_sent: bool,
    ended: bool,
    chunks: u64,
    custom: Option<Box<Custom>>,
}

/// Calls of custom tools, whose input is told when it is whole.
struct Custom {
    names: CustomTools,
    /// Under way: their index and the escaped arguments so far.
    open: Vec<(u32, Vec<u8>)>,
}

const TAIL: &[u8] = b"},\"finish_reason\":null}]}";
const DONE: &[u8] = b"data: [DONE]\n\n";

impl StreamEncoder {
    /// `created` in unix seconds; `model` as the client shall see it.
    pub fn new(id: &str, created: i64, model: &str, include_usage: bool) -> Self {
        let model = Escaped::escape(model);
        let mut envelope = BytesMut::with_capacity(160);
        envelope.put_slice(b"{\"id\":\"");
        envelope.put_slice(Escaped::escape(id).as_bytes());
        envelope.put_slice(b"\",\"object\":\"chat.completion.chunk\",\"created\":");
        envelope.put_slice(itoa::Buffer::new().format(created).as_bytes());
        envelope.put_slice(b",\"model\":\"");
        envelope.put_slice(model.as_bytes());
        envelope.put_slice(b"\",");
        let mut head = envelope.clone();
        head.put_slice(b"\"choices\":[{\"index\":0,\"delta\":{");
        Self {
            head: head.freeze(),
            envelope: envelope.freeze(),
            include_usage,
            has_functions: false,
            role_sent: false,
            ended: false,
            chunks: 0,
            custom: None,
        }
    }

    /// For a client that asked with `functions`, and is answered with a `function_call`.
    pub fn with_functions(mut self, has_functions: bool) -> Self {
        self.has_functions = has_functions;
        self
    }

    /// For a request that has custom tools.
    pub fn with_custom(mut self, names: CustomTools) -> Self {
        self.custom = (!names.is_empty()).then(|| {
            let open = Vec::new();
            Box::new(Custom { names, open })
        });
        self
    }

    /// Takes a frame of a custom tool's call; `false` for all others.
    fn of_custom(&mut self, frame: &Frame, buf: &mut BytesMut) -> bool {
        let Some(custom) = &mut self.custom else {
            return false;
        };
        let call = match frame {
            Frame::ToolStarted { index, id, name } => {
                let name = String::from_utf8_lossy(name);
                if !custom.names.has(&name) {
                    return false;
                }
                custom.open.push((*index, Vec::new()));
                json!([{ "index": index, "id": String::from_utf8_lossy(id), "type": "custom",
                    "custom": { "name": name, "input": "" } }])
            }
            Frame::ToolArgs { index, delta } => {
                let open = custom.open.iter_mut().find(|(at, _)| at == index);
                let Some((_, arguments)) = open else {
                    return false;
                };
                arguments.extend_from_slice(delta.as_bytes());
                return true;
            }
            Frame::ToolDone { index, .. } => {
                let Some(place) = custom.open.iter().position(|(at, _)| at == index) else {
                    return false;
                };
                let (_, arguments) = custom.open.swap_remove(place);
                let arguments = Escaped::from_valid(arguments.into()).unescape();
                json!([{ "index": index, "custom": { "input": input_of(&arguments) } }])
            }
            _ => return false,
        };
        self.delta(buf, &[b"\"tool_calls\":", call.to_string().as_bytes()]);
        true
    }

    fn delta(&mut self, buf: &mut BytesMut, parts: &[&[u8]]) {
        self.role(buf);
        self.chunks += 1;
        buf.put_slice(b"data: ");
        buf.put_slice(&self.head);
        for part in parts {
            buf.put_slice(part);
        }
        buf.put_slice(TAIL);
        buf.put_slice(b"\n\n");
    }

    fn role(&mut self, buf: &mut BytesMut) {
        if !self.role_sent {
            self.role_sent = true;
            self.delta(buf, &[b"\"role\":\"assistant\",\"content\":\"\""]);
        }
    }
}

impl FrameEncoder for StreamEncoder {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        if self.custom.is_some() && self.of_custom(frame, buf) {
            return;
        }
        match frame {
            Frame::ModelStarted { .. } => self.role(buf),
            Frame::Text(text) => self.delta(buf, &[b"\"content\":\"", text.as_bytes(), b"\""]),
            Frame::Reasoning(text) => {
                self.delta(buf, &[b"\"reasoning_content\":\"", text.as_bytes(), b"\""]);
            }
            Frame::Refusal(text) => self.delta(buf, &[b"\"refusal\":\"", text.as_bytes(), b"\""]),
            Frame::Cited(citation) => {
                if let Some(annotation) = annotation(serde_json::from_slice(citation).ok()) {
                    let annotations = json!([annotation]).to_string();
                    self.delta(buf, &[b"\"annotations\":", annotations.as_bytes()]);
                }
            }
            Frame::ToolStarted { index: 0, name, .. } if self.has_functions => {
                let name = String::from_utf8_lossy(name);
                let call = json!({ "name": name, "arguments": "" }).to_string();
                self.delta(buf, &[b"\"function_call\":", call.as_bytes()]);
            }
            Frame::ToolArgs { index: 0, delta } if self.has_functions => self.delta(
                buf,
                &[
                    b"\"function_call\":{\"arguments\":\"",
                    delta.as_bytes(),
                    b"\"}",
                ],
            ),
            Frame::ToolDone { index: 0, .. } if self.has_functions => {}
            Frame::ToolStarted { index, id, name } => {
                let call = json!([{
                    "index": index,
                    "id": String::from_utf8_lossy(id),
                    "type": "function",
                    "function": { "name": String::from_utf8_lossy(name), "arguments": "" },
                }])
                .to_string();
                self.delta(buf, &[b"\"tool_calls\":", call.as_bytes()]);
            }
            Frame::ToolArgs { index, delta } => {
                let mut number = itoa::Buffer::new();
                self.delta(
                    buf,
                    &[
                        b"\"tool_calls\":[{\"index\":",
                        number.format(*index).as_bytes(),
                        b",\"function\":{\"arguments\":\"",
                        delta.as_bytes(),
                        b"\"}}]",
                    ],
                );
            }
            Frame::ToolDone { index, signature } if !signature.is_empty() => {
                let call = json!([{
                    "index": index,
                    "function": { "arguments": "" },
                    "extra_content": {
                        "google": { "thought_signature": String::from_utf8_lossy(signature) },
                    },
                }])
                .to_string();
                self.delta(buf, &[b"\"tool_calls\":", call.as_bytes()]);
            }
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
        self.chunks
    }
}

impl AnswerEncoder for StreamEncoder {
    fn finish(&mut self, stop: StopReason, usage: &Usage, buf: &mut BytesMut) {
        self.role(buf);
        // A call whose end was not told ends with the answer.
        let open = self.custom.as_ref().map(|custom| custom.open.clone());
        for (index, _) in open.unwrap_or_default() {
            let signature = Bytes::new();
            self.of_custom(&Frame::ToolDone { index, signature }, buf);
        }
        self.chunks += 1;
        buf.put_slice(b"data: ");
        buf.put_slice(&self.head);
        buf.put_slice(b"},\"finish_reason\":\"");
        buf.put_slice(finish(stop, self.has_functions).as_bytes());
        buf.put_slice(b"\"}]}\n\n");
        if self.include_usage {
            self.chunks += 1;
            let usage = usage_out(usage).to_string();
            sse::write_event(
                buf,
                None,
                None,
                &[
                    &self.envelope,
                    b"\"choices\":[],\"usage\":",
                    usage.as_bytes(),
                    b"}",
                ],
            );
        }
        buf.put_slice(DONE);
        self.ended = true;
    }

    fn fail(&mut self, error: &ApiError, buf: &mut BytesMut) {
        self.chunks += 1;
        write_error(error, buf);
        self.ended = true;
    }

    fn is_ended(&self) -> bool {
        self.ended
    }
}

/// `data: {"error":{…}}` and `[DONE]`: how this wire tells of a failure after the header.
pub fn write_error(error: &ApiError, buf: &mut BytesMut) {
    sse::write_event(buf, None, None, &[&error.body()]);
    buf.put_slice(DONE);
}

/// A citation as this wire has it, which knows those of pages alone; others are left out.
fn annotation(citation: Option<Value>) -> Option<Value> {
    let Value::Object(mut citation) = citation? else {
        return None;
    };
    let kind = citation.shift_remove("type")?;
    (kind == "url_citation").then(|| json!({ "type": kind, "url_citation": citation }))
}

fn finish(stop: StopReason, has_functions: bool) -> &'static str {
    match finish_reason(stop) {
        "tool_calls" if has_functions => "function_call",
        reason => reason,
    }
}

/// The same, for a client that asked with `functions`: the one call is a `function_call`.
pub fn as_function_call(mut answer: Value) -> Value {
    let choice = &mut answer["choices"][0];
    if choice["finish_reason"] == "tool_calls" {
        choice["finish_reason"] = json!("function_call");
    }
    let Some(message) = choice["message"].as_object_mut() else {
        return answer;
    };
    if let Some(Value::Array(mut calls)) = message.shift_remove("tool_calls") {
        let first = calls.remove(0);
        message.insert("function_call".into(), first["function"].clone());
        if !calls.is_empty() {
            message.insert("tool_calls".into(), Value::Array(calls));
        }
    }
    answer
}

/// `chat.completion`.
pub fn full_answer(id: &str, created: i64, model: &str, answer: &Collected) -> Value {
    let text = answer.text();
    let calls = answer.tool_calls();
    let mut reasoning = String::new();
    let mut refusal = None;
    let mut annotations = Vec::new();
    // Characters of the texts, and of those before the last.
    let (mut chars, mut before) = (0, 0);
    for part in &answer.parts {
        match part {
            Part::Text { text } => {
                before = chars;
                chars += i64::try_from(text.chars().count()).unwrap_or_default();
            }
            Part::Citation { of } => {
                annotations.extend(annotation(Some(citation::shifted(of.clone(), before))));
            }
            Part::Reasoning { text, .. } => reasoning.push_str(text),
            Part::Refusal { text } => refusal = Some(text),
            _ => {}
        }
    }
    let mut message = json!({
        "role": "assistant",
        "content": if text.is_empty() && !calls.is_empty() { Value::Null } else { json!(text) },
        "refusal": refusal,
        "annotations": annotations,
    });
    if !reasoning.is_empty() {
        message["reasoning_content"] = json!(reasoning);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    json!({
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": finish_reason(answer.stop),
        }],
        "usage": usage_out(&answer.usage),
    })
}
