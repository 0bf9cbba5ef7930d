//! What is kept: one trait per aggregate, and two engines that pass the same tests.
//!
//! Lives here: the row types, the traits, opening a store. May import `ids`, `error`, `secrets`,
//! `metrics` and `frame` types only. Every call on tenants' rows takes the tenant, and every query
//! filters by it.

mod connectors;
mod continuity;
mod control;
mod deployments;
mod error;
mod health;
mod journal;
mod mcp_servers;
mod postgres;
mod records;
mod retention;
mod rows;
mod skills;
mod sql;
mod sqlite;
mod types;
mod vector_stores;

pub use connectors::*;
pub use continuity::*;
pub use control::*;
pub use deployments::*;
pub use error::{StorageFault, StoreError};
pub use health::Health;
pub use journal::{Journal, JournalError, Op};
pub use mcp_servers::*;
pub use postgres::PostgresStore;
pub use records::*;
pub use retention::{Aging, RetentionStore};
pub use rows::{PAGE_BYTES, Rows};
pub use skills::*;
pub use sqlite::SqliteStore;
pub use types::*;
pub use vector_stores::*;

use std::sync::Arc;

use async_trait::async_trait;

/// What store calls return.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Tenants ("projects") and the node's signing keys.
#[async_trait]
pub trait TenantStore: Send + Sync {
    /// Makes a tenant.
    async fn create_tenant(&self, tenant: &Tenant) -> Result<()>;
    /// The oldest tenant, if there is one.
    async fn first_tenant(&self) -> Result<Option<Tenant>>;
    /// One tenant.
    async fn tenant(&self, tenant_id: &str) -> Result<Option<Tenant>>;
    /// Adds a signing key.
    async fn add_signing_key(&self, key: &SigningKeyRow) -> Result<()>;
    /// All signing keys, newest first.
    async fn signing_keys(&self) -> Result<Vec<SigningKeyRow>>;
    /// Whether the database answers.
    async fn ping(&self) -> Result<()>;
    /// Writes a little, to see whether the database takes it.
    async fn probe(&self, now: i64) -> Result<()>;
}

/// Minted tokens. The secret itself is never stored: a token is a signed statement.
#[async_trait]
pub trait TokenStore: Send + Sync {
    async fn insert_token(&self, token: &TokenRow) -> Result<()>;
    async fn token(&self, tenant_id: &str, id: &str) -> Result<Option<TokenRow>>;
    /// Newest first, ids below `before`.
    async fn tokens(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<TokenRow>>;
    /// Marks as revoked; `false` when there is no such token.
    async fn revoke_token(&self, tenant_id: &str, id: &str, now: i64) -> Result<bool>;
    /// Ids revoked at or after `since`, over all tenants: what nodes poll.
    async fn revoked_since(&self, since: i64) -> Result<Vec<(String, i64)>>;
}

/// Agents and their versions.
#[async_trait]
pub trait AgentStore: Send + Sync {
    /// `false` when the slug is taken.
    async fn insert_agent(&self, agent: &AgentRow) -> Result<bool>;
    async fn agent(&self, tenant_id: &str, id: &str) -> Result<Option<AgentRow>>;
    /// The default agent, made from `template` when missing.
    async fn default_agent(&self, template: &AgentRow) -> Result<AgentRow>;
    async fn agents(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<AgentRow>>;
    /// Slugs that begin with `prefix`.
    async fn agent_slugs(&self, tenant_id: &str, prefix: &str) -> Result<Vec<String>>;
    /// Snapshots the draft as the next version, its skills at the versions that they have now; the
    /// first one goes live.
    async fn publish_agent(
        &self,
        tenant_id: &str,
        agent_id: &str,
        created_by: Option<&str>,
        note: Option<&str>,
        now: i64,
    ) -> Result<Publication>;
    async fn agent_version(
        &self,
        tenant_id: &str,
        agent_id: &str,
        version: i64,
    ) -> Result<Option<AgentVersionRow>>;
    /// Newest first, versions below `before`.
    async fn agent_versions(
        &self,
        tenant_id: &str,
        agent_id: &str,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Rows<AgentVersionRow>>;
    async fn smith_count(&self, tenant_id: &str, agent_id: &str) -> Result<i64>;
    /// When the agent's last run began.
    async fn agent_activity(&self, tenant_id: &str, agent_id: &str) -> Result<Option<i64>>;
    /// Writes name, draft and `updated_at`; `false` when there is no such agent.
    async fn update_agent(&self, agent: &AgentRow) -> Result<bool>;
    /// Writes the draft, and a template's content or its deletion; `false` when there is no such
    /// agent.
    async fn put_agent_ui(
        &self,
        agent: &AgentRow,
        name: &str,
        content: Option<&[u8]>,
    ) -> Result<bool>;
    /// A template's content.
    async fn agent_ui(
        &self,
        tenant_id: &str,
        agent_id: &str,
        name: &str,
    ) -> Result<Option<Vec<u8>>>;
    /// Writes what is live; `false` when there is no such agent.
    async fn set_rollout(
        &self,
        tenant_id: &str,
        agent_id: &str,
        rollout: &Rollout,
        now: i64,
    ) -> Result<bool>;
    /// Deletes an agent that no smith runs.
    async fn delete_agent(&self, tenant_id: &str, id: &str, now: i64) -> Result<AgentRemoval>;
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
}

/// Customers.
#[async_trait]
pub trait CustomerStore: Send + Sync {
    async fn insert_customer(&self, customer: &CustomerRow) -> Result<()>;
    async fn customer(&self, tenant_id: &str, id: &str) -> Result<Option<CustomerRow>>;
    async fn customers(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<CustomerRow>>;
    /// `false` when there is no such customer.
    async fn update_customer(&self, customer: &CustomerRow) -> Result<bool>;
    /// Deletes a customer and unassigns its smiths; `false` when there is no such customer.
    async fn delete_customer(&self, tenant_id: &str, id: &str) -> Result<bool>;
    async fn customer_smith_count(&self, tenant_id: &str, id: &str) -> Result<i64>;
}

/// Keys for model providers, sealed. `smith_id` is empty for the tenant's own.
#[async_trait]
pub trait ModelKeyStore: Send + Sync {
    async fn put_model_key(&self, key: &ModelKeyRow) -> Result<()>;
    async fn model_key(
        &self,
        tenant_id: &str,
        smith_id: &str,
        provider: &str,
    ) -> Result<Option<ModelKeyRow>>;
    async fn model_keys(&self, tenant_id: &str, smith_id: &str) -> Result<Vec<ModelKeyRow>>;
    async fn delete_model_key(
        &self,
        tenant_id: &str,
        smith_id: &str,
        provider: &str,
    ) -> Result<bool>;
}

/// Whose a run is, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Lease<'a> {
    pub node_id: &'a str,
    pub until: i64,
    pub now: i64,
}

/// A batch of a journal; batches are numbered upwards.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    pub journal_id: &'a str,
    pub batch: i64,
}

/// Runs, their frames and the thread history. Writes of live runs go through [`Journal`].
#[async_trait]
pub trait RunStore: Send + Sync {
    async fn run(&self, tenant_id: &str, id: &str) -> Result<Option<RunRow>>;
    async fn runs(
        &self,
        tenant_id: &str,
        filter: &RunFilter,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<RunRow>>;
    /// The frame log, in order: encoded frames, see [`crate::frame::decode_all`].
    async fn run_frames(&self, tenant_id: &str, run_id: &str) -> Result<Vec<Vec<u8>>>;
    /// Whether there is a frame log.
    async fn has_frames(&self, tenant_id: &str, run_id: &str) -> Result<bool>;
    /// Transcripts (JSON) of the thread's last `limit` completed runs, oldest first.
    async fn thread_transcripts(
        &self,
        tenant_id: &str,
        smith_id: &str,
        thread_id: &str,
        limit: i64,
    ) -> Result<Vec<String>>;
    /// Looks at a thread, before its history is read.
    async fn see_thread(
        &self,
        tenant_id: &str,
        smith_id: &str,
        thread_id: &str,
    ) -> Result<ThreadSeen>;
    /// The newest run of a thread that is under way.
    async fn running_in_thread(
        &self,
        tenant_id: &str,
        smith_id: &str,
        thread_id: &str,
    ) -> Result<Option<RunRow>>;
    /// The transcripts of a response and those that it continues, oldest first; at most `limit`.
    async fn chain_transcripts(
        &self,
        tenant_id: &str,
        smith_id: &str,
        run_id: &str,
        limit: i64,
    ) -> Result<Vec<String>>;
    /// Replaces what the Responses wire shows of a run's request; `false`: there is no such run.
    async fn set_response(&self, tenant_id: &str, run_id: &str, response: &str) -> Result<bool>;
    /// Prolongs this node's leases.
    async fn renew_leases(&self, node_id: &str, lease_until: i64) -> Result<()>;
    /// Runs still marked as live whose lease ended before `before` (`i64::MAX`: all of them): tenant
    /// and run. Their rows may be large, and are read one by one.
    async fn lapsed_runs(&self, before: i64) -> Result<Vec<(String, String)>>;
    /// Takes a run that waits, to go on with it; `false` when another was first.
    async fn take_paused_run(&self, tenant_id: &str, id: &str, lease: &Lease<'_>) -> Result<bool>;
    /// Takes a run whose lease ended before `before`, and counts that; `false` when another was first.
    async fn take_lapsed_run(
        &self,
        tenant_id: &str,
        id: &str,
        before: i64,
        lease: &Lease<'_>,
    ) -> Result<bool>;
    /// The node that a run was taken from lives: that taking is not counted.
    async fn uncount_taking(&self, tenant_id: &str, id: &str) -> Result<()>;
    /// What it takes to go on with a run.
    async fn run_state(&self, tenant_id: &str, run_id: &str) -> Result<Option<RunState>>;
    /// Asks the node that has the run to cancel it; `false` when it is not under way.
    async fn ask_cancel(&self, tenant_id: &str, id: &str, reason: &str) -> Result<bool>;
    /// The runs of a node that shall be cancelled: tenant, run, reason.
    async fn asked_to_cancel(&self, node_id: &str) -> Result<Vec<(String, String, String)>>;
    /// Runs of all tenants that wait for approvals which were all decided before `before`: tenant and
    /// run.
    async fn decided_runs(&self, before: i64) -> Result<Vec<(String, String)>>;
    /// Applies a batch of journal entries in one transaction; answers, per entry, whether it took.
    async fn apply(&self, ops: &[Op]) -> Result<Vec<bool>> {
        self.apply_once(ops, None).await
    }
    /// As [`RunStore::apply`], and where the answer to a commit may be lost on its way, a batch with
    /// a mark that is in already is not applied again: what it answered then is answered now.
    async fn apply_once(&self, ops: &[Op], mark: Option<Mark<'_>>) -> Result<Vec<bool>>;
    /// Runs of a node that are marked as live and were not touched since `before`.
    async fn idle_runs(&self, node_id: &str, before: i64) -> Result<Vec<RunRow>>;
    /// Tokens used, by day.
    async fn usage(&self, tenant_id: &str) -> Result<Vec<UsageRow>>;
}

/// First answers to `Idempotency-Key`s.
#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// Claims the key, or tells what became of the first request that did.
    async fn begin_idempotent(
        &self,
        tenant_id: &str,
        key: &str,
        fingerprint: &str,
        run_id: Option<&str>,
        now: i64,
    ) -> Result<Idempotency>;
    /// Keeps the first answer.
    async fn finish_idempotent(
        &self,
        tenant_id: &str,
        key: &str,
        status: u16,
        body: &[u8],
    ) -> Result<()>;
    /// Holds a claim that has no answer yet.
    async fn renew_idempotent(&self, tenant_id: &str, key: &str, now: i64) -> Result<()>;
    /// Gives a key without an answer to another run, unless that was done already.
    async fn retry_idempotent(
        &self,
        tenant_id: &str,
        key: &str,
        first_run_id: &str,
        run_id: &str,
        now: i64,
    ) -> Result<bool>;
    /// Gives the key up, unless it stands for another run by now: the request had no lasting effect.
    async fn abandon_idempotent(
        &self,
        tenant_id: &str,
        key: &str,
        run_id: Option<&str>,
    ) -> Result<()>;
}

/// A whole store.
pub trait Store:
    TenantStore
    + TokenStore
    + AgentStore
    + SmithStore
    + CustomerStore
    + ModelKeyStore
    + RunStore
    + IdempotencyStore
    + EventStore
    + WebhookStore
    + ConversationStore
    + ApprovalStore
    + ConnectionStore
    + UsageStore
    + TraceStore
    + FileStore
    + OrganizationStore
    + McpServerStore
    + SkillStore
    + VectorStoreStore
    + DeploymentStore
    + ConnectorStore
    + ContinuityStore
    + RetentionStore
{
}

impl<S> Store for S where
    S: TenantStore
        + TokenStore
        + AgentStore
        + SmithStore
        + CustomerStore
        + ModelKeyStore
        + RunStore
        + IdempotencyStore
        + EventStore
        + WebhookStore
        + ConversationStore
        + ApprovalStore
        + ConnectionStore
        + UsageStore
        + TraceStore
        + FileStore
        + OrganizationStore
        + McpServerStore
        + SkillStore
        + VectorStoreStore
        + DeploymentStore
        + ConnectorStore
        + ContinuityStore
        + RetentionStore
{
}

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
