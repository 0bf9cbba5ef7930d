//! Ending a run that somebody no longer wants, and waiting until a run rests.

use std::sync::Arc;
use std::time::Duration;

use super::live::{Cancelled, LiveRun};
use super::runs::Runs;
use crate::error::ApiError;
use crate::store::RunRow;

impl Runs {
    /// The run, while this node has it.
    fn here(&self, run: &RunRow) -> Option<Arc<LiveRun>> {
        let live = self.live(&run.tenant_id, &run.id);
        live.filter(|_| !self.lost(run))
    }

    /// Waits until a run rests, if it is on this node: it has ended, or waits for somebody.
    pub async fn rested(&self, run: &RunRow) -> Result<RunRow, ApiError> {
        if let Some(live) = self.here(run) {
            let mut reader = live.reader();
            let mut frames = Vec::new();
            while reader.next(&mut frames).await {
                frames.clear();
            }
        }
        let now = self.store.run(&run.tenant_id, &run.id).await?;
        now.ok_or_else(|| ApiError::not_found("run", &run.id))
    }

    /// Has a run end that is under way or waits, wherever it is; does not wait for that. Whether another
    /// node must see it first.
    pub async fn ask_to_end(
        self: &Arc<Self>,
        run: &RunRow,
        reason: Option<String>,
    ) -> Result<bool, ApiError> {
        if let Some(live) = self.here(run) {
            live.cancel(Cancelled::Asked(reason));
            return Ok(false);
        }
        if run.status.is_paused() {
            self.go_on(run, Some(Cancelled::Asked(reason))).await?;
            return Ok(false);
        }
        let reason = reason.unwrap_or_default();
        let asked = self.store.ask_cancel(&run.tenant_id, &run.id, &reason);
        Ok(asked.await?)
    }

    /// Cancels a run that is under way or waits, and waits for its end; answers the run as it is then.
    pub async fn cancel(
        self: &Arc<Self>,
        run: &RunRow,
        reason: Option<String>,
    ) -> Result<RunRow, ApiError> {
        const PATIENCE: Duration = Duration::from_secs(10);
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        if self.ask_to_end(run, reason).await? {
            // Its own node sees that within a second.
            let started = tokio::time::Instant::now();
            while started.elapsed() < PATIENCE {
                let now = self.rested(run).await?;
                if !now.is_under_way() {
                    return Ok(now);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        self.rested(run).await
    }
}
