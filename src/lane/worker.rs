//! The worker that makes runs of what waits in lanes.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::error::ApiError;
use crate::limit::Admission;
use crate::metrics::Metrics;
use crate::run::{LiveRun, Runs};
use crate::store::{LaneRow, LaneRule, QueuedTurnRow, Store, TurnEnd, now_micros};

const SECOND: i64 = 1_000_000;
/// How often lanes are looked at when nothing wakes the worker.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks in a row are no closer than this, however often something wakes the worker.
const BREATH: Duration = Duration::from_millis(10);
/// A lane that was taken is nobody else's for so long; it is prolonged while it is worked on.
const HOLD: Duration = Duration::from_secs(15);
/// A turn has so long to begin.
const BEGIN_WITHIN: Duration = Duration::from_secs(100);
/// Lanes of one tenant that are taken up before it is another's turn.
const AT_ONCE: i64 = 16;
/// Tenants of one look at the store.
const TENANTS: i64 = 200;
/// Lanes that this node begins turns in at once.
const BEGINNING: usize = 64;
/// Turns of a lane that are looked at, and at most become one.
const LOOKED_AT: i64 = 100;
/// The end of a run wakes its lane; this is for when that is lost.
const LOOK_AGAIN: i64 = 30 * SECOND;
/// A lane is taken up so often without a word of what became of it; then its turn is given up.
const MAX_TAKINGS: i64 = 2;
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
    beginning: Arc<Semaphore>,
}

/// A turn whose run has begun on this node, for whoever shows it.
pub struct Begun {
    pub tenant_id: String,
    pub turn_id: String,
    pub channel: String,
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
            beginning: Arc::new(Semaphore::new(BEGINNING)),
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
            reply_to: serde_json::from_str(reply_to).unwrap_or_default(),
            live: live.clone(),
        };
        let _ = to.try_send(begun);
    }

    /// Something may be due.
    pub fn wake(&self) {
        self.due.notify_one();
    }

    /// Begins what is due, for ever.
    pub async fn work(self: Arc<Self>) {
        loop {
            let _ = tokio::time::timeout(LOOK_EVERY, self.due.notified()).await;
            match self.look().await {
                // More may be due than is taken up in one look.
                Ok(taken) if taken > 0 => self.wake(),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot look for lanes that are due"),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Takes up what is due, some of each tenant; answers how many lanes.
    async fn look(self: &Arc<Self>) -> Result<usize, ApiError> {
        let mut after = String::new();
        let mut taken = 0;
        loop {
            let tenants = self.store.tenants_with_lanes(&after, TENANTS).await?;
            for tenant in &tenants {
                taken += self.take_up(tenant).await?;
            }
            match tenants.last() {
                Some(last) if tenants.len() as i64 == TENANTS => after.clone_from(last),
                _ => return Ok(taken),
            }
        }
    }

    async fn take_up(self: &Arc<Self>, tenant_id: &str) -> Result<usize, ApiError> {
        let free = self.beginning.available_permits() as i64;
        if free == 0 || self.beginning.is_closed() {
            return Ok(0);
        }
        let now = now_micros();
        let hold_until = now + HOLD.as_micros() as i64;
        let node_id = self.runs.node_id();
        let lanes = self
            .store
            .claim_lanes(tenant_id, node_id, now, hold_until, AT_ONCE.min(free))
            .await?;
        let taken = lanes.len();
        for lane in lanes {
            let Ok(permit) = self.beginning.clone().acquire_owned().await else {
                return Ok(taken);
            };
            let worker = self.clone();
            tokio::spawn(async move {
                worker.go_on(&lane).await;
                drop(permit);
                worker.wake();
            });
        }
        Ok(taken)
    }

    /// Works on a lane that was taken, and gives it back.
    async fn go_on(&self, lane: &LaneRow) {
        let work = AssertUnwindSafe(self.steps(lane)).catch_unwind();
        let work = tokio::time::timeout(BEGIN_WITHIN, work);
        let worked = tokio::select! {
            worked = work => worked,
            // It is another node's: what is begun there counts.
            () = self.hold(lane) => return,
        };
        let due_at = match worked {
            Ok(Ok(Ok(due_at))) => due_at,
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, thread_id = lane.thread_id, "a lane does not go on");
                now_micros() + 5 * SECOND
            }
            // It is taken up again when it is held no more, and counted.
            Ok(Err(_)) => {
                tracing::error!(thread_id = lane.thread_id, "a lane panicked");
                return;
            }
            Err(_) => {
                tracing::warn!(thread_id = lane.thread_id, "a turn took too long to begin");
                now_micros() + 5 * SECOND
            }
        };
        let (node_id, now) = (self.runs.node_id(), now_micros());
        if let Err(error) = self.store.release_lane(lane, node_id, due_at, now).await {
            tracing::warn!(%error, thread_id = lane.thread_id, "a lane is not given back");
        }
    }

    /// Prolongs the hold of a lane; ends when it is lost.
    async fn hold(&self, lane: &LaneRow) {
        loop {
            tokio::time::sleep(HOLD / 3).await;
            let until = now_micros() + HOLD.as_micros() as i64;
            let node_id = self.runs.node_id();
            match self.store.hold_lane(lane, node_id, until).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "a lane's hold is not prolonged"),
            }
        }
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

    /// Begins nothing more.
    pub fn stop(&self) {
        self.beginning.close();
    }

    /// Gives lanes back that this node has taken, when it shuts down.
    pub async fn release(&self) {
        let node_id = self.runs.node_id();
        if let Err(error) = self.store.release_lanes_of(node_id, now_micros()).await {
            tracing::warn!(%error, "cannot give lanes back");
        }
    }
}
