//! The request: every field of OpenAI's is accepted, those that a turn does not use are ignored,
//! wrong types are refused by name.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::blocks::with_blocks;
use super::tools::{FunctionDef, Tool, decode_functions, decode_tools};
use super::unnamed::OpenCalls;
use crate::error::ApiError;
use crate::lenient::given;
use crate::model::{
    Caching, ModelRequest, Params, Part, ResponseFormat, Role, ToolChoice, ToolDef, Turn,
    reasoning_of,
};
use crate::wire::openai::choice::{decode_choice, decode_effort, decode_format, effort_beside};
use crate::wire::openai::content::{arguments_text, content_parts};
use crate::wire::openai::system::System;

/// `POST /v1/chat/completions`, as sent.
#[derive(Debug, Deserialize)]
pub struct ChatRequest {
    #[serde(default, deserialize_with = "given::text")]
    pub model: Option<String>,
    #[serde(default, deserialize_with = "given::list")]
    pub messages: Vec<Message>,
    #[serde(default, deserialize_with = "given::flag")]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "given::list")]
    tools: Vec<Tool>,
    #[serde(default)]
    tool_choice: Option<Value>,
    /// What tools were called before there were others.
    #[serde(default, deserialize_with = "given::list")]
    functions: Vec<FunctionDef>,
    #[serde(default)]
    function_call: Option<Value>,
    #[serde(default, deserialize_with = "given::flag")]
    parallel_tool_calls: Option<bool>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(default, deserialize_with = "given::number")]
    temperature: Option<f64>,
    #[serde(default, deserialize_with = "given::number")]
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "given::limit")]
    top_k: Option<u32>,
    #[serde(default, deserialize_with = "given::limit")]
    max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "given::limit")]
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    stop: Option<Value>,
    #[serde(default, deserialize_with = "given::whole")]
    seed: Option<i64>,
    #[serde(default, deserialize_with = "given::number")]
    presence_penalty: Option<f64>,
    #[serde(default, deserialize_with = "given::number")]
    frequency_penalty: Option<f64>,
    #[serde(default, deserialize_with = "given::text")]
    reasoning_effort: Option<String>,
    /// OpenRouter's and Anthropic's ways to ask for thinking.
    #[serde(default)]
    reasoning: Value,
    #[serde(default)]
    thinking: Value,
    #[serde(default, deserialize_with = "given::text")]
    user: Option<String>,
    #[serde(default, deserialize_with = "given::whole")]
    n: Option<i64>,
    /// Anthropic's: that breakpoints are chosen for the caller.
    #[serde(default)]
    cache_control: Value,
    #[serde(default, deserialize_with = "given::text")]
    safety_identifier: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    verbosity: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    service_tier: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    prompt_cache_key: Option<String>,
    #[serde(default)]
    metadata: Option<crate::json::Object>,
    #[serde(default)]
    logit_bias: Option<Map<String, Value>>,
}

/// `stream_options`.
#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    #[serde(default, deserialize_with = "given::flag")]
    pub include_usage: Option<bool>,
}

/// One of `messages`.
#[derive(Debug, Deserialize)]
pub struct Message {
    #[serde(default, deserialize_with = "given::text")]
    role: Option<String>,
    #[serde(default)]
    content: Value,
    #[serde(default, deserialize_with = "given::text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given::list")]
    tool_calls: Vec<ToolCall>,
    #[serde(default)]
    function_call: Option<Function>,
    #[serde(default, deserialize_with = "given::text")]
    tool_call_id: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    refusal: Option<String>,
    #[serde(default)]
    cache_control: Value,
    /// What a model thought before it said this, in the members that providers tell it in.
    #[serde(default)]
    reasoning_content: Value,
    #[serde(default)]
    reasoning: Value,
    #[serde(default)]
    reasoning_details: Value,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    #[serde(default, deserialize_with = "given::text")]
    id: Option<String>,
    #[serde(default)]
    function: Option<Function>,
    #[serde(default)]
    custom: Option<CustomCall>,
    #[serde(default)]
    extra_content: Option<Value>,
}

/// A call of a tool whose input is free text.
#[derive(Debug, Deserialize)]
struct CustomCall {
    #[serde(default, deserialize_with = "given::text")]
    name: Option<String>,
    #[serde(default)]
    input: Value,
}

#[derive(Debug, Deserialize)]
struct Function {
    #[serde(default, deserialize_with = "given::text")]
    name: Option<String>,
    #[serde(default)]
    arguments: Value,
}

/// What the request means.
#[derive(Debug)]
pub struct DecodedChat {
    /// `None` for a missing or empty `model`.
    pub model: Option<String>,
    /// The `system` and `developer` messages, joined.
    pub system: Option<String>,
    pub turns: Vec<Turn>,
    pub tools: Vec<ToolDef>,
    pub tool_choice: Option<ToolChoice>,
    pub parallel_tool_calls: Option<bool>,
    pub response_format: Option<ResponseFormat>,
    pub params: Params,
    pub stream: bool,
    pub include_usage: bool,
    pub caching: Caching,
    /// The caller knows functions, not tools, and is answered so.
    pub has_functions: bool,
}

impl DecodedChat {
    /// As a request to a model, which is yet to be chosen.
    pub fn into_request(self) -> ModelRequest {
        ModelRequest {
            model: String::new(),
            system: self.system,
            turns: self.turns,
            tools: self.tools,
            tool_choice: self.tool_choice,
            parallel_tool_calls: self.parallel_tool_calls,
            response_format: self.response_format,
            params: self.params,
            caching: self.caching,
            loses_nothing: false,
        }
    }
}

/// Checks a request and turns it into neutral terms.
pub fn decode(request: ChatRequest) -> Result<DecodedChat, ApiError> {
    if request.messages.is_empty() {
        return Err(ApiError::invalid("messages", "must hold a message"));
    }
    if request.n.is_some_and(|n| n != 1) {
        return Err(ApiError::invalid("n", "only one choice is supported here"));
    }
    let mut system = System::default();
    let mut open = OpenCalls::default();
    let mut turns: Vec<Turn> = Vec::with_capacity(request.messages.len());
    for (at, message) in request.messages.into_iter().enumerate() {
        decode_message(at, message, &mut system, &mut turns, &mut open)?;
    }
    let mut caching = system.caching;
    caching.is_automatic = request.cache_control.is_object();
    let effort = match decode_effort(request.reasoning_effort.as_deref(), "reasoning_effort")? {
        None => effort_beside(&request.reasoning, &request.thinking)?,
        effort => effort,
    };
    let has_functions = request.tools.is_empty() && !request.functions.is_empty();
    let (mut tools, choice) = match has_functions {
        true => (
            decode_functions(request.functions)?,
            request.function_call.map(choice_of_function),
        ),
        false => (
            decode_tools(request.tools, &mut caching)?,
            request.tool_choice,
        ),
    };
    let tool_choice = match &choice {
        None => None,
        Some(choice) => decode_choice(choice, &mut tools)?,
    };
    Ok(DecodedChat {
        model: request.model.filter(|m| !m.is_empty()),
        system: (!system.text.is_empty()).then_some(system.text),
        turns,
        tools,
        tool_choice,
        // There is one place for a function's call in an answer.
        parallel_tool_calls: match has_functions {
            true => Some(false),
            false => request.parallel_tool_calls,
        },
        response_format: match &request.response_format {
            None => None,
            Some(format) => decode_format(format, "response_format")?,
        },
        params: Params {
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            max_tokens: request.max_completion_tokens.or(request.max_tokens),
            stop: decode_stop(request.stop.as_ref())?,
            seed: request.seed,
            presence_penalty: request.presence_penalty,
            frequency_penalty: request.frequency_penalty,
            effort,
            user: request.safety_identifier.or(request.user),
            verbosity: request.verbosity,
            service_tier: request.service_tier,
            prompt_cache_key: request.prompt_cache_key,
            metadata: request.metadata,
            logit_bias: request.logit_bias,
        },
        stream: request.stream.unwrap_or(false),
        include_usage: request
            .stream_options
            .and_then(|o| o.include_usage)
            .unwrap_or(false),
        caching,
        has_functions,
    })
}

fn decode_message(
    at: usize,
    message: Message,
    system: &mut System,
    turns: &mut Vec<Turn>,
    open: &mut OpenCalls,
) -> Result<(), ApiError> {
    let field = |name: &str| format!("messages[{at}].{name}");
    let role = message.role.as_deref().unwrap_or_default();
    let mut parts = match role {
        "tool" | "function" => result_parts(&message.content, &field("content"))?,
        "user" | "assistant" => match with_blocks(&message.content, &field("content")) {
            Some(parts) => parts?,
            None => content_parts(&message.content, &field("content"))?,
        },
        _ => content_parts(&message.content, &field("content"))?,
    };
    let mark = Caching::mark(&message.cache_control).map(|ttl| Part::CacheHere { ttl });
    let speaker = message.name.filter(|name| !name.is_empty());
    match role {
        "system" | "developer" => {
            parts.extend(mark);
            let added = system.add(&parts);
            added.map_err(|why| ApiError::invalid(field("content"), why))?;
        }
        "user" => {
            if parts.is_empty() {
                return Err(ApiError::invalid(field("content"), "is missing"));
            }
            let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
            let (results, said): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(is_result);
            if !results.is_empty() {
                push_results(turns, results);
                if said.is_empty() {
                    return Ok(());
                }
            }
            let speaker = speaker.map(|name| Part::Name { name });
            let parts = speaker.into_iter().chain(said).chain(mark).collect();
            turns.push(Turn {
                role: Role::User,
                parts,
            });
        }
        "assistant" => {
            let thought = reasoning_of(
                &message.reasoning_content,
                &message.reasoning,
                &message.reasoning_details,
            );
            let speaker = speaker.map(|name| Part::Name { name });
            let said = thought.into_iter().chain(speaker).chain(parts);
            let mut parts: Vec<Part> = said.collect();
            let refusal = message.refusal.filter(|text| !text.is_empty());
            parts.extend(refusal.map(|text| Part::Refusal { text }));
            for (call_at, call) in message.tool_calls.into_iter().enumerate() {
                let field = |name: &str| field(&format!("tool_calls[{call_at}].{name}"));
                parts.push(decode_call(call, &field)?);
            }
            if let Some(function) = message.function_call {
                let id = function_id(turns);
                parts.push(call_of(id, function, &|_| field("function_call"), None)?);
            }
            parts.extend(mark);
            turns.push(Turn {
                role: Role::Assistant,
                parts,
            });
        }
        role @ ("tool" | "function") => {
            let id = message.tool_call_id.filter(|id| !id.is_empty());
            let missing = match role {
                "tool" => "tool_call_id",
                _ => "name",
            };
            let tool_call_id = id
                .or_else(|| open.last(turns, speaker.as_deref()))
                .ok_or_else(|| ApiError::invalid(field(missing), "names no call"))?;
            parts.extend(mark);
            let result = Part::ToolResult {
                tool_call_id,
                content: parts,
                is_error: false,
            };
            push_results(turns, vec![result]);
        }
        "" => return Err(ApiError::invalid(field("role"), "is missing")),
        other => {
            return Err(ApiError::invalid(
                field("role"),
                format!("no role '{other}'"),
            ));
        }
    }
    Ok(())
}

/// Appends results; those of one answer's calls are one turn.
fn push_results(turns: &mut Vec<Turn>, results: Vec<Part>) {
    match turns.last_mut() {
        Some(last) if last.role == Role::Tool => last.parts.extend(results),
        _ => turns.push(Turn {
            role: Role::Tool,
            parts: results,
        }),
    }
}

/// A result: its parts, or the JSON text of another value, as clients give back what a tool returned.
fn result_parts(content: &Value, field: &str) -> Result<Vec<Part>, ApiError> {
    let is_part = content["type"].is_string() || content["text"].is_string();
    match content {
        Value::Object(_) if is_part => content_parts(content, field),
        Value::Object(_) | Value::Number(_) | Value::Bool(_) => Ok(vec![Part::Text {
            text: content.to_string(),
        }]),
        _ => content_parts(content, field),
    }
}

fn decode_call(call: ToolCall, field: &dyn Fn(&str) -> String) -> Result<Part, ApiError> {
    let missing = |name: &str| ApiError::invalid(field(name), "is missing");
    let custom = call.custom.map(|custom| Function {
        arguments: serde_json::json!({ "input": custom.input }),
        name: custom.name,
    });
    let function = call.function.or(custom);
    let function = function.ok_or_else(|| missing("function"))?;
    let id = call.id.filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| missing("id"))?;
    let signature = call
        .extra_content
        .as_ref()
        .and_then(|e| e["google"]["thought_signature"].as_str())
        .map(str::to_owned);
    call_of(id, function, field, signature)
}

fn call_of(
    id: String,
    function: Function,
    field: &dyn Fn(&str) -> String,
    signature: Option<String>,
) -> Result<Part, ApiError> {
    let name = function.name.filter(|name| !name.is_empty());
    Ok(Part::ToolCall {
        id,
        name: name.ok_or_else(|| ApiError::invalid(field("function.name"), "is missing"))?,
        arguments: arguments_text(&function.arguments),
        signature,
        server: None,
        approved: false,
    })
}

/// The id of a function's call, which has none: by its place, so that it is the same each time.
fn function_id(turns: &[Turn]) -> String {
    format!("call_function_{}", turns.len())
}

/// `function_call` of the older API as a `tool_choice`.
fn choice_of_function(choice: Value) -> Value {
    match choice {
        Value::Object(function) => serde_json::json!({ "function": function }),
        word => word,
    }
}

fn decode_stop(stop: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let bad = || ApiError::invalid("stop", "must be a string or an array of strings");
    match stop {
        None | Some(Value::Null) => Ok(Vec::new()),
        // An empty one ends nothing, and is refused by providers.
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) => items
            .iter()
            .filter(|item| item.as_str() != Some(""))
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(bad))
            .collect(),
        Some(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_results_take_no_longer_each_than_a_few() {
        let calls: Vec<Value> = (0..20_000)
            .map(|at| {
                let function = serde_json::json!({ "name": "f", "arguments": "{}" });
                serde_json::json!({ "id": format!("call_{at}"), "function": function })
            })
            .collect();
        let mut messages = vec![serde_json::json!({ "role": "assistant", "tool_calls": calls })];
        for at in 0..20_000 {
            // Every other one does not say which call it is of.
            messages.push(match at % 2 {
                0 => serde_json::json!({ "role": "tool", "content": "x", "name": "f" }),
                _ => serde_json::json!({ "role": "tool", "content": "x",
                    "tool_call_id": format!("call_{at}") }),
            });
        }
        let body = serde_json::json!({ "model": "m", "messages": messages }).to_string();
        let began = std::time::Instant::now();
        let request = crate::edge::parse::<ChatRequest>(body.as_bytes()).expect("parsed");
        let decoded = decode(request).expect("decoded");
        // When each looked through all before it, that was hours.
        assert!(began.elapsed() < std::time::Duration::from_secs(20));
        let results = &decoded.turns[1].parts;
        let of = |at: usize| match &results[at] {
            Part::ToolResult { tool_call_id, .. } => tool_call_id.as_str(),
            _ => "",
        };
        assert_eq!(
            (results.len(), of(0), of(1)),
            (20_000, "call_19999", "call_1")
        );
    }

    fn error_of(body: Value) -> ApiError {
        crate::edge::parse::<ChatRequest>(body.to_string().as_bytes())
            .and_then(decode)
            .expect_err("refused")
    }

    #[test]
    fn errors_name_the_field() {
        let message = serde_json::json!([{ "role": "user", "content": "hi" }]);
        for (body, param) in [
            (serde_json::json!({ "messages": "x" }), "messages"),
            (serde_json::json!({ "messages": [] }), "messages"),
            (
                serde_json::json!({ "messages": [{ "role": "x" }] }),
                "messages[0].role",
            ),
            (
                serde_json::json!({ "messages": [{ "role": "user" }] }),
                "messages[0].content",
            ),
            (
                serde_json::json!({ "messages": [{ "role": "user", "content": [{ "type": "text" }] }] }),
                "messages[0].content[0].text",
            ),
            (serde_json::json!({ "messages": message, "n": 2 }), "n"),
            (
                serde_json::json!({ "messages": message, "stream": "yes" }),
                "stream",
            ),
            (
                serde_json::json!({ "messages": message, "temperature": "hot" }),
                "temperature",
            ),
            (
                serde_json::json!({ "messages": message, "tool_choice": "x" }),
                "tool_choice",
            ),
            (
                serde_json::json!({ "messages": message, "tools": [{ "type": "custom" }] }),
                "tools[0].custom.name",
            ),
        ] {
            let error = error_of(body.clone());
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
            assert_eq!(error.status, 400);
        }
    }

    #[test]
    fn parallel_results_are_one_turn() {
        let body = serde_json::json!({ "tools": [], "messages": [
            { "role": "system", "content": "a" },
            { "role": "developer", "content": [{ "type": "text", "text": "b" }] },
            { "role": "user", "content": "go" },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "1", "type": "function", "function": { "name": "f", "arguments": "{}" },
                  "extra_content": { "google": { "thought_signature": "s" } } },
                { "id": "2", "type": "function", "function": { "name": "f", "arguments": "{}" } } ] },
            { "role": "tool", "tool_call_id": "1", "content": "x" },
            { "role": "tool", "tool_call_id": "2", "content": "y" },
        ]});
        let request = crate::edge::parse::<ChatRequest>(body.to_string().as_bytes()).unwrap();
        let decoded = decode(request).unwrap();
        assert_eq!(decoded.system.as_deref(), Some("a\n\nb"));
        assert_eq!(decoded.turns.len(), 3);
        assert_eq!(decoded.turns[2].parts.len(), 2);
        assert!(
            matches!(&decoded.turns[1].parts[0], Part::ToolCall { signature: Some(s), .. } if s == "s")
        );
        assert!(decoded.tools.is_empty());
    }
}
