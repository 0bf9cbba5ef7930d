//! Queries: leases of tasks, and what is deleted because it is old. Rows are found with a reader, by
//! an index that has the oldest first; the writer is handed their ids.

/// The id of the trace that a run has of itself.
pub(in crate::store) fn trace_of(run_id: &str) -> String {
    use crate::ids::{Kind, beside};
    beside(Kind::Trace, Kind::Run, run_id)
}

/// Deletes some rows of a table with this key, of the owners with these ids.
macro_rules! thin {
    ($store:expr, $table:literal, $key:literal, $owner:literal, $tenant_id:expr, $ids:expr,
     $limit:expr) => {{
        let mut query = sqlx::QueryBuilder::new(concat!(
            "DELETE FROM ",
            $table,
            " WHERE (",
            $key,
            ") IN (SELECT ",
            $key,
            " FROM ",
            $table,
            " WHERE tenant_id = "
        ));
        query.push_bind($tenant_id);
        query.push(concat!(" AND ", $owner, " IN ("));
        let mut list = query.separated(", ");
        for id in $ids {
            list.push_bind(id);
        }
        query.push(") LIMIT ");
        query.push_bind($limit);
        query.push(")");
        query.build().execute(&$store.write).await?.rows_affected()
    }};
}

/// A statement that ends with the ids of rows.
macro_rules! for_ids {
    ($tx:expr, $sql:expr, $tenant_id:expr, $ids:expr) => {{
        let mut query = sqlx::QueryBuilder::new($sql);
        if let Some(tenant_id) = $tenant_id {
            query.push_bind(tenant_id);
            query.push(" AND id IN (");
        }
        let mut list = query.separated(", ");
        for id in $ids {
            list.push_bind(id);
        }
        query.push(")");
        query.build().execute(&mut *$tx).await?;
    }};
}

macro_rules! impl_retention {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::RetentionStore for $store {
            async fn take_lease(
                &self,
                name: &str,
                node_id: &str,
                now: i64,
                until: i64,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "INSERT INTO leases (name, node_id, lease_until) VALUES ($1, $2, $3) \
                     ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id, \
                     lease_until = excluded.lease_until \
                     WHERE leases.node_id = excluded.node_id OR leases.lease_until < $4",
                )
                .bind(name)
                .bind(node_id)
                .bind(until)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn retained(
                &self,
                after: &str,
                limit: i64,
            ) -> Result<Vec<(String, Option<String>)>> {
                Ok(sqlx::query_as(
                    "SELECT t.id, r.document FROM tenants t \
                     LEFT JOIN tenant_retention r ON r.tenant_id = t.id \
                     WHERE t.id > $1 ORDER BY t.id LIMIT $2",
                )
                .bind(after)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn retention(&self, tenant_id: &str) -> Result<Option<String>> {
                Ok(
                    sqlx::query_scalar("SELECT document FROM tenant_retention WHERE tenant_id = $1")
                        .bind(tenant_id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn put_retention(&self, tenant_id: &str, document: &str) -> Result<()> {
                sqlx::query(
                    "INSERT INTO tenant_retention (tenant_id, document) VALUES ($1, $2) \
                     ON CONFLICT (tenant_id) DO UPDATE SET document = excluded.document",
                )
                .bind(tenant_id)
                .bind(document)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn aged(
                &self,
                what: Aging,
                tenant_id: &str,
                before: i64,
                limit: i64,
            ) -> Result<Vec<String>> {
                use $crate::ids::{Kind, floor};
                // Ids are sorted by time, and those of the old form lie before all others: what is below
                // the id of that time is looked at alone.
                let (query, kind) = match what {
                    Aging::Runs => (
                        "SELECT id FROM runs WHERE tenant_id = $1 AND id < $2 \
                         AND created_at < $3 AND status IN ('completed', 'failed', 'cancelled') \
                         ORDER BY id LIMIT $4",
                        Kind::Run,
                    ),
                    Aging::Frames => (
                        "SELECT id FROM runs WHERE tenant_id = $1 AND id < $2 \
                         AND created_at < $3 AND status IN ('completed', 'failed', 'cancelled') \
                         AND id > COALESCE((SELECT run_id FROM frames_pruned \
                         WHERE tenant_id = $1), '') \
                         AND EXISTS (SELECT 1 FROM run_frames WHERE run_id = runs.id) \
                         ORDER BY id LIMIT $4",
                        Kind::Run,
                    ),
                    Aging::Events => (
                        "SELECT id FROM events WHERE tenant_id = $1 AND id < $2 \
                         AND created_at < $3 ORDER BY id LIMIT $4",
                        Kind::Event,
                    ),
                    Aging::Deliveries => (
                        "SELECT d.id FROM webhooks w JOIN webhook_deliveries d \
                         ON d.tenant_id = w.tenant_id AND d.webhook_id = w.id \
                         WHERE w.tenant_id = $1 AND d.id < $2 AND d.created_at < $3 \
                         AND d.status <> 'pending' LIMIT $4",
                        Kind::Delivery,
                    ),
                    Aging::Traces => (
                        "SELECT id FROM traces WHERE tenant_id = $1 AND created_at < $3 \
                         AND $2 <> '' ORDER BY created_at LIMIT $4",
                        Kind::Trace,
                    ),
                    Aging::UsageEvents => (
                        "SELECT id FROM usage_events WHERE tenant_id = $1 AND id < $2 \
                         AND created_at < $3 ORDER BY id LIMIT $4",
                        Kind::UsageEvent,
                    ),
                };
                // Clocks of nodes may differ a little.
                const SLACK_MICROS: i64 = 60 * 1_000_000;
                Ok(sqlx::query_scalar(query)
                    .bind(tenant_id)
                    .bind(floor(kind, before.saturating_add(SLACK_MICROS)).new)
                    .bind(before)
                    .bind(limit)
                    .fetch_all(&self.read)
                    .await?)
            }

            async fn thin(
                &self,
                what: Aging,
                tenant_id: &str,
                ids: &[String],
                limit: i64,
            ) -> Result<u64> {
                use $crate::store::sql::retention::{thin, trace_of};
                if ids.is_empty() {
                    return Ok(0);
                }
                let frames = match what {
                    Aging::Frames | Aging::Runs => thin!(
                        self, "run_frames", "run_id, first_frame", "run_id", tenant_id, ids, limit
                    ),
                    _ => 0,
                };
                let traces = match what {
                    Aging::Traces => ids.to_vec(),
                    Aging::Runs => ids.iter().map(|id| trace_of(id)).collect(),
                    _ => return Ok(frames),
                };
                // What is left of the batch.
                let limit = limit - frames as i64;
                if limit <= 0 {
                    return Ok(frames);
                }
                let spans = thin!(
                    self, "spans", "tenant_id, trace_id, id", "trace_id", tenant_id, &traces, limit
                );
                Ok(frames + spans)
            }

            async fn frames_are_pruned(&self, tenant_id: &str, before: i64) -> Result<()> {
                use $crate::ids::{Kind, floor};
                // An id is a little older than its run; how much, is another one's.
                const SLACK_MICROS: i64 = 3600 * 1_000_000;
                let upto = floor(Kind::Run, before.saturating_sub(SLACK_MICROS)).new;
                sqlx::query(
                    "UPDATE frames_pruned SET run_id = $2 WHERE tenant_id = $1 AND run_id > $2",
                )
                .bind(tenant_id)
                .bind(upto)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn prune(&self, what: Aging, tenant_id: &str, ids: &[String]) -> Result<()> {
                use $crate::store::sql::retention::{for_ids, trace_of};
                let Some(last) = ids.last() else {
                    return Ok(());
                };
                let none = None::<&str>;
                let mut tx = self.write.begin().await?;
                match what {
                    Aging::Frames => {
                        for_ids!(tx, "DELETE FROM run_frames WHERE run_id IN (", none, ids);
                        sqlx::query(
                            "INSERT INTO frames_pruned (tenant_id, run_id) VALUES ($1, $2) \
                             ON CONFLICT (tenant_id) DO UPDATE SET run_id = excluded.run_id",
                        )
                        .bind(tenant_id)
                        .bind(last)
                        .execute(&mut *tx)
                        .await?;
                    }
                    Aging::Runs => {
                        let traces: Vec<String> = ids.iter().map(|id| trace_of(id)).collect();
                        for_ids!(tx, "DELETE FROM run_frames WHERE run_id IN (", none, ids);
                        for_ids!(tx, "DELETE FROM run_states WHERE run_id IN (", none, ids);
                        for id in ids {
                            sqlx::query(
                                "DELETE FROM approvals WHERE tenant_id = $1 AND run_id = $2",
                            )
                            .bind(tenant_id)
                            .bind(id)
                            .execute(&mut *tx)
                            .await?;
                        }
                        for trace in &traces {
                            sqlx::query("DELETE FROM spans WHERE tenant_id = $1 AND trace_id = $2")
                                .bind(tenant_id)
                                .bind(trace)
                                .execute(&mut *tx)
                                .await?;
                        }
                        let owner = Some(tenant_id);
                        for_ids!(tx, "DELETE FROM traces WHERE tenant_id = ", owner, &traces);
                        for_ids!(tx, "DELETE FROM runs WHERE tenant_id = ", owner, ids);
                    }
                    Aging::Traces => {
                        for trace in ids {
                            sqlx::query("DELETE FROM spans WHERE tenant_id = $1 AND trace_id = $2")
                                .bind(tenant_id)
                                .bind(trace)
                                .execute(&mut *tx)
                                .await?;
                        }
                        let owner = Some(tenant_id);
                        for_ids!(tx, "DELETE FROM traces WHERE tenant_id = ", owner, ids);
                    }
                    Aging::Events => {
                        let owner = Some(tenant_id);
                        for_ids!(tx, "DELETE FROM events WHERE tenant_id = ", owner, ids);
                    }
                    Aging::Deliveries => {
                        let owner = Some(tenant_id);
                        for_ids!(
                            tx,
                            "DELETE FROM webhook_deliveries WHERE tenant_id = ",
                            owner,
                            ids
                        );
                    }
                    Aging::UsageEvents => {
                        let owner = Some(tenant_id);
                        for_ids!(tx, "DELETE FROM usage_events WHERE tenant_id = ", owner, ids);
                    }
                }
                tx.commit().await?;
                Ok(())
            }

            async fn sweep(&self, kind: usize, now: i64, limit: i64) -> Result<u64> {
                let Some((query, age)) = $crate::store::retention::SWEPT.get(kind) else {
                    return Ok(0);
                };
                let done = sqlx::query(*query)
                    .bind(now - age)
                    .bind(limit)
                    .execute(&self.write)
                    .await?;
                Ok(done.rows_affected())
            }
        }
    };
}

pub(in crate::store) use {for_ids, impl_retention, thin};
