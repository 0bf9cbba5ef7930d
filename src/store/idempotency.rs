//! First answers to `Idempotency-Key`s.

use async_trait::async_trait;

use super::Result;

/// What an `Idempotency-Key` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idempotency {
    /// Not seen in the last 24 hours; now claimed.
    New,
    /// The first request is in flight; its run, when it has one.
    InProgress { run_id: Option<String> },
    /// Another body came with this key.
    Mismatch,
    /// The first answer.
    Done {
        status: u16,
        body: Vec<u8>,
        run_id: Option<String>,
    },
}

/// The stored form of [`Idempotency`].
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct IdempotencyRow {
    pub fingerprint: String,
    pub status: Option<i64>,
    pub body: Option<Vec<u8>>,
    pub run_id: Option<String>,
    pub created_at: i64,
}

impl IdempotencyRow {
    /// What it means for a request with `fingerprint`.
    pub fn judge(self, fingerprint: &str) -> Idempotency {
        if self.fingerprint != fingerprint {
            return Idempotency::Mismatch;
        }
        match (self.status, self.body) {
            (Some(status), Some(body)) => Idempotency::Done {
                status: u16::try_from(status).unwrap_or(200),
                body,
                run_id: self.run_id,
            },
            _ => Idempotency::InProgress {
                run_id: self.run_id,
            },
        }
    }
}

/// First answers to `Idempotency-Key`s.
#[async_trait]
pub trait IdempotencyStore: Send + Sync {
    /// Claims the key, or tells what became of the first request that did.
    async fn begin_idempotent(
        &self,
        tenant_id: &str,
        key: &str,
        fingerprint: &str,
        run_id: Option<&str>,
        now: i64,
    ) -> Result<Idempotency>;
    /// Keeps the first answer.
    async fn finish_idempotent(
        &self,
        tenant_id: &str,
        key: &str,
        status: u16,
        body: &[u8],
    ) -> Result<()>;
    /// Holds a claim that has no answer yet.
    async fn renew_idempotent(&self, tenant_id: &str, key: &str, now: i64) -> Result<()>;
    /// Gives a key without an answer to another run, unless that was done already.
    async fn retry_idempotent(
        &self,
        tenant_id: &str,
        key: &str,
        first_run_id: &str,
        run_id: &str,
        now: i64,
    ) -> Result<bool>;
    /// Gives the key up, unless it stands for another run by now: the request had no lasting effect.
    async fn abandon_idempotent(
        &self,
        tenant_id: &str,
        key: &str,
        run_id: Option<&str>,
    ) -> Result<()>;
}
