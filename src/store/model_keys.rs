//! Keys for model providers.

use async_trait::async_trait;

use super::Result;

#[derive(Clone, sqlx::FromRow)]
pub struct ModelKeyRow {
    pub tenant_id: String,
    /// Empty: the tenant's own key.
    pub smith_id: String,
    pub provider: String,
    pub base_url: Option<String>,
    pub sealed: Vec<u8>,
    pub updated_at: i64,
}

/// Keys for model providers, sealed. `smith_id` is empty for the tenant's own.
#[async_trait]
pub trait ModelKeyStore: Send + Sync {
    async fn put_model_key(&self, key: &ModelKeyRow) -> Result<()>;
    async fn model_key(
        &self,
        tenant_id: &str,
        smith_id: &str,
        provider: &str,
    ) -> Result<Option<ModelKeyRow>>;
    async fn model_keys(&self, tenant_id: &str, smith_id: &str) -> Result<Vec<ModelKeyRow>>;
    async fn delete_model_key(
        &self,
        tenant_id: &str,
        smith_id: &str,
        provider: &str,
    ) -> Result<bool>;
}
