//! Queries: idempotency keys.

/// First answers are kept for 24 hours.
pub(in crate::store) const WINDOW_MICROS: i64 = 24 * 3600 * 1_000_000;
/// How long a claim holds without an answer or a run: its node died before it had either.
pub(in crate::store) const CLAIM_MICROS: i64 = 60 * 1_000_000;

macro_rules! impl_idempotency {
    ($store:ty) => {
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
                    "DELETE FROM idempotency WHERE tenant_id = $1 AND key = $2 \
                     AND (created_at < $3 OR (status IS NULL AND created_at < $4 \
                     AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.tenant_id = $1 \
                     AND runs.id = idempotency.run_id)))",
                )
                .bind(tenant_id)
                .bind(key)
                .bind(now - $crate::store::sql::idempotency::WINDOW_MICROS)
                .bind(now - $crate::store::sql::idempotency::CLAIM_MICROS)
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

            async fn renew_idempotent(&self, tenant_id: &str, key: &str, now: i64) -> Result<()> {
                sqlx::query(
                    "UPDATE idempotency SET created_at = $3 \
                     WHERE tenant_id = $1 AND key = $2 AND status IS NULL",
                )
                .bind(tenant_id)
                .bind(key)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn retry_idempotent(
                &self,
                tenant_id: &str,
                key: &str,
                first_run_id: &str,
                run_id: &str,
                now: i64,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE idempotency SET run_id = $4, created_at = $5 \
                     WHERE tenant_id = $1 AND key = $2 AND run_id = $3 AND status IS NULL",
                )
                .bind(tenant_id)
                .bind(key)
                .bind(first_run_id)
                .bind(run_id)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn abandon_idempotent(
                &self,
                tenant_id: &str,
                key: &str,
                run_id: Option<&str>,
            ) -> Result<()> {
                sqlx::query(
                    "DELETE FROM idempotency WHERE tenant_id = $1 AND key = $2 \
                     AND status IS NULL AND COALESCE(run_id, '') = $3",
                )
                .bind(tenant_id)
                .bind(key)
                .bind(run_id.unwrap_or_default())
                .execute(&self.write)
                .await?;
                Ok(())
            }
        }
    };
}

pub(in crate::store) use impl_idempotency;
