//! Deployments: their rows and the trait.

use async_trait::async_trait;

use super::{Result, Rows};

/// Who answers where.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DeploymentRow {
    pub id: String,
    pub tenant_id: String,
    /// `smith` or `agent`.
    pub target_type: String,
    pub target_id: String,
    pub kind: String,
    pub address: Option<String>,
    pub provider: Option<String>,
    /// JSON object.
    pub provider_metadata: String,
    pub display_name: Option<String>,
    pub owner_email: Option<String>,
    pub status: String,
    pub created_at: i64,
    /// What is kept of its secrets.
    pub sealed: Option<Vec<u8>>,
}

/// Which deployments are listed.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFilter {
    pub target_type: Option<String>,
    pub target_id: Option<String>,
    pub kind: Option<String>,
}

/// Deployments.
#[async_trait]
pub trait DeploymentStore: Send + Sync {
    /// `false` when another one answers there already.
    async fn insert_deployment(&self, deployment: &DeploymentRow) -> Result<bool>;
    async fn deployment(&self, tenant_id: &str, id: &str) -> Result<Option<DeploymentRow>>;
    /// A page that anybody may open: whoever asks has nothing but its address, which names no tenant.
    /// It is the row that says whose it is.
    async fn web_page(&self, id: &str) -> Result<Option<DeploymentRow>>;
    async fn deployments(
        &self,
        tenant_id: &str,
        filter: &DeploymentFilter,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<DeploymentRow>>;
    /// The deployment that a start token binds to, by the token's hash.
    async fn deployment_of_token(
        &self,
        tenant_id: &str,
        hash: &str,
    ) -> Result<Option<DeploymentRow>>;
    /// Gives a deployment the token that binds to it, as a hash.
    async fn set_start_token(&self, tenant_id: &str, id: &str, hash: &str) -> Result<()>;
    /// Writes name and owner; `false` when there is no such deployment.
    async fn update_deployment(&self, deployment: &DeploymentRow) -> Result<bool>;
    /// Deletes a deployment with the grants of the hosts that were let in there: the ids of their
    /// tokens; `None`: there was no such deployment.
    async fn delete_deployment(
        &self,
        tenant_id: &str,
        id: &str,
        now: i64,
    ) -> Result<Option<Vec<String>>>;
}
