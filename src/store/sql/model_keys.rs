//! Queries: model keys.

macro_rules! impl_model_keys {
    ($store:ty) => {
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

            async fn model_keys(
                &self,
                tenant_id: &str,
                smith_id: &str,
            ) -> Result<Vec<ModelKeyRow>> {
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
    };
}

pub(in crate::store) use impl_model_keys;
