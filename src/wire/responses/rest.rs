//! `/v1/responses/{id}`: responses as records. Making and streaming them is in `serve`.

use axum::Json;
use axum::extract::{Path, State};
use http::HeaderMap;
use serde_json::Value;

use super::items::Item;
use super::record::Stored;
use crate::auth::{named_smith, scope};
use crate::edge::AppState;
use crate::edge::extract::May;
use crate::edge::page::{Deleted, OaiList, SliceParams, SliceQuery};
use crate::error::ApiError;

/// Reads a response. With `stream=true` its events are sent, those behind `starting_after`.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header),
        ("stream" = Option<bool>, Query), ("starting_after" = Option<i64>, Query, minimum = 0)),
    responses((status = 200, content(
        (Object = "application/json"), (String = "text/event-stream")))))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsRead>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    Ok(Json(stored.response()))
}

/// Deletes a response: it can be read and continued no more. The run's record stays.
#[utoipa::path(delete, path = "/v1/responses/{id}", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    responses((status = 200, body = Deleted)))]
pub async fn remove(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsWrite>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    let mut stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    stored.record.store = false;
    let record = serde_json::to_string(&stored.record).map_err(ApiError::internal)?;
    let run = &stored.run;
    let kept = gateway.store.set_response(&run.tenant_id, &run.id, &record);
    if !kept.await? {
        return Err(ApiError::not_found("response", &id));
    }
    Ok(Json(Deleted {
        id,
        object: "response",
        deleted: true,
    }))
}

/// Cancels a response that is under way; one that has ended is shown as it is.
#[utoipa::path(post, path = "/v1/responses/{id}/cancel", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    responses((status = 200, body = Object)))]
pub async fn cancel(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsWrite>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    if !stored.run.is_under_way() {
        return Ok(Json(stored.response()));
    }
    gateway.runs.cancel(&stored.run, None).await?;
    let stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    Ok(Json(stored.response()))
}

/// Lists what a response answers.
#[utoipa::path(get, path = "/v1/responses/{id}/input_items", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header), SliceParams),
    responses((status = 200, body = OaiList<Item>)))]
pub async fn input_items(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsRead>,
    headers: HeaderMap,
    Path(id): Path<String>,
    query: SliceQuery,
) -> Result<Json<OaiList<Item>>, ApiError> {
    let stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    let mut items = stored.input_items();
    if !query.slice.ascending {
        items.reverse();
    }
    let place = |id: &str| items.iter().position(|item| item.id == id);
    let unknown = |param: &'static str| ApiError::invalid(param, "is no item of this response");
    let from = match query.slice.after.as_deref() {
        Some(id) => place(id).ok_or_else(|| unknown("after"))? + 1,
        None => 0,
    };
    let to = match query.slice.before.as_deref() {
        Some(id) => place(id).ok_or_else(|| unknown("before"))?,
        None => items.len(),
    };
    let wanted = items.get(from..to).unwrap_or_default();
    let page = wanted.iter().take(query.slice.limit as usize).cloned();
    let page: Vec<Item> = page.collect();
    Ok(Json(query.list(page, |item| item.id.clone(), |item| item)))
}
