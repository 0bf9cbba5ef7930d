//! Runs, their frames and the history of threads.

use std::sync::Arc;

use async_trait::async_trait;

use super::{EventRow, Op, Result, Rows, RunStatus, TraceRecord, UsageEventRow, UsageRow};

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RunRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub agent_id: String,
    pub thread_id: String,
    pub channel: String,
    pub status: RunStatus,
    /// Whether it holds its thread (`conversation_locked`).
    pub exclusive: bool,
    /// Which optional frames are numbered on the native stream.
    pub include_mask: i64,
    /// JSON: `[{role, content}]` as the caller sent it.
    pub input: String,
    /// JSON: the turns that this run adds to its thread.
    pub transcript: Option<String>,
    /// JSON: the `output` member.
    pub output: Option<String>,
    pub stop_reason: Option<String>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    /// JSON: `[{code, message}]`.
    pub warnings: String,
    /// JSON of [`crate::frame::Usage`].
    pub token_usage: Option<String>,
    pub metadata: Option<String>,
    pub actor: Option<String>,
    pub node_id: String,
    pub lease_until: i64,
    pub created_at: i64,
    pub updated_at: i64,
    /// The response that it continues.
    pub previous_run_id: Option<String>,
    /// JSON: what the Responses wire shows of its request.
    pub response: Option<String>,
    /// Why another node wants it cancelled.
    pub cancel_reason: Option<String>,
    /// How often it was taken up after its node died with it.
    pub takings: i64,
    /// Its place in the history of its thread, for one that took it.
    pub turn: Option<i64>,
}

impl RunRow {
    /// Whether its end is still to come, and no human is waited for.
    pub fn is_under_way(&self) -> bool {
        self.status.is_under_way()
    }

    /// Whether it may have come out of a lane, which goes on when it ends.
    pub fn may_be_of_lane(&self) -> bool {
        super::LANE_CHANNELS.contains(&self.channel.as_str())
    }
}

/// What a run that is to go on with a thread must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct ThreadSeen {
    /// Whether a run is under way or waits, so that the thread's history is not whole.
    pub is_held: bool,
    /// The place of the newest run in the history; 0 before the first.
    pub turn: i64,
}

/// What it takes to go on with a run; both are JSON.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RunState {
    /// As it began.
    pub base: String,
    /// What it did since.
    pub progress: String,
}

/// How far a run has come, written before and after each side effect.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub tenant_id: String,
    pub run_id: String,
    /// Whose run it is; a node that has lost it writes nothing.
    pub node_id: Arc<str>,
    /// `base` only where it was not written before.
    pub base: Option<String>,
    pub progress: String,
    /// Number of the first, and the encoded frames.
    pub frames: Option<(i64, Vec<u8>)>,
    pub events: Vec<EventRow>,
    pub pause: Option<Pause>,
    /// Whether the run may have come out of a lane.
    pub of_lane: bool,
    /// The OAuth provider whose grant the person is asked for, where they are answered.
    pub wants: Option<String>,
    pub updated_at: i64,
}

/// Why and with what a run waits.
#[derive(Debug, Clone)]
pub struct Pause {
    pub status: RunStatus,
    pub transcript: Option<String>,
    pub output: String,
    pub warnings: String,
    pub token_usage: Option<String>,
    /// What humans must decide.
    pub approvals: Vec<super::ApprovalRow>,
}

#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub smith_id: Option<String>,
    pub thread_id: Option<String>,
    pub agent_id: Option<String>,
    pub status: Option<String>,
    pub external_id_prefix: Option<String>,
}

/// What ends or changes a run's row.
#[derive(Debug, Clone)]
pub struct RunEnd {
    pub tenant_id: String,
    pub id: String,
    /// Whose run it is; a node that has lost it ends nothing.
    pub node_id: Arc<str>,
    /// Whether a state was kept of it, and maybe approvals wait.
    pub has_state: bool,
    pub status: RunStatus,
    pub transcript: Option<String>,
    pub output: Option<String>,
    pub stop_reason: Option<&'static str>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub warnings: String,
    pub token_usage: Option<String>,
    /// The run's last frames, written with its row: number of the first, and the encoded frames.
    pub frames: Option<(i64, Vec<u8>)>,
    /// What the feed says of it.
    pub event: Option<EventRow>,
    pub trace: Option<TraceRecord>,
    /// What the usage ledger says of it.
    pub ledger: Option<UsageEventRow>,
    /// Whether it may have come out of a lane, which goes on then.
    pub of_lane: bool,
    pub updated_at: i64,
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
    /// Tenants with runs still marked as live whose lease ended before `before` (`i64::MAX`: all of
    /// them), but for those of `node_id`; those first that wait longest.
    async fn lapsed_tenants(&self, before: i64, node_id: &str, limit: i64) -> Result<Vec<String>>;
    /// These runs of a tenant. Their rows may be large, and are read one by one.
    async fn lapsed_runs(
        &self,
        tenant_id: &str,
        before: i64,
        node_id: &str,
        limit: i64,
    ) -> Result<Vec<String>>;
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
    /// Lets go of a run's lease, its taking uncounted, while it is a node's; `false`: it is not.
    async fn release_run(&self, tenant_id: &str, id: &str, node_id: &str) -> Result<bool>;
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
