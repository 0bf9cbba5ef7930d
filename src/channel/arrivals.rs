//! Arrivals as work: each is interpreted by one node, in order within its conversation, as often as it
//! takes, and what it leads to is written with the mark that it is done.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{Fault, Hub, held};
use crate::error::ApiError;
use crate::store::{ArrivalEnd, EventRow, InboundRow, now_micros};
use crate::work::{Claim, Due, Held, Lane, Rules, Work};

const SECOND: i64 = 1_000_000;
/// To interpret one may take so long: its files are fetched meanwhile.
const WITHIN: Duration = Duration::from_secs(100);
/// An arrival is tried so often; then it is given up.
const MAX_ATTEMPTS: i64 = 8;

/// What has arrived and is to be interpreted.
pub struct Arrivals(pub Arc<Hub>);

/// What came of an arrival.
pub enum Led {
    To(Box<ArrivalEnd>),
    Later { why: String, due_at: i64 },
    GivenUp(String),
}

#[async_trait]
impl Work for Arrivals {
    type Item = InboundRow;
    type Outcome = Led;

    fn rules(&self) -> Rules {
        held::rules("arrivals")
    }

    async fn due(&self, now: i64, limit: i64) -> Result<Due, ApiError> {
        let tenants = self.0.store.tenants_with_arrivals(now, limit).await?;
        Ok(held::due(&tenants))
    }

    /// The first of each conversation.
    async fn claim(&self, lane: &Lane, claim: Claim) -> Result<Vec<InboundRow>, ApiError> {
        let (now, until, limit) = (claim.now, claim.until, claim.limit);
        let claimed = self
            .0
            .store
            .claim_arrivals(&lane.tenant_id, now, until, limit);
        Ok(claimed.await?)
    }

    fn ended_nodes(&self, arrival: &InboundRow) -> i64 {
        arrival.takings - 1
    }

    fn name(&self, arrival: &InboundRow) -> String {
        arrival.id.clone()
    }

    async fn renew(
        &self,
        all: &[Arc<Held<InboundRow>>],
        until: i64,
    ) -> Result<Vec<bool>, ApiError> {
        held::renew(self.0.store.as_ref(), all, until).await
    }

    async fn perform(&self, taken: &Held<InboundRow>) -> Led {
        let arrival = &taken.item;
        let Some(channel) = self.0.channel(&arrival.source) else {
            return Led::GivenUp("there is no such channel here".to_owned());
        };
        let led = tokio::time::timeout(WITHIN, self.0.led_to(channel, arrival)).await;
        match led.unwrap_or_else(|_| Err(Fault::later("it took too long"))) {
            Ok(end) => Led::To(Box::new(end)),
            Err(Fault::Later { why, .. }) if arrival.attempts + 1 >= MAX_ATTEMPTS => {
                Led::GivenUp(format!("given up after {MAX_ATTEMPTS} tries: {why}"))
            }
            Err(Fault::Later { why, after }) => {
                let pause = after.map_or(SECOND << arrival.attempts.clamp(0, 8), |after| {
                    i64::try_from(after.as_micros()).unwrap_or(SECOND)
                });
                let due_at = now_micros() + pause;
                Led::Later { why, due_at }
            }
            Err(Fault::Never(why) | Fault::Unknown(why)) => Led::GivenUp(why),
        }
    }

    fn given_up(&self, _arrival: &InboundRow, times: i64) -> Led {
        Led::GivenUp(format!("it ended its node {times} times"))
    }

    async fn settle(
        &self,
        arrival: &InboundRow,
        until: i64,
        outcome: &Led,
    ) -> Result<bool, ApiError> {
        let (hub, store) = (&self.0, &self.0.store);
        match outcome {
            Led::To(end) => {
                let written = store.end_arrival(arrival, until, end, now_micros()).await?;
                if !end.turns.is_empty() {
                    hub.lanes.wake();
                }
                if !end.outbound.is_empty() {
                    hub.outgoing.notify_one();
                }
                Ok(written)
            }
            Led::Later { why, due_at } => {
                tracing::warn!(arrival = %arrival.id, why, "an arrival is put off");
                let put_off = store.put_off_arrival(arrival, until, Some(*due_at), why, None);
                Ok(put_off.await?)
            }
            Led::GivenUp(why) => {
                tracing::warn!(arrival = %arrival.id, why, "an arrival is given up");
                let data = json!({ "inbound_event_id": arrival.id, "channel": arrival.source,
                    "status": "failed", "reason": why });
                let tenant = &arrival.tenant_id;
                let event = EventRow::new(tenant, "deployment.inbound", None, &data, None);
                let put_off = store.put_off_arrival(arrival, until, None, why, Some(&event));
                Ok(put_off.await?)
            }
        }
    }

    async fn release(&self, row: &InboundRow, until: i64, now: i64) -> Result<bool, ApiError> {
        held::release(self.0.store.as_ref(), row, until, now).await
    }

    async fn uncount(&self, row: &InboundRow) -> Result<(), ApiError> {
        held::uncount(self.0.store.as_ref(), row).await
    }
}
