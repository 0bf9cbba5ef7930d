//! `/v1/tenant/webhooks`: where events are delivered to, and what became of the deliveries.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::edge::AppState;
use crate::edge::extract::{Admin, Input, MAX_URL, check_text};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::store::{DeliveryRow, DeliveryStatus, EventRow, WebhookRow, now_micros};
use crate::webhook::{Deliveries, new_secret};

const MAX_EVENTS: usize = 64;
const MAX_GRACE: i64 = 604_800;
const GRACE: i64 = 86_400;

#[derive(Debug, Deserialize, ToSchema)]
pub struct WebhookIn {
    #[schema(format = "uri", max_length = 2048)]
    pub url: String,
    /// Types and families; empty: all.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub events: Option<Vec<String>>,
    /// The default is true.
    #[serde(default)]
    pub active: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct WebhookPatch {
    #[serde(default)]
    #[schema(format = "uri", max_length = 2048)]
    pub url: Option<String>,
    #[serde(default)]
    #[schema(max_items = 64)]
    pub events: Option<Vec<String>>,
    #[serde(default)]
    pub active: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct RotateIn {
    /// How long the old secret signs too, in seconds.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 604800, default = 86400)]
    pub grace_seconds: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookOut {
    pub id: String,
    pub url: String,
    pub events: Vec<String>,
    pub active: bool,
    pub created_at: Time,
}

/// A new webhook with its secret, which is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookMade {
    #[serde(flatten)]
    pub webhook: WebhookOut,
    pub secret: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookId {
    pub id: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Rotated {
    pub id: String,
    pub secret: String,
    pub previous_secret_expires_at: Option<Time>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Tested {
    pub delivered: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Redelivered {
    pub delivery_id: String,
    pub delivered: bool,
    /// The endpoint's answer.
    pub status: Option<u16>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryOut {
    pub id: String,
    pub event_id: String,
    pub event_type: String,
    pub url: String,
    /// `pending`, `succeeded` or `dead`.
    pub status: String,
    pub attempts: i64,
    pub last_status: Option<i64>,
    /// Empty: there was none.
    pub last_error: String,
    pub next_attempt_at: Option<Time>,
    pub delivered_at: Option<Time>,
    pub created_at: Time,
}

fn webhook_out(row: WebhookRow) -> WebhookOut {
    WebhookOut {
        id: row.id,
        url: row.url,
        events: serde_json::from_str(&row.events).unwrap_or_default(),
        active: row.active,
        created_at: Time(row.created_at),
    }
}

fn delivery_out(row: DeliveryRow, url: &str) -> DeliveryOut {
    DeliveryOut {
        next_attempt_at: (row.status == DeliveryStatus::Pending)
            .then_some(Time(row.next_attempt_at)),
        id: row.id,
        event_id: row.event_id,
        event_type: row.event_type,
        url: url.to_owned(),
        status: row.status.into(),
        attempts: row.attempts,
        last_status: row.last_status,
        last_error: row.last_error.unwrap_or_default(),
        delivered_at: row.delivered_at.map(Time),
        created_at: Time(row.created_at),
    }
}

/// Checks the patterns; any word of the right form is taken, so that new types need no new gate.
fn patterns(events: Vec<String>) -> Result<Vec<String>, ApiError> {
    if events.len() > MAX_EVENTS {
        return Err(ApiError::invalid(
            "events",
            format!("must be at most {MAX_EVENTS}"),
        ));
    }
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.".contains(&b);
    for (at, event) in events.iter().enumerate() {
        if event.is_empty() || event.len() > 64 || !event.bytes().all(word) {
            return Err(ApiError::invalid(
                format!("events[{at}]"),
                "must be an event's type or a family, such as run.completed or run",
            ));
        }
    }
    Ok(events)
}

async fn checked_url(gateway: &AppState, url: &str) -> Result<String, ApiError> {
    if url.trim().is_empty() {
        return Err(ApiError::bad_request("url_required", "the url is empty").param("url"));
    }
    check_text("url", url, MAX_URL)?;
    gateway.webhooks.work.sender.check_url(url).await?;
    Ok(url.to_owned())
}

fn as_json(events: &[String]) -> String {
    json!(events).to_string()
}

async fn found(gateway: &AppState, tenant: &str, id: &str) -> Result<WebhookRow, ApiError> {
    let webhook = gateway.store.webhook(tenant, id).await?;
    webhook.ok_or_else(|| ApiError::not_found("webhook", id))
}

/// Lists the webhooks, never their secrets.
#[utoipa::path(get, path = "/v1/tenant/webhooks", tag = "webhooks", params(PageParams),
    responses((status = 200, body = Page<WebhookOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<WebhookOut>>, ApiError> {
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .webhooks(&caller.tenant_id, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), webhook_out)))
}

/// Makes a webhook: its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tenant/webhooks", tag = "webhooks", request_body = WebhookIn,
    responses((status = 201, body = WebhookMade)))]
pub async fn create(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<WebhookIn>,
) -> Result<(StatusCode, Json<WebhookMade>), ApiError> {
    let events = patterns(input.events.unwrap_or_default())?;
    let secret = new_secret().map_err(ApiError::internal)?;
    let mut webhook = WebhookRow {
        id: ids::mint(ids::Kind::Webhook),
        tenant_id: caller.tenant_id.to_string(),
        url: checked_url(&gateway, &input.url).await?,
        events: as_json(&events),
        active: input.active.unwrap_or(true),
        sealed: Vec::new(),
        previous_sealed: None,
        previous_until: None,
        created_at: now_micros(),
    };
    webhook.sealed = gateway.webhooks.work.sender.seal(&webhook, &secret)?;
    gateway.store.insert_webhook(&webhook, &events).await?;
    let out = WebhookMade {
        webhook: webhook_out(webhook),
        secret,
    };
    Ok((StatusCode::CREATED, Json(out)))
}

/// Changes a webhook.
#[utoipa::path(patch, path = "/v1/tenant/webhooks/{id}", tag = "webhooks",
    params(("id" = String, Path)), request_body = WebhookPatch,
    responses((status = 200, body = WebhookId)))]
pub async fn update(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<WebhookPatch>,
) -> Result<Json<WebhookId>, ApiError> {
    let mut webhook = found(&gateway, &caller.tenant_id, &id).await?;
    if let Some(url) = input.url {
        webhook.url = checked_url(&gateway, &url).await?;
    }
    let events = match input.events {
        Some(events) => patterns(events)?,
        None => serde_json::from_str(&webhook.events).unwrap_or_default(),
    };
    webhook.events = as_json(&events);
    webhook.active = input.active.unwrap_or(webhook.active);
    written(&gateway, &webhook, &events).await?;
    Ok(Json(WebhookId { id }))
}

async fn written(
    gateway: &AppState,
    webhook: &WebhookRow,
    events: &[String],
) -> Result<(), ApiError> {
    match gateway.store.update_webhook(webhook, events).await? {
        true => Ok(()),
        false => Err(ApiError::not_found("webhook", &webhook.id)),
    }
}

/// Deletes a webhook and its deliveries.
#[utoipa::path(delete, path = "/v1/tenant/webhooks/{id}", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    match gateway.store.delete_webhook(&caller.tenant_id, &id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("webhook", &id)),
    }
}

/// Gives a webhook a new secret. In the grace, deliveries are signed with both.
#[utoipa::path(post, path = "/v1/tenant/webhooks/{id}/rotate_secret", tag = "webhooks",
    params(("id" = String, Path)), request_body = RotateIn,
    responses((status = 200, body = Rotated)))]
pub async fn rotate_secret(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<RotateIn>,
) -> Result<Json<Rotated>, ApiError> {
    let grace = input.grace_seconds.unwrap_or(GRACE);
    if !(0..=MAX_GRACE).contains(&grace) {
        return Err(ApiError::invalid(
            "grace_seconds",
            format!("must be 0 to {MAX_GRACE}"),
        ));
    }
    let mut webhook = found(&gateway, &caller.tenant_id, &id).await?;
    let secret = new_secret().map_err(ApiError::internal)?;
    let fresh = gateway.webhooks.work.sender.seal(&webhook, &secret)?;
    let previous = std::mem::replace(&mut webhook.sealed, fresh);
    let until = (grace > 0).then(|| now_micros() + grace * 1_000_000);
    webhook.previous_sealed = until.map(|_| previous);
    webhook.previous_until = until;
    let events: Vec<String> = serde_json::from_str(&webhook.events).unwrap_or_default();
    written(&gateway, &webhook, &events).await?;
    Ok(Json(Rotated {
        id,
        secret,
        previous_secret_expires_at: until.map(Time),
    }))
}

/// Delivers a `webhook.test` event at once, to this webhook alone.
#[utoipa::path(post, path = "/v1/tenant/webhooks/{id}/test", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Tested)))]
pub async fn test(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<Tested>, ApiError> {
    let webhook = found(&gateway, &caller.tenant_id, &id).await?;
    let data = json!({ "webhook_id": id });
    let actor = caller.actor();
    let event = EventRow::new(&caller.tenant_id, "webhook.test", None, &data, Some(&actor));
    let delivery = gateway
        .store
        .append_event_for(&event, &id, Deliveries::hold_until())
        .await?;
    let attempt = gateway
        .webhooks
        .work
        .sender
        .attempt(&webhook, &delivery)
        .await?;
    Ok(Json(Tested {
        delivered: attempt.delivered,
    }))
}

/// Lists the deliveries of a webhook, newest first.
#[utoipa::path(get, path = "/v1/tenant/webhooks/{id}/deliveries", tag = "webhooks",
    params(("id" = String, Path), PageParams),
    responses((status = 200, body = Page<DeliveryOut>)))]
pub async fn deliveries(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<DeliveryOut>>, ApiError> {
    let webhook = found(&gateway, &caller.tenant_id, &id).await?;
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .deliveries(&caller.tenant_id, &id, before, page.fetch())
        .await?;
    Ok(Json(page.page(
        rows,
        |row| row.id.clone(),
        |row| delivery_out(row, &webhook.url),
    )))
}

/// Tries a delivery again at once, whatever became of it before.
#[utoipa::path(post, path = "/v1/tenant/webhooks/{id}/deliveries/{delivery}/redeliver",
    tag = "webhooks", params(("id" = String, Path), ("delivery" = String, Path)),
    responses((status = 200, body = Redelivered)))]
pub async fn redeliver(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path((id, delivery)): Path<(String, String)>,
) -> Result<Json<Redelivered>, ApiError> {
    let webhook = found(&gateway, &caller.tenant_id, &id).await?;
    let row = gateway
        .store
        .delivery(&caller.tenant_id, &id, &delivery)
        .await?
        .ok_or_else(|| ApiError::not_found("delivery", &delivery))?;
    let attempt = gateway.webhooks.work.sender.attempt(&webhook, &row).await?;
    Ok(Json(Redelivered {
        delivery_id: delivery,
        delivered: attempt.delivered,
        status: attempt.status,
    }))
}
