//! What a run leaves behind when it ends, beside its record: its event in the feed, its trace, its
//! entry in the usage ledger.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::record::usage_out;
use super::spender::Spender;
use crate::frame::Usage;
use crate::ids;
use crate::store::{
    EventRow, RunEnd, RunRow, RunStatus, SpanRow, TraceRecord, TraceRow, UsageEventRow,
};

/// One model call of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelSpan {
    pub started_at: i64,
    pub ended_at: i64,
    pub provider: String,
    pub model: String,
    pub usage: Option<Usage>,
    /// Nanos; `None`: the model has no price.
    pub cost: Option<i64>,
    /// The code of the error that ended it.
    pub error: Option<String>,
}

/// One tool call of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolSpan {
    pub call_id: String,
    /// Its place among the calls of the run.
    pub order: u32,
    pub name: String,
    pub server: String,
    pub started_at: i64,
    pub ended_at: i64,
    pub is_error: bool,
}

/// The trace of a run shares the run's body.
pub fn trace_id(run_id: &str) -> String {
    ids::beside(ids::Kind::Trace, ids::Kind::Run, run_id)
}

/// The id of a run's root span.
pub fn root_span_id(trace_id: &str) -> String {
    ids::beside(ids::Kind::Span, ids::Kind::Trace, trace_id)
}

/// The feed's word on how a run ended; a cancelled run is told on its stream only.
pub fn event(run: &RunRow, end: &RunEnd, usage: Option<&Usage>) -> Option<EventRow> {
    let actor: Option<Value> = run
        .actor
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok());
    let (kind, data) = match end.status {
        RunStatus::Completed => (
            "run.completed",
            json!({
                "run_id": run.id,
                "stop_reason": end.stop_reason,
                "usage": usage.map(usage_out),
            }),
        ),
        RunStatus::Failed => (
            "run.failed",
            json!({ "run_id": run.id, "error": end.error, "code": end.error_code }),
        ),
        _ => return None,
    };
    Some(EventRow::new(
        &run.tenant_id,
        kind,
        Some(&run.smith_id),
        &data,
        actor.as_ref(),
    ))
}

/// The spans of a run.
pub fn trace(run: &RunRow, end: &RunEnd, calls: &[ModelSpan], tools: &[ToolSpan]) -> TraceRecord {
    let id = trace_id(&run.id);
    let root = root_span_id(&id);
    let sum = |count: fn(&Usage) -> u64| -> i64 {
        let all: u64 = calls
            .iter()
            .filter_map(|c| c.usage.as_ref())
            .map(count)
            .sum();
        i64::try_from(all).unwrap_or(i64::MAX)
    };
    let cost = total_cost(calls);
    let status = match end.status {
        RunStatus::Completed => "ok",
        RunStatus::Failed => "error",
        other => other.as_str(),
    };
    let last = calls.last();
    let model = last.map(|call| call.model.clone());
    let attributes = json!({
        "run_id": run.id,
        "thread_id": run.thread_id,
        "channel": run.channel,
        "stop_reason": end.stop_reason,
        "error_code": end.error_code,
    })
    .to_string();
    let mut spans = vec![SpanRow {
        tenant_id: run.tenant_id.clone(),
        trace_id: id.clone(),
        id: root.clone(),
        parent_id: None,
        kind: "run".to_owned(),
        name: "run".to_owned(),
        status: status.to_owned(),
        started_at: run.created_at,
        ended_at: Some(end.updated_at),
        model: model.clone(),
        input: Some(sum(|u| u.input)),
        output: Some(sum(|u| u.output)),
        cost,
        attributes: attributes.clone(),
    }];
    for call in calls {
        let tokens = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        spans.push(SpanRow {
            tenant_id: run.tenant_id.clone(),
            trace_id: id.clone(),
            id: ids::mint(ids::Kind::Span),
            parent_id: Some(root.clone()),
            kind: "model_call".to_owned(),
            name: format!("{}/{}", call.provider, call.model),
            status: if call.error.is_some() { "error" } else { "ok" }.to_owned(),
            started_at: call.started_at,
            ended_at: Some(call.ended_at),
            model: Some(call.model.clone()),
            input: call.usage.map(|u| tokens(u.input)),
            output: call.usage.map(|u| tokens(u.output)),
            cost: call.cost,
            attributes: json!({
                "provider": call.provider,
                "cache_read_tokens": call.usage.map(|u| u.cache_read),
                "cache_write_tokens": call.usage.map(|u| u.cache_write),
                "reasoning_tokens": call.usage.map(|u| u.reasoning),
                "error_code": call.error,
            })
            .to_string(),
        });
    }
    for call in tools {
        spans.push(SpanRow {
            tenant_id: run.tenant_id.clone(),
            trace_id: id.clone(),
            id: ids::mint(ids::Kind::Span),
            parent_id: Some(root.clone()),
            kind: "tool_call".to_owned(),
            name: call.name.clone(),
            status: if call.is_error { "error" } else { "ok" }.to_owned(),
            started_at: call.started_at,
            ended_at: Some(call.ended_at),
            model: None,
            input: None,
            output: None,
            cost: None,
            attributes: json!({ "server": call.server, "tool_call_id": call.call_id }).to_string(),
        });
    }
    TraceRecord {
        trace: TraceRow {
            id,
            tenant_id: run.tenant_id.clone(),
            run_id: Some(run.id.clone()),
            smith_id: Some(run.smith_id.clone()),
            agent_id: Some(run.agent_id.clone()),
            name: "run".to_owned(),
            status: status.to_owned(),
            started_at: run.created_at,
            ended_at: Some(end.updated_at),
            model,
            input: sum(|u| u.input),
            output: sum(|u| u.output),
            cost,
            created_at: run.created_at,
            root_kind: "run".to_owned(),
            attributes,
        },
        spans,
    }
}

/// The cost of all calls, in nanos; `None` when none of them has a price.
pub fn total_cost(calls: &[ModelSpan]) -> Option<i64> {
    calls
        .iter()
        .filter_map(|call| call.cost)
        .reduce(i64::saturating_add)
}

/// The ledger's entry of a run that used tokens.
pub fn ledger(run: &RunRow, spender: &Spender, calls: &[ModelSpan]) -> Option<UsageEventRow> {
    let last = calls.iter().rev().find(|call| call.usage.is_some())?;
    let mut usage = Usage::default();
    for call in calls.iter().filter_map(|call| call.usage.as_ref()) {
        usage.add(call);
    }
    let tokens = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let named = |id: &str| (!id.is_empty()).then(|| id.to_owned());
    Some(UsageEventRow {
        id: ids::mint(ids::Kind::UsageEvent),
        tenant_id: run.tenant_id.clone(),
        kind: "run".to_owned(),
        run_id: Some(run.id.clone()),
        smith_id: Some(run.smith_id.clone()),
        agent_id: Some(run.agent_id.clone()),
        customer_id: named(&spender.customer_id),
        provider: Some(last.provider.clone()),
        model: Some(last.model.clone()),
        input: tokens(usage.input),
        output: tokens(usage.output),
        cache_read: tokens(usage.cache_read),
        cache_write: tokens(usage.cache_write),
        reasoning: tokens(usage.reasoning),
        cost: total_cost(calls),
        meter: None,
        quantity: None,
        metadata: "{}".to_owned(),
        created_at: crate::store::now_micros(),
    })
}
