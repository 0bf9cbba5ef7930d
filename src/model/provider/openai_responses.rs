//! OpenAI Responses as a provider wire, stateless (`store: false`) with encrypted reasoning.
//! Wire facts: the OpenAI API reference, "Responses" and "Responses streaming".

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::*;
use crate::config::Efforts;
use crate::frame::{Signer, StopReason, Usage};
use crate::model::request::{
    Part, ResponseFormat, Role, Signature, Source, ToolChoice, joined_text,
};

/// The wire.
pub struct OpenaiResponses;

impl ProviderApi for OpenaiResponses {
    fn path(&self, _model: &str, _stream: bool) -> String {
        "/responses".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        bearer(key)
    }

    fn body(
        &self,
        request: &ModelRequest,
        rules: &Rules,
        stream: bool,
        _stream_usage: bool,
    ) -> Result<Value, ModelError> {
        let mut body = Map::new();
        body.insert("model".into(), json!(request.model));
        body.insert("input".into(), Value::Array(input(request)?));
        body.insert("store".into(), json!(false));
        // Models that take no effort answer 400 to this.
        if rules.efforts != Efforts::default() {
            body.insert("include".into(), json!(["reasoning.encrypted_content"]));
        }
        let params = &request.params;
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.into(), value);
            }
        };
        set("stream", stream.then_some(json!(true)));
        set("instructions", request.system.as_ref().map(|s| json!(s)));
        set("temperature", params.temperature.map(Value::from));
        set("top_p", params.top_p.map(Value::from));
        set("max_output_tokens", params.max_tokens.map(Value::from));
        set("user", params.user.as_ref().map(|u| json!(u)));
        set(
            "prompt_cache_key",
            params.prompt_cache_key.as_ref().map(|k| json!(k)),
        );
        set(
            "service_tier",
            params.service_tier.as_ref().map(|t| json!(t)),
        );
        set("metadata", params.metadata.as_ref().map(|m| json!(m)));
        set(
            "reasoning",
            rules.effort(params.effort).map(|e| {
                if e.budget_tokens() > 0 {
                    json!({ "effort": e.as_str(), "summary": "auto" })
                } else {
                    json!({ "effort": e.as_str() })
                }
            }),
        );
        let text = request.response_format.as_ref().map(|format| match format {
            ResponseFormat::JsonObject => json!({ "format": { "type": "json_object" } }),
            ResponseFormat::JsonSchema {
                name,
                description,
                schema,
                strict,
            } => {
                let mut format = json!({
                    "type": "json_schema",
                    "name": name,
                    "schema": schema,
                    "strict": strict,
                });
                if let Some(description) = description {
                    format["description"] = json!(description);
                }
                json!({ "format": format })
            }
        });
        let text = match (&params.verbosity, text) {
            (None, text) => text,
            (Some(verbosity), text) => {
                let mut text = text.unwrap_or_else(|| json!({}));
                text["verbosity"] = json!(verbosity);
                Some(text)
            }
        };
        set("text", text);
        if !request.tools.is_empty() {
            let tools: Value = request
                .tools
                .iter()
                .map(|tool| {
                    let mut out = json!({
                        "type": "function",
                        "name": tool.name,
                        "parameters": tool.parameters,
                        "strict": tool.strict.unwrap_or(false),
                    });
                    if let Some(description) = &tool.description {
                        out["description"] = json!(description);
                    }
                    out
                })
                .collect();
            set("tools", Some(tools));
            set(
                "parallel_tool_calls",
                request.parallel_tool_calls.map(Value::from),
            );
            set(
                "tool_choice",
                request.tool_choice.as_ref().map(|choice| match choice {
                    ToolChoice::Auto => json!("auto"),
                    ToolChoice::None => json!("none"),
                    ToolChoice::Required => json!("required"),
                    ToolChoice::Named(name) => json!({ "type": "function", "name": name }),
                }),
            );
        }
        Ok(Value::Object(body))
    }

    fn decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(Repeating::new(Decoder::default()))
    }

    #[cfg(test)]
    fn parser(&self) -> Box<dyn StreamDecoder> {
        Box::new(Decoder::default())
    }

    fn decode_full(&self, body: &Bytes) -> Result<Vec<Frame>, ModelError> {
        let response: Response<'_> =
            serde_json::from_slice(body).map_err(|e| ModelError::Malformed(e.to_string()))?;
        let mut decoder = Decoder::default();
        let mut out = vec![response.started()];
        for (at, item) in response.output.iter().enumerate() {
            let at = at as u32;
            decoder.added(at, item, &mut out);
            for part in item.content.iter().flatten() {
                out.extend(text_of(body, part.text).map(Frame::Text));
                out.extend(text_of(body, part.refusal).map(Frame::Refusal));
            }
            for part in item.summary.iter().flatten() {
                out.extend(text_of(body, part.text).map(Frame::Reasoning));
            }
            decoder.item_done(body, at, item, &mut out);
        }
        decoder.ended(&response)?;
        decoder.finish(&mut out)?;
        Ok(out)
    }
}

fn input(request: &ModelRequest) -> Result<Vec<Value>, ModelError> {
    let mut items = Vec::new();
    for turn in &request.turns {
        let mut content = Vec::new();
        let (role, text_type) = match turn.role {
            Role::Assistant => ("assistant", "output_text"),
            Role::User | Role::Tool => ("user", "input_text"),
        };
        for part in &turn.parts {
            let item = match part {
                Part::Text { text } => {
                    content.push(json!({ "type": text_type, "text": text }));
                    continue;
                }
                Part::Refusal { text } => {
                    content.push(json!({ "type": "refusal", "refusal": text }));
                    continue;
                }
                Part::Image { source, detail } => {
                    let mut image = json!({
                        "type": "input_image",
                        "detail": detail.as_deref().unwrap_or("auto"),
                    });
                    match source {
                        Source::FileId { id } => image["file_id"] = json!(id),
                        other => image["image_url"] = json!(other.to_url()),
                    }
                    content.push(image);
                    continue;
                }
                Part::File { source, name } => {
                    let mut file = json!({ "type": "input_file" });
                    match source {
                        Source::FileId { id } => file["file_id"] = json!(id),
                        Source::Url { url } => file["file_url"] = json!(url),
                        data @ Source::Data { .. } => {
                            file["file_data"] = json!(data.to_url());
                            file["filename"] = json!(name.as_deref().unwrap_or("file"));
                        }
                    }
                    content.push(file);
                    continue;
                }
                Part::Audio { .. } => {
                    return Err(ModelError::Unsupported(
                        "the Responses wire takes no audio input".into(),
                    ));
                }
                Part::ToolCall {
                    id,
                    name,
                    arguments,
                    ..
                } => json!({
                    "type": "function_call",
                    "call_id": id,
                    "name": name,
                    "arguments": arguments,
                }),
                Part::ToolResult {
                    tool_call_id,
                    content,
                    ..
                } => json!({
                    "type": "function_call_output",
                    "call_id": tool_call_id,
                    "output": joined_text(content),
                }),
                Part::Reasoning { signature, .. } => {
                    let item = Signature::of(signature, Signer::OpenAi);
                    match item.map(serde_json::from_str::<Value>) {
                        Some(Ok(item)) => item,
                        _ => continue,
                    }
                }
            };
            // Items keep their order: words before a call stay before it.
            flush(&mut items, role, &mut content);
            items.push(item);
        }
        flush(&mut items, role, &mut content);
    }
    Ok(items)
}

fn flush(items: &mut Vec<Value>, role: &str, content: &mut Vec<Value>) {
    if !content.is_empty() {
        let content = std::mem::take(content);
        items.push(json!({ "type": "message", "role": role, "content": content }));
    }
}

#[derive(Deserialize)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    output_index: u32,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item: Option<Item<'a>>,
    #[serde(borrow, default)]
    response: Option<Response<'a>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<WireError<'a>>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    output: Vec<Item<'a>>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(borrow, default)]
    error: Option<WireError<'a>>,
    #[serde(borrow, default)]
    incomplete_details: Option<Incomplete<'a>>,
}

impl Response<'_> {
    fn started(&self) -> Frame {
        Frame::ModelStarted {
            id: shared(&self.id),
            model: shared(&self.model),
        }
    }
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
}

#[derive(Deserialize)]
struct WireError<'a> {
    #[serde(borrow, default, deserialize_with = "borrowed")]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    message: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    encrypted_content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<Vec<ContentPart<'a>>>,
    #[serde(borrow, default)]
    summary: Option<Vec<ContentPart<'a>>>,
}

#[derive(Deserialize)]
struct ContentPart<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct WireUsage {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    input_tokens_details: Option<InputDetails>,
    #[serde(default)]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Default, Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: u64,
}

#[derive(Default, Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: u64,
}

struct OpenCall {
    output_index: u32,
    index: u32,
    has_arguments: bool,
}

#[derive(Default)]
struct Decoder {
    calls: Vec<OpenCall>,
    usage: Option<Usage>,
    stop: Option<StopReason>,
}

fn failed(code: Option<&str>, message: Option<&str>) -> ModelError {
    ModelError::told(code.unwrap_or_default(), message.unwrap_or("no message"))
}

impl Decoder {
    fn added(&mut self, output_index: u32, item: &Item<'_>, out: &mut Vec<Frame>) {
        if item.kind != "function_call" {
            return;
        }
        let index = self.calls.len() as u32;
        out.push(Frame::ToolStarted {
            index,
            id: shared(item.call_id.as_deref().unwrap_or_default()),
            name: shared(item.name.as_deref().unwrap_or_default()),
        });
        self.calls.push(OpenCall {
            output_index,
            index,
            has_arguments: false,
        });
    }

    fn item_done(
        &mut self,
        data: &Bytes,
        output_index: u32,
        item: &Item<'_>,
        out: &mut Vec<Frame>,
    ) {
        match &*item.kind {
            "function_call" => {
                let Some(call) = self.calls.iter().find(|c| c.output_index == output_index) else {
                    return;
                };
                if !call.has_arguments
                    && let Some(delta) = text_of(data, item.arguments)
                {
                    out.push(Frame::ToolArgs {
                        index: call.index,
                        delta,
                    });
                }
                out.push(Frame::ToolDone {
                    index: call.index,
                    signature: Bytes::new(),
                });
            }
            "reasoning" => {
                // What the next turn must send back is the item itself, without its status.
                let signature = item.encrypted_content.as_ref().map(|encrypted| {
                    json!({
                        "type": "reasoning",
                        "id": item.id,
                        "summary": [],
                        "encrypted_content": encrypted,
                    })
                    .to_string()
                });
                out.push(Frame::ReasoningDone {
                    signer: Signer::OpenAi,
                    signature: Bytes::from(signature.unwrap_or_default()),
                    redacted: false,
                });
            }
            _ => {}
        }
    }

    fn ended(&mut self, response: &Response<'_>) -> Result<(), ModelError> {
        if let Some(usage) = &response.usage {
            self.usage = Some(Usage {
                input: usage.input_tokens,
                output: usage.output_tokens,
                cache_read: usage
                    .input_tokens_details
                    .as_ref()
                    .map_or(0, |d| d.cached_tokens),
                cache_write: 0,
                reasoning: usage
                    .output_tokens_details
                    .as_ref()
                    .map_or(0, |d| d.reasoning_tokens),
            });
        }
        let reason = response.incomplete_details.as_ref().map(|d| &*d.reason);
        self.stop = Some(match response.status.as_deref() {
            Some("failed" | "cancelled") => {
                let error = response.error.as_ref();
                return Err(failed(
                    error.and_then(|e| e.code.as_deref()),
                    error.and_then(|e| e.message.as_deref()),
                ));
            }
            Some("incomplete") if reason == Some("content_filter") => StopReason::ContentFilter,
            Some("incomplete") => StopReason::MaxTokens,
            _ if !self.calls.is_empty() => StopReason::ToolCalls,
            _ => StopReason::EndTurn,
        });
        Ok(())
    }
}

impl StreamDecoder for Decoder {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let data = &event.data;
        if data.trim_ascii() == b"[DONE]" {
            return Ok(());
        }
        let parsed: StreamEvent<'_> =
            serde_json::from_slice(data).map_err(|e| malformed(event, &e))?;
        match &*parsed.kind {
            "response.output_text.delta" => {
                out.extend(text_of(data, parsed.delta).map(Frame::Text));
            }
            "response.refusal.delta" => {
                out.extend(text_of(data, parsed.delta).map(Frame::Refusal));
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                out.extend(text_of(data, parsed.delta).map(Frame::Reasoning));
            }
            "response.function_call_arguments.delta" => {
                let at = parsed.output_index;
                if let Some(call) = self.calls.iter_mut().find(|c| c.output_index == at)
                    && let Some(delta) = text_of(data, parsed.delta)
                {
                    call.has_arguments = true;
                    out.push(Frame::ToolArgs {
                        index: call.index,
                        delta,
                    });
                }
            }
            "response.created" => out.extend(parsed.response.map(|r| r.started())),
            "response.output_item.added" => {
                if let Some(item) = &parsed.item {
                    self.added(parsed.output_index, item, out);
                }
            }
            "response.output_item.done" => {
                if let Some(item) = &parsed.item {
                    self.item_done(data, parsed.output_index, item, out);
                }
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                if let Some(response) = &parsed.response {
                    self.ended(response)?;
                }
            }
            "error" => {
                let nested = parsed.error.as_ref();
                return Err(failed(
                    parsed
                        .code
                        .as_deref()
                        .or(nested.and_then(|e| e.code.as_deref())),
                    parsed
                        .message
                        .as_deref()
                        .or(nested.and_then(|e| e.message.as_deref())),
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.stop.is_some()
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let stop = self.stop.take().ok_or(ModelError::Cut)?;
        out.extend(self.usage.take().map(Frame::ModelUsage));
        out.push(Frame::ModelStopped(stop));
        Ok(())
    }
}
