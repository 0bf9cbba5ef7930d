//! Queries: the event feed, webhooks and their outbox.

/// A delivery for each webhook that wants an event, of all events whose ids follow; its id is the
/// event's body and the webhook's.
pub(in crate::store) const INSERT_DELIVERIES: &str = "INSERT INTO webhook_deliveries (id, \
     tenant_id, webhook_id, event_id, event_type, status, attempts, next_attempt_at, created_at) \
     SELECT 'whd_' || substr(e.id, 5) || substr(w.id, 4), e.tenant_id, w.id, e.id, e.type, \
     'pending', 0, e.created_at, e.created_at FROM events e \
     JOIN webhooks w ON w.tenant_id = e.tenant_id AND w.active WHERE (NOT EXISTS \
     (SELECT 1 FROM webhook_patterns p WHERE p.webhook_id = w.id) OR EXISTS \
     (SELECT 1 FROM webhook_patterns p WHERE p.webhook_id = w.id \
     AND p.pattern IN (e.type, e.family))) AND e.id IN (";

/// Adds events to a script.
macro_rules! insert_events {
    ($tx:expr, $script:expr, $events:expr) => {
        $crate::store::sql::script::insert_many!(
            $tx,
            $script,
            $events,
            "events (id, tenant_id, type, family, smith_id, data, actor, created_at)",
            " ON CONFLICT DO NOTHING",
            |values, event| {
                values
                    .push_bind(&event.id)
                    .push_bind(&event.tenant_id)
                    .push_bind(&event.kind)
                    .push_bind(&event.family)
                    .push_bind(&event.smith_id)
                    .push_bind(&event.data)
                    .push_bind(&event.actor)
                    .push_bind(event.created_at);
            }
        );
    };
}

/// Adds events and their deliveries to a script.
macro_rules! write_events {
    ($tx:expr, $script:expr, $events:expr) => {
        $crate::store::sql::events::insert_events!($tx, $script, $events);
        for events in $script.chunks(&$events) {
            let query = $script.statement($crate::store::sql::events::INSERT_DELIVERIES);
            let mut ids = query.separated(", ");
            for event in events {
                ids.push_bind(&event.id);
            }
            query.push(")");
            $crate::store::sql::script::send!($tx, $script, false);
        }
    };
}

/// Writes events and their deliveries into a transaction.
macro_rules! add_events {
    ($tx:expr, $events:expr) => {
        let mut script = $crate::store::sql::script::Script::default();
        $crate::store::sql::events::write_events!($tx, script, $events);
        $crate::store::sql::script::send!($tx, script, true);
    };
}

/// Writes what a webhook wants into a transaction that holds its row.
macro_rules! put_patterns {
    ($tx:expr, $webhook:expr, $patterns:expr) => {
        for pattern in $patterns {
            sqlx::query(
                "INSERT INTO webhook_patterns (webhook_id, pattern) VALUES ($1, $2) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(&$webhook.id)
            .bind(pattern)
            .execute(&mut *$tx)
            .await?;
        }
    };
}

pub(in crate::store) use {add_events, insert_events, put_patterns, write_events};

macro_rules! impl_events {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::EventStore for $store {
            async fn append_event(&self, event: &EventRow) -> Result<()> {
                let mut tx = self.write.begin().await?;
                $crate::store::sql::events::add_events!(tx, [event]);
                tx.commit().await?;
                Ok(())
            }

            async fn event(&self, tenant_id: &str, id: &str) -> Result<Option<EventRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM events WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn events(
                &self,
                tenant_id: &str,
                filter: &EventFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<EventRow>> {
                let floor = $crate::store::sql::since_floor!(
                    &self.read,
                    "events",
                    $crate::ids::Kind::Event,
                    tenant_id,
                    filter.since
                );
                let (kind, family) = match &filter.kind {
                    Some(kind) if kind.contains('.') => (Some(kind), None),
                    other => (None, other.as_ref()),
                };
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM events WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND type = ", kind),
                        (" AND family = ", family),
                        (" AND smith_id = ", &filter.smith_id),
                        (" AND id >= ", &floor),
                        (" AND created_at >= ", &filter.since),
                    ],
                    before,
                    limit,
                    within & ["data", "actor"]
                ))
            }
        }

        #[async_trait::async_trait]
        impl $crate::store::WebhookStore for $store {
            async fn insert_webhook(
                &self,
                webhook: &WebhookRow,
                patterns: &[String],
            ) -> Result<()> {
                let mut tx = self.write.begin().await?;
                sqlx::query(
                    "INSERT INTO webhooks (id, tenant_id, url, events, active, sealed, \
                     previous_sealed, previous_until, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                )
                .bind(&webhook.id)
                .bind(&webhook.tenant_id)
                .bind(&webhook.url)
                .bind(&webhook.events)
                .bind(webhook.active)
                .bind(&webhook.sealed)
                .bind(&webhook.previous_sealed)
                .bind(webhook.previous_until)
                .bind(webhook.created_at)
                .execute(&mut *tx)
                .await?;
                $crate::store::sql::events::put_patterns!(tx, webhook, patterns);
                tx.commit().await?;
                Ok(())
            }

            async fn webhook(&self, tenant_id: &str, id: &str) -> Result<Option<WebhookRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM webhooks WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn webhooks(
                &self,
                tenant_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<WebhookRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM webhooks WHERE tenant_id = ",
                    tenant_id,
                    [],
                    before,
                    limit
                ))
            }

            async fn update_webhook(
                &self,
                webhook: &WebhookRow,
                patterns: &[String],
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE webhooks SET url = $3, events = $4, active = $5, sealed = $6, \
                     previous_sealed = $7, previous_until = $8 \
                     WHERE tenant_id = $1 AND id = $2",
                )
                .bind(&webhook.tenant_id)
                .bind(&webhook.id)
                .bind(&webhook.url)
                .bind(&webhook.events)
                .bind(webhook.active)
                .bind(&webhook.sealed)
                .bind(&webhook.previous_sealed)
                .bind(webhook.previous_until)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query("DELETE FROM webhook_patterns WHERE webhook_id = $1")
                    .bind(&webhook.id)
                    .execute(&mut *tx)
                    .await?;
                $crate::store::sql::events::put_patterns!(tx, webhook, patterns);
                tx.commit().await?;
                Ok(true)
            }

            async fn delete_webhook(&self, tenant_id: &str, id: &str) -> Result<bool> {
                let done = sqlx::query("DELETE FROM webhooks WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .execute(&self.write)
                    .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn deliveries(
                &self,
                tenant_id: &str,
                webhook_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<DeliveryRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM webhook_deliveries WHERE tenant_id = ",
                    tenant_id,
                    [(" AND webhook_id = ", Some(webhook_id))],
                    before,
                    limit
                ))
            }

            async fn delivery(
                &self,
                tenant_id: &str,
                webhook_id: &str,
                id: &str,
            ) -> Result<Option<DeliveryRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM webhook_deliveries \
                     WHERE tenant_id = $1 AND webhook_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(webhook_id)
                .bind(id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn append_event_for(
                &self,
                event: &EventRow,
                webhook_id: &str,
                hold_until: i64,
            ) -> Result<DeliveryRow> {
                let mut tx = self.write.begin().await?;
                let mut script = $crate::store::sql::script::Script::default();
                $crate::store::sql::events::insert_events!(tx, script, [event]);
                $crate::store::sql::script::send!(tx, script, true);
                let delivery = sqlx::query_as(
                    "INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, \
                     event_type, status, attempts, next_attempt_at, created_at) \
                     VALUES ($1, $2, $3, $4, $5, 'pending', 0, $6, $7) RETURNING *",
                )
                .bind($crate::ids::mint($crate::ids::Kind::Delivery))
                .bind(&event.tenant_id)
                .bind(webhook_id)
                .bind(&event.id)
                .bind(&event.kind)
                .bind(hold_until)
                .bind(event.created_at)
                .fetch_one(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(delivery)
            }

            async fn due_webhooks(&self, now: i64, limit: i64) -> Result<Vec<(String, String)>> {
                Ok(sqlx::query_as(
                    "SELECT due.tenant_id, due.id FROM (SELECT w.tenant_id, w.id, ROW_NUMBER() \
                     OVER (PARTITION BY w.tenant_id ORDER BY w.id) AS place \
                     FROM webhooks w WHERE w.active AND EXISTS \
                     (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = w.id \
                     AND d.status = 'pending' AND d.next_attempt_at <= $1)) due \
                     ORDER BY due.place, due.tenant_id LIMIT $2",
                )
                .bind(now)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn claim_deliveries(
                &self,
                tenant_id: &str,
                webhook_id: &str,
                now: i64,
                hold_until: i64,
                limit: i64,
            ) -> Result<Vec<DeliveryRow>> {
                Ok(sqlx::query_as(
                    "UPDATE webhook_deliveries SET next_attempt_at = $4, takings = takings + 1 \
                     WHERE id IN \
                     (SELECT id FROM webhook_deliveries WHERE tenant_id = $1 \
                     AND webhook_id = $2 AND status = 'pending' AND next_attempt_at <= $3 \
                     ORDER BY next_attempt_at LIMIT $5) \
                     AND status = 'pending' AND next_attempt_at <= $3 RETURNING *",
                )
                .bind(tenant_id)
                .bind(webhook_id)
                .bind(now)
                .bind(hold_until)
                .bind(limit)
                .fetch_all(&self.write)
                .await?)
            }

            async fn release_all_deliveries(&self, now: i64) -> Result<()> {
                sqlx::query(
                    "UPDATE webhook_deliveries SET next_attempt_at = $1 \
                     WHERE status = 'pending' AND takings > 0 AND next_attempt_at > $1",
                )
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn renew_deliveries(
                &self,
                held: &[HeldDelivery<'_>],
                until: i64,
            ) -> Result<Vec<bool>> {
                let mut tx = self.write.begin().await?;
                let mut still = Vec::with_capacity(held.len());
                for held in held {
                    let done = sqlx::query(
                        "UPDATE webhook_deliveries SET next_attempt_at = $4 WHERE tenant_id = $1 \
                         AND id = $2 AND status = 'pending' AND next_attempt_at = $3",
                    )
                    .bind(held.tenant_id)
                    .bind(held.id)
                    .bind(held.until)
                    .bind(until)
                    .execute(&mut *tx)
                    .await?;
                    still.push(done.rows_affected() > 0);
                }
                tx.commit().await?;
                Ok(still)
            }

            async fn release_delivery(&self, held: HeldDelivery<'_>, due_at: i64) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE webhook_deliveries SET next_attempt_at = $4, takings = 0 \
                     WHERE tenant_id = $1 AND id = $2 AND status = 'pending' \
                     AND next_attempt_at = $3",
                )
                .bind(held.tenant_id)
                .bind(held.id)
                .bind(held.until)
                .bind(due_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn uncount_delivery(&self, tenant_id: &str, id: &str) -> Result<()> {
                sqlx::query(
                    "UPDATE webhook_deliveries SET takings = takings - 1 WHERE tenant_id = $1 \
                     AND id = $2 AND status = 'pending' AND takings > 1",
                )
                .bind(tenant_id)
                .bind(id)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn settle_delivery(
                &self,
                held: HeldDelivery<'_>,
                outcome: &DeliveryOutcome,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE webhook_deliveries SET status = $4, attempts = attempts + 1, \
                     takings = 0, last_status = $5, last_error = $6, next_attempt_at = $7, \
                     delivered_at = $8 WHERE tenant_id = $1 AND id = $2 AND status = 'pending' \
                     AND next_attempt_at = $3",
                )
                .bind(held.tenant_id)
                .bind(held.id)
                .bind(held.until)
                .bind(outcome.status)
                .bind(outcome.last_status)
                .bind(&outcome.last_error)
                .bind(outcome.next_attempt_at)
                .bind(outcome.delivered_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn record_attempt(
                &self,
                tenant_id: &str,
                id: &str,
                outcome: &DeliveryOutcome,
            ) -> Result<()> {
                sqlx::query(
                    "UPDATE webhook_deliveries SET status = $3, attempts = attempts + 1, \
                     takings = 0, \
                     last_status = $4, last_error = $5, next_attempt_at = $6, \
                     delivered_at = $7 WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(outcome.status)
                .bind(outcome.last_status)
                .bind(&outcome.last_error)
                .bind(outcome.next_attempt_at)
                .bind(outcome.delivered_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }
        }
    };
}

pub(in crate::store) use impl_events;
