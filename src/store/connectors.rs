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
    /// The token that let the client in.
    pub cause_token_id: String,
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
    /// Without a refresh until then it is void.
    pub expires_at: i64,
    pub revoked_at: Option<i64>,
    /// The token that let the client in: it ends with that.
    pub cause_token_id: String,
    /// When it ends, however much it is used.
    pub ends_at: i64,
}

/// A grant as it is listed.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ListedGrantRow {
    #[sqlx(flatten)]
    pub grant: ConnectorGrantRow,
    /// `None`: the client is gone.
    pub client_name: Option<String>,
}

/// Which grants of a tenant end.
#[derive(Debug, Clone, Copy)]
pub enum GrantsOf<'a> {
    Grant(&'a str),
    /// Of the token that let the client in.
    Cause(&'a str),
    Deployment(&'a str),
}

/// How a tenant's people consent.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ConsentRow {
    pub tenant_id: String,
    pub authorize_url: Option<String>,
    /// JSON array.
    pub return_origins: String,
    pub updated_at: i64,
}

/// An authorization that waits for a tenant's own page.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct AuthorizeRequestRow {
    pub id: String,
    pub tenant_id: String,
    pub client_id: String,
    pub deployment_id: String,
    pub redirect_uri: String,
    pub resource: String,
    /// PKCE, `S256`.
    pub challenge: String,
    pub state: Option<String>,
    pub issuer: String,
    pub created_at: i64,
}

/// Connectors.
#[async_trait]
pub trait ConnectorStore: Send + Sync {
    /// Writes a client. Of those that nobody let in, `most` are kept: the oldest goes, when it is
    /// older than `spare`; `false` when there is none.
    async fn insert_connector_client(
        &self,
        client: &ConnectorClientRow,
        most: i64,
        spare: i64,
    ) -> Result<bool>;
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
    /// Ends grants, with the codes that would become some and all tokens that were minted for them;
    /// the tokens' ids. `None`: there was no such grant.
    async fn revoke_grants(
        &self,
        tenant_id: &str,
        which: GrantsOf<'_>,
        now: i64,
    ) -> Result<Option<Vec<String>>>;
    /// The grants of a tenant or of one of its smiths.
    async fn connector_grants(
        &self,
        tenant_id: &str,
        smith_id: Option<&str>,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ListedGrantRow>>;
    /// A deployment whose tenant is not known yet.
    async fn deployment_anywhere(&self, id: &str) -> Result<Option<super::DeploymentRow>>;
    async fn consent(&self, tenant_id: &str) -> Result<Option<ConsentRow>>;
    async fn put_consent(&self, consent: &ConsentRow) -> Result<()>;
    async fn insert_authorize_request(&self, request: &AuthorizeRequestRow) -> Result<()>;
    async fn authorize_request(
        &self,
        tenant_id: &str,
        id: &str,
    ) -> Result<Option<AuthorizeRequestRow>>;
    /// Takes a request away: it is answered once.
    async fn take_authorize_request(
        &self,
        tenant_id: &str,
        id: &str,
    ) -> Result<Option<AuthorizeRequestRow>>;
}
