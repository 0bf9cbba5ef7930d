//! `/v1/traces`: what runs did, as span trees; and spans that callers bring.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::auth::{Principal, scope};
use crate::edge::AppState;
use crate::edge::extract::{Input, MAX_WORD, May, check_text};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::{Time, parse_micros};
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::run::{NANOS, root_span_id, trace_id};
use crate::store::{RunRow, SpanRow, TraceFilter, TraceRecord, TraceRow, now_micros};

const KINDS: [&str; 6] = [
    "run",
    "model_call",
    "tool_call",
    "memory_op",
    "retrieval",
    "runtime_event",
];
const MAX_SPANS: usize = 1000;
/// Spans of one trace, and the bytes of all their attributes.
const MAX_TRACE_SPANS: i64 = 10_000;
const MAX_TRACE_BYTES: i64 = 8 * 1024 * 1024;
/// The attributes of one span, in bytes.
const MAX_ATTRIBUTES: usize = 64 * 1024;
/// Deeper trees are shown flat below this depth.
const MAX_DEPTH: usize = 48;

#[derive(Debug, Serialize, ToSchema)]
pub struct TraceOut {
    pub id: String,
    pub run_id: Option<String>,
    pub smith_id: Option<String>,
    pub app_id: Option<String>,
    pub name: String,
    /// `ok`, `error`, `cancelled` or `running`.
    pub status: String,
    pub started_at: Time,
    pub ended_at: Option<Time>,
    pub duration_ms: Option<i64>,
    pub model: Option<String>,
    /// The kind of its root span.
    pub root_kind: String,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub total_tokens: i64,
    pub cost: Option<f64>,
    pub total_cost: Option<f64>,
    /// Those of its root span.
    pub attributes: Object,
    pub created_at: Time,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SpanOut {
    pub id: String,
    pub trace_id: String,
    pub parent_span_id: Option<String>,
    pub kind: String,
    pub name: String,
    pub status: String,
    pub started_at: Time,
    pub ended_at: Option<Time>,
    pub duration_ms: Option<i64>,
    pub model: Option<String>,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cost: Option<f64>,
    pub attributes: Object,
}

/// A span and what it caused.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpanNode {
    #[serde(flatten)]
    pub span: SpanOut,
    #[schema(no_recursion)]
    pub children: Vec<SpanNode>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TraceDetailOut {
    #[serde(flatten)]
    pub trace: TraceOut,
    pub spans: Vec<SpanOut>,
    pub span_tree: Vec<SpanNode>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct IngestIn {
    /// `{span_id?, trace_id?, parent_span_id?, kind?, name?, status?, started_at?, ended_at?,
    /// duration_ms?, model?, input_tokens?, output_tokens?, cost?, attributes?, smith_id?, app_id?,
    /// run_id?}`; what is missing is made up.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub spans: Option<Vec<Map<String, Value>>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct IngestOut {
    pub accepted: usize,
}

fn money(nanos: i64) -> f64 {
    nanos as f64 / NANOS
}

fn duration_ms(started: i64, ended: Option<i64>) -> Option<i64> {
    ended.map(|ended| (ended - started).max(0) / 1000)
}

fn trace_out(trace: TraceRow) -> TraceOut {
    TraceOut {
        duration_ms: duration_ms(trace.started_at, trace.ended_at),
        id: trace.id,
        run_id: trace.run_id,
        smith_id: trace.smith_id,
        app_id: trace.agent_id,
        name: trace.name,
        status: trace.status,
        started_at: Time(trace.started_at),
        ended_at: trace.ended_at.map(Time),
        model: trace.model,
        root_kind: trace.root_kind,
        input_tokens: trace.input,
        output_tokens: trace.output,
        total_tokens: trace.input.saturating_add(trace.output),
        cost: trace.cost.map(money),
        total_cost: trace.cost.map(money),
        attributes: Object::parse_or_empty(&trace.attributes),
        created_at: Time(trace.created_at),
    }
}

fn span_out(span: SpanRow) -> SpanOut {
    SpanOut {
        duration_ms: duration_ms(span.started_at, span.ended_at),
        id: span.id,
        trace_id: span.trace_id,
        parent_span_id: span.parent_id,
        kind: span.kind,
        name: span.name,
        status: span.status,
        started_at: Time(span.started_at),
        ended_at: span.ended_at.map(Time),
        model: span.model,
        input_tokens: span.input,
        output_tokens: span.output,
        cost: span.cost.map(money),
        attributes: Object::parse_or_empty(&span.attributes),
    }
}

/// Spans whose parent is unknown, or that are their own ancestors, are roots; those that are deeper
/// than a tree is shown come beside their parents. Linear in the spans, however they are chained.
fn tree(spans: &[SpanOut]) -> Vec<SpanNode> {
    let mut places = HashMap::with_capacity(spans.len());
    for (at, span) in spans.iter().enumerate() {
        places.entry(span.id.as_str()).or_insert(at);
    }
    let parent_of = |span: &SpanOut| {
        let named = span.parent_span_id.as_deref()?;
        places.get(named).copied()
    };
    let mut parents: Vec<Option<usize>> = spans.iter().map(parent_of).collect();
    cut_circles(&mut parents);
    let mut children = vec![Vec::new(); spans.len()];
    let mut roots = Vec::new();
    for (at, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent].push(at),
            None => roots.push(at),
        }
    }
    // Parents before their children, each with its depth and where it is shown.
    let mut order: Vec<(usize, usize, Option<usize>)> =
        roots.into_iter().map(|at| (at, 0, None)).collect();
    let mut next = 0;
    while let Some(&(at, depth, shown_below)) = order.get(next) {
        next += 1;
        let (depth, below) = match depth < MAX_DEPTH {
            true => (depth + 1, Some(at)),
            false => (depth, shown_below),
        };
        order.extend(children[at].iter().map(|child| (*child, depth, below)));
    }
    // Children before their parents, the last first.
    let mut nodes: Vec<Vec<SpanNode>> = spans.iter().map(|_| Vec::new()).collect();
    let mut tree = Vec::new();
    for (at, _, below) in order.into_iter().rev() {
        let mut below_it = std::mem::take(&mut nodes[at]);
        below_it.reverse();
        let node = SpanNode {
            span: spans[at].clone(),
            children: below_it,
        };
        match below {
            Some(parent) => nodes[parent].push(node),
            None => tree.push(node),
        }
    }
    tree.reverse();
    tree
}

/// Takes the parents of those away that are their own ancestors.
fn cut_circles(parents: &mut [Option<usize>]) {
    const NEW: usize = usize::MAX;
    // The walk in which each was seen first.
    let mut seen = vec![NEW; parents.len()];
    for start in 0..parents.len() {
        let mut at = start;
        while seen[at] == NEW {
            seen[at] = start;
            match parents[at] {
                Some(parent) => at = parent,
                None => break,
            }
        }
        // A walk that comes back to itself, and not to an end that it made.
        if seen[at] == start && parents[at].is_some() {
            while let Some(parent) = parents[at].take() {
                at = parent;
            }
        }
    }
}

async fn detail(gateway: &AppState, trace: TraceRow) -> Result<Json<TraceDetailOut>, ApiError> {
    let rows = gateway.store.spans(&trace.tenant_id, &trace.id).await?;
    let spans: Vec<SpanOut> = rows.into_iter().map(span_out).collect();
    Ok(Json(TraceDetailOut {
        span_tree: tree(&spans),
        trace: trace_out(trace),
        spans,
    }))
}

/// The trace of a run that is still under way: its root alone.
fn under_way(run: &RunRow) -> TraceRow {
    TraceRow {
        id: trace_id(&run.id),
        tenant_id: run.tenant_id.clone(),
        run_id: Some(run.id.clone()),
        smith_id: Some(run.smith_id.clone()),
        agent_id: Some(run.agent_id.clone()),
        name: "run".to_owned(),
        status: "running".to_owned(),
        started_at: run.created_at,
        ended_at: None,
        model: None,
        input: 0,
        output: 0,
        cost: None,
        created_at: run.created_at,
        root_kind: "run".to_owned(),
        attributes: "{}".to_owned(),
    }
}

/// Lists the traces, newest first; with a smith token, that smith's.
#[utoipa::path(get, path = "/v1/traces", tag = "traces",
    params(PageParams, ("run_id" = Option<String>, Query), ("smith_id" = Option<String>, Query),
        ("app_id" = Option<String>, Query), ("status" = Option<String>, Query), ("since" = Option<String>, Query, description = "RFC 3339")),
    responses((status = 200, body = Page<TraceOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::TracesRead>,
    page: PageQuery,
) -> Result<Json<Page<TraceOut>>, ApiError> {
    let named = page.filter("smith_id");
    if let Some(named) = &named {
        caller.require_smith(named)?;
    }
    let since = page.filters.time("since")?;
    let filter = TraceFilter {
        run_id: page.filter("run_id"),
        smith_id: caller.smith_id().map(|id| id.to_string()).or(named),
        agent_id: page.filter("app_id"),
        status: page.filter("status"),
        since,
    };
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .traces(&caller.tenant_id, &filter, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), trace_out)))
}

/// Reads a trace with its spans.
#[utoipa::path(get, path = "/v1/traces/{id}", tag = "traces", params(("id" = String, Path)),
    responses((status = 200, body = TraceDetailOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::TracesRead>,
    Path(id): Path<String>,
) -> Result<Json<TraceDetailOut>, ApiError> {
    let found = gateway.store.trace(&caller.tenant_id, &id).await?;
    let trace = found.ok_or_else(|| ApiError::not_found("trace", &id))?;
    may_see(&caller, trace.smith_id.as_deref())?;
    detail(&gateway, trace).await
}

fn may_see(caller: &Principal, smith: Option<&str>) -> Result<(), ApiError> {
    match caller.smith_id() {
        Some(_) => caller.require_smith(smith.unwrap_or_default()),
        None => Ok(()),
    }
}

/// Reads the trace of a run.
#[utoipa::path(get, path = "/v1/runs/{id}/trace", tag = "traces", params(("id" = String, Path)),
    responses((status = 200, body = TraceDetailOut)))]
pub async fn of_run(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::TracesRead>,
    Path(id): Path<String>,
) -> Result<Json<TraceDetailOut>, ApiError> {
    let run = gateway.store.run(&caller.tenant_id, &id).await?;
    let run = run.ok_or_else(|| ApiError::not_found("run", &id))?;
    may_see(&caller, Some(&run.smith_id))?;
    let trace = gateway
        .store
        .trace(&caller.tenant_id, &trace_id(&id))
        .await?;
    let is_there = trace.is_some();
    let trace = trace.unwrap_or_else(|| under_way(&run));
    if is_there {
        return detail(&gateway, trace).await;
    }
    let root = SpanRow {
        tenant_id: trace.tenant_id.clone(),
        trace_id: trace.id.clone(),
        id: root_span_id(&trace.id),
        parent_id: None,
        kind: "run".to_owned(),
        name: "run".to_owned(),
        status: trace.status.clone(),
        started_at: trace.started_at,
        ended_at: None,
        model: None,
        input: None,
        output: None,
        cost: None,
        attributes: "{}".to_owned(),
    };
    let spans = vec![span_out(root)];
    Ok(Json(TraceDetailOut {
        span_tree: tree(&spans),
        trace: trace_out(trace),
        spans,
    }))
}

/// Takes spans in. Lenient: an unknown kind is a `runtime_event`, missing ids and times are made.
#[utoipa::path(post, path = "/v1/traces:ingest", tag = "traces", request_body = IngestIn,
    responses((status = 202, body = IngestOut)))]
pub async fn ingest(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::TracesWrite>,
    Input(input): Input<IngestIn>,
) -> Result<(StatusCode, Json<IngestOut>), ApiError> {
    let given = input.spans.unwrap_or_default();
    if given.len() > MAX_SPANS {
        return Err(ApiError::invalid(
            "spans",
            format!("must be at most {MAX_SPANS}"),
        ));
    }
    let accepted = given.len();
    let mut traces: BTreeMap<String, TraceRecord> = BTreeMap::new();
    let made = ids::mint(ids::Kind::Trace);
    for (at, span) in given.iter().enumerate() {
        let span = ingested(&caller, span, &made)
            .map_err(|why| ApiError::invalid(format!("spans[{at}]"), why))?;
        let (span, whose) = span;
        let record = traces.entry(span.trace_id.clone()).or_insert_with(|| {
            let trace = TraceRow {
                id: span.trace_id.clone(),
                tenant_id: caller.tenant_id.to_string(),
                run_id: whose.run_id.clone(),
                smith_id: whose.smith_id.clone(),
                agent_id: whose.app_id.clone(),
                name: span.name.clone(),
                status: span.status.clone(),
                started_at: span.started_at,
                ended_at: span.ended_at,
                model: span.model.clone(),
                input: 0,
                output: 0,
                cost: None,
                created_at: now_micros(),
                root_kind: span.kind.clone(),
                attributes: span.attributes.clone(),
            };
            TraceRecord {
                trace,
                spans: Vec::new(),
            }
        });
        let trace = &mut record.trace;
        // The first without a parent is the root, wherever it stands.
        let has_root = record.spans.iter().any(|other| other.parent_id.is_none());
        if span.parent_id.is_none() && !has_root {
            trace.root_kind.clone_from(&span.kind);
            trace.name.clone_from(&span.name);
            trace.status.clone_from(&span.status);
            trace.attributes.clone_from(&span.attributes);
        }
        trace.started_at = trace.started_at.min(span.started_at);
        trace.ended_at = trace.ended_at.max(span.ended_at);
        trace.input = trace.input.saturating_add(span.input.unwrap_or(0));
        trace.output = trace.output.saturating_add(span.output.unwrap_or(0));
        if let Some(cost) = span.cost {
            trace.cost = Some(trace.cost.unwrap_or(0).saturating_add(cost));
        }
        record.spans.push(span);
    }
    let records: Vec<TraceRecord> = traces.into_values().collect();
    for record in &records {
        // A trace of another smith, or of another tenant, is not added to.
        let there = gateway.store.trace(&caller.tenant_id, &record.trace.id);
        if let Some(there) = there.await? {
            may_see(&caller, there.smith_id.as_deref())?;
        }
        let there = gateway
            .store
            .trace_size(&caller.tenant_id, &record.trace.id);
        let (spans, bytes) = there.await?;
        let new: usize = record.spans.iter().map(|span| span.attributes.len()).sum();
        if spans + record.spans.len() as i64 > MAX_TRACE_SPANS
            || bytes + new as i64 > MAX_TRACE_BYTES
        {
            let message = format!(
                "the trace '{}' would have more than {MAX_TRACE_SPANS} spans, or more than \
                 {MAX_TRACE_BYTES} bytes of attributes",
                record.trace.id
            );
            return Err(ApiError::invalid("spans", message));
        }
    }
    gateway.store.ingest_traces(&records).await?;
    Ok((StatusCode::ACCEPTED, Json(IngestOut { accepted })))
}

/// Whose a brought trace is.
struct Whose {
    smith_id: Option<String>,
    app_id: Option<String>,
    run_id: Option<String>,
}

/// A span as a row, and whose it is.
fn ingested(
    caller: &Principal,
    span: &Map<String, Value>,
    made: &str,
) -> Result<(SpanRow, Whose), String> {
    let text = |name: &str| -> Result<Option<String>, String> {
        match span.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => {
                check_text(name, text, MAX_WORD).map_err(|e| format!("'{name}' {}", e.message))?;
                Ok(Some(text.clone()).filter(|text| !text.is_empty()))
            }
            Some(_) => Err(format!("'{name}' must be a string")),
        }
    };
    let time = |name: &str| -> Result<Option<i64>, String> {
        let Some(found) = text(name)? else {
            return Ok(None);
        };
        let at = parse_micros(&found).ok_or_else(|| format!("'{name}' must be a time"))?;
        Ok(Some(at))
    };
    let count = |name: &str| span.get(name).and_then(Value::as_i64);
    let whose = Whose {
        smith_id: match caller.smith_id() {
            Some(own) => Some(own.to_string()),
            None => text("smith_id")?,
        },
        app_id: text("app_id")?,
        run_id: text("run_id")?,
    };
    let kind = text("kind")?.filter(|kind| KINDS.contains(&kind.as_str()));
    let started_at = time("started_at")?.unwrap_or_else(now_micros);
    let cost = span.get("cost").and_then(Value::as_f64);
    let lasted = count("duration_ms").map(|ms| started_at.saturating_add(ms.saturating_mul(1000)));
    let id = match text("span_id")? {
        Some(id) => Some(id),
        None => text("id")?,
    };
    let attributes = span
        .get("attributes")
        .filter(|value| value.is_object())
        .map_or_else(|| "{}".to_owned(), Value::to_string);
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(format!(
            "'attributes' must be at most {MAX_ATTRIBUTES} bytes"
        ));
    }
    let row = SpanRow {
        tenant_id: caller.tenant_id.to_string(),
        trace_id: text("trace_id")?.unwrap_or_else(|| made.to_owned()),
        id: id.unwrap_or_else(|| ids::mint(ids::Kind::Span)),
        parent_id: text("parent_span_id")?,
        name: text("name")?.unwrap_or_else(|| "span".to_owned()),
        kind: kind.unwrap_or_else(|| "runtime_event".to_owned()),
        status: text("status")?.unwrap_or_else(|| "ok".to_owned()),
        started_at,
        ended_at: time("ended_at")?.or(lasted),
        model: text("model")?,
        input: count("input_tokens"),
        output: count("output_tokens"),
        cost: cost.map(|cost| (cost * NANOS) as i64),
        attributes,
    };
    Ok((row, whose))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: Option<&str>) -> SpanOut {
        SpanOut {
            id: id.into(),
            trace_id: "t".into(),
            parent_span_id: parent.map(str::to_owned),
            kind: "run".into(),
            name: "n".into(),
            status: "ok".into(),
            started_at: Time(0),
            ended_at: None,
            duration_ms: None,
            model: None,
            input_tokens: None,
            output_tokens: None,
            cost: None,
            attributes: Object::default(),
        }
    }

    #[test]
    fn trees_have_every_span_once() {
        let spans = [
            span("a", None),
            span("b", Some("a")),
            span("c", Some("b")),
            span("lost", Some("nobody")),
            span("x", Some("y")),
            span("y", Some("x")),
        ];
        let tree = tree(&spans);
        let roots: Vec<&str> = tree.iter().map(|node| node.span.id.as_str()).collect();
        assert_eq!(roots, ["a", "lost", "x", "y"]);
        assert_eq!(tree[0].children[0].children[0].span.id, "c");
    }

    fn count(nodes: &[SpanNode]) -> (usize, usize) {
        nodes.iter().fold((0, 0), |(all, deepest), node| {
            let (below, depth) = count(&node.children);
            (all + 1 + below, deepest.max(depth + 1))
        })
    }

    #[test]
    fn long_chains_wide_fans_and_circles_are_linear_and_whole() {
        const MANY: usize = 10_000;
        let id = |at: usize| format!("s{at:05}");
        let began = std::time::Instant::now();
        let shapes: [fn(usize) -> Option<usize>; 6] = [
            // A chain, forwards and backwards; a fan; a comb; one circle; many that hang on one.
            |at| at.checked_sub(1),
            |at| (at + 1 < MANY).then_some(at + 1),
            |at| (at > 0).then_some(0),
            |at| at.checked_sub(2),
            |at| Some((at + 1) % MANY),
            |at| Some(if at < 2 { 1 - at } else { at - 1 }),
        ];
        for shape in shapes {
            let spans: Vec<SpanOut> = (0..MANY)
                .map(|at| span(&id(at), shape(at).map(id).as_deref()))
                .collect();
            let (all, deepest) = count(&tree(&spans));
            assert_eq!(all, MANY);
            assert!(deepest <= MAX_DEPTH + 1, "{deepest}");
        }
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    }
}
