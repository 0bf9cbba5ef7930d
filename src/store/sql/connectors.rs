//! Queries: MCP hosts that connect by OAuth.

macro_rules! impl_connectors {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ConnectorStore for $store {
            async fn insert_connector_client(&self, client: &ConnectorClientRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO connector_clients (id, name, redirect_uris, created_at) \
                     VALUES ($1, $2, $3, $4)",
                )
                .bind(&client.id)
                .bind(&client.name)
                .bind(&client.redirect_uris)
                .bind(client.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn connector_client(&self, id: &str) -> Result<Option<ConnectorClientRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM connector_clients WHERE id = $1")
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn insert_connector_code(&self, code: &ConnectorCodeRow) -> Result<()> {
                let mut tx = self.write.begin().await?;
                sqlx::query(
                    "UPDATE connector_clients SET used_at = $2 WHERE id = $1 AND used_at IS NULL",
                )
                .bind(&code.client_id)
                .bind(code.created_at)
                .execute(&mut *tx)
                .await?;
                sqlx::query(
                    "INSERT INTO connector_codes (id, client_id, tenant_id, smith_id, \
                     deployment_id, redirect_uri, challenge, scopes, grant_id, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                )
                .bind(&code.id)
                .bind(&code.client_id)
                .bind(&code.tenant_id)
                .bind(&code.smith_id)
                .bind(&code.deployment_id)
                .bind(&code.redirect_uri)
                .bind(&code.challenge)
                .bind(&code.scopes)
                .bind(&code.grant_id)
                .bind(code.created_at)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(())
            }

            async fn use_connector_code(
                &self,
                id: &str,
                now: i64,
            ) -> Result<Option<ConnectorCodeRow>> {
                let first: Option<ConnectorCodeRow> = sqlx::query_as(
                    "UPDATE connector_codes SET used_at = $2 WHERE id = $1 AND used_at IS NULL \
                     RETURNING *",
                )
                .bind(id)
                .bind(now)
                .fetch_optional(&self.write)
                .await?;
                if let Some(mut code) = first {
                    code.used_at = None;
                    return Ok(Some(code));
                }
                Ok(
                    sqlx::query_as("SELECT * FROM connector_codes WHERE id = $1")
                        .bind(id)
                        .fetch_optional(&self.write)
                        .await?,
                )
            }

            async fn insert_connector_grant(&self, grant: &ConnectorGrantRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO connector_grants (id, client_id, tenant_id, smith_id, \
                     deployment_id, scopes, refresh_hash, rotated_at, token_id, created_at, \
                     expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                )
                .bind(&grant.id)
                .bind(&grant.client_id)
                .bind(&grant.tenant_id)
                .bind(&grant.smith_id)
                .bind(&grant.deployment_id)
                .bind(&grant.scopes)
                .bind(&grant.refresh_hash)
                .bind(grant.rotated_at)
                .bind(&grant.token_id)
                .bind(grant.created_at)
                .bind(grant.expires_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn connector_grant(&self, id: &str) -> Result<Option<ConnectorGrantRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM connector_grants WHERE id = $1")
                        .bind(id)
                        .fetch_optional(&self.write)
                        .await?,
                )
            }

            async fn rotate_connector_grant(
                &self,
                grant: &ConnectorGrantRow,
                held: &str,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE connector_grants SET refresh_hash = $3, previous_hash = $4, \
                     rotated_at = $5, token_id = $6, expires_at = $7 \
                     WHERE id = $1 AND refresh_hash = $2 AND revoked_at IS NULL",
                )
                .bind(&grant.id)
                .bind(held)
                .bind(&grant.refresh_hash)
                .bind(&grant.previous_hash)
                .bind(grant.rotated_at)
                .bind(&grant.token_id)
                .bind(grant.expires_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn revoke_connector_grant(&self, id: &str, now: i64) -> Result<()> {
                sqlx::query(
                    "UPDATE connector_grants SET revoked_at = COALESCE(revoked_at, $2) \
                     WHERE id = $1",
                )
                .bind(id)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(())
            }
        }
    };
}

pub(in crate::store) use impl_connectors;
