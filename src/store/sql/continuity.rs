//! Queries: what tool calls came with.

macro_rules! impl_continuity {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ContinuityStore for $store {
            async fn keep_calls(&self, calls: &[KeptCall]) -> Result<()> {
                let mut tx = self.write.begin().await?;
                for call in calls {
                    sqlx::query(
                        "INSERT INTO kept_calls (tenant_id, smith_id, call, kept, created_at) \
                         VALUES ($1, $2, $3, $4, $5) \
                         ON CONFLICT (tenant_id, smith_id, call) DO UPDATE SET \
                         kept = excluded.kept, created_at = excluded.created_at",
                    )
                    .bind(&call.tenant_id)
                    .bind(&call.smith_id)
                    .bind(&call.call)
                    .bind(&call.kept)
                    .bind(call.created_at)
                    .execute(&mut *tx)
                    .await?;
                }
                tx.commit().await?;
                Ok(())
            }

            async fn kept_calls(
                &self,
                tenant_id: &str,
                smith_id: &str,
                calls: &[String],
            ) -> Result<Vec<KeptCall>> {
                if calls.is_empty() {
                    return Ok(Vec::new());
                }
                let mut query =
                    sqlx::QueryBuilder::new("SELECT * FROM kept_calls WHERE tenant_id = ");
                query.push_bind(tenant_id.to_owned());
                query.push(" AND smith_id = ");
                query.push_bind(smith_id.to_owned());
                query.push(" AND call IN (");
                let mut list = query.separated(", ");
                for call in calls {
                    list.push_bind(call.clone());
                }
                query.push(")");
                Ok(query.build_query_as().fetch_all(&self.read).await?)
            }

            async fn forget_calls(&self, before: i64, most: i64, limit: i64) -> Result<u64> {
                let done = sqlx::query(
                    "DELETE FROM kept_calls WHERE (tenant_id, smith_id, call) IN \
                     (SELECT tenant_id, smith_id, call FROM kept_calls WHERE created_at < $1 \
                      ORDER BY created_at LIMIT $2)",
                )
                .bind(before)
                .bind(limit)
                .execute(&self.write)
                .await?;
                if done.rows_affected() > 0 {
                    return Ok(done.rows_affected());
                }
                let fullest: Option<(String, i64)> = sqlx::query_as(
                    "SELECT tenant_id, COUNT(*) FROM kept_calls GROUP BY tenant_id \
                     HAVING COUNT(*) > $1 LIMIT 1",
                )
                .bind(most)
                .fetch_optional(&self.read)
                .await?;
                let Some((tenant_id, count)) = fullest else {
                    return Ok(0);
                };
                let done = sqlx::query(
                    "DELETE FROM kept_calls WHERE (tenant_id, smith_id, call) IN \
                     (SELECT tenant_id, smith_id, call FROM kept_calls WHERE tenant_id = $1 \
                      ORDER BY created_at LIMIT $2)",
                )
                .bind(tenant_id)
                .bind(limit.min(count - most))
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected())
            }

            async fn forget_smiths_calls(&self, tenant_id: &str, smith_id: &str) -> Result<()> {
                sqlx::query("DELETE FROM kept_calls WHERE tenant_id = $1 AND smith_id = $2")
                    .bind(tenant_id)
                    .bind(smith_id)
                    .execute(&self.write)
                    .await?;
                Ok(())
            }
        }
    };
}

pub(in crate::store) use impl_continuity;
