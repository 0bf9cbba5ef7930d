//! Anthropic Messages as a provider wire. Wire facts: the Anthropic API reference, "Messages",
//! "Streaming messages", "Extended thinking" and "Structured outputs".

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::*;
use crate::config::Thinking;
use crate::frame::{Signer, StopReason, Usage};
use crate::model::request::{
    Effort, Part, ResponseFormat, Role, Signature, Source, ToolChoice, Turn, arguments_object,
};
use crate::model::rules::is_forced;

/// The wire.
pub struct Anthropic;

const VERSION: &str = "2023-06-01";

impl ProviderApi for Anthropic {
    fn path(&self, _model: &str, _stream: bool) -> String {
        "/messages".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = bearer(None);
        headers.push((
            HeaderName::from_static("anthropic-version"),
            HeaderValue::from_static(VERSION),
        ));
        if let Some(key) = key {
            headers.extend(secret_header(HeaderName::from_static("x-api-key"), key));
        }
        headers
    }

    fn body(
        &self,
        request: &ModelRequest,
        rules: &Rules,
        stream: bool,
        _stream_usage: bool,
    ) -> Result<Value, ModelError> {
        let mut body = Map::new();
        let plan = Plan::of(request, rules);
        let messages = messages(request, plan.keeps_thinking)?;
        body.insert("model".into(), json!(request.model));
        body.insert("messages".into(), Value::Array(messages));
        if stream {
            body.insert("stream".into(), json!(true));
        }
        let params = &request.params;
        let mut output_config = Map::new();
        body.insert("max_tokens".into(), json!(plan.max_tokens));
        let thinking = plan.thinks;
        if let Some(thinking) = plan.thinking {
            body.insert("thinking".into(), thinking);
        }
        if let Some(effort) = plan.effort {
            output_config.insert("effort".into(), json!(effort.as_str()));
        }
        let mut system = request.system.clone().unwrap_or_default();
        match &request.response_format {
            None => {}
            Some(ResponseFormat::JsonObject) => {
                if !system.is_empty() {
                    system.push_str("\n\n");
                }
                system.push_str(JSON_ONLY);
            }
            Some(ResponseFormat::JsonSchema { schema, .. }) => {
                output_config.insert(
                    "format".into(),
                    json!({ "type": "json_schema", "schema": schema }),
                );
            }
        }
        if !output_config.is_empty() {
            body.insert("output_config".into(), Value::Object(output_config));
        }
        if !system.is_empty() {
            body.insert("system".into(), json!(system));
        }
        if !thinking {
            if let Some(temperature) = params.temperature {
                body.insert("temperature".into(), json!(temperature));
            }
            if let Some(top_p) = params.top_p {
                body.insert("top_p".into(), json!(top_p));
            }
        }
        if !params.stop.is_empty() {
            body.insert("stop_sequences".into(), json!(params.stop));
        }
        if let Some(user) = &params.user {
            body.insert("metadata".into(), json!({ "user_id": user }));
        }
        if !request.tools.is_empty() {
            let tools = request.tools.iter().map(|tool| {
                let mut out = json!({ "name": tool.name, "input_schema": tool.parameters });
                if let Some(description) = &tool.description {
                    out["description"] = json!(description);
                }
                out
            });
            body.insert("tools".into(), tools.collect());
            let mut choice = match &request.tool_choice {
                None | Some(ToolChoice::Auto) => json!({ "type": "auto" }),
                Some(ToolChoice::None) => json!({ "type": "none" }),
                Some(ToolChoice::Required) => json!({ "type": "any" }),
                Some(ToolChoice::Named(name)) => json!({ "type": "tool", "name": name }),
            };
            if request.parallel_tool_calls == Some(false) && choice["type"] != "none" {
                choice["disable_parallel_tool_use"] = json!(true);
            }
            body.insert("tool_choice".into(), choice);
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
        decode_message(body)
    }
}

/// What a call does about thinking, and how long its answer may be.
struct Plan {
    thinks: bool,
    thinking: Option<Value>,
    effort: Option<Effort>,
    max_tokens: u32,
    /// Whether the thinking of earlier turns is sent.
    keeps_thinking: bool,
}

impl Plan {
    fn of(request: &ModelRequest, rules: &Rules) -> Self {
        let asked = request.params.effort;
        let wants = asked.is_some_and(|effort| effort.budget_tokens() > 0);
        // A forced tool choice and thinking exclude each other.
        let forced = is_forced(request.tool_choice.as_ref());
        let last = request.turns.last();
        let begun = last.is_some_and(|turn| turn.role == Role::Assistant);
        let max_tokens = request
            .params
            .max_tokens
            .unwrap_or(rules.default_max_tokens);
        let mut plan = Self {
            thinks: false,
            thinking: None,
            effort: None,
            max_tokens: max_tokens.min(rules.max_output_tokens),
            keeps_thinking: !begun,
        };
        match rules.thinking {
            Thinking::None => {}
            Thinking::Budget if wants && !forced => {
                // Each turn with calls, and one that is gone on with, must begin with its thinking.
                plan.thinks = !begun && !request.turns.iter().any(calls_without_thinking);
                plan.keeps_thinking = plan.thinks;
                if plan.thinks {
                    plan.budget(asked.map_or(0, Effort::budget_tokens), max_tokens, rules);
                }
            }
            Thinking::Budget => {}
            _ if wants && !forced => {
                plan.thinks = true;
                plan.keeps_thinking = true;
                plan.thinking = Some(json!({ "type": "adaptive" }));
                plan.effort = rules.effort(asked);
            }
            kind => {
                let unwanted = asked.is_some() || forced;
                plan.thinking = match kind {
                    Thinking::AdaptiveByDefault if unwanted => Some(json!({ "type": "disabled" })),
                    Thinking::AdaptiveBetweenTools if unwanted => {
                        Some(json!({ "type": "between_tools" }))
                    }
                    _ => None,
                };
                if kind == Thinking::AdaptiveAlways && unwanted {
                    plan.effort = rules.effort(Some(Effort::Low));
                }
            }
        }
        plan
    }

    fn budget(&mut self, wanted: u32, max_tokens: u32, rules: &Rules) {
        let room = wanted.saturating_add(rules.default_max_tokens);
        self.max_tokens = max_tokens.max(room).min(rules.max_output_tokens);
        // Something must be left for the answer.
        let most = self.max_tokens.saturating_sub(rules.min_thinking_tokens);
        let budget = wanted.min(rules.max_thinking_tokens).min(most);
        let budget = budget.max(rules.min_thinking_tokens);
        self.thinking = Some(json!({ "type": "enabled", "budget_tokens": budget }));
    }
}

/// Whether an assistant's turn has calls and does not begin with its thinking.
fn calls_without_thinking(turn: &Turn) -> bool {
    let has_calls = turn
        .parts
        .iter()
        .any(|part| matches!(part, Part::ToolCall { .. }));
    let begins = matches!(turn.parts.first(), Some(Part::Reasoning { signature, .. })
        if Signature::of(signature, Signer::Anthropic).is_some());
    has_calls && !begins
}

fn messages(request: &ModelRequest, keeps_thinking: bool) -> Result<Vec<Value>, ModelError> {
    let mut messages: Vec<Value> = Vec::with_capacity(request.turns.len());
    for turn in &request.turns {
        let role = match turn.role {
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
        };
        let mut blocks = Vec::with_capacity(turn.parts.len());
        for part in &turn.parts {
            if keeps_thinking || !matches!(part, Part::Reasoning { .. }) {
                blocks.extend(block(part)?);
            }
        }
        if blocks.is_empty() {
            continue;
        }
        // Results of parallel calls, and the user's words after them, belong to one message.
        match messages.last_mut() {
            Some(last) if last["role"] == role => {
                if let Some(content) = last["content"].as_array_mut() {
                    content.extend(blocks);
                }
            }
            _ => messages.push(json!({ "role": role, "content": blocks })),
        }
    }
    Ok(messages)
}

fn block(part: &Part) -> Result<Option<Value>, ModelError> {
    Ok(Some(match part {
        Part::Text { text } | Part::Refusal { text } => {
            // The wire refuses empty text blocks.
            if text.is_empty() {
                return Ok(None);
            }
            json!({ "type": "text", "text": text })
        }
        Part::Image { source: from, .. } => json!({ "type": "image", "source": source(from) }),
        Part::File { source: from, name } => {
            let mut block = json!({ "type": "document", "source": source(from) });
            if let Some(name) = name {
                block["title"] = json!(name);
            }
            block
        }
        Part::Audio { .. } => {
            return Err(ModelError::Unsupported(
                "this provider takes no audio input".into(),
            ));
        }
        Part::ToolCall {
            id,
            name,
            arguments,
            ..
        } => json!({
            "type": "tool_use",
            "id": id,
            "name": name,
            "input": arguments_object(arguments),
        }),
        Part::ToolResult {
            tool_call_id,
            content,
            is_error,
        } => {
            let mut inner = Vec::with_capacity(content.len());
            for part in content {
                inner.extend(block(part)?);
            }
            json!({
                "type": "tool_result",
                "tool_use_id": tool_call_id,
                "content": inner,
                "is_error": is_error,
            })
        }
        Part::Reasoning {
            text,
            signature,
            redacted,
        } => match Signature::of(signature, Signer::Anthropic) {
            Some(data) if *redacted => json!({ "type": "redacted_thinking", "data": data }),
            Some(signature) => {
                json!({ "type": "thinking", "thinking": text, "signature": signature })
            }
            // Unsigned thinking is refused.
            None => return Ok(None),
        },
    }))
}

fn source(from: &Source) -> Value {
    match from {
        Source::Url { url } => json!({ "type": "url", "url": url }),
        Source::Data { media_type, data } => {
            json!({ "type": "base64", "media_type": media_type, "data": data })
        }
        Source::FileId { id } => json!({ "type": "file", "file_id": id }),
    }
}

#[derive(Deserialize)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(borrow, default)]
    error: Option<WireError<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Vec<Block<'a>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Cow<'a, str>,
    #[serde(borrow, default)]
    signature: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    signature: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    stop_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct WireError<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct WireUsage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
}

/// What the blocks of the answer are, by the wire's index.
enum Open {
    Text,
    Thinking { signature: String },
    Redacted,
    Tool { index: u32 },
    Other,
}

#[derive(Default)]
struct Decoder {
    blocks: Vec<(u32, Open)>,
    tools: u32,
    uncached_input: u64,
    usage: Usage,
    stop: Option<StopReason>,
    done: bool,
    /// The last event added to a signature.
    signed: bool,
}

fn map_stop(reason: &str) -> StopReason {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => StopReason::MaxTokens,
        "tool_use" => StopReason::ToolCalls,
        "refusal" => StopReason::ContentFilter,
        _ => StopReason::EndTurn,
    }
}

impl Decoder {
    fn count(&mut self, wire: &WireUsage) {
        if let Some(input) = wire.input_tokens {
            self.uncached_input = input;
        }
        if let Some(output) = wire.output_tokens {
            self.usage.output = output;
        }
        if let Some(written) = wire.cache_creation_input_tokens {
            self.usage.cache_write = written;
        }
        if let Some(read) = wire.cache_read_input_tokens {
            self.usage.cache_read = read;
        }
        self.usage.input = self.uncached_input + self.usage.cache_read + self.usage.cache_write;
    }

    fn open(&mut self, data: &Bytes, at: u32, block: &Block<'_>, out: &mut Vec<Frame>) {
        let open = match &*block.kind {
            "text" => {
                out.extend(text_of(data, block.text).map(Frame::Text));
                Open::Text
            }
            "thinking" => {
                out.extend(text_of(data, block.thinking).map(Frame::Reasoning));
                Open::Thinking {
                    signature: block.signature.clone().into_owned(),
                }
            }
            "redacted_thinking" => {
                out.push(Frame::ReasoningDone {
                    signer: Signer::Anthropic,
                    signature: shared(&block.data),
                    redacted: true,
                });
                Open::Redacted
            }
            "tool_use" => {
                let index = self.tools;
                self.tools += 1;
                out.push(Frame::ToolStarted {
                    index,
                    id: shared(&block.id),
                    name: shared(&block.name),
                });
                // Streams begin with an empty object and send the text in deltas.
                if let Some(input) = block.input.map(RawValue::get)
                    && input != "{}"
                {
                    out.push(Frame::ToolArgs {
                        index,
                        delta: Escaped::escape(input),
                    });
                }
                Open::Tool { index }
            }
            _ => Open::Other,
        };
        self.blocks.push((at, open));
    }

    fn delta(&mut self, data: &Bytes, at: u32, delta: &Delta<'_>, out: &mut Vec<Frame>) {
        let Some((_, open)) = self.blocks.iter_mut().rfind(|(index, _)| *index == at) else {
            return;
        };
        match open {
            Open::Text => out.extend(text_of(data, delta.text).map(Frame::Text)),
            Open::Thinking { signature } => {
                out.extend(text_of(data, delta.thinking).map(Frame::Reasoning));
                if let Some(piece) = &delta.signature {
                    signature.push_str(piece);
                    self.signed = true;
                }
            }
            Open::Tool { index } => {
                if let Some(delta) = text_of(data, delta.partial_json) {
                    out.push(Frame::ToolArgs {
                        index: *index,
                        delta,
                    });
                }
            }
            Open::Redacted | Open::Other => {}
        }
    }

    fn close(&mut self, at: u32, out: &mut Vec<Frame>) {
        let Some(found) = self.blocks.iter().rposition(|(index, _)| *index == at) else {
            return;
        };
        match self.blocks.swap_remove(found).1 {
            Open::Thinking { signature } => out.push(Frame::ReasoningDone {
                signer: Signer::Anthropic,
                signature: Bytes::from(signature),
                redacted: false,
            }),
            Open::Tool { index } => out.push(Frame::ToolDone {
                index,
                signature: Bytes::new(),
            }),
            Open::Text | Open::Redacted | Open::Other => {}
        }
    }
}

impl StreamDecoder for Decoder {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let data = &event.data;
        let parsed: StreamEvent<'_> =
            serde_json::from_slice(data).map_err(|e| malformed(event, &e))?;
        self.signed = false;
        match &*parsed.kind {
            "message_start" => {
                if let Some(message) = &parsed.message {
                    if let Some(usage) = &message.usage {
                        self.count(usage);
                    }
                    out.push(Frame::ModelStarted {
                        id: shared(&message.id),
                        model: shared(&message.model),
                    });
                }
            }
            "content_block_start" => {
                if let Some(block) = &parsed.content_block {
                    self.open(data, parsed.index, block, out);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = &parsed.delta {
                    self.delta(data, parsed.index, delta, out);
                }
            }
            "content_block_stop" => self.close(parsed.index, out),
            "message_delta" => {
                if let Some(usage) = &parsed.usage {
                    self.count(usage);
                }
                if let Some(reason) = parsed.delta.and_then(|d| d.stop_reason) {
                    self.stop = Some(map_stop(&reason));
                }
            }
            "message_stop" => self.done = true,
            "error" => {
                let (kind, message) = parsed.error.map_or_else(
                    || ("".into(), "no message".into()),
                    |error| (error.kind, error.message),
                );
                return Err(ModelError::told(&kind, &message));
            }
            _ => {}
        }
        Ok(())
    }

    fn may_repeat(&self) -> bool {
        !self.signed
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        match self.stop.take() {
            Some(stop) if self.done => {
                out.push(Frame::ModelUsage(self.usage));
                out.push(Frame::ModelStopped(stop));
                Ok(())
            }
            _ => Err(ModelError::Cut),
        }
    }
}

fn decode_message(body: &Bytes) -> Result<Vec<Frame>, ModelError> {
    let message: Message<'_> =
        serde_json::from_slice(body).map_err(|e| ModelError::Malformed(e.to_string()))?;
    let mut decoder = Decoder::default();
    let mut out = vec![Frame::ModelStarted {
        id: shared(&message.id),
        model: shared(&message.model),
    }];
    for (at, block) in message.content.iter().enumerate() {
        decoder.open(body, at as u32, block, &mut out);
        decoder.close(at as u32, &mut out);
    }
    decoder.count(&message.usage.unwrap_or_default());
    decoder.stop = message.stop_reason.as_deref().map(map_stop);
    decoder.done = true;
    decoder.finish(&mut out)?;
    Ok(out)
}
