//! OAuth grants of smiths, and the providers that give them.

use async_trait::async_trait;

use super::{Result, Rows};

/// A smith's grant at an OAuth provider, its tokens sealed.
#[derive(Clone, sqlx::FromRow)]
pub struct ConnectionRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub provider: String,
    pub scopes: String,
    pub status: String,
    pub expires_at: Option<i64>,
    pub metadata: String,
    pub sealed: Vec<u8>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// A tenant's OAuth client at a provider, its secret sealed.
#[derive(Clone, sqlx::FromRow)]
pub struct OauthProviderRow {
    pub tenant_id: String,
    pub provider: String,
    pub client_id: Option<String>,
    pub token_uri: Option<String>,
    pub scopes_allowed: String,
    pub refresh_webhook: Option<String>,
    pub authorize_url: Option<String>,
    pub sealed: Option<Vec<u8>>,
    pub updated_at: i64,
}

/// An OAuth authorization that was begun.
#[derive(Clone, sqlx::FromRow)]
pub struct OauthStateRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub provider: String,
    pub return_url: Option<String>,
    /// The PKCE verifier and the scopes asked for.
    pub sealed: Vec<u8>,
    pub created_at: i64,
}

/// OAuth grants of smiths, and the tenant's OAuth clients.
#[async_trait]
pub trait ConnectionStore: Send + Sync {
    async fn insert_connection(&self, connection: &ConnectionRow) -> Result<()>;
    async fn connection(
        &self,
        tenant_id: &str,
        smith_id: &str,
        id: &str,
    ) -> Result<Option<ConnectionRow>>;
    async fn connections(
        &self,
        tenant_id: &str,
        smith_id: &str,
        provider: Option<&str>,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<ConnectionRow>>;
    async fn update_connection(&self, connection: &ConnectionRow) -> Result<bool>;
    async fn delete_connection(&self, tenant_id: &str, smith_id: &str, id: &str) -> Result<bool>;
    async fn put_oauth_provider(&self, provider: &OauthProviderRow) -> Result<()>;
    async fn oauth_provider(
        &self,
        tenant_id: &str,
        provider: &str,
    ) -> Result<Option<OauthProviderRow>>;
    async fn oauth_providers(&self, tenant_id: &str) -> Result<Vec<OauthProviderRow>>;
    async fn delete_oauth_provider(&self, tenant_id: &str, provider: &str) -> Result<bool>;
    async fn insert_oauth_state(&self, state: &OauthStateRow) -> Result<()>;
    /// Takes a state out: it serves once. Over all tenants, as its id is the proof.
    async fn take_oauth_state(&self, id: &str) -> Result<Option<OauthStateRow>>;
}
