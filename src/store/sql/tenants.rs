//! Queries: tenants and signing keys.

macro_rules! impl_tenants {
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

            async fn probe(&self, now: i64) -> Result<()> {
                sqlx::query(
                    "INSERT INTO store_probes (id, probed_at, filler) VALUES (1, $1, $2) \
                     ON CONFLICT (id) DO UPDATE SET probed_at = excluded.probed_at, \
                     filler = excluded.filler",
                )
                .bind(now)
                .bind(vec![0u8; Self::PROBE_BYTES])
                .execute(&self.write)
                .await?;
                Ok(())
            }
        }
    };
}

pub(in crate::store) use impl_tenants;
