//! Traces and their spans.

use async_trait::async_trait;

use super::Result;

/// A trace; of a run, its id is `trc_` and the run's body.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct TraceRow {
    pub id: String,
    pub tenant_id: String,
    pub run_id: Option<String>,
    pub smith_id: Option<String>,
    pub agent_id: Option<String>,
    pub name: String,
    pub status: String,
    pub started_at: i64,
    pub ended_at: Option<i64>,
    pub model: Option<String>,
    pub input: i64,
    pub output: i64,
    pub cost: Option<i64>,
    pub created_at: i64,
    /// The kind of its root span.
    pub root_kind: String,
    /// JSON: the attributes of its root span.
    pub attributes: String,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SpanRow {
    pub tenant_id: String,
    pub trace_id: String,
    pub id: String,
    pub parent_id: Option<String>,
    /// `run`, `model_call`, `tool_call`, `memory_op`, `retrieval` or `runtime_event`.
    pub kind: String,
    pub name: String,
    pub status: String,
    pub started_at: i64,
    pub ended_at: Option<i64>,
    pub model: Option<String>,
    pub input: Option<i64>,
    pub output: Option<i64>,
    pub cost: Option<i64>,
    pub attributes: String,
}

#[derive(Debug, Clone, Default)]
pub struct TraceFilter {
    pub run_id: Option<String>,
    pub smith_id: Option<String>,
    pub agent_id: Option<String>,
    pub status: Option<String>,
    /// Not before this time.
    pub since: Option<i64>,
}

/// A trace with its spans, as written.
#[derive(Debug, Clone)]
pub struct TraceRecord {
    pub trace: TraceRow,
    pub spans: Vec<SpanRow>,
}

/// Traces.
#[async_trait]
pub trait TraceStore: Send + Sync {
    async fn trace(&self, tenant_id: &str, id: &str) -> Result<Option<TraceRow>>;
    async fn traces(
        &self,
        tenant_id: &str,
        filter: &TraceFilter,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<TraceRow>>;
    /// How many spans a trace has, and how many bytes their attributes are.
    async fn trace_size(&self, tenant_id: &str, trace_id: &str) -> Result<(i64, i64)>;
    /// In order of their start.
    async fn spans(&self, tenant_id: &str, trace_id: &str) -> Result<Vec<SpanRow>>;
    /// Adds spans; a trace that is there already is kept, and so are spans.
    async fn ingest_traces(&self, traces: &[TraceRecord]) -> Result<()>;
}
