//! OpenAI Responses as a provider wire, stateless (`store: false`) with encrypted reasoning.
//! Wire facts: the OpenAI API reference, "Responses" and "Responses streaming".

mod answer;
mod event;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use self::answer::Decoder;
use super::*;
use crate::config::Efforts;
use crate::frame::Signer;
use crate::model::param::Param;
use crate::model::request::{
    Part, ResponseFormat, Role, Signature, Source, ToolChoice, arguments_text, joined_text,
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

    fn places(&self, param: Param) -> &'static [&'static str] {
        match param {
            Param::Temperature => &["/temperature"],
            Param::TopP => &["/top_p"],
            Param::MaxTokens => &["/max_output_tokens"],
            Param::Effort => &["/reasoning/effort"],
            Param::User => &["/user"],
            Param::Verbosity => &["/text/verbosity"],
            Param::ServiceTier => &["/service_tier"],
            Param::PromptCacheKey => &["/prompt_cache_key"],
            Param::Metadata => &["/metadata"],
            Param::ParallelToolCalls => &["/parallel_tool_calls"],
            Param::TopK
            | Param::Stop
            | Param::Seed
            | Param::PresencePenalty
            | Param::FrequencyPenalty
            | Param::LogitBias => &[],
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

fn input(request: &ModelRequest) -> Result<Vec<Value>, ModelError> {
    let mut items = Vec::new();
    for turn in &request.turns {
        let mut content = Vec::new();
        let (role, text_type) = match turn.role {
            Role::Assistant => ("assistant", "output_text"),
            Role::User | Role::Tool => ("user", "input_text"),
        };
        for part in &turn.parts {
            if let Some(part) = content_part(part, text_type)? {
                content.push(part);
                continue;
            }
            let item = match part {
                Part::Text { .. }
                | Part::Refusal { .. }
                | Part::Image { .. }
                | Part::File { .. }
                | Part::Audio { .. }
                | Part::Name { .. }
                | Part::Citation { .. }
                | Part::CacheHere { .. } => continue,
                Part::ToolCall {
                    id,
                    name,
                    arguments,
                    ..
                } => json!({
                    "type": "function_call",
                    "call_id": id,
                    "name": name,
                    "arguments": arguments_text(arguments),
                }),
                Part::ToolResult {
                    tool_call_id,
                    content,
                    ..
                } => json!({
                    "type": "function_call_output",
                    "call_id": tool_call_id,
                    "output": output(content)?,
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

/// A tool's result: a text, or parts where there is more than text.
fn output(content: &[Part]) -> Result<Value, ModelError> {
    if !content.iter().any(Part::is_media) {
        return Ok(json!(joined_text(content)));
    }
    let mut parts = Vec::with_capacity(content.len());
    for part in content {
        parts.extend(content_part(part, "input_text")?);
    }
    Ok(Value::Array(parts))
}

/// A part of a message or of a result; `None` for what is an item of its own, or none.
fn content_part(part: &Part, text_type: &str) -> Result<Option<Value>, ModelError> {
    Ok(Some(match part {
        Part::Text { text } => json!({ "type": text_type, "text": text }),
        // Who speaks is only told in words here.
        Part::Name { name } => json!({ "type": text_type, "text": format!("{name}:") }),
        Part::Refusal { text } if text_type == "input_text" => {
            json!({ "type": text_type, "text": text })
        }
        Part::Refusal { text } => json!({ "type": "refusal", "refusal": text }),
        Part::Image { source, detail } => {
            let mut image = json!({
                "type": "input_image",
                "detail": detail.as_deref().unwrap_or("auto"),
            });
            match source {
                Source::FileId { id } => image["file_id"] = json!(id),
                other => image["image_url"] = json!(other.to_url()),
            }
            image
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
            file
        }
        Part::Audio { .. } => {
            return Err(ModelError::Unsupported(
                "the Responses wire takes no audio input".into(),
            ));
        }
        Part::ToolCall { .. }
        | Part::ToolResult { .. }
        | Part::Reasoning { .. }
        | Part::Citation { .. }
        | Part::CacheHere { .. } => return Ok(None),
    }))
}

fn flush(items: &mut Vec<Value>, role: &str, content: &mut Vec<Value>) {
    if !content.is_empty() {
        let content = std::mem::take(content);
        items.push(json!({ "type": "message", "role": role, "content": content }));
    }
}
