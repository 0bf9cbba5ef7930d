//! The run's record as the API shows it (`runs.md`, RunOut).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::spender::NANOS;
use crate::frame::Usage;
use crate::json::{Json, Object};
use crate::model::{Turn, said_text};
use crate::store::{RunRow, RunStatus, rfc3339};

fn document(text: Option<&str>) -> Value {
    text.and_then(|t| serde_json::from_str(t).ok())
        .unwrap_or(Value::Null)
}

/// Who did something, as it was stored. What is not known of them is an empty text: typed clients
/// take no null.
pub fn actor_out(stored: Option<&str>) -> Option<Map<String, Value>> {
    let mut actor: Map<String, Value> = serde_json::from_str(stored?).ok()?;
    for member in ["token_id", "email"] {
        if actor.get(member).is_none_or(Value::is_null) {
            actor.insert(member.to_owned(), Value::String(String::new()));
        }
    }
    Some(actor)
}

/// `{input_tokens, output_tokens, total_tokens}` and the details.
pub fn usage_out(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "total_tokens": usage.total(),
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "reasoning_tokens": usage.reasoning,
    })
}

/// Tokens and cost of a run, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    #[serde(flatten)]
    pub tokens: Usage,
    /// Nanos of the currency; `None`: the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<i64>,
}

impl UsageRecord {
    /// As JSON text.
    pub fn to_text(self) -> String {
        serde_json::to_string(&self).unwrap_or_default()
    }

    fn out(&self) -> Value {
        let mut out = usage_out(&self.tokens);
        if let Some(cost) = self.cost {
            out["cost"] = json!(cost as f64 / NANOS);
        }
        out
    }
}

fn usage_record(run: &RunRow) -> Option<UsageRecord> {
    serde_json::from_str(run.token_usage.as_deref()?).ok()
}

/// The tokens that a run took, once it has ended.
pub fn usage_of(run: &RunRow) -> Option<Usage> {
    usage_record(run).map(|record| record.tokens)
}

/// What a run said: of a run that has completed, its text is in the transcript alone.
pub fn output_of(run: &RunRow) -> Value {
    let mut output = document(run.output.as_deref());
    let is_text = output.get("content_type").is_some() && output.get("content").is_none();
    if is_text && let Some(said) = run.transcript.as_deref().and_then(last_said) {
        output["content"] = Value::String(said);
    }
    output
}

/// The text of the last turn of a transcript.
fn last_said(transcript: &str) -> Option<String> {
    let mut turns: Vec<Turn> = serde_json::from_str(transcript).ok()?;
    Some(said_text(&turns.pop()?.parts).into_owned())
}

/// The input as messages. Each wire's own words are kept as they came, and where they are no message
/// (an item of a call, a turn that only calls) they are given what makes them one.
fn shown_input(written: &str) -> Json {
    let entries: Vec<Json> = serde_json::from_str(written).unwrap_or_default();
    let shown = entries.into_iter().map(|entry| match entry {
        Json::Object(entry) => Json::Object(as_message(entry)),
        other => {
            let content = Json::String(other.to_plain_text().into_owned());
            let role = Json::String("user".to_owned());
            Json::Object(
                [("role".into(), role), ("content".into(), content)]
                    .into_iter()
                    .collect(),
            )
        }
    });
    Json::Array(shown.collect())
}

fn as_message(mut entry: Object) -> Object {
    if entry.get("role").and_then(Json::as_str).is_none() {
        let kind = entry.get("type").and_then(Json::as_str).unwrap_or_default();
        let role = match kind {
            "" | "message" => "user",
            kind if kind.ends_with("_output") => "tool",
            kind if kind.ends_with("_response") => "user",
            _ => "assistant",
        };
        entry.insert("role".to_owned(), Json::String(role.to_owned()));
    }
    let content = match entry.get("content") {
        Some(Json::String(_)) => return entry,
        Some(Json::Array(parts)) if parts.iter().all(|part| part.as_object().is_some()) => {
            return entry;
        }
        None | Some(Json::Null) => entry.get("output").cloned(),
        content => content.cloned(),
    };
    let text = |text: String| {
        let kind = Json::String("text".to_owned());
        let text = Json::String(text);
        Json::Object(
            [("type".into(), kind), ("text".into(), text)]
                .into_iter()
                .collect(),
        )
    };
    let content = match content.unwrap_or(Json::Null) {
        Json::Null => Json::String(String::new()),
        Json::Array(parts) => {
            let part = |part: Json| match part {
                Json::Object(_) => part,
                other => text(other.to_plain_text().into_owned()),
            };
            Json::Array(parts.into_iter().map(part).collect())
        }
        Json::Object(part) => Json::Array(vec![Json::Object(part)]),
        other => Json::String(other.to_plain_text().into_owned()),
    };
    entry.insert("content".to_owned(), content);
    entry
}

/// RunOut, to be written.
#[derive(Debug, Serialize)]
pub struct RunView {
    id: String,
    smith_id: String,
    agent_id: String,
    thread_id: String,
    status: RunStatus,
    channel: String,
    input: Json,
    output: Value,
    stop_reason: Option<String>,
    warnings: Vec<Value>,
    usage: Option<Value>,
    metadata: Object,
    actor: Option<Map<String, Value>>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

impl RunView {
    /// As JSON text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// RunOut.
pub fn run_out(run: &RunRow) -> RunView {
    let error = |message| json!({ "code": run.error_code, "message": message });
    RunView {
        id: run.id.clone(),
        smith_id: run.smith_id.clone(),
        agent_id: run.agent_id.clone(),
        thread_id: run.thread_id.clone(),
        status: run.status,
        channel: run.channel.clone(),
        input: shown_input(&run.input),
        output: output_of(run),
        stop_reason: run.stop_reason.clone(),
        warnings: serde_json::from_str(&run.warnings).unwrap_or_default(),
        usage: usage_record(run).as_ref().map(UsageRecord::out),
        metadata: Object::parse_or_empty(run.metadata.as_deref().unwrap_or_default()),
        actor: actor_out(run.actor.as_deref()),
        created_at: rfc3339(run.created_at),
        updated_at: rfc3339(run.updated_at),
        error: run.error.as_ref().map(error),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn actors_have_all_members() {
        let stored = r#"{"kind":"tenant","id":"proj_1","token_id":"tok_1","email":null}"#;
        let actor = super::actor_out(Some(stored)).expect("an actor");
        assert_eq!(
            (&actor["email"], &actor["token_id"]),
            (&"".into(), &"tok_1".into())
        );
        assert!(super::actor_out(None).is_none());
    }

    #[test]
    fn all_input_is_messages() {
        let written = r#"[{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]},
            {"role":"tool","tool_call_id":"c","content":"mild"},
            {"type":"function_call","call_id":"c","name":"f"},
            {"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"x"}]},
            {"type":"mcp_approval_response","approve":true},
            {"content":["a",{"type":"text","text":"b"},1]},{"role":7,"content":{"type":"text"}},"hi"]"#;
        let shown = serde_json::to_value(super::shown_input(written)).expect("JSON");
        let wanted = serde_json::json!([
            { "role": "assistant", "content": "", "tool_calls": [{ "id": "c" }] },
            { "role": "tool", "tool_call_id": "c", "content": "mild" },
            { "type": "function_call", "call_id": "c", "name": "f", "role": "assistant", "content": "" },
            { "type": "function_call_output", "call_id": "c", "role": "tool",
                "output": [{ "type": "input_text", "text": "x" }],
                "content": [{ "type": "input_text", "text": "x" }] },
            { "type": "mcp_approval_response", "approve": true, "role": "user", "content": "" },
            { "role": "user", "content": [{ "type": "text", "text": "a" },
                { "type": "text", "text": "b" }, { "type": "text", "text": "1" }] },
            { "role": "user", "content": [{ "type": "text" }] },
            { "role": "user", "content": "hi" },
        ]);
        assert_eq!(shown, wanted);
    }
}
