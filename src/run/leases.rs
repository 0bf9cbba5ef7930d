//! Leases: a node holds its runs for a while; what a dead one left is taken up in `lapsed`. Also what
//! nobody asked for in time: approvals that expire, decisions that no node took up.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::account;
use super::job::failed_frame;
use super::live::{Cancelled, LiveRun};
use super::resume::Word;
use super::runs::Runs;
use crate::error::ApiError;
use crate::frame::{self, StopReason};
use crate::store::{ApprovalStatus, Op, RunEnd, RunRow, RunStatus, now_micros};

/// How soon another node's wish to cancel is seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A decision that its own node has not taken up after this is taken up by any.
const LEFT_BEHIND_MICROS: i64 = 10 * 1_000_000;

impl Runs {
    /// A run of this node was taken by another, although this one lives: it may only have been late.
    pub(super) async fn is_alive(&self, live: &LiveRun) {
        tracing::warn!(run_id = %live.run_id, "another node has taken a run of this one");
        let uncounted = self.store.uncount_taking(&live.tenant_id, &live.run_id);
        if let Err(error) = uncounted.await {
            tracing::warn!(%error, run_id = %live.run_id, "cannot say that this node lives");
        }
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
            status: RunStatus::Failed,
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
            of_lane: run.may_be_of_lane(),
            updated_at: now_micros(),
        };
        end.event = account::event(run, &end, None);
        end.trace = Some(account::trace(run, &end, &[], &[]));
        self.journal.commit(Op::EndRun(Box::new(end))).await?;
        Ok(())
    }

    /// How often leases are renewed, and looked at.
    pub(super) fn renew_every(&self) -> Duration {
        Duration::from_millis(self.limits.lease_ms / 3).max(LOOK_EVERY / 5)
    }

    /// Renews this node's leases, for ever.
    pub async fn keep_leases(self: Arc<Self>) {
        let mut interval = tokio::time::interval(self.renew_every());
        loop {
            interval.tick().await;
            let until = self.lease().until;
            if let Err(error) = self.store.renew_leases(&self.node_id, until).await {
                tracing::warn!(%error, "cannot renew the leases of runs");
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
            let is_over = approval.is_some_and(|row| row.status != ApprovalStatus::Pending);
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
