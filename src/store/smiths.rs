//! Smiths, their revisions and their working memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Result, Rows};
use crate::json::Object;

/// What is known of a smith's person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SmithProfile {
    #[serde(default)]
    pub display_name: Option<String>,
    #[serde(default)]
    pub locale: Option<String>,
    #[serde(default)]
    pub timezone: Option<String>,
    #[serde(default)]
    pub metadata: Option<Object>,
}

/// Members of [`AgentConfig`] that a smith sets for itself, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides(pub BTreeMap<String, Value>);

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SmithRow {
    pub id: String,
    pub tenant_id: String,
    pub agent_id: String,
    pub external_id: Option<String>,
    #[sqlx(try_from = "String")]
    pub profile: SmithProfile,
    pub customer_id: Option<String>,
    pub pin: Option<i64>,
    #[sqlx(try_from = "String")]
    pub overrides: Overrides,
    pub created_at: i64,
}

#[derive(Debug, Clone, Default)]
pub struct SmithFilter {
    pub external_id: Option<String>,
    pub external_id_prefix: Option<String>,
    pub customer_id: Option<String>,
    pub agent_id: Option<String>,
}

/// What a smith was configured as at one time: the part of a [`SmithRow`] that changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SmithSnapshot {
    pub agent_id: String,
    pub pin: Option<i64>,
    pub customer_id: Option<String>,
    #[serde(flatten)]
    pub profile: SmithProfile,
    pub overrides: Overrides,
}

impl SmithRow {
    /// Its configuration, for a revision.
    pub fn snapshot(&self) -> SmithSnapshot {
        SmithSnapshot {
            agent_id: self.agent_id.clone(),
            pin: self.pin,
            customer_id: self.customer_id.clone(),
            profile: self.profile.clone(),
            overrides: self.overrides.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SmithRevisionRow {
    pub smith_id: String,
    /// From 1, without gaps.
    pub version: i64,
    #[sqlx(try_from = "String")]
    pub snapshot: SmithSnapshot,
    pub created_by: Option<String>,
    pub note: Option<String>,
    pub created_at: i64,
}

/// Who changes something, why and when.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The token's id.
    pub by: Option<&'a str>,
    pub note: Option<&'a str>,
    pub at: i64,
}

/// What became of a change of a smith.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmithChange {
    Done,
    /// There is no such smith.
    Missing,
    /// The agent has a smith with this external id already.
    Taken,
}

/// Smiths.
#[async_trait]
pub trait SmithStore: Send + Sync {
    /// Inserts, or returns the live smith of the same `(external_id, agent_id)`.
    /// The flag tells whether it was made now.
    async fn upsert_smith(&self, smith: &SmithRow) -> Result<(SmithRow, bool)>;
    async fn smith(&self, tenant_id: &str, id: &str) -> Result<Option<SmithRow>>;
    async fn smiths(
        &self,
        tenant_id: &str,
        filter: &SmithFilter,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<SmithRow>>;
    /// Writes a smith's configuration and the revision that it makes.
    async fn update_smith(&self, smith: &SmithRow, change: Change<'_>) -> Result<SmithChange>;
    /// `false` when there is no such smith.
    /// Deletes a smith with what it was entrusted with: its tokens, the grants of hosts, its
    /// connections, keys and deployments. The ids of the tokens; `None`: there was no such smith.
    async fn delete_smith(
        &self,
        tenant_id: &str,
        id: &str,
        now: i64,
    ) -> Result<Option<Vec<String>>>;
    /// Newest first, versions below `before`.
    async fn smith_revisions(
        &self,
        tenant_id: &str,
        smith_id: &str,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Rows<SmithRevisionRow>>;
    async fn smith_revision(
        &self,
        tenant_id: &str,
        smith_id: &str,
        version: i64,
    ) -> Result<Option<SmithRevisionRow>>;
    /// The working-memory document; empty when there is none.
    async fn smith_memory(&self, tenant_id: &str, smith_id: &str) -> Result<String>;
    async fn put_smith_memory(
        &self,
        tenant_id: &str,
        smith_id: &str,
        content: &str,
        now: i64,
    ) -> Result<()>;
    /// Puts `content` where `before` is still what the document says; `false` when it was changed,
    /// or the smith is gone.
    async fn swap_smith_memory(
        &self,
        tenant_id: &str,
        smith_id: &str,
        before: &str,
        content: &str,
        now: i64,
    ) -> Result<bool>;
}
