//! Leases: a node holds its runs for a while, and goes on with what a dead one left. Also what
//! nobody asked for in time: approvals that expire, decisions that no node took up.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;

use super::account;
use super::engine::{Runs, failed_frame};
use super::live::{Cancelled, LiveRun};
use super::resume::Word;
use super::state::Base;
use crate::error::ApiError;
use crate::frame::{self, StopReason};
use crate::store::{Op, RunEnd, RunRow, now_micros};

/// How soon another node's wish to cancel is seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A decision that its own node has not taken up after this is taken up by any.
const LEFT_BEHIND_MICROS: i64 = 10 * 1_000_000;

/// A run is gone on with so often after its node died with it; then it is taken for the cause.
const MAX_TAKINGS: i64 = 2;

impl Runs {
    /// Takes the runs of nodes that are gone: those whose state is known go on here, the others
    /// are marked as failed. With `all`, every run marked as live is one of these. Answers how
    /// many there were.
    pub async fn take_lapsed(self: &Arc<Self>, all: bool) -> Result<usize, ApiError> {
        let before = if all { i64::MAX } else { now_micros() };
        let lapsed = self.store.lapsed_runs(before).await?;
        let mut taken = 0;
        for (tenant, id) in &lapsed {
            if self.live(tenant, id).is_some() {
                continue;
            }
            let lease = self.lease();
            if !self
                .store
                .take_lapsed_run(tenant, id, before, &lease)
                .await?
            {
                continue;
            }
            taken += 1;
            let Some(run) = self.store.run(tenant, id).await? else {
                continue;
            };
            if run.takings > MAX_TAKINGS {
                let error = ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "run_failed",
                    format!("the run ended its node {} times", run.takings),
                );
                self.fail(&run, &error).await?;
                continue;
            }
            if self.is_detached(&run).await? {
                let approvals = self.store.run_approvals(tenant, id).await?;
                let asked = run
                    .cancel_reason
                    .clone()
                    .map(|why| Cancelled::Asked(Some(why)));
                match self.revive(&run, &approvals, asked).await {
                    Ok(_) => continue,
                    Err(error) => tracing::warn!(%error, run_id = %id, "cannot go on with a run"),
                }
            }
            let error = ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "run_failed",
                "the node that ran this turn stopped before its end",
            );
            self.fail(&run, &error).await?;
        }
        Ok(taken)
    }

    /// A run of this node was taken by another, although this one lives: it may only have been late.
    pub(super) async fn is_alive(&self, live: &LiveRun) {
        tracing::warn!(run_id = %live.run_id, "another node has taken a run of this one");
        let uncounted = self.store.uncount_taking(&live.tenant_id, &live.run_id);
        if let Err(error) = uncounted.await {
            tracing::warn!(%error, run_id = %live.run_id, "cannot say that this node lives");
        }
    }

    /// Whether anybody may still ask for the run's end.
    async fn is_detached(&self, run: &RunRow) -> Result<bool, ApiError> {
        let state = self.store.run_state(&run.tenant_id, &run.id).await?;
        let base = state.and_then(|state| serde_json::from_str::<Base>(&state.base).ok());
        Ok(base.is_some_and(|base| base.detached))
    }

    /// Ends a run that this node has taken and cannot go on with.
    pub(super) async fn fail(&self, run: &RunRow, error: &ApiError) -> Result<(), ApiError> {
        let logged = self.frames_so_far(run).await?.len();
        let mut bytes = BytesMut::new();
        frame::encode(&failed_frame(error), &mut bytes);
        let mut end = RunEnd {
            tenant_id: run.tenant_id.clone(),
            id: run.id.clone(),
            node_id: self.node_id.clone(),
            has_state: true,
            status: "failed",
            transcript: None,
            output: None,
            stop_reason: Some(StopReason::Error.as_str()),
            error_code: Some(error.code.to_string()),
            error: Some(error.message.to_string()),
            warnings: run.warnings.clone(),
            token_usage: None,
            frames: Some((logged as i64, bytes.to_vec())),
            event: None,
            trace: None,
            ledger: None,
            updated_at: now_micros(),
        };
        end.event = account::event(run, &end, None);
        end.trace = Some(account::trace(run, &end, &[], &[]));
        self.journal.commit(Op::EndRun(Box::new(end))).await?;
        Ok(())
    }

    /// Renews this node's leases and takes the runs of nodes that are gone, for ever.
    pub async fn keep_leases(self: Arc<Self>) {
        let every = Duration::from_millis(self.limits.lease_ms / 3).max(LOOK_EVERY / 5);
        let mut interval = tokio::time::interval(every);
        loop {
            interval.tick().await;
            let until = self.lease().until;
            if let Err(error) = self.store.renew_leases(&self.node_id, until).await {
                tracing::warn!(%error, "cannot renew the leases of runs");
            }
            match self.take_lapsed(false).await {
                Ok(0) => {}
                Ok(count) => tracing::warn!(count, "took runs whose node was gone"),
                Err(error) => tracing::warn!(%error, "cannot look for lapsed runs"),
            }
            if let Err(error) = self.take_left_behind().await {
                tracing::warn!(%error, "cannot look for approvals that are left behind");
            }
            if let Err(error) = self.settle().await {
                tracing::warn!(%error, "cannot settle runs that were not kept");
            }
            if let Err(error) = self.let_go().await {
                tracing::warn!(%error, "cannot look for calls that are held");
            }
        }
    }

    /// Rejects what nobody decided in time, and goes on with what was decided but not taken up.
    async fn take_left_behind(self: &Arc<Self>) -> Result<(), ApiError> {
        let now = now_micros();
        for approval in self.store.expired_approvals(now, 100).await? {
            let run_id = approval.run_id.unwrap_or_default();
            let Some(run) = self.store.run(&approval.tenant_id, &run_id).await? else {
                continue;
            };
            let word = Word {
                approval_id: Some(approval.id),
                approve: false,
                reason: Some("nobody decided in time".to_owned()),
                ..Word::default()
            };
            // A human may be faster in the same moment.
            if let Err(error) = self.decide(&run, &word).await {
                tracing::info!(%error, run_id = %run.id, "an approval did not expire");
            }
        }
        for (tenant, id) in self.store.decided_runs(now - LEFT_BEHIND_MICROS).await? {
            let Some(run) = self.store.run(&tenant, &id).await? else {
                continue;
            };
            if let Err(error) = self.go_on(&run, None).await {
                tracing::warn!(%error, run_id = %run.id, "cannot go on with a run");
            }
        }
        Ok(())
    }

    /// Lets calls go whose questions were answered elsewhere, or by nobody.
    async fn let_go(&self) -> Result<(), ApiError> {
        let held: Vec<(String, Arc<str>)> = {
            let held = self.held.lock();
            held.iter()
                .map(|(id, call)| (id.clone(), call.tenant_id.clone()))
                .collect()
        };
        for (id, tenant) in held {
            let approval = self.store.approval(&tenant, &id).await?;
            let run_id = approval.as_ref().and_then(|row| row.run_id.clone());
            let is_live = run_id.is_some_and(|run| self.live(&tenant, &run).is_some());
            // A call is held a moment before its approval is written.
            let is_over = approval.is_some_and(|row| row.status != "pending");
            if is_over && !is_live {
                self.held.lock().remove(&id);
            }
        }
        Ok(())
    }

    /// Cancels what other nodes were asked to cancel, for ever.
    pub async fn follow_cancels(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        loop {
            interval.tick().await;
            if self.live_count() == 0 {
                continue;
            }
            match self.store.asked_to_cancel(&self.node_id).await {
                Ok(asked) => {
                    for (tenant, run, reason) in asked {
                        if let Some(live) = self.live(&tenant, &run) {
                            let reason = (!reason.is_empty()).then_some(reason);
                            live.cancel(Cancelled::Asked(reason));
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot look for runs to cancel"),
            }
        }
    }
}
