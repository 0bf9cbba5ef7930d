//! `/v1/deployments/{id}/deliveries`: what was sent over a channel, and what became of it.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::deployments::found;
use crate::auth::scope;
use crate::edge::AppState;
use crate::edge::extract::May;
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::store::{OutboundRow, now_micros};

#[derive(Debug, Serialize, ToSchema)]
pub struct ChannelDeliveryOut {
    pub id: String,
    pub channel: String,
    /// The conversation.
    pub chat: String,
    /// `answer`, `approval` or `notice`.
    pub kind: String,
    pub run_id: Option<String>,
    pub smith_id: String,
    /// `pending`, `sent`, `failed`, or `unknown`: it may have been sent.
    pub status: String,
    pub attempts: i64,
    /// The platform's names for the messages that are sent.
    pub message_ids: Vec<String>,
    /// Empty: there was none.
    pub last_error: String,
    pub next_attempt_at: Option<Time>,
    pub created_at: Time,
    pub updated_at: Time,
}

fn delivery_out(row: OutboundRow) -> ChannelDeliveryOut {
    let progress: Value = serde_json::from_str(&row.progress).unwrap_or_default();
    let sent = progress["sent"].as_array().into_iter().flatten();
    ChannelDeliveryOut {
        message_ids: sent.filter_map(Value::as_str).map(str::to_owned).collect(),
        next_attempt_at: row.due_at.map(Time),
        id: row.id,
        channel: row.channel,
        chat: row.chat,
        kind: row.kind,
        run_id: row.run_id,
        smith_id: row.smith_id,
        status: row.status,
        attempts: row.attempts,
        last_error: row.last_error.unwrap_or_default(),
        created_at: Time(row.created_at),
        updated_at: Time(row.updated_at),
    }
}

/// Lists what was sent for a deployment.
#[utoipa::path(get, path = "/v1/deployments/{id}/deliveries", tag = "deployments",
    params(PageParams, ("id" = String, Path)),
    responses((status = 200, body = Page<ChannelDeliveryOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsRead>,
    Path(id): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<ChannelDeliveryOut>>, ApiError> {
    let deployment = found(&gateway, &caller, &id).await?;
    let (before, limit) = (page.before.as_deref(), page.fetch());
    let rows = gateway
        .store
        .outbound_of(&caller.tenant_id, &deployment.id, before, limit)
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), delivery_out)))
}

/// Sends again what has failed, or may not have come there: from the first message on that is not known
/// to be sent.
#[utoipa::path(post, path = "/v1/deployments/{id}/deliveries/{delivery}/redeliver",
    tag = "deployments", params(("id" = String, Path), ("delivery" = String, Path)),
    responses((status = 202, body = ChannelDeliveryOut)))]
pub async fn redeliver(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsWrite>,
    Path((id, delivery)): Path<(String, String)>,
) -> Result<(StatusCode, Json<ChannelDeliveryOut>), ApiError> {
    let deployment = found(&gateway, &caller, &id).await?;
    let row = gateway.store.outbound(&caller.tenant_id, &delivery).await?;
    let row = row.filter(|row| row.deployment_id == deployment.id);
    let mut row = row.ok_or_else(|| ApiError::not_found("delivery", &delivery))?;
    if row.due_at.is_some() {
        let why = "it is on its way";
        return Err(ApiError::conflict("delivery_pending", why));
    }
    let mut progress: Value = serde_json::from_str(&row.progress).unwrap_or_default();
    if let Some(progress) = progress.as_object_mut() {
        progress.shift_remove("sending");
        if row.status == "sent" {
            progress.shift_remove("sent");
        }
    }
    let now = now_micros();
    row.progress = progress.to_string();
    (row.status, row.attempts, row.takings) = ("pending".to_owned(), 0, 0);
    (row.due_at, row.updated_at) = (Some(now), now);
    if !gateway.store.record_outbound(&row, None).await? {
        return Err(ApiError::conflict("delivery_pending", "it is on its way"));
    }
    gateway.runs.answers_due.notify_one();
    Ok((StatusCode::ACCEPTED, Json(delivery_out(row))))
}
