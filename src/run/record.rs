//! The run's record as the API shows it (`runs.md`, RunOut).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::accounting::NANOS;
use crate::frame::{StopReason, Usage};
use crate::model::{Turn, joined_text};
use crate::store::RunRow;

/// Microseconds since the epoch as RFC 3339 UTC.
pub fn rfc3339(micros: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// The status of a run that stopped for `stop`.
pub fn run_status(stop: StopReason) -> &'static str {
    match stop {
        StopReason::Cancelled => "cancelled",
        StopReason::Error => "failed",
        _ => "completed",
    }
}

fn document(text: Option<&str>) -> Value {
    text.and_then(|t| serde_json::from_str(t).ok())
        .unwrap_or(Value::Null)
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
fn output(run: &RunRow) -> Value {
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
    Some(joined_text(&turns.pop()?.parts).into_owned())
}

/// RunOut.
pub fn run_out(run: &RunRow) -> Value {
    let usage = usage_record(run);
    let mut out = json!({
        "id": run.id,
        "smith_id": run.smith_id,
        "agent_id": run.agent_id,
        "thread_id": run.thread_id,
        "status": run.status,
        "channel": run.channel,
        "input": document(Some(&run.input)),
        "output": output(run),
        "stop_reason": run.stop_reason,
        "warnings": document(Some(&run.warnings)),
        "usage": usage.as_ref().map(UsageRecord::out),
        "metadata": document(run.metadata.as_deref()),
        "actor": document(run.actor.as_deref()),
        "created_at": rfc3339(run.created_at),
        "updated_at": rfc3339(run.updated_at),
    });
    if out["metadata"].is_null() {
        out["metadata"] = json!({});
    }
    if let Some(error) = &run.error {
        out["error"] = json!({ "code": run.error_code, "message": error });
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_rfc3339() {
        assert_eq!(
            super::rfc3339(1_700_000_000_123_456),
            "2023-11-14T22:13:20.123456Z"
        );
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
