//! What a smith was and what it remembers: revisions, the working-memory document, recall.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::smiths::written;
use crate::auth::Scope;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Anyone, Input, check_text, permitted};
use crate::edge::page::{List, Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::store::{SmithRevisionRow, SmithSnapshot, now_micros};
use crate::tools::hosted::recall as past_messages;

/// The longest working-memory document, in bytes.
const MAX_MEMORY: usize = 256 * 1024;
const MAX_NOTE: usize = 4096;
const MAX_QUERY: usize = 4096;

#[derive(Debug, Serialize, ToSchema)]
pub struct RevisionOut {
    pub version: i64,
    /// The smith's configuration then: whose version it ran, what it set for itself, its person.
    #[schema(value_type = Object)]
    pub snapshot: SnapshotOut,
    pub created_by: Option<String>,
    pub note: Option<String>,
    pub created_at: Time,
}

/// A smith's configuration, with its overrides once more as members of their own.
#[derive(Debug, Serialize)]
pub struct SnapshotOut {
    #[serde(flatten)]
    smith: SmithSnapshot,
    #[serde(flatten)]
    members: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct RestoreIn {
    #[serde(default)]
    pub note: Option<String>,
}

/// The working-memory document.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    pub content: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct RecallIn {
    #[schema(min_length = 1)]
    pub query: String,
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    pub limit: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Recalled {
    pub thread_id: String,
    pub content: String,
    /// The share of the query's words that it holds, 0 to 1.
    pub score: f64,
}

impl From<past_messages::Hit> for Recalled {
    fn from(hit: past_messages::Hit) -> Self {
        Self {
            thread_id: hit.thread_id,
            content: hit.content,
            score: hit.score,
        }
    }
}

fn revision_out(row: SmithRevisionRow) -> RevisionOut {
    RevisionOut {
        version: row.version,
        snapshot: SnapshotOut {
            members: row.snapshot.overrides.0.clone(),
            smith: row.snapshot,
        },
        created_by: row.created_by,
        note: row.note,
        created_at: Time(row.created_at),
    }
}

/// Lists the revisions of a smith, newest first.
#[utoipa::path(get, path = "/v1/smiths/{id}/revisions", tag = "smiths",
    params(("id" = String, Path), PageParams), responses((status = 200, body = Page<RevisionOut>)))]
pub async fn revisions(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<RevisionOut>>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::RunsRead).await?;
    let before = page.before_version()?;
    let rows = gateway
        .store
        .smith_revisions(&caller.tenant_id, &id, before, page.fetch())
        .await?;
    Ok(Json(page.page(
        rows,
        |row| row.version.to_string(),
        revision_out,
    )))
}

/// Makes a smith what it was at a revision, and answers the new revision that this is.
#[utoipa::path(post, path = "/v1/smiths/{id}/revisions/{version}/restore", tag = "smiths",
    params(("id" = String, Path), ("version" = i64, Path)), request_body = RestoreIn,
    responses((status = 200, body = RevisionOut)))]
pub async fn restore(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path((id, version)): Path<(String, String)>,
    Input(input): Input<RestoreIn>,
) -> Result<Json<RevisionOut>, ApiError> {
    let missing = || ApiError::not_found("revision", &version);
    let number: i64 = version.parse().map_err(|_| missing())?;
    let note = input
        .note
        .unwrap_or_else(|| format!("restored revision {number}"));
    check_text("note", &note, MAX_NOTE)?;
    let mut smith = permitted(&gateway, &caller, &id, Scope::RunsRead).await?;
    let revision = gateway
        .store
        .smith_revision(&caller.tenant_id, &id, number)
        .await?
        .ok_or_else(missing)?;
    let then = revision.snapshot;
    if gateway
        .store
        .agent(&caller.tenant_id, &then.agent_id)
        .await?
        .is_none()
    {
        return Err(ApiError::conflict(
            "agent_unpublished",
            "the agent of this revision was deleted",
        ));
    }
    smith.agent_id = then.agent_id;
    smith.pin = then.pin;
    smith.profile = then.profile;
    smith.overrides = then.overrides;
    smith.customer_id = match then.customer_id {
        Some(id) => {
            let customer = gateway.store.customer(&caller.tenant_id, &id).await?;
            customer.map(|customer| customer.id)
        }
        None => None,
    };
    written(&gateway, &caller, &smith, Some(&note)).await?;
    let newest = gateway
        .store
        .smith_revisions(&caller.tenant_id, &id, None, 1)
        .await?;
    let made = newest.into_iter().next().ok_or_else(missing)?;
    Ok(Json(revision_out(made)))
}

/// Reads the working-memory document.
#[utoipa::path(get, path = "/v1/smiths/{id}/memory", tag = "memory",
    params(("id" = String, Path)), responses((status = 200, body = Memory)))]
pub async fn memory(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
) -> Result<Json<Memory>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::MemoriesRead).await?;
    let content = gateway.store.smith_memory(&caller.tenant_id, &id).await?;
    Ok(Json(Memory { content }))
}

/// Replaces the working-memory document.
#[utoipa::path(put, path = "/v1/smiths/{id}/memory", tag = "memory",
    params(("id" = String, Path)), request_body = Memory,
    responses((status = 200, body = Memory)))]
pub async fn put_memory(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
    Input(input): Input<Memory>,
) -> Result<Json<Memory>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::MemoriesWrite).await?;
    check_text("content", &input.content, MAX_MEMORY)?;
    gateway
        .store
        .put_smith_memory(&caller.tenant_id, &id, &input.content, now_micros())
        .await?;
    Ok(Json(input))
}

/// Searches the smith's past messages by the words of the query.
#[utoipa::path(post, path = "/v1/smiths/{id}/memory/recall", tag = "memory",
    params(("id" = String, Path)), request_body = RecallIn,
    responses((status = 200, body = List<Recalled>)))]
pub async fn recall(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
    Input(input): Input<RecallIn>,
) -> Result<(StatusCode, Json<List<Recalled>>), ApiError> {
    permitted(&gateway, &caller, &id, Scope::MemoriesRead).await?;
    check_text("query", &input.query, MAX_QUERY)?;
    let limit = input.limit.unwrap_or(10);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::bad_request("invalid_limit", "must be 1 to 100").param("limit"));
    }
    let found = past_messages::search(
        gateway.store.as_ref(),
        &caller.tenant_id,
        &id,
        &input.query,
        limit as usize,
    );
    let data = found.await?.into_iter().map(Recalled::from).collect();
    Ok((StatusCode::OK, Json(List { data })))
}
