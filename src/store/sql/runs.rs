//! Queries: runs, frames, threads, leases, usage. What the journal writes is in [`super::journal`].

/// Columns that may be large.
pub(in crate::store) const HEAVY: &[&str] = &[
    "input",
    "transcript",
    "output",
    "error",
    "warnings",
    "metadata",
    "response",
];

/// What a thread's history may weigh when it is read, in bytes: what is older is forgotten.
pub(in crate::store) const HISTORY_BYTES: i64 = 32 * 1024 * 1024;

macro_rules! impl_runs {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::RunStore for $store {
            async fn run(&self, tenant_id: &str, id: &str) -> Result<Option<RunRow>> {
                Ok(sqlx::query_as("SELECT * FROM runs WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .fetch_optional(&self.read)
                    .await?)
            }

            async fn runs(
                &self,
                tenant_id: &str,
                filter: &RunFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<RunRow>> {
                // A smith's own list has no use for the names of others.
                let prefix = filter.external_id_prefix.as_deref();
                let build = |columns: &str, limit: i64| {
                let mut query = sqlx::QueryBuilder::new(format!(
                    "SELECT {columns} FROM runs WHERE tenant_id = "
                ));
                query.push_bind(tenant_id.to_owned());
                for (sql, value) in [
                    (" AND smith_id = ", filter.smith_id.as_deref()),
                    (" AND thread_id = ", filter.thread_id.as_deref()),
                    (" AND agent_id = ", filter.agent_id.as_deref()),
                    (" AND status = ", filter.status.as_deref()),
                    (" AND id < ", before),
                ] {
                    if let Some(value) = value {
                        query.push(sql);
                        query.push_bind(value.to_owned());
                    }
                }
                if let Some(prefix) = prefix {
                    query.push(
                        " AND EXISTS (SELECT 1 FROM smiths s WHERE s.id = runs.smith_id \
                         AND s.tenant_id = runs.tenant_id AND s.external_id >= ",
                    );
                    query.push_bind(prefix.to_owned());
                    if let Some(end) = $crate::store::sql::prefix_end(prefix) {
                        query.push(" AND s.external_id < ");
                        query.push_bind(end);
                    }
                    query.push(")");
                }
                query.push(" ORDER BY id DESC LIMIT ");
                query.push_bind(limit);
                query
                };
                Ok($crate::store::sql::select_within!(
                    &self.read,
                    build,
                    limit,
                    $crate::store::sql::runs::HEAVY
                ))
            }

            async fn run_frames(&self, tenant_id: &str, run_id: &str) -> Result<Vec<Vec<u8>>> {
                Ok(sqlx::query_scalar(
                    "SELECT frames FROM run_frames WHERE tenant_id = $1 AND run_id = $2 \
                     ORDER BY first_frame",
                )
                .bind(tenant_id)
                .bind(run_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn has_frames(&self, tenant_id: &str, run_id: &str) -> Result<bool> {
                let found: Option<i64> = sqlx::query_scalar(
                    "SELECT first_frame FROM run_frames \
                     WHERE tenant_id = $1 AND run_id = $2 LIMIT 1",
                )
                .bind(tenant_id)
                .bind(run_id)
                .fetch_optional(&self.read)
                .await?;
                Ok(found.is_some())
            }

            async fn thread_transcripts(
                &self,
                tenant_id: &str,
                smith_id: &str,
                thread_id: &str,
                limit: i64,
            ) -> Result<Vec<String>> {
                let build = |columns: &str, limit: i64| {
                    let mut query = sqlx::QueryBuilder::new(format!(
                        "SELECT {columns} FROM runs WHERE status = 'completed' \
                         AND transcript IS NOT NULL AND tenant_id = "
                    ));
                    query.push_bind(tenant_id.to_owned());
                    query.push(" AND smith_id = ");
                    query.push_bind(smith_id.to_owned());
                    query.push(" AND thread_id = ");
                    query.push_bind(thread_id.to_owned());
                    query.push(" ORDER BY id DESC LIMIT ");
                    query.push_bind(limit);
                    query
                };
                let mut query = build("CAST(OCTET_LENGTH(transcript) AS BIGINT)", limit);
                let sizes: Vec<i64> = query.build_query_scalar().fetch_all(&self.read).await?;
                let room = $crate::store::sql::runs::HISTORY_BYTES;
                let fit = $crate::store::rows::that_fit(&sizes, room);
                let mut query = build("transcript", fit as i64);
                let mut newest_first: Vec<String> =
                    query.build_query_scalar().fetch_all(&self.read).await?;
                newest_first.reverse();
                Ok(newest_first)
            }

            async fn see_thread(
                &self,
                tenant_id: &str,
                smith_id: &str,
                thread_id: &str,
            ) -> Result<ThreadSeen> {
                Ok(sqlx::query_as(
                    "SELECT EXISTS (SELECT 1 FROM runs WHERE tenant_id = $1 AND smith_id = $2 \
                     AND thread_id = $3 AND exclusive AND status IN ('queued', 'running', \
                     'paused_for_approval', 'paused_for_tool')) AS is_held, \
                     COALESCE((SELECT MAX(turn) FROM runs WHERE tenant_id = $1 \
                     AND smith_id = $2 AND thread_id = $3 AND turn IS NOT NULL), 0) AS turn",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(thread_id)
                .fetch_one(&self.read)
                .await?)
            }

            async fn running_in_thread(
                &self,
                tenant_id: &str,
                smith_id: &str,
                thread_id: &str,
            ) -> Result<Option<RunRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM runs WHERE tenant_id = $1 AND smith_id = $2 \
                     AND thread_id = $3 AND status IN ('queued', 'running') \
                     ORDER BY id DESC LIMIT 1",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(thread_id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn chain_transcripts(
                &self,
                tenant_id: &str,
                smith_id: &str,
                run_id: &str,
                limit: i64,
            ) -> Result<Vec<String>> {
                // The walk is along the rows' heads alone; it ends where they weigh too much.
                Ok(sqlx::query_scalar(
                    "WITH RECURSIVE chain (id, previous, place, bytes) AS ( \
                     SELECT id, previous_run_id, 1, \
                     CAST(COALESCE(OCTET_LENGTH(transcript), 0) AS BIGINT) FROM runs \
                     WHERE tenant_id = $1 AND smith_id = $2 AND id = $3 \
                     UNION ALL SELECT r.id, r.previous_run_id, chain.place + 1, \
                     CAST(chain.bytes + COALESCE(OCTET_LENGTH(r.transcript), 0) AS BIGINT) \
                     FROM chain JOIN runs r ON r.id = chain.previous \
                     WHERE r.tenant_id = $1 AND r.smith_id = $2 AND chain.place < $4 \
                     AND chain.bytes + COALESCE(OCTET_LENGTH(r.transcript), 0) <= $5) \
                     SELECT runs.transcript FROM chain JOIN runs ON runs.id = chain.id \
                     WHERE runs.tenant_id = $1 AND runs.transcript IS NOT NULL \
                     ORDER BY chain.place DESC",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(run_id)
                .bind(limit)
                .bind($crate::store::sql::runs::HISTORY_BYTES)
                .fetch_all(&self.read)
                .await?)
            }

            async fn set_response(
                &self,
                tenant_id: &str,
                run_id: &str,
                response: &str,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE runs SET response = $3 WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(run_id)
                .bind(response)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn renew_leases(&self, node_id: &str, lease_until: i64) -> Result<()> {
                sqlx::query(
                    "UPDATE runs SET lease_until = $2 \
                     WHERE node_id = $1 AND status IN ('queued', 'running')",
                )
                .bind(node_id)
                .bind(lease_until)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn lapsed_tenants(
                &self,
                before: i64,
                node_id: &str,
                limit: i64,
            ) -> Result<Vec<String>> {
                Ok(sqlx::query_scalar(
                    "SELECT tenant_id FROM runs WHERE status IN ('queued', 'running') \
                     AND lease_until < $1 AND node_id <> $2 GROUP BY tenant_id \
                     ORDER BY MIN(lease_until) LIMIT $3",
                )
                .bind(before)
                .bind(node_id)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn lapsed_runs(
                &self,
                tenant_id: &str,
                before: i64,
                node_id: &str,
                limit: i64,
            ) -> Result<Vec<String>> {
                Ok(sqlx::query_scalar(
                    "SELECT id FROM runs WHERE tenant_id = $1 \
                     AND status IN ('queued', 'running') AND lease_until < $2 \
                     AND node_id <> $3 ORDER BY lease_until LIMIT $4",
                )
                .bind(tenant_id)
                .bind(before)
                .bind(node_id)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn take_paused_run(
                &self,
                tenant_id: &str,
                id: &str,
                lease: &Lease<'_>,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE runs SET status = 'running', output = NULL, node_id = $3, \
                     lease_until = $4, updated_at = $5, cancel_reason = NULL, takings = 0 \
                     WHERE tenant_id = $1 AND id = $2 \
                     AND status IN ('paused_for_approval', 'paused_for_tool')",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(lease.node_id)
                .bind(lease.until)
                .bind(lease.now)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                // It may have waited for so long that those beside it are pruned: its frames are too,
                // once it has ended. What an id begins with is less than it.
                sqlx::query(
                    "UPDATE frames_pruned SET run_id = substr($2, 1, length($2) - 1) \
                     WHERE tenant_id = $1 AND run_id >= $2",
                )
                .bind(tenant_id)
                .bind(id)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(true)
            }

            async fn take_lapsed_run(
                &self,
                tenant_id: &str,
                id: &str,
                before: i64,
                lease: &Lease<'_>,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE runs SET node_id = $4, lease_until = $5, updated_at = $6, \
                     takings = takings + 1 WHERE tenant_id = $1 AND id = $2 AND status IN ('queued', 'running') \
                     AND lease_until < $3",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(before)
                .bind(lease.node_id)
                .bind(lease.until)
                .bind(lease.now)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn release_run(
                &self,
                tenant_id: &str,
                id: &str,
                node_id: &str,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE runs SET lease_until = 0, takings = \
                     CASE WHEN takings > 0 THEN takings - 1 ELSE 0 END \
                     WHERE tenant_id = $1 AND id = $2 AND node_id = $3 \
                     AND status IN ('queued', 'running')",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(node_id)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn uncount_taking(&self, tenant_id: &str, id: &str) -> Result<()> {
                sqlx::query(
                    "UPDATE runs SET takings = takings - 1 \
                     WHERE tenant_id = $1 AND id = $2 AND takings > 0",
                )
                .bind(tenant_id)
                .bind(id)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn run_state(&self, tenant_id: &str, run_id: &str) -> Result<Option<RunState>> {
                Ok(sqlx::query_as(
                    "SELECT base, progress FROM run_states WHERE tenant_id = $1 AND run_id = $2",
                )
                .bind(tenant_id)
                .bind(run_id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn ask_cancel(&self, tenant_id: &str, id: &str, reason: &str) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE runs SET cancel_reason = $3 WHERE tenant_id = $1 AND id = $2 \
                     AND status IN ('queued', 'running')",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(reason)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn asked_to_cancel(
                &self,
                node_id: &str,
            ) -> Result<Vec<(String, String, String)>> {
                Ok(sqlx::query_as(
                    "SELECT tenant_id, id, cancel_reason FROM runs WHERE node_id = $1 \
                     AND cancel_reason IS NOT NULL AND status IN ('queued', 'running')",
                )
                .bind(node_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn decided_runs(&self, before: i64) -> Result<Vec<(String, String)>> {
                Ok(sqlx::query_as(
                    "SELECT tenant_id, id FROM runs WHERE status = 'paused_for_approval' \
                     AND updated_at < $1 AND NOT EXISTS (SELECT 1 FROM approvals a \
                     WHERE a.tenant_id = runs.tenant_id AND a.run_id = runs.id \
                     AND a.status = 'pending') LIMIT 100",
                )
                .bind(before)
                .fetch_all(&self.read)
                .await?)
            }

            async fn apply_once(
                &self,
                ops: &[Op],
                mark: Option<Mark<'_>>,
            ) -> Result<Vec<bool>> {
                let mut tx = self.write.begin().await?;
                let mut taken = Vec::with_capacity(ops.len());
                let mut late = $crate::store::sql::batch::PutOff::default();
                for op in ops {
                    let took = $crate::store::sql::journal::apply_op!(tx, late, taken, op);
                    taken.push(took);
                }
                $crate::store::sql::batch::write_late!(tx, late, taken);
                if let Some(mark) = mark.filter(|_| Self::ANSWERS_MAY_BE_LOST)
                    && !$crate::store::sql::journal::put_mark!(tx, mark, taken)
                {
                    tx.rollback().await?;
                    return $crate::store::sql::journal::taken_before!(&self.write, mark);
                }
                tx.commit().await?;
                Ok(taken)
            }

            async fn idle_runs(&self, node_id: &str, before: i64) -> Result<Vec<RunRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM runs WHERE status IN ('queued', 'running') \
                     AND lease_until > 0 AND node_id = $1 AND updated_at < $2 LIMIT 100",
                )
                .bind(node_id)
                .bind(before)
                .fetch_all(&self.read)
                .await?)
            }

            async fn usage(&self, tenant_id: &str) -> Result<Vec<UsageRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM usage_daily WHERE tenant_id = $1 \
                     ORDER BY day, provider, model",
                )
                .bind(tenant_id)
                .fetch_all(&self.read)
                .await?)
            }
        }
    };
}

pub(in crate::store) use impl_runs;
