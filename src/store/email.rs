//! E-mail: domains, messages by their names, messages as they came, and suppressions.

use async_trait::async_trait;

use super::{Result, Rows};

/// A message that came or was sent, by the digest of its Message-ID.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EmailMessageRow {
    pub tenant_id: String,
    pub id: String,
    /// The conversation that it is of.
    pub chat: String,
    /// Who wrote it; empty: a smith.
    pub sender: String,
    /// JSON: the addresses that have it, in lower case.
    pub people: String,
    /// Of what a smith wrote: the message in the outbox.
    pub outbound_id: Option<String>,
    pub created_at: i64,
}

/// An address that is not written to.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SuppressionRow {
    pub tenant_id: String,
    /// In lower case.
    pub address: String,
    /// `bounce` or `manual`.
    pub reason: String,
    /// What the other side said.
    pub detail: Option<String>,
    pub created_at: i64,
}

/// E-mail.
#[async_trait]
pub trait EmailStore: Send + Sync {
    /// Gives a domain to a tenant, and takes all others from it; `false` when it is another tenant's.
    async fn claim_email_domain(&self, domain: &str, tenant_id: &str, now: i64) -> Result<bool>;
    /// Gives a tenant's domains back.
    async fn release_email_domains(&self, tenant_id: &str) -> Result<()>;
    /// Whose a domain is.
    async fn tenant_of_email_domain(&self, domain: &str) -> Result<Option<String>>;

    /// Keeps a message as it came, under the digest of its content; again is the same.
    async fn put_email_content(
        &self,
        tenant_id: &str,
        id: &str,
        content: &[u8],
        now: i64,
    ) -> Result<()>;
    async fn email_content(&self, tenant_id: &str, id: &str) -> Result<Option<Vec<u8>>>;

    /// Notes a message; one that is noted stays as it is.
    async fn note_email(&self, message: &EmailMessageRow) -> Result<()>;
    async fn email_message(&self, tenant_id: &str, id: &str) -> Result<Option<EmailMessageRow>>;
    /// How many messages of a sender were noted from `since` until `until`, at most `limit`.
    async fn emails_of(
        &self,
        tenant_id: &str,
        sender: &str,
        since: i64,
        until: i64,
        limit: i64,
    ) -> Result<i64>;

    /// Adds or replaces.
    async fn put_suppression(&self, suppression: &SuppressionRow) -> Result<()>;
    async fn suppression(&self, tenant_id: &str, address: &str) -> Result<Option<SuppressionRow>>;
    /// In the order of their addresses, above `after`.
    async fn suppressions(
        &self,
        tenant_id: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Rows<SuppressionRow>>;
    /// `false` when there was none.
    async fn delete_suppression(&self, tenant_id: &str, address: &str) -> Result<bool>;
}
