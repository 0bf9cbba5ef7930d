//! Queries: agents and their versions.

macro_rules! impl_agents {
    ($store:ty) => {
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
                .bind($crate::store::sql::document("agent", &agent.draft)?)
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
                Ok(sqlx::query_as("SELECT * FROM agents WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL")
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
            ) -> Result<Rows<AgentRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM agents WHERE deleted_at IS NULL AND tenant_id = ",
                    tenant_id,
                    [],
                    before,
                    limit,
 within &["draft"]
))
            }

            async fn agent_slugs(&self, tenant_id: &str, prefix: &str) -> Result<Vec<String>> {
                Ok(sqlx::query_scalar(
                    "SELECT slug FROM agents WHERE tenant_id = $1 AND slug IS NOT NULL \
                     AND deleted_at IS NULL \
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
            ) -> Result<Publication> {
                let mut tx = self.write.begin().await?;
                // Writing the row first serialises publishers of one agent on both engines.
                let touched: Option<AgentRow> = sqlx::query_as(
                    "UPDATE agents SET updated_at = $3 \
                     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING *",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind(now)
                .fetch_optional(&mut *tx)
                .await?;
                let Some(mut agent) = touched else {
                    return Ok(Publication::Missing);
                };
                let uses = match $crate::store::sql::skills::freeze_skills!(tx, agent) {
                    Ok(uses) => uses,
                    Err(skill) => return Ok(Publication::NoSkill(skill)),
                };
                let version: AgentVersionRow = sqlx::query_as(
                    "INSERT INTO agent_versions (tenant_id, agent_id, version, snapshot, \
                     created_by, note, created_at) \
                     SELECT $1, $2, 1 + COALESCE(MAX(v.version), 0), $3, $4, $5, $6 \
                     FROM agent_versions v WHERE v.agent_id = $2 RETURNING *",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind($crate::store::sql::document("agent", &agent.draft)?)
                .bind(created_by)
                .bind(note)
                .bind(now)
                .fetch_one(&mut *tx)
                .await?;
                for (skill_id, skill_version) in uses {
                    sqlx::query(
                        "INSERT INTO skill_uses \
                         (tenant_id, skill_id, version, agent_id, agent_version) \
                         VALUES ($1, $2, $3, $4, $5)",
                    )
                    .bind(tenant_id)
                    .bind(skill_id)
                    .bind(skill_version)
                    .bind(agent_id)
                    .bind(version.version)
                    .execute(&mut *tx)
                    .await?;
                }
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
                Ok(Publication::Done(Box::new(version)))
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
            ) -> Result<Rows<AgentVersionRow>> {
                let build = |columns: &str, limit: i64| {
                    let mut query = sqlx::QueryBuilder::new(format!(
                        "SELECT {columns} FROM agent_versions WHERE tenant_id = "
                    ));
                    query.push_bind(tenant_id.to_owned());
                    query.push(" AND agent_id = ");
                    query.push_bind(agent_id.to_owned());
                    if let Some(before) = before {
                        query.push(" AND version < ");
                        query.push_bind(before);
                    }
                    query.push(" ORDER BY version DESC LIMIT ");
                    query.push_bind(limit);
                    query
                };
                Ok($crate::store::sql::select_within!(
                    &self.read,
                    build,
                    limit,
                    &["snapshot"]
                ))
            }

            async fn smith_count(&self, tenant_id: &str, agent_id: &str) -> Result<i64> {
                Ok($crate::store::sql::smith_count!(
                    &self.read, tenant_id, agent_id
                ))
            }

            async fn agent_activity(&self, tenant_id: &str, agent_id: &str) -> Result<Option<i64>> {
                Ok(sqlx::query_scalar(
                    "SELECT created_at FROM runs WHERE tenant_id = $1 AND agent_id = $2 \
                     ORDER BY id DESC LIMIT 1",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn update_agent(&self, agent: &AgentRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE agents SET name = $3, draft = $4, updated_at = $5 \
                     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
                )
                .bind(&agent.tenant_id)
                .bind(&agent.id)
                .bind(&agent.name)
                .bind($crate::store::sql::document("agent", &agent.draft)?)
                .bind(agent.updated_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn put_agent_ui(
                &self,
                agent: &AgentRow,
                name: &str,
                content: Option<&[u8]>,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE agents SET draft = $3, updated_at = $4 \
                     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
                )
                .bind(&agent.tenant_id)
                .bind(&agent.id)
                .bind($crate::store::sql::document("agent", &agent.draft)?)
                .bind(agent.updated_at)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                let write = match content {
                    Some(_) => {
                        "INSERT INTO agent_ui (tenant_id, agent_id, name, content) \
                         VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, agent_id, name) \
                         DO UPDATE SET content = excluded.content"
                    }
                    None => {
                        "DELETE FROM agent_ui WHERE tenant_id = $1 AND agent_id = $2 \
                         AND name = $3"
                    }
                };
                let mut write = sqlx::query(write)
                    .bind(&agent.tenant_id)
                    .bind(&agent.id)
                    .bind(name);
                if let Some(content) = content {
                    write = write.bind(content);
                }
                write.execute(&mut *tx).await?;
                tx.commit().await?;
                Ok(true)
            }

            async fn agent_ui(
                &self,
                tenant_id: &str,
                agent_id: &str,
                name: &str,
            ) -> Result<Option<Vec<u8>>> {
                Ok(sqlx::query_scalar(
                    "SELECT content FROM agent_ui \
                     WHERE tenant_id = $1 AND agent_id = $2 AND name = $3",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind(name)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn set_rollout(
                &self,
                tenant_id: &str,
                agent_id: &str,
                rollout: &Rollout,
                now: i64,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE agents SET active_version = $3, rollout_version = $4, \
                     rollout_percent = $5, updated_at = $6 \
                     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
                )
                .bind(tenant_id)
                .bind(agent_id)
                .bind(rollout.active_version)
                .bind(rollout.rollout_version)
                .bind(rollout.percent)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn delete_agent(
                &self,
                tenant_id: &str,
                id: &str,
                now: i64,
            ) -> Result<AgentRemoval> {
                let mut tx = self.write.begin().await?;
                let touched = sqlx::query(
                    "UPDATE agents SET deleted_at = $3 \
                     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                if touched.rows_affected() == 0 {
                    return Ok(AgentRemoval::Missing);
                }
                let smiths: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM smiths \
                     WHERE tenant_id = $1 AND agent_id = $2 AND deleted_at IS NULL",
                )
                .bind(tenant_id)
                .bind(id)
                .fetch_one(&mut *tx)
                .await?;
                if smiths > 0 {
                    tx.rollback().await?;
                    return Ok(AgentRemoval::InUse(smiths));
                }
                let ended = $crate::store::sql::deployments::end_deployments!(
                    &mut *tx, tenant_id, "agent", id, now
                );
                tx.commit().await?;
                Ok(AgentRemoval::Done(ended))
            }
        }
    };
}

pub(in crate::store) use impl_agents;
