//! Queries: deployments.

macro_rules! impl_deployments {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::DeploymentStore for $store {
            async fn insert_deployment(&self, deployment: &DeploymentRow) -> Result<bool> {
                let done = sqlx::query(
                    "INSERT INTO deployments (id, tenant_id, target_type, target_id, kind, \
                     address, provider, provider_metadata, display_name, owner_email, status, \
                     created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
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

            async fn deployments(
                &self,
                tenant_id: &str,
                filter: &DeploymentFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<DeploymentRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM deployments WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND target_type = ", &filter.target_type),
                        (" AND target_id = ", &filter.target_id),
                    ],
                    before,
                    limit
                ))
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

            async fn delete_deployment(&self, tenant_id: &str, id: &str) -> Result<bool> {
                let done = sqlx::query("DELETE FROM deployments WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .execute(&self.write)
                    .await?;
                Ok(done.rows_affected() > 0)
            }
        }
    };
}

pub(in crate::store) use impl_deployments;
