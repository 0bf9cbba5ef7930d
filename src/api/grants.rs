//! `/v1/tenant/grants` and `/v1/smiths/{id}/grants`: the MCP hosts that were let in, and how they are
//! sent away.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Scope;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Anyone, permitted};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::store::{GrantsOf, ListedGrantRow, now_micros};

/// A host that was let in; never its tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct GrantOut {
    pub id: String,
    pub client_id: String,
    /// As the host calls itself.
    pub client_name: String,
    pub smith_id: String,
    pub deployment_id: String,
    pub scopes: Vec<String>,
    /// The token that let it in: the grant ends with it.
    pub token_id: String,
    pub created_at: Time,
    /// When it last took new tokens.
    pub refreshed_at: Time,
    /// When it ends, however much it is used.
    pub expires_at: Time,
    #[schema(required)]
    pub revoked_at: Option<Time>,
}

fn grant_out(row: ListedGrantRow) -> GrantOut {
    let grant = row.grant;
    GrantOut {
        id: grant.id,
        client_id: grant.client_id,
        client_name: row.client_name.unwrap_or_default(),
        smith_id: grant.smith_id,
        deployment_id: grant.deployment_id,
        scopes: serde_json::from_str(&grant.scopes).unwrap_or_default(),
        token_id: grant.cause_token_id,
        created_at: Time(grant.created_at),
        refreshed_at: Time(grant.rotated_at),
        expires_at: Time(grant.ends_at.min(grant.expires_at)),
        revoked_at: grant.revoked_at.map(Time),
    }
}

async fn listed(
    gateway: &AppState,
    tenant: &str,
    smith: Option<&str>,
    page: &PageQuery,
) -> Result<Json<Page<GrantOut>>, ApiError> {
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .connector_grants(tenant, smith, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.grant.id.clone(), grant_out)))
}

async fn ended(gateway: &AppState, tenant: &str, id: &str) -> Result<StatusCode, ApiError> {
    match gateway.auth.end_grants(tenant, GrantsOf::Grant(id)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("grant", id)),
    }
}

/// Lists the hosts that were let in.
#[utoipa::path(get, path = "/v1/tenant/grants", tag = "connectors",
    params(PageParams, ("smith_id" = Option<String>, Query)),
    responses((status = 200, body = Page<GrantOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<GrantOut>>, ApiError> {
    let smith = page.filter("smith_id");
    listed(&gateway, &caller.tenant_id, smith.as_deref(), &page).await
}

/// Sends a host away, with all its tokens.
#[utoipa::path(delete, path = "/v1/tenant/grants/{id}", tag = "connectors",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    ended(&gateway, &caller.tenant_id, &id).await
}

/// Lists the hosts that were let in to a smith.
#[utoipa::path(get, path = "/v1/smiths/{id}/grants", tag = "connectors",
    params(("id" = String, Path), PageParams), responses((status = 200, body = Page<GrantOut>)))]
pub async fn list_of_smith(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(smith): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<GrantOut>>, ApiError> {
    permitted(&gateway, &caller, &smith, Scope::ConnectionsRead).await?;
    listed(&gateway, &caller.tenant_id, Some(&smith), &page).await
}

/// Sends a host away from a smith, with all its tokens.
#[utoipa::path(delete, path = "/v1/smiths/{id}/grants/{grant}", tag = "connectors",
    params(("id" = String, Path), ("grant" = String, Path)), responses((status = 204)))]
pub async fn remove_of_smith(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((smith, grant)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    permitted(&gateway, &caller, &smith, Scope::ConnectionsWrite).await?;
    let known = gateway.store.connector_grant(&grant).await?;
    let is_its = known.is_some_and(|row| {
        row.tenant_id == *caller.tenant_id && row.smith_id == smith && row.expires_at > now_micros()
    });
    match is_its {
        true => ended(&gateway, &caller.tenant_id, &grant).await,
        false => Err(ApiError::not_found("grant", &grant)),
    }
}
