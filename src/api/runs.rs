//! Runs as records, and `submit`. Creating and following runs is the edge's.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::PageQuery;
use super::{AppState, Caller};
use crate::auth::Scope;
use crate::error::ApiError;
use crate::run::{Cancelled, run_out};
use crate::store::{RunFilter, RunRow};
use crate::wire::parse;

const STATUSES: [&str; 7] = [
    "queued",
    "running",
    "completed",
    "failed",
    "cancelled",
    "paused_for_approval",
    "paused_for_tool",
];

#[derive(Debug, Deserialize)]
struct SubmitIn {
    kind: String,
    #[serde(default)]
    decision: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

async fn listed(
    gateway: &AppState,
    caller: &crate::auth::Principal,
    filter: RunFilter,
    page: &PageQuery,
) -> Result<Json<Value>, ApiError> {
    if let Some(status) = &filter.status
        && !STATUSES.contains(&status.as_str())
    {
        return Err(ApiError::invalid("status", format!("no status '{status}'")));
    }
    let rows = gateway
        .store
        .runs(
            &caller.tenant_id,
            &filter,
            page.before.as_deref(),
            page.fetch(),
        )
        .await?;
    Ok(Json(page.page(rows, |run| run.id.clone(), run_out)))
}

/// `GET /v1/runs`: the tenant's runs; with a smith token, that smith's.
pub async fn list(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    page: PageQuery,
) -> Result<Json<Value>, ApiError> {
    caller.require(Scope::RunsRead)?;
    let mut filter = RunFilter {
        smith_id: page.filter("smith_id"),
        agent_id: page.filter("agent_id"),
        status: page.filter("status"),
        external_id_prefix: page.filter("external_id_prefix"),
    };
    if let Some(named) = &filter.smith_id {
        caller.require_smith(named)?;
    }
    if let Some(own) = caller.smith_id() {
        filter.smith_id = Some(own.to_string());
    }
    listed(&gateway, &caller, filter, &page).await
}

/// `GET /v1/smiths/{id}/runs`.
pub async fn list_of_smith(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(smith): Path<String>,
    page: PageQuery,
) -> Result<Json<Value>, ApiError> {
    caller.require_smith(&smith)?;
    caller.require(Scope::RunsRead)?;
    if gateway
        .store
        .smith(&caller.tenant_id, &smith)
        .await?
        .is_none()
    {
        return Err(ApiError::not_found("smith", &smith));
    }
    let filter = RunFilter {
        smith_id: Some(smith),
        status: page.filter("status"),
        ..RunFilter::default()
    };
    listed(&gateway, &caller, filter, &page).await
}

async fn run_of(
    gateway: &AppState,
    caller: &crate::auth::Principal,
    smith: &str,
    run: &str,
    scope: Scope,
) -> Result<RunRow, ApiError> {
    caller.require_smith(smith)?;
    caller.require(scope)?;
    gateway
        .store
        .run(&caller.tenant_id, run)
        .await?
        .filter(|found| found.smith_id == smith)
        .ok_or_else(|| ApiError::not_found("run", run))
}

/// `GET /v1/smiths/{id}/runs/{run}`.
pub async fn one(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path((smith, run)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let run = run_of(&gateway, &caller, &smith, &run, Scope::RunsRead).await?;
    Ok(Json(run_out(&run)))
}

/// `POST /v1/smiths/{id}/runs/{run}/submit`.
pub async fn submit(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path((smith, run)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let input: SubmitIn = parse(&body)?;
    let run = run_of(&gateway, &caller, &smith, &run, Scope::RunsWrite).await?;
    match input.kind.as_str() {
        "cancel" => cancel(&gateway, &run, input.reason).await,
        "approval_decision" => {
            match input.decision.as_deref() {
                Some("approve" | "reject") => {}
                _ => {
                    return Err(ApiError::bad_request(
                        "invalid_decision",
                        "must be approve or reject",
                    )
                    .param("decision"));
                }
            }
            Err(not_paused(&run))
        }
        "tool_result" => Err(not_paused(&run)),
        other => {
            Err(ApiError::bad_request("invalid_kind", format!("no kind '{other}'")).param("kind"))
        }
    }
}

fn not_paused(run: &RunRow) -> ApiError {
    ApiError::conflict(
        "run_not_paused",
        format!("the run is {}, it waits for nothing", run.status),
    )
}

async fn cancel(
    gateway: &AppState,
    run: &RunRow,
    reason: Option<String>,
) -> Result<Json<Value>, ApiError> {
    match gateway.runs.live(&run.tenant_id, &run.id) {
        Some(live) => {
            let mut reader = live.reader();
            live.cancel(Cancelled::Asked(reason));
            let mut frames = Vec::new();
            while reader.next(&mut frames).await {
                frames.clear();
            }
        }
        None if run.status == "running" || run.status == "queued" => {
            return Err(ApiError::unavailable(
                "service_overloaded",
                "the run lives on another node; ask that one",
                1,
            ));
        }
        None => {}
    }
    let now = gateway
        .store
        .run(&run.tenant_id, &run.id)
        .await?
        .ok_or_else(|| ApiError::not_found("run", &run.id))?;
    if now.status != "cancelled" {
        return Err(not_paused(&now));
    }
    Ok(Json(json!({ "id": now.id, "status": now.status })))
}
