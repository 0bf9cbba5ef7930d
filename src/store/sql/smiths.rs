//! Queries: smiths.

/// Writes the next revision of a smith whose row this transaction has just written, and so holds.
macro_rules! add_revision {
    ($tx:expr, $smith:expr, $change:expr) => {
        sqlx::query(
            "INSERT INTO smith_revisions (tenant_id, smith_id, version, snapshot, created_by, \
             note, created_at) SELECT s.tenant_id, s.id, 1 + COALESCE((SELECT MAX(r.version) \
             FROM smith_revisions r WHERE r.smith_id = s.id), 0), $3, $4, $5, $6 \
             FROM smiths s WHERE s.tenant_id = $1 AND s.id = $2",
        )
        .bind(&$smith.tenant_id)
        .bind(&$smith.id)
        .bind($crate::store::sql::document("smith", &$smith.snapshot())?)
        .bind($change.by)
        .bind($change.note)
        .bind($change.at)
        .execute($tx)
        .await?
    };
}

pub(in crate::store) use add_revision;

macro_rules! impl_smiths {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::SmithStore for $store {
            async fn upsert_smith(&self, smith: &SmithRow) -> Result<(SmithRow, bool)> {
                let mut tx = self.write.begin().await?;
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
                .fetch_optional(&mut *tx)
                .await?;
                if let Some(made) = made {
                    let change = Change {
                        by: None,
                        note: None,
                        at: made.created_at,
                    };
                    $crate::store::sql::smiths::add_revision!(&mut *tx, made, change);
                    tx.commit().await?;
                    return Ok((made, true));
                }
                let live = sqlx::query_as(
                    "SELECT * FROM smiths \
                     WHERE tenant_id = $1 AND external_id = $2 AND agent_id = $3 \
                     AND deleted_at IS NULL",
                )
                .bind(&smith.tenant_id)
                .bind(&smith.external_id)
                .bind(&smith.agent_id)
                .fetch_one(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok((live, false))
            }

            async fn smith(&self, tenant_id: &str, id: &str) -> Result<Option<SmithRow>> {
                Ok(sqlx::query_as("SELECT * FROM smiths WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL")
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
            ) -> Result<Rows<SmithRow>> {
                let Some(prefix) = filter.external_id_prefix.as_deref() else {
                    return Ok($crate::store::sql::select_page!(
                        &self.read,
                        "SELECT * FROM smiths WHERE deleted_at IS NULL AND tenant_id = ",
                        tenant_id,
                        [
                            (" AND external_id = ", &filter.external_id),
                            (" AND customer_id = ", &filter.customer_id),
                            (" AND agent_id = ", &filter.agent_id),
                        ],
                        before,
                        limit,
 within &["profile", "overrides"]
));
                };
                // What a prefix finds is sorted: by ids alone, so that no rows are carried along.
                let end = $crate::store::sql::prefix_end(prefix);
                let build = |columns: &str, limit: i64| {
                let mut query = sqlx::QueryBuilder::new(format!(
                    "SELECT {columns} FROM smiths WHERE id IN (SELECT id FROM smiths \
                     WHERE deleted_at IS NULL AND tenant_id = "
                ));
                query.push_bind(tenant_id.to_owned());
                for (sql, value) in [
                    (" AND external_id >= ", Some(prefix)),
                    (" AND external_id < ", end.as_deref()),
                    (" AND external_id = ", filter.external_id.as_deref()),
                    (" AND customer_id = ", filter.customer_id.as_deref()),
                    (" AND agent_id = ", filter.agent_id.as_deref()),
                    (" AND id < ", before),
                ] {
                    if let Some(value) = value {
                        query.push(sql);
                        query.push_bind(value.to_owned());
                    }
                }
                query.push(" ORDER BY id DESC LIMIT ");
                query.push_bind(limit);
                query.push(") ORDER BY id DESC");
                query
                };
                Ok($crate::store::sql::select_within!(
                    &self.read,
                    build,
                    limit,
                    &["profile", "overrides"]
                ))
            }

            async fn update_smith(
                &self,
                smith: &SmithRow,
                change: Change<'_>,
            ) -> Result<SmithChange> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE smiths SET agent_id = $3, profile = $4, customer_id = $5, pin = $6, \
                     overrides = $7 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
                )
                .bind(&smith.tenant_id)
                .bind(&smith.id)
                .bind(&smith.agent_id)
                .bind($crate::store::sql::document("smith", &smith.profile)?)
                .bind(&smith.customer_id)
                .bind(smith.pin)
                .bind($crate::store::sql::document("smith", &smith.overrides)?)
                .execute(&mut *tx)
                .await;
                let done = match done {
                    Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                        return Ok(SmithChange::Taken);
                    }
                    other => other?,
                };
                if done.rows_affected() == 0 {
                    return Ok(SmithChange::Missing);
                }
                $crate::store::sql::smiths::add_revision!(&mut *tx, smith, change);
                tx.commit().await?;
                Ok(SmithChange::Done)
            }

            async fn delete_smith(
                &self,
                tenant_id: &str,
                id: &str,
                now: i64,
            ) -> Result<Option<Vec<String>>> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE smiths SET deleted_at = $3 \
                     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(None);
                }
                let by = $crate::store::sql::connectors::GrantColumn::Smith;
                let of_grants = $crate::store::sql::connectors::end_grants!(
                    &mut *tx, tenant_id, by, id, now
                );
                let mut ended = $crate::store::sql::deployments::end_deployments!(
                    &mut *tx, tenant_id, "smith", id, now
                );
                ended.extend(of_grants.into_iter().flatten());
                for query in [
                    "DELETE FROM connections WHERE tenant_id = $1 AND smith_id = $2",
                    "DELETE FROM oauth_states WHERE tenant_id = $1 AND smith_id = $2",
                    "DELETE FROM model_keys WHERE tenant_id = $1 AND smith_id = $2",
                    "DELETE FROM schedule_fires WHERE tenant_id = $1 AND schedule_id IN \
                     (SELECT id FROM schedules WHERE tenant_id = $1 AND smith_id = $2)",
                    "DELETE FROM schedules WHERE tenant_id = $1 AND smith_id = $2",
                    "DELETE FROM queued_turns WHERE tenant_id = $1 AND smith_id = $2 \
                     AND status IN ('queued', 'running')",
                    "DELETE FROM lanes WHERE tenant_id = $1 AND smith_id = $2",
                    "DELETE FROM channel_bindings WHERE tenant_id = $1 AND smith_id = $2",
                ] {
                    sqlx::query(query)
                        .bind(tenant_id)
                        .bind(id)
                        .execute(&mut *tx)
                        .await?;
                }
                let own: Vec<String> = sqlx::query_scalar(
                    "UPDATE tokens SET revoked_at = $3 WHERE tenant_id = $1 AND sub = $2 \
                     AND revoked_at IS NULL RETURNING id",
                )
                .bind(tenant_id)
                .bind(format!("{tenant_id}:{id}"))
                .bind(now)
                .fetch_all(&mut *tx)
                .await?;
                ended.extend(own);
                tx.commit().await?;
                $crate::store::ContinuityStore::forget_smiths_calls(self, tenant_id, id).await?;
                Ok(Some(ended))
            }

            async fn smith_revisions(
                &self,
                tenant_id: &str,
                smith_id: &str,
                before: Option<i64>,
                limit: i64,
            ) -> Result<Rows<SmithRevisionRow>> {
                let build = |columns: &str, limit: i64| {
                    let mut query = sqlx::QueryBuilder::new(format!(
                        "SELECT {columns} FROM smith_revisions WHERE tenant_id = "
                    ));
                    query.push_bind(tenant_id.to_owned());
                    query.push(" AND smith_id = ");
                    query.push_bind(smith_id.to_owned());
                    if let Some(before) = before {
                        query.push(" AND version < ");
                        query.push_bind(before);
                    }
                    query.push(" ORDER BY version DESC LIMIT ");
                    query.push_bind(limit);
                    query
                };
                Ok($crate::store::sql::select_within!(
                    &self.read,
                    build,
                    limit,
                    &["snapshot"]
                ))
            }

            async fn smith_revision(
                &self,
                tenant_id: &str,
                smith_id: &str,
                version: i64,
            ) -> Result<Option<SmithRevisionRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM smith_revisions \
                     WHERE tenant_id = $1 AND smith_id = $2 AND version = $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(version)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn smith_memory(&self, tenant_id: &str, smith_id: &str) -> Result<String> {
                let found: Option<String> = sqlx::query_scalar(
                    "SELECT content FROM smith_memory WHERE tenant_id = $1 AND smith_id = $2",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .fetch_optional(&self.read)
                .await?;
                Ok(found.unwrap_or_default())
            }

            async fn put_smith_memory(
                &self,
                tenant_id: &str,
                smith_id: &str,
                content: &str,
                now: i64,
            ) -> Result<()> {
                sqlx::query(
                    "INSERT INTO smith_memory (tenant_id, smith_id, content, updated_at) \
                     SELECT tenant_id, id, $3, $4 FROM smiths \
                     WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL \
                     ON CONFLICT (smith_id) DO UPDATE SET content = excluded.content, \
                     updated_at = excluded.updated_at",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(content)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn swap_smith_memory(
                &self,
                tenant_id: &str,
                smith_id: &str,
                before: &str,
                content: &str,
                now: i64,
            ) -> Result<bool> {
                // A document that is not there yet says nothing.
                let done = sqlx::query(match before.is_empty() {
                    true => {
                        "INSERT INTO smith_memory (tenant_id, smith_id, content, updated_at) \
                         SELECT tenant_id, id, $3, $4 FROM smiths \
                         WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL \
                         ON CONFLICT (smith_id) DO UPDATE SET content = excluded.content, \
                         updated_at = excluded.updated_at WHERE smith_memory.content = $5"
                    }
                    false => {
                        "UPDATE smith_memory SET content = $3, updated_at = $4 \
                         WHERE tenant_id = $1 AND smith_id = $2 AND content = $5 \
                         AND EXISTS (SELECT 1 FROM smiths WHERE smiths.tenant_id = $1 \
                         AND smiths.id = $2 AND smiths.deleted_at IS NULL)"
                    }
                })
                .bind(tenant_id)
                .bind(smith_id)
                .bind(content)
                .bind(now)
                .bind(before)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }
        }
    };
}

pub(in crate::store) use impl_smiths;
