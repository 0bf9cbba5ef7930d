//! Gemini `generateContent` and `streamGenerateContent` as a provider wire. Wire facts: the Gemini
//! API reference, "Generating content", "Function calling", "Thinking" and "Thought signatures".

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::*;
use crate::config::Thinking;
use crate::frame::{Signer, StopReason, Usage};
use crate::ids;
use crate::model::request::{
    Effort, Part, ResponseFormat, Role, Signature, Source, ToolChoice, arguments_object,
    joined_text,
};

/// The wire.
pub struct Gemini;

/// Documented stand-in for calls whose signature is not known, for example from another model.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

impl ProviderApi for Gemini {
    fn path(&self, model: &str, stream: bool) -> String {
        let model = model.strip_prefix("models/").unwrap_or(model);
        let method = if stream {
            "streamGenerateContent?alt=sse"
        } else {
            "generateContent"
        };
        let model: String = url::form_urlencoded::byte_serialize(model.as_bytes()).collect();
        format!("/models/{model}:{method}")
    }

    fn headers(&self, key: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = bearer(None);
        if let Some(key) = key {
            headers.extend(secret_header(
                HeaderName::from_static("x-goog-api-key"),
                key,
            ));
        }
        headers
    }

    fn body(
        &self,
        request: &ModelRequest,
        rules: &Rules,
        _stream: bool,
        _stream_usage: bool,
    ) -> Result<Value, ModelError> {
        let mut body = Map::new();
        body.insert("contents".into(), Value::Array(contents(request)?));
        if let Some(system) = &request.system {
            body.insert(
                "systemInstruction".into(),
                json!({ "parts": [{ "text": system }] }),
            );
        }
        if !request.tools.is_empty() {
            let declarations = request.tools.iter().map(|tool| {
                let mut out = json!({ "name": tool.name });
                if let Some(description) = &tool.description {
                    out["description"] = json!(description);
                }
                out["parametersJsonSchema"] = tool.parameters.clone();
                out
            });
            let declarations: Value = declarations.collect();
            body.insert(
                "tools".into(),
                json!([{ "functionDeclarations": declarations }]),
            );
            if let Some(choice) = &request.tool_choice {
                let config = match choice {
                    ToolChoice::Auto => json!({ "mode": "AUTO" }),
                    ToolChoice::None => json!({ "mode": "NONE" }),
                    ToolChoice::Required => json!({ "mode": "ANY" }),
                    ToolChoice::Named(name) => {
                        json!({ "mode": "ANY", "allowedFunctionNames": [name] })
                    }
                };
                body.insert(
                    "toolConfig".into(),
                    json!({ "functionCallingConfig": config }),
                );
            }
        }
        let generation = generation_config(request, rules);
        if !generation.is_empty() {
            body.insert("generationConfig".into(), Value::Object(generation));
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
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        decoder.chunk(body, &mut out)?;
        decoder.finish(&mut out)?;
        Ok(out)
    }
}

fn generation_config(request: &ModelRequest, rules: &Rules) -> Map<String, Value> {
    let params = &request.params;
    let mut config = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(name.into(), value);
        }
    };
    set("temperature", params.temperature.map(Value::from));
    set("topP", params.top_p.map(Value::from));
    set("maxOutputTokens", params.max_tokens.map(Value::from));
    set("seed", params.seed.map(Value::from));
    set("presencePenalty", params.presence_penalty.map(Value::from));
    set(
        "frequencyPenalty",
        params.frequency_penalty.map(Value::from),
    );
    set(
        "stopSequences",
        (!params.stop.is_empty()).then(|| json!(params.stop)),
    );
    set(
        "thinkingConfig",
        params.effort.and_then(|effort| thinking(rules, effort)),
    );
    if let Some(format) = &request.response_format {
        set("responseMimeType", Some(json!("application/json")));
        if let ResponseFormat::JsonSchema { schema, .. } = format {
            set("responseJsonSchema", Some(schema.clone()));
        }
    }
    config
}

fn thinking(rules: &Rules, effort: Effort) -> Option<Value> {
    let shown = effort.budget_tokens() > 0;
    match rules.thinking {
        Thinking::None => None,
        Thinking::Budget => {
            let (least, most) = (rules.min_thinking_tokens, rules.max_thinking_tokens);
            let budget = effort.budget_tokens().min(most).max(least);
            Some(json!({ "includeThoughts": shown, "thinkingBudget": budget }))
        }
        _ => {
            let level = rules.effort(Some(effort))?;
            Some(json!({ "includeThoughts": shown, "thinkingLevel": level.as_str() }))
        }
    }
}

fn contents(request: &ModelRequest) -> Result<Vec<Value>, ModelError> {
    let needs_signatures = request.model.contains("gemini-3");
    let mut contents: Vec<Value> = Vec::with_capacity(request.turns.len());
    for turn in &request.turns {
        let role = match turn.role {
            Role::Assistant => "model",
            Role::User | Role::Tool => "user",
        };
        let mut parts = Vec::with_capacity(turn.parts.len());
        let mut first_call = true;
        for part in &turn.parts {
            let mut out = match part {
                Part::Text { text } | Part::Refusal { text } if text.is_empty() => continue,
                Part::Text { text } | Part::Refusal { text } => json!({ "text": text }),
                Part::Image { source, .. } => data_part(source, "image/*")?,
                Part::File { source, .. } => data_part(source, "application/octet-stream")?,
                Part::Audio { data, format } => json!({
                    "inlineData": { "mimeType": format!("audio/{format}"), "data": data },
                }),
                Part::ToolCall {
                    name, arguments, ..
                } => json!({
                    "functionCall": { "name": name, "args": arguments_object(arguments) },
                }),
                Part::ToolResult {
                    tool_call_id,
                    content,
                    is_error,
                } => tool_response(request, tool_call_id, content, *is_error)?,
                Part::Reasoning {
                    signature, text, ..
                } => match Signature::of(signature, Signer::Google) {
                    Some(signature) if text.is_empty() => {
                        json!({ "text": "", "thoughtSignature": signature })
                    }
                    _ => continue,
                },
            };
            if let Part::ToolCall { signature, .. } = part {
                if let Some(signature) = signature {
                    out["thoughtSignature"] = json!(signature);
                } else if first_call && needs_signatures {
                    out["thoughtSignature"] = json!(NO_SIGNATURE);
                }
                first_call = false;
            }
            parts.push(out);
        }
        if parts.is_empty() {
            continue;
        }
        match contents.last_mut() {
            Some(last) if last["role"] == role => {
                if let Some(existing) = last["parts"].as_array_mut() {
                    existing.extend(parts);
                }
            }
            _ => contents.push(json!({ "role": role, "parts": parts })),
        }
    }
    Ok(contents)
}

fn tool_response(
    request: &ModelRequest,
    call_id: &str,
    content: &[Part],
    is_error: bool,
) -> Result<Value, ModelError> {
    let name = request.tool_name_of(call_id).ok_or_else(|| {
        ModelError::Unsupported(format!("no tool call '{call_id}' before its result"))
    })?;
    let text = joined_text(content);
    let response = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(object)) if !is_error => Value::Object(object),
        _ if is_error => json!({ "error": text }),
        _ => json!({ "result": text }),
    };
    Ok(json!({ "functionResponse": { "name": name, "response": response } }))
}

fn data_part(source: &Source, guess: &str) -> Result<Value, ModelError> {
    Ok(match source {
        Source::Data { media_type, data } => {
            json!({ "inlineData": { "mimeType": media_type, "data": data } })
        }
        Source::Url { url } => json!({ "fileData": { "mimeType": guess, "fileUri": url } }),
        Source::FileId { id } => json!({ "fileData": { "fileUri": id } }),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow, default)]
    candidates: Few<Candidate<'a>>,
    #[serde(default)]
    usage_metadata: Option<WireUsage>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    model_version: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    response_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(borrow, default)]
    error: Option<WireError<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback<'a> {
    #[serde(borrow, default, deserialize_with = "borrowed")]
    block_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct WireError<'a> {
    #[serde(default)]
    code: u16,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Few<WirePart<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePart<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(default)]
    thought: bool,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    thought_signature: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function_call: Option<FunctionCall<'a>>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow, default, deserialize_with = "borrowed")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    #[serde(default)]
    prompt_token_count: u64,
    #[serde(default)]
    candidates_token_count: u64,
    #[serde(default)]
    thoughts_token_count: u64,
    #[serde(default)]
    cached_content_token_count: u64,
    #[serde(default)]
    tool_use_prompt_token_count: u64,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        Self {
            input: wire.prompt_token_count + wire.tool_use_prompt_token_count,
            output: wire.candidates_token_count + wire.thoughts_token_count,
            cache_read: wire.cached_content_token_count,
            cache_write: 0,
            reasoning: wire.thoughts_token_count,
        }
    }
}

#[derive(Default)]
struct Decoder {
    started: bool,
    thinking: bool,
    calls: u32,
    usage: Option<Usage>,
    stop: Option<StopReason>,
}

fn map_stop(reason: &str) -> StopReason {
    match reason {
        "STOP" => StopReason::EndTurn,
        "MAX_TOKENS" => StopReason::MaxTokens,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
        | "IMAGE_SAFETY" => StopReason::ContentFilter,
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" => StopReason::Error,
        _ => StopReason::EndTurn,
    }
}

impl Decoder {
    fn chunk(&mut self, data: &Bytes, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let chunk: Chunk<'_> =
            serde_json::from_slice(data).map_err(|e| ModelError::Malformed(e.to_string()))?;
        if let Some(error) = chunk.error {
            let code = error.code.to_string();
            return Err(ModelError::told(&code, &error.message));
        }
        if !self.started {
            self.started = true;
            out.push(Frame::ModelStarted {
                id: shared(chunk.response_id.as_deref().unwrap_or_default()),
                model: shared(chunk.model_version.as_deref().unwrap_or_default()),
            });
        }
        if let Some(usage) = chunk.usage_metadata {
            self.usage = Some(usage.into());
        }
        if chunk
            .prompt_feedback
            .is_some_and(|f| f.block_reason.is_some())
        {
            self.stop = Some(StopReason::ContentFilter);
        }
        if let Some(candidate) = chunk.candidates.into_iter().next() {
            for part in candidate.content.into_iter().flat_map(|c| c.parts) {
                self.part(data, part, out);
            }
            if let Some(reason) = candidate.finish_reason {
                self.stop = Some(map_stop(&reason));
            }
        }
        Ok(())
    }

    fn part(&mut self, data: &Bytes, part: WirePart<'_>, out: &mut Vec<Frame>) {
        let signature = part.thought_signature.as_deref().unwrap_or_default();
        let text = text_of(data, part.text);
        if part.thought {
            if let Some(text) = text {
                self.thinking = true;
                out.push(Frame::Reasoning(text));
            }
            return;
        }
        if std::mem::take(&mut self.thinking) {
            out.push(Frame::ReasoningDone {
                signer: Signer::Google,
                signature: Bytes::new(),
                redacted: false,
            });
        }
        if let Some(call) = part.function_call {
            let index = self.calls;
            self.calls += 1;
            let id = match call.id {
                Some(id) if !id.is_empty() => shared(&id),
                _ => Bytes::from(ids::mint(ids::Kind::Call)),
            };
            out.push(Frame::ToolStarted {
                index,
                id,
                name: shared(&call.name),
            });
            out.push(Frame::ToolArgs {
                index,
                delta: Escaped::escape(call.args.map_or("{}", RawValue::get)),
            });
            out.push(Frame::ToolDone {
                index,
                signature: shared(signature),
            });
            return;
        }
        out.extend(text.map(Frame::Text));
        if !signature.is_empty() {
            out.push(Frame::ReasoningDone {
                signer: Signer::Google,
                signature: shared(signature),
                redacted: false,
            });
        }
    }
}

impl StreamDecoder for Decoder {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        self.chunk(&event.data, out)
    }

    fn is_done(&self) -> bool {
        // The wire has no last event: usage may follow the finish reason.
        false
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let Some(mut stop) = self.stop.take() else {
            return Err(ModelError::Cut);
        };
        if stop == StopReason::Error {
            let message = "the model wrote a malformed function call";
            return Err(ModelError::told("", message));
        }
        if stop == StopReason::EndTurn && self.calls > 0 {
            stop = StopReason::ToolCalls;
        }
        out.extend(self.usage.take().map(Frame::ModelUsage));
        out.push(Frame::ModelStopped(stop));
        Ok(())
    }
}
