//! Rows and filters of the control plane: events, webhooks, conversations, approvals, connections,
//! budgets, usage, traces, files, organizations. Times are microseconds since the Unix epoch, money
//! is in nanos of the configured currency, documents are JSON text.

use serde_json::Value;

use crate::ids;

/// An entry of the tenant's event feed.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EventRow {
    pub id: String,
    pub tenant_id: String,
    /// For example `run.completed`.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// The type up to its first dot.
    pub family: String,
    pub smith_id: Option<String>,
    pub data: String,
    pub actor: Option<String>,
    pub created_at: i64,
}

impl EventRow {
    /// A new event of type `kind`.
    pub fn new(
        tenant_id: &str,
        kind: &str,
        smith_id: Option<&str>,
        data: &Value,
        actor: Option<&Value>,
    ) -> Self {
        Self {
            id: ids::mint(ids::Kind::Event),
            tenant_id: tenant_id.to_owned(),
            kind: kind.to_owned(),
            family: family(kind).to_owned(),
            smith_id: smith_id.map(str::to_owned),
            data: data.to_string(),
            actor: actor.map(Value::to_string),
            created_at: super::now_micros(),
        }
    }
}

/// Ids that are surely below those of rows since `since`, to begin a range of ids with: a row's id
/// may be minted a little before its time is taken.
pub(super) fn since_floor(kind: ids::Kind, since: i64) -> ids::Floor {
    const SLACK_MICROS: i64 = 60 * 1_000_000;
    ids::floor(kind, since.saturating_sub(SLACK_MICROS))
}

/// The part of an event type before its first dot.
pub fn family(kind: &str) -> &str {
    kind.split_once('.').map_or(kind, |(family, _)| family)
}

/// Which events a feed shows.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// A whole type, or a family.
    pub kind: Option<String>,
    pub smith_id: Option<String>,
    /// Not before this time.
    pub since: Option<i64>,
}

/// Where events are delivered to.
#[derive(Clone, sqlx::FromRow)]
pub struct WebhookRow {
    pub id: String,
    pub tenant_id: String,
    pub url: String,
    /// JSON array of types and families; empty: all.
    pub events: String,
    pub active: bool,
    pub sealed: Vec<u8>,
    /// The secret before the last rotation, which signs too until `previous_until`.
    pub previous_sealed: Option<Vec<u8>>,
    pub previous_until: Option<i64>,
    pub created_at: i64,
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DeliveryRow {
    pub id: String,
    pub tenant_id: String,
    pub webhook_id: String,
    pub event_id: String,
    pub event_type: String,
    /// `pending`, `succeeded` or `dead`.
    pub status: String,
    pub attempts: i64,
    pub last_status: Option<i64>,
    pub last_error: Option<String>,
    pub next_attempt_at: i64,
    pub delivered_at: Option<i64>,
    pub created_at: i64,
    /// How often it was taken up since an attempt was last recorded.
    pub takings: i64,
}

/// What became of an attempt to deliver.
#[derive(Debug, Clone)]
pub struct DeliveryOutcome {
    pub status: &'static str,
    pub last_status: Option<i64>,
    pub last_error: Option<String>,
    pub next_attempt_at: i64,
    pub delivered_at: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ConversationRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub title: Option<String>,
    pub metadata: String,
    /// The turns it was made with, before any run.
    pub turns: String,
    pub created_at: i64,
    pub updated_at: i64,
}

/// A page of an OpenAI-shaped list.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// The last id of the page before.
    pub after: Option<String>,
    /// The first id of the page behind.
    pub before: Option<String>,
    pub ascending: bool,
    pub limit: i64,
}

/// A decision that a human must take.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ApprovalRow {
    pub id: String,
    pub tenant_id: String,
    pub run_id: Option<String>,
    pub smith_id: Option<String>,
    pub tool_call_id: Option<String>,
    pub tool: Option<String>,
    pub args: String,
    pub elicitation: Option<String>,
    pub status: String,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub created_at: i64,
    pub resolved_at: Option<i64>,
    /// JSON: what answers an elicitation.
    pub answer: Option<String>,
    /// When it is taken for rejected.
    pub expires_at: Option<i64>,
}

/// A human's word on an approval.
#[derive(Debug, Clone)]
pub struct Decision {
    pub tenant_id: String,
    pub approval_id: String,
    /// `approved` or `rejected`.
    pub status: &'static str,
    pub actor: Option<String>,
    pub reason: Option<String>,
    /// JSON: what answers an elicitation.
    pub answer: Option<String>,
    pub at: i64,
    /// What the feed says of it.
    pub event: EventRow,
}

/// A smith's grant at an OAuth provider, its tokens sealed.
#[derive(Clone, sqlx::FromRow)]
pub struct ConnectionRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub provider: String,
    pub scopes: String,
    pub status: String,
    pub expires_at: Option<i64>,
    pub metadata: String,
    pub sealed: Vec<u8>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// A tenant's OAuth client at a provider, its secret sealed.
#[derive(Clone, sqlx::FromRow)]
pub struct OauthProviderRow {
    pub tenant_id: String,
    pub provider: String,
    pub client_id: Option<String>,
    pub token_uri: Option<String>,
    pub scopes_allowed: String,
    pub refresh_webhook: Option<String>,
    pub authorize_url: Option<String>,
    pub sealed: Option<Vec<u8>>,
    pub updated_at: i64,
}

/// An OAuth authorization that was begun.
#[derive(Clone, sqlx::FromRow)]
pub struct OauthStateRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub provider: String,
    pub return_url: Option<String>,
    /// The PKCE verifier and the scopes asked for.
    pub sealed: Vec<u8>,
    pub created_at: i64,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct BudgetRow {
    pub id: String,
    pub tenant_id: String,
    /// `tenant`, `agent`, `smith` or `customer`.
    pub scope: String,
    /// Empty for the tenant's own.
    pub scope_id: String,
    pub amount: i64,
    pub currency: String,
    /// `warn` or `block`.
    pub action: String,
    pub told_period: Option<String>,
    pub told_percent: i64,
    pub created_at: i64,
}

/// A budget and what was spent of it in a month.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct BudgetSpend {
    #[sqlx(flatten)]
    pub budget: BudgetRow,
    pub spent: i64,
}

/// Tokens and money of one day, by who spent them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmithUsage {
    pub tenant_id: String,
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    /// Empty, as the next two, for model routing without a smith.
    pub smith_id: String,
    pub agent_id: String,
    pub customer_id: String,
    pub provider: String,
    pub model: String,
    pub calls: i64,
    pub input: i64,
    pub output: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub reasoning: i64,
    pub cost: i64,
}

impl SmithUsage {
    /// The month, `YYYY-MM`, that budgets count in.
    pub fn period(&self) -> &str {
        self.day.get(..7).unwrap_or_default()
    }
}

/// What usage is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageGroup {
    App,
    Smith,
    Model,
    Customer,
}

/// Which usage counts. Days are `YYYY-MM-DD`, both included.
#[derive(Debug, Clone)]
pub struct UsageFilter {
    pub from: String,
    pub to: String,
    pub smith_id: Option<String>,
    pub customer_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct UsageGroupRow {
    pub name: String,
    pub calls: i64,
    pub input: i64,
    pub output: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub cost: i64,
}

/// Sums of a custom meter.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct MeterRow {
    pub meter: String,
    pub customer: String,
    pub quantity: f64,
    pub events: i64,
}

/// An entry of the usage ledger: a run's tokens, or a custom meter's count.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct UsageEventRow {
    pub id: String,
    pub tenant_id: String,
    /// `run` or `meter`.
    pub kind: String,
    pub run_id: Option<String>,
    pub smith_id: Option<String>,
    pub agent_id: Option<String>,
    pub customer_id: Option<String>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub input: i64,
    pub output: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub reasoning: i64,
    pub cost: Option<i64>,
    pub meter: Option<String>,
    pub quantity: Option<f64>,
    /// JSON object.
    pub metadata: String,
    pub created_at: i64,
}

/// The meter that runs count on.
pub const TOKENS_METER: &str = "tokens";

/// Which entries of the usage ledger are listed.
#[derive(Debug, Clone, Default)]
pub struct UsageEventFilter {
    pub smith_id: Option<String>,
    pub customer_id: Option<String>,
    /// A custom meter, or [`TOKENS_METER`].
    pub meter: Option<String>,
    /// Not before this time.
    pub from: Option<i64>,
    /// Before this time.
    pub until: Option<i64>,
}

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

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct FileRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: Option<String>,
    pub filename: String,
    pub purpose: String,
    pub media_type: Option<String>,
    pub bytes: i64,
    pub complete: bool,
    pub created_at: i64,
}

#[derive(Debug, Clone, Default)]
pub struct FileFilter {
    pub smith_id: Option<String>,
    pub purpose: Option<String>,
}

/// Who owns projects.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct OrganizationRow {
    pub id: String,
    pub name: String,
    pub created_at: i64,
}

/// A tenant, as its organization sees it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ProjectRow {
    pub id: String,
    pub name: String,
    pub metadata: String,
    pub created_at: i64,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct OrganizationKeyRow {
    pub id: String,
    pub organization_id: String,
    pub name: Option<String>,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
}
