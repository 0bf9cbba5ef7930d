//! Anthropic Messages as a provider wire. Wire facts: the Anthropic API reference, "Messages",
//! "Streaming messages", "Extended thinking" and "Structured outputs".

mod answer;
mod caching;
mod counts;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use self::answer::Decoder;
pub use self::counts::Counts;
use super::*;
use crate::config::Thinking;
use crate::frame::Signer;
use crate::model::param::Param;
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
            body.insert("system".into(), caching::system(&system, &request.caching));
        }
        if !thinking {
            if let Some(temperature) = params.temperature {
                body.insert("temperature".into(), json!(temperature));
            }
            if let Some(top_p) = params.top_p {
                body.insert("top_p".into(), json!(top_p));
            }
            if let Some(top_k) = params.top_k {
                body.insert("top_k".into(), json!(top_k));
            }
        }
        // OpenAI's other tiers are not sold here.
        let tier = params.service_tier.as_deref();
        if let Some((_, tier)) = TIERS.iter().find(|(openai, _)| Some(*openai) == tier) {
            body.insert("service_tier".into(), json!(tier));
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
        caching::place(&mut body, &request.caching);
        Ok(Value::Object(body))
    }

    fn places(&self, param: Param) -> &'static [&'static str] {
        match param {
            Param::Temperature => &["/temperature"],
            Param::TopP => &["/top_p"],
            Param::TopK => &["/top_k"],
            Param::MaxTokens => &["/max_tokens"],
            Param::Stop => &["/stop_sequences"],
            Param::Effort => &["/thinking", "/output_config/effort"],
            Param::User => &["/metadata/user_id"],
            Param::ServiceTier => &["/service_tier"],
            Param::ParallelToolCalls => &["/tool_choice/disable_parallel_tool_use"],
            Param::Seed
            | Param::PresencePenalty
            | Param::FrequencyPenalty
            | Param::Verbosity
            | Param::PromptCacheKey
            | Param::Metadata
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

/// OpenAI's tiers and what Anthropic calls them.
const TIERS: [(&str, &str); 2] = [("auto", "auto"), ("default", "standard_only")];

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
            match part {
                Part::CacheHere { ttl } => caching::mark(blocks.last_mut(), ttl.as_deref()),
                Part::Reasoning { .. } if !keeps_thinking => {}
                part => blocks.extend(block(part)?),
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
        // Who speaks is only told in words here.
        Part::Name { name } => json!({ "type": "text", "text": format!("{name}:") }),
        Part::CacheHere { .. } | Part::Citation { .. } => return Ok(None),
        Part::File { source: from, name } => {
            let mut block = json!({ "type": "document", "source": document(from)? });
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
            let mut result = json!({
                "type": "tool_result",
                "tool_use_id": tool_call_id,
                "content": inner,
                "is_error": is_error,
            });
            if let Some(Part::CacheHere { ttl }) = content
                .iter()
                .find(|part| matches!(part, Part::CacheHere { .. }))
            {
                caching::mark(Some(&mut result), ttl.as_deref());
            }
            result
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

/// PDF, or text, which goes as such.
fn document(from: &Source) -> Result<Value, ModelError> {
    let Source::Data { media_type, data } = from else {
        return Ok(source(from));
    };
    if media_type == "application/pdf" {
        return Ok(source(from));
    }
    let text = STANDARD.decode(data.as_bytes()).ok();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
    match text {
        Some(text) => Ok(json!({ "type": "text", "media_type": "text/plain", "data": text })),
        None => Err(ModelError::Unsupported(format!(
            "this provider takes files of PDF and text, not of '{media_type}'"
        ))),
    }
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
