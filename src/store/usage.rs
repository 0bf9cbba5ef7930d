//! The ledger of what was used, meters and budgets.

use async_trait::async_trait;

use super::{EventRow, Result};

/// Tokens of model calls, to be added to a day's row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UsageRow {
    pub tenant_id: String,
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    pub provider: String,
    pub model: String,
    pub calls: i64,
    pub input: i64,
    pub output: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub reasoning: i64,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct BudgetRow {
    pub id: String,
    pub tenant_id: String,
    /// `tenant`, `agent`, `smith`, `customer` or `key`.
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
    /// Empty where no virtual key was used.
    pub key_id: String,
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
    /// Of calls with virtual keys only.
    Key,
}

/// Which usage counts. Days are `YYYY-MM-DD`, both included.
#[derive(Debug, Clone)]
pub struct UsageFilter {
    pub from: String,
    pub to: String,
    pub smith_id: Option<String>,
    pub customer_id: Option<String>,
    /// Calls with this virtual key, which have no smith and no customer.
    pub key_id: Option<String>,
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
