//! Queries: tokens.

macro_rules! impl_tokens {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::TokenStore for $store {
            async fn insert_token(&self, token: &TokenRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO tokens (id, tenant_id, name, sub, scopes, prefix, created_at, \
                     expires_at, grant_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                )
                .bind(&token.id)
                .bind(&token.tenant_id)
                .bind(&token.name)
                .bind(&token.sub)
                .bind(&token.scopes)
                .bind(&token.prefix)
                .bind(token.created_at)
                .bind(token.expires_at)
                .bind(&token.grant_id)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn token(&self, tenant_id: &str, id: &str) -> Result<Option<TokenRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM tokens WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn tokens(
                &self,
                tenant_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<TokenRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM tokens WHERE tenant_id = ",
                    tenant_id,
                    [],
                    before,
                    limit
                ))
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
                     WHERE revoked_at IS NOT NULL AND revoked_at >= $1 \
                     UNION ALL SELECT id, revoked_at FROM organization_keys \
                     WHERE revoked_at IS NOT NULL AND revoked_at >= $1",
                )
                .bind(since)
                .fetch_all(&self.read)
                .await?)
            }
        }
    };
}

pub(in crate::store) use impl_tokens;
