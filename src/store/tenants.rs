//! Tenants (projects) and the keys that sign tokens.

use async_trait::async_trait;

use super::Result;

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Tenant {
    pub id: String,
    pub name: String,
    pub created_at: i64,
}

/// A signing key: the private part sealed, the public part as a JWK.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SigningKeyRow {
    pub kid: String,
    pub sealed: Vec<u8>,
    pub jwk: String,
    pub created_at: i64,
}

/// Tenants ("projects") and the node's signing keys.
#[async_trait]
pub trait TenantStore: Send + Sync {
    /// Makes a tenant.
    async fn create_tenant(&self, tenant: &Tenant) -> Result<()>;
    /// The oldest tenant, if there is one.
    async fn first_tenant(&self) -> Result<Option<Tenant>>;
    /// One tenant.
    async fn tenant(&self, tenant_id: &str) -> Result<Option<Tenant>>;
    /// Adds a signing key.
    async fn add_signing_key(&self, key: &SigningKeyRow) -> Result<()>;
    /// All signing keys, newest first.
    async fn signing_keys(&self) -> Result<Vec<SigningKeyRow>>;
    /// Whether the database answers.
    async fn ping(&self) -> Result<()>;
    /// Writes a little, to see whether the database takes it.
    async fn probe(&self, now: i64) -> Result<()>;
}
