//! What providers want back with tool calls, kept for clients that do not send it.

use async_trait::async_trait;

use super::Result;

/// What one tool call came with.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct KeptCall {
    pub tenant_id: String,
    /// Empty for a call without a smith.
    pub smith_id: String,
    /// By what the call is known.
    pub call: String,
    /// A JSON object.
    pub kept: String,
    pub created_at: i64,
}

/// What tool calls came with.
#[async_trait]
pub trait ContinuityStore: Send + Sync {
    async fn keep_calls(&self, calls: &[KeptCall]) -> Result<()>;
    /// Those of `calls` that are known.
    async fn kept_calls(
        &self,
        tenant_id: &str,
        smith_id: &str,
        calls: &[String],
    ) -> Result<Vec<KeptCall>>;
    /// Deletes at most `limit` that were kept before `before`, or else of tenants with more than
    /// `most`, the oldest first; tells how many.
    async fn forget_calls(&self, before: i64, most: i64, limit: i64) -> Result<u64>;
    /// Deletes all of a smith.
    async fn forget_smiths_calls(&self, tenant_id: &str, smith_id: &str) -> Result<()>;
}
