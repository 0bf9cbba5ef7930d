//! Deliveries as work: each webhook has a lane of its own, so that a slow or dead endpoint delays no
//! other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::attempt::Sender;
use crate::error::ApiError;
use crate::store::{
    DeliveryOutcome, DeliveryRow, DeliveryStatus, HeldDelivery, WebhookRow, now_micros,
};
use crate::work::{AtShutdown, Claim, Due, Held, Lane, Rules, Work, Worker};

/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Deliveries to one webhook at once.
const PER_WEBHOOK: usize = 8;
/// Deliveries of a node at once, and of these those of one tenant.
const AT_ONCE: usize = 256;
const PER_TENANT: usize = 192;
/// A delivery that is tried by hand is nobody else's for so long; longer than an attempt takes.
const HAND_MICROS: i64 = 60 * 1_000_000;
/// A delivery is taken up so often without a word of what became of it; then it is given up.
const DEADLY: i64 = 2;
/// What could not be tried for a reason of our own is tried again after this.
const AGAIN_MICROS: i64 = 5 * 1_000_000;

/// The worker.
pub type Webhooks = Worker<Deliveries>;

/// The outbox of all webhooks.
pub struct Deliveries {
    pub sender: Sender,
    /// So long after its node died, a delivery is another's.
    pub hold: Duration,
}

/// A delivery, and where it goes.
pub struct Taken {
    webhook: Arc<WebhookRow>,
    delivery: DeliveryRow,
}

impl Taken {
    fn held(&self, until: i64) -> HeldDelivery<'_> {
        HeldDelivery {
            tenant_id: &self.delivery.tenant_id,
            id: &self.delivery.id,
            until,
        }
    }
}

impl Deliveries {
    /// Until when an attempt by hand that begins now holds its delivery.
    pub fn hold_until() -> i64 {
        now_micros() + HAND_MICROS
    }
}

#[async_trait]
impl Work for Deliveries {
    type Item = Taken;
    /// `None`: nothing was tried.
    type Outcome = Option<DeliveryOutcome>;

    fn rules(&self) -> Rules {
        Rules {
            name: "webhook_deliveries",
            hold: self.hold,
            look_every: LOOK_EVERY,
            at_once: AT_ONCE,
            per_tenant: PER_TENANT,
            per_lane: PER_WEBHOOK,
            give_up_after: DEADLY,
            at_shutdown: AtShutdown::Finish,
        }
    }

    async fn due(&self, now: i64, limit: i64) -> Result<Due, ApiError> {
        let webhooks = self.sender.store.due_webhooks(now, limit).await?;
        let lanes = webhooks.iter().map(|(tenant, id)| Lane::new(tenant, id));
        Ok(Due {
            lanes: lanes.collect(),
            next: None,
        })
    }

    async fn claim(&self, lane: &Lane, claim: Claim) -> Result<Vec<Taken>, ApiError> {
        let store = &self.sender.store;
        let found = store.webhook(&lane.tenant_id, &lane.key).await?;
        let Some(webhook) = found.filter(|webhook| webhook.active) else {
            return Ok(Vec::new());
        };
        let webhook = Arc::new(webhook);
        let claimed = store
            .claim_deliveries(
                &lane.tenant_id,
                &lane.key,
                claim.now,
                claim.until,
                claim.limit,
            )
            .await?;
        let taken = |delivery| Taken {
            webhook: webhook.clone(),
            delivery,
        };
        Ok(claimed.into_iter().map(taken).collect())
    }

    fn ended_nodes(&self, taken: &Taken) -> i64 {
        taken.delivery.takings - 1
    }

    fn name(&self, taken: &Taken) -> String {
        taken.delivery.id.clone()
    }

    async fn renew(&self, held: &[Arc<Held<Taken>>], until: i64) -> Result<Vec<bool>, ApiError> {
        let held: Vec<_> = held
            .iter()
            .map(|held| held.item.held(held.until()))
            .collect();
        Ok(self.sender.store.renew_deliveries(&held, until).await?)
    }

    async fn perform(&self, held: &Held<Taken>) -> Option<DeliveryOutcome> {
        let Taken { webhook, delivery } = &held.item;
        match self.sender.try_once(webhook, delivery).await {
            Ok((_, outcome)) => Some(outcome),
            Err(error) => {
                tracing::warn!(%error, delivery = delivery.id, "cannot try a delivery");
                None
            }
        }
    }

    fn given_up(&self, _taken: &Taken, times: i64) -> Option<DeliveryOutcome> {
        Some(DeliveryOutcome {
            status: DeliveryStatus::Dead,
            last_status: None,
            last_error: Some(format!("its node ended {times} times with an attempt")),
            next_attempt_at: now_micros(),
            delivered_at: None,
        })
    }

    async fn settle(
        &self,
        taken: &Taken,
        until: i64,
        outcome: &Option<DeliveryOutcome>,
    ) -> Result<bool, ApiError> {
        let (store, held) = (&self.sender.store, taken.held(until));
        let settled = match outcome {
            Some(outcome) => store.settle_delivery(held, outcome).await,
            None => {
                store
                    .release_delivery(held, now_micros() + AGAIN_MICROS)
                    .await
            }
        };
        Ok(settled?)
    }

    async fn release(&self, taken: &Taken, until: i64, now: i64) -> Result<bool, ApiError> {
        let store = &self.sender.store;
        Ok(store.release_delivery(taken.held(until), now).await?)
    }

    async fn uncount(&self, taken: &Taken) -> Result<(), ApiError> {
        let (tenant, id) = (&taken.delivery.tenant_id, &taken.delivery.id);
        Ok(self.sender.store.uncount_delivery(tenant, id).await?)
    }
}
