//! The worker that makes runs of what waits in lanes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use crate::error::ApiError;
use crate::limit::Admission;
use crate::metrics::Metrics;
use crate::run::{LiveRun, Runs};
use crate::store::{LaneRow, LaneRule, QueuedTurnRow, Store, TurnEnd, now_micros};
use crate::work::{AtShutdown, Claim, Due, Held, Lane, Rules, Work};

const SECOND: i64 = 1_000_000;
/// How often lanes are looked at when nothing wakes the worker.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A lane that was taken is nobody else's for so long; it is prolonged while it is worked on.
const HOLD: Duration = Duration::from_secs(15);
/// A turn has so long to begin.
const BEGIN_WITHIN: Duration = Duration::from_secs(100);
/// Lanes of one tenant at once.
const OF_A_TENANT: usize = 32;
/// Lanes that this node begins turns in at once.
const BEGINNING: usize = 64;
/// Turns of a lane that are looked at, and at most become one.
const LOOKED_AT: i64 = 100;
/// The end of a run wakes its lane; this is for when that is lost.
const LOOK_AGAIN: i64 = 30 * SECOND;
/// A lane is taken up so often without a word of what became of it; then its turn is given up.
const MAX_TAKINGS: i64 = 3;
/// A turn that could not begin for so long is given up.
const PATIENCE: i64 = 3600 * SECOND;

/// Makes runs of the turns that wait.
pub struct Lanes {
    pub(super) store: Arc<dyn Store>,
    pub(super) runs: Arc<Runs>,
    pub(super) gate: Arc<Admission>,
    pub(super) metrics: Metrics,
    due: Arc<Notify>,
    begun: OnceLock<mpsc::Sender<Begun>>,
}

/// A turn whose run has begun on this node, for whoever shows it.
pub struct Begun {
    pub tenant_id: String,
    pub turn_id: String,
    pub channel: String,
    /// The conversation.
    pub chat: String,
    /// Where its answer goes.
    pub reply_to: Value,
    pub live: Arc<LiveRun>,
}

/// What is to be done with a lane.
enum Step {
    /// It waits for a run, or for its next try.
    Until(i64),
    /// There may be more to do at once.
    Again,
}

impl Lanes {
    /// Over `store`; turns become runs of `runs`.
    pub fn new(
        store: Arc<dyn Store>,
        runs: Arc<Runs>,
        gate: Arc<Admission>,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            due: runs.lane_due.clone(),
            store,
            runs,
            gate,
            metrics,
            begun: OnceLock::new(),
        })
    }

    /// Names who is told of turns that begin; the first counts.
    pub fn tell_begun(&self, to: mpsc::Sender<Begun>) {
        let _ = self.begun.set(to);
    }

    /// Tells of a turn that has begun. It is answered all the same when nobody listens.
    pub(super) fn has_begun(&self, turn: &QueuedTurnRow, live: &Arc<LiveRun>) {
        let (Some(to), Some(reply_to)) = (self.begun.get(), &turn.reply_to) else {
            return;
        };
        let begun = Begun {
            tenant_id: turn.tenant_id.clone(),
            turn_id: turn.id.clone(),
            channel: turn.channel.clone(),
            chat: turn.chat.clone().unwrap_or_default(),
            reply_to: serde_json::from_str(reply_to).unwrap_or_default(),
            live: live.clone(),
        };
        let _ = to.try_send(begun);
    }

    /// Something may be due.
    pub fn wake(&self) {
        self.due.notify_one();
    }

    async fn steps(&self, lane: &LaneRow) -> Result<i64, ApiError> {
        let mut given_up = lane.takings <= MAX_TAKINGS;
        loop {
            let turns = self.store.lane_turns(lane, LOOKED_AT).await?;
            let Some(head) = turns.first() else {
                return Ok(now_micros());
            };
            if !given_up {
                given_up = true;
                let takings = lane.takings - 1;
                let why = format!("to begin this turn ended its node {takings} times");
                self.fail(head, &ApiError::internal(why)).await?;
                continue;
            }
            let step = match head.status.as_str() {
                "running" => self.follow(lane, head, &turns).await?,
                _ => self.begin_next(lane, head, &turns).await?,
            };
            if let Step::Until(due_at) = step {
                return Ok(due_at);
            }
        }
    }

    /// Looks what became of a run.
    async fn follow(
        &self,
        lane: &LaneRow,
        head: &QueuedTurnRow,
        turns: &[QueuedTurnRow],
    ) -> Result<Step, ApiError> {
        let run = self.store.run(&lane.tenant_id, &head.run_id).await?;
        let Some(run) = run else {
            // The node that was to begin it did not come so far.
            let same: Vec<&QueuedTurnRow> = turns
                .iter()
                .take_while(|turn| turn.run_id == head.run_id)
                .collect();
            return self.begin(lane, &same).await;
        };
        if run.is_under_way() || run.status.is_paused() {
            let is_interrupted = turns
                .iter()
                .any(|turn| turn.status == "queued" && turn.rule == LaneRule::Interrupt.as_str());
            if is_interrupted && run.cancel_reason.is_none() {
                self.runs
                    .ask_to_end(&run, Some("another message came".to_owned()))
                    .await?;
            }
            return Ok(Step::Until(now_micros() + LOOK_AGAIN));
        }
        let (end, now) = (TurnEnd::Done, now_micros());
        self.store
            .end_turn(&lane.tenant_id, &head.id, end, None, None, now)
            .await?;
        Ok(Step::Again)
    }

    /// Makes a run of the first turn that waits, or of all that are to become one.
    async fn begin_next(
        &self,
        lane: &LaneRow,
        head: &QueuedTurnRow,
        turns: &[QueuedTurnRow],
    ) -> Result<Step, ApiError> {
        let is_merged = |turn: &QueuedTurnRow| turn.rule == LaneRule::Merge.as_str();
        let group: Vec<&QueuedTurnRow> = match is_merged(head) {
            true => turns.iter().take_while(|turn| is_merged(turn)).collect(),
            false => vec![head],
        };
        let ids: Vec<String> = group.iter().map(|turn| turn.id.clone()).collect();
        let node_id = self.runs.node_id();
        let is_ours = self
            .store
            .begin_turns(lane, node_id, &ids, &head.run_id, now_micros())
            .await?;
        match is_ours {
            true => self.begin(lane, &group).await,
            false => Ok(Step::Until(now_micros())),
        }
    }

    /// Begins the run of turns that are marked as its own.
    async fn begin(&self, lane: &LaneRow, group: &[&QueuedTurnRow]) -> Result<Step, ApiError> {
        let Some(head) = group.first() else {
            return Ok(Step::Again);
        };
        let refused = match self.start(group).await {
            Ok(()) => {
                let lag = (now_micros() - head.created_at).max(0) as f64 / 1e6;
                let channel = [head.channel.as_str()];
                self.metrics
                    .lane_lag
                    .with_label_values(&channel)
                    .observe(lag);
                return Ok(Step::Until(now_micros() + LOOK_AGAIN));
            }
            Err(refused) => refused,
        };
        let now = now_micros();
        let is_held = refused.code == "conversation_locked";
        if is_held
            && self
                .store
                .run(&head.tenant_id, &head.run_id)
                .await?
                .is_some()
        {
            // A node that was thought dead has begun it.
            return Ok(Step::Until(now + LOOK_AGAIN));
        }
        let passes = is_held || refused.status.is_server_error() || refused.status.as_u16() == 429;
        if passes && now - head.created_at < PATIENCE {
            let ids: Vec<String> = group.iter().map(|turn| turn.id.clone()).collect();
            let node_id = self.runs.node_id();
            self.store.requeue_turns(lane, node_id, &ids, now).await?;
            // The longer it waits, the seldomer it is tried.
            let pause = ((now - head.created_at) / 4).clamp(SECOND, 30 * SECOND);
            let asked = refused.retry_after.unwrap_or(0).min(300) as i64 * SECOND;
            return Ok(Step::Until(now + pause.max(asked)));
        }
        for turn in group {
            self.fail(turn, &refused).await?;
        }
        Ok(Step::Again)
    }
}

/// Lanes as work: each is gone on with by one node.
pub struct Turns(pub Arc<Lanes>);

#[async_trait]
impl Work for Turns {
    type Item = LaneRow;
    /// When it is to be looked at again.
    type Outcome = i64;

    fn rules(&self) -> Rules {
        Rules {
            name: "lanes",
            hold: HOLD,
            look_every: LOOK_EVERY,
            at_once: BEGINNING,
            per_tenant: OF_A_TENANT,
            per_lane: OF_A_TENANT,
            // What is deadly is one turn, not its lane: `steps` gives that up.
            give_up_after: i64::MAX,
            at_shutdown: AtShutdown::GiveBack,
        }
    }

    async fn due(&self, now: i64, limit: i64) -> Result<Due, ApiError> {
        let tenants = self.0.store.tenants_with_lanes(now, limit).await?;
        Ok(Due {
            lanes: tenants.iter().map(|tenant| Lane::tenant(tenant)).collect(),
            next: None,
        })
    }

    async fn claim(&self, lane: &Lane, claim: Claim) -> Result<Vec<LaneRow>, ApiError> {
        let node_id = self.0.runs.node_id();
        let (now, until, limit) = (claim.now, claim.until, claim.limit);
        let claimed = self
            .0
            .store
            .claim_lanes(&lane.tenant_id, node_id, now, until, limit);
        Ok(claimed.await?)
    }

    fn ended_nodes(&self, lane: &LaneRow) -> i64 {
        lane.takings - 1
    }

    fn name(&self, lane: &LaneRow) -> String {
        lane.thread_id.clone()
    }

    async fn renew(&self, held: &[Arc<Held<LaneRow>>], until: i64) -> Result<Vec<bool>, ApiError> {
        let node_id = self.0.runs.node_id();
        let mut still = Vec::with_capacity(held.len());
        for lane in held {
            still.push(self.0.store.hold_lane(&lane.item, node_id, until).await?);
        }
        Ok(still)
    }

    async fn perform(&self, held: &Held<LaneRow>) -> i64 {
        let thread_id = &held.item.thread_id;
        match tokio::time::timeout(BEGIN_WITHIN, self.0.steps(&held.item)).await {
            Ok(Ok(due_at)) => due_at,
            Ok(Err(error)) => {
                tracing::warn!(%error, thread_id, "a lane does not go on");
                now_micros() + 5 * SECOND
            }
            Err(_) => {
                tracing::warn!(thread_id, "a turn took too long to begin");
                now_micros() + 5 * SECOND
            }
        }
    }

    fn given_up(&self, _lane: &LaneRow, _times: i64) -> i64 {
        now_micros()
    }

    async fn settle(&self, lane: &LaneRow, _until: i64, due_at: &i64) -> Result<bool, ApiError> {
        let (store, node_id) = (&self.0.store, self.0.runs.node_id());
        let released = store.release_lane(lane, node_id, *due_at, now_micros());
        Ok(released.await?)
    }

    async fn release(&self, lane: &LaneRow, _until: i64, now: i64) -> Result<bool, ApiError> {
        let (store, node_id) = (&self.0.store, self.0.runs.node_id());
        Ok(store.release_lane(lane, node_id, now, now).await?)
    }

    async fn uncount(&self, lane: &LaneRow) -> Result<(), ApiError> {
        Ok(self.0.store.uncount_lane(lane).await?)
    }
}
