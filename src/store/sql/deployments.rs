//! Queries: deployments.

macro_rules! impl_deployments {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::DeploymentStore for $store {
            async fn insert_deployment(&self, deployment: &DeploymentRow) -> Result<bool> {
                let done = sqlx::query(
                    "INSERT INTO deployments (id, tenant_id, target_type, target_id, kind, \
                     address, provider, provider_metadata, display_name, owner_email, status, \
                     created_at, sealed) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                     ON CONFLICT DO NOTHING",
                )
                .bind(&deployment.id)
                .bind(&deployment.tenant_id)
                .bind(&deployment.target_type)
                .bind(&deployment.target_id)
                .bind(&deployment.kind)
                .bind(&deployment.address)
                .bind(&deployment.provider)
                .bind(&deployment.provider_metadata)
                .bind(&deployment.display_name)
                .bind(&deployment.owner_email)
                .bind(&deployment.status)
                .bind(deployment.created_at)
                .bind(&deployment.sealed)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn deployment(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<DeploymentRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM deployments WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn web_page(&self, id: &str) -> Result<Option<DeploymentRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM deployments WHERE id = $1 AND kind = 'web'")
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn deployments(
                &self,
                tenant_id: &str,
                filter: &DeploymentFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<DeploymentRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM deployments WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND target_type = ", &filter.target_type),
                        (" AND target_id = ", &filter.target_id),
                        (" AND kind = ", &filter.kind),
                    ],
                    before,
                    limit,
 within &["provider_metadata"]
))
            }

            async fn deployment_of_token(
                &self,
                tenant_id: &str,
                hash: &str,
            ) -> Result<Option<DeploymentRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM deployments WHERE start_token = $2 AND tenant_id = $1",
                )
                .bind(tenant_id)
                .bind(hash)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn set_start_token(&self, tenant_id: &str, id: &str, hash: &str) -> Result<()> {
                sqlx::query(
                    "UPDATE deployments SET start_token = $3 WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(hash)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn update_deployment(&self, deployment: &DeploymentRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE deployments SET display_name = $3, owner_email = $4 \
                     WHERE tenant_id = $1 AND id = $2",
                )
                .bind(&deployment.tenant_id)
                .bind(&deployment.id)
                .bind(&deployment.display_name)
                .bind(&deployment.owner_email)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn delete_deployment(
                &self,
                tenant_id: &str,
                id: &str,
                now: i64,
            ) -> Result<Option<Vec<String>>> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query("DELETE FROM deployments WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .execute(&mut *tx)
                    .await?;
                if done.rows_affected() == 0 {
                    return Ok(None);
                }
                sqlx::query(
                    "DELETE FROM channel_bindings WHERE tenant_id = $1 AND deployment_id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .execute(&mut *tx)
                .await?;
                let by = $crate::store::sql::connectors::GrantColumn::Deployment;
                let ended = $crate::store::sql::connectors::end_grants!(
                    &mut *tx, tenant_id, by, id, now
                );
                tx.commit().await?;
                Ok(Some(ended.unwrap_or_default()))
            }
        }
    };
}

/// Deletes a target's deployments in a transaction, with the grants of the hosts that were let in
/// there: the ids of their tokens.
macro_rules! end_deployments {
    ($tx:expr, $tenant_id:expr, $target_type:literal, $target_id:expr, $now:expr) => {{
        let gone: Vec<String> = sqlx::query_scalar(concat!(
            "DELETE FROM deployments WHERE tenant_id = $1 AND target_type = '",
            $target_type,
            "' AND target_id = $2 RETURNING id"
        ))
        .bind($tenant_id)
        .bind($target_id)
        .fetch_all($tx)
        .await?;
        let mut tokens: Vec<String> = Vec::new();
        for id in &gone {
            let by = $crate::store::sql::connectors::GrantColumn::Deployment;
            let ended = $crate::store::sql::connectors::end_grants!($tx, $tenant_id, by, id, $now);
            tokens.extend(ended.into_iter().flatten());
        }
        tokens
    }};
}

pub(in crate::store) use {end_deployments, impl_deployments};
