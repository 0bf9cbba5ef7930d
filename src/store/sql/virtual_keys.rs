//! Queries: virtual keys.

/// Revokes all keys of a tenant in a transaction; answers them with their versions.
macro_rules! revoke_keys_of_tenant {
    ($tx:expr, $tenant_id:expr, $now:expr) => {
        sqlx::query_as::<_, $crate::store::VirtualKeyVersion>(
            "UPDATE virtual_keys SET revoked_at = $2, \
             updated_at = CASE WHEN updated_at < $2 THEN $2 ELSE updated_at + 1 END \
             WHERE tenant_id = $1 AND revoked_at IS NULL RETURNING id, updated_at",
        )
        .bind($tenant_id)
        .bind($now)
        .fetch_all(&mut *$tx)
        .await?
    };
}

pub(in crate::store) use revoke_keys_of_tenant;

macro_rules! impl_virtual_keys {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::VirtualKeyStore for $store {
            async fn insert_virtual_key(
                &self,
                key: &VirtualKeyRow,
                hash: &str,
                event: &EventRow,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "INSERT INTO virtual_keys (id, tenant_id, name, owner, team, metadata, tags, \
                     models, routes, disabled, last_four, created_at, updated_at, expires_at) \
                     SELECT $1, id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 \
                     FROM tenants WHERE id = $2 AND deleted_at IS NULL",
                )
                .bind(&key.id)
                .bind(&key.tenant_id)
                .bind(&key.name)
                .bind(&key.owner)
                .bind(&key.team)
                .bind(&key.metadata)
                .bind(&key.tags)
                .bind(&key.models)
                .bind(&key.routes)
                .bind(key.disabled)
                .bind(&key.last_four)
                .bind(key.created_at)
                .bind(key.updated_at)
                .bind(key.expires_at)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query(
                    "INSERT INTO virtual_key_secrets (hash, tenant_id, key_id, created_at) \
                     VALUES ($1, $2, $3, $4)",
                )
                .bind(hash)
                .bind(&key.tenant_id)
                .bind(&key.id)
                .bind(key.created_at)
                .execute(&mut *tx)
                .await?;
                $crate::store::sql::events::add_events!(tx, [event]);
                tx.commit().await?;
                Ok(true)
            }

            async fn virtual_key(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<VirtualKeyRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM virtual_keys WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn virtual_keys(
                &self,
                tenant_id: &str,
                filter: &VirtualKeyFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<VirtualKeyRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM virtual_keys WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND owner = ", &filter.owner),
                        (" AND team = ", &filter.team),
                    ],
                    before,
                    limit,
                    within & ["metadata", "tags", "models"]
                ))
            }

            async fn update_virtual_key(
                &self,
                key: &VirtualKeyRow,
                now: i64,
                event: &EventRow,
            ) -> Result<Option<i64>> {
                let mut tx = self.write.begin().await?;
                let version: Option<i64> = sqlx::query_scalar(
                    "UPDATE virtual_keys SET name = $3, owner = $4, team = $5, metadata = $6, \
                     tags = $7, models = $8, routes = $9, disabled = $10, expires_at = $11, \
                     updated_at = CASE WHEN updated_at < $12 THEN $12 ELSE updated_at + 1 END \
                     WHERE tenant_id = $1 AND id = $2 AND updated_at = $13 \
                     AND revoked_at IS NULL RETURNING updated_at",
                )
                .bind(&key.tenant_id)
                .bind(&key.id)
                .bind(&key.name)
                .bind(&key.owner)
                .bind(&key.team)
                .bind(&key.metadata)
                .bind(&key.tags)
                .bind(&key.models)
                .bind(&key.routes)
                .bind(key.disabled)
                .bind(key.expires_at)
                .bind(now)
                .bind(key.updated_at)
                .fetch_optional(&mut *tx)
                .await?;
                if version.is_some() {
                    $crate::store::sql::events::add_events!(tx, [event]);
                }
                tx.commit().await?;
                Ok(version)
            }

            async fn rotate_virtual_key(
                &self,
                tenant_id: &str,
                id: &str,
                secret: &NewSecret,
                now: i64,
                until: i64,
                event: &EventRow,
            ) -> Result<Option<i64>> {
                let mut tx = self.write.begin().await?;
                let version: Option<i64> = sqlx::query_scalar(
                    "UPDATE virtual_keys SET last_four = $3, \
                     updated_at = CASE WHEN updated_at < $4 THEN $4 ELSE updated_at + 1 END \
                     WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING updated_at",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(&secret.last_four)
                .bind(now)
                .fetch_optional(&mut *tx)
                .await?;
                if version.is_none() {
                    return Ok(None);
                }
                sqlx::query(
                    "DELETE FROM virtual_key_secrets \
                     WHERE tenant_id = $1 AND key_id = $2 AND expires_at <= $3",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                // One that ends before that does not live longer for it.
                sqlx::query(
                    "UPDATE virtual_key_secrets SET expires_at = $3 \
                     WHERE tenant_id = $1 AND key_id = $2 \
                     AND (expires_at IS NULL OR expires_at > $3)",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(until)
                .execute(&mut *tx)
                .await?;
                sqlx::query(
                    "INSERT INTO virtual_key_secrets (hash, tenant_id, key_id, created_at) \
                     VALUES ($1, $2, $3, $4)",
                )
                .bind(&secret.hash)
                .bind(tenant_id)
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                $crate::store::sql::events::add_events!(tx, [event]);
                tx.commit().await?;
                Ok(version)
            }

            async fn revoke_virtual_key(
                &self,
                tenant_id: &str,
                id: &str,
                now: i64,
                event: &EventRow,
            ) -> Result<Option<i64>> {
                let mut tx = self.write.begin().await?;
                let version: Option<i64> = sqlx::query_scalar(
                    "UPDATE virtual_keys SET revoked_at = $3, \
                     updated_at = CASE WHEN updated_at < $3 THEN $3 ELSE updated_at + 1 END \
                     WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING updated_at",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(now)
                .fetch_optional(&mut *tx)
                .await?;
                if version.is_some() {
                    $crate::store::sql::events::add_events!(tx, [event]);
                    tx.commit().await?;
                    return Ok(version);
                }
                Ok(sqlx::query_scalar(
                    "SELECT updated_at FROM virtual_keys WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .fetch_optional(&mut *tx)
                .await?)
            }

            async fn virtual_key_of(&self, hash: &str) -> Result<Option<VirtualKeyFound>> {
                Ok(sqlx::query_as(
                    "SELECT virtual_keys.*, virtual_key_secrets.expires_at AS secret_expires_at \
                     FROM virtual_key_secrets JOIN virtual_keys \
                     ON virtual_keys.tenant_id = virtual_key_secrets.tenant_id \
                     AND virtual_keys.id = virtual_key_secrets.key_id \
                     JOIN tenants ON tenants.id = virtual_keys.tenant_id \
                     AND tenants.deleted_at IS NULL \
                     WHERE virtual_key_secrets.hash = $1",
                )
                .bind(hash)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn virtual_keys_changed_since(
                &self,
                since: i64,
            ) -> Result<Vec<VirtualKeyVersion>> {
                Ok(sqlx::query_as(
                    "SELECT id, updated_at FROM virtual_keys WHERE updated_at >= $1",
                )
                .bind(since)
                .fetch_all(&self.read)
                .await?)
            }
        }
    };
}

pub(in crate::store) use impl_virtual_keys;
