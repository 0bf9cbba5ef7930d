//! Lanes: turns that wait for a smith's thread, one after the other.

use async_trait::async_trait;

use super::{EventRow, Result};

/// What becomes of a turn that comes while another of its lane runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LaneRule {
    /// It waits.
    #[default]
    Queue,
    /// All that wait become one turn.
    Merge,
    /// The one that runs is cancelled.
    Interrupt,
}

impl LaneRule {
    /// As it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Merge => "merge",
            Self::Interrupt => "interrupt",
        }
    }

    /// Of its word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Queue, Self::Merge, Self::Interrupt]
            .into_iter()
            .find(|rule| rule.as_str() == word)
    }
}

/// Channels whose runs come out of lanes.
pub const LANE_CHANNELS: [&str; 6] = [
    "schedule", "slack", "telegram", "whatsapp", "email", "discord",
];

/// How a queued turn ended, or why it waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEnd {
    /// Its run ended.
    Done,
    /// It never became a run, or that could not be begun.
    Failed,
    /// Its sender took it back.
    Dropped,
}

impl TurnEnd {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// A turn that waits for its thread, or has become a run.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct QueuedTurnRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub thread_id: String,
    /// Its place in its lane, given when it is queued.
    pub place: i64,
    /// Which surface it came from, as its run will say.
    pub channel: String,
    /// The schedule or deployment.
    pub source_id: String,
    /// JSON: what the model is told.
    pub turns: String,
    /// JSON: `[{role, content}]`, as the run's record shows it.
    pub input: String,
    /// What is added to the smith's instructions.
    pub context: Option<String>,
    /// JSON object: the run's metadata.
    pub metadata: Option<String>,
    /// JSON: who sent it.
    pub actor: String,
    /// JSON: where the answer goes; `None`: it stays in the thread.
    pub reply_to: Option<String>,
    /// The channel's conversation that the answer goes to.
    pub chat: Option<String>,
    /// The arrival's own name for its message, by which it may be taken back.
    pub message: Option<String>,
    /// A [`LaneRule`].
    pub rule: String,
    /// The id of the run that it becomes.
    pub run_id: String,
    /// `queued`, `running`, or the word of a [`TurnEnd`].
    pub status: String,
    /// Why it failed or was dropped.
    pub reason: Option<String>,
    /// JSON: what its channel shows of the answer while it is written.
    pub draft: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// A smith's thread with turns that wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash, sqlx::FromRow)]
pub struct LaneRow {
    pub tenant_id: String,
    pub smith_id: String,
    pub thread_id: String,
    /// How often it was taken up since a node last said what became of it.
    pub takings: i64,
    /// The place of the last turn that came.
    pub arrived: i64,
}

/// Lanes and the turns in them.
#[async_trait]
pub trait LaneStore: Send + Sync {
    /// Puts a turn at the end of its lane; `false` when one with its id is there.
    async fn enqueue_turn(&self, turn: &QueuedTurnRow) -> Result<bool>;
    /// Tenants above `after` that have lanes, at most `limit`.
    async fn tenants_with_lanes(&self, after: &str, limit: i64) -> Result<Vec<String>>;
    /// Takes lanes of a tenant that are due, for `node_id` until `hold_until`.
    async fn claim_lanes(
        &self,
        tenant_id: &str,
        node_id: &str,
        now: i64,
        hold_until: i64,
        limit: i64,
    ) -> Result<Vec<LaneRow>>;
    /// The turns of a lane that wait or run, in order.
    async fn lane_turns(&self, lane: &LaneRow, limit: i64) -> Result<Vec<QueuedTurnRow>>;
    /// Marks turns as those of one run; `false` when the lane is no longer this node's.
    async fn begin_turns(
        &self,
        lane: &LaneRow,
        node_id: &str,
        turns: &[String],
        run_id: &str,
        now: i64,
    ) -> Result<bool>;
    /// Puts turns of a run that could not be begun back into the queue; `false` when the lane is no
    /// longer this node's.
    async fn requeue_turns(
        &self,
        lane: &LaneRow,
        node_id: &str,
        turns: &[String],
        now: i64,
    ) -> Result<bool>;
    /// Ends a turn that becomes no run, or whose run has ended; with what the feed says of it, and its
    /// sender is told.
    async fn end_turn(
        &self,
        tenant_id: &str,
        id: &str,
        end: TurnEnd,
        reason: Option<&str>,
        told: Option<(&EventRow, &str)>,
        now: i64,
    ) -> Result<bool>;
    /// Gives a lane back, to be looked at again at `due_at`, or at once when more has come since it was
    /// taken. One without turns is gone.
    async fn release_lane(
        &self,
        lane: &LaneRow,
        node_id: &str,
        due_at: i64,
        now: i64,
    ) -> Result<()>;
    /// Prolongs the hold of a lane; `false` when it is no longer this node's.
    async fn hold_lane(&self, lane: &LaneRow, node_id: &str, until: i64) -> Result<bool>;
    /// Gives back what was held of lanes, arrivals and messages by processes that are gone: for a
    /// store that has one process at a time.
    async fn release_all_held(&self, now: i64) -> Result<()>;
    /// Gives all of a node's lanes back, when it shuts down.
    async fn release_lanes_of(&self, node_id: &str, now: i64) -> Result<()>;
    /// The turns that one run answers.
    async fn turns_of_run(&self, tenant_id: &str, run_id: &str) -> Result<Vec<QueuedTurnRow>>;
    /// The turn of a thread that has become a run, which has not ended.
    async fn running_turn(
        &self,
        tenant_id: &str,
        smith_id: &str,
        thread_id: &str,
    ) -> Result<Option<QueuedTurnRow>>;
    /// Notes what is shown of a turn's answer.
    async fn note_draft(&self, tenant_id: &str, id: &str, draft: &str, now: i64) -> Result<()>;
    /// Whether a message waits in a lane.
    async fn waits_in_lane(
        &self,
        tenant_id: &str,
        smith_id: &str,
        thread_id: &str,
        message: &str,
    ) -> Result<bool>;
    /// A turn by its id.
    async fn queued_turn(&self, tenant_id: &str, id: &str) -> Result<Option<QueuedTurnRow>>;
}
