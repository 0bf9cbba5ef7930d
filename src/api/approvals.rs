//! `/v1/approvals`: decisions that humans take, to read. They are taken through `submit`.

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
use crate::store::{ApprovalRow, ApprovalStatus};

#[derive(Debug, Serialize, ToSchema)]
pub struct ApprovalOut {
    pub id: String,
    pub run_id: Option<String>,
    pub smith_id: Option<String>,
    pub tool_call_id: Option<String>,
    pub tool: Option<String>,
    pub args: Map<String, Value>,
    /// `{message, requested_schema}`: the tool asks for input.
    pub elicitation: Option<Map<String, Value>>,
    /// `pending`, `approved`, `rejected` or `cancelled`.
    pub status: String,
    /// Who decided: whom the decision names, else the smith or the tenant whose token it came with.
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub created_at: Time,
    pub resolved_at: Option<Time>,
}

/// The name of an actor.
fn name_of(actor: &str) -> Option<String> {
    let actor: Map<String, Value> = serde_json::from_str(actor).ok()?;
    let names = ["on_behalf_of", "email", "id"].into_iter();
    let mut names = names.filter_map(|name| actor.get(name)?.as_str());
    names.find(|name| !name.is_empty()).map(str::to_owned)
}

fn approval_out(row: ApprovalRow) -> ApprovalOut {
    let object = |text: &str| serde_json::from_str(text).ok();
    ApprovalOut {
        id: row.id,
        run_id: row.run_id,
        smith_id: row.smith_id,
        tool_call_id: row.tool_call_id,
        tool: row.tool,
        args: object(&row.args).unwrap_or_default(),
        elicitation: row.elicitation.as_deref().and_then(object),
        status: row.status.into(),
        actor: row.actor.as_deref().and_then(name_of),
        reason: row.reason,
        created_at: Time(row.created_at),
        resolved_at: row.resolved_at.map(Time),
    }
}

/// Lists the approvals, newest first; with a smith token, that smith's.
#[utoipa::path(get, path = "/v1/approvals", tag = "approvals",
    params(PageParams, ("status" = Option<String>, Query), ("smith_id" = Option<String>, Query)),
    responses((status = 200, body = Page<ApprovalOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::ApprovalsRead>,
    page: PageQuery,
) -> Result<Json<Page<ApprovalOut>>, ApiError> {
    let status = page.filters.one_of("status", ApprovalStatus::WORDS)?;
    let named = page.filter("smith_id");
    if let Some(named) = &named {
        caller.require_smith(named)?;
    }
    let smith = caller.smith_id().map(|id| id.to_string()).or(named);
    let rows = gateway
        .store
        .approvals(
            &caller.tenant_id,
            smith.as_deref(),
            status.as_deref(),
            page.before.as_deref(),
            page.fetch(),
        )
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), approval_out)))
}

/// Reads an approval.
#[utoipa::path(get, path = "/v1/approvals/{id}", tag = "approvals",
    params(("id" = String, Path)), responses((status = 200, body = ApprovalOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::ApprovalsRead>,
    Path(id): Path<String>,
) -> Result<Json<ApprovalOut>, ApiError> {
    let found = gateway.store.approval(&caller.tenant_id, &id).await?;
    let row = found.ok_or_else(|| ApiError::not_found("approval", &id))?;
    if caller.smith_id().is_some() {
        caller.require_smith(row.smith_id.as_deref().unwrap_or_default())?;
    }
    Ok(Json(approval_out(row)))
}
