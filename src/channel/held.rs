//! What arrivals and messages have in common as work: how it is held, and how fair it is.

use std::sync::Arc;
use std::time::Duration;

use crate::error::ApiError;
use crate::store::{HeldKind, HeldRow, InboundRow, OutboundRow, Store};
use crate::work::{AtShutdown, Due, Held, Lane, Rules};

const HOLD: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 64;
const OF_A_TENANT: usize = 32;
/// What ended its node so often is given up.
const DEADLY: i64 = 3;

/// A row that a node holds.
pub trait Holdable: Send + Sync + 'static {
    const KIND: HeldKind;
    /// Tenant and id.
    fn named(&self) -> (&str, &str);
}

impl Holdable for InboundRow {
    const KIND: HeldKind = HeldKind::Arrival;

    fn named(&self) -> (&str, &str) {
        (&self.tenant_id, &self.id)
    }
}

impl Holdable for OutboundRow {
    const KIND: HeldKind = HeldKind::Outbound;

    fn named(&self) -> (&str, &str) {
        (&self.tenant_id, &self.id)
    }
}

/// The rules of work of some name; a tenant is one lane, of which the first of each conversation are
/// claimed.
pub fn rules(name: &'static str) -> Rules {
    Rules {
        name,
        hold: HOLD,
        look_every: LOOK_EVERY,
        at_once: AT_ONCE,
        per_tenant: OF_A_TENANT,
        per_lane: OF_A_TENANT,
        give_up_after: DEADLY,
        at_shutdown: AtShutdown::Finish,
    }
}

/// What is due of these tenants.
pub fn due(tenants: &[String]) -> Due {
    Due {
        lanes: tenants.iter().map(|tenant| Lane::tenant(tenant)).collect(),
        next: None,
    }
}

fn held<R: Holdable>(row: &R, until: i64) -> HeldRow<'_> {
    let (tenant_id, id) = row.named();
    HeldRow {
        tenant_id,
        id,
        until,
    }
}

/// As `Work::renew`.
pub async fn renew<R: Holdable>(
    store: &dyn Store,
    all: &[Arc<Held<R>>],
    until: i64,
) -> Result<Vec<bool>, ApiError> {
    let rows: Vec<_> = all.iter().map(|one| held(&one.item, one.until())).collect();
    Ok(store.renew_held(R::KIND, &rows, until).await?)
}

/// As `Work::release`.
pub async fn release<R: Holdable>(
    store: &dyn Store,
    row: &R,
    until: i64,
    now: i64,
) -> Result<bool, ApiError> {
    Ok(store.release_held(R::KIND, held(row, until), now).await?)
}

/// As `Work::uncount`.
pub async fn uncount<R: Holdable>(store: &dyn Store, row: &R) -> Result<(), ApiError> {
    let (tenant_id, id) = row.named();
    Ok(store.uncount_held(R::KIND, tenant_id, id).await?)
}
