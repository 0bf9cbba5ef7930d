//! The traits of the control plane's aggregates; see [`super`] for what holds for all of them.

use async_trait::async_trait;

use super::*;

/// The event feed.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Writes an event and, in the same transaction, its deliveries.
    async fn append_event(&self, event: &EventRow) -> Result<()>;
    async fn event(&self, tenant_id: &str, id: &str) -> Result<Option<EventRow>>;
    /// Newest first, ids below `before`.
    async fn events(
        &self,
        tenant_id: &str,
        filter: &EventFilter,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<EventRow>>;
}

/// Webhooks and the outbox.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// `patterns` repeats the row's `events` for matching.
    async fn insert_webhook(&self, webhook: &WebhookRow, patterns: &[String]) -> Result<()>;
    async fn webhook(&self, tenant_id: &str, id: &str) -> Result<Option<WebhookRow>>;
    async fn webhooks(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<WebhookRow>>;
    /// Writes all but the creation time; `false` when there is no such webhook.
    async fn update_webhook(&self, webhook: &WebhookRow, patterns: &[String]) -> Result<bool>;
    async fn delete_webhook(&self, tenant_id: &str, id: &str) -> Result<bool>;
    async fn deliveries(
        &self,
        tenant_id: &str,
        webhook_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<DeliveryRow>>;
    async fn delivery(
        &self,
        tenant_id: &str,
        webhook_id: &str,
        id: &str,
    ) -> Result<Option<DeliveryRow>>;
    /// Writes an event for one webhook alone, its delivery held until `hold_until`.
    async fn append_event_for(
        &self,
        event: &EventRow,
        webhook_id: &str,
        hold_until: i64,
    ) -> Result<DeliveryRow>;
    /// Webhooks, over all tenants, to which something is due at `now`.
    async fn due_webhooks(&self, now: i64) -> Result<Vec<(String, String)>>;
    /// Takes up to `limit` due deliveries of a webhook; nobody else takes them before `hold_until`.
    async fn claim_deliveries(
        &self,
        tenant_id: &str,
        webhook_id: &str,
        now: i64,
        hold_until: i64,
        limit: i64,
    ) -> Result<Vec<DeliveryRow>>;
    /// Gives deliveries back, by tenant and id, whose attempts end with their node.
    async fn release_deliveries(&self, held: &[(String, String)], now: i64) -> Result<()>;
    /// Records an attempt.
    async fn record_attempt(
        &self,
        tenant_id: &str,
        id: &str,
        outcome: &DeliveryOutcome,
    ) -> Result<()>;
}

/// Conversations.
#[async_trait]
pub trait ConversationStore: Send + Sync {
    async fn insert_conversation(&self, conversation: &ConversationRow) -> Result<()>;
    async fn conversation(&self, tenant_id: &str, id: &str) -> Result<Option<ConversationRow>>;
    async fn conversations(
        &self,
        tenant_id: &str,
        smith_id: &str,
        slice: &Slice,
    ) -> Result<Rows<ConversationRow>>;
    async fn update_conversation(&self, conversation: &ConversationRow) -> Result<bool>;
    /// Sets the title when there is none yet.
    async fn title_conversation(
        &self,
        tenant_id: &str,
        id: &str,
        title: &str,
        now: i64,
    ) -> Result<()>;
    async fn delete_conversation(&self, tenant_id: &str, id: &str) -> Result<bool>;
    /// Ended runs of a thread whose transcripts count, in order; ids beyond `after`.
    async fn thread_runs(
        &self,
        tenant_id: &str,
        smith_id: &str,
        thread_id: &str,
        slice: &Slice,
    ) -> Result<Rows<RunRow>>;
}

/// Approvals.
#[async_trait]
pub trait ApprovalStore: Send + Sync {
    async fn insert_approval(&self, approval: &ApprovalRow) -> Result<()>;
    async fn approval(&self, tenant_id: &str, id: &str) -> Result<Option<ApprovalRow>>;
    async fn approvals(
        &self,
        tenant_id: &str,
        smith_id: Option<&str>,
        status: Option<&str>,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<ApprovalRow>>;
    /// All approvals of a run, oldest first.
    async fn run_approvals(&self, tenant_id: &str, run_id: &str) -> Result<Vec<ApprovalRow>>;
    /// Writes a decision and its event; `false` when another was first.
    async fn decide_approval(&self, decision: &Decision) -> Result<bool>;
    /// Approvals that nobody decided in time, of all tenants.
    async fn expired_approvals(&self, now: i64, limit: i64) -> Result<Vec<ApprovalRow>>;
}

/// OAuth grants of smiths, and the tenant's OAuth clients.
#[async_trait]
pub trait ConnectionStore: Send + Sync {
    async fn insert_connection(&self, connection: &ConnectionRow) -> Result<()>;
    async fn connection(
        &self,
        tenant_id: &str,
        smith_id: &str,
        id: &str,
    ) -> Result<Option<ConnectionRow>>;
    async fn connections(
        &self,
        tenant_id: &str,
        smith_id: &str,
        provider: Option<&str>,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<ConnectionRow>>;
    async fn update_connection(&self, connection: &ConnectionRow) -> Result<bool>;
    async fn delete_connection(&self, tenant_id: &str, smith_id: &str, id: &str) -> Result<bool>;
    async fn put_oauth_provider(&self, provider: &OauthProviderRow) -> Result<()>;
    async fn oauth_provider(
        &self,
        tenant_id: &str,
        provider: &str,
    ) -> Result<Option<OauthProviderRow>>;
    async fn oauth_providers(&self, tenant_id: &str) -> Result<Vec<OauthProviderRow>>;
    async fn delete_oauth_provider(&self, tenant_id: &str, provider: &str) -> Result<bool>;
    async fn insert_oauth_state(&self, state: &OauthStateRow) -> Result<()>;
    /// Takes a state out: it serves once. Over all tenants, as its id is the proof.
    async fn take_oauth_state(&self, id: &str) -> Result<Option<OauthStateRow>>;
}

/// Budgets, spending and the usage ledger.
#[async_trait]
pub trait UsageStore: Send + Sync {
    /// `false` when the scope has a budget already.
    async fn insert_budget(&self, budget: &BudgetRow) -> Result<bool>;
    async fn budget(&self, tenant_id: &str, id: &str) -> Result<Option<BudgetRow>>;
    async fn budgets(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<BudgetRow>>;
    async fn update_budget(&self, budget: &BudgetRow) -> Result<bool>;
    async fn delete_budget(&self, tenant_id: &str, id: &str) -> Result<bool>;
    /// Budgets of a tenant with what `period` (`YYYY-MM`) has spent; `scope_ids` are the ids that
    /// matter, the tenant's own budget (empty id) always does.
    async fn budget_spends(
        &self,
        tenant_id: &str,
        period: &str,
        scope_ids: &[&str],
    ) -> Result<Vec<BudgetSpend>>;
    async fn spent(
        &self,
        tenant_id: &str,
        period: &str,
        scope: &str,
        scope_id: &str,
    ) -> Result<i64>;
    /// Writes `event` unless this threshold of the period was told before.
    async fn tell_budget(
        &self,
        budget: &BudgetRow,
        period: &str,
        percent: i64,
        event: &EventRow,
    ) -> Result<bool>;
    async fn usage_groups(
        &self,
        tenant_id: &str,
        filter: &UsageFilter,
        group: UsageGroup,
    ) -> Result<Vec<UsageGroupRow>>;
    /// Custom meters between two times.
    async fn meters(
        &self,
        tenant_id: &str,
        from: i64,
        to: i64,
        smith_id: Option<&str>,
        customer_id: Option<&str>,
    ) -> Result<Vec<MeterRow>>;
    async fn insert_usage_event(&self, event: &UsageEventRow) -> Result<()>;
    async fn usage_events(
        &self,
        tenant_id: &str,
        filter: &UsageEventFilter,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<UsageEventRow>>;
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

/// Files, in pieces.
#[async_trait]
pub trait FileStore: Send + Sync {
    /// Begins a file, which nobody sees before it is complete.
    async fn begin_file(&self, file: &FileRow) -> Result<()>;
    async fn add_file_piece(
        &self,
        tenant_id: &str,
        file_id: &str,
        number: i64,
        content: &[u8],
    ) -> Result<()>;
    async fn complete_file(&self, file: &FileRow) -> Result<()>;
    async fn file(&self, tenant_id: &str, id: &str) -> Result<Option<FileRow>>;
    async fn files(
        &self,
        tenant_id: &str,
        filter: &FileFilter,
        slice: &Slice,
    ) -> Result<Vec<FileRow>>;
    async fn file_piece(
        &self,
        tenant_id: &str,
        file_id: &str,
        number: i64,
    ) -> Result<Option<Vec<u8>>>;
    async fn delete_file(&self, tenant_id: &str, id: &str) -> Result<bool>;
}

/// Organizations, their projects and keys.
#[async_trait]
pub trait OrganizationStore: Send + Sync {
    /// The installation's organization, made from `template` when missing; it takes over tenants
    /// that have none.
    async fn organization(&self, template: &OrganizationRow) -> Result<OrganizationRow>;
    async fn insert_project(&self, organization_id: &str, project: &ProjectRow) -> Result<()>;
    async fn project(&self, organization_id: &str, id: &str) -> Result<Option<ProjectRow>>;
    async fn projects(
        &self,
        organization_id: &str,
        name: Option<&str>,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ProjectRow>>;
    /// Marks a project as deleted and revokes its tokens; answers their ids.
    async fn delete_project(
        &self,
        organization_id: &str,
        id: &str,
        now: i64,
    ) -> Result<Option<Vec<String>>>;
    async fn insert_organization_key(&self, key: &OrganizationKeyRow) -> Result<()>;
    async fn organization_keys(
        &self,
        organization_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<OrganizationKeyRow>>;
    async fn revoke_organization_key(
        &self,
        organization_id: &str,
        id: &str,
        now: i64,
    ) -> Result<bool>;
}
