//! Runs whose node is gone: those whose state is known go on here, the others are marked as failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;

use super::live::Cancelled;
use super::runs::Runs;
use super::state::Base;
use crate::error::ApiError;
use crate::store::RunRow;
use crate::work::{AtShutdown, Claim, Due, Held, Lane, Rules, Work, Worker};

/// Runs that are revived at once.
const AT_ONCE: usize = 16;
/// A run is gone on with so often after its node died with it; then it is taken for the cause.
const DEADLY: i64 = 3;
/// Of a store that is away for a moment, before a run is given up for it.
const STORE_TRIES: u32 = 10;
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The taking over of runs. What is taken goes on by itself, and its lease is one of this node's.
pub struct LapsedRuns {
    runs: Arc<Runs>,
    /// Whether runs of other nodes are taken whose leases have not ended.
    all: AtomicBool,
}

impl LapsedRuns {
    /// Takes what lapses.
    pub fn new(runs: Arc<Runs>) -> Self {
        Self {
            runs,
            all: AtomicBool::new(false),
        }
    }

    fn before(&self, now: i64) -> i64 {
        match self.all.load(Ordering::Relaxed) {
            true => i64::MAX,
            false => now,
        }
    }

    /// Takes a run of which `before` its lease ended, if nobody else did.
    async fn take(
        &self,
        tenant_id: &str,
        id: &str,
        before: i64,
    ) -> Result<Option<RunRow>, ApiError> {
        let runs = &self.runs;
        // It may only have been late, and ends now.
        if runs.live(tenant_id, id).is_some() {
            return Ok(None);
        }
        let lease = runs.lease();
        let store = &runs.store;
        if !store.take_lapsed_run(tenant_id, id, before, &lease).await? {
            return Ok(None);
        }
        match store.run(tenant_id, id).await {
            Ok(run) => Ok(run),
            Err(error) => {
                // This node would hold it for ever, and nobody would go on with it.
                store.release_run(tenant_id, id, &runs.node_id).await?;
                Err(error.into())
            }
        }
    }

    /// Whether nobody but this node may ask for the run's end.
    async fn is_detached(&self, run: &RunRow) -> Result<bool, ApiError> {
        let state = self.runs.store.run_state(&run.tenant_id, &run.id).await?;
        let base = state.and_then(|state| serde_json::from_str::<Base>(&state.base).ok());
        Ok(base.is_some_and(|base| base.detached))
    }

    async fn go_on(&self, run: &RunRow) -> Result<bool, ApiError> {
        if !self.is_detached(run).await? {
            return Ok(false);
        }
        let approvals = self
            .runs
            .store
            .run_approvals(&run.tenant_id, &run.id)
            .await?;
        let asked = run
            .cancel_reason
            .clone()
            .map(|why| Cancelled::Asked(Some(why)));
        self.runs.revive(run, &approvals, asked).await?;
        Ok(true)
    }
}

fn failed(why: String) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "run_failed", why)
}

#[async_trait]
impl Work for LapsedRuns {
    type Item = RunRow;
    /// Why it fails, when it does not go on.
    type Outcome = Option<ApiError>;

    fn rules(&self) -> Rules {
        Rules {
            name: "lapsed_runs",
            hold: Duration::from_millis(self.runs.limits.lease_ms),
            look_every: self.runs.renew_every(),
            at_once: AT_ONCE,
            per_tenant: AT_ONCE,
            per_lane: AT_ONCE / 2,
            give_up_after: DEADLY,
            at_shutdown: AtShutdown::Finish,
        }
    }

    async fn due(&self, now: i64, limit: i64) -> Result<Due, ApiError> {
        let (store, node) = (&self.runs.store, &self.runs.node_id);
        let tenants = store.lapsed_tenants(self.before(now), node, limit).await?;
        Ok(Due {
            lanes: tenants.iter().map(|id| Lane::tenant(id)).collect(),
            next: None,
        })
    }

    async fn claim(&self, lane: &Lane, claim: Claim) -> Result<Vec<RunRow>, ApiError> {
        let (tenant, before) = (&*lane.tenant_id, self.before(claim.now));
        let (store, node) = (&self.runs.store, &self.runs.node_id);
        let lapsed = store.lapsed_runs(tenant, before, node, claim.limit).await?;
        let mut taken = Vec::with_capacity(lapsed.len());
        for id in lapsed {
            match self.take(tenant, &id, before).await {
                Ok(run) => taken.extend(run),
                // What was taken before it is this node's.
                Err(error) => tracing::warn!(%error, run_id = %id, "cannot take a run over"),
            }
        }
        Ok(taken)
    }

    fn ended_nodes(&self, run: &RunRow) -> i64 {
        run.takings
    }

    fn name(&self, run: &RunRow) -> String {
        run.id.clone()
    }

    /// All leases of this node are renewed together (`leases`).
    async fn renew(&self, held: &[Arc<Held<RunRow>>], _until: i64) -> Result<Vec<bool>, ApiError> {
        Ok(vec![true; held.len()])
    }

    async fn perform(&self, held: &Held<RunRow>) -> Option<ApiError> {
        tracing::warn!(run_id = %held.item.id, "took a run whose node is gone");
        for tries in 0.. {
            match self.go_on(&held.item).await {
                Ok(true) => return None,
                Ok(false) => break,
                // The hold is lost when that lasts, and the run is another node's.
                Err(error) if error.code == "storage_unavailable" && tries < STORE_TRIES => {
                    tokio::time::sleep(STORE_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(%error, run_id = %held.item.id, "cannot go on with a run");
                    break;
                }
            }
        }
        Some(failed(
            "the node that ran this turn stopped before its end".to_owned(),
        ))
    }

    fn given_up(&self, _run: &RunRow, times: i64) -> Option<ApiError> {
        Some(failed(format!("the run ended its node {times} times")))
    }

    async fn settle(
        &self,
        run: &RunRow,
        _until: i64,
        outcome: &Option<ApiError>,
    ) -> Result<bool, ApiError> {
        if let Some(error) = outcome {
            self.runs.fail(run, error).await?;
        }
        Ok(true)
    }

    async fn release(&self, run: &RunRow, _until: i64, _now: i64) -> Result<bool, ApiError> {
        let (store, node) = (&self.runs.store, &self.runs.node_id);
        Ok(store.release_run(&run.tenant_id, &run.id, node).await?)
    }

    async fn uncount(&self, run: &RunRow) -> Result<(), ApiError> {
        let store = &self.runs.store;
        Ok(store.uncount_taking(&run.tenant_id, &run.id).await?)
    }
}

impl Worker<LapsedRuns> {
    /// Takes what a dead process left, before anything new is begun. With `all`, every run that is
    /// marked as live is of these.
    pub async fn begin(self: &Arc<Self>, all: bool) {
        self.work.all.store(all, Ordering::Relaxed);
        self.catch_up().await;
        self.work.all.store(false, Ordering::Relaxed);
    }
}
