//! The models that there are, in Google's shape.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::errors::GeminiErrorOut;
use crate::auth::uses;
use crate::edge::AppState;
use crate::edge::extract::Uses;
use crate::error::ApiError;

/// The most models of one page, and how many there are when nobody says.
const MOST: usize = 1_000;

/// What each of them can be asked for.
const METHODS: [&str; 3] = ["generateContent", "streamGenerateContent", "countTokens"];

/// A model, in Google's shape.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeminiModel {
    /// `models/<provider>/<model>`, or `models/<alias>`.
    pub name: String,
    pub version: String,
    pub display_name: String,
    pub description: String,
    pub supported_generation_methods: [&'static str; 3],
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeminiModels {
    pub models: Vec<GeminiModel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

fn shown(id: &str, owner: &str) -> GeminiModel {
    GeminiModel {
        name: format!("models/{id}"),
        version: "1".to_owned(),
        display_name: id.to_owned(),
        description: format!("Of {owner}"),
        supported_generation_methods: METHODS,
    }
}

/// Lists the models that the tenant has keys for, as Google does.
#[utoipa::path(get, path = "/v1beta/models", tag = "models",
    params(("pageSize" = Option<u32>, Query), ("pageToken" = Option<String>, Query)),
    responses((status = 200, body = GeminiModels),
        (status = "default", description = "An error, in Google's envelope",
            body = GeminiErrorOut)))]
pub async fn list_gemini_models(
    State(gateway): State<AppState>,
    Uses(caller, _): Uses<uses::Models>,
    RawQuery(query): RawQuery,
) -> Result<Json<GeminiModels>, ApiError> {
    let query = query.unwrap_or_default();
    let number = |name: &str| {
        let mut given = url::form_urlencoded::parse(query.as_bytes());
        let (_, value) = given.find(|(given, value)| given == name && !value.is_empty())?;
        let bad = || ApiError::invalid(name.to_owned(), "must be a number, or as it was given");
        // Google's are of 32 bits.
        let number = value.parse::<i32>().ok();
        Some(
            number
                .and_then(|number| usize::try_from(number).ok())
                .ok_or_else(bad),
        )
    };
    let size = number("pageSize").transpose()?.unwrap_or(MOST);
    let size = if size == 0 { MOST } else { size.min(MOST) };
    let from = number("pageToken").transpose()?.unwrap_or(0);
    let models = gateway.usable_models(&caller).await?;
    let until = from.saturating_add(size);
    let page = models.iter().skip(from).take(size);
    Ok(Json(GeminiModels {
        models: page.map(|(id, owner)| shown(id, owner)).collect(),
        next_page_token: (until < models.len()).then(|| until.to_string()),
    }))
}

/// Reads a model; the id may hold slashes.
#[utoipa::path(get, path = "/v1beta/models/{id}", tag = "models", params(("id" = String, Path)),
    responses((status = 200, body = GeminiModel),
        (status = "default", description = "An error, in Google's envelope",
            body = GeminiErrorOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Uses(caller, _): Uses<uses::Models>,
    Path(id): Path<String>,
) -> Result<Json<GeminiModel>, ApiError> {
    let models = gateway.usable_models(&caller).await?;
    let mut models = models.iter();
    let found = models.find(|(known, owner)| *known == id || format!("{owner}/{known}") == id);
    found
        .map(|(_, owner)| Json(shown(&id, owner)))
        .ok_or_else(|| ApiError::not_found("model", &id).param("model"))
}
