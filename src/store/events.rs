//! The event feed.

use async_trait::async_trait;
use serde_json::Value;

use super::{Result, Rows};
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
