//! The model catalogue: `GET /v1/models` (OpenAI's shape) and `GET /v1/tenant/models`.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{scope, uses};
use crate::edge::AppState;
use crate::edge::extract::{May, Uses};
use crate::error::ApiError;

/// The catalogue holds no dates; OpenAI's clients only need a number.
const CREATED: i64 = 0;

/// A model, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelOut {
    pub id: String,
    /// Always `model`.
    #[schema(example = "model")]
    pub object: &'static str,
    pub created: i64,
    pub owned_by: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    pub data: Vec<ModelOut>,
}

/// Whose key a model is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    Byok,
    Hosted,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogueModel {
    pub id: String,
    pub provider: String,
    pub label: String,
    pub available: bool,
    pub source: Option<KeySource>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogueProvider {
    pub id: String,
    pub label: String,
    /// Whether a key for it may name another base URL.
    pub base_url: bool,
    /// Whether the operator has a key for it.
    pub hosted: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Catalogue {
    pub data: Vec<CatalogueModel>,
    pub providers: Vec<CatalogueProvider>,
}

fn model_out(id: &str, owned_by: &str) -> ModelOut {
    ModelOut {
        id: id.to_owned(),
        object: "model",
        created: CREATED,
        owned_by: owned_by.to_owned(),
    }
}

/// Lists the models that the tenant has keys for; with a virtual key, those that it may use.
#[utoipa::path(get, path = "/v1/models", tag = "models",
    responses((status = 200, body = ModelList)))]
pub async fn list(
    State(gateway): State<AppState>,
    Uses(caller, _): Uses<uses::Models>,
) -> Result<Json<ModelList>, ApiError> {
    let models = gateway.usable_models(&caller).await?;
    let data = models
        .iter()
        .map(|(id, owner)| model_out(id, owner))
        .collect();
    Ok(Json(ModelList {
        object: "list",
        data,
    }))
}

/// Reads a model; the id may hold slashes.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "models", params(("id" = String, Path)),
    responses((status = 200, body = ModelOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Uses(caller, _): Uses<uses::Models>,
    Path(id): Path<String>,
) -> Result<Json<ModelOut>, ApiError> {
    let models = gateway.usable_models(&caller).await?;
    models
        .iter()
        .find(|(known, owner)| *known == id || format!("{owner}/{known}") == id)
        .map(|(_, owner)| Json(model_out(&id, owner)))
        .ok_or_else(|| ApiError::not_found("model", &id).param("model"))
}

/// Lists all models of the catalogue, and where their keys come from.
#[utoipa::path(get, path = "/v1/tenant/models", tag = "models",
    responses((status = 200, body = Catalogue)))]
pub async fn catalogue(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsRead>,
) -> Result<Json<Catalogue>, ApiError> {
    let routing = &gateway.models.routing;
    let keys = gateway.store.model_keys(&caller.tenant_id, "").await?;
    let mut out = Catalogue {
        data: Vec::new(),
        providers: Vec::new(),
    };
    for known in routing.catalogue() {
        let own = keys.iter().any(|key| key.provider == known.provider);
        let source = match (own, known.hosted) {
            (true, _) => Some(KeySource::Byok),
            (false, true) => Some(KeySource::Hosted),
            (false, false) => None,
        };
        out.providers.push(CatalogueProvider {
            id: known.provider.clone(),
            label: known.provider.clone(),
            base_url: true,
            hosted: known.hosted,
        });
        out.data
            .extend(known.models.into_iter().map(|id| CatalogueModel {
                label: id.clone(),
                id,
                provider: known.provider.clone(),
                available: source.is_some(),
                source,
            }));
    }
    Ok(Json(out))
}
