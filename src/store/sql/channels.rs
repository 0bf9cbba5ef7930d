//! Queries: channels.

/// Takes rows that are due: those that `$due` finds (tenant, now, limit; id and due time).
macro_rules! claim {
    ($store:expr, $table:literal, $due:expr, $tenant_id:expr, $now:expr, $hold_until:expr, $limit:expr) => {{
        let due: Vec<(String, i64)> = sqlx::query_as($due)
            .bind($tenant_id)
            .bind($now)
            .bind($limit)
            .fetch_all(&$store.read)
            .await?;
        let mut taken = Vec::with_capacity(due.len());
        if due.is_empty() {
            return Ok(taken);
        }
        let mut tx = $store.write.begin().await?;
        for (id, due_at) in due {
            // Of two nodes that saw it, one finds it as it was.
            let row = sqlx::query_as(concat!(
                "UPDATE ",
                $table,
                " SET due_at = $4, takings = takings + 1 \
                 WHERE tenant_id = $1 AND id = $2 AND due_at = $3 RETURNING *"
            ))
            .bind($tenant_id)
            .bind(id)
            .bind(due_at)
            .bind($hold_until)
            .fetch_optional(&mut *tx)
            .await?;
            taken.extend(row);
        }
        tx.commit().await?;
        Ok(taken)
    }};
}

macro_rules! insert_outbound {
    ($executor:expr, $message:expr) => {
        sqlx::query(
            "INSERT INTO outbound_messages (id, tenant_id, smith_id, deployment_id, channel, \
             chat, run_id, kind, reply_to, content, status, attempts, takings, progress, \
             last_error, due_at, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, \
             $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) ON CONFLICT DO NOTHING",
        )
        .bind(&$message.id)
        .bind(&$message.tenant_id)
        .bind(&$message.smith_id)
        .bind(&$message.deployment_id)
        .bind(&$message.channel)
        .bind(&$message.chat)
        .bind(&$message.run_id)
        .bind(&$message.kind)
        .bind(&$message.reply_to)
        .bind(&$message.content)
        .bind(&$message.status)
        .bind($message.attempts)
        .bind($message.takings)
        .bind(&$message.progress)
        .bind(&$message.last_error)
        .bind($message.due_at)
        .bind($message.created_at)
        .bind($message.updated_at)
        .execute($executor)
        .await?
    };
}

macro_rules! impl_channels {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ChannelStore for $store {
            async fn put_integration(&self, integration: &IntegrationRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO integrations (tenant_id, kind, settings, sealed, created_at, \
                     updated_at) VALUES ($1, $2, $3, $4, $5, $6) \
                     ON CONFLICT (tenant_id, kind) DO UPDATE SET settings = excluded.settings, \
                     sealed = excluded.sealed, updated_at = excluded.updated_at",
                )
                .bind(&integration.tenant_id)
                .bind(&integration.kind)
                .bind(&integration.settings)
                .bind(&integration.sealed)
                .bind(integration.created_at)
                .bind(integration.updated_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn integration(
                &self,
                tenant_id: &str,
                kind: &str,
            ) -> Result<Option<IntegrationRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM integrations WHERE tenant_id = $1 AND kind = $2")
                        .bind(tenant_id)
                        .bind(kind)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn integrated(
                &self,
                kind: &str,
                after: &str,
                limit: i64,
            ) -> Result<Vec<String>> {
                Ok(sqlx::query_scalar(
                    "SELECT tenant_id FROM integrations WHERE kind = $1 AND tenant_id > $2 \
                     ORDER BY tenant_id LIMIT $3",
                )
                .bind(kind)
                .bind(after)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn delete_integration(&self, tenant_id: &str, kind: &str) -> Result<bool> {
                let done = sqlx::query(
                    "DELETE FROM integrations WHERE tenant_id = $1 AND (kind = $2 OR kind LIKE $3)",
                )
                .bind(tenant_id)
                .bind(kind)
                .bind(format!("{kind}/%"))
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn claim_address(
                &self,
                tenant_id: &str,
                kind: &str,
                address: &str,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                sqlx::query("DELETE FROM channel_addresses WHERE tenant_id = $1 AND kind = $2")
                    .bind(tenant_id)
                    .bind(kind)
                    .execute(&mut *tx)
                    .await?;
                let done = sqlx::query(
                    "INSERT INTO channel_addresses (kind, address, tenant_id) \
                     VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                )
                .bind(kind)
                .bind(address)
                .bind(tenant_id)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                tx.commit().await?;
                Ok(true)
            }

            async fn tenant_of_address(
                &self,
                kind: &str,
                address: &str,
            ) -> Result<Option<String>> {
                Ok(sqlx::query_scalar(
                    "SELECT tenant_id FROM channel_addresses WHERE kind = $1 AND address = $2",
                )
                .bind(kind)
                .bind(address)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn accept(&self, arrivals: &[InboundRow]) -> Result<Vec<bool>> {
                let mut new = std::collections::HashSet::with_capacity(arrivals.len());
                let mut tx = self.write.begin().await?;
                for arrivals in $crate::store::sql::script::powers_of_two(arrivals) {
                    let mut query = sqlx::QueryBuilder::new(
                        "INSERT INTO inbound_events (id, tenant_id, source, type, subject, \
                         idempotency_key, smith_id, data, status, reason, takings, due_at, \
                         created_at) ",
                    );
                    query.push_values(arrivals, |mut values, arrival| {
                        values
                            .push_bind(&arrival.id)
                            .push_bind(&arrival.tenant_id)
                            .push_bind(&arrival.source)
                            .push_bind(&arrival.kind)
                            .push_bind(&arrival.subject)
                            .push_bind(&arrival.idempotency_key)
                            .push_bind(&arrival.smith_id)
                            .push_bind(&arrival.data)
                            .push_bind(&arrival.status)
                            .push_bind(&arrival.reason)
                            .push_bind(arrival.takings)
                            .push_bind(arrival.due_at)
                            .push_bind(arrival.created_at);
                    });
                    query.push(" ON CONFLICT DO NOTHING RETURNING id");
                    let kept = query.build_query_scalar::<String>();
                    new.extend(kept.fetch_all(&mut *tx).await?);
                }
                tx.commit().await?;
                Ok(arrivals.iter().map(|row| new.contains(&row.id)).collect())
            }

            async fn tenants_with_arrivals(&self, now: i64, limit: i64) -> Result<Vec<String>> {
                Ok($crate::store::sql::lanes::tenants_with!(
                    &self.read, "inbound_events", now, limit
                ))
            }

            async fn claim_arrivals(
                &self,
                tenant_id: &str,
                now: i64,
                hold_until: i64,
                limit: i64,
            ) -> Result<Vec<InboundRow>> {
                $crate::store::sql::channels::claim!(
                    self,
                    "inbound_events",
                    "SELECT e.id, e.due_at FROM inbound_events e WHERE e.tenant_id = $1 \
                     AND e.due_at IS NOT NULL AND e.due_at <= $2 AND NOT EXISTS (SELECT 1 \
                     FROM inbound_events f WHERE f.tenant_id = e.tenant_id \
                     AND f.source = e.source AND f.subject = e.subject AND f.due_at IS NOT NULL \
                     AND (f.created_at, f.id) < (e.created_at, e.id)) ORDER BY e.due_at LIMIT $3",
                    tenant_id,
                    now,
                    hold_until,
                    limit
                )
            }

            async fn end_arrival(
                &self,
                arrival: &InboundRow,
                held: i64,
                end: &ArrivalEnd,
                now: i64,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE inbound_events SET status = 'done', smith_id = $3, reason = $4, \
                     takings = 0, due_at = NULL \
                     WHERE tenant_id = $1 AND id = $2 AND due_at = $5",
                )
                .bind(&arrival.tenant_id)
                .bind(&arrival.id)
                .bind(&end.smith_id)
                .bind(&end.reason)
                .bind(held)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                if let Some(binding) = &end.binding {
                    sqlx::query(
                        "INSERT INTO channel_bindings (tenant_id, kind, identity, smith_id, \
                         deployment_id, created_at) VALUES ($1, $2, $3, $4, $5, $6) \
                         ON CONFLICT (tenant_id, kind, identity) DO UPDATE SET \
                         smith_id = excluded.smith_id, deployment_id = excluded.deployment_id",
                    )
                    .bind(&binding.tenant_id)
                    .bind(&binding.kind)
                    .bind(&binding.identity)
                    .bind(&binding.smith_id)
                    .bind(&binding.deployment_id)
                    .bind(binding.created_at)
                    .execute(&mut *tx)
                    .await?;
                }
                if let Some((chat, smith_id, thread_id)) = &end.thread {
                    sqlx::query(
                        "INSERT INTO channel_threads (tenant_id, kind, chat, smith_id, thread_id, \
                         updated_at) VALUES ($1, $2, $3, $4, $5, $6) \
                         ON CONFLICT (tenant_id, kind, chat, smith_id) DO UPDATE SET \
                         thread_id = excluded.thread_id, updated_at = excluded.updated_at",
                    )
                    .bind(&arrival.tenant_id)
                    .bind(&arrival.source)
                    .bind(chat)
                    .bind(smith_id)
                    .bind(thread_id)
                    .bind(now)
                    .execute(&mut *tx)
                    .await?;
                }
                if let Some((smith_id, thread_id, message)) = &end.taken_back {
                    sqlx::query(
                        "UPDATE queued_turns SET status = 'dropped', updated_at = $5, \
                         reason = 'its sender took it back' WHERE tenant_id = $1 \
                         AND smith_id = $2 AND thread_id = $3 AND message = $4 \
                         AND status = 'queued'",
                    )
                    .bind(&arrival.tenant_id)
                    .bind(smith_id)
                    .bind(thread_id)
                    .bind(message)
                    .bind(now)
                    .execute(&mut *tx)
                    .await?;
                }
                for turn in &end.turns {
                    let _ = $crate::store::sql::lanes::enqueue_turn!(tx, turn);
                }
                for message in &end.outbound {
                    $crate::store::sql::channels::insert_outbound!(&mut *tx, message);
                }
                if !end.events.is_empty() {
                    let events: Vec<&EventRow> = end.events.iter().collect();
                    $crate::store::sql::events::add_events!(tx, events);
                }
                tx.commit().await?;
                Ok(true)
            }

            async fn put_off_arrival(
                &self,
                arrival: &InboundRow,
                held: i64,
                due_at: Option<i64>,
                reason: &str,
                event: Option<&EventRow>,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE inbound_events SET due_at = $3, reason = $4, takings = 0, \
                     attempts = attempts + 1, \
                     status = CASE WHEN $3 IS NULL THEN 'failed' ELSE status END \
                     WHERE tenant_id = $1 AND id = $2 AND due_at = $5",
                )
                .bind(&arrival.tenant_id)
                .bind(&arrival.id)
                .bind(due_at)
                .bind(reason)
                .bind(held)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                if let Some(event) = event {
                    let events = [event];
                    $crate::store::sql::events::add_events!(tx, events);
                }
                tx.commit().await?;
                Ok(true)
            }

            async fn renew_held(
                &self,
                what: HeldKind,
                held: &[HeldRow<'_>],
                until: i64,
            ) -> Result<Vec<bool>> {
                let sql = match what {
                    HeldKind::Arrival => {
                        "UPDATE inbound_events SET due_at = $4 \
                         WHERE tenant_id = $1 AND id = $2 AND due_at = $3"
                    }
                    HeldKind::Outbound => {
                        "UPDATE outbound_messages SET due_at = $4 \
                         WHERE tenant_id = $1 AND id = $2 AND due_at = $3"
                    }
                };
                let mut tx = self.write.begin().await?;
                let mut still = Vec::with_capacity(held.len());
                for row in held {
                    let done = sqlx::query(sql)
                        .bind(row.tenant_id)
                        .bind(row.id)
                        .bind(row.until)
                        .bind(until)
                        .execute(&mut *tx)
                        .await?;
                    still.push(done.rows_affected() > 0);
                }
                tx.commit().await?;
                Ok(still)
            }

            async fn release_held(
                &self,
                what: HeldKind,
                held: HeldRow<'_>,
                now: i64,
            ) -> Result<bool> {
                let sql = match what {
                    HeldKind::Arrival => {
                        "UPDATE inbound_events SET due_at = $4, takings = takings - 1 \
                         WHERE tenant_id = $1 AND id = $2 AND due_at = $3"
                    }
                    HeldKind::Outbound => {
                        "UPDATE outbound_messages SET due_at = $4, takings = takings - 1 \
                         WHERE tenant_id = $1 AND id = $2 AND due_at = $3"
                    }
                };
                let done = sqlx::query(sql)
                    .bind(held.tenant_id)
                    .bind(held.id)
                    .bind(held.until)
                    .bind(now)
                    .execute(&self.write)
                    .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn uncount_held(
                &self,
                what: HeldKind,
                tenant_id: &str,
                id: &str,
            ) -> Result<()> {
                let sql = match what {
                    HeldKind::Arrival => {
                        "UPDATE inbound_events SET takings = takings - 1 \
                         WHERE tenant_id = $1 AND id = $2 AND due_at IS NOT NULL AND takings > 1"
                    }
                    HeldKind::Outbound => {
                        "UPDATE outbound_messages SET takings = takings - 1 \
                         WHERE tenant_id = $1 AND id = $2 AND due_at IS NOT NULL AND takings > 1"
                    }
                };
                let uncounted = sqlx::query(sql).bind(tenant_id).bind(id);
                uncounted.execute(&self.write).await?;
                Ok(())
            }

            async fn inbound_event(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<InboundRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM inbound_events WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn inbound_events(
                &self,
                tenant_id: &str,
                filter: &InboundFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<InboundRow>> {
                let floor = $crate::store::sql::since_floor!(
                    &self.read,
                    "inbound_events",
                    $crate::ids::Kind::InboundEvent,
                    tenant_id,
                    filter.since
                );
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM inbound_events WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND source = ", &filter.source),
                        (" AND smith_id = ", &filter.smith_id),
                        (" AND id >= ", &floor),
                        (" AND created_at >= ", &filter.since),
                    ],
                    before,
                    limit,
                    within & ["data"]
                ))
            }

            async fn binding(
                &self,
                tenant_id: &str,
                kind: &str,
                identity: &str,
            ) -> Result<Option<BindingRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM channel_bindings WHERE tenant_id = $1 AND kind = $2 \
                     AND identity = $3",
                )
                .bind(tenant_id)
                .bind(kind)
                .bind(identity)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn channel_thread(
                &self,
                tenant_id: &str,
                kind: &str,
                chat: &str,
                smith_id: &str,
            ) -> Result<Option<String>> {
                Ok(sqlx::query_scalar(
                    "SELECT thread_id FROM channel_threads WHERE tenant_id = $1 AND kind = $2 \
                     AND chat = $3 AND smith_id = $4",
                )
                .bind(tenant_id)
                .bind(kind)
                .bind(chat)
                .bind(smith_id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn has_channels(&self, tenant_id: &str) -> Result<bool> {
                Ok(sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM deployments WHERE tenant_id = $1 \
                     AND kind <> 'mcp')",
                )
                .bind(tenant_id)
                .fetch_one(&self.read)
                .await?)
            }

            async fn reached(
                &self,
                tenant_id: &str,
                smith_id: &str,
                limit: i64,
            ) -> Result<Vec<ReachRow>> {
                Ok(sqlx::query_as(
                    "SELECT kind, deployment_id, identity FROM (SELECT b.kind, \
                     b.deployment_id, b.identity, b.created_at FROM channel_bindings b \
                     JOIN deployments d ON d.id = b.deployment_id AND d.tenant_id = b.tenant_id \
                     WHERE b.tenant_id = $1 AND b.smith_id = $2 AND d.status = 'active' \
                     UNION ALL SELECT kind, id, address, created_at FROM deployments \
                     WHERE tenant_id = $1 AND target_type = 'smith' AND target_id = $2 \
                     AND status = 'active' AND kind <> 'mcp') AS reached \
                     ORDER BY created_at DESC LIMIT $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn insert_outbound(&self, message: &OutboundRow) -> Result<bool> {
                let done = $crate::store::sql::channels::insert_outbound!(&self.write, message);
                Ok(done.rows_affected() > 0)
            }

            async fn tenants_with_outbound(&self, now: i64, limit: i64) -> Result<Vec<String>> {
                Ok($crate::store::sql::lanes::tenants_with!(
                    &self.read, "outbound_messages", now, limit
                ))
            }

            async fn claim_outbound(
                &self,
                tenant_id: &str,
                now: i64,
                hold_until: i64,
                limit: i64,
            ) -> Result<Vec<OutboundRow>> {
                $crate::store::sql::channels::claim!(
                    self,
                    "outbound_messages",
                    "SELECT e.id, e.due_at FROM outbound_messages e WHERE e.tenant_id = $1 \
                     AND e.due_at IS NOT NULL AND e.due_at <= $2 AND NOT EXISTS (SELECT 1 \
                     FROM outbound_messages f WHERE f.tenant_id = e.tenant_id \
                     AND f.channel = e.channel AND f.chat = e.chat AND f.due_at IS NOT NULL \
                     AND (f.created_at, f.id) < (e.created_at, e.id)) ORDER BY e.due_at LIMIT $3",
                    tenant_id,
                    now,
                    hold_until,
                    limit
                )
            }

            async fn record_outbound(
                &self,
                message: &OutboundRow,
                held: Option<i64>,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE outbound_messages SET status = $3, attempts = $4, takings = $5, \
                     progress = $6, last_error = $7, due_at = $8, updated_at = $9 \
                     WHERE tenant_id = $1 AND id = $2 \
                     AND (due_at = $10 OR ($10 IS NULL AND due_at IS NULL))",
                )
                .bind(&message.tenant_id)
                .bind(&message.id)
                .bind(&message.status)
                .bind(message.attempts)
                .bind(message.takings)
                .bind(&message.progress)
                .bind(&message.last_error)
                .bind(message.due_at)
                .bind(message.updated_at)
                .bind(held)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn outbound(&self, tenant_id: &str, id: &str) -> Result<Option<OutboundRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM outbound_messages WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn outbound_of(
                &self,
                tenant_id: &str,
                deployment_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<OutboundRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM outbound_messages WHERE tenant_id = ",
                    tenant_id,
                    [(" AND deployment_id = ", &Some(deployment_id))],
                    before,
                    limit,
                    within & ["content", "progress"]
                ))
            }

            async fn has_outbound(
                &self,
                tenant_id: &str,
                channel: &str,
                chat: &str,
            ) -> Result<bool> {
                let found: Option<String> = sqlx::query_scalar(
                    "SELECT id FROM outbound_messages WHERE tenant_id = $1 AND channel = $2 \
                     AND chat = $3 AND due_at IS NOT NULL LIMIT 1",
                )
                .bind(tenant_id)
                .bind(channel)
                .bind(chat)
                .fetch_optional(&self.read)
                .await?;
                Ok(found.is_some())
            }
        }
    };
}

pub(in crate::store) use {claim, impl_channels, insert_outbound};
