//! Model keys of the tenant and of single smiths: sealed when stored, never shown again.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Scope;
use crate::bus::Notice;
use crate::config::is_provider_name;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Anyone, Input, permitted};
use crate::edge::page::List;
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::upstream::Endpoint;

const MAX_KEY: usize = 4096;

/// A key to store.
#[derive(Deserialize, ToSchema)]
pub struct ModelKeyIn {
    #[schema(min_length = 1, max_length = 4096)]
    pub api_key: String,
    /// Needed for a provider that the gateway does not know.
    #[serde(default)]
    pub base_url: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct ModelKeyOut {
    pub provider: String,
    pub base_url: Option<String>,
    pub has_key: bool,
    pub updated_at: Option<Time>,
}

#[derive(Serialize, ToSchema)]
pub struct ModelKeyStored {
    pub provider: String,
    pub configured: bool,
    pub base_url: Option<String>,
}

async fn listed(
    gateway: &AppState,
    tenant: &str,
    smith: &str,
) -> Result<Json<List<ModelKeyOut>>, ApiError> {
    let keys = gateway.store.model_keys(tenant, smith).await?;
    let data = keys
        .into_iter()
        .map(|key| ModelKeyOut {
            provider: key.provider,
            base_url: key.base_url,
            has_key: true,
            updated_at: Some(Time(key.updated_at)),
        })
        .collect();
    Ok(Json(List { data }))
}

async fn stored(
    gateway: &AppState,
    tenant: &str,
    smith: &str,
    provider: &str,
    input: ModelKeyIn,
) -> Result<Json<ModelKeyStored>, ApiError> {
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
    gateway.bus.change(Notice::ModelKeys);
    Ok(Json(ModelKeyStored {
        provider: provider.to_owned(),
        configured: true,
        base_url,
    }))
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
    gateway.bus.change(Notice::ModelKeys);
    if found {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("model key", provider))
    }
}

/// Lists the tenant's keys, never the keys themselves.
#[utoipa::path(get, path = "/v1/tenant/model_keys", tag = "model keys",
    responses((status = 200, body = List<ModelKeyOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<List<ModelKeyOut>>, ApiError> {
    listed(&gateway, &caller.tenant_id, "").await
}

/// Stores a key of the tenant.
#[utoipa::path(put, path = "/v1/tenant/model_keys/{provider}", tag = "model keys",
    params(("provider" = String, Path)), request_body = ModelKeyIn,
    responses((status = 200, body = ModelKeyStored)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(provider): Path<String>,
    Input(input): Input<ModelKeyIn>,
) -> Result<Json<ModelKeyStored>, ApiError> {
    stored(&gateway, &caller.tenant_id, "", &provider, input).await
}

/// Deletes a key of the tenant.
#[utoipa::path(delete, path = "/v1/tenant/model_keys/{provider}", tag = "model keys",
    params(("provider" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(provider): Path<String>,
) -> Result<StatusCode, ApiError> {
    removed(&gateway, &caller.tenant_id, "", &provider).await
}

/// Lists the keys of a smith, which come before the tenant's.
#[utoipa::path(get, path = "/v1/smiths/{id}/model_keys", tag = "model keys",
    params(("id" = String, Path)), responses((status = 200, body = List<ModelKeyOut>)))]
pub async fn list_of_smith(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(smith): Path<String>,
) -> Result<Json<List<ModelKeyOut>>, ApiError> {
    permitted(&gateway, &caller, &smith, Scope::ModelKeysRead).await?;
    listed(&gateway, &caller.tenant_id, &smith).await
}

/// Stores a key of a smith.
#[utoipa::path(put, path = "/v1/smiths/{id}/model_keys/{provider}", tag = "model keys",
    params(("id" = String, Path), ("provider" = String, Path)), request_body = ModelKeyIn,
    responses((status = 200, body = ModelKeyStored)))]
pub async fn put_of_smith(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((smith, provider)): Path<(String, String)>,
    Input(input): Input<ModelKeyIn>,
) -> Result<Json<ModelKeyStored>, ApiError> {
    permitted(&gateway, &caller, &smith, Scope::ModelKeysWrite).await?;
    stored(&gateway, &caller.tenant_id, &smith, &provider, input).await
}

/// Deletes a key of a smith.
#[utoipa::path(delete, path = "/v1/smiths/{id}/model_keys/{provider}", tag = "model keys",
    params(("id" = String, Path), ("provider" = String, Path)), responses((status = 204)))]
pub async fn remove_of_smith(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((smith, provider)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    permitted(&gateway, &caller, &smith, Scope::ModelKeysWrite).await?;
    removed(&gateway, &caller.tenant_id, &smith, &provider).await
}
