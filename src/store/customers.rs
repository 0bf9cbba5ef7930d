//! Customers.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Metadata, Result, Rows};
use crate::json::Entries;

/// A tenant's own billable party.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct CustomerRow {
    pub id: String,
    pub tenant_id: String,
    pub name: String,
    #[sqlx(try_from = "String")]
    pub external_ids: ExternalIds,
    #[sqlx(try_from = "String")]
    pub metadata: Metadata,
    pub created_at: i64,
}

/// A customer's ids elsewhere, by the other system's name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExternalIds(pub Entries<String>);

/// Customers.
#[async_trait]
pub trait CustomerStore: Send + Sync {
    async fn insert_customer(&self, customer: &CustomerRow) -> Result<()>;
    async fn customer(&self, tenant_id: &str, id: &str) -> Result<Option<CustomerRow>>;
    async fn customers(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<CustomerRow>>;
    /// `false` when there is no such customer.
    async fn update_customer(&self, customer: &CustomerRow) -> Result<bool>;
    /// Deletes a customer and unassigns its smiths; `false` when there is no such customer.
    async fn delete_customer(&self, tenant_id: &str, id: &str) -> Result<bool>;
    async fn customer_smith_count(&self, tenant_id: &str, id: &str) -> Result<i64>;
}
