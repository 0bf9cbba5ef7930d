//! Queries: organizations, projects, organization keys, and what has outlived its use.

macro_rules! impl_organizations {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::OrganizationStore for $store {
            async fn organization(&self, template: &OrganizationRow) -> Result<OrganizationRow> {
                const FIND: &str = "SELECT * FROM organizations ORDER BY id LIMIT 1";
                if let Some(found) = sqlx::query_as(FIND).fetch_optional(&self.read).await? {
                    return Ok(found);
                }
                let mut tx = self.write.begin().await?;
                sqlx::query(
                    "INSERT INTO organizations (id, name, created_at) \
                     SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM organizations)",
                )
                .bind(&template.id)
                .bind(&template.name)
                .bind(template.created_at)
                .execute(&mut *tx)
                .await?;
                let organization: OrganizationRow =
                    sqlx::query_as(FIND).fetch_one(&mut *tx).await?;
                sqlx::query(
                    "UPDATE tenants SET organization_id = $1 WHERE organization_id IS NULL",
                )
                .bind(&organization.id)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(organization)
            }

            async fn insert_project(
                &self,
                organization_id: &str,
                project: &ProjectRow,
            ) -> Result<()> {
                sqlx::query(
                    "INSERT INTO tenants (id, organization_id, name, metadata, created_at) \
                     VALUES ($1, $2, $3, $4, $5)",
                )
                .bind(&project.id)
                .bind(organization_id)
                .bind(&project.name)
                .bind(&project.metadata)
                .bind(project.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn project(&self, organization_id: &str, id: &str) -> Result<Option<ProjectRow>> {
                Ok(sqlx::query_as(
                    "SELECT id, name, metadata, created_at FROM tenants \
                     WHERE organization_id = $1 AND id = $2 AND deleted_at IS NULL",
                )
                .bind(organization_id)
                .bind(id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn projects(
                &self,
                organization_id: &str,
                name: Option<&str>,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<ProjectRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT id, name, metadata, created_at FROM tenants \
                     WHERE deleted_at IS NULL AND organization_id = ",
                    organization_id,
                    [(" AND name = ", name)],
                    before,
                    limit
                ))
            }

            async fn delete_project(
                &self,
                organization_id: &str,
                id: &str,
                now: i64,
            ) -> Result<Option<ProjectEnd>> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE tenants SET deleted_at = $3 \
                     WHERE organization_id = $1 AND id = $2 AND deleted_at IS NULL",
                )
                .bind(organization_id)
                .bind(id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(None);
                }
                let tokens = sqlx::query_scalar(
                    "UPDATE tokens SET revoked_at = $2 \
                     WHERE tenant_id = $1 AND revoked_at IS NULL RETURNING id",
                )
                .bind(id)
                .bind(now)
                .fetch_all(&mut *tx)
                .await?;
                let keys = $crate::store::sql::virtual_keys::revoke_keys_of_tenant!(tx, id, now);
                let by = $crate::store::sql::connectors::GrantColumn::Tenant;
                // Their tokens are among those above.
                let _ = $crate::store::sql::connectors::end_grants!(&mut *tx, id, by, id, now);
                sqlx::query("UPDATE webhooks SET active = $2 WHERE tenant_id = $1")
                    .bind(id)
                    .bind(false)
                    .execute(&mut *tx)
                    .await?;
                // Nothing of it begins by itself any more, and nothing is sent.
                for query in [
                    "DELETE FROM schedules WHERE tenant_id = $1",
                    "DELETE FROM integrations WHERE tenant_id = $1",
                    "DELETE FROM email_domains WHERE tenant_id = $1",
                    "DELETE FROM channel_bindings WHERE tenant_id = $1",
                    "DELETE FROM lanes WHERE tenant_id = $1",
                    "DELETE FROM queued_turns WHERE tenant_id = $1 \
                     AND status IN ('queued', 'running')",
                    "DELETE FROM inbound_events WHERE tenant_id = $1 AND due_at IS NOT NULL",
                    "DELETE FROM outbound_messages WHERE tenant_id = $1 AND due_at IS NOT NULL",
                ] {
                    sqlx::query(query).bind(id).execute(&mut *tx).await?;
                }
                sqlx::query("DELETE FROM kept_calls WHERE tenant_id = $1")
                    .bind(id)
                    .execute(&mut *tx)
                    .await?;
                tx.commit().await?;
                Ok(Some(ProjectEnd { tokens, keys }))
            }

            async fn insert_organization_key(&self, key: &OrganizationKeyRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO organization_keys (id, organization_id, name, created_at, \
                     expires_at, revoked_at) VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(&key.id)
                .bind(&key.organization_id)
                .bind(&key.name)
                .bind(key.created_at)
                .bind(key.expires_at)
                .bind(key.revoked_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn organization_keys(
                &self,
                organization_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<OrganizationKeyRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM organization_keys WHERE organization_id = ",
                    organization_id,
                    [],
                    before,
                    limit
                ))
            }

            async fn revoke_organization_key(
                &self,
                organization_id: &str,
                id: &str,
                now: i64,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE organization_keys SET revoked_at = COALESCE(revoked_at, $3) \
                     WHERE organization_id = $1 AND id = $2",
                )
                .bind(organization_id)
                .bind(id)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }
        }
    };
}

pub(in crate::store) use impl_organizations;
