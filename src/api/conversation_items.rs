//! `GET /v1/conversations/{id}/items`: what was said, rebuilt from the runs' transcripts. An item's
//! id is its kind's prefix, the body of its run (or of the conversation, for what it was made
//! with) and its place therein, so that a page is found without a table of items.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::AppState;
use super::conversations::{Acting, found};
use super::extract::Caller;
use super::page::{OaiList, SliceParams, SliceQuery};
use crate::auth::Scope;
use crate::error::ApiError;
use crate::ids;
use crate::model::{Part, Role, Source, Turn, joined_text};
use crate::store::{ConversationRow, Slice};

const MAX_ITEMS: usize = 100;
/// Runs read in one step.
const STEP: i64 = 50;

/// An item of a conversation; the members depend on its type.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ConversationItem {
    pub id: String,
    /// `message`, `function_call`, `function_call_output` or `mcp_call`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub members: Map<String, Value>,
}

fn item(body: &str, place: usize, kind: &'static str, members: Value) -> ConversationItem {
    let prefix = match kind {
        "function_call" => "fc_",
        "function_call_output" => "fco_",
        _ => ids::Kind::Message.prefix(),
    };
    ConversationItem {
        id: format!("{prefix}{body}_{place:03}"),
        kind,
        members: members.as_object().cloned().unwrap_or_default(),
    }
}

/// The body and the place that an item's id is made of.
fn place_of(id: &str) -> Option<(&str, usize)> {
    let (_, rest) = id.split_once('_')?;
    let (body, place) = rest.split_once('_')?;
    Some((body, place.parse().ok()?))
}

fn content_part(part: &Part, role: Role) -> Option<Value> {
    let text_kind = match role {
        Role::Assistant => "output_text",
        _ => "input_text",
    };
    Some(match part {
        Part::Text { text } if role == Role::Assistant => {
            json!({ "type": text_kind, "text": text, "annotations": [] })
        }
        Part::Text { text } => json!({ "type": text_kind, "text": text }),
        Part::Refusal { text } => json!({ "type": "refusal", "refusal": text }),
        Part::Image { source, detail } => json!({
            "type": "input_image",
            "image_url": source.to_url(),
            "file_id": file_id(source),
            "detail": detail.as_deref().unwrap_or("auto"),
        }),
        Part::File { source, name } => json!({
            "type": "input_file",
            "filename": name,
            "file_data": source.to_url(),
            "file_id": file_id(source),
        }),
        _ => return None,
    })
}

fn file_id(source: &Source) -> Option<&str> {
    match source {
        Source::FileId { id } => Some(id),
        _ => None,
    }
}

/// The items of some turns.
fn items_of(body: &str, turns: &[Turn]) -> Vec<ConversationItem> {
    let mut items = Vec::new();
    for turn in turns {
        let content: Vec<Value> = turn
            .parts
            .iter()
            .filter_map(|part| content_part(part, turn.role))
            .collect();
        if !content.is_empty() && turn.role != Role::Tool {
            let role = match turn.role {
                Role::Assistant => "assistant",
                _ => "user",
            };
            let members = json!({ "role": role, "status": "completed", "content": content });
            items.push(item(body, items.len(), "message", members));
        }
        for part in &turn.parts {
            let (kind, members) = match part {
                Part::ToolCall {
                    id,
                    name,
                    arguments,
                    ..
                } => (
                    "function_call",
                    json!({
                        "call_id": id, "name": name, "arguments": arguments,
                        "status": "completed",
                    }),
                ),
                Part::ToolResult {
                    tool_call_id,
                    content,
                    ..
                } => (
                    "function_call_output",
                    json!({
                        "call_id": tool_call_id, "output": joined_text(content),
                        "status": "completed",
                    }),
                ),
                _ => continue,
            };
            items.push(item(body, items.len(), kind, members));
        }
    }
    items
}

/// The turns that a conversation's first items stand for.
pub fn turns_of(items: Vec<Map<String, Value>>) -> Result<Vec<Turn>, ApiError> {
    if items.len() > MAX_ITEMS {
        return Err(ApiError::invalid(
            "items",
            format!("must be at most {MAX_ITEMS}"),
        ));
    }
    let mut turns: Vec<Turn> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let turn = turn_of(item).map_err(|why| ApiError::invalid(format!("items[{at}]"), why))?;
        match turns.last_mut() {
            // Several calls, or a text and its calls, are one turn of the model's.
            Some(last) if last.role == turn.role && turn.role != Role::User => {
                last.parts.extend(turn.parts);
            }
            _ => turns.push(turn),
        }
    }
    Ok(turns)
}

fn turn_of(item: &Map<String, Value>) -> Result<Turn, String> {
    let text = |name: &str| -> Result<String, String> {
        let found = item.get(name).and_then(Value::as_str);
        found
            .map(str::to_owned)
            .ok_or_else(|| format!("'{name}' must be a string"))
    };
    match item
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("message")
    {
        "message" => {
            let role = match text("role")?.as_str() {
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => return Err(format!("'{other}' is no role of an item")),
            };
            let content = item.get("content").unwrap_or(&Value::Null);
            let parts = match content {
                Value::String(text) => vec![Part::Text { text: text.clone() }],
                Value::Array(parts) => parts.iter().map(part_of).collect::<Result<_, _>>()?,
                _ => return Err("'content' must be a text or a list of parts".to_owned()),
            };
            Ok(Turn { role, parts })
        }
        "function_call" => Ok(Turn {
            role: Role::Assistant,
            parts: vec![Part::ToolCall {
                id: text("call_id")?,
                name: text("name")?,
                arguments: text("arguments")?,
                signature: None,
            }],
        }),
        "function_call_output" => Ok(Turn {
            role: Role::Tool,
            parts: vec![Part::ToolResult {
                tool_call_id: text("call_id")?,
                content: vec![Part::Text {
                    text: text("output")?,
                }],
                is_error: false,
            }],
        }),
        other => Err(format!("'{other}' is no kind of item that can be given")),
    }
}

fn part_of(part: &Value) -> Result<Part, String> {
    let text = |name: &str| {
        let found = part[name].as_str();
        found.map(str::to_owned)
    };
    match part["type"].as_str().unwrap_or_default() {
        "input_text" | "output_text" | "text" => Ok(Part::Text {
            text: text("text").ok_or("a text part needs its 'text'")?,
        }),
        "refusal" => Ok(Part::Refusal {
            text: text("refusal").ok_or("a refusal needs its 'refusal'")?,
        }),
        "input_image" => Ok(Part::Image {
            source: source_of(text("image_url"), text("file_id"))?,
            detail: text("detail"),
        }),
        "input_file" => Ok(Part::File {
            source: source_of(text("file_data").or(text("file_url")), text("file_id"))?,
            name: text("filename"),
        }),
        other => Err(format!("'{other}' is no kind of part")),
    }
}

fn source_of(url: Option<String>, file_id: Option<String>) -> Result<Source, String> {
    match (url, file_id) {
        (Some(url), _) => Ok(Source::from_url(&url)),
        (None, Some(id)) => Ok(Source::FileId { id }),
        (None, None) => Err("the part names neither data, a URL nor a file".to_owned()),
    }
}

/// Lists a conversation's items.
#[utoipa::path(get, path = "/v1/conversations/{id}/items", tag = "conversations",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header), SliceParams),
    responses((status = 200, body = OaiList<ConversationItem>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Acting(smith): Acting,
    Path(id): Path<String>,
    query: SliceQuery,
) -> Result<Json<OaiList<ConversationItem>>, ApiError> {
    caller.require(Scope::ConversationsRead)?;
    let conversation = found(&gateway, &caller, &smith, &id).await?;
    let items = gather(&gateway, &conversation, &query.slice).await?;
    Ok(Json(query.list(items, |item| item.id.clone(), |item| item)))
}

async fn gather(
    gateway: &AppState,
    conversation: &ConversationRow,
    slice: &Slice,
) -> Result<Vec<ConversationItem>, ApiError> {
    let own = ids::body(ids::Kind::Conversation, &conversation.id).unwrap_or(&conversation.id);
    let turns: Vec<Turn> = serde_json::from_str(&conversation.turns).map_err(ApiError::internal)?;
    let mut first = items_of(own, &turns);
    let after = slice.after.as_deref();
    let from = after.map(place_of).unwrap_or_default();
    if after.is_some() && from.is_none() {
        return Err(ApiError::invalid("after", "is no id of an item"));
    }
    let wanted = slice.limit as usize;
    let beyond = |found: &ConversationItem| match (from, place_of(&found.id)) {
        // Within the run of the cursor; whole runs are left out by the query.
        (Some((body, place)), Some((its_body, its_place))) if body == its_body => {
            if slice.ascending {
                its_place > place
            } else {
                its_place < place
            }
        }
        _ => true,
    };
    let mut items = Vec::new();
    if slice.ascending && from.is_none_or(|(body, _)| body == own) {
        items.extend(first.drain(..).filter(|item| beyond(item)));
    }
    let in_runs = slice.ascending || from.is_none_or(|(body, _)| body != own);
    // The cursor's own run is read again: the rest of it may be on this page.
    let mut cursor = from
        .filter(|(body, _)| *body != own)
        .map(|(body, _)| edge_of(body, slice.ascending));
    while in_runs && items.len() < wanted {
        let step = Slice {
            after: cursor.take(),
            before: None,
            ascending: slice.ascending,
            limit: STEP,
        };
        let runs = gateway
            .store
            .thread_runs(
                &conversation.tenant_id,
                &conversation.smith_id,
                &conversation.id,
                &step,
            )
            .await?;
        cursor = runs.last().map(|run| run.id.clone());
        let last = (runs.len() as i64) < STEP;
        for run in runs {
            let body = ids::body(ids::Kind::Run, &run.id).unwrap_or(&run.id);
            let transcript = run.transcript.as_deref().unwrap_or("[]");
            let turns: Vec<Turn> = serde_json::from_str(transcript).map_err(ApiError::internal)?;
            let mut of_run = items_of(body, &turns);
            if !slice.ascending {
                of_run.reverse();
            }
            items.extend(of_run.into_iter().filter(|item| beyond(item)));
        }
        if last {
            break;
        }
    }
    if !slice.ascending && items.len() < wanted {
        first.reverse();
        items.extend(first.into_iter().filter(|item| beyond(item)));
    }
    items.truncate(wanted);
    Ok(items)
}

/// A run id just beside the one of `body`, so that a list which starts beyond it includes it.
fn edge_of(body: &str, ascending: bool) -> String {
    let run = format!("{}{body}", ids::Kind::Run.prefix());
    if ascending {
        // Ids have one length: cutting the last character gives something just below.
        run[..run.len() - run.chars().last().map_or(0, char::len_utf8)].to_owned()
    } else {
        format!("{run}~")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_turns_and_items_again() {
        let given = json!([
            { "type": "message", "role": "user", "content": "Hi" },
            { "type": "message", "role": "assistant",
              "content": [{ "type": "output_text", "text": "Wait" }] },
            { "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c1", "output": "42" },
        ]);
        let given = given.as_array().expect("items");
        let objects = given.iter().filter_map(|i| i.as_object().cloned());
        let turns = turns_of(objects.collect()).expect("turns");
        assert_eq!(turns.len(), 3);
        let items = items_of("B", &turns);
        let kinds: Vec<&str> = items.iter().map(|item| item.kind).collect();
        assert_eq!(
            kinds,
            [
                "message",
                "message",
                "function_call",
                "function_call_output"
            ]
        );
        assert_eq!(items[2].id, "fc_B_002");
        assert_eq!(place_of(&items[2].id), Some(("B", 2)));
        assert_eq!(items[3].members["output"], "42");
        let bad = json!({ "type": "message", "role": "system", "content": "x" });
        let bad = vec![bad.as_object().cloned().expect("an object")];
        assert_eq!(
            turns_of(bad).expect_err("refused").param.as_deref(),
            Some("items[0]")
        );
    }
}
