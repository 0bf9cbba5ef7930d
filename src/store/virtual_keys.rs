//! Virtual keys: what models are used with in place of a token.

use async_trait::async_trait;

use super::{EventRow, Result, Rows};

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct VirtualKeyRow {
    pub id: String,
    pub tenant_id: String,
    pub name: Option<String>,
    pub owner: Option<String>,
    pub team: Option<String>,
    /// JSON object.
    pub metadata: String,
    /// JSON array of texts.
    pub tags: String,
    /// JSON array of patterns; absent: all.
    pub models: Option<String>,
    /// JSON array of names; absent: all.
    pub routes: Option<String>,
    pub disabled: bool,
    /// Of the newest secret, to know it by.
    pub last_four: String,
    pub created_at: i64,
    /// Grows with every change, whatever the clocks of nodes say.
    pub updated_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
}

/// A key that a secret was found to be of.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct VirtualKeyFound {
    #[sqlx(flatten)]
    pub key: VirtualKeyRow,
    /// When the secret ends, where another has taken its place.
    pub secret_expires_at: Option<i64>,
}

/// A key's id and its `updated_at`.
pub type VirtualKeyVersion = (String, i64);

/// A new secret of a key, which is never stored itself.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// SHA-256 of the secret with its handle, in hex.
    pub hash: String,
    pub last_four: String,
}

/// Which keys are listed.
#[derive(Debug, Clone, Default)]
pub struct VirtualKeyFilter {
    pub owner: Option<String>,
    pub team: Option<String>,
}

/// Virtual keys and the hashes of their secrets. What changes a key writes its event with it.
#[async_trait]
pub trait VirtualKeyStore: Send + Sync {
    /// `false` when the tenant is no more.
    async fn insert_virtual_key(
        &self,
        key: &VirtualKeyRow,
        hash: &str,
        event: &EventRow,
    ) -> Result<bool>;
    async fn virtual_key(&self, tenant_id: &str, id: &str) -> Result<Option<VirtualKeyRow>>;
    /// Newest first, ids below `before`.
    async fn virtual_keys(
        &self,
        tenant_id: &str,
        filter: &VirtualKeyFilter,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<VirtualKeyRow>>;
    /// Writes all that can be changed of a key that was read with this `updated_at` and is not
    /// revoked; answers its new `updated_at`.
    async fn update_virtual_key(
        &self,
        key: &VirtualKeyRow,
        now: i64,
        event: &EventRow,
    ) -> Result<Option<i64>>;
    /// Gives a key that is not revoked another secret; those before end at `until`. Answers its new
    /// `updated_at`.
    async fn rotate_virtual_key(
        &self,
        tenant_id: &str,
        id: &str,
        secret: &NewSecret,
        now: i64,
        until: i64,
        event: &EventRow,
    ) -> Result<Option<i64>>;
    /// Marks as revoked, with the event where it was not before; `None` when there is no such key.
    async fn revoke_virtual_key(
        &self,
        tenant_id: &str,
        id: &str,
        now: i64,
        event: &EventRow,
    ) -> Result<Option<i64>>;
    /// The key of a secret, whose tenant is not known before: the hash is of 32 random bytes.
    async fn virtual_key_of(&self, hash: &str) -> Result<Option<VirtualKeyFound>>;
    /// Keys changed at or after `since`, over all tenants: what nodes poll.
    async fn virtual_keys_changed_since(&self, since: i64) -> Result<Vec<VirtualKeyVersion>>;
}
