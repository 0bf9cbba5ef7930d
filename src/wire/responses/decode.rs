//! The request: every field of OpenAI's is accepted, those that a turn does not use are ignored,
//! wrong types are refused by name.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::mounts::without_secrets;
use super::tools::decode_tools;
use super::turns::{push_turn, turn_of};
use crate::error::ApiError;
use crate::json::{Json, Object};
use crate::lenient::given;
use crate::model::{Caching, ModelRequest, Params, ResponseFormat, ToolChoice, ToolDef, Turn};
use crate::run::Word;
use crate::tools::Mounts;
use crate::wire::openai::approval::approval_of;
use crate::wire::openai::choice::{decode_choice, decode_effort, decode_format};
use crate::wire::openai::system::System;

const MAX_METADATA: usize = 16;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 512;

/// `POST /v1/responses`, as sent.
#[derive(Debug, Deserialize)]
pub struct ResponsesRequest {
    #[serde(default, deserialize_with = "given::text")]
    model: Option<String>,
    #[serde(default)]
    input: Value,
    #[serde(default, deserialize_with = "given::text")]
    instructions: Option<String>,
    #[serde(default, deserialize_with = "given::flag")]
    stream: Option<bool>,
    #[serde(default, deserialize_with = "given::flag")]
    store: Option<bool>,
    #[serde(default, deserialize_with = "given::flag")]
    background: Option<bool>,
    #[serde(default, deserialize_with = "given::text")]
    previous_response_id: Option<String>,
    #[serde(default)]
    conversation: Value,
    #[serde(default)]
    metadata: Option<Object>,
    #[serde(default)]
    text: Option<TextOptions>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Value,
    #[serde(default, deserialize_with = "given::flag")]
    parallel_tool_calls: Option<bool>,
    #[serde(default, deserialize_with = "given::limit")]
    max_output_tokens: Option<u32>,
    #[serde(default, deserialize_with = "given::number")]
    temperature: Option<f64>,
    #[serde(default, deserialize_with = "given::number")]
    top_p: Option<f64>,
    #[serde(default)]
    reasoning: Option<ReasoningOptions>,
    #[serde(default)]
    include: Option<Vec<Option<String>>>,
    #[serde(default, deserialize_with = "given::text")]
    truncation: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    user: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    safety_identifier: Option<String>,
    /// Anthropic's: that breakpoints are chosen for the caller.
    #[serde(default)]
    cache_control: Value,
    #[serde(default, deserialize_with = "given::text")]
    service_tier: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    prompt_cache_key: Option<String>,
    #[serde(default)]
    prompt: Value,
}

#[derive(Debug, Default, Deserialize)]
struct TextOptions {
    #[serde(default)]
    format: Value,
    #[serde(default, deserialize_with = "given::text")]
    verbosity: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ReasoningOptions {
    #[serde(default, deserialize_with = "given::text")]
    effort: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    summary: Option<String>,
}

/// A piece of the input.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are turns; a box would cost each an allocation"
)]
pub enum Input {
    Turn(Turn),
    /// An item that was said before and is kept here, by its id.
    Reference(String),
    /// On a run that waits.
    Decision(String, Word),
}

/// What the request means.
#[derive(Debug)]
pub struct DecodedResponse {
    /// `None` for a missing or empty `model`.
    pub model: Option<String>,
    /// `instructions`, then the `system` and `developer` messages.
    pub system: Option<String>,
    pub input: Vec<Input>,
    /// What the client runs.
    pub tools: Vec<ToolDef>,
    /// Types of tools that nobody here can run.
    pub left_out: Vec<String>,
    /// Tools that are run here for this call alone.
    pub mounts: Mounts,
    pub tool_choice: Option<ToolChoice>,
    pub parallel_tool_calls: Option<bool>,
    pub response_format: Option<ResponseFormat>,
    pub params: Params,
    pub caching: Caching,
    pub stream: bool,
    pub store: bool,
    pub background: bool,
    pub previous_response_id: Option<String>,
    pub conversation: Option<String>,
    pub metadata: Option<Object>,
    /// Whether reasoning items carry `encrypted_content`.
    pub encrypted: bool,
    /// Whether `file_search_call` items carry what was found.
    pub results: bool,
    /// Members of the response that are those of the request.
    pub echo: Map<String, Value>,
}

impl DecodedResponse {
    /// As a request to a model, which is yet to be chosen. References mean nothing without a smith.
    pub fn into_request(self) -> Result<ModelRequest, ApiError> {
        let mut turns = Vec::with_capacity(self.input.len());
        for input in self.input {
            match input {
                Input::Turn(turn) => push_turn(&mut turns, turn),
                Input::Decision(run, _) => {
                    return Err(ApiError::not_found("pending approval", &run).param("input"));
                }
                Input::Reference(id) => {
                    let message = format!(
                        "without a smith nothing is kept: send the item itself instead of a \
                         reference to '{id}' (with `store: false`, clients do)"
                    );
                    return Err(ApiError::invalid("input", message));
                }
            }
        }
        Ok(ModelRequest {
            model: String::new(),
            system: self.system,
            turns,
            tools: self.tools,
            tool_choice: self.tool_choice,
            parallel_tool_calls: self.parallel_tool_calls,
            response_format: self.response_format,
            params: self.params,
            caching: self.caching,
            loses_nothing: false,
        })
    }
}

/// The refusal of a reference to what is not kept here.
pub fn unknown_item(id: &str) -> ApiError {
    ApiError::new(
        http::StatusCode::NOT_FOUND,
        "not_found",
        format!("there is no item '{id}' of this smith"),
    )
    .param("input")
}

/// Checks a request and turns it into neutral terms.
pub fn decode(request: ResponsesRequest) -> Result<DecodedResponse, ApiError> {
    if !request.prompt.is_null() {
        return Err(ApiError::invalid(
            "prompt",
            "prompt templates are not kept here",
        ));
    }
    let mut system = System::default();
    system.text.extend(request.instructions.clone());
    let input = decode_input(&request.input, &mut system)?;
    let mut caching = system.caching;
    caching.is_automatic = request.cache_control.is_object();
    let text = request.text.unwrap_or_default();
    let reasoning = request.reasoning.unwrap_or_default();
    let effort = decode_effort(reasoning.effort.as_deref(), "reasoning.effort")?;
    let given = request.tools.unwrap_or_default();
    let mut tools = decode_tools(&given)?;
    caching.tools.extend(given.iter().filter_map(|tool| {
        let ttl = Caching::mark(&tool["cache_control"])?;
        Some((tool["name"].as_str()?.to_owned(), ttl))
    }));
    let tool_choice = decode_choice(&request.tool_choice, &mut tools.defs)?;

    check_metadata(request.metadata.as_ref())?;
    let conversation = conversation_of(&request.conversation)?;
    let previous_response_id = request.previous_response_id.filter(|id| !id.is_empty());
    if conversation.is_some() && previous_response_id.is_some() {
        return Err(ApiError::invalid(
            "previous_response_id",
            "give either a conversation or a previous response",
        ));
    }
    let store = request.store.unwrap_or(true);
    let background = request.background.unwrap_or(false);
    if background && !store {
        return Err(ApiError::bad_request(
            "unsupported_background",
            "a response in the background must be stored",
        )
        .param("background"));
    }
    let format = match text.format.is_null() {
        true => json!({ "type": "text" }),
        false => text.format.clone(),
    };
    let choice = match request.tool_choice.is_null() {
        true => json!("auto"),
        false => request.tool_choice,
    };
    let echo = json!({
        "background": background,
        "conversation": conversation.as_ref().map(|id| json!({ "id": id })),
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": null,
        "metadata": request.metadata.clone().unwrap_or_default(),
        "parallel_tool_calls": request.parallel_tool_calls.unwrap_or(true),
        "previous_response_id": previous_response_id,
        "reasoning": { "effort": reasoning.effort, "summary": reasoning.summary },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": store,
        "temperature": request.temperature.unwrap_or(1.0),
        "text": { "format": format, "verbosity": text.verbosity.as_deref().unwrap_or("medium") },
        "tool_choice": choice,
        "tools": without_secrets(&given),
        "top_logprobs": 0,
        "top_p": request.top_p.unwrap_or(1.0),
        "truncation": request.truncation.as_deref().unwrap_or("disabled"),
        "user": request.user,
    });
    let response_format = decode_format(&text.format, "text.format")?;
    // As the wire's own service says it.
    if input.is_empty() && conversation.is_none() && previous_response_id.is_none() {
        let why = "must be given where there is no previous_response_id and no conversation";
        return Err(ApiError::invalid("input", why));
    }
    let include = request.include.unwrap_or_default();
    let includes = |what: &str| include.iter().flatten().any(|included| included == what);
    Ok(DecodedResponse {
        model: request.model.filter(|m| !m.is_empty()),
        system: (!system.text.is_empty()).then_some(system.text),
        input,
        tools: tools.defs,
        left_out: tools.left_out,
        mounts: tools.mounts,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        response_format,
        params: Params {
            temperature: request.temperature,
            top_p: request.top_p,
            max_tokens: request.max_output_tokens,
            effort,
            user: request.safety_identifier.or(request.user),
            verbosity: text.verbosity,
            service_tier: request.service_tier,
            prompt_cache_key: request.prompt_cache_key,
            metadata: request.metadata.clone().filter(|m| !m.is_empty()),
            ..Params::default()
        },
        caching,
        stream: request.stream.unwrap_or(false),
        store,
        background,
        previous_response_id,
        conversation,
        metadata: request.metadata,
        results: includes("file_search_call.results"),
        encrypted: includes("reasoning.encrypted_content"),
        echo: match echo {
            Value::Object(echo) => echo,
            _ => Map::new(),
        },
    })
}

fn decode_input(input: &Value, system: &mut System) -> Result<Vec<Input>, ApiError> {
    let items = match input {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) => {
            let turn = Turn::text(crate::model::Role::User, text.clone());
            return Ok(vec![Input::Turn(turn)]);
        }
        Value::Array(items) => items,
        _ => {
            return Err(ApiError::invalid(
                "input",
                "must be a text or a list of items",
            ));
        }
    };
    let mut decoded = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let field = format!("input[{at}]");
        let Some(members) = item.as_object() else {
            return Err(ApiError::invalid(field, "must be an item"));
        };
        match (item["type"].as_str(), item["role"].as_str()) {
            (Some("item_reference") | None, None) if item["id"].is_string() => {
                let id = item["id"].as_str().unwrap_or_default();
                // The AI SDK refers to an approval's request right before its decision.
                if !id.contains("::") {
                    decoded.push(Input::Reference(id.to_owned()));
                }
            }
            (Some("mcp_approval_response"), _) => {
                let id = item["approval_request_id"].as_str().unwrap_or_default();
                let Some((run, call)) = approval_of(id) else {
                    return Err(ApiError::not_found("pending approval", id).param(field));
                };
                let Some(approve) = item["approve"].as_bool() else {
                    let message = "must be true or false";
                    return Err(ApiError::invalid(format!("{field}.approve"), message));
                };
                let word = Word {
                    tool_call_id: Some(call.to_owned()),
                    approve,
                    content: item.get("content").filter(|c| c.is_object()).cloned(),
                    reason: item["reason"].as_str().map(str::to_owned),
                    ..Word::default()
                };
                decoded.push(Input::Decision(run.to_owned(), word));
            }
            // What it asked is known here; the decision on it is what counts.
            (Some("mcp_approval_request"), _) => {}
            // With its result among the items of the run that it is of.
            (Some("mcp_call"), _) if item["id"].is_string() => {
                let id = item["id"].as_str().unwrap_or_default();
                decoded.push(Input::Reference(id.to_owned()));
            }
            (Some("message") | None, Some("system" | "developer")) => {
                let parts = super::turns::parts_of(&item["content"])
                    .map_err(|why| ApiError::invalid(field.clone(), why))?;
                let added = system.add(&parts);
                added.map_err(|why| ApiError::invalid(field, why))?;
            }
            _ => {
                let turn = turn_of(members).map_err(|why| ApiError::invalid(field, why))?;
                decoded.extend(turn.map(Input::Turn));
            }
        }
    }
    Ok(decoded)
}

fn conversation_of(conversation: &Value) -> Result<Option<String>, ApiError> {
    let id = match conversation {
        Value::Null => return Ok(None),
        Value::String(id) => Some(id.as_str()),
        other => other["id"].as_str(),
    };
    match id {
        Some("") => Ok(None),
        Some(id) => Ok(Some(id.to_owned())),
        None => Err(ApiError::invalid(
            "conversation",
            "must be an id, or an object with one",
        )),
    }
}

fn check_metadata(metadata: Option<&Object>) -> Result<(), ApiError> {
    let Some(metadata) = metadata else {
        return Ok(());
    };
    let fits = |(key, value): (&str, &Json)| {
        key.chars().count() <= MAX_METADATA_KEY
            && value
                .as_str()
                .is_some_and(|text| text.chars().count() <= MAX_METADATA_VALUE)
    };
    if metadata.len() > MAX_METADATA || !metadata.iter().all(fits) {
        let message = format!(
            "must be at most {MAX_METADATA} texts of {MAX_METADATA_VALUE} characters, with names \
             of {MAX_METADATA_KEY}"
        );
        return Err(ApiError::invalid("metadata", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Part, Role};

    fn decoded(body: Value) -> Result<DecodedResponse, ApiError> {
        crate::edge::parse::<ResponsesRequest>(body.to_string().as_bytes()).and_then(decode)
    }

    #[test]
    fn errors_name_the_field() {
        let pair: Map<String, Value> = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
        for (body, param) in [
            (json!({ "input": 7 }), "input"),
            (json!({}), "input"),
            (json!({ "input": [] }), "input"),
            (json!({ "input": [7] }), "input[0]"),
            (json!({ "input": [{ "role": "user" }] }), "input[0]"),
            (json!({ "stream": "yes" }), "stream"),
            (json!({ "tools": [{ "name": "x" }] }), "tools[0].type"),
            (
                json!({ "tools": [{ "type": "function" }] }),
                "tools[0].name",
            ),
            (json!({ "tool_choice": "x" }), "tool_choice"),
            (
                json!({ "tool_choice": { "type": "function", "name": "f" } }),
                "tool_choice",
            ),
            (
                json!({ "text": { "format": { "type": "xml" } } }),
                "text.format",
            ),
            (
                json!({ "reasoning": { "effort": "x" } }),
                "reasoning.effort",
            ),
            (json!({ "conversation": 7 }), "conversation"),
            (
                json!({ "conversation": "cnv_1", "previous_response_id": "resp_1" }),
                "previous_response_id",
            ),
            (json!({ "background": true, "store": false }), "background"),
            (json!({ "metadata": pair }), "metadata"),
            (json!({ "prompt": { "id": "p" } }), "prompt"),
            (
                json!({ "input": [{ "type": "mcp_approval_response", "approve": true,
                    "approval_request_id": "c" }] }),
                "input[0]",
            ),
            (
                json!({ "input": [{ "type": "mcp_approval_response", "approve": "yes",
                    "approval_request_id": "run_1::c" }] }),
                "input[0].approve",
            ),
        ] {
            let error = decoded(body.clone()).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn input_becomes_turns_references_and_instructions() {
        let body = json!({ "model": "", "instructions": "a", "input": [
            { "role": "system", "content": "b" },
            { "role": "developer", "content": [{ "type": "input_text", "text": "c" }] },
            { "role": "user", "content": "go" },
            { "type": "item_reference", "id": "msg_1_001" },
            { "id": "msg_1_002" },
            { "type": "item_reference", "id": "run_1::call" },
            { "type": "function_call", "id": "fc_9", "call_id": "1", "name": "f",
              "arguments": "{}" },
            { "type": "function_call_output", "call_id": "1", "output": "x" },
        ], "tools": [{ "type": "function", "name": "f", "parameters": null, "strict": true }],
          "tool_choice": { "type": "function", "name": "f" } });
        let decoded = decoded(body).expect("valid");
        assert_eq!(decoded.model, None);
        assert_eq!(decoded.system.as_deref(), Some("a\n\nb\n\nc"));
        assert_eq!(decoded.tool_choice, Some(ToolChoice::Named("f".to_owned())));
        assert_eq!(decoded.input.len(), 5);
        assert_eq!(decoded.input[1], Input::Reference("msg_1_001".to_owned()));
        assert!(matches!(&decoded.input[3], Input::Turn(turn)
            if turn.role == Role::Assistant && matches!(turn.parts[0], Part::ToolCall { .. })));
        assert_eq!(decoded.echo["instructions"], "a");
        assert_eq!(decoded.echo["temperature"], 1.0);
        assert!(decoded.into_request().is_err(), "references need a smith");
    }
}
