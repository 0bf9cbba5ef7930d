//! The request: every field of OpenAI's is accepted, those that a turn does not use are ignored,
//! wrong types are refused by name.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::model::{
    Effort, ModelRequest, Params, Part, ResponseFormat, Role, Source, ToolChoice, ToolDef, Turn,
    reasoning_of,
};

/// `POST /v1/chat/completions`, as sent.
#[derive(Debug, Deserialize)]
pub struct ChatRequest {
    #[serde(default)]
    pub model: Option<String>,
    pub messages: Vec<Message>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    #[serde(default)]
    tools: Option<Vec<Tool>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    parallel_tool_calls: Option<bool>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    stop: Option<Value>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    presence_penalty: Option<f64>,
    #[serde(default)]
    frequency_penalty: Option<f64>,
    #[serde(default)]
    reasoning_effort: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    safety_identifier: Option<String>,
    #[serde(default)]
    verbosity: Option<String>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    prompt_cache_key: Option<String>,
    #[serde(default)]
    metadata: Option<crate::json::Object>,
    #[serde(default)]
    logit_bias: Option<Map<String, Value>>,
    #[serde(default)]
    n: Option<u32>,
}

/// `stream_options`.
#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// One of `messages`.
#[derive(Debug, Deserialize)]
pub struct Message {
    role: String,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
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
    id: String,
    #[serde(default)]
    function: Option<Function>,
    #[serde(default)]
    extra_content: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Debug, Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    function: Option<FunctionDef>,
}

#[derive(Debug, Deserialize)]
struct FunctionDef {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Value>,
    #[serde(default)]
    strict: Option<bool>,
}

/// What the request means.
#[derive(Debug)]
pub struct Decoded {
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
}

impl Decoded {
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
        }
    }
}

/// Checks a request and turns it into neutral terms.
pub fn decode(request: ChatRequest) -> Result<Decoded, ApiError> {
    if request.messages.is_empty() {
        return Err(ApiError::invalid("messages", "must hold a message"));
    }
    if request.n.is_some_and(|n| n != 1) {
        return Err(ApiError::invalid("n", "only one choice is supported here"));
    }
    let mut system: Vec<String> = Vec::new();
    let mut turns: Vec<Turn> = Vec::with_capacity(request.messages.len());
    for (at, message) in request.messages.into_iter().enumerate() {
        decode_message(at, message, &mut system, &mut turns)?;
    }
    let effort = match request.reasoning_effort.as_deref() {
        None | Some("") => None,
        Some(text) => Some(text.parse::<Effort>().map_err(|()| {
            ApiError::bad_request("invalid_reasoning_effort", format!("no effort '{text}'"))
                .param("reasoning_effort")
        })?),
    };
    let tools = decode_tools(request.tools.unwrap_or_default())?;
    let tool_choice = match &request.tool_choice {
        None | Some(Value::Null) => None,
        Some(choice) => Some(decode_choice(choice, &tools)?),
    };
    Ok(Decoded {
        model: request.model.filter(|m| !m.is_empty()),
        system: (!system.is_empty()).then(|| system.join("\n\n")),
        turns,
        tools,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        response_format: decode_format(request.response_format.as_ref())?,
        params: Params {
            temperature: request.temperature,
            top_p: request.top_p,
            max_tokens: request
                .max_completion_tokens
                .or(request.max_tokens)
                .filter(|n| *n > 0),
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
    })
}

fn decode_message(
    at: usize,
    message: Message,
    system: &mut Vec<String>,
    turns: &mut Vec<Turn>,
) -> Result<(), ApiError> {
    let field = |name: &str| format!("messages[{at}].{name}");
    let parts = content_parts(&message.content, &field("content"))?;
    match message.role.as_str() {
        "system" | "developer" => system.push(crate::model::joined_text(&parts).into_owned()),
        "user" => {
            if parts.is_empty() {
                return Err(ApiError::invalid(field("content"), "is missing"));
            }
            turns.push(Turn {
                role: Role::User,
                parts,
            });
        }
        "assistant" => {
            let mut said = parts;
            let mut parts = Vec::from_iter(reasoning_of(
                &message.reasoning_content,
                &message.reasoning,
                &message.reasoning_details,
            ));
            parts.append(&mut said);
            if let Some(text) = message.refusal {
                parts.push(Part::Refusal { text });
            }
            for (call_at, call) in message.tool_calls.into_iter().flatten().enumerate() {
                let function = call.function.ok_or_else(|| {
                    ApiError::invalid(
                        field(&format!("tool_calls[{call_at}].function")),
                        "is missing",
                    )
                })?;
                let signature = call
                    .extra_content
                    .as_ref()
                    .and_then(|e| e["google"]["thought_signature"].as_str())
                    .map(str::to_owned);
                parts.push(Part::ToolCall {
                    id: call.id,
                    name: function.name,
                    arguments: function.arguments,
                    signature,
                    server: None,
                    approved: false,
                });
            }
            turns.push(Turn {
                role: Role::Assistant,
                parts,
            });
        }
        "tool" => {
            let tool_call_id = message
                .tool_call_id
                .ok_or_else(|| ApiError::invalid(field("tool_call_id"), "is missing"))?;
            let result = Part::ToolResult {
                tool_call_id,
                content: parts,
                is_error: false,
            };
            match turns.last_mut() {
                Some(last) if last.role == Role::Tool => last.parts.push(result),
                _ => turns.push(Turn {
                    role: Role::Tool,
                    parts: vec![result],
                }),
            }
        }
        other => {
            return Err(ApiError::invalid(
                field("role"),
                format!("no role '{other}'"),
            ));
        }
    }
    Ok(())
}

/// `content`: null, a string, or an array of parts.
pub(crate) fn content_parts(content: &Value, field: &str) -> Result<Vec<Part>, ApiError> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Part::Text { text: text.clone() }]),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| content_part(item, &format!("{field}[{at}]")))
            .collect(),
        _ => Err(ApiError::invalid(
            field.to_owned(),
            "must be a string or an array of parts",
        )),
    }
}

fn content_part(item: &Value, field: &str) -> Result<Part, ApiError> {
    let text_at = |value: &Value, name: &str| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| ApiError::invalid(format!("{field}.{name}"), "must be a string"))
    };
    match item["type"].as_str() {
        Some("text") => Ok(Part::Text {
            text: text_at(&item["text"], "text")?,
        }),
        Some("refusal") => Ok(Part::Refusal {
            text: text_at(&item["refusal"], "refusal")?,
        }),
        Some("image_url") => Ok(Part::Image {
            source: Source::from_url(&text_at(&item["image_url"]["url"], "image_url.url")?),
            detail: item["image_url"]["detail"].as_str().map(str::to_owned),
        }),
        Some("input_audio") => Ok(Part::Audio {
            data: text_at(&item["input_audio"]["data"], "input_audio.data")?,
            format: text_at(&item["input_audio"]["format"], "input_audio.format")?,
        }),
        Some("file") => {
            let file = &item["file"];
            let source = match (file["file_id"].as_str(), file["file_data"].as_str()) {
                (Some(id), _) => Source::FileId { id: id.to_owned() },
                (None, Some(data)) => Source::from_url(data),
                (None, None) => {
                    return Err(ApiError::invalid(
                        format!("{field}.file"),
                        "must hold file_id or file_data",
                    ));
                }
            };
            Ok(Part::File {
                source,
                name: file["filename"].as_str().map(str::to_owned),
            })
        }
        Some(other) => Err(ApiError::invalid(
            format!("{field}.type"),
            format!("no content part '{other}'"),
        )),
        None => Err(ApiError::invalid(format!("{field}.type"), "is missing")),
    }
}

fn decode_tools(tools: Vec<Tool>) -> Result<Vec<ToolDef>, ApiError> {
    tools
        .into_iter()
        .enumerate()
        .map(|(at, tool)| {
            if tool.kind != "function" {
                return Err(ApiError::bad_request(
                    "unsupported_tools",
                    format!("tools of type '{}' are not supported", tool.kind),
                )
                .param(format!("tools[{at}].type")));
            }
            let function = tool
                .function
                .ok_or_else(|| ApiError::invalid(format!("tools[{at}].function"), "is missing"))?;
            Ok(ToolDef {
                name: function.name,
                description: function.description,
                parameters: function
                    .parameters
                    .unwrap_or_else(|| serde_json::json!({ "type": "object", "properties": {} })),
                strict: function.strict,
            })
        })
        .collect()
}

fn decode_choice(choice: &Value, tools: &[ToolDef]) -> Result<ToolChoice, ApiError> {
    let bad = |why: String| ApiError::bad_request("invalid_tool_choice", why).param("tool_choice");
    match choice.as_str() {
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("none") => return Ok(ToolChoice::None),
        Some("required") => return Ok(ToolChoice::Required),
        Some(other) => return Err(bad(format!("no tool choice '{other}'"))),
        None => {}
    }
    let name = choice["function"]["name"]
        .as_str()
        .ok_or_else(|| bad("must be a string or name a function".to_owned()))?;
    if !tools.iter().any(|t| t.name == name) {
        return Err(bad(format!("'{name}' is none of the tools")));
    }
    Ok(ToolChoice::Named(name.to_owned()))
}

/// `response_format` of Chat Completions and of native runs.
pub(crate) fn decode_format(format: Option<&Value>) -> Result<Option<ResponseFormat>, ApiError> {
    let bad = |why: &str| {
        ApiError::bad_request("invalid_response_format", why.to_owned()).param("response_format")
    };
    let Some(format) = format.filter(|f| !f.is_null()) else {
        return Ok(None);
    };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(ResponseFormat::JsonObject)),
        Some("json_schema") => {
            let inner = &format["json_schema"];
            if !inner["schema"].is_object() {
                return Err(bad("json_schema.schema must be an object"));
            }
            Ok(Some(ResponseFormat::JsonSchema {
                name: inner["name"].as_str().unwrap_or("answer").to_owned(),
                description: inner["description"].as_str().map(str::to_owned),
                schema: inner["schema"].clone(),
                strict: inner["strict"].as_bool().unwrap_or(false),
            }))
        }
        _ => Err(bad("type must be text, json_object or json_schema")),
    }
}

fn decode_stop(stop: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let bad = || ApiError::invalid("stop", "must be a string or an array of strings");
    match stop {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(bad))
            .collect(),
        Some(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(body: Value) -> ApiError {
        crate::wire::parse::<ChatRequest>(body.to_string().as_bytes())
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
                serde_json::json!({ "messages": message, "tools": [{ "type": "web" }] }),
                "tools[0].type",
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
        let request = crate::wire::parse::<ChatRequest>(body.to_string().as_bytes()).unwrap();
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
