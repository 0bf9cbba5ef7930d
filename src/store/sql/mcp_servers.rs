//! Queries: MCP servers.

macro_rules! impl_mcp_servers {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::McpServerStore for $store {
            async fn put_mcp_server(&self, server: &McpServerRow) -> Result<McpServerRow> {
                Ok(sqlx::query_as(
                    "INSERT INTO mcp_servers (id, tenant_id, name, url, settings, sealed, tools, \
                     tools_refreshed_at, discovery_error, created_at, updated_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                     ON CONFLICT (tenant_id, name) DO UPDATE SET url = excluded.url, \
                     settings = excluded.settings, sealed = excluded.sealed, \
                     tools = excluded.tools, tools_refreshed_at = excluded.tools_refreshed_at, \
                     discovery_error = excluded.discovery_error, last_call_error = NULL, \
                     last_call_error_at = NULL, updated_at = excluded.updated_at RETURNING *",
                )
                .bind(&server.id)
                .bind(&server.tenant_id)
                .bind(&server.name)
                .bind(&server.url)
                .bind($crate::store::sql::document(
                    "MCP server",
                    &server.settings,
                )?)
                .bind(&server.sealed)
                .bind($crate::store::sql::document("MCP tools", &server.tools)?)
                .bind(server.tools_refreshed_at)
                .bind(&server.discovery_error)
                .bind(server.created_at)
                .bind(server.updated_at)
                .fetch_one(&self.write)
                .await?)
            }

            async fn mcp_server(
                &self,
                tenant_id: &str,
                name: &str,
            ) -> Result<Option<McpServerRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM mcp_servers WHERE tenant_id = $1 AND name = $2",
                )
                .bind(tenant_id)
                .bind(name)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn mcp_servers(
                &self,
                tenant_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<McpServerRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM mcp_servers WHERE tenant_id = ",
                    tenant_id,
                    [],
                    before,
                    limit,
 within &["settings", "tools"]
))
            }

            async fn put_mcp_tools(&self, server: &McpServerRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE mcp_servers SET tools = $4, tools_refreshed_at = $5, \
                     discovery_error = $6 WHERE tenant_id = $1 AND name = $2 AND url = $3",
                )
                .bind(&server.tenant_id)
                .bind(&server.name)
                .bind(&server.url)
                .bind($crate::store::sql::document("MCP tools", &server.tools)?)
                .bind(server.tools_refreshed_at)
                .bind(&server.discovery_error)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn note_mcp_error(
                &self,
                tenant_id: &str,
                name: &str,
                error: &str,
                at: i64,
            ) -> Result<()> {
                sqlx::query(
                    "UPDATE mcp_servers SET last_call_error = $3, last_call_error_at = $4 \
                     WHERE tenant_id = $1 AND name = $2",
                )
                .bind(tenant_id)
                .bind(name)
                .bind(error)
                .bind(at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn delete_mcp_server(&self, tenant_id: &str, name: &str) -> Result<bool> {
                let done =
                    sqlx::query("DELETE FROM mcp_servers WHERE tenant_id = $1 AND name = $2")
                        .bind(tenant_id)
                        .bind(name)
                        .execute(&self.write)
                        .await?;
                Ok(done.rows_affected() > 0)
            }
        }
    };
}

pub(in crate::store) use impl_mcp_servers;
