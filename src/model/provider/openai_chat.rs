//! OpenAI Chat Completions as a provider wire, and everything compatible with it. Wire facts: the
//! OpenAI API reference, "Chat" and "Chat streaming"; `reasoning_content` from DeepSeek and vLLM;
//! `extra_content.google.thought_signature` from Gemini's OpenAI compatibility page.

mod answer;
mod calls;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use self::answer::Decoder;
use super::reasoning;
use super::*;
use crate::config::SystemRole;
use crate::model::param::Param;
use crate::model::request::{
    Part, ResponseFormat, Role, Source, ToolChoice, arguments_text, joined_text,
};

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

    fn places(&self, param: Param) -> &'static [&'static str] {
        match param {
            Param::Temperature => &["/temperature"],
            Param::TopP => &["/top_p"],
            Param::MaxTokens => &["/max_tokens", "/max_completion_tokens"],
            Param::Stop => &["/stop"],
            Param::Seed => &["/seed", "/random_seed"],
            Param::PresencePenalty => &["/presence_penalty"],
            Param::FrequencyPenalty => &["/frequency_penalty"],
            Param::Effort => &["/reasoning_effort"],
            Param::User => &["/user"],
            Param::Verbosity => &["/verbosity"],
            Param::ServiceTier => &["/service_tier"],
            Param::PromptCacheKey => &["/prompt_cache_key"],
            Param::LogitBias => &["/logit_bias"],
            Param::ParallelToolCalls => &["/parallel_tool_calls"],
            Param::TopK | Param::Metadata => &[],
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
                let mut message = json!({ "role": "user", "content": content(&turn.parts)? });
                name_speaker(&mut message, &turn.parts);
                messages.push(message);
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

/// The wire's `name`, which takes few characters.
fn name_speaker(message: &mut Value, parts: &[Part]) {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    for part in parts {
        if let Part::Name { name } = part {
            let name: String = name
                .chars()
                .take(64)
                .map(|c| if is_good(c) { c } else { '_' })
                .collect();
            message["name"] = json!(name);
        }
    }
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
                    "function": { "name": name, "arguments": arguments_text(arguments) },
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
    name_speaker(&mut message, parts);
    message
}

/// What servers of open models take as `video_url`.
fn is_video(source: &Source) -> bool {
    source
        .media_type()
        .is_some_and(|kind| kind.starts_with("video/"))
}

fn content(parts: &[Part]) -> Result<Value, ModelError> {
    let is_mark = |part: &&Part| {
        matches!(
            part,
            Part::CacheHere { .. } | Part::Name { .. } | Part::Citation { .. }
        )
    };
    let mut said = parts.iter().filter(|part| !is_mark(part));
    if let (Some(Part::Text { text }), None) = (said.next(), said.next()) {
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
            Part::File {
                source: source @ (Source::Url { .. } | Source::Data { .. }),
                ..
            } if is_video(source) => {
                json!({ "type": "video_url", "video_url": { "url": source.to_url() } })
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
            Part::Name { .. } | Part::CacheHere { .. } | Part::Citation { .. } => continue,
        });
    }
    Ok(Value::Array(content))
}
