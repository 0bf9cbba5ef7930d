//! Work that nodes share: rows that are due are taken up by one node at a time, held while the work
//! lasts, and given up when they ended their node too often.
//!
//! Lives here: the one loop for all such work ([`Worker`]), and what an aggregate brings to it
//! ([`Work`]). May import `store` (its clock), `metrics` and `error`.
//!
//! How it holds together:
//! - A row says until when it is held; that time is also what fences. Whoever claims a row writes a
//!   later one, so a holder that was late finds its own no longer there, and writes nothing.
//! - A taking is counted in the row as it is claimed, and the count begins anew when something is
//!   heard of the work. So work that kills its node ends.
//! - Between tenants and between lanes it is fair: slots go round, and none has them all.

mod fair;
mod held;
mod worker;

#[cfg(test)]
mod tests;

pub use held::{Fence, Held};
pub use worker::{Room, Tell, Worker, wake_on};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::ApiError;

/// What delays only itself: a webhook, a thread of a smith, a tenant where nothing is smaller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    pub tenant_id: Arc<str>,
    /// Empty where the tenant is the lane.
    pub key: Arc<str>,
}

impl Lane {
    /// A lane of a tenant.
    pub fn new(tenant_id: &str, key: &str) -> Self {
        Self {
            tenant_id: tenant_id.into(),
            key: key.into(),
        }
    }

    /// A tenant as one lane.
    pub fn tenant(tenant_id: &str) -> Self {
        Self::new(tenant_id, "")
    }
}

/// What is due.
#[derive(Debug, Default)]
pub struct Due {
    /// Each tenant's first lane before anyone's second, where there are more than were asked for.
    pub lanes: Vec<Lane>,
    /// When something is due next, where the store can tell: it is looked for then, not only
    /// regularly.
    pub next: Option<i64>,
}

/// How something is claimed. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub now: i64,
    /// Nobody else takes it before.
    pub until: i64,
    pub limit: i64,
}

/// What becomes of work under way when its node shuts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtShutdown {
    /// It is waited for as long as the shutdown may take: to begin again would show outside.
    Finish,
    /// It is given back at once, for others to begin again.
    GiveBack,
}

/// How some kind of work is done.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// For logs, metrics and other nodes.
    pub name: &'static str,
    /// So long after its node died, work is another's. It is prolonged while it lasts.
    pub hold: Duration,
    /// How often is looked for what is due, beside being woken.
    pub look_every: Duration,
    /// Of this node, at once.
    pub at_once: usize,
    /// Of these at most for one tenant.
    pub per_tenant: usize,
    /// Of these at most for one lane; one: in order.
    pub per_lane: usize,
    /// Work that ended its node so often is given up.
    pub give_up_after: i64,
    pub at_shutdown: AtShutdown,
}

/// One kind of work: the store's side of it, and how it is done.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// A row, or several that are done together.
    type Item: Send + Sync + 'static;
    /// What came of it.
    type Outcome: Send + Sync + 'static;

    fn rules(&self) -> Rules;

    /// Up to `limit` lanes in which something is due at `now`. Reads only.
    async fn due(&self, now: i64, limit: i64) -> Result<Due, ApiError>;

    /// Takes what is due of a lane, oldest first: in one statement it writes until when it is held,
    /// and counts the taking. What another node claims in the same moment is not among it.
    async fn claim(&self, lane: &Lane, claim: Claim) -> Result<Vec<Self::Item>, ApiError>;

    /// How often an item ended its node, as its row tells.
    fn ended_nodes(&self, item: &Self::Item) -> i64;

    /// What a log calls an item.
    fn name(&self, item: &Self::Item) -> String;

    /// Prolongs what is held where it is still held as [`Held::until`] says. Answers of each whether
    /// it is.
    async fn renew(
        &self,
        held: &[Arc<Held<Self::Item>>],
        until: i64,
    ) -> Result<Vec<bool>, ApiError>;

    /// Does it. It is dropped when the hold is lost: what has effects outside asks
    /// [`Held::is_lost`] before each, and what it writes belongs into [`Work::settle`], or behind a
    /// [`Held::fence`].
    async fn perform(&self, held: &Held<Self::Item>) -> Self::Outcome;

    /// What is recorded of an item that ended its node `times` times.
    fn given_up(&self, item: &Self::Item, times: i64) -> Self::Outcome;

    /// Writes what came of it, in one transaction, if it is still held until `until`; `false`: it is
    /// not. An error is tried again while it is held.
    async fn settle(
        &self,
        item: &Self::Item,
        until: i64,
        outcome: &Self::Outcome,
    ) -> Result<bool, ApiError>;

    /// Makes it due at once for anybody, its taking uncounted, if it is still held until `until`;
    /// `false`: it is not.
    async fn release(&self, item: &Self::Item, until: i64, now: i64) -> Result<bool, ApiError>;

    /// Another node has taken it from this one, which lives: that is not held against the work.
    async fn uncount(&self, item: &Self::Item) -> Result<(), ApiError>;
}
