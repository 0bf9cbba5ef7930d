//! The queries, written once. Both engines take `$n` parameters, `ON CONFLICT` and `RETURNING`,
//! so one text serves both; what differs is the pool and the schema history.

/// Implements all store traits for `$store`, whose `read` and `write` fields are pools of one
/// database.
macro_rules! impl_store {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::TenantStore for $store {
            async fn create_tenant(&self, tenant: &Tenant) -> Result<()> {
                sqlx::query("INSERT INTO tenants (id, name, created_at) VALUES ($1, $2, $3)")
                    .bind(&tenant.id)
                    .bind(&tenant.name)
                    .bind(tenant.created_at)
                    .execute(&self.write)
                    .await?;
                Ok(())
            }

            async fn first_tenant(&self) -> Result<Option<Tenant>> {
                Ok(sqlx::query_as("SELECT * FROM tenants ORDER BY created_at, id LIMIT 1")
                    .fetch_optional(&self.read)
                    .await?)
            }

            async fn tenant(&self, tenant_id: &str) -> Result<Option<Tenant>> {
                Ok(sqlx::query_as("SELECT * FROM tenants WHERE id = $1")
                    .bind(tenant_id)
                    .fetch_optional(&self.read)
                    .await?)
            }

            async fn add_signing_key(&self, key: &SigningKeyRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO signing_keys (kid, sealed, jwk, created_at) VALUES ($1, $2, $3, $4)",
                )
                .bind(&key.kid)
                .bind(&key.sealed)
                .bind(&key.jwk)
                .bind(key.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn signing_keys(&self) -> Result<Vec<SigningKeyRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM signing_keys ORDER BY created_at DESC, kid DESC")
                        .fetch_all(&self.read)
                        .await?,
                )
            }

            async fn ping(&self) -> Result<()> {
                sqlx::query("SELECT 1").execute(&self.read).await?;
                Ok(())
            }
        }

        #[async_trait::async_trait]
        impl $crate::store::TokenStore for $store {
            async fn insert_token(&self, token: &TokenRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO tokens (id, tenant_id, name, sub, scopes, prefix, created_at, \
                     expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                )
                .bind(&token.id)
                .bind(&token.tenant_id)
                .bind(&token.name)
                .bind(&token.sub)
                .bind(&token.scopes)
                .bind(&token.prefix)
                .bind(token.created_at)
                .bind(token.expires_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn token(&self, tenant_id: &str, id: &str) -> Result<Option<TokenRow>> {
                Ok(sqlx::query_as("SELECT * FROM tokens WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .fetch_optional(&self.read)
                    .await?)
            }

            async fn tokens(
                &self,
                tenant_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<TokenRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM tokens WHERE tenant_id = $1 AND ($2 IS NULL OR id < $2) \
                     ORDER BY id DESC LIMIT $3",
                )
                .bind(tenant_id)
                .bind(before)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn revoke_token(&self, tenant_id: &str, id: &str, now: i64) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE tokens SET revoked_at = COALESCE(revoked_at, $3) \
                     WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn revoked_since(&self, since: i64) -> Result<Vec<(String, i64)>> {
                Ok(sqlx::query_as(
                    "SELECT id, revoked_at FROM tokens \
                     WHERE revoked_at IS NOT NULL AND revoked_at >= $1",
                )
                .bind(since)
                .fetch_all(&self.read)
                .await?)
            }
        }

        #[async_trait::async_trait]
        impl $crate::store::AgentStore for $store {
            async fn insert_agent(&self, agent: &AgentRow) -> Result<bool> {
                let done = sqlx::query(
                    "INSERT INTO agents (id, tenant_id, slug, name, is_default, draft, \
                     active_version, rollout_version, rollout_percent, created_at, updated_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                     ON CONFLICT DO NOTHING",
                )
                .bind(&agent.id)
                .bind(&agent.tenant_id)
                .bind(&agent.slug)
                .bind(&agent.name)
                .bind(agent.is_default)
                .bind(document("agent", &agent.draft)?)
                .bind(agent.active_version)
                .bind(agent.rollout_version)
                .bind(agent.rollout_percent)
                .bind(agent.created_at)
                .bind(agent.updated_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn agent(&self, tenant_id: &str, id: &str) -> Result<Option<AgentRow>> {
                Ok(sqlx::query_as("SELECT * FROM agents WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .fetch_optional(&self.read)
                    .await?)
            }

            async fn default_agent(&self, template: &AgentRow) -> Result<AgentRow> {
                const FIND: &str = "SELECT * FROM agents WHERE tenant_id = $1 AND is_default";
                let found = sqlx::query_as(FIND)
                    .bind(&template.tenant_id)
                    .fetch_optional(&self.read)
                    .await?;
                if let Some(agent) = found {
                    return Ok(agent);
                }
                self.insert_agent(template).await?;
                Ok(sqlx::query_as(FIND)
                    .bind(&template.tenant_id)
                    .fetch_one(&self.write)
                    .await?)
            }

            async fn agents(
                &self,
                tenant_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<AgentRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM agents WHERE tenant_id = $1 AND ($2 IS NULL OR id < $2) \
                     ORDER BY id DESC LIMIT $3",
                )
                .bind(tenant_id)
                .bind(before)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn agent_slugs(&self, tenant_id: &str, prefix: &str) -> Result<Vec<String>> {
                Ok(sqlx::query_scalar(
                    "SELECT slug FROM agents WHERE tenant_id = $1 AND slug IS NOT NULL \
                     AND substr(slug, 1, length($2)) = $2",
                )
                .bind(tenant_id)
                .bind(prefix)
                .fetch_all(&self.read)
                .await?)
            }

            async fn publish_agent(
                &self,
                tenant_id: &str,
                agent_id: &str,
                created_by: Option<&str>,
                note: Option<&str>,
                now: i64,
            ) -> Result<Option<AgentVersionRow>> {
                let mut tx = self.write.begin().await?;
                // Writing the row first serialises publishers of one agent on both engines.
                let touched = sqlx::query(
                    "UPDATE agents SET updated_at = $3 WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                if touched.rows_affected() == 0 {
                    return Ok(None);
                }
                let version: AgentVersionRow = sqlx::query_as(
                    "INSERT INTO agent_versions (tenant_id, agent_id, version, snapshot, \
                     created_by, note, created_at) \
                     SELECT a.tenant_id, a.id, 1 + COALESCE((SELECT MAX(v.version) \
                     FROM agent_versions v WHERE v.agent_id = a.id), 0), a.draft, $3, $4, $5 \
                     FROM agents a WHERE a.tenant_id = $1 AND a.id = $2 RETURNING *",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind(created_by)
                .bind(note)
                .bind(now)
                .fetch_one(&mut *tx)
                .await?;
                sqlx::query(
                    "UPDATE agents SET active_version = $3 \
                     WHERE tenant_id = $1 AND id = $2 AND active_version IS NULL",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind(version.version)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(Some(version))
            }

            async fn agent_version(
                &self,
                tenant_id: &str,
                agent_id: &str,
                version: i64,
            ) -> Result<Option<AgentVersionRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM agent_versions \
                     WHERE tenant_id = $1 AND agent_id = $2 AND version = $3",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind(version)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn agent_versions(
                &self,
                tenant_id: &str,
                agent_id: &str,
                before: Option<i64>,
                limit: i64,
            ) -> Result<Vec<AgentVersionRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM agent_versions WHERE tenant_id = $1 AND agent_id = $2 \
                     AND ($3 IS NULL OR version < $3) ORDER BY version DESC LIMIT $4",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind(before)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn smith_count(&self, tenant_id: &str, agent_id: &str) -> Result<i64> {
                Ok(sqlx::query_scalar(
                    "SELECT COUNT(*) FROM smiths WHERE tenant_id = $1 AND agent_id = $2",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .fetch_one(&self.read)
                .await?)
            }
        }

        #[async_trait::async_trait]
        impl $crate::store::SmithStore for $store {
            async fn upsert_smith(&self, smith: &SmithRow) -> Result<(SmithRow, bool)> {
                let made: Option<SmithRow> = sqlx::query_as(
                    "INSERT INTO smiths (id, tenant_id, agent_id, external_id, profile, \
                     customer_id, pin, overrides, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                     ON CONFLICT DO NOTHING RETURNING *",
                )
                .bind(&smith.id)
                .bind(&smith.tenant_id)
                .bind(&smith.agent_id)
                .bind(&smith.external_id)
                .bind(document("smith", &smith.profile)?)
                .bind(&smith.customer_id)
                .bind(smith.pin)
                .bind(document("smith", &smith.overrides)?)
                .bind(smith.created_at)
                .fetch_optional(&self.write)
                .await?;
                if let Some(made) = made {
                    return Ok((made, true));
                }
                let live = sqlx::query_as(
                    "SELECT * FROM smiths \
                     WHERE tenant_id = $1 AND external_id = $2 AND agent_id = $3",
                )
                .bind(&smith.tenant_id)
                .bind(&smith.external_id)
                .bind(&smith.agent_id)
                .fetch_one(&self.write)
                .await?;
                Ok((live, false))
            }

            async fn smith(&self, tenant_id: &str, id: &str) -> Result<Option<SmithRow>> {
                Ok(sqlx::query_as("SELECT * FROM smiths WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .fetch_optional(&self.read)
                    .await?)
            }

            async fn smiths(
                &self,
                tenant_id: &str,
                filter: &SmithFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<SmithRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM smiths WHERE tenant_id = $1 AND ($2 IS NULL OR id < $2) \
                     AND ($3 IS NULL OR external_id = $3) \
                     AND ($4 IS NULL OR substr(external_id, 1, length($4)) = $4) \
                     AND ($5 IS NULL OR customer_id = $5) AND ($6 IS NULL OR agent_id = $6) \
                     ORDER BY id DESC LIMIT $7",
                )
                .bind(tenant_id)
                .bind(before)
                .bind(&filter.external_id)
                .bind(&filter.external_id_prefix)
                .bind(&filter.customer_id)
                .bind(&filter.agent_id)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }
        }

        #[async_trait::async_trait]
        impl $crate::store::ModelKeyStore for $store {
            async fn put_model_key(&self, key: &ModelKeyRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO model_keys (tenant_id, smith_id, provider, base_url, sealed, \
                     updated_at) VALUES ($1, $2, $3, $4, $5, $6) \
                     ON CONFLICT (tenant_id, smith_id, provider) DO UPDATE SET \
                     base_url = excluded.base_url, sealed = excluded.sealed, \
                     updated_at = excluded.updated_at",
                )
                .bind(&key.tenant_id)
                .bind(&key.smith_id)
                .bind(&key.provider)
                .bind(&key.base_url)
                .bind(&key.sealed)
                .bind(key.updated_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn model_key(
                &self,
                tenant_id: &str,
                smith_id: &str,
                provider: &str,
            ) -> Result<Option<ModelKeyRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM model_keys \
                     WHERE tenant_id = $1 AND smith_id = $2 AND provider = $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(provider)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn model_keys(&self, tenant_id: &str, smith_id: &str) -> Result<Vec<ModelKeyRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM model_keys WHERE tenant_id = $1 AND smith_id = $2 \
                     ORDER BY provider",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn delete_model_key(
                &self,
                tenant_id: &str,
                smith_id: &str,
                provider: &str,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "DELETE FROM model_keys \
                     WHERE tenant_id = $1 AND smith_id = $2 AND provider = $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(provider)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }
        }

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
                            sqlx::query(INSERT_FRAMES)
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
                                sqlx::query(INSERT_FRAMES)
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

        #[async_trait::async_trait]
        impl $crate::store::IdempotencyStore for $store {
            async fn begin_idempotent(
                &self,
                tenant_id: &str,
                key: &str,
                fingerprint: &str,
                run_id: Option<&str>,
                now: i64,
            ) -> Result<Idempotency> {
                let mut tx = self.write.begin().await?;
                sqlx::query(
                    "DELETE FROM idempotency \
                     WHERE tenant_id = $1 AND key = $2 AND created_at < $3",
                )
                .bind(tenant_id)
                .bind(key)
                .bind(now - IDEMPOTENCY_WINDOW_MICROS)
                .execute(&mut *tx)
                .await?;
                let claimed = sqlx::query(
                    "INSERT INTO idempotency (tenant_id, key, fingerprint, run_id, created_at) \
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                )
                .bind(tenant_id)
                .bind(key)
                .bind(fingerprint)
                .bind(run_id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                if claimed.rows_affected() > 0 {
                    tx.commit().await?;
                    return Ok(Idempotency::New);
                }
                let first: Option<IdempotencyRow> = sqlx::query_as(
                    "SELECT fingerprint, status, body, run_id, created_at FROM idempotency \
                     WHERE tenant_id = $1 AND key = $2",
                )
                .bind(tenant_id)
                .bind(key)
                .fetch_optional(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(match first {
                    Some(row) => row.judge(fingerprint),
                    None => Idempotency::InProgress { run_id: None },
                })
            }

            async fn finish_idempotent(
                &self,
                tenant_id: &str,
                key: &str,
                status: u16,
                body: &[u8],
            ) -> Result<()> {
                sqlx::query(
                    "UPDATE idempotency SET status = $3, body = $4 \
                     WHERE tenant_id = $1 AND key = $2",
                )
                .bind(tenant_id)
                .bind(key)
                .bind(i64::from(status))
                .bind(body)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn abandon_idempotent(&self, tenant_id: &str, key: &str) -> Result<()> {
                sqlx::query(
                    "DELETE FROM idempotency \
                     WHERE tenant_id = $1 AND key = $2 AND status IS NULL",
                )
                .bind(tenant_id)
                .bind(key)
                .execute(&self.write)
                .await?;
                Ok(())
            }
        }
    };
}

pub(super) use impl_store;

pub(super) const INSERT_FRAMES: &str = "INSERT INTO run_frames (tenant_id, run_id, first_frame, \
     frames) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";

/// First answers are kept for 24 hours.
pub(super) const IDEMPOTENCY_WINDOW_MICROS: i64 = 24 * 3600 * 1_000_000;

/// A document as JSON text.
pub(super) fn document<T: serde::Serialize>(
    what: &'static str,
    value: &T,
) -> super::Result<String> {
    serde_json::to_string(value).map_err(|e| super::StoreError::Document(what, e))
}
