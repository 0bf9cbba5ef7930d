//! MCP hosts that connect by OAuth: their rows and the trait. A client belongs to no tenant, and a
//! code or grant is found by a secret, so these are the queries without a tenant.

use async_trait::async_trait;

use super::Result;

/// An MCP host that registered itself (RFC 7591).
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ConnectorClientRow {
    pub id: String,
    pub name: String,
    /// JSON array.
    pub redirect_uris: String,
    pub created_at: i64,
    /// When somebody first let it in.
    pub used_at: Option<i64>,
}

/// An authorization code; `id` is the SHA-256 of the code.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ConnectorCodeRow {
    pub id: String,
    pub client_id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub deployment_id: String,
    pub redirect_uri: String,
    /// PKCE, `S256`.
    pub challenge: String,
    /// JSON array.
    pub scopes: String,
    /// Of the grant that it is good for.
    pub grant_id: String,
    pub created_at: i64,
    pub used_at: Option<i64>,
}

/// What somebody let a client do.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ConnectorGrantRow {
    pub id: String,
    pub client_id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub deployment_id: String,
    /// JSON array.
    pub scopes: String,
    /// SHA-256 of the refresh token, and of the one before it.
    pub refresh_hash: String,
    pub previous_hash: Option<String>,
    pub rotated_at: i64,
    /// The newest access token.
    pub token_id: String,
    pub created_at: i64,
    pub expires_at: i64,
    pub revoked_at: Option<i64>,
}

/// Connectors.
#[async_trait]
pub trait ConnectorStore: Send + Sync {
    async fn insert_connector_client(&self, client: &ConnectorClientRow) -> Result<()>;
    async fn connector_client(&self, id: &str) -> Result<Option<ConnectorClientRow>>;
    /// Writes a code, and that its client is in use.
    async fn insert_connector_code(&self, code: &ConnectorCodeRow) -> Result<()>;
    /// The code as it was before, used from now on.
    async fn use_connector_code(&self, id: &str, now: i64) -> Result<Option<ConnectorCodeRow>>;
    async fn insert_connector_grant(&self, grant: &ConnectorGrantRow) -> Result<()>;
    async fn connector_grant(&self, id: &str) -> Result<Option<ConnectorGrantRow>>;
    /// Writes hashes, token, rotation and expiry when `refresh_hash` still is `held` and the grant
    /// is not revoked; else `false`.
    async fn rotate_connector_grant(&self, grant: &ConnectorGrantRow, held: &str) -> Result<bool>;
    async fn revoke_connector_grant(&self, id: &str, now: i64) -> Result<()>;
}
