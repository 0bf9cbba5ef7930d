//! Leases: a node holds its runs for a while, and ends what a dead one left.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;

use super::account;
use super::engine::{Runs, failed_frame};
use crate::error::ApiError;
use crate::frame::{self, StopReason};
use crate::store::{Op, RunEnd, now_micros};

/// A node that shows no life for this long has lost its runs.
pub(super) const LEASE: Duration = Duration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(10);

impl Runs {
    /// Marks runs whose node is gone as failed; with `all`, every run marked as live. Their thread
    /// is free again, and their record says what happened.
    pub async fn fail_lapsed(&self, all: bool) -> Result<usize, ApiError> {
        let before = if all { i64::MAX } else { now_micros() };
        let lapsed = self.store.lapsed_runs(before).await?;
        let error = ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "run_failed",
            "the node that ran this turn stopped before its end",
        );
        let mut failed = 0;
        for run in lapsed {
            if self.live(&run.tenant_id, &run.id).is_some() {
                continue;
            }
            let logged: usize = self
                .store
                .run_frames(&run.tenant_id, &run.id)
                .await?
                .into_iter()
                .filter_map(|bytes| frame::decode_all(bytes.into()).ok())
                .map(|frames| frames.len())
                .sum();
            let mut bytes = BytesMut::new();
            frame::encode(&failed_frame(&error), &mut bytes);
            let mut end = RunEnd {
                tenant_id: run.tenant_id.clone(),
                id: run.id.clone(),
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
            end.event = account::event(&run, &end, None);
            end.trace = Some(account::trace(&run, &end, &[]));
            failed += usize::from(self.journal.commit(Op::EndRun(Box::new(end))).await?);
        }
        Ok(failed)
    }

    /// Renews this node's leases and fails the runs of nodes that are gone, for ever.
    pub async fn keep_leases(self: Arc<Self>) {
        let mut interval = tokio::time::interval(RENEW_EVERY);
        loop {
            interval.tick().await;
            let until = now_micros() + LEASE.as_micros() as i64;
            if let Err(error) = self.store.renew_leases(&self.node_id, until).await {
                tracing::warn!(%error, "cannot renew the leases of runs");
            }
            match self.fail_lapsed(false).await {
                Ok(0) => {}
                Ok(count) => tracing::warn!(count, "failed runs whose node was gone"),
                Err(error) => tracing::warn!(%error, "cannot look for lapsed runs"),
            }
        }
    }
}
