//! Tokens that were minted.

use async_trait::async_trait;

use super::Result;

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TokenRow {
    pub id: String,
    pub tenant_id: String,
    pub name: Option<String>,
    pub sub: String,
    /// JSON array of scope names.
    pub scopes: String,
    pub prefix: Option<String>,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
    /// The grant of an MCP host that it was minted for.
    pub grant_id: Option<String>,
}

/// Minted tokens. The secret itself is never stored: a token is a signed statement.
#[async_trait]
pub trait TokenStore: Send + Sync {
    async fn insert_token(&self, token: &TokenRow) -> Result<()>;
    async fn token(&self, tenant_id: &str, id: &str) -> Result<Option<TokenRow>>;
    /// Newest first, ids below `before`.
    async fn tokens(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<TokenRow>>;
    /// Marks as revoked; `false` when there is no such token.
    async fn revoke_token(&self, tenant_id: &str, id: &str, now: i64) -> Result<bool>;
    /// Ids revoked at or after `since`, over all tenants: what nodes poll.
    async fn revoked_since(&self, since: i64) -> Result<Vec<(String, i64)>>;
}
