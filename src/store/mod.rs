//! What is kept: one trait per aggregate, and two engines that pass the same tests.
//!
//! Lives here: the row types, the traits, opening a store. May import `ids`, `error`, `secrets`,
//! `metrics` and `frame` types only. Every call on tenants' rows takes the tenant, and every query
//! filters by it.

mod agents;
mod approvals;
mod channels;
mod clock;
mod connections;
mod connectors;
mod continuity;
mod conversations;
mod customers;
mod deployments;
mod documents;
mod email;
mod error;
mod events;
mod files;
mod health;
mod idempotency;
mod journal;
mod lanes;
mod mcp_servers;
mod model_keys;
mod organizations;
mod postgres;
mod retention;
mod rows;
mod runs;
mod schedules;
mod skills;
mod smiths;
mod sql;
mod sqlite;
mod status;
mod tenants;
mod tokens;
mod traces;
mod usage;
mod vector_stores;
mod virtual_keys;
mod webhooks;

pub use agents::*;
pub use approvals::*;
pub use channels::*;
pub use clock::{now_micros, now_seconds, rfc3339};
pub use connections::*;
pub use connectors::*;
pub use continuity::*;
pub use conversations::*;
pub use customers::*;
pub use deployments::*;
pub use documents::Metadata;
pub use email::*;
pub use error::{StorageFault, StoreError};
pub use events::*;
pub use files::*;
pub use health::Health;
pub use idempotency::*;
pub use journal::{Journal, JournalError, Op};
pub use lanes::*;
pub use mcp_servers::*;
pub use model_keys::*;
pub use organizations::*;
pub use postgres::PostgresStore;
pub use retention::{Aging, RetentionStore};
pub use rows::{PAGE_BYTES, Rows, Slice};
pub use runs::*;
pub use schedules::*;
pub use skills::*;
pub use smiths::*;
pub use sqlite::SqliteStore;
pub use status::{ApprovalStatus, DeliveryStatus, RunStatus, VectorFileStatus};
pub use tenants::*;
pub use tokens::*;
pub use traces::*;
pub use usage::*;
pub use vector_stores::*;
pub use virtual_keys::*;
pub use webhooks::*;

use std::sync::Arc;

/// What store calls return.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A whole store: all aggregates. The list is here alone.
macro_rules! whole_store {
    ($($aggregate:ident),+ $(,)?) => {
        /// A whole store.
        pub trait Store: $($aggregate +)+ Send + Sync {}

        impl<S> Store for S where S: $($aggregate +)+ Send + Sync {}
    };
}

whole_store!(
    TenantStore,
    TokenStore,
    AgentStore,
    SmithStore,
    CustomerStore,
    ModelKeyStore,
    RunStore,
    IdempotencyStore,
    EventStore,
    WebhookStore,
    ConversationStore,
    ApprovalStore,
    ConnectionStore,
    UsageStore,
    TraceStore,
    FileStore,
    OrganizationStore,
    McpServerStore,
    SkillStore,
    VectorStoreStore,
    DeploymentStore,
    ConnectorStore,
    ContinuityStore,
    RetentionStore,
    LaneStore,
    ScheduleStore,
    ChannelStore,
    EmailStore,
    VirtualKeyStore,
);

/// Opens the configured engine and brings its schema up to date.
pub async fn open(config: &crate::config::Config) -> Result<Arc<dyn Store>> {
    match &config.store.url {
        Some(url) => {
            let connections = match config.store.connections {
                0 => 16,
                n => n,
            };
            // The URL may hold a password.
            let opened = PostgresStore::open(url, connections).await;
            Ok(Arc::new(opened.map_err(|error| {
                error.at("the PostgreSQL database of store.url")
            })?))
        }
        None => {
            let dir = &config.data_dir;
            let unusable = |why: std::io::Error| {
                StoreError::Unusable(format!(
                    "the data directory {} cannot be used: {why}",
                    dir.display()
                ))
            };
            std::fs::create_dir_all(dir).map_err(unusable)?;
            let readers = match config.store.connections {
                0 => 4,
                n => n,
            };
            let file = dir.join("smithgate.db");
            let opened = SqliteStore::open(&file, readers).await;
            let place = format!("the database {}", file.display());
            Ok(Arc::new(opened.map_err(|error| error.at(&place))?))
        }
    }
}
