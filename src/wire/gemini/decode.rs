//! The request: what Google's clients send, read leniently; members that no other provider has a
//! place for are ignored where they only tell Google how, and refused by name where the answer would
//! be to another question.

use serde::Deserialize;
use serde_json::Value;

use super::generation::GenerationConfig;
use super::parts::{Calls, parts};
use super::tools::{decode_choice, decode_tools};
use super::unsupported;
use crate::error::ApiError;
use crate::lenient::given;
use crate::model::{ModelRequest, Part, Role, Turn};
use crate::wire::openai::system::System;

/// The body of `generateContent`, and of `countTokens`, as sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GeminiRequest {
    contents: Value,
    #[serde(alias = "system_instruction")]
    system_instruction: Value,
    tools: Value,
    #[serde(alias = "tool_config")]
    tool_config: Value,
    #[serde(alias = "generation_config")]
    generation_config: Option<GenerationConfig>,
    #[serde(alias = "cached_content", deserialize_with = "given::text")]
    cached_content: Option<String>,
    #[serde(alias = "service_tier", deserialize_with = "given::text")]
    service_tier: Option<String>,
    /// Of `countTokens`, in the place of all others.
    #[serde(alias = "generate_content_request")]
    generate_content_request: Option<Box<GeminiRequest>>,
}

/// What the request means.
#[derive(Debug)]
pub struct DecodedGemini {
    /// Whose model is yet to be chosen.
    pub request: ModelRequest,
    pub shows_thoughts: bool,
}

/// Checks a request and turns it into neutral terms.
pub fn decode(request: GeminiRequest) -> Result<DecodedGemini, ApiError> {
    if let Some(inner) = request.generate_content_request {
        return decode(*inner);
    }
    if request.cached_content.is_some_and(|name| !name.is_empty()) {
        let why = "only Google itself has what is cached: send it in 'contents'";
        return Err(unsupported("cachedContent", why));
    }
    let mut system = System::default();
    let mut calls = Calls::default();
    let said = match &request.system_instruction {
        content @ Value::Object(_) => &content["parts"],
        plain => plain,
    };
    let instruction = parts(said, "systemInstruction.parts", &mut calls)?;
    let added = system.add(&instruction);
    added.map_err(|why| ApiError::invalid("systemInstruction", why))?;
    let mut turns = Vec::new();
    match &request.contents {
        Value::Array(contents) => {
            turns.reserve(contents.len());
            for (at, one) in contents
                .iter()
                .enumerate()
                .filter(|(_, one)| !one.is_null())
            {
                let field = format!("contents[{at}]");
                content(one, &field, &mut calls, &mut system, &mut turns)?;
            }
        }
        Value::Null => {}
        one => content(one, "contents", &mut calls, &mut system, &mut turns)?,
    }
    if turns.is_empty() {
        return Err(ApiError::invalid("contents", "must hold a content"));
    }
    let mut tools = decode_tools(&request.tools)?;
    let config = request.generation_config.unwrap_or_default();
    let mut params = config.params()?;
    params.service_tier = request.service_tier.map(tier);
    Ok(DecodedGemini {
        shows_thoughts: config.shows_thoughts(),
        request: ModelRequest {
            model: String::new(),
            system: (!system.text.is_empty()).then_some(system.text),
            turns,
            tool_choice: decode_choice(&request.tool_config, &mut tools)?,
            tools,
            parallel_tool_calls: None,
            response_format: config.format()?,
            params,
            caching: system.caching,
            loses_nothing: false,
        },
    })
}

fn content(
    content: &Value,
    field: &str,
    calls: &mut Calls,
    system: &mut System,
    turns: &mut Vec<Turn>,
) -> Result<(), ApiError> {
    // A text, or a part, is what the user says.
    let is_content = content.get("parts").is_some() || content.get("role").is_some();
    let (role, said, field) = match is_content {
        true => (
            content["role"].as_str().unwrap_or_default(),
            &content["parts"],
            format!("{field}.parts"),
        ),
        false => ("", content, field.to_owned()),
    };
    let role = match role {
        "" | "user" | "function" | "tool" => Role::User,
        "model" | "assistant" => Role::Assistant,
        "system" | "developer" => {
            let added = system.add(&parts(said, &field, calls)?);
            return added.map_err(|why| ApiError::invalid(field, why));
        }
        other => {
            let field = field.trim_end_matches(".parts");
            let why = format!("no role '{other}'");
            return Err(ApiError::invalid(format!("{field}.role"), why));
        }
    };
    let parts = parts(said, &field, calls)?;
    if role == Role::Assistant {
        // Clients keep what a model answered, be it nothing.
        if !parts.is_empty() {
            turns.push(Turn { role, parts });
        }
        return Ok(());
    }
    if parts.is_empty() {
        return Err(ApiError::invalid(field, "is missing"));
    }
    let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
    let (results, said): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(is_result);
    if !results.is_empty() {
        match turns.last_mut() {
            // Those of one answer's calls are one turn.
            Some(last) if last.role == Role::Tool => last.parts.extend(results),
            _ => turns.push(Turn {
                role: Role::Tool,
                parts: results,
            }),
        }
    }
    if !said.is_empty() {
        turns.push(Turn { role, parts: said });
    }
    Ok(())
}

/// Google's `serviceTier` in OpenAI's words.
fn tier(tier: String) -> String {
    match tier.to_ascii_lowercase().as_str() {
        "standard" | "service_tier_standard" | "unspecified" => "default".to_owned(),
        other => other.trim_start_matches("service_tier_").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::frame::Signer;
    use crate::model::{Signature, Source};

    fn read(body: &Value) -> Result<DecodedGemini, ApiError> {
        crate::edge::parse::<GeminiRequest>(body.to_string().as_bytes()).and_then(decode)
    }

    fn decoded(body: Value) -> ModelRequest {
        let decoded = read(&body).unwrap_or_else(|error| panic!("{error} {:?}", error.param));
        decoded.request
    }

    fn said(parts: Value) -> Vec<Part> {
        let body = json!({ "contents": [{ "role": "user", "parts": parts }] });
        decoded(body).turns.remove(0).parts
    }

    fn text(text: &str) -> Part {
        Part::Text { text: text.into() }
    }

    #[test]
    fn a_conversation_with_functions_and_thoughts() {
        let foreign = super::super::signature::written(Signer::OpenAi, false, "{}").into_owned();
        let request = decoded(json!({
            "system_instruction": { "parts": [{ "text": "a" }, { "text": "b" }] },
            "contents": [
                { "parts": [{ "text": "hi" }] },
                { "role": "model", "parts": [
                    { "text": "h", "thought": true }, { "text": "m", "thought": true },
                    { "text": "", "thought": true, "thoughtSignature": foreign },
                    { "text": "wait", "thought_signature": "R29v" },
                    { "functionCall": { "name": "f", "args": { "x": 1 } }, "thoughtSignature": "c2ln" },
                    { "functionCall": { "name": "f", "args": {} } },
                    { "function_call": { "id": "g1", "name": "g" } }] },
                { "role": "function", "parts": [
                    { "functionResponse": { "name": "g", "id": "g1", "response": { "error": "no" } } },
                    { "functionResponse": { "name": "f", "response": { "result": "42" } } }] },
                { "role": "user", "parts": [
                    { "functionResponse": { "name": "f", "response": { "a": 1 } } },
                    { "text": "go on" }] },
            ],
        }));
        assert_eq!(request.system.as_deref(), Some("ab"));
        let roles: Vec<Role> = request.turns.iter().map(|turn| turn.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::User]);
        let parts = &request.turns[1].parts;
        let reasoning = |text: &str, signer, value: &str| Part::Reasoning {
            text: text.into(),
            signature: Some(Signature {
                signer,
                value: value.into(),
            }),
            redacted: false,
        };
        assert_eq!(parts[0], reasoning("hm", Signer::OpenAi, "{}"));
        assert_eq!(parts[1], text("wait"));
        assert_eq!(parts[2], reasoning("", Signer::Google, "R29v"));
        let ids: Vec<&str> = parts[3..]
            .iter()
            .map(|part| match part {
                Part::ToolCall { id, .. } => id.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(ids[0] != ids[1] && ids[2] == "g1", "{ids:?}");
        let Part::ToolCall { signature, .. } = &parts[3] else {
            panic!("{parts:?}");
        };
        assert_eq!(signature.as_deref(), Some("c2ln"));
        let results: Vec<(&str, Part, bool)> = request.turns[2]
            .parts
            .iter()
            .map(|part| match part {
                Part::ToolResult {
                    tool_call_id,
                    content,
                    is_error,
                } => (tool_call_id.as_str(), content[0].clone(), *is_error),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            results,
            [
                ("g1", text("no"), true),
                (ids[0], text("42"), false),
                (ids[1], text("{\"a\":1}"), false),
            ]
        );
    }

    #[test]
    fn parts_of_all_kinds_are_read() {
        let image = |media_type: &str, data: &str| Part::Image {
            source: Source::Data {
                media_type: media_type.into(),
                data: data.into(),
            },
            detail: None,
        };
        for (parts, expected) in [
            (json!("plain"), vec![text("plain")]),
            (
                json!([null, "x", { "text": "y" }]),
                vec![text("x"), text("y")],
            ),
            (json!({ "text": "one" }), vec![text("one")]),
            (
                json!([{ "inline_data": { "mime_type": "image/png", "data": "iVBORw0KGgo=" } }]),
                vec![image("image/png", "iVBORw0KGgo=")],
            ),
            (
                json!([{ "inlineData": { "mimeType": "audio/mpeg", "data": "AAAA" } }]),
                vec![Part::Audio {
                    data: "AAAA".into(),
                    format: "mp3".into(),
                }],
            ),
            (
                json!([{ "fileData": { "mimeType": "application/pdf", "fileUri": "https://x.example/a",
                    "displayName": "a.pdf" } }]),
                vec![Part::File {
                    source: Source::Url {
                        url: "https://x.example/a".into(),
                    },
                    name: Some("a.pdf".into()),
                }],
            ),
            (
                json!([{ "fileData": { "fileUri": "file_1" } }]),
                vec![Part::File {
                    source: Source::FileId {
                        id: "file_1".into(),
                    },
                    name: None,
                }],
            ),
            (
                json!([{ "executableCode": { "language": "PYTHON", "code": "1" } },
                    { "codeExecutionResult": { "outcome": "OUTCOME_OK", "output": "1" } }]),
                vec![text("\n```python\n1\n```\n"), text("\n```\n1\n```\n")],
            ),
        ] {
            assert_eq!(said(parts.clone()), expected, "{parts}");
        }
        // Contents in other forms.
        for contents in [json!("hi"), json!(["hi"]), json!({ "text": "hi" })] {
            let request = decoded(json!({ "contents": contents }));
            assert_eq!(request.turns, [Turn::text(Role::User, "hi")]);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_its_place() {
        let with = |part: Value| json!({ "contents": [{ "parts": [part] }] });
        let beside = |name: &str, value: Value| {
            let mut body = with(json!({ "text": "hi" }));
            body[name] = value;
            body
        };
        for (body, param) in [
            (json!({}), "contents"),
            (json!({ "contents": [] }), "contents"),
            (
                json!({ "contents": [{ "role": "x", "parts": [] }] }),
                "contents[0].role",
            ),
            (
                json!({ "contents": [{ "role": "user" }] }),
                "contents[0].parts",
            ),
            (with(json!({})), "contents[0].parts[0]"),
            (with(json!({ "what": 1 })), "contents[0].parts[0]"),
            (with(json!({ "text": 1 })), "contents[0].parts[0].text"),
            (
                with(json!({ "functionCall": {} })),
                "contents[0].parts[0].functionCall.name",
            ),
            (
                with(json!({ "functionResponse": { "name": "f" } })),
                "contents[0].parts[0].functionResponse",
            ),
            (
                with(json!({ "inlineData": {} })),
                "contents[0].parts[0].inlineData.data",
            ),
            (
                with(json!({ "fileData": { "fileUri": "files/abc" } })),
                "contents[0].parts[0].fileData.fileUri",
            ),
            (
                with(json!({ "videoMetadata": { "fps": 1 }, "text": "x" })),
                "contents[0].parts[0].videoMetadata",
            ),
            (
                beside("cachedContent", json!("cachedContents/a")),
                "cachedContent",
            ),
            (
                beside("tools", json!([{ "codeExecution": {} }])),
                "tools[0].codeExecution",
            ),
            (
                beside("generationConfig", json!({ "candidateCount": 2 })),
                "generationConfig.candidateCount",
            ),
            (
                beside("generation_config", json!({ "temperature": "hot" })),
                "generation_config.temperature",
            ),
        ] {
            let error = read(&body).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
    }

    #[test]
    fn a_count_may_be_of_a_whole_request() {
        let request = decoded(json!({ "generateContentRequest": { "model": "models/m",
            "contents": [{ "parts": [{ "text": "hi" }] }], "tools": [{ "functionDeclarations":
            [{ "name": "f" }] }] } }));
        assert_eq!((request.turns.len(), request.tools.len()), (1, 1));
    }
}
