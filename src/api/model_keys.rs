//! Model keys of the tenant and of single smiths: sealed when stored, never shown again.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AppState, Caller};
use crate::auth::{Principal, Scope};
use crate::config::is_provider_name;
use crate::error::ApiError;
use crate::model::Endpoint;
use crate::run::rfc3339;
use crate::wire::parse;

const MAX_KEY: usize = 4096;

#[derive(Deserialize)]
struct ModelKeyIn {
    api_key: String,
    #[serde(default)]
    base_url: Option<String>,
}

async fn listed(gateway: &AppState, tenant: &str, smith: &str) -> Result<Json<Value>, ApiError> {
    let keys = gateway.store.model_keys(tenant, smith).await?;
    let data: Vec<Value> = keys
        .iter()
        .map(|key| {
            json!({
                "provider": key.provider,
                "base_url": key.base_url,
                "has_key": true,
                "updated_at": rfc3339(key.updated_at),
            })
        })
        .collect();
    Ok(Json(json!({ "data": data })))
}

async fn stored(
    gateway: &AppState,
    tenant: &str,
    smith: &str,
    provider: &str,
    body: &[u8],
) -> Result<Json<Value>, ApiError> {
    let input: ModelKeyIn = parse(body)?;
    if !is_provider_name(provider) {
        return Err(ApiError::bad_request(
            "unknown_provider",
            "a provider's name is [a-z0-9][a-z0-9_-]*",
        ));
    }
    let api_key = input.api_key.trim();
    if api_key.is_empty() {
        return Err(ApiError::bad_request("empty_key", "the key is empty").param("api_key"));
    }
    let printable = api_key.bytes().all(|b| (0x21..0x7f).contains(&b));
    if api_key.len() > MAX_KEY || !printable {
        return Err(ApiError::invalid(
            "api_key",
            "is no key: too long, or not printable",
        ));
    }
    let base_url = input.base_url.filter(|url| !url.is_empty());
    match &base_url {
        Some(url) => check_url(gateway, url)?,
        None if !gateway.models.routing.knows(provider) => {
            return Err(ApiError::bad_request(
                "url_required",
                format!("'{provider}' is no known provider, so it needs a base_url"),
            )
            .param("base_url"));
        }
        None => {}
    }
    let routing = &gateway.models.routing;
    routing
        .put_key(tenant, smith, provider, api_key, base_url.clone())
        .await?;
    Ok(Json(
        json!({ "provider": provider, "configured": true, "base_url": base_url }),
    ))
}

/// Names are checked when they are connected to; an address can be refused at once.
fn check_url(gateway: &AppState, url: &str) -> Result<(), ApiError> {
    let bad = |why: String| ApiError::bad_request("invalid_url", why).param("base_url");
    let endpoint = Endpoint::parse(url, false).map_err(bad)?;
    if let Some(address) = endpoint.literal_address() {
        gateway
            .models
            .upstream
            .guard()
            .check(address)
            .map_err(|e| bad(e.to_string()))?;
    }
    Ok(())
}

async fn removed(
    gateway: &AppState,
    tenant: &str,
    smith: &str,
    provider: &str,
) -> Result<StatusCode, ApiError> {
    let found = gateway
        .store
        .delete_model_key(tenant, smith, provider)
        .await?;
    gateway
        .models
        .routing
        .forget_key(tenant, smith, provider)
        .await;
    if found {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("model key", provider))
    }
}

/// The smith of the path must be the caller's own, or the tenant's.
async fn require_smith(
    gateway: &AppState,
    caller: &Principal,
    smith: &str,
    scope: Scope,
) -> Result<(), ApiError> {
    caller.require_smith(smith)?;
    caller.require(scope)?;
    match gateway.store.smith(&caller.tenant_id, smith).await? {
        Some(_) => Ok(()),
        None => Err(ApiError::not_found("smith", smith)),
    }
}

/// `GET /v1/tenant/model_keys`.
pub async fn list(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    listed(&gateway, &caller.tenant_id, "").await
}

/// `PUT /v1/tenant/model_keys/{provider}`.
pub async fn put(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(provider): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    stored(&gateway, &caller.tenant_id, "", &provider, &body).await
}

/// `DELETE /v1/tenant/model_keys/{provider}`.
pub async fn remove(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(provider): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.require_admin()?;
    removed(&gateway, &caller.tenant_id, "", &provider).await
}

/// `GET /v1/smiths/{id}/model_keys`.
pub async fn list_of_smith(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(smith): Path<String>,
) -> Result<Json<Value>, ApiError> {
    require_smith(&gateway, &caller, &smith, Scope::ModelKeysRead).await?;
    listed(&gateway, &caller.tenant_id, &smith).await
}

/// `PUT /v1/smiths/{id}/model_keys/{provider}`.
pub async fn put_of_smith(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path((smith, provider)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    require_smith(&gateway, &caller, &smith, Scope::ModelKeysWrite).await?;
    stored(&gateway, &caller.tenant_id, &smith, &provider, &body).await
}

/// `DELETE /v1/smiths/{id}/model_keys/{provider}`.
pub async fn remove_of_smith(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path((smith, provider)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    require_smith(&gateway, &caller, &smith, Scope::ModelKeysWrite).await?;
    removed(&gateway, &caller.tenant_id, &smith, &provider).await
}
