//! Conversations.

use async_trait::async_trait;

use super::{Result, Rows, RunRow, Slice};

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
