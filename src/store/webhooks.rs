//! Webhooks and their deliveries.

use async_trait::async_trait;

use super::{DeliveryStatus, EventRow, Result};

/// Where events are delivered to.
#[derive(Clone, sqlx::FromRow)]
pub struct WebhookRow {
    pub id: String,
    pub tenant_id: String,
    pub url: String,
    /// JSON array of types and families; empty: all.
    pub events: String,
    pub active: bool,
    pub sealed: Vec<u8>,
    /// The secret before the last rotation, which signs too until `previous_until`.
    pub previous_sealed: Option<Vec<u8>>,
    pub previous_until: Option<i64>,
    pub created_at: i64,
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DeliveryRow {
    pub id: String,
    pub tenant_id: String,
    pub webhook_id: String,
    pub event_id: String,
    pub event_type: String,
    pub status: DeliveryStatus,
    pub attempts: i64,
    pub last_status: Option<i64>,
    pub last_error: Option<String>,
    pub next_attempt_at: i64,
    pub delivered_at: Option<i64>,
    pub created_at: i64,
    /// How often it was taken up since an attempt was last recorded.
    pub takings: i64,
}

/// What became of an attempt to deliver.
#[derive(Debug, Clone)]
pub struct DeliveryOutcome {
    pub status: DeliveryStatus,
    pub last_status: Option<i64>,
    pub last_error: Option<String>,
    pub next_attempt_at: i64,
    pub delivered_at: Option<i64>,
}

/// A delivery that a node makes an attempt for.
#[derive(Debug, Clone, Copy)]
pub struct HeldDelivery<'a> {
    pub tenant_id: &'a str,
    pub id: &'a str,
    /// Until when its row says that it is held.
    pub until: i64,
}

/// Webhooks and the outbox.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// `patterns` repeats the row's `events` for matching.
    async fn insert_webhook(&self, webhook: &WebhookRow, patterns: &[String]) -> Result<()>;
    async fn webhook(&self, tenant_id: &str, id: &str) -> Result<Option<WebhookRow>>;
    async fn webhooks(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<WebhookRow>>;
    /// Writes all but the creation time; `false` when there is no such webhook.
    async fn update_webhook(&self, webhook: &WebhookRow, patterns: &[String]) -> Result<bool>;
    async fn delete_webhook(&self, tenant_id: &str, id: &str) -> Result<bool>;
    async fn deliveries(
        &self,
        tenant_id: &str,
        webhook_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<DeliveryRow>>;
    async fn delivery(
        &self,
        tenant_id: &str,
        webhook_id: &str,
        id: &str,
    ) -> Result<Option<DeliveryRow>>;
    /// Writes an event for one webhook alone, its delivery held until `hold_until`.
    async fn append_event_for(
        &self,
        event: &EventRow,
        webhook_id: &str,
        hold_until: i64,
    ) -> Result<DeliveryRow>;
    /// Webhooks, over all tenants, to which something is due at `now`: each tenant's first one before
    /// anyone's second.
    async fn due_webhooks(&self, now: i64, limit: i64) -> Result<Vec<(String, String)>>;
    /// Takes up to `limit` due deliveries of a webhook; nobody else takes them before `hold_until`.
    async fn claim_deliveries(
        &self,
        tenant_id: &str,
        webhook_id: &str,
        now: i64,
        hold_until: i64,
        limit: i64,
    ) -> Result<Vec<DeliveryRow>>;
    /// Makes all deliveries due whose attempts nobody can be making any more: of a store that one
    /// process has for itself.
    async fn release_all_deliveries(&self, now: i64) -> Result<()>;
    /// Prolongs holds; answers of each whether it is one still.
    async fn renew_deliveries(&self, held: &[HeldDelivery<'_>], until: i64) -> Result<Vec<bool>>;
    /// Gives a delivery back that nothing was tried with, due at `due_at`; `false`: it is held no
    /// more.
    async fn release_delivery(&self, held: HeldDelivery<'_>, due_at: i64) -> Result<bool>;
    /// The node that a delivery was taken from lives: that taking is not counted.
    async fn uncount_delivery(&self, tenant_id: &str, id: &str) -> Result<()>;
    /// Records an attempt of one that holds the delivery; `false`: it is held no more.
    async fn settle_delivery(
        &self,
        held: HeldDelivery<'_>,
        outcome: &DeliveryOutcome,
    ) -> Result<bool>;
    /// Records an attempt that someone made by hand.
    async fn record_attempt(
        &self,
        tenant_id: &str,
        id: &str,
        outcome: &DeliveryOutcome,
    ) -> Result<()>;
}
