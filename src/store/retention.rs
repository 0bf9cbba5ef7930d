//! What is kept for a while: the trait behind retention.

use async_trait::async_trait;

use super::Result;

/// What is pruned by its age, tenant by tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aging {
    /// Runs that have ended, with their frames, approvals and traces.
    Runs,
    /// The frames of runs that have ended.
    Frames,
    Events,
    /// Deliveries that have ended.
    Deliveries,
    Traces,
    /// Entries of the usage ledger; sums stay.
    UsageEvents,
}

impl Aging {
    /// All, in the order in which they are pruned.
    pub const ALL: [Self; 6] = [
        Self::Frames,
        Self::Runs,
        Self::Deliveries,
        Self::Events,
        Self::Traces,
        Self::UsageEvents,
    ];
}

const HOUR: i64 = 3600 * 1_000_000;
const DAY: i64 = 24 * HOUR;

/// What is deleted of all tenants by its age alone: how, and how old it becomes in microseconds. A
/// token that ran out proves nothing any more; one that was revoked and never runs out stays.
pub(super) const SWEPT: [(&str, i64); 18] = [
    (
        "DELETE FROM idempotency WHERE (tenant_id, key) IN \
         (SELECT tenant_id, key FROM idempotency WHERE created_at < $1 LIMIT $2)",
        DAY,
    ),
    (
        "DELETE FROM oauth_states WHERE smith_id <> '' AND id IN \
         (SELECT id FROM oauth_states WHERE smith_id <> '' AND created_at < $1 LIMIT $2)",
        HOUR,
    ),
    // Of installations of a tenant's app, which wait for people elsewhere.
    (
        "DELETE FROM oauth_states WHERE id IN \
         (SELECT id FROM oauth_states WHERE created_at < $1 LIMIT $2)",
        7 * DAY,
    ),
    (
        "DELETE FROM connector_clients WHERE used_at IS NULL AND id IN \
         (SELECT id FROM connector_clients WHERE used_at IS NULL AND created_at < $1 LIMIT $2)",
        DAY,
    ),
    // One that was let in long ago and has nothing left that it could use.
    (
        "DELETE FROM connector_clients WHERE id IN (SELECT id FROM connector_clients \
         WHERE used_at < $1 AND NOT EXISTS (SELECT 1 FROM connector_grants g \
         WHERE g.client_id = connector_clients.id) LIMIT $2)",
        DAY,
    ),
    (
        "DELETE FROM authorize_requests WHERE id IN \
         (SELECT id FROM authorize_requests WHERE created_at < $1 LIMIT $2)",
        HOUR,
    ),
    (
        "DELETE FROM connector_codes WHERE id IN \
         (SELECT id FROM connector_codes WHERE created_at < $1 LIMIT $2)",
        HOUR,
    ),
    (
        "DELETE FROM connector_grants WHERE id IN \
         (SELECT id FROM connector_grants WHERE expires_at < $1 LIMIT $2)",
        DAY,
    ),
    // The pieces first: a file may have many, and none may go with it at once.
    (
        "DELETE FROM file_pieces WHERE (file_id, number) IN (SELECT p.file_id, p.number \
         FROM files f JOIN file_pieces p ON p.file_id = f.id \
         WHERE NOT f.complete AND f.created_at < $1 LIMIT $2)",
        DAY,
    ),
    (
        "DELETE FROM files WHERE NOT complete AND id IN \
         (SELECT id FROM files WHERE NOT complete AND created_at < $1 LIMIT $2)",
        DAY,
    ),
    (
        "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE expires_at < $1 LIMIT $2)",
        30 * DAY,
    ),
    (
        "DELETE FROM journal_marks WHERE journal_id IN \
         (SELECT journal_id FROM journal_marks WHERE noted_at < $1 LIMIT $2)",
        7 * DAY,
    ),
    (
        "DELETE FROM queued_turns WHERE id IN (SELECT id FROM queued_turns \
         WHERE status NOT IN ('queued', 'running') AND updated_at < $1 LIMIT $2)",
        30 * DAY,
    ),
    (
        "DELETE FROM schedule_fires WHERE id IN \
         (SELECT id FROM schedule_fires WHERE created_at < $1 LIMIT $2)",
        90 * DAY,
    ),
    // A platform that delivers again does so within days.
    (
        "DELETE FROM inbound_events WHERE id IN (SELECT id FROM inbound_events \
         WHERE due_at IS NULL AND created_at < $1 LIMIT $2)",
        30 * DAY,
    ),
    (
        "DELETE FROM outbound_messages WHERE id IN (SELECT id FROM outbound_messages \
         WHERE due_at IS NULL AND updated_at < $1 LIMIT $2)",
        30 * DAY,
    ),
    // Mail as it came is wanted until it is interpreted, and for a look afterwards.
    (
        "DELETE FROM email_pieces WHERE (tenant_id, id, number) IN (SELECT tenant_id, id, number \
         FROM email_pieces WHERE created_at < $1 LIMIT $2)",
        7 * DAY,
    ),
    // Who answers a message that is older begins a new conversation.
    (
        "DELETE FROM email_messages WHERE (tenant_id, id) IN (SELECT tenant_id, id \
         FROM email_messages WHERE created_at < $1 LIMIT $2)",
        365 * DAY,
    ),
];

/// Leases of whole tasks, and what is deleted because it is old. Each call writes one small
/// transaction.
#[async_trait]
pub trait RetentionStore: Send + Sync {
    /// Takes or prolongs the lease of a task; `false` when another node has it.
    async fn take_lease(&self, name: &str, node_id: &str, now: i64, until: i64) -> Result<bool>;
    /// Tenants with ids above `after`, and what they set for themselves (JSON).
    async fn retained(&self, after: &str, limit: i64) -> Result<Vec<(String, Option<String>)>>;
    /// What a tenant set for itself (JSON).
    async fn retention(&self, tenant_id: &str) -> Result<Option<String>>;
    async fn put_retention(&self, tenant_id: &str, document: &str) -> Result<()>;
    /// Finds the oldest of a tenant that were there before `before`, at most `limit`: reads only.
    async fn aged(
        &self,
        what: Aging,
        tenant_id: &str,
        before: i64,
        limit: i64,
    ) -> Result<Vec<String>>;
    /// Deletes what belongs to what was found, at most `limit` rows: frames and spans, of which one
    /// run or trace may have many. Answers how many there were.
    async fn thin(&self, what: Aging, tenant_id: &str, ids: &[String], limit: i64) -> Result<u64>;
    /// Deletes what was found.
    async fn prune(&self, what: Aging, tenant_id: &str, ids: &[String]) -> Result<()>;
    /// Notes that no frames are left of what was there before `before`, as far as that had ended.
    async fn frames_are_pruned(&self, tenant_id: &str, before: i64) -> Result<()>;
    /// Deletes of what has outlived its use in all tenants, at most `limit`; `kind` is below
    /// [`Self::sweeps`]. Answers how many there were.
    async fn sweep(&self, kind: usize, now: i64, limit: i64) -> Result<u64>;
    /// How many kinds there are.
    fn sweeps(&self) -> usize {
        SWEPT.len()
    }
}
