//! What is done for each tenant that has an account on a platform: asking it, or listening to it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::Hub;
use crate::store::now_micros;

/// How often accounts are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const TENANTS: i64 = 500;

/// A tenant for whom something is done, until that ends in whatever way.
struct Busy {
    all: Arc<Mutex<HashSet<String>>>,
    tenant: String,
}

impl Busy {
    /// `None`: it is done already.
    fn begin(all: &Arc<Mutex<HashSet<String>>>, tenant: &str) -> Option<Self> {
        all.lock().insert(tenant.to_owned()).then(|| Self {
            all: all.clone(),
            tenant: tenant.to_owned(),
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.all.lock().remove(&self.tenant);
    }
}

/// Does `one` for each tenant with an account of a kind, and again once it has ended, for ever.
pub async fn for_each(
    hub: Arc<Hub>,
    kind: &'static str,
    one: fn(Arc<Hub>, String) -> BoxFuture<'static, ()>,
) {
    let all = Arc::default();
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let mut after = String::new();
        loop {
            let found = hub.store.integrated(kind, &after, TENANTS).await;
            let tenants = found.unwrap_or_else(|error| {
                tracing::warn!(%error, kind, "cannot look for accounts");
                Vec::new()
            });
            for tenant in &tenants {
                if let Some(busy) = Busy::begin(&all, tenant) {
                    let done = one(hub.clone(), tenant.clone());
                    tokio::spawn(async move {
                        let _busy = busy;
                        done.await;
                    });
                }
            }
            match tenants.last() {
                Some(last) if tenants.len() as i64 == TENANTS => after.clone_from(last),
                _ => break,
            }
        }
    }
}

impl Hub {
    /// Whether a tenant's account is this node's to listen to, for so long from now on.
    pub async fn is_ours(&self, kind: &str, tenant_id: &str, lease: Duration) -> bool {
        let now = now_micros();
        let until = now + i64::try_from(lease.as_micros()).unwrap_or(0);
        let name = format!("{kind}/{tenant_id}");
        let taken = self
            .store
            .take_lease(&name, self.runs.node_id(), now, until);
        matches!(taken.await, Ok(true))
    }
}
