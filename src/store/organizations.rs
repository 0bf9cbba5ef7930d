//! Organizations, their projects and keys.

use async_trait::async_trait;

use super::{Result, VirtualKeyVersion};

/// Who owns projects.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct OrganizationRow {
    pub id: String,
    pub name: String,
    pub created_at: i64,
}

/// A tenant, as its organization sees it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ProjectRow {
    pub id: String,
    pub name: String,
    pub metadata: String,
    pub created_at: i64,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct OrganizationKeyRow {
    pub id: String,
    pub organization_id: String,
    pub name: Option<String>,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
}

/// What was revoked with a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectEnd {
    /// Ids.
    pub tokens: Vec<String>,
    pub keys: Vec<VirtualKeyVersion>,
}

/// Organizations, their projects and keys.
#[async_trait]
pub trait OrganizationStore: Send + Sync {
    /// The installation's organization, made from `template` when missing; it takes over tenants
    /// that have none.
    async fn organization(&self, template: &OrganizationRow) -> Result<OrganizationRow>;
    async fn insert_project(&self, organization_id: &str, project: &ProjectRow) -> Result<()>;
    async fn project(&self, organization_id: &str, id: &str) -> Result<Option<ProjectRow>>;
    async fn projects(
        &self,
        organization_id: &str,
        name: Option<&str>,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ProjectRow>>;
    /// Marks a project as deleted and revokes its tokens and keys.
    async fn delete_project(
        &self,
        organization_id: &str,
        id: &str,
        now: i64,
    ) -> Result<Option<ProjectEnd>>;
    async fn insert_organization_key(&self, key: &OrganizationKeyRow) -> Result<()>;
    async fn organization_keys(
        &self,
        organization_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<OrganizationKeyRow>>;
    async fn revoke_organization_key(
        &self,
        organization_id: &str,
        id: &str,
        now: i64,
    ) -> Result<bool>;
}
