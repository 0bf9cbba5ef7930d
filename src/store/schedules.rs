//! Schedules, and what became of their fires.

use async_trait::async_trait;

use super::{EventRow, QueuedTurnRow, Result, Rows};

/// Schedules that a smith may have.
pub const MAX_SCHEDULES: i64 = 100;

/// When a smith begins a turn by itself, and with what.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ScheduleRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub name: Option<String>,
    pub cron: String,
    /// An IANA name.
    pub timezone: String,
    /// JSON: what the model is told.
    pub turns: String,
    /// JSON: the messages, as they were sent.
    pub input: String,
    /// `None`: each fire has a thread of its own.
    pub thread_id: Option<String>,
    pub enabled: bool,
    /// Fires are put off by up to so much.
    pub jitter_seconds: i64,
    /// By the clock of its zone.
    pub next_fire_at: Option<i64>,
    /// The same with its jitter; `None`: it does not fire.
    pub due_at: Option<i64>,
    pub last_fire_at: Option<i64>,
    pub created_at: i64,
}

/// What became of a fire.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct FireRow {
    pub id: String,
    pub tenant_id: String,
    pub schedule_id: String,
    /// What the clock said.
    pub due_at: i64,
    /// `queued` or `skipped`.
    pub status: String,
    /// Fires before it that nobody was there for.
    pub missed: i64,
    /// Why it was skipped.
    pub reason: Option<String>,
    pub queued_turn_id: Option<String>,
    pub run_id: Option<String>,
    pub thread_id: Option<String>,
    pub created_at: i64,
}

/// A fire with all that goes with it.
#[derive(Debug, Clone)]
pub struct Firing {
    pub fire: FireRow,
    /// The fire as the schedule's row has it: whoever comes second finds another.
    pub next_fire_at: i64,
    /// The one behind it, by the clock and with its jitter.
    pub then: Option<(i64, i64)>,
    pub turn: Option<QueuedTurnRow>,
    pub event: Option<EventRow>,
}

/// Schedules and their fires.
#[async_trait]
pub trait ScheduleStore: Send + Sync {
    /// `false` when the smith has `most` already.
    async fn insert_schedule(&self, schedule: &ScheduleRow, most: i64) -> Result<bool>;
    async fn schedule(
        &self,
        tenant_id: &str,
        smith_id: &str,
        id: &str,
    ) -> Result<Option<ScheduleRow>>;
    async fn schedules(
        &self,
        tenant_id: &str,
        smith_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<ScheduleRow>>;
    /// Writes what its owner may change; `false` when there is no such schedule.
    async fn update_schedule(&self, schedule: &ScheduleRow) -> Result<bool>;
    async fn delete_schedule(&self, tenant_id: &str, smith_id: &str, id: &str) -> Result<bool>;
    /// Schedules of all tenants that are due, the longest due first.
    async fn due_schedules(&self, now: i64, limit: i64) -> Result<Vec<ScheduleRow>>;
    /// Fires in one transaction, each with its turn; answers, per entry, whether it was the first.
    async fn fire(&self, firings: &[Firing]) -> Result<Vec<bool>>;
    /// Fires once beside the clock.
    async fn fire_now(&self, fire: &FireRow, turn: &QueuedTurnRow) -> Result<()>;
    /// What became of a schedule's fires, newest first.
    async fn fires(
        &self,
        tenant_id: &str,
        schedule_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<FireRow>>;
}
