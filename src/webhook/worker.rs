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

/// The worker.
pub struct Webhooks {
    pub sender: Sender,
    /// Webhooks that a lane of this node works for.
    busy: Mutex<HashSet<String>>,
}

impl Webhooks {
    /// A worker that makes its attempts with `sender`.
    pub fn new(sender: Sender) -> Arc<Self> {
        Arc::new(Self {
            sender,
            busy: Mutex::default(),
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
                let worker = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = worker.lane(&tenant_id, &webhook_id).await {
                        tracing::warn!(%error, webhook_id, "a webhook's lane stopped");
                    }
                    worker.busy.lock().remove(&webhook_id);
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
            let attempts = due
                .iter()
                .map(|delivery| self.sender.attempt(&webhook, delivery));
            for attempt in join_all(attempts).await {
                attempt?;
            }
        }
    }
}
