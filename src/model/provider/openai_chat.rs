//! OpenAI Chat Completions as a provider wire, and everything compatible with it. Wire facts: the
//! OpenAI API reference, "Chat" and "Chat streaming"; `reasoning_content` from DeepSeek and vLLM;
//! `extra_content.google.thought_signature` from Gemini's OpenAI compatibility page.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::reasoning;
use super::*;
use crate::config::SystemRole;
use crate::frame::{StopReason, Usage};
use crate::model::fault::Fault;
use crate::model::request::{Part, ResponseFormat, Role, Source, ToolChoice, joined_text};

/// The wire.
pub struct OpenaiChat;

impl ProviderApi for OpenaiChat {
    fn path(&self, _model: &str, _stream: bool) -> String {
        "/chat/completions".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        bearer(key)
    }

    fn body(
        &self,
        request: &ModelRequest,
        rules: &Rules,
        stream: bool,
        stream_usage: bool,
    ) -> Result<Value, ModelError> {
        let mut body = Map::new();
        body.insert("model".into(), json!(request.model));
        body.insert("messages".into(), Value::Array(messages(request, rules)?));
        if stream {
            body.insert("stream".into(), json!(true));
            if stream_usage {
                body.insert("stream_options".into(), json!({ "include_usage": true }));
            }
        }
        if !request.tools.is_empty() {
            let tools = request.tools.iter().map(|tool| {
                let mut function = json!({ "name": tool.name, "parameters": tool.parameters });
                if let Some(description) = &tool.description {
                    function["description"] = json!(description);
                }
                if let Some(strict) = tool.strict {
                    function["strict"] = json!(strict);
                }
                json!({ "type": "function", "function": function })
            });
            body.insert("tools".into(), tools.collect());
            if let Some(choice) = &request.tool_choice {
                body.insert("tool_choice".into(), tool_choice(choice));
            }
            if let Some(parallel) = request.parallel_tool_calls {
                body.insert("parallel_tool_calls".into(), json!(parallel));
            }
        }
        match &request.response_format {
            None => {}
            Some(ResponseFormat::JsonObject) => {
                body.insert("response_format".into(), json!({ "type": "json_object" }));
            }
            Some(ResponseFormat::JsonSchema {
                name,
                description,
                schema,
                strict,
            }) => {
                let mut inner = json!({ "name": name, "schema": schema, "strict": strict });
                if let Some(description) = description {
                    inner["description"] = json!(description);
                }
                body.insert(
                    "response_format".into(),
                    json!({ "type": "json_schema", "json_schema": inner }),
                );
            }
        }
        let params = &request.params;
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.into(), value);
            }
        };
        set("temperature", params.temperature.map(Value::from));
        set("top_p", params.top_p.map(Value::from));
        let limit = rules.limit_name.as_str();
        set(limit, params.max_tokens.map(Value::from));
        let seed = match rules.random_seed {
            true => "random_seed",
            false => "seed",
        };
        set(seed, params.seed.map(Value::from));
        set("presence_penalty", params.presence_penalty.map(Value::from));
        set(
            "frequency_penalty",
            params.frequency_penalty.map(Value::from),
        );
        let effort = rules.effort(params.effort);
        set("reasoning_effort", effort.map(|e| json!(e.as_str())));
        set("logit_bias", params.logit_bias.as_ref().map(|b| json!(b)));
        if rules.extras {
            // `metadata` is only taken with `store`, which nothing here asks for.
            for (name, value) in [
                ("user", &params.user),
                ("verbosity", &params.verbosity),
                ("service_tier", &params.service_tier),
                ("prompt_cache_key", &params.prompt_cache_key),
            ] {
                set(name, value.as_ref().map(|v| json!(v)));
            }
        }
        set(
            "stop",
            (!params.stop.is_empty()).then(|| json!(params.stop)),
        );
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
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        decoder.chunk(body, &mut frames).map_err(|e| match e {
            ChunkError::Json(e) => ModelError::Malformed(e.to_string()),
            ChunkError::Model(e) => e,
        })?;
        decoder.finish(&mut frames)?;
        Ok(frames)
    }
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::None => json!("none"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
    }
}

fn messages(request: &ModelRequest, rules: &Rules) -> Result<Vec<Value>, ModelError> {
    let mut messages = Vec::with_capacity(request.turns.len() + 1);
    if let Some(system) = &request.system {
        let role = match rules.system_role {
            SystemRole::System => "system",
            SystemRole::Developer => "developer",
            SystemRole::User => "user",
        };
        messages.push(json!({ "role": role, "content": system }));
    }
    // Other servers refuse or misread fields that they do not know.
    let is_google = request.model.contains("gemini");
    for turn in &request.turns {
        match turn.role {
            Role::User => {
                messages.push(json!({ "role": "user", "content": content(&turn.parts)? }))
            }
            Role::Assistant => {
                let mut message = assistant(&turn.parts, is_google);
                reasoning::put_back(&mut message, &turn.parts, rules.replay);
                messages.push(message);
            }
            Role::Tool => {
                for part in &turn.parts {
                    if let Part::ToolResult {
                        tool_call_id,
                        content: parts,
                        ..
                    } = part
                    {
                        messages.push(json!({
                            "role": "tool",
                            "tool_call_id": tool_call_id,
                            "content": joined_text(parts),
                        }));
                    }
                }
            }
        }
    }
    Ok(messages)
}

fn assistant(parts: &[Part], is_google: bool) -> Value {
    let mut message = json!({ "role": "assistant" });
    let text = joined_text(parts);
    let mut calls = Vec::new();
    for part in parts {
        match part {
            Part::ToolCall {
                id,
                name,
                arguments,
                signature,
                ..
            } => {
                let mut call = json!({
                    "id": id,
                    "type": "function",
                    "function": { "name": name, "arguments": arguments },
                });
                if let Some(signature) = signature.as_ref().filter(|_| is_google) {
                    call["extra_content"] = json!({ "google": { "thought_signature": signature } });
                }
                calls.push(call);
            }
            Part::Refusal { text } => message["refusal"] = json!(text),
            _ => {}
        }
    }
    message["content"] = if text.is_empty() {
        Value::Null
    } else {
        json!(text)
    };
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    message
}

fn content(parts: &[Part]) -> Result<Value, ModelError> {
    if let [Part::Text { text }] = parts {
        return Ok(json!(text));
    }
    let mut content = Vec::with_capacity(parts.len());
    for part in parts {
        content.push(match part {
            Part::Text { text } | Part::Refusal { text } => json!({ "type": "text", "text": text }),
            Part::Image { source, detail } => {
                let url = source.to_url().ok_or_else(|| {
                    ModelError::Unsupported("Chat Completions takes images by URL or data".into())
                })?;
                let mut image = json!({ "url": url });
                if let Some(detail) = detail {
                    image["detail"] = json!(detail);
                }
                json!({ "type": "image_url", "image_url": image })
            }
            Part::File { source, name } => {
                let mut file = match source {
                    Source::FileId { id } => json!({ "file_id": id }),
                    Source::Data { .. } => json!({ "file_data": source.to_url() }),
                    Source::Url { .. } => {
                        return Err(ModelError::Unsupported(
                            "Chat Completions takes files by id or data, not by URL".into(),
                        ));
                    }
                };
                if let Some(name) = name {
                    file["filename"] = json!(name);
                }
                json!({ "type": "file", "file": file })
            }
            Part::Audio { data, format } => {
                json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } })
            }
            Part::ToolCall { .. } | Part::ToolResult { .. } | Part::Reasoning { .. } => continue,
        });
    }
    Ok(Value::Array(content))
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default, deserialize_with = "borrowed")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    choices: Option<Few<Choice<'a>>>,
    #[serde(default)]
    usage: Option<ChatUsage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    /// `message` in an answer that was not streamed.
    #[serde(borrow, default, alias = "message")]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolDelta<'a>>>,
}

#[derive(Deserialize)]
struct ToolDelta<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<FunctionDelta<'a>>,
    #[serde(default)]
    extra_content: Option<Value>,
}

#[derive(Deserialize)]
struct FunctionDelta<'a> {
    #[serde(borrow, default, deserialize_with = "borrowed")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

/// The `usage` member of Chat Completions.
#[derive(Debug, Default, Deserialize)]
pub struct ChatUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Debug, Default, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl From<ChatUsage> for Usage {
    fn from(wire: ChatUsage) -> Self {
        Self {
            input: wire.prompt_tokens.unwrap_or(0),
            output: wire.completion_tokens.unwrap_or(0),
            cache_read: wire
                .prompt_tokens_details
                .and_then(|d| d.cached_tokens)
                .unwrap_or(0),
            cache_write: 0,
            reasoning: wire
                .completion_tokens_details
                .and_then(|d| d.reasoning_tokens)
                .unwrap_or(0),
        }
    }
}

/// OpenAI's `finish_reason` as a stop reason.
pub fn map_finish_reason(reason: &str) -> StopReason {
    match reason {
        "length" => StopReason::MaxTokens,
        "tool_calls" | "function_call" => StopReason::ToolCalls,
        "content_filter" => StopReason::ContentFilter,
        _ => StopReason::EndTurn,
    }
}

struct OpenCall {
    /// The provider's index of it.
    wire_index: u32,
    id: Bytes,
    signature: Bytes,
    done: bool,
}

#[derive(Default)]
struct Decoder {
    started: bool,
    reasoning: reasoning::Heard,
    calls: Vec<OpenCall>,
    stop: Option<StopReason>,
    done: bool,
}

enum ChunkError {
    Json(serde_json::Error),
    Model(ModelError),
}

impl Decoder {
    fn chunk(&mut self, data: &Bytes, out: &mut Vec<Frame>) -> Result<(), ChunkError> {
        let chunk: Chunk<'_> = serde_json::from_slice(data).map_err(ChunkError::Json)?;
        self.reasoning.next();
        if let Some(error) = chunk.error {
            let error = Fault::told_by(error.get());
            return Err(ChunkError::Model(ModelError::InStream(Box::new(error))));
        }
        if !self.started {
            self.started = true;
            out.push(Frame::ModelStarted {
                id: shared(chunk.id.as_deref().unwrap_or_default()),
                model: shared(chunk.model.as_deref().unwrap_or_default()),
            });
        }
        for choice in chunk.choices.into_iter().flatten() {
            if choice.index != 0 {
                continue;
            }
            if let Some(delta) = choice.delta {
                let content = text_of(data, delta.reasoning_content);
                let in_content = content.is_some();
                let mut text = content.or_else(|| text_of(data, delta.reasoning));
                if text.is_some() {
                    self.reasoning.text(in_content);
                }
                if let Some(details) = delta.reasoning_details {
                    let told = self.reasoning.details(details);
                    text = text.or(told);
                }
                out.extend(text.map(Frame::Reasoning));
                let goes_on = [delta.content, delta.refusal];
                if goes_on.iter().any(|next| text_of(data, *next).is_some())
                    || delta.tool_calls.as_ref().is_some_and(|c| !c.is_empty())
                {
                    out.extend(self.reasoning.end());
                }
                if let Some(text) = text_of(data, delta.content) {
                    out.push(Frame::Text(text));
                }
                if let Some(text) = text_of(data, delta.refusal) {
                    out.push(Frame::Refusal(text));
                }
                for call in delta.tool_calls.into_iter().flatten() {
                    self.tool(data, call, out);
                }
            }
            if let Some(reason) = choice.finish_reason {
                self.stop = Some(map_finish_reason(&reason));
            }
        }
        if let Some(usage) = chunk.usage {
            out.push(Frame::ModelUsage(usage.into()));
        }
        Ok(())
    }

    fn tool(&mut self, data: &Bytes, call: ToolDelta<'_>, out: &mut Vec<Frame>) {
        let function = call.function;
        let name = function
            .as_ref()
            .and_then(|f| f.name.as_deref())
            .unwrap_or_default();
        let id = call.id.as_deref().unwrap_or_default();
        let wire_index = call
            .index
            .unwrap_or(self.calls.len().saturating_sub(1) as u32);
        // Some providers send several whole calls under one index: another id begins another call.
        let found = self.calls.iter().rposition(|open| {
            open.wire_index == wire_index && !open.done && (id.is_empty() || open.id == id)
        });
        let at = match found {
            Some(at) => at,
            None if name.is_empty() => return,
            None => {
                let id = if id.is_empty() {
                    Bytes::from(crate::ids::mint(crate::ids::Kind::Call))
                } else {
                    shared(id)
                };
                out.push(Frame::ToolStarted {
                    index: self.calls.len() as u32,
                    id: id.clone(),
                    name: shared(name),
                });
                self.calls.push(OpenCall {
                    wire_index,
                    id,
                    signature: Bytes::new(),
                    done: false,
                });
                self.calls.len() - 1
            }
        };
        if let Some(signature) = call
            .extra_content
            .as_ref()
            .and_then(|e| e["google"]["thought_signature"].as_str())
        {
            self.calls[at].signature = shared(signature);
        }
        if let Some(delta) = text_of(data, function.and_then(|f| f.arguments)) {
            out.push(Frame::ToolArgs {
                index: at as u32,
                delta,
            });
        }
    }
}

impl StreamDecoder for Decoder {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        if event.data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        if event.data.trim_ascii().is_empty() {
            return Ok(());
        }
        self.chunk(&event.data, out).map_err(|e| match e {
            ChunkError::Json(e) => malformed(event, &e),
            ChunkError::Model(e) => e,
        })
    }

    fn may_repeat(&self) -> bool {
        !self.reasoning.adds_up()
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let Some(mut stop) = self.stop.take() else {
            return Err(ModelError::Cut);
        };
        out.extend(self.reasoning.end());
        for (at, call) in self.calls.iter_mut().enumerate() {
            if !call.done {
                call.done = true;
                out.push(Frame::ToolDone {
                    index: at as u32,
                    signature: call.signature.clone(),
                });
            }
        }
        // Some compatible providers finish tool calls with "stop".
        if stop == StopReason::EndTurn && !self.calls.is_empty() {
            stop = StopReason::ToolCalls;
        }
        out.push(Frame::ModelStopped(stop));
        Ok(())
    }
}
