//! `/v1/events`: the tenant's append-only feed.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::edge::extract::Admin;
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::edge::{Actor, AppState};
use crate::error::ApiError;
use crate::run::actor_out;
use crate::store::{EventFilter, EventRow};

#[derive(Debug, Serialize, ToSchema)]
pub struct EventOut {
    /// The envelope's version: 1.
    pub v: u8,
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub smith_id: Option<String>,
    pub data: Map<String, Value>,
    #[schema(value_type = Option<Actor>)]
    pub actor: Option<Map<String, Value>>,
    pub created_at: Time,
}

fn event_out(event: EventRow) -> EventOut {
    EventOut {
        v: 1,
        id: event.id,
        kind: event.kind,
        smith_id: event.smith_id,
        data: serde_json::from_str(&event.data).unwrap_or_default(),
        actor: actor_out(event.actor.as_deref()),
        created_at: Time(event.created_at),
    }
}

/// Lists the events, newest first.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(PageParams,
        ("type" = Option<String>, Query, description = "A type, or a family such as `run`"),
        ("smith_id" = Option<String>, Query),
        ("since" = Option<String>, Query, description = "RFC 3339")),
    responses((status = 200, body = Page<EventOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<EventOut>>, ApiError> {
    let since = page.filters.time("since")?;
    let filter = EventFilter {
        kind: page.filter("type"),
        smith_id: page.filter("smith_id"),
        since,
    };
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .events(&caller.tenant_id, &filter, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), event_out)))
}
