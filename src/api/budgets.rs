//! `/v1/budgets`: what a month may cost a tenant, an agent, a smith, a customer or a virtual key.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bus::Notice;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Input};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::run::{NANOS, percent, this_period};
use crate::store::{BudgetRow, now_micros};

/// The largest budget, in units of the currency.
const MAX_LIMIT: f64 = 1e9;

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BudgetScope {
    Tenant,
    Agent,
    Smith,
    Customer,
    /// A virtual key.
    Key,
}

/// What happens when it is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BudgetAction {
    /// The feed says so.
    Warn,
    /// New runs are refused with 402 `budget_exceeded`.
    Block,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct BudgetIn {
    pub scope: BudgetScope,
    /// Not for the tenant's own.
    #[serde(default)]
    pub scope_id: Option<String>,
    /// In the platform's currency.
    #[schema(exclusive_minimum = 0, maximum = 1000000000)]
    pub limit: f64,
    /// Only `monthly`.
    #[serde(default)]
    pub period: Option<String>,
    #[serde(default)]
    pub action: Option<BudgetAction>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct BudgetPatch {
    #[serde(default)]
    #[schema(exclusive_minimum = 0, maximum = 1000000000)]
    pub limit: Option<f64>,
    #[serde(default)]
    pub action: Option<BudgetAction>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetOut {
    pub id: String,
    pub scope: String,
    pub scope_id: Option<String>,
    /// Always `monthly`.
    #[schema(example = "monthly")]
    pub period: &'static str,
    pub limit: f64,
    /// By ISO 4217, in small letters.
    #[schema(example = "eur")]
    pub currency: String,
    pub action: String,
    pub created_at: Time,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetStatus {
    #[serde(flatten)]
    pub budget: BudgetOut,
    pub period_start: String,
    pub period_key: String,
    pub spent: f64,
    pub remaining: f64,
    pub percent: f64,
    pub pct: f64,
    pub over: bool,
}

fn budget_out(row: BudgetRow) -> BudgetOut {
    BudgetOut {
        id: row.id,
        scope: row.scope,
        scope_id: Some(row.scope_id).filter(|id| !id.is_empty()),
        period: "monthly",
        limit: row.amount as f64 / NANOS,
        currency: row.currency.to_ascii_lowercase(),
        action: row.action,
        created_at: Time(row.created_at),
    }
}

fn action_name(action: BudgetAction) -> &'static str {
    match action {
        BudgetAction::Warn => "warn",
        BudgetAction::Block => "block",
    }
}

/// A limit in nanos.
fn amount(limit: f64) -> Result<i64, ApiError> {
    let amount = (limit * NANOS).round();
    if !limit.is_finite() || amount < 1.0 || limit > MAX_LIMIT {
        return Err(ApiError::bad_request(
            "invalid_threshold",
            format!("must be above 0 and at most {MAX_LIMIT}"),
        )
        .param("limit"));
    }
    Ok(amount as i64)
}

async fn found(gateway: &AppState, tenant: &str, id: &str) -> Result<BudgetRow, ApiError> {
    let budget = gateway.store.budget(tenant, id).await?;
    budget.ok_or_else(|| ApiError::not_found("budget", id))
}

/// Lists the budgets.
#[utoipa::path(get, path = "/v1/budgets", tag = "budgets", params(PageParams),
    responses((status = 200, body = Page<BudgetOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<BudgetOut>>, ApiError> {
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .budgets(&caller.tenant_id, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), budget_out)))
}

/// Makes a budget; a scope has at most one.
#[utoipa::path(post, path = "/v1/budgets", tag = "budgets", request_body = BudgetIn,
    responses((status = 201, body = BudgetOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<BudgetIn>,
) -> Result<(StatusCode, Json<BudgetOut>), ApiError> {
    if input.period.as_deref().is_some_and(|p| p != "monthly") {
        return Err(ApiError::bad_request("invalid_period", "must be monthly").param("period"));
    }
    let amount = amount(input.limit)?;
    let (tenant, store) = (&caller.tenant_id, &gateway.store);
    let given = input.scope_id.filter(|id| !id.is_empty());
    let (scope, exists) = match (input.scope, given.as_deref()) {
        (BudgetScope::Tenant, None) => ("tenant", true),
        (BudgetScope::Tenant, Some(id)) => ("tenant", **tenant == *id),
        (_, None) => {
            return Err(
                ApiError::bad_request("scope_id_required", "this scope needs its id")
                    .param("scope_id"),
            );
        }
        (BudgetScope::Agent, Some(id)) => ("agent", store.agent(tenant, id).await?.is_some()),
        (BudgetScope::Smith, Some(id)) => ("smith", store.smith(tenant, id).await?.is_some()),
        (BudgetScope::Customer, Some(id)) => {
            ("customer", store.customer(tenant, id).await?.is_some())
        }
        (BudgetScope::Key, Some(id)) => ("key", store.virtual_key(tenant, id).await?.is_some()),
    };
    let given = given.unwrap_or_default();
    if !exists {
        return Err(ApiError::not_found(scope, &given).param("scope_id"));
    }
    let budget = BudgetRow {
        id: ids::mint(ids::Kind::Budget),
        tenant_id: tenant.to_string(),
        scope: scope.to_owned(),
        scope_id: if scope == "tenant" {
            String::new()
        } else {
            given
        },
        amount,
        currency: gateway.config.prices.currency.clone(),
        action: action_name(input.action.unwrap_or(BudgetAction::Warn)).to_owned(),
        told_period: None,
        told_percent: 0,
        created_at: now_micros(),
    };
    if !store.insert_budget(&budget).await? {
        return Err(
            ApiError::conflict("budget_exists", "this scope has a budget already").param("scope"),
        );
    }
    gateway.changed(Notice::Budgets).await;
    Ok((StatusCode::CREATED, Json(budget_out(budget))))
}

/// Reads a budget.
#[utoipa::path(get, path = "/v1/budgets/{id}", tag = "budgets", params(("id" = String, Path)),
    responses((status = 200, body = BudgetOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<BudgetOut>, ApiError> {
    Ok(Json(budget_out(
        found(&gateway, &caller.tenant_id, &id).await?,
    )))
}

/// Changes a budget's limit or action.
#[utoipa::path(patch, path = "/v1/budgets/{id}", tag = "budgets", params(("id" = String, Path)),
    request_body = BudgetPatch, responses((status = 200, body = BudgetOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<BudgetPatch>,
) -> Result<Json<BudgetOut>, ApiError> {
    let mut budget = found(&gateway, &caller.tenant_id, &id).await?;
    if let Some(limit) = input.limit {
        budget.amount = amount(limit)?;
        // The thresholds of the new limit are yet to be passed.
        budget.told_period = None;
        budget.told_percent = 0;
    }
    if let Some(action) = input.action {
        budget.action = action_name(action).to_owned();
    }
    if !gateway.store.update_budget(&budget).await? {
        return Err(ApiError::not_found("budget", &id));
    }
    gateway.changed(Notice::Budgets).await;
    Ok(Json(budget_out(budget)))
}

/// Deletes a budget.
#[utoipa::path(delete, path = "/v1/budgets/{id}", tag = "budgets",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    if !gateway.store.delete_budget(&caller.tenant_id, &id).await? {
        return Err(ApiError::not_found("budget", &id));
    }
    gateway.changed(Notice::Budgets).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells how much of a budget this month has spent.
#[utoipa::path(get, path = "/v1/budgets/{id}/status", tag = "budgets",
    params(("id" = String, Path)), responses((status = 200, body = BudgetStatus)))]
pub async fn status(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<BudgetStatus>, ApiError> {
    let budget = found(&gateway, &caller.tenant_id, &id).await?;
    let period = this_period();
    let spent = gateway
        .store
        .spent(&caller.tenant_id, &period, &budget.scope, &budget.scope_id)
        .await?;
    let percent = percent(spent, budget.amount);
    Ok(Json(BudgetStatus {
        period_start: format!("{period}-01T00:00:00Z"),
        period_key: period,
        spent: spent as f64 / NANOS,
        remaining: (budget.amount - spent).max(0) as f64 / NANOS,
        percent,
        pct: percent,
        over: spent >= budget.amount,
        budget: budget_out(budget),
    }))
}
