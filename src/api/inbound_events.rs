//! `/v1/inbound_events`: what has arrived on channels, as it arrived.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::auth::scope;
use crate::edge::AppState;
use crate::edge::extract::May;
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::store::{InboundFilter, InboundRow};

#[derive(Debug, Serialize, ToSchema)]
pub struct InboundEventOut {
    pub id: String,
    /// The channel.
    pub source: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// The conversation that it belongs to.
    pub subject: String,
    /// The platform's own name for it; delivered again, it is the same event.
    pub idempotency_key: String,
    /// Who answers; empty: nobody does.
    pub smith_id: String,
    /// `accepted`, `done` or `failed`.
    pub status: String,
    /// Why it failed, or led to nothing.
    pub reason: Option<String>,
    pub data: Map<String, Value>,
    pub created_at: Time,
}

fn inbound_out(row: InboundRow) -> InboundEventOut {
    InboundEventOut {
        id: row.id,
        source: row.source,
        kind: row.kind,
        subject: row.subject,
        idempotency_key: row.idempotency_key,
        smith_id: row.smith_id,
        status: row.status,
        reason: row.reason,
        data: serde_json::from_str(&row.data).unwrap_or_default(),
        created_at: Time(row.created_at),
    }
}

/// Lists what has arrived; with a smith token, what that smith answers.
#[utoipa::path(get, path = "/v1/inbound_events", tag = "channels",
    params(PageParams, ("source" = Option<String>, Query), ("smith_id" = Option<String>, Query),
        ("since" = Option<String>, Query)),
    responses((status = 200, body = Page<InboundEventOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsRead>,
    page: PageQuery,
) -> Result<Json<Page<InboundEventOut>>, ApiError> {
    let filter = InboundFilter {
        source: page.filter("source"),
        smith_id: match caller.smith_id() {
            Some(own) => Some(own.to_string()),
            None => page.filter("smith_id"),
        },
        since: page.filters.time("since")?,
    };
    let (before, limit) = (page.before.as_deref(), page.fetch());
    let rows = gateway
        .store
        .inbound_events(&caller.tenant_id, &filter, before, limit)
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), inbound_out)))
}

/// Reads what has arrived.
#[utoipa::path(get, path = "/v1/inbound_events/{id}", tag = "channels",
    params(("id" = String, Path)), responses((status = 200, body = InboundEventOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsRead>,
    Path(id): Path<String>,
) -> Result<Json<InboundEventOut>, ApiError> {
    let found = gateway.store.inbound_event(&caller.tenant_id, &id).await?;
    let own = caller.smith_id();
    let found = found.filter(|row| own.is_none_or(|own| row.smith_id == **own));
    let row = found.ok_or_else(|| ApiError::not_found("inbound event", &id))?;
    Ok(Json(inbound_out(row)))
}
