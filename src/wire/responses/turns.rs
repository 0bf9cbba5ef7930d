//! Items as turns: what a client gives back, of whichever kind, as models are told it.

use serde_json::{Map, Value, json};

use super::items::open_signature;
use super::tools::arguments_of;
use crate::frame::citation;
use crate::model::{Part, Role, Source, Turn, joined_text};
use crate::wire::openai::content::{arguments_text, cache_mark};
use crate::wire::openai::tools::joined_name;

/// Items that a provider's own tools or a client's bookkeeping left behind: they say nothing to
/// another model.
const BOOKKEEPING: [&str; 10] = [
    "mcp_list_tools",
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "tool_search_call",
    "tool_search_output",
    "compaction",
    "compaction_summary",
    "ghost_snapshot",
];

/// The turn, or the piece of one, that an item stands for; `None` for what says nothing to a model.
/// System messages and references are none of these. An item of a kind that is not known here is
/// its text.
pub fn turn_of(item: &Map<String, Value>) -> Result<Option<Turn>, String> {
    let text = |name: &str| -> Result<String, String> {
        let found = item.get(name).and_then(Value::as_str);
        found
            .map(str::to_owned)
            .ok_or_else(|| format!("'{name}' must be a string"))
    };
    let kind = item.get("type").and_then(Value::as_str);
    match kind.unwrap_or("message") {
        "message" => {
            let role = match text("role")?.as_str() {
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => return Err(format!("'{other}' is no role of an item")),
            };
            Ok(Some(Turn {
                role,
                parts: match item.get("content") {
                    // A message that an agent interrupted before it said anything.
                    None | Some(Value::Null) if role == Role::Assistant => return Ok(None),
                    content => parts_of(content.unwrap_or(&Value::Null))?,
                },
            }))
        }
        "function_call" => {
            let name = text("name")?;
            Ok(Some(call_turn(
                text("call_id").or_else(|error| text("id").map_err(|_| error))?,
                match item.get("namespace").and_then(Value::as_str) {
                    Some(namespace) => joined_name(namespace, &name),
                    None => name,
                },
                arguments_text(item.get("arguments").unwrap_or(&Value::Null)),
            )))
        }
        "custom_tool_call" | "local_shell_call" => {
            let (name, arguments) = arguments_of(item).ok_or("'name' must be a string")?;
            let id = text("call_id").or_else(|_| text("id"))?;
            Ok(Some(call_turn(id, name, arguments)))
        }
        "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
            Ok(Some(Turn {
                role: Role::Tool,
                parts: vec![Part::ToolResult {
                    tool_call_id: text("call_id").or_else(|_| text("id"))?,
                    content: match item.get("output") {
                        Some(output @ (Value::String(_) | Value::Array(_))) => parts_of(output)?,
                        // Some clients give a text and how it went.
                        Some(Value::Object(output)) => {
                            let content = output.get("content").filter(|c| c.is_string());
                            let whole = json!(output).to_string();
                            parts_of(content.unwrap_or(&Value::String(whole)))?
                        }
                        None | Some(Value::Null) => parts_of(&Value::String(String::new()))?,
                        _ => return Err("'output' must be a text or a list of parts".to_owned()),
                    },
                    is_error: false,
                }],
            }))
        }
        "reasoning" => {
            let sealed = item.get("encrypted_content").and_then(Value::as_str);
            let signature = sealed.and_then(open_signature);
            let summary = item.get("summary").and_then(Value::as_array);
            let content = item.get("content").and_then(Value::as_array);
            let summary = summary.filter(|summary| !summary.is_empty()).or(content);
            let pieces = summary.into_iter().flatten();
            let text: String = pieces.filter_map(|piece| piece["text"].as_str()).collect();
            Ok(Some(Turn {
                role: Role::Assistant,
                parts: vec![Part::Reasoning {
                    redacted: text.is_empty(),
                    text,
                    signature,
                }],
            }))
        }
        kind if BOOKKEEPING.contains(&kind) => Ok(None),
        kind => Ok(unknown_turn(kind, item)),
    }
}

fn call_turn(id: String, name: String, arguments: String) -> Turn {
    Turn {
        role: Role::Assistant,
        parts: vec![Part::ToolCall {
            id,
            name,
            arguments,
            signature: None,
            server: None,
            approved: false,
        }],
    }
}

/// An item of a kind that is not known here, as a text: what a tool answered is told by the user's
/// side, all else by the model's. `None` when it says nothing.
fn unknown_turn(kind: &str, item: &Map<String, Value>) -> Option<Turn> {
    let told = |name: &str| {
        let value = item.get(name).filter(|value| !value.is_null())?;
        match value {
            Value::String(text) => Some(text.clone()),
            // Its parts, where those are known, else as it was written.
            other => match parts_of(other) {
                Ok(parts) => Some(joined_text(&parts).into_owned()),
                Err(_) => Some(other.to_string()),
            },
        }
    };
    let output = told("output");
    let role = match output.is_some() {
        true => Role::User,
        false => Role::Assistant,
    };
    let text = output.or_else(|| {
        ["content", "text", "input", "arguments", "action"]
            .into_iter()
            .find_map(told)
    })?;
    (!text.is_empty()).then(|| Turn::text(role, format!("[{kind}] {text}")))
}

/// Appends a turn, joining what one speaker says in several items.
pub fn push_turn(turns: &mut Vec<Turn>, turn: Turn) {
    match turns.last_mut() {
        Some(last) if last.role == turn.role && turn.role != Role::User => {
            last.parts.extend(turn.parts);
        }
        _ => turns.push(turn),
    }
}

/// The parts of a message's content or of a tool's output.
pub fn parts_of(content: &Value) -> Result<Vec<Part>, String> {
    match content {
        Value::String(text) => Ok(vec![Part::Text { text: text.clone() }]),
        Value::Array(parts) => {
            let mut decoded = Vec::with_capacity(parts.len());
            for part in parts.iter().filter(|part| !part.is_null()) {
                decoded.push(part_of(part)?);
                decoded.extend(cache_mark(part));
                let annotations = part["annotations"].as_array().into_iter().flatten();
                let cited = annotations.cloned().filter_map(citation::shaped);
                decoded.extend(cited.map(|of| Part::Citation { of }));
            }
            Ok(decoded)
        }
        _ => Err("'content' must be a text or a list of parts".to_owned()),
    }
}

fn part_of(part: &Value) -> Result<Part, String> {
    let text = |name: &str| part[name].as_str().map(str::to_owned);
    if let Some(text) = part.as_str() {
        return Ok(Part::Text {
            text: text.to_owned(),
        });
    }
    match part["type"].as_str().unwrap_or("text") {
        "reasoning_text" | "input_text" | "output_text" | "text" | "summary_text" => {
            Ok(Part::Text {
                text: text("text").ok_or("a text part needs its 'text'")?,
            })
        }
        "refusal" => Ok(Part::Refusal {
            text: text("refusal").ok_or("a refusal needs its 'refusal'")?,
        }),
        "input_image" | "image_url" => {
            let url = text("image_url").or_else(|| {
                let url = part["image_url"]["url"].as_str();
                url.map(str::to_owned)
            });
            let url = url.as_deref().map(Source::from_url);
            Ok(Part::Image {
                source: source_of(url, text("file_id"))?,
                detail: text("detail"),
            })
        }
        "input_file" => {
            let name = text("filename");
            let data = text("file_data").filter(|data| !data.is_empty());
            let data = data.map(|data| Source::from_file_data(&data, name.as_deref()));
            let url = text("file_url").map(|url| Source::from_url(&url));
            Ok(Part::File {
                source: source_of(data.or(url), text("file_id"))?,
                name,
            })
        }
        "input_audio" => {
            let sound = |name: &str| part["input_audio"][name].as_str().map(str::to_owned);
            Ok(Part::Audio {
                data: sound("data").ok_or("a sound needs its 'data'")?,
                format: sound("format").ok_or("a sound needs its 'format'")?,
            })
        }
        other => Err(format!("'{other}' is no kind of part")),
    }
}

fn source_of(told: Option<Source>, file_id: Option<String>) -> Result<Source, String> {
    match (told, file_id) {
        (Some(source), _) => Ok(source),
        (None, Some(id)) => Ok(Source::FileId { id }),
        (None, None) => Err("the part names neither data, a URL nor a file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Signer;
    use crate::model::Signature;
    use crate::wire::responses::items::{Numbering, place_of, seal_signature};

    #[test]
    fn items_become_turns_and_the_same_items_again() {
        let signature = Signature {
            signer: Signer::OpenAi,
            value: "s".to_owned(),
        };
        let given = json!([
            { "type": "message", "role": "user", "content": "Hi" },
            { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "Hm" }],
              "encrypted_content": seal_signature(&signature) },
            { "role": "assistant", "content": [{ "type": "output_text", "text": "Wait",
              "annotations": [{ "type": "file_citation", "file_id": "f", "index": 3,
                "filename": "a.md" }] }] },
            { "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c1", "output": "42" },
            { "type": "function_call_output", "call_id": "c2",
              "output": [{ "type": "input_text", "text": "43" }] },
        ]);
        let mut turns = Vec::new();
        for item in given.as_array().expect("items") {
            let turn = turn_of(item.as_object().expect("an object")).expect("a turn");
            push_turn(&mut turns, turn.expect("something to say"));
        }
        assert_eq!(turns.len(), 3);
        assert!(matches!(&turns[1].parts[0],
            Part::Reasoning { text, signature: Some(s), .. } if text == "Hm" && *s == signature));
        let items = Numbering::new("B").items(&turns);
        let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "msg_B_000",
                "rs_B_000",
                "msg_B_001",
                "fc_B_002",
                "fco_B_003",
                "fco_B_004"
            ]
        );
        assert_eq!(place_of(&items[3].id), Some(("B", 2)));
        assert_eq!(items[5].members["output"], "43");
        assert_eq!(
            items[2].to_value()["content"][0]["annotations"],
            given[2]["content"][0]["annotations"]
        );
    }

    #[test]
    fn what_is_no_item_is_refused() {
        for item in [
            json!({ "type": "message", "role": "system", "content": "x" }),
            json!({ "role": "user" }),
            json!({ "role": "user", "content": [{ "type": "input_image" }] }),
            json!({ "type": "function_call", "call_id": "c" }),
            json!({ "type": "function_call_output", "call_id": "c", "output": 7 }),
        ] {
            assert!(
                turn_of(item.as_object().expect("an object")).is_err(),
                "{item}"
            );
        }
    }
    #[test]
    fn what_other_agents_leave_behind_is_carried_or_says_nothing() {
        let turn = |item: Value| turn_of(item.as_object().expect("an object")).expect("an item");
        for item in [
            json!({ "type": "ghost_snapshot", "ghost_commit": {} }),
            json!({ "type": "compaction", "encrypted_content": "x" }),
            json!({ "type": "web_search_call", "action": { "query": "x" } }),
            json!({ "type": "computer_call" }),
            json!({ "type": "message", "role": "assistant", "content": null }),
        ] {
            assert_eq!(turn(item.clone()), None, "{item}");
        }
        let patch = turn(
            json!({ "type": "custom_tool_call", "call_id": "c", "name": "patch",
            "input": "*** Begin" }),
        );
        let patch = patch.expect("a call");
        assert!(
            matches!(&patch.parts[0], Part::ToolCall { name, arguments, .. }
            if name == "patch" && arguments == "{\"input\":\"*** Begin\"}")
        );
        let result =
            turn(json!({ "type": "custom_tool_call_output", "call_id": "c", "output": "ok" }));
        assert_eq!(result.map(|turn| turn.role), Some(Role::Tool));
        let told = turn(json!({ "type": "computer_call_output", "call_id": "c",
            "output": { "type": "computer_screenshot" } }));
        assert_eq!(told.map(|turn| turn.role), Some(Role::User));
        let null = turn(json!({ "type": "reasoning", "summary": null, "content": null }));
        assert!(null.is_some());
    }
}
