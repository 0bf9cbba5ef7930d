//! Queries: smiths.

macro_rules! impl_smiths {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::SmithStore for $store {
            async fn upsert_smith(&self, smith: &SmithRow) -> Result<(SmithRow, bool)> {
                let made: Option<SmithRow> = sqlx::query_as(
                    "INSERT INTO smiths (id, tenant_id, agent_id, external_id, profile, \
                     customer_id, pin, overrides, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                     ON CONFLICT DO NOTHING RETURNING *",
                )
                .bind(&smith.id)
                .bind(&smith.tenant_id)
                .bind(&smith.agent_id)
                .bind(&smith.external_id)
                .bind($crate::store::sql::document("smith", &smith.profile)?)
                .bind(&smith.customer_id)
                .bind(smith.pin)
                .bind($crate::store::sql::document("smith", &smith.overrides)?)
                .bind(smith.created_at)
                .fetch_optional(&self.write)
                .await?;
                if let Some(made) = made {
                    return Ok((made, true));
                }
                let live = sqlx::query_as(
                    "SELECT * FROM smiths \
                     WHERE tenant_id = $1 AND external_id = $2 AND agent_id = $3",
                )
                .bind(&smith.tenant_id)
                .bind(&smith.external_id)
                .bind(&smith.agent_id)
                .fetch_one(&self.write)
                .await?;
                Ok((live, false))
            }

            async fn smith(&self, tenant_id: &str, id: &str) -> Result<Option<SmithRow>> {
                Ok(sqlx::query_as("SELECT * FROM smiths WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .fetch_optional(&self.read)
                    .await?)
            }

            async fn smiths(
                &self,
                tenant_id: &str,
                filter: &SmithFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<SmithRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM smiths WHERE tenant_id = $1 AND ($2 IS NULL OR id < $2) \
                     AND ($3 IS NULL OR external_id = $3) \
                     AND ($4 IS NULL OR substr(external_id, 1, length($4)) = $4) \
                     AND ($5 IS NULL OR customer_id = $5) AND ($6 IS NULL OR agent_id = $6) \
                     ORDER BY id DESC LIMIT $7",
                )
                .bind(tenant_id)
                .bind(before)
                .bind(&filter.external_id)
                .bind(&filter.external_id_prefix)
                .bind(&filter.customer_id)
                .bind(&filter.agent_id)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }
        }
    };
}

pub(in crate::store) use impl_smiths;
