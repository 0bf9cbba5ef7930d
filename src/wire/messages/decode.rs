//! The request: what Anthropic's clients send, read leniently; members that no other provider has a
//! place for are ignored, wrong types are refused by name.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

use super::blocks;
use super::thinking::Display;
use super::tools::{Tool, decode_tools};
use crate::error::ApiError;
use crate::lenient::given;
use crate::model::{
    Caching, Effort, ModelRequest, Params, Part, ResponseFormat, Role, ToolChoice, ToolDef, Turn,
};
use crate::wire::openai::choice::{decode_choice, decode_effort, decode_format, effort_beside};
use crate::wire::openai::system::System;

/// `POST /v1/messages`, as sent.
#[derive(Debug, Deserialize)]
pub struct MessagesRequest {
    #[serde(default, deserialize_with = "given::text")]
    model: Option<String>,
    #[serde(default, deserialize_with = "given::list")]
    messages: Vec<Message>,
    #[serde(default)]
    system: Value,
    #[serde(default, deserialize_with = "given::flag")]
    stream: Option<bool>,
    #[serde(default, deserialize_with = "given::limit")]
    max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "given::list")]
    tools: Vec<Tool>,
    #[serde(default)]
    tool_choice: Value,
    #[serde(default, deserialize_with = "given::number")]
    temperature: Option<f64>,
    #[serde(default, deserialize_with = "given::number")]
    top_p: Option<f64>,
    #[serde(default, deserialize_with = "given::limit")]
    top_k: Option<u32>,
    #[serde(default)]
    stop_sequences: Value,
    #[serde(default)]
    thinking: Value,
    /// How hard to think, and the form of the answer.
    #[serde(default)]
    output_config: Value,
    /// The form of the answer, as it was called before there was `output_config`.
    #[serde(default)]
    output_format: Value,
    #[serde(default)]
    metadata: Value,
    #[serde(default, deserialize_with = "given::text")]
    service_tier: Option<String>,
    /// That breakpoints are chosen for the caller.
    #[serde(default)]
    cache_control: Value,
    /// What only Anthropic does: keep a conversation, shorten it, ask other servers.
    #[serde(default)]
    thread: Value,
    #[serde(default)]
    compaction: Value,
    #[serde(default)]
    mcp_servers: Value,
}

/// One of `messages`.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default, deserialize_with = "given::text")]
    role: Option<String>,
    #[serde(default)]
    content: Value,
}

/// What the request means.
#[derive(Debug)]
pub struct DecodedMessages {
    /// `None` for a missing or empty `model`.
    pub model: Option<String>,
    pub system: Option<String>,
    pub turns: Vec<Turn>,
    pub tools: Vec<ToolDef>,
    pub tool_choice: Option<ToolChoice>,
    pub parallel_tool_calls: Option<bool>,
    pub response_format: Option<ResponseFormat>,
    pub params: Params,
    pub stream: bool,
    pub caching: Caching,
    pub display: Display,
}

impl DecodedMessages {
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
pub fn decode(request: MessagesRequest) -> Result<DecodedMessages, ApiError> {
    if request.messages.is_empty() {
        return Err(ApiError::invalid("messages", "must hold a message"));
    }
    refuse_what_only_anthropic_does(&request)?;
    let mut system = System::default();
    add_system(&mut system, &request.system, "system")?;
    let mut turns: Vec<Turn> = Vec::with_capacity(request.messages.len());
    for (at, message) in request.messages.iter().enumerate() {
        decode_message(at, message, &mut system, &mut turns)?;
    }
    let mut caching = system.caching;
    caching.is_automatic = request.cache_control.is_object();
    let mut tools = decode_tools(request.tools, &mut caching)?;
    let format = match request.output_config["format"].is_null() {
        false => decode_format(&request.output_config["format"], "output_config.format")?,
        true => decode_format(&request.output_format, "output_format")?,
    };
    let serial = request.tool_choice["disable_parallel_tool_use"].as_bool();
    Ok(DecodedMessages {
        model: request.model.filter(|m| !m.is_empty()),
        system: (!system.text.is_empty()).then_some(system.text),
        turns,
        tool_choice: decode_choice(&request.tool_choice, &mut tools)?,
        tools,
        parallel_tool_calls: (serial == Some(true)).then_some(false),
        response_format: format,
        display: Display::of(&request.thinking),
        params: Params {
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            max_tokens: request.max_tokens,
            stop: decode_stop(&request.stop_sequences)?,
            effort: effort(&request.thinking, &request.output_config)?,
            user: request.metadata["user_id"].as_str().map(short_id),
            service_tier: request.service_tier.map(tier),
            ..Params::default()
        },
        stream: request.stream.unwrap_or(false),
        caching,
    })
}

/// Members without which the answer would be to another question.
fn refuse_what_only_anthropic_does(request: &MessagesRequest) -> Result<(), ApiError> {
    if !request.thread.is_null() {
        // By this code Anthropic's clients know that they have to send all of the conversation.
        let code = "thread_unsupported_request";
        let why = "only Anthropic itself keeps a conversation: send all of it, without 'thread'";
        return Err(ApiError::bad_request(code, why).param("thread"));
    }
    let has_servers = request
        .mcp_servers
        .as_array()
        .is_some_and(|s| !s.is_empty());
    let asked = [
        ("compaction", !request.compaction.is_null()),
        ("mcp_servers", has_servers),
    ];
    match asked.iter().find(|(_, is_asked)| *is_asked) {
        None => Ok(()),
        Some((name, _)) => {
            let why = format!("only models of Anthropic itself have '{name}'");
            Err(ApiError::bad_request("unsupported", why).param(*name))
        }
    }
}

/// Each block of the system text stands by itself.
fn add_system(system: &mut System, content: &Value, field: &str) -> Result<(), ApiError> {
    let parts = blocks::parts(content, field)?;
    let mut one = Vec::with_capacity(2);
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        one.push(part);
        if matches!(parts.peek(), Some(Part::CacheHere { .. })) {
            one.extend(parts.next());
        }
        let added = system.add(&one);
        added.map_err(|why| ApiError::invalid(field.to_owned(), why))?;
        one.clear();
    }
    Ok(())
}

fn decode_message(
    at: usize,
    message: &Message,
    system: &mut System,
    turns: &mut Vec<Turn>,
) -> Result<(), ApiError> {
    let content = format!("messages[{at}].content");
    let role = match message.role.as_deref().unwrap_or_default() {
        // What was said in mid-conversation is the system's all the same.
        "system" | "developer" => return add_system(system, &message.content, &content),
        "user" | "tool" => Role::User,
        "assistant" | "model" => Role::Assistant,
        "" => {
            return Err(ApiError::invalid(
                format!("messages[{at}].role"),
                "is missing",
            ));
        }
        other => {
            return Err(ApiError::invalid(
                format!("messages[{at}].role"),
                format!("no role '{other}'"),
            ));
        }
    };
    let parts = blocks::parts(&message.content, &content)?;
    if role == Role::Assistant {
        turns.push(Turn { role, parts });
        return Ok(());
    }
    if parts.is_empty() {
        return Err(ApiError::invalid(content, "is missing"));
    }
    let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
    let (results, said): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(is_result);
    if !results.is_empty() {
        push(turns, Role::Tool, results);
    }
    if !said.is_empty() {
        turns.push(Turn { role, parts: said });
    }
    Ok(())
}

/// Appends results; those of one answer's calls are one turn.
fn push(turns: &mut Vec<Turn>, role: Role, parts: Vec<Part>) {
    match turns.last_mut() {
        Some(last) if last.role == role => last.parts.extend(parts),
        _ => turns.push(Turn { role, parts }),
    }
}

/// How hard to think. Thinking that is left to the model is not left out.
fn effort(thinking: &Value, config: &Value) -> Result<Option<Effort>, ApiError> {
    if thinking["type"] == "disabled" {
        return Ok(Some(Effort::None));
    }
    if let Some(effort) = decode_effort(config["effort"].as_str(), "output_config.effort")? {
        return Ok(Some(effort));
    }
    match thinking["type"].as_str() {
        Some("adaptive") => Ok(Some(Effort::Medium)),
        _ => effort_beside(&Value::Null, thinking),
    }
}

fn decode_stop(stop: &Value) -> Result<Vec<String>, ApiError> {
    let bad = || ApiError::invalid("stop_sequences", "must be a list of strings");
    match stop {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) => items
            .iter()
            .filter(|item| item.as_str() != Some(""))
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(bad))
            .collect(),
        _ => Err(bad()),
    }
}

/// The longest id of a user that all providers take.
const LONGEST_ID: usize = 64;

/// An id as it is, or what stands for one that is too long for other providers.
fn short_id(id: &str) -> String {
    if id.len() <= LONGEST_ID {
        return id.to_owned();
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
    let mut short = String::with_capacity(LONGEST_ID);
    for byte in digest.as_ref() {
        let _ = write!(short, "{byte:02x}");
    }
    short
}

/// Anthropic's `service_tier` in OpenAI's words.
fn tier(tier: String) -> String {
    match tier.as_str() {
        "standard_only" => "default".to_owned(),
        _ => tier,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::frame::Signer;
    use crate::model::{Signature, Source};

    fn read(body: &Value) -> Result<DecodedMessages, ApiError> {
        crate::edge::parse::<MessagesRequest>(body.to_string().as_bytes()).and_then(decode)
    }

    fn decoded(body: Value) -> DecodedMessages {
        read(&body).unwrap_or_else(|error| panic!("{error} {:?}: {body}", error.param))
    }

    fn said(content: Value) -> Vec<Part> {
        let body = json!({ "messages": [{ "role": "user", "content": content }] });
        decoded(body).turns.remove(0).parts
    }

    fn text(text: &str) -> Part {
        Part::Text { text: text.into() }
    }

    #[test]
    fn a_conversation_with_tools_and_thinking() {
        let decoded = decoded(json!({
            "model": "m", "max_tokens": 100, "stream": true,
            "system": [{ "type": "text", "text": "a", "cache_control": { "type": "ephemeral" } },
                { "type": "text", "text": "b" }],
            "messages": [
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "hm", "signature": "sig" },
                    { "type": "redacted_thinking", "data": "enc" },
                    { "type": "text", "text": "wait" },
                    { "type": "tool_use", "id": "t1", "name": "f", "input": { "x": 1 } },
                    { "type": "tool_use", "id": "t2", "name": "f", "input": {} }] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "t1", "content": "42" },
                    { "type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": [
                        { "type": "text", "text": "no" },
                        { "type": "image", "source": { "type": "url", "url": "https://x.example/a.png" } }] },
                    { "type": "text", "text": "go on" }] },
                { "role": "system", "content": "c" }],
            "tools": [{ "name": "f", "description": "d", "input_schema": { "type": "object" },
                "cache_control": { "type": "ephemeral", "ttl": "1h" } }],
            "tool_choice": { "type": "any", "disable_parallel_tool_use": true },
            "stop_sequences": ["x", ""],
            "thinking": { "type": "enabled", "budget_tokens": 9000 },
            "metadata": { "user_id": "u".repeat(100) },
            "service_tier": "standard_only",
        }));
        assert_eq!(decoded.system.as_deref(), Some("a\n\nb\n\nc"));
        assert_eq!(decoded.caching.system, [(1, None)]);
        assert_eq!(
            decoded.caching.tools,
            [("f".to_owned(), Some("1h".to_owned()))]
        );
        assert_eq!(decoded.tool_choice, Some(ToolChoice::Required));
        assert_eq!(decoded.parallel_tool_calls, Some(false));
        assert_eq!(decoded.params.effort, Some(Effort::Medium));
        assert_eq!(decoded.params.stop, ["x"]);
        assert_eq!(decoded.params.user.map(|user| user.len()), Some(64));
        assert_eq!(decoded.params.service_tier.as_deref(), Some("default"));
        assert_eq!(decoded.display, Display::Shown);
        let roles: Vec<Role> = decoded.turns.iter().map(|turn| turn.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::User]);
        let signed = |value: &str| {
            Some(Signature {
                signer: Signer::Anthropic,
                value: value.to_owned(),
            })
        };
        assert_eq!(
            decoded.turns[1].parts[..2],
            [
                Part::Reasoning {
                    text: "hm".into(),
                    signature: signed("sig"),
                    redacted: false
                },
                Part::Reasoning {
                    text: String::new(),
                    signature: signed("enc"),
                    redacted: true
                },
            ]
        );
        let Part::ToolResult {
            content, is_error, ..
        } = &decoded.turns[2].parts[1]
        else {
            panic!("{:?}", decoded.turns[2]);
        };
        assert!(*is_error && content.len() == 2);
    }

    #[test]
    fn blocks_of_all_kinds_are_read() {
        let file = |media_type: &str, data: &str, name: Option<&str>| Part::File {
            source: Source::Data {
                media_type: media_type.into(),
                data: data.into(),
            },
            name: name.map(Into::into),
        };
        for (block, parts) in [
            (json!("plain"), vec![text("plain")]),
            (json!({ "type": "text", "text": "x" }), vec![text("x")]),
            (json!([null, { "text": "x" }]), vec![text("x")]),
            (
                json!([{ "type": "text", "text": "x", "cache_control": { "type": "ephemeral" } }]),
                vec![text("x"), Part::CacheHere { ttl: None }],
            ),
            (
                json!([{ "type": "image", "source": { "type": "file", "file_id": "file_1" } }]),
                vec![Part::Image {
                    source: Source::FileId {
                        id: "file_1".into(),
                    },
                    detail: None,
                }],
            ),
            (
                json!([{ "type": "document", "title": "t", "context": "c", "source":
                    { "type": "base64", "media_type": "application/pdf", "data": "JVBERi0=" } }]),
                vec![
                    text("About t: c"),
                    file("application/pdf", "JVBERi0=", Some("t")),
                ],
            ),
            (
                json!([{ "type": "document", "source":
                    { "type": "text", "media_type": "text/plain", "data": "hi" } }]),
                vec![file("text/plain", "aGk=", Some("document.txt"))],
            ),
            (
                json!([{ "type": "document", "source": { "type": "content",
                    "content": [{ "type": "text", "text": "inner" }] } }]),
                vec![text("inner")],
            ),
            (
                json!([{ "type": "search_result", "source": "s", "title": "t",
                    "content": [{ "type": "text", "text": "found" }] }]),
                vec![text("t (s):\nfound")],
            ),
            (
                json!([{ "type": "server_tool_use", "name": "web_search", "input": { "query": "q" } },
                    { "type": "web_search_tool_result", "content": [{ "url": "https://x.example",
                        "encrypted_content": "e" }] }]),
                vec![
                    text("[web_search: {\"query\":\"q\"}]"),
                    text("[web_search_tool_result: [{\"url\":\"https://x.example\"}]]"),
                ],
            ),
        ] {
            assert_eq!(said(block.clone()), parts, "{block}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_its_place() {
        let with = |content: Value| json!({ "messages": [{ "role": "user", "content": content }] });
        let tool = |kind: &str| {
            let mut body = with(json!("hi"));
            body["tools"] = json!([{ "type": kind, "name": "x" }]);
            body
        };
        let beside = |name: &str, value: Value| {
            let mut body = with(json!("hi"));
            body[name] = value;
            body
        };
        for (body, param) in [
            (json!({ "messages": [] }), "messages"),
            (
                json!({ "messages": [{ "content": "x" }] }),
                "messages[0].role",
            ),
            (with(json!(null)), "messages[0].content"),
            (
                with(json!([{ "type": "what" }])),
                "messages[0].content[0].type",
            ),
            (
                with(json!([{ "type": "image", "source": {} }])),
                "messages[0].content[0].source",
            ),
            (
                with(json!([{ "type": "tool_result", "content": "x" }])),
                "messages[0].content[0].tool_use_id",
            ),
            (tool("web_search_20250305"), "tools[0].type"),
            (beside("thread", json!({ "type": "create" })), "thread"),
            (beside("compaction", json!({})), "compaction"),
            (
                beside("mcp_servers", json!([{ "url": "x" }])),
                "mcp_servers",
            ),
        ] {
            let error = read(&body).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
    }

    #[test]
    fn effort_and_form_come_in_old_and_new_members() {
        let schema = json!({ "type": "json_schema", "schema": { "type": "object" } });
        for body in [
            json!({ "output_format": schema }),
            json!({ "output_config": { "format": schema } }),
        ] {
            let mut body = body;
            body["messages"] = json!([{ "role": "user", "content": "hi" }]);
            let format = decoded(body).response_format;
            assert!(matches!(format, Some(ResponseFormat::JsonSchema { .. })));
        }
        for (thinking, config, effort) in [
            (
                json!(null),
                json!({ "effort": "xhigh" }),
                Some(Effort::XHigh),
            ),
            (
                json!({ "type": "disabled" }),
                json!({ "effort": "high" }),
                Some(Effort::None),
            ),
            (
                json!({ "type": "adaptive" }),
                json!(null),
                Some(Effort::Medium),
            ),
            (json!({ "type": "between_tools" }), json!(null), None),
            (json!(null), json!(null), None),
        ] {
            let asked = super::effort(&thinking, &config).expect("understood");
            assert_eq!(asked, effort, "{thinking} {config}");
        }
    }
}
