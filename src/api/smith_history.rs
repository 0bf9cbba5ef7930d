//! What a smith was and what it remembers: revisions, the working-memory document, recall.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AppState;
use super::extract::{Caller, Input, check_text};
use super::page::{List, Page, PageParams, PageQuery};
use super::smiths::{SmithOut, permitted, shown, written};
use super::time::Time;
use crate::auth::Scope;
use crate::error::ApiError;
use crate::model::{Role, Turn, joined_text};
use crate::store::{RunFilter, SmithRevisionRow, SmithSnapshot, now_micros};

/// The longest working-memory document, in bytes.
const MAX_MEMORY: usize = 256 * 1024;
const MAX_NOTE: usize = 4096;
const MAX_QUERY: usize = 4096;
/// Runs that recall looks through, newest first.
const RECALL_RUNS: i64 = 500;
/// Characters of a message that recall shows.
const RECALL_CHARS: usize = 2000;

#[derive(Debug, Serialize, ToSchema)]
pub struct RevisionOut {
    pub version: i64,
    /// The smith's configuration at this revision.
    #[schema(value_type = Object)]
    pub snapshot: SmithSnapshot,
    pub created_by: Option<String>,
    pub note: Option<String>,
    pub created_at: Time,
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

fn revision_out(row: SmithRevisionRow) -> RevisionOut {
    RevisionOut {
        version: row.version,
        snapshot: row.snapshot,
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
    Caller(caller): Caller,
    Path(id): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<RevisionOut>>, ApiError> {
    caller.require_admin()?;
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

/// Makes a smith what it was at a revision, which is a new revision.
#[utoipa::path(post, path = "/v1/smiths/{id}/revisions/{version}/restore", tag = "smiths",
    params(("id" = String, Path), ("version" = i64, Path)), request_body = RestoreIn,
    responses((status = 200, body = SmithOut)))]
pub async fn restore(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path((id, version)): Path<(String, String)>,
    Input(input): Input<RestoreIn>,
) -> Result<Json<SmithOut>, ApiError> {
    caller.require_admin()?;
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
    Ok(Json(shown(&gateway, smith).await?))
}

/// Reads the working-memory document.
#[utoipa::path(get, path = "/v1/smiths/{id}/memory", tag = "memory",
    params(("id" = String, Path)), responses((status = 200, body = Memory)))]
pub async fn memory(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
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
    Caller(caller): Caller,
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
    Caller(caller): Caller,
    Path(id): Path<String>,
    Input(input): Input<RecallIn>,
) -> Result<(StatusCode, Json<List<Recalled>>), ApiError> {
    permitted(&gateway, &caller, &id, Scope::MemoriesRead).await?;
    check_text("query", &input.query, MAX_QUERY)?;
    let limit = input.limit.unwrap_or(10);
    if !(1..=100).contains(&limit) {
        return Err(ApiError::bad_request("invalid_limit", "must be 1 to 100").param("limit"));
    }
    let words = words(&input.query);
    if words.is_empty() {
        return Err(ApiError::invalid("query", "must hold a word"));
    }
    let filter = RunFilter {
        smith_id: Some(id),
        status: Some("completed".to_owned()),
        ..RunFilter::default()
    };
    let runs = gateway
        .store
        .runs(&caller.tenant_id, &filter, None, RECALL_RUNS)
        .await?;
    let mut found = Vec::new();
    for run in runs {
        let transcript = run.transcript.as_deref().unwrap_or("[]");
        let turns: Vec<Turn> = serde_json::from_str(transcript).map_err(ApiError::internal)?;
        for turn in turns {
            if !matches!(turn.role, Role::User | Role::Assistant) {
                continue;
            }
            let text = joined_text(&turn.parts);
            let score = score(&words, &text);
            if score > 0.0 {
                found.push(Recalled {
                    thread_id: run.thread_id.clone(),
                    content: text.chars().take(RECALL_CHARS).collect(),
                    score,
                });
            }
        }
    }
    // The sort is stable: of equal scores the newest comes first.
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(limit as usize);
    Ok((StatusCode::OK, Json(List { data: found })))
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = text
        .to_lowercase()
        .split(|ch: char| !ch.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.sort();
    words.dedup();
    words
}

fn score(query: &[String], text: &str) -> f64 {
    let held = words(text);
    let hits = query
        .iter()
        .filter(|word| held.binary_search(word).is_ok())
        .count();
    hits as f64 / query.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_scores_by_shared_words() {
        let query = words("Blue whale, blue sea");
        assert_eq!(query, ["blue", "sea", "whale"]);
        assert!((score(&query, "The BLUE sea.") - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(score(&query, "nothing"), 0.0);
    }
}
