//! `/v1/organization`: projects (tenants), their tokens, and the organization's own keys.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::tokens::{MintedOut, minted_out};
use crate::auth::{Mint, MintedScope, TOKEN_MAX_SECONDS};
use crate::edge::AppState;
use crate::edge::extract::check_metadata;
use crate::edge::extract::{Input, MAX_NAME, Organization, check_text, name};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::store::{OrganizationKeyRow, ProjectRow, now_micros};

#[derive(Debug, Deserialize, ToSchema)]
pub struct ProjectIn {
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    #[serde(default)]
    pub metadata: Option<Object>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectOut {
    /// The tenant's id.
    pub id: String,
    /// The organization's id.
    pub organization: String,
    pub name: String,
    pub metadata: Object,
    pub created_at: Time,
    /// Always null: a deleted project is not shown.
    pub archived_at: Option<Time>,
}

/// A token's or key's lifetime and name.
#[derive(Debug, Deserialize, ToSchema)]
pub struct KeyIn {
    /// Absent: it does not expire.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 315360000_i64)]
    pub ttl_seconds: Option<i64>,
    #[serde(default)]
    #[schema(max_length = 200)]
    pub name: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OrganizationKeyOut {
    pub id: String,
    pub name: Option<String>,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
}

/// A new key with its secret, which is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrganizationKeyMade {
    #[serde(flatten)]
    pub key: OrganizationKeyOut,
    pub token: String,
}

fn project_out(row: ProjectRow, organization: &str) -> ProjectOut {
    ProjectOut {
        organization: organization.to_owned(),
        archived_at: None,
        id: row.id,
        name: row.name,
        metadata: Object::parse_or_empty(&row.metadata),
        created_at: Time(row.created_at),
    }
}

fn key_out(row: OrganizationKeyRow) -> OrganizationKeyOut {
    OrganizationKeyOut {
        id: row.id,
        name: row.name,
        created_at: Time(row.created_at),
        expires_at: row.expires_at.map(Time),
        revoked_at: row.revoked_at.map(Time),
    }
}

fn check_key(input: &KeyIn) -> Result<(), ApiError> {
    let name = input.name.as_deref().unwrap_or_default();
    check_text("name", name, MAX_NAME)?;
    match input.ttl_seconds {
        Some(ttl) if !(1..=TOKEN_MAX_SECONDS).contains(&ttl) => Err(ApiError::invalid(
            "ttl_seconds",
            format!("must be 1 to {TOKEN_MAX_SECONDS}"),
        )),
        _ => Ok(()),
    }
}

/// Lists the projects.
#[utoipa::path(get, path = "/v1/organization/projects", tag = "organization",
    params(PageParams, ("name" = Option<String>, Query)),
    responses((status = 200, body = Page<ProjectOut>)))]
pub async fn projects(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    page: PageQuery,
) -> Result<Json<Page<ProjectOut>>, ApiError> {
    let organization: &str = &caller.tenant_id;
    let wanted = page.filter("name");
    let rows = gateway
        .store
        .projects(
            organization,
            wanted.as_deref(),
            page.before.as_deref(),
            page.fetch(),
        )
        .await?;
    Ok(Json(page.page(
        rows,
        |row| row.id.clone(),
        |row| project_out(row, organization),
    )))
}

/// Makes a project.
#[utoipa::path(post, path = "/v1/organization/projects", tag = "organization",
    request_body = ProjectIn, responses((status = 201, body = ProjectOut)))]
pub async fn create_project(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    Input(input): Input<ProjectIn>,
) -> Result<(StatusCode, Json<ProjectOut>), ApiError> {
    let organization: &str = &caller.tenant_id;
    let metadata = input.metadata.unwrap_or_default();
    check_metadata(&metadata)?;
    let project = ProjectRow {
        id: ids::mint(ids::Kind::Project),
        name: name(&input.name)?,
        metadata: metadata.to_text(),
        created_at: now_micros(),
    };
    gateway.store.insert_project(organization, &project).await?;
    let out = project_out(project, organization);
    Ok((StatusCode::CREATED, Json(out)))
}

async fn found(gateway: &AppState, organization: &str, id: &str) -> Result<ProjectRow, ApiError> {
    let project = gateway.store.project(organization, id).await?;
    project.ok_or_else(|| ApiError::not_found("project", id))
}

/// Reads a project.
#[utoipa::path(get, path = "/v1/organization/projects/{id}", tag = "organization",
    params(("id" = String, Path)), responses((status = 200, body = ProjectOut)))]
pub async fn project(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    Path(id): Path<String>,
) -> Result<Json<ProjectOut>, ApiError> {
    let organization: &str = &caller.tenant_id;
    let project = found(&gateway, organization, &id).await?;
    Ok(Json(project_out(project, organization)))
}

/// Deletes a project and revokes all its tokens and keys.
#[utoipa::path(delete, path = "/v1/organization/projects/{id}", tag = "organization",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn remove_project(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let organization: &str = &caller.tenant_id;
    let ended = gateway
        .store
        .delete_project(organization, &id, now_micros())
        .await?
        .ok_or_else(|| ApiError::not_found("project", &id))?;
    gateway.auth.forget(ended.tokens);
    gateway.auth.virtual_keys.changed(ended.keys);
    Ok(StatusCode::NO_CONTENT)
}

/// Mints a tenant-admin token of a project.
#[utoipa::path(post, path = "/v1/organization/projects/{id}/tokens", tag = "organization",
    params(("id" = String, Path)), request_body = KeyIn,
    responses((status = 201, body = MintedOut)))]
pub async fn mint_project_token(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    Path(id): Path<String>,
    Input(input): Input<KeyIn>,
) -> Result<(StatusCode, Json<MintedOut>), ApiError> {
    let organization: &str = &caller.tenant_id;
    check_key(&input)?;
    let project = found(&gateway, organization, &id).await?;
    let minted = gateway
        .auth
        .mint(Mint {
            tenant_id: project.id,
            scope: MintedScope::Admin,
            ttl_seconds: input.ttl_seconds,
            name: input.name,
        })
        .await?;
    Ok((StatusCode::CREATED, Json(minted_out(minted))))
}

/// Revokes a token of a project.
#[utoipa::path(delete, path = "/v1/organization/projects/{id}/tokens/{token}",
    tag = "organization", params(("id" = String, Path), ("token" = String, Path)),
    responses((status = 204)))]
pub async fn revoke_project_token(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    Path((id, token)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let organization: &str = &caller.tenant_id;
    let project = found(&gateway, organization, &id).await?;
    match gateway.auth.revoke_with_grants(&project.id, &token).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("token", &token)),
    }
}

/// Lists the organization's keys.
#[utoipa::path(get, path = "/v1/organization/keys", tag = "organization", params(PageParams),
    responses((status = 200, body = Page<OrganizationKeyOut>)))]
pub async fn keys(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    page: PageQuery,
) -> Result<Json<Page<OrganizationKeyOut>>, ApiError> {
    let organization: &str = &caller.tenant_id;
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .organization_keys(organization, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), key_out)))
}

/// Mints a key of the organization.
#[utoipa::path(post, path = "/v1/organization/keys", tag = "organization", request_body = KeyIn,
    responses((status = 201, body = OrganizationKeyMade)))]
pub async fn mint_key(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    Input(input): Input<KeyIn>,
) -> Result<(StatusCode, Json<OrganizationKeyMade>), ApiError> {
    let organization: &str = &caller.tenant_id;
    check_key(&input)?;
    let (row, token) = gateway
        .auth
        .mint_organization_key(organization, input.ttl_seconds, input.name)
        .await?;
    let out = OrganizationKeyMade {
        key: key_out(row),
        token,
    };
    Ok((StatusCode::CREATED, Json(out)))
}

/// Revokes a key of the organization.
#[utoipa::path(delete, path = "/v1/organization/keys/{id}", tag = "organization",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn revoke_key(
    State(gateway): State<AppState>,
    Organization(caller): Organization,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let organization: &str = &caller.tenant_id;
    let found = gateway
        .store
        .revoke_organization_key(organization, &id, now_micros())
        .await?;
    if !found {
        return Err(ApiError::not_found("key", &id));
    }
    gateway.auth.forget(vec![id]);
    Ok(StatusCode::NO_CONTENT)
}
