//! The request: the whole conversation as `UIMessage`s. Parts that say nothing to a model (steps,
//! sources, data) are left out.

use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::lenient::given;
use crate::model::{Part, Role, Source, Turn};
use crate::run::Word;
use crate::wire::openai::approval::approval_of;
use crate::wire::openai::content::arguments_text;

/// What `DefaultChatTransport` posts; more members are left alone.
#[derive(Debug, Deserialize)]
pub struct UiRequest {
    /// The chat's id.
    #[serde(default, deserialize_with = "given::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "given::list")]
    messages: Vec<UiMessage>,
    #[serde(default, deserialize_with = "given::text")]
    model: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct UiMessage {
    #[serde(default, deserialize_with = "given::text")]
    role: Option<String>,
    #[serde(default)]
    parts: Option<Vec<Value>>,
    /// A message of an older version.
    #[serde(default)]
    content: Value,
}

impl UiMessage {
    fn into_parts(self) -> Vec<Value> {
        let mut parts = self.parts.unwrap_or_default();
        parts.retain(|part| !part.is_null());
        match self.content {
            Value::String(text) if parts.is_empty() => {
                vec![serde_json::json!({ "type": "text", "text": text })]
            }
            Value::Array(content) if parts.is_empty() => content,
            _ => parts,
        }
    }
}

/// What the request means.
#[derive(Debug)]
pub struct DecodedUiChat {
    pub chat_id: String,
    /// `None` for a missing or empty `model`.
    pub model: Option<String>,
    /// The `system` messages, joined.
    pub system: Option<String>,
    pub turns: Vec<Turn>,
    /// What was decided about runs that wait, when the conversation ends with that.
    pub decisions: Vec<(String, Word)>,
}

/// Checks a request and turns it into neutral terms.
pub fn decode(request: UiRequest) -> Result<DecodedUiChat, ApiError> {
    let id = request.id.unwrap_or_default();
    if !crate::ids::is_sane_thread_id(&id) {
        return Err(ApiError::invalid(
            "id",
            "must be 1 to 256 printable characters",
        ));
    }
    let mut system = Vec::new();
    let mut turns = Vec::new();
    let mut decided = Vec::new();
    let count = request.messages.len();
    for (at, message) in request.messages.into_iter().enumerate() {
        let field = format!("messages[{at}]");
        let role = message.role.clone().unwrap_or_default();
        let parts = message.into_parts();
        match role.as_str() {
            "system" => {
                let texts = parts.iter().filter_map(|part| part["text"].as_str());
                system.push(texts.collect::<String>());
            }
            "user" => {
                let parts = user_parts(&parts, &field)?;
                if parts.is_empty() {
                    return Err(ApiError::invalid(format!("{field}.parts"), "say nothing"));
                }
                turns.push(Turn {
                    role: Role::User,
                    parts,
                });
            }
            "assistant" if at + 1 == count && !decisions(&parts).is_empty() => {
                decided = decisions(&parts);
            }
            "assistant" => assistant_turns(&parts, &field, &mut turns)?,
            other => {
                let message = format!("no role '{other}'");
                return Err(ApiError::invalid(format!("{field}.role"), message));
            }
        }
    }
    if turns.is_empty() {
        return Err(ApiError::invalid("messages", "must hold a message"));
    }
    system.retain(|text| !text.is_empty());
    Ok(DecodedUiChat {
        chat_id: id,
        model: request.model.filter(|model| !model.is_empty()),
        system: (!system.is_empty()).then(|| system.join("\n\n")),
        turns,
        decisions: decided,
    })
}

/// The decisions of a message whose approvals were answered: the approval's id and the word.
fn decisions(parts: &[Value]) -> Vec<(String, Word)> {
    let of = |part: &Value| {
        if part["state"] != "approval-responded" {
            return None;
        }
        let id = part["approval"]["id"].as_str()?;
        let (run, call) = approval_of(id)?;
        let word = Word {
            tool_call_id: Some(call.to_owned()),
            approve: part["approval"]["approved"].as_bool()?,
            // Beside what the AI SDK knows: what a tool's question is answered with.
            content: part["approval"]
                .get("content")
                .filter(|content| content.is_object())
                .cloned(),
            reason: part["approval"]["reason"].as_str().map(str::to_owned),
            ..Word::default()
        };
        Some((run.to_owned(), word))
    };
    parts.iter().filter_map(of).collect()
}

fn user_parts(parts: &[Value], field: &str) -> Result<Vec<Part>, ApiError> {
    let mut decoded = Vec::with_capacity(parts.len());
    for (at, part) in parts.iter().enumerate() {
        let field = format!("{field}.parts[{at}]");
        match part["type"].as_str() {
            Some("text") => decoded.push(text_part(part, &field)?),
            Some("file") => decoded.push(file_part(part, &field)?),
            Some(_) => {}
            None => return Err(ApiError::invalid(format!("{field}.type"), "is missing")),
        }
    }
    Ok(decoded)
}

fn file_part(part: &Value, field: &str) -> Result<Part, ApiError> {
    let Some(url) = part["url"].as_str() else {
        return Err(ApiError::invalid(format!("{field}.url"), "is missing"));
    };
    let source = Source::from_url(url);
    let told = part["mediaType"].as_str();
    let is_image = told
        .or(source.media_type())
        .is_some_and(|kind| kind.starts_with("image/"));
    Ok(match is_image {
        true => Part::Image {
            source,
            detail: None,
        },
        false => Part::File {
            source,
            name: part["filename"].as_str().map(str::to_owned),
        },
    })
}

fn text_part(part: &Value, field: &str) -> Result<Part, ApiError> {
    let text = part["text"].as_str();
    let missing = || ApiError::invalid(format!("{field}.text"), "must be a string");
    Ok(Part::Text {
        text: text.ok_or_else(missing)?.to_owned(),
    })
}

/// An assistant's message is a series of steps: what the model said and asked for, then what its
/// tools answered.
fn assistant_turns(parts: &[Value], field: &str, turns: &mut Vec<Turn>) -> Result<(), ApiError> {
    let (mut said, mut results) = (Vec::new(), Vec::new());
    for (at, part) in parts.iter().enumerate() {
        let field = format!("{field}.parts[{at}]");
        let Some(kind) = part["type"].as_str() else {
            return Err(ApiError::invalid(format!("{field}.type"), "is missing"));
        };
        match kind {
            "step-start" => flush(&mut said, &mut results, turns),
            "text" => {
                // What is said behind a result is of the next step.
                if !results.is_empty() {
                    flush(&mut said, &mut results, turns);
                }
                said.push(text_part(part, &field)?);
            }
            "file" => said.push(file_part(part, &field)?),
            _ => {
                let name = match kind {
                    "dynamic-tool" => part["toolName"].as_str(),
                    other => other.strip_prefix("tool-"),
                };
                let Some((name, id)) = name.zip(part["toolCallId"].as_str()) else {
                    continue;
                };
                let (content, is_error) = match part["state"].as_str() {
                    Some("output-available") => (output_parts(&part["output"]), false),
                    Some("output-error") => (output_parts(&part["errorText"]), true),
                    // A call that was never answered is not said: providers want both.
                    _ => continue,
                };
                said.push(Part::ToolCall {
                    id: id.to_owned(),
                    name: name.to_owned(),
                    arguments: arguments_text(match part["input"].is_null() {
                        true => &part["rawInput"],
                        false => &part["input"],
                    }),
                    signature: None,
                    server: None,
                    approved: false,
                });
                results.push(Part::ToolResult {
                    tool_call_id: id.to_owned(),
                    content,
                    is_error,
                });
            }
        }
    }
    flush(&mut said, &mut results, turns);
    Ok(())
}

/// What a tool gave: a text; the texts and images of an MCP server's tool; anything else as JSON.
fn output_parts(value: &Value) -> Vec<Part> {
    let text = |text: String| Part::Text { text };
    let block = |block: &Value| match block["type"].as_str()? {
        "text" => Some(text(block["text"].as_str()?.to_owned())),
        "image" => Some(Part::Image {
            source: Source::Data {
                media_type: block["mimeType"].as_str()?.to_owned(),
                data: block["data"].as_str()?.to_owned(),
            },
            detail: None,
        }),
        _ => None,
    };
    let blocks = value["content"].as_array();
    let blocks: Option<Vec<Part>> = blocks.and_then(|blocks| blocks.iter().map(block).collect());
    match (value, blocks) {
        (Value::String(said), _) => vec![text(said.clone())],
        (_, Some(parts)) if parts.iter().any(Part::is_media) => parts,
        (other, _) => vec![text(other.to_string())],
    }
}

fn flush(said: &mut Vec<Part>, results: &mut Vec<Part>, turns: &mut Vec<Turn>) {
    for (role, parts) in [(Role::Assistant, said), (Role::Tool, results)] {
        if !parts.is_empty() {
            turns.push(Turn {
                role,
                parts: std::mem::take(parts),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decoded(body: Value) -> Result<DecodedUiChat, ApiError> {
        crate::edge::parse::<UiRequest>(body.to_string().as_bytes()).and_then(decode)
    }

    #[test]
    fn messages_become_turns_step_by_step() {
        let body = json!({ "id": "c", "trigger": "submit-message", "messages": [
            { "id": "0", "role": "system", "parts": [{ "type": "text", "text": "s" }] },
            { "id": "1", "role": "user", "parts": [
                { "type": "text", "text": "look" },
                { "type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aGk=" },
                { "type": "file", "mediaType": "application/pdf", "url": "https://x/y.pdf",
                  "filename": "y.pdf" },
                { "type": "data-note", "data": {} } ] },
            { "id": "2", "role": "assistant", "parts": [
                { "type": "step-start" },
                { "type": "reasoning", "text": "hm" },
                { "type": "text", "text": "let me see" },
                { "type": "tool-f", "toolCallId": "a", "state": "output-available",
                  "input": { "x": 1 }, "output": { "y": 2 } },
                { "type": "dynamic-tool", "toolName": "g", "toolCallId": "b",
                  "state": "output-error", "input": {}, "errorText": "no" },
                { "type": "tool-h", "toolCallId": "c", "state": "input-available", "input": {} },
                { "type": "text", "text": "so" } ] },
            { "id": "3", "role": "user", "parts": [{ "type": "text", "text": "go on" }] },
        ] });
        let decoded = decoded(body).expect("valid");
        assert_eq!(decoded.system.as_deref(), Some("s"));
        let roles: Vec<Role> = decoded.turns.iter().map(|turn| turn.role).collect();
        assert_eq!(
            roles,
            [
                Role::User,
                Role::Assistant,
                Role::Tool,
                Role::Assistant,
                Role::User
            ]
        );
        assert_eq!(decoded.turns[0].parts.len(), 3);
        assert_eq!(decoded.turns[1].parts.len(), 3);
        assert!(matches!(&decoded.turns[2].parts[1],
            Part::ToolResult { is_error: true, content, .. }
            if crate::model::joined_text(content) == "no"));
    }

    #[test]
    fn errors_name_the_field() {
        let user = |parts: Value| json!([{ "role": "user", "parts": parts }]);
        for (id, messages, param) in [
            ("", user(json!([])), "id"),
            ("c", json!([]), "messages"),
            ("c", user(json!([])), "messages[0].parts"),
            (
                "c",
                user(json!([{ "type": "text" }])),
                "messages[0].parts[0].text",
            ),
            (
                "c",
                user(json!([{ "type": "file" }])),
                "messages[0].parts[0].url",
            ),
            ("c", user(json!([{}])), "messages[0].parts[0].type"),
            (
                "c",
                json!([{ "role": "x", "parts": [] }]),
                "messages[0].role",
            ),
        ] {
            let error = decoded(json!({ "id": id, "messages": messages })).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param));
        }
    }
}
