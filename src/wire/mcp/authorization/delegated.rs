//! Consent on a tenant's own page (`observed.md` 1.6): the person is sent there with a request's id,
//! and the tenant's server says here whom the host may talk with, or that it may not.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use super::metadata::CONNECTOR_SCOPES;
use super::request::{Fit, LetIn, back_url, found_at, issue_code};
use crate::connection::random_text;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Input};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::store::{AuthorizeRequestRow, DeploymentRow, now_micros};
use crate::wire::mcp::deployment::answers_for;

/// How long a person may take, in microseconds.
const PATIENCE: i64 = 15 * 60 * 1_000_000;
/// Requests that this node begins in a second: anybody may, and each is a row.
const REQUESTS: NonZeroU32 = NonZeroU32::new(20).unwrap();

static BEGINNING: LazyLock<DefaultDirectRateLimiter> =
    LazyLock::new(|| RateLimiter::direct(Quota::per_second(REQUESTS)));

/// Sends the person to the page of the deployment's tenant, when it has one.
pub(super) async fn begin(gateway: &Gateway, fit: &Fit) -> Result<Option<Response>, ApiError> {
    let store = &gateway.store;
    let Some(deployment) = store.deployment_anywhere(&fit.deployment_id).await? else {
        return Ok(None);
    };
    let consent = store.consent(&deployment.tenant_id).await?;
    let page = consent.and_then(|consent| consent.authorize_url);
    let Some(mut page) = page.and_then(|page| Url::parse(&page).ok()) else {
        return Ok(None);
    };
    if BEGINNING.check().is_err() {
        return Err(ApiError::unavailable(
            "service_overloaded",
            "too many authorizations begin at once; try again soon",
            1,
        ));
    }
    let asked = &fit.asked;
    let request = AuthorizeRequestRow {
        id: format!("oar_{}", random_text()?),
        tenant_id: deployment.tenant_id,
        client_id: fit.client.id.clone(),
        deployment_id: deployment.id,
        redirect_uri: asked.redirect_uri.clone(),
        resource: asked.resource.clone(),
        challenge: asked.code_challenge.clone(),
        state: asked.state.clone(),
        issuer: fit.issuer.clone(),
        created_at: now_micros(),
    };
    store.insert_authorize_request(&request).await?;
    page.query_pairs_mut()
        .append_pair("request_id", &request.id);
    Ok(Some(found_at(&page)))
}

/// Who wants in, and where.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuthorizeRequestOut {
    pub id: String,
    /// Always `connector`.
    pub kind: &'static str,
    pub client_id: String,
    /// As the host calls itself.
    pub client_name: String,
    /// Of the deployment, its agent or its smith.
    pub target_name: String,
    pub tenant: String,
    pub resource: String,
    pub deployment_id: String,
    pub scope: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct CompleteIn {
    /// Whom the host may talk with: a smith that the deployment answers for.
    pub smith_id: String,
}

/// Where the person's browser goes next: back to the host.
#[derive(Debug, Serialize, ToSchema)]
pub struct RedirectOut {
    pub redirect_url: String,
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found("authorize request", id)
}

async fn target_name(gateway: &Gateway, deployment: &DeploymentRow) -> Result<String, ApiError> {
    if let Some(name) = &deployment.display_name {
        return Ok(name.clone());
    }
    let (tenant, id) = (&deployment.tenant_id, &deployment.target_id);
    let name = match deployment.target_type.as_str() {
        "agent" => gateway.store.agent(tenant, id).await?.map(|a| a.name),
        _ => {
            let smith = gateway.store.smith(tenant, id).await?;
            smith.and_then(|smith| smith.profile.display_name)
        }
    };
    Ok(name.unwrap_or_else(|| id.clone()))
}

/// Reads an authorization that waits for the tenant.
#[utoipa::path(get, path = "/v1/oauth/authorize-requests/{id}", tag = "connectors",
    params(("id" = String, Path)), responses((status = 200, body = AuthorizeRequestOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<AuthorizeRequestOut>, ApiError> {
    let (store, tenant) = (&gateway.store, &caller.tenant_id);
    let request = store.authorize_request(tenant, &id).await?;
    let request = request
        .filter(|request| request.created_at > now_micros() - PATIENCE)
        .ok_or_else(|| unknown(&id))?;
    let deployment = store.deployment(tenant, &request.deployment_id).await?;
    let deployment = deployment.ok_or_else(|| unknown(&id))?;
    let client = store.connector_client(&request.client_id).await?;
    Ok(Json(AuthorizeRequestOut {
        target_name: target_name(&gateway, &deployment).await?,
        client_name: client.ok_or_else(|| unknown(&id))?.name,
        id: request.id,
        kind: "connector",
        client_id: request.client_id,
        tenant: request.tenant_id,
        resource: request.resource,
        deployment_id: request.deployment_id,
        scope: CONNECTOR_SCOPES.map(|scope| scope.as_str()).join(" "),
    }))
}

async fn taken(gateway: &Gateway, tenant: &str, id: &str) -> Result<AuthorizeRequestRow, ApiError> {
    let request = gateway.store.take_authorize_request(tenant, id).await?;
    request
        .filter(|request| request.created_at > now_micros() - PATIENCE)
        .ok_or_else(|| unknown(id))
}

fn sent_back(
    request: &AuthorizeRequestRow,
    fields: &[(&str, &str)],
) -> Result<Json<RedirectOut>, ApiError> {
    let state = request.state.as_deref();
    let url = back_url(&request.redirect_uri, state, &request.issuer, fields);
    let url = url.ok_or_else(|| ApiError::internal("a registered redirect is no URL"))?;
    Ok(Json(RedirectOut {
        redirect_url: url.into(),
    }))
}

/// Lets the host in to a smith. A request is answered once.
#[utoipa::path(post, path = "/v1/oauth/authorize-requests/{id}/complete", tag = "connectors",
    params(("id" = String, Path)), request_body = CompleteIn,
    responses((status = 200, body = RedirectOut)))]
pub async fn complete(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<CompleteIn>,
) -> Result<Json<RedirectOut>, ApiError> {
    let (store, tenant) = (&gateway.store, &caller.tenant_id);
    // What is refused for its smith can be completed with another one.
    let waiting = store.authorize_request(tenant, &id).await?;
    let waiting = waiting.ok_or_else(|| unknown(&id))?;
    let smith = store.smith(tenant, &input.smith_id).await?;
    let smith =
        smith.ok_or_else(|| ApiError::not_found("smith", &input.smith_id).param("smith_id"))?;
    answers_for(&gateway, tenant, &waiting.deployment_id, &smith.id)
        .await
        .map_err(|error| error.param("smith_id"))?;
    let request = taken(&gateway, tenant, &id).await?;
    let code = issue_code(
        &gateway,
        LetIn {
            client_id: &request.client_id,
            tenant_id: tenant,
            smith_id: &smith.id,
            deployment_id: &request.deployment_id,
            redirect_uri: &request.redirect_uri,
            challenge: &request.challenge,
            scopes: &CONNECTOR_SCOPES,
            cause_token_id: &caller.token_id,
        },
    );
    let code = code.await?;
    sent_back(&request, &[("code", &code)])
}

/// Sends the host away. A request is answered once.
#[utoipa::path(post, path = "/v1/oauth/authorize-requests/{id}/decline", tag = "connectors",
    params(("id" = String, Path)), responses((status = 200, body = RedirectOut)))]
pub async fn decline(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<RedirectOut>, ApiError> {
    let request = taken(&gateway, &caller.tenant_id, &id).await?;
    sent_back(&request, &[("error", "access_denied")])
}
