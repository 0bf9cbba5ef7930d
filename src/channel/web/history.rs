//! What was said in a visitor's conversation, as their page shows it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::settings::Settings;
use super::visitor::Visit;
use crate::channel::Hub;
use crate::channel::outgoing::{Answer, Carried};
use crate::error::ApiError;
use crate::model::{Part, Role, Turn, joined_text};
use crate::run::output_of;
use crate::store::{ApprovalStatus, LaneRow, RunFilter, RunRow, RunStatus, rfc3339};

/// Runs that a page is given, the newest; and what they may be together, in bytes.
const MOST_RUNS: i64 = 60;
const MOST_BYTES: usize = 1024 * 1024;
/// Of a tool's input or output.
const MOST_SHOWN: usize = 8 * 1024;
const MOST_WAITING: i64 = 50;

/// A conversation: what was said, what waits for its turn, what waits for a decision.
pub async fn of(hub: &Hub, visit: &Visit, with_messages: bool) -> Result<Value, ApiError> {
    let empty = || json!({ "messages": [], "waiting": [], "approvals": [], "replies": [] });
    let Some(smith_id) = visit.smith(hub).await? else {
        return Ok(empty());
    };
    let (tenant_id, thread_id) = (&visit.deployment.tenant_id, visit.thread());
    let filter = RunFilter {
        smith_id: Some(smith_id.clone()),
        thread_id: Some(thread_id.clone()),
        ..RunFilter::default()
    };
    let most = if with_messages { MOST_RUNS } else { 1 };
    let runs = hub.store.runs(tenant_id, &filter, None, most).await?;
    let lane = LaneRow {
        tenant_id: tenant_id.clone(),
        smith_id,
        thread_id,
        takings: 0,
        arrived: 0,
    };
    let mut said = empty();
    let turns = hub.store.lane_turns(&lane, MOST_WAITING).await?;
    let known = |run_id: &String| runs.iter().any(|run| run.id == *run_id);
    let waiting = turns.iter().filter(|turn| !known(&turn.run_id));
    said["waiting"] = waiting
        .map(|turn| json!({ "turn": turn.id, "messages": inputs(&turn.input) }))
        .collect();
    if let Some(newest) = runs.first() {
        if newest.status == RunStatus::PausedForApproval {
            said["approvals"] = approvals(hub, newest).await?;
        }
        if newest.status == RunStatus::Completed {
            said["replies"] = output_of(newest)["suggested_replies"].take();
            // What was streamed names the files of tools, and holds none.
            said["run"] = json!(newest.id);
            said["files"] = Value::Array(files_of(&turns_of(newest)));
        }
    }
    if !with_messages {
        return Ok(said);
    }
    let (mut messages, mut bytes) = (Vec::new(), 0);
    for run in &runs {
        let shown = exchange(run, &visit.settings);
        bytes += shown.iter().map(|one| one.to_string().len()).sum::<usize>();
        if bytes > MOST_BYTES && !messages.is_empty() {
            break;
        }
        messages.splice(0..0, shown);
    }
    said["messages"] = Value::Array(messages);
    Ok(said)
}

/// What waits for a decision in a run.
async fn approvals(hub: &Hub, run: &RunRow) -> Result<Value, ApiError> {
    let all = hub.store.run_approvals(&run.tenant_id, &run.id).await?;
    let pending = all
        .iter()
        .filter(|one| one.status == ApprovalStatus::Pending);
    let shown = pending.map(|one| {
        let args: Value = serde_json::from_str(&one.args).unwrap_or_default();
        let asked: Option<Value> = one
            .elicitation
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok());
        json!({ "id": one.id, "tool": one.tool, "call": one.tool_call_id, "input": args,
            "question": asked.map(|asked| json!({ "message": asked["message"],
                "schema": asked["requested_schema"] })) })
    });
    Ok(shown.collect())
}

/// What one run was told and said.
fn exchange(run: &RunRow, settings: &Settings) -> Vec<Value> {
    let at = rfc3339(run.created_at);
    let mut shown: Vec<Value> = inputs(&run.input);
    for one in &mut shown {
        one["at"] = json!(at);
    }
    let turns = turns_of(run);
    // Of a run that did not come to its good end, the frames say more than its record.
    let is_whole = run.status == RunStatus::Completed && !turns.is_empty();
    let parts = match is_whole {
        true => {
            let files = files_of(&turns);
            let mut parts = parts_of(turns, settings);
            parts.extend(files);
            parts
        }
        false => Vec::new(),
    };
    shown.push(
        json!({ "role": "assistant", "run": run.id, "status": run.status, "parts": parts,
        "replay": !is_whole, "at": rfc3339(run.updated_at) }),
    );
    shown
}

fn turns_of(run: &RunRow) -> Vec<Turn> {
    let read = |text: &str| serde_json::from_str(text).ok();
    run.transcript.as_deref().and_then(read).unwrap_or_default()
}

/// The files that tools gave, each in a URL of its own; those that are too large without.
fn files_of(turns: &[Turn]) -> Vec<Value> {
    let mut left = MOST_BYTES;
    let files = Answer::of_tools(turns).carried.into_iter();
    let shown = files.map(|carried| match carried {
        Carried::File(file) => {
            let url = match file.content.len() <= left {
                true => {
                    left -= file.content.len();
                    let data = STANDARD.encode(&file.content);
                    json!(format!("data:{};base64,{data}", file.media_type))
                }
                false => Value::Null,
            };
            json!({ "type": "file", "name": file.name, "url": url })
        }
        Carried::Note(line) => json!({ "type": "text", "text": line }),
    });
    shown.collect()
}

/// What a visitor said, of a run's or a turn's record.
fn inputs(record: &str) -> Vec<Value> {
    let entries: Vec<Value> = serde_json::from_str(record).unwrap_or_default();
    let entries = entries.iter().filter(|entry| entry["role"] == "user");
    let shown = entries.map(|entry| {
        let parts = entry["content"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let text: Vec<&str> = parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect();
        let files = parts.iter().filter_map(|part| match part["type"].as_str() {
            Some("image") => Some(json!({ "name": "image", "is_image": true })),
            Some("file") => Some(json!({ "name": part["filename"], "is_image": false })),
            _ => None,
        });
        json!({ "role": "user", "text": text.join("\n"), "files": files.collect::<Vec<_>>() })
    });
    shown.collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn parts_of(turns: Vec<Turn>, settings: &Settings) -> Vec<Value> {
    let mut shown: Vec<Value> = Vec::new();
    for turn in turns {
        for part in turn.parts {
            let shows = match part {
                Part::Text { text } | Part::Refusal { text } if turn.role == Role::Assistant => {
                    json!({ "type": "text", "text": text })
                }
                Part::Reasoning { text, redacted, .. } => {
                    if redacted || text.is_empty() || !settings.shows_reasoning {
                        continue;
                    }
                    json!({ "type": "reasoning", "text": text })
                }
                Part::ToolCall {
                    id,
                    name,
                    arguments,
                    ..
                } => {
                    let input = settings.shows_tools.then(|| cut(&arguments));
                    json!({ "type": "tool", "id": id, "name": name, "input": input })
                }
                Part::ToolResult {
                    tool_call_id,
                    content,
                    is_error,
                } => {
                    let call = shown.iter_mut().rev().find(|one| one["id"] == tool_call_id);
                    if let Some(call) = call {
                        let output = cut(&joined_text(&content));
                        call["state"] = json!(if is_error { "failed" } else { "done" });
                        call["output"] = json!(settings.shows_tools.then_some(output));
                    }
                    continue;
                }
                _ => continue,
            };
            shown.push(shows);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_shown_step_by_step() {
        let turns: Vec<Turn> = serde_json::from_value(json!([
            { "role": "user", "parts": [{ "type": "text", "text": "hi" }] },
            { "role": "assistant", "parts": [
                { "type": "reasoning", "text": "hm" },
                { "type": "text", "text": "let me see" },
                { "type": "tool_call", "id": "c", "name": "look", "arguments": "{}" } ] },
            { "role": "tool", "parts": [{ "type": "tool_result", "tool_call_id": "c",
                "content": [{ "type": "text", "text": "found" }] }] },
            { "role": "assistant", "parts": [{ "type": "text", "text": "so" }] },
        ]))
        .expect("turns");
        let all = Settings::read(&json!({})).expect("settings");
        let shown = json!(parts_of(turns.clone(), &all));
        assert_eq!(
            shown,
            json!([
                { "type": "reasoning", "text": "hm" },
                { "type": "text", "text": "let me see" },
                { "type": "tool", "id": "c", "name": "look", "input": "{}", "state": "done",
                    "output": "found" },
                { "type": "text", "text": "so" },
            ])
        );
        let less = json!({ "show_tools": false, "show_reasoning": false });
        let shown = json!(parts_of(turns, &Settings::read(&less).expect("settings")));
        assert!(!shown.to_string().contains("found") && !shown.to_string().contains("hm"));
        assert_eq!(shown[1]["name"], "look");
    }

    #[test]
    fn what_was_said_is_found_in_a_record() {
        let record = r#"[{"role":"user","content":[{"type":"text","text":"look"},
            {"type":"image","file_id":"file_1"},{"type":"file","file_id":"f","filename":"a.pdf"}]}]"#;
        assert_eq!(
            json!(inputs(record)),
            json!([{ "role": "user", "text": "look", "files": [
                { "name": "image", "is_image": true }, { "name": "a.pdf", "is_image": false }] }])
        );
        assert!(inputs("nonsense").is_empty());
    }
}
