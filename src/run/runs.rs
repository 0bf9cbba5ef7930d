//! The runs of this node: what they work with, and those that are under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::accounting::Accounting;
use super::budget::Budgets;
use super::consolidation::waiting::Consolidation;
use super::job::Job;
use super::live::{Cancelled, LiveRun, Reader};
use super::request::ResponseRecord;
use super::resolve::Smiths;
use super::state::Held;
use super::turnstile::Turnstile;
use crate::bodies::Bodies;
use crate::bus::Bus;
use crate::config::Limits;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::model::Models;
use crate::store::{EventRow, Journal, Op, RunEnd, RunRow, Store};
use crate::tools::Toolbox;
use crate::untrusted::Sandbox;

/// Starts runs, and finds those that are under way on this node.
pub struct Runs {
    pub(super) store: Arc<dyn Store>,
    pub(super) journal: Journal,
    pub models: Arc<Models>,
    pub smiths: Arc<Smiths>,
    pub accounting: Arc<Accounting>,
    pub budgets: Arc<Budgets>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) node_id: Arc<str>,
    pub bus: Bus,
    pub(super) tools: Arc<Toolbox>,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) bodies: Arc<Bodies>,
    /// Calls whose tools asked something, by the approval that waits.
    pub(super) held: Mutex<HashMap<String, Held>>,
    pub(super) turnstile: Turnstile,
    /// Ends of runs that the store did not take, for when it does.
    pub(super) unsettled: Mutex<Vec<RunEnd>>,
    pub(super) consolidation: Consolidation,
    pub(super) approval_timeout: Duration,
    /// Told when a run ends that may have come out of a lane.
    pub lane_due: Arc<Notify>,
    /// Told when such a run has something to say.
    pub answers_due: Arc<Notify>,
    pub(super) live: RwLock<HashMap<Arc<str>, Arc<LiveRun>>>,
    pub(super) count: AtomicUsize,
}

/// What runs work with.
pub struct RunParts {
    pub node_id: Arc<str>,
    pub bus: Bus,
    pub tools: Arc<Toolbox>,
    pub sandbox: Arc<Sandbox>,
    pub bodies: Arc<Bodies>,
    /// How long a human may take for an approval.
    pub approval_timeout: Duration,
    pub store: Arc<dyn Store>,
    pub journal: Journal,
    pub models: Arc<Models>,
    pub smiths: Arc<Smiths>,
    pub accounting: Arc<Accounting>,
    pub budgets: Arc<Budgets>,
    pub metrics: Metrics,
}

/// A run that has begun.
pub struct Started {
    /// What its client reads.
    pub reader: Reader,
    /// The model that it asks for, as named by its configuration.
    pub model: String,
    /// When the run was made, in microseconds.
    pub created_at: i64,
    /// As in the request, with the model.
    pub response: Option<ResponseRecord>,
}

impl Runs {
    /// Puts the parts together.
    pub fn new(parts: RunParts, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            store: parts.store,
            journal: parts.journal,
            models: parts.models,
            smiths: parts.smiths,
            accounting: parts.accounting,
            budgets: parts.budgets,
            limits,
            metrics: parts.metrics,
            node_id: parts.node_id,
            bus: parts.bus,
            tools: parts.tools,
            sandbox: parts.sandbox,
            bodies: parts.bodies,
            held: Mutex::default(),
            unsettled: Mutex::default(),
            turnstile: Turnstile::default(),
            consolidation: Consolidation::default(),
            approval_timeout: parts.approval_timeout,
            lane_due: Arc::default(),
            answers_due: Arc::default(),
            live: RwLock::default(),
            count: AtomicUsize::new(0),
        })
    }

    /// Writes an event into the feed.
    pub async fn tell(&self, event: EventRow) -> Result<(), ApiError> {
        self.journal.commit(Op::Event(Box::new(event))).await?;
        Ok(())
    }

    /// Lets a run run.
    pub(super) fn spawn(self: &Arc<Self>, job: Box<Job>) {
        self.live
            .write()
            .insert(job.live.run_id.clone(), job.live.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        let runs = self.clone();
        tokio::spawn(async move { runs.run(job).await });
    }

    /// The run, when it is under way on this node and the tenant's.
    pub fn live(&self, tenant_id: &str, run_id: &str) -> Option<Arc<LiveRun>> {
        let live = self.live.read().get(run_id).cloned()?;
        (&*live.tenant_id == tenant_id).then_some(live)
    }

    /// Whether a run is this node's by its row. Another node takes the runs of one that does not renew
    /// its leases, which may only be late: what that one still has of them is no truth any more.
    pub fn has(&self, run: &RunRow) -> bool {
        run.is_under_way() && *run.node_id == *self.node_id
    }

    /// Whether a run is under way on another node by its row.
    pub fn lost(&self, run: &RunRow) -> bool {
        run.is_under_way() && !self.has(run)
    }

    /// This node's id.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// Runs under way on this node.
    pub fn live_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Cancels all runs of this node.
    pub fn cancel_all(&self) {
        for live in self.live.read().values() {
            live.cancel(Cancelled::Shutdown);
        }
    }
}
