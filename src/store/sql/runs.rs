//! Queries: runs, frames, threads, leases, usage.

pub(in crate::store) const INSERT_FRAMES: &str = "INSERT INTO run_frames (tenant_id, run_id, \
     first_frame, frames) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";

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
            ) -> Result<Vec<RunRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM runs WHERE tenant_id = $1 AND ($2 IS NULL OR id < $2) \
                     AND ($3 IS NULL OR smith_id = $3) AND ($4 IS NULL OR agent_id = $4) \
                     AND ($5 IS NULL OR status = $5) AND ($6 IS NULL OR EXISTS \
                     (SELECT 1 FROM smiths s WHERE s.tenant_id = $1 AND s.id = runs.smith_id \
                     AND substr(s.external_id, 1, length($6)) = $6)) \
                     ORDER BY id DESC LIMIT $7",
                )
                .bind(tenant_id)
                .bind(before)
                .bind(&filter.smith_id)
                .bind(&filter.agent_id)
                .bind(&filter.status)
                .bind(&filter.external_id_prefix)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
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

            async fn thread_transcripts(
                &self,
                tenant_id: &str,
                smith_id: &str,
                thread_id: &str,
                limit: i64,
            ) -> Result<Vec<String>> {
                let mut newest_first: Vec<String> = sqlx::query_scalar(
                    "SELECT transcript FROM runs WHERE tenant_id = $1 AND smith_id = $2 \
                     AND thread_id = $3 AND status = 'completed' AND transcript IS NOT NULL \
                     ORDER BY id DESC LIMIT $4",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(thread_id)
                .bind(limit)
                .fetch_all(&self.read)
                .await?;
                newest_first.reverse();
                Ok(newest_first)
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

            async fn lapsed_runs(&self, before: i64) -> Result<Vec<RunRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM runs WHERE status IN ('queued', 'running') \
                     AND lease_until < $1 ORDER BY id LIMIT 1000",
                )
                .bind(before)
                .fetch_all(&self.read)
                .await?)
            }

            async fn apply(&self, ops: &[Op]) -> Result<Vec<bool>> {
                let mut tx = self.write.begin().await?;
                let mut taken = Vec::with_capacity(ops.len());
                for op in ops {
                    let done = match op {
                        Op::Barrier => {
                            taken.push(true);
                            continue;
                        }
                        Op::CreateRun(run) => {
                            sqlx::query(
                                "INSERT INTO runs (id, tenant_id, smith_id, agent_id, thread_id, \
                                 channel, status, exclusive, include_mask, input, warnings, \
                                 metadata, actor, node_id, lease_until, created_at, updated_at) \
                                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
                                 $14, $15, $16, $17) ON CONFLICT DO NOTHING",
                            )
                            .bind(&run.id)
                            .bind(&run.tenant_id)
                            .bind(&run.smith_id)
                            .bind(&run.agent_id)
                            .bind(&run.thread_id)
                            .bind(&run.channel)
                            .bind(&run.status)
                            .bind(run.exclusive)
                            .bind(run.include_mask)
                            .bind(&run.input)
                            .bind(&run.warnings)
                            .bind(&run.metadata)
                            .bind(&run.actor)
                            .bind(&run.node_id)
                            .bind(run.lease_until)
                            .bind(run.created_at)
                            .bind(run.updated_at)
                            .execute(&mut *tx)
                            .await?
                        }
                        Op::Frames {
                            tenant_id,
                            run_id,
                            first,
                            frames,
                        } => {
                            sqlx::query($crate::store::sql::runs::INSERT_FRAMES)
                                .bind(&**tenant_id)
                                .bind(&**run_id)
                                .bind(first)
                                .bind(frames)
                                .execute(&mut *tx)
                                .await?
                        }
                        Op::EndRun(end) => {
                            let ended = sqlx::query(
                                "UPDATE runs SET status = $3, transcript = $4, output = $5, \
                                 stop_reason = $6, error_code = $7, error = $8, warnings = $9, \
                                 token_usage = $10, updated_at = $11 \
                                 WHERE tenant_id = $1 AND id = $2 \
                                 AND status IN ('queued', 'running')",
                            )
                            .bind(&end.tenant_id)
                            .bind(&end.id)
                            .bind(end.status)
                            .bind(&end.transcript)
                            .bind(&end.output)
                            .bind(end.stop_reason)
                            .bind(&end.error_code)
                            .bind(&end.error)
                            .bind(&end.warnings)
                            .bind(&end.token_usage)
                            .bind(end.updated_at)
                            .execute(&mut *tx)
                            .await?;
                            if let Some((first, frames)) = &end.frames
                                && ended.rows_affected() > 0
                            {
                                sqlx::query($crate::store::sql::runs::INSERT_FRAMES)
                                    .bind(&end.tenant_id)
                                    .bind(&end.id)
                                    .bind(first)
                                    .bind(frames)
                                    .execute(&mut *tx)
                                    .await?;
                            }
                            ended
                        }
                        Op::Usage(usage) => {
                            sqlx::query(
                                "INSERT INTO usage_daily (tenant_id, day, provider, model, calls, \
                                 input, output, cache_read, cache_write, reasoning) \
                                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                                 ON CONFLICT (tenant_id, day, provider, model) DO UPDATE SET \
                                 calls = usage_daily.calls + excluded.calls, \
                                 input = usage_daily.input + excluded.input, \
                                 output = usage_daily.output + excluded.output, \
                                 cache_read = usage_daily.cache_read + excluded.cache_read, \
                                 cache_write = usage_daily.cache_write + excluded.cache_write, \
                                 reasoning = usage_daily.reasoning + excluded.reasoning",
                            )
                            .bind(&usage.tenant_id)
                            .bind(&usage.day)
                            .bind(&usage.provider)
                            .bind(&usage.model)
                            .bind(usage.calls)
                            .bind(usage.input)
                            .bind(usage.output)
                            .bind(usage.cache_read)
                            .bind(usage.cache_write)
                            .bind(usage.reasoning)
                            .execute(&mut *tx)
                            .await?
                        }
                    };
                    taken.push(done.rows_affected() > 0);
                }
                tx.commit().await?;
                Ok(taken)
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
