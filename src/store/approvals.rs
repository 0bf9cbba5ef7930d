//! Decisions that humans must take.

use async_trait::async_trait;

use super::{ApprovalStatus, EventRow, Result, Rows};

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
    pub status: ApprovalStatus,
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
    /// Approved or rejected.
    pub status: ApprovalStatus,
    pub actor: Option<String>,
    pub reason: Option<String>,
    /// JSON: what answers an elicitation.
    pub answer: Option<String>,
    pub at: i64,
    /// What the feed says of it.
    pub event: EventRow,
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
    /// Writes decisions and their events, all or none; `false` when another was first.
    async fn decide_approvals(&self, decisions: &[Decision]) -> Result<bool>;
    /// Approvals that nobody decided in time, of all tenants.
    async fn expired_approvals(&self, now: i64, limit: i64) -> Result<Vec<ApprovalRow>>;
}
