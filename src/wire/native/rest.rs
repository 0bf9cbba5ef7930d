//! Runs as records, and `submit`. Creating and following runs is in `serve`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::auth::{Scope, scope};
use crate::edge::extract::{Anyone, Input, May, check_text};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::edge::{Actor, AppState};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::run::{RunView, Word, not_paused, run_out};
use crate::store::{RunFilter, RunRow, RunStatus};

/// An answer to a run that waits, or its cancellation.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SubmitIn {
    /// `approval_decision`, `tool_result` or `cancel`.
    #[schema(example = "cancel")]
    pub kind: String,
    #[serde(default)]
    pub approval_id: Option<String>,
    /// `approve` or `reject`.
    #[serde(default)]
    pub decision: Option<String>,
    /// Answers an elicitation.
    #[serde(default)]
    pub content: Option<Map<String, Value>>,
    #[serde(default)]
    pub reason: Option<String>,
    /// Who decided, where the caller decides for somebody else.
    #[serde(default)]
    pub actor: Option<String>,
    /// Names an approval by the call that it is about.
    #[serde(default)]
    pub tool_call_id: Option<String>,
}

/// One message of a run's input.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct InputMessage {
    /// `user` or `assistant`.
    pub role: String,
    /// A text, or parts `{type: "text" | "image" | "file", …}`.
    pub content: Value,
}

/// A run as a record.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunOut {
    pub id: String,
    pub smith_id: String,
    pub agent_id: String,
    pub thread_id: String,
    pub status: String,
    pub channel: String,
    /// Messages `{role, content}`; over the Responses wire, its items.
    pub input: Vec<Map<String, Value>>,
    /// `{content?, content_type?, tool_calls?, suggested_replies?}`
    pub output: Option<Map<String, Value>>,
    pub stop_reason: Option<String>,
    pub warnings: Vec<Warning>,
    pub usage: Option<RunUsage>,
    pub metadata: Map<String, Value>,
    pub actor: Option<Actor>,
    /// Of a failed run: `{code, message}`.
    #[schema(nullable = false)]
    pub error: Option<Map<String, Value>>,
    pub created_at: Time,
    pub updated_at: Time,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Warning {
    pub code: String,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RunUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub total_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
    pub reasoning_tokens: u64,
    /// Absent when the model has no price.
    #[schema(nullable = false)]
    pub cost: Option<f64>,
}

/// The run as it is then; of a cancellation, its id and status.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub enum SubmitOut {
    Run(Box<RunOut>),
    Ack(RunAck),
}

/// A run's id and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunAck {
    pub id: String,
    pub status: String,
}

async fn listed(
    gateway: &AppState,
    caller: &crate::auth::Principal,
    filter: RunFilter,
    page: &PageQuery,
) -> Result<Json<Page<RunView>>, ApiError> {
    if let Some(status) = &filter.status
        && RunStatus::of(status).is_none()
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
    Ok(Json(page.page(
        rows,
        |run| run.id.clone(),
        |run| run_out(&run),
    )))
}

/// Lists the tenant's runs; with a smith token, that smith's.
#[utoipa::path(get, path = "/v1/runs", tag = "runs",
    params(PageParams, ("smith_id" = Option<String>, Query), ("agent_id" = Option<String>, Query),
        ("status" = Option<String>, Query), ("external_id_prefix" = Option<String>, Query)),
    responses((status = 200, body = Page<RunOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsRead>,
    page: PageQuery,
) -> Result<Json<Page<RunView>>, ApiError> {
    let mut filter = RunFilter {
        smith_id: page.filter("smith_id"),
        agent_id: page.filter("agent_id"),
        status: page.filter("status"),
        external_id_prefix: page.filter("external_id_prefix"),
        ..RunFilter::default()
    };
    if let Some(named) = &filter.smith_id {
        caller.require_smith(named)?;
    }
    if let Some(own) = caller.smith_id() {
        filter.smith_id = Some(own.to_string());
    }
    listed(&gateway, &caller, filter, &page).await
}

/// Lists a smith's runs.
#[utoipa::path(get, path = "/v1/smiths/{id}/runs", tag = "runs",
    params(("id" = String, Path), PageParams, ("status" = Option<String>, Query)),
    responses((status = 200, body = Page<RunOut>)))]
pub async fn list_of_smith(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsRead>,
    Path(smith): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<RunView>>, ApiError> {
    caller.require_smith(&smith)?;
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

/// Reads a run.
#[utoipa::path(get, path = "/v1/smiths/{id}/runs/{run}", tag = "runs",
    params(("id" = String, Path), ("run" = String, Path)),
    responses((status = 200, body = RunOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((smith, run)): Path<(String, String)>,
) -> Result<Json<RunView>, ApiError> {
    let run = run_of(&gateway, &caller, &smith, &run, Scope::RunsRead).await?;
    Ok(Json(run_out(&run)))
}

/// Answers a run that waits, or cancels it.
#[utoipa::path(post, path = "/v1/smiths/{id}/runs/{run}/submit", tag = "runs",
    params(("id" = String, Path), ("run" = String, Path)), request_body = SubmitIn,
    responses((status = 200, body = SubmitOut)))]
pub async fn submit(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((smith, run)): Path<(String, String)>,
    Input(input): Input<SubmitIn>,
) -> Result<Response, ApiError> {
    let run = run_of(&gateway, &caller, &smith, &run, Scope::RunsWrite).await?;
    match input.kind.as_str() {
        "cancel" => cancel(&gateway, &run, input.reason).await,
        "approval_decision" => {
            let approve = match input.decision.as_deref() {
                Some("approve") => true,
                Some("reject") => false,
                _ => {
                    return Err(ApiError::bad_request(
                        "invalid_decision",
                        "must be approve or reject",
                    )
                    .param("decision"));
                }
            };
            caller.require(Scope::ApprovalsWrite)?;
            let mut actor = caller.actor();
            if let Some(named) = input.actor {
                check_text("actor", &named, 512)?;
                actor["on_behalf_of"] = json!(named);
            }
            let word = Word {
                approval_id: input.approval_id,
                tool_call_id: input.tool_call_id,
                approve,
                content: input.content.map(Value::Object),
                reason: input.reason,
                actor: Some(actor),
            };
            decide(&gateway, &run, &word).await
        }
        "tool_result" => Err(not_paused(&run)),
        other => {
            Err(ApiError::bad_request("invalid_kind", format!("no kind '{other}'")).param("kind"))
        }
    }
}

/// Writes a decision and, when the run goes on with it, waits until it rests again.
async fn decide(gateway: &Gateway, run: &RunRow, word: &Word) -> Result<Response, ApiError> {
    gateway.runs.decide(run, word).await?;
    Ok(Json(run_out(&gateway.runs.rested(run).await?)).into_response())
}

async fn cancel(
    gateway: &AppState,
    run: &RunRow,
    reason: Option<String>,
) -> Result<Response, ApiError> {
    let now = gateway.runs.cancel(run, reason).await?;
    if now.status != RunStatus::Cancelled {
        return Err(not_paused(&now));
    }
    Ok(Json(json!({ "id": now.id, "status": now.status })).into_response())
}
