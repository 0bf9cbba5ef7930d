//! Queries: MCP hosts that connect by OAuth.

macro_rules! impl_connectors {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ConnectorStore for $store {
            async fn insert_connector_client(
                &self,
                client: &ConnectorClientRow,
                most: i64,
                spare: i64,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let unused: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM connector_clients WHERE used_at IS NULL",
                )
                .fetch_one(&mut *tx)
                .await?;
                if unused >= most {
                    let gone = sqlx::query(
                        "DELETE FROM connector_clients WHERE id IN (SELECT id \
                         FROM connector_clients WHERE used_at IS NULL AND created_at < $1 \
                         ORDER BY created_at LIMIT 100)",
                    )
                    .bind(spare)
                    .execute(&mut *tx)
                    .await?;
                    if gone.rows_affected() == 0 {
                        return Ok(false);
                    }
                }
                sqlx::query(
                    "INSERT INTO connector_clients (id, name, redirect_uris, created_at) \
                     VALUES ($1, $2, $3, $4)",
                )
                .bind(&client.id)
                .bind(&client.name)
                .bind(&client.redirect_uris)
                .bind(client.created_at)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(true)
            }

            async fn connector_client(&self, id: &str) -> Result<Option<ConnectorClientRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM connector_clients WHERE id = $1")
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn insert_connector_code(&self, code: &ConnectorCodeRow) -> Result<()> {
                let mut tx = self.write.begin().await?;
                sqlx::query("UPDATE connector_clients SET used_at = $2 WHERE id = $1")
                .bind(&code.client_id)
                .bind(code.created_at)
                .execute(&mut *tx)
                .await?;
                sqlx::query(
                    "INSERT INTO connector_codes (id, client_id, tenant_id, smith_id, \
                     deployment_id, redirect_uri, challenge, scopes, grant_id, created_at, \
                     cause_token_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                )
                .bind(&code.id)
                .bind(&code.client_id)
                .bind(&code.tenant_id)
                .bind(&code.smith_id)
                .bind(&code.deployment_id)
                .bind(&code.redirect_uri)
                .bind(&code.challenge)
                .bind(&code.scopes)
                .bind(&code.grant_id)
                .bind(code.created_at)
                .bind(&code.cause_token_id)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(())
            }

            async fn use_connector_code(
                &self,
                id: &str,
                now: i64,
            ) -> Result<Option<ConnectorCodeRow>> {
                let first: Option<ConnectorCodeRow> = sqlx::query_as(
                    "UPDATE connector_codes SET used_at = $2 WHERE id = $1 AND used_at IS NULL \
                     RETURNING *",
                )
                .bind(id)
                .bind(now)
                .fetch_optional(&self.write)
                .await?;
                if let Some(mut code) = first {
                    code.used_at = None;
                    return Ok(Some(code));
                }
                Ok(
                    sqlx::query_as("SELECT * FROM connector_codes WHERE id = $1")
                        .bind(id)
                        .fetch_optional(&self.write)
                        .await?,
                )
            }

            async fn insert_connector_grant(&self, grant: &ConnectorGrantRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO connector_grants (id, client_id, tenant_id, smith_id, \
                     deployment_id, scopes, refresh_hash, rotated_at, token_id, created_at, \
                     expires_at, cause_token_id, ends_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
                )
                .bind(&grant.id)
                .bind(&grant.client_id)
                .bind(&grant.tenant_id)
                .bind(&grant.smith_id)
                .bind(&grant.deployment_id)
                .bind(&grant.scopes)
                .bind(&grant.refresh_hash)
                .bind(grant.rotated_at)
                .bind(&grant.token_id)
                .bind(grant.created_at)
                .bind(grant.expires_at)
                .bind(&grant.cause_token_id)
                .bind(grant.ends_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn connector_grant(&self, id: &str) -> Result<Option<ConnectorGrantRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM connector_grants WHERE id = $1")
                        .bind(id)
                        .fetch_optional(&self.write)
                        .await?,
                )
            }

            async fn rotate_connector_grant(
                &self,
                grant: &ConnectorGrantRow,
                held: &str,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE connector_grants SET refresh_hash = $3, previous_hash = $4, \
                     rotated_at = $5, token_id = $6, expires_at = $7 \
                     WHERE id = $1 AND refresh_hash = $2 AND revoked_at IS NULL",
                )
                .bind(&grant.id)
                .bind(held)
                .bind(&grant.refresh_hash)
                .bind(&grant.previous_hash)
                .bind(grant.rotated_at)
                .bind(&grant.token_id)
                .bind(grant.expires_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn revoke_grants(
                &self,
                tenant_id: &str,
                which: GrantsOf<'_>,
                now: i64,
            ) -> Result<Option<Vec<String>>> {
                let (column, value) = match which {
                    GrantsOf::Grant(id) => ($crate::store::sql::connectors::GrantColumn::Id, id),
                    GrantsOf::Cause(id) => ($crate::store::sql::connectors::GrantColumn::Cause, id),
                    GrantsOf::Deployment(id) => ($crate::store::sql::connectors::GrantColumn::Deployment, id),
                };
                let mut tx = self.write.begin().await?;
                let ended = $crate::store::sql::connectors::end_grants!(
                    &mut *tx, tenant_id, column, value, now
                );
                tx.commit().await?;
                Ok(ended)
            }

            async fn connector_grants(
                &self,
                tenant_id: &str,
                smith_id: Option<&str>,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<ListedGrantRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT g.*, (SELECT c.name FROM connector_clients c WHERE c.id = g.client_id) \
                     AS client_name FROM connector_grants g WHERE tenant_id = ",
                    tenant_id,
                    [(" AND smith_id = ", smith_id)],
                    before,
                    limit
                ))
            }

            async fn deployment_anywhere(&self, id: &str) -> Result<Option<DeploymentRow>> {
                Ok(sqlx::query_as("SELECT * FROM deployments WHERE id = $1")
                    .bind(id)
                    .fetch_optional(&self.read)
                    .await?)
            }

            async fn consent(&self, tenant_id: &str) -> Result<Option<ConsentRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM tenant_consents WHERE tenant_id = $1")
                        .bind(tenant_id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn put_consent(&self, consent: &ConsentRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO tenant_consents (tenant_id, authorize_url, return_origins, \
                     updated_at) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id) DO UPDATE SET \
                     authorize_url = excluded.authorize_url, \
                     return_origins = excluded.return_origins, updated_at = excluded.updated_at",
                )
                .bind(&consent.tenant_id)
                .bind(&consent.authorize_url)
                .bind(&consent.return_origins)
                .bind(consent.updated_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn insert_authorize_request(&self, request: &AuthorizeRequestRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO authorize_requests (id, tenant_id, client_id, deployment_id, \
                     redirect_uri, resource, challenge, state, issuer, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                )
                .bind(&request.id)
                .bind(&request.tenant_id)
                .bind(&request.client_id)
                .bind(&request.deployment_id)
                .bind(&request.redirect_uri)
                .bind(&request.resource)
                .bind(&request.challenge)
                .bind(&request.state)
                .bind(&request.issuer)
                .bind(request.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn authorize_request(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<AuthorizeRequestRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM authorize_requests WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn take_authorize_request(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<AuthorizeRequestRow>> {
                Ok(sqlx::query_as(
                    "DELETE FROM authorize_requests WHERE tenant_id = $1 AND id = $2 RETURNING *",
                )
                .bind(tenant_id)
                .bind(id)
                .fetch_optional(&self.write)
                .await?)
            }
        }
    };
}

/// By what grants are found that end together.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum GrantColumn {
    Id,
    Cause,
    Smith,
    Deployment,
    Tenant,
}

impl GrantColumn {
    /// The statements that end grants, codes and tokens: `$1` is the tenant, `$2` the value, `$3`
    /// the time.
    pub(in crate::store) fn statements(self) -> [&'static str; 3] {
        macro_rules! by {
            ($grant:literal, $code:literal) => {
                [
                    concat!(
                        "DELETE FROM connector_codes WHERE tenant_id = $1 AND ",
                        $code,
                        " = $2"
                    ),
                    concat!(
                        "UPDATE connector_grants SET revoked_at = COALESCE(revoked_at, $3) \
                         WHERE tenant_id = $1 AND ",
                        $grant,
                        " = $2"
                    ),
                    concat!(
                        "UPDATE tokens SET revoked_at = $3 WHERE tenant_id = $1 \
                         AND revoked_at IS NULL AND grant_id IN (SELECT id FROM connector_grants \
                         WHERE tenant_id = $1 AND ",
                        $grant,
                        " = $2) RETURNING id"
                    ),
                ]
            };
        }
        match self {
            Self::Id => by!("id", "grant_id"),
            Self::Cause => by!("cause_token_id", "cause_token_id"),
            Self::Smith => by!("smith_id", "smith_id"),
            Self::Deployment => by!("deployment_id", "deployment_id"),
            Self::Tenant => by!("tenant_id", "tenant_id"),
        }
    }
}

/// Ends grants in a transaction: the ids of their tokens; `None` when there is no such grant.
macro_rules! end_grants {
    ($tx:expr, $tenant_id:expr, $column:expr, $value:expr, $now:expr) => {{
        let [codes, grants, tokens] =
            $crate::store::sql::connectors::GrantColumn::statements($column);
        sqlx::query(codes)
            .bind($tenant_id)
            .bind($value)
            .execute($tx)
            .await?;
        let done = sqlx::query(grants)
            .bind($tenant_id)
            .bind($value)
            .bind($now)
            .execute($tx)
            .await?;
        let ended: Vec<String> = sqlx::query_scalar(tokens)
            .bind($tenant_id)
            .bind($value)
            .bind($now)
            .fetch_all($tx)
            .await?;
        (done.rows_affected() > 0).then_some(ended)
    }};
}

pub(in crate::store) use {end_grants, impl_connectors};
