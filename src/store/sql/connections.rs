//! Queries: connections of smiths, OAuth clients, authorizations under way.

macro_rules! impl_connections {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ConnectionStore for $store {
            async fn insert_connection(&self, connection: &ConnectionRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO connections (id, tenant_id, smith_id, provider, scopes, status, \
                     expires_at, metadata, sealed, created_at, updated_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                )
                .bind(&connection.id)
                .bind(&connection.tenant_id)
                .bind(&connection.smith_id)
                .bind(&connection.provider)
                .bind(&connection.scopes)
                .bind(&connection.status)
                .bind(connection.expires_at)
                .bind(&connection.metadata)
                .bind(&connection.sealed)
                .bind(connection.created_at)
                .bind(connection.updated_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn connection(
                &self,
                tenant_id: &str,
                smith_id: &str,
                id: &str,
            ) -> Result<Option<ConnectionRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM connections \
                     WHERE tenant_id = $1 AND smith_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn connections(
                &self,
                tenant_id: &str,
                smith_id: &str,
                provider: Option<&str>,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<ConnectionRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM connections WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND smith_id = ", Some(smith_id)),
                        (" AND provider = ", provider),
                    ],
                    before,
                    limit,
                    within & ["scopes", "metadata", "sealed"]
                ))
            }

            async fn update_connection(&self, connection: &ConnectionRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE connections SET scopes = $4, status = $5, expires_at = $6, \
                     metadata = $7, sealed = $8, updated_at = $9 \
                     WHERE tenant_id = $1 AND smith_id = $2 AND id = $3",
                )
                .bind(&connection.tenant_id)
                .bind(&connection.smith_id)
                .bind(&connection.id)
                .bind(&connection.scopes)
                .bind(&connection.status)
                .bind(connection.expires_at)
                .bind(&connection.metadata)
                .bind(&connection.sealed)
                .bind(connection.updated_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn delete_connection(
                &self,
                tenant_id: &str,
                smith_id: &str,
                id: &str,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "DELETE FROM connections \
                     WHERE tenant_id = $1 AND smith_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(id)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn put_oauth_provider(&self, provider: &OauthProviderRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO oauth_providers (tenant_id, provider, client_id, token_uri, \
                     scopes_allowed, refresh_webhook, authorize_url, sealed, updated_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                     ON CONFLICT (tenant_id, provider) DO UPDATE SET \
                     client_id = excluded.client_id, token_uri = excluded.token_uri, \
                     scopes_allowed = excluded.scopes_allowed, \
                     refresh_webhook = excluded.refresh_webhook, \
                     authorize_url = excluded.authorize_url, sealed = excluded.sealed, \
                     updated_at = excluded.updated_at",
                )
                .bind(&provider.tenant_id)
                .bind(&provider.provider)
                .bind(&provider.client_id)
                .bind(&provider.token_uri)
                .bind(&provider.scopes_allowed)
                .bind(&provider.refresh_webhook)
                .bind(&provider.authorize_url)
                .bind(&provider.sealed)
                .bind(provider.updated_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn oauth_provider(
                &self,
                tenant_id: &str,
                provider: &str,
            ) -> Result<Option<OauthProviderRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM oauth_providers WHERE tenant_id = $1 AND provider = $2",
                )
                .bind(tenant_id)
                .bind(provider)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn oauth_providers(&self, tenant_id: &str) -> Result<Vec<OauthProviderRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM oauth_providers WHERE tenant_id = $1 ORDER BY provider",
                )
                .bind(tenant_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn delete_oauth_provider(&self, tenant_id: &str, provider: &str) -> Result<bool> {
                let done = sqlx::query(
                    "DELETE FROM oauth_providers WHERE tenant_id = $1 AND provider = $2",
                )
                .bind(tenant_id)
                .bind(provider)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn insert_oauth_state(&self, state: &OauthStateRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO oauth_states (id, tenant_id, smith_id, provider, return_url, \
                     sealed, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                )
                .bind(&state.id)
                .bind(&state.tenant_id)
                .bind(&state.smith_id)
                .bind(&state.provider)
                .bind(&state.return_url)
                .bind(&state.sealed)
                .bind(state.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn take_oauth_state(&self, id: &str) -> Result<Option<OauthStateRow>> {
                Ok(
                    sqlx::query_as("DELETE FROM oauth_states WHERE id = $1 RETURNING *")
                        .bind(id)
                        .fetch_optional(&self.write)
                        .await?,
                )
            }
        }
    };
}

pub(in crate::store) use impl_connections;
