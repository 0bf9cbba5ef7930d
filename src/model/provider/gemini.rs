//! Gemini `generateContent` and `streamGenerateContent` as a provider wire. Wire facts: the Gemini
//! API reference, "Generating content", "Function calling", "Thinking" and "Thought signatures".

mod answer;

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use self::answer::Decoder;
pub use self::answer::usage_of;
use super::*;
use crate::config::Thinking;
use crate::frame::Signer;
use crate::model::param::Param;
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

    fn places(&self, param: Param) -> &'static [&'static str] {
        match param {
            Param::Temperature => &["/generationConfig/temperature"],
            Param::TopP => &["/generationConfig/topP"],
            Param::TopK => &["/generationConfig/topK"],
            Param::MaxTokens => &["/generationConfig/maxOutputTokens"],
            Param::Stop => &["/generationConfig/stopSequences"],
            Param::Seed => &["/generationConfig/seed"],
            Param::PresencePenalty => &["/generationConfig/presencePenalty"],
            Param::FrequencyPenalty => &["/generationConfig/frequencyPenalty"],
            Param::Effort => &["/generationConfig/thinkingConfig"],
            Param::User
            | Param::Verbosity
            | Param::ServiceTier
            | Param::PromptCacheKey
            | Param::Metadata
            | Param::LogitBias
            | Param::ParallelToolCalls => &[],
        }
    }

    fn decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(Repeating::new(Decoder::default()))
    }

    #[cfg(test)]
    fn parser(&self) -> Box<dyn StreamDecoder> {
        Box::new(Decoder::default())
    }

    fn read_full(&self, body: &Bytes) -> Result<Vec<Frame>, ModelError> {
        Decoder::whole(body)
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
    set("topK", params.top_k.map(Value::from));
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
    let names = tool_names(request);
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
                // Who speaks is only told in words here.
                Part::Name { name } => json!({ "text": format!("{name}:") }),
                Part::CacheHere { .. } | Part::Citation { .. } => continue,
                Part::Image { source, .. } => data_part(source),
                Part::File { source, name } => {
                    if let Some(name) = name {
                        parts.push(json!({ "text": format!("File {name}:") }));
                    }
                    data_part(source)
                }
                Part::Audio { data, format } => audio_part(data, format),
                Part::ToolCall {
                    name, arguments, ..
                } => json!({
                    "functionCall": { "name": name, "args": arguments_object(arguments) },
                }),
                Part::ToolResult {
                    tool_call_id,
                    content,
                    is_error,
                } => tool_response(&names, tool_call_id, content, *is_error)?,
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

/// The tools' names by their calls' ids: this wire answers by name.
fn tool_names(request: &ModelRequest) -> HashMap<&str, &str> {
    let mut names = HashMap::new();
    for part in request.turns.iter().flat_map(|turn| &turn.parts) {
        if let Part::ToolCall { id, name, .. } = part {
            names.entry(id.as_str()).or_insert(name.as_str());
        }
    }
    names
}

fn tool_response(
    names: &HashMap<&str, &str>,
    call_id: &str,
    content: &[Part],
    is_error: bool,
) -> Result<Value, ModelError> {
    let name = names.get(call_id).ok_or_else(|| {
        ModelError::Unsupported(format!("no tool call '{call_id}' before its result"))
    })?;
    let text = joined_text(content);
    let response = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(object)) if !is_error => Value::Object(object),
        _ if is_error => json!({ "error": text }),
        _ => json!({ "result": text }),
    };
    let mut out = json!({ "name": name, "response": response });
    let media: Vec<Value> = content.iter().filter_map(media_part).collect();
    if !media.is_empty() {
        out["parts"] = Value::Array(media);
    }
    Ok(json!({ "functionResponse": out }))
}

fn media_part(part: &Part) -> Option<Value> {
    match part {
        Part::Image { source, .. } | Part::File { source, .. } => Some(data_part(source)),
        Part::Audio { data, format } => Some(audio_part(data, format)),
        _ => None,
    }
}

fn audio_part(data: &str, format: &str) -> Value {
    json!({ "inlineData": { "mimeType": format!("audio/{format}"), "data": data } })
}

fn data_part(source: &Source) -> Value {
    match source {
        Source::Data { media_type, data } => {
            json!({ "inlineData": { "mimeType": media_type, "data": data } })
        }
        // Where the name does not tell what it is, the provider finds out.
        Source::Url { url } => match source.media_type() {
            Some(media_type) => {
                json!({ "fileData": { "mimeType": media_type, "fileUri": url } })
            }
            None => json!({ "fileData": { "fileUri": url } }),
        },
        Source::FileId { id } => json!({ "fileData": { "fileUri": id } }),
    }
}
