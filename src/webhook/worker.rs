//! Takes due deliveries out of the outbox. Each webhook has a lane of its own, so that a slow or
//! dead endpoint delays no other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::attempt::Sender;
use crate::error::ApiError;
use crate::store::now_micros;

/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Deliveries to one webhook at once.
const AT_ONCE: i64 = 8;
/// A claimed delivery is nobody else's for so long; longer than an attempt takes.
const HOLD_MICROS: i64 = 60 * 1_000_000;
/// A delivery is taken up so often without a word of what became of it; then it is given up.
const MAX_TAKINGS: i64 = 2;

/// The worker.
pub struct Webhooks {
    pub sender: Sender,
    /// Webhooks that a lane of this node works for.
    busy: Mutex<HashSet<String>>,
    /// Deliveries that this node makes an attempt for: tenant and id.
    held: Mutex<HashSet<(String, String)>>,
}

/// A webhook's lane of this node. However it ends, another may begin.
struct Lane(Arc<Webhooks>, String);

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.busy.lock().remove(&self.1);
    }
}

impl Webhooks {
    /// A worker that makes its attempts with `sender`.
    pub fn new(sender: Sender) -> Arc<Self> {
        Arc::new(Self {
            sender,
            busy: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// Until when an attempt that begins now holds its delivery.
    pub fn hold_until() -> i64 {
        now_micros() + HOLD_MICROS
    }

    /// Delivers, for ever.
    pub async fn work(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let due = match self.sender.store.due_webhooks(now_micros()).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for deliveries");
                    continue;
                }
            };
            for (tenant_id, webhook_id) in due {
                if !self.busy.lock().insert(webhook_id.clone()) {
                    continue;
                }
                let lane = Lane(self.clone(), webhook_id);
                tokio::spawn(async move {
                    let Lane(worker, webhook_id) = &lane;
                    if let Err(error) = worker.lane(&tenant_id, webhook_id).await {
                        tracing::warn!(%error, webhook_id, "a webhook's lane stopped");
                    }
                });
            }
        }
    }

    /// Delivers to one webhook until nothing is due.
    async fn lane(&self, tenant_id: &str, webhook_id: &str) -> Result<(), ApiError> {
        let store = &self.sender.store;
        loop {
            let found = store.webhook(tenant_id, webhook_id).await?;
            let Some(webhook) = found.filter(|webhook| webhook.active) else {
                return Ok(());
            };
            let due = store
                .claim_deliveries(
                    tenant_id,
                    webhook_id,
                    now_micros(),
                    Self::hold_until(),
                    AT_ONCE,
                )
                .await?;
            if due.is_empty() {
                return Ok(());
            }
            let attempts = due.iter().map(async |delivery| {
                if delivery.takings > MAX_TAKINGS {
                    return self.sender.give_up(delivery).await;
                }
                let held = (delivery.tenant_id.clone(), delivery.id.clone());
                self.held.lock().insert(held.clone());
                let attempt = self.sender.attempt(&webhook, delivery).await;
                self.held.lock().remove(&held);
                attempt.map(drop)
            });
            for attempt in join_all(attempts).await {
                attempt?;
            }
        }
    }

    /// Gives back what is under way when this node shuts down.
    pub async fn release(&self) {
        let held: Vec<_> = self.held.lock().drain().collect();
        let released = self.sender.store.release_deliveries(&held, now_micros());
        if let Err(error) = released.await {
            tracing::warn!(%error, "cannot give deliveries back");
        }
    }
}
