//! `/v1/tenant/consent`: how a tenant's people consent to MCP hosts, and where they may be sent back
//! to after an authorization.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::config::{parse_origin, parse_page};
use crate::edge::AppState;
use crate::edge::extract::{Admin, Input};
use crate::error::ApiError;
use crate::store::{ConsentRow, now_micros};

const MAX_ORIGINS: usize = 50;

/// What is left out is not kept from before.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ConsentIn {
    /// The tenant's own consent page: people whom an MCP host sends are sent on there, with
    /// `request_id`. Null: they consent here.
    #[serde(default)]
    #[schema(max_length = 2048)]
    pub authorize_url: Option<String>,
    /// Where `return_url` may lead: `https://app.example.com`.
    #[serde(default)]
    #[schema(max_items = 50)]
    pub return_origins: Option<Vec<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ConsentOut {
    #[schema(required)]
    pub authorize_url: Option<String>,
    pub return_origins: Vec<String>,
}

fn consent_out(row: Option<ConsentRow>) -> ConsentOut {
    let origins = row.as_ref().map(|row| row.return_origins.as_str());
    ConsentOut {
        return_origins: serde_json::from_str(origins.unwrap_or("[]")).unwrap_or_default(),
        authorize_url: row.and_then(|row| row.authorize_url),
    }
}

/// Reads how the tenant's people consent.
#[utoipa::path(get, path = "/v1/tenant/consent", tag = "connectors",
    responses((status = 200, body = ConsentOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<ConsentOut>, ApiError> {
    let row = gateway.store.consent(&caller.tenant_id).await?;
    Ok(Json(consent_out(row)))
}

/// Says how the tenant's people consent.
#[utoipa::path(put, path = "/v1/tenant/consent", tag = "connectors", request_body = ConsentIn,
    responses((status = 200, body = ConsentOut)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<ConsentIn>,
) -> Result<Json<ConsentOut>, ApiError> {
    let authorize_url = input.authorize_url.filter(|url| !url.is_empty());
    if let Some(url) = &authorize_url {
        let page = parse_page(url);
        let page = page.and_then(|page| match page.fragment() {
            Some(_) => Err("must have no fragment".to_owned()),
            None => Ok(()),
        });
        page.map_err(|why| ApiError::bad_request("invalid_url", why).param("authorize_url"))?;
    }
    let given = input.return_origins.unwrap_or_default();
    if given.len() > MAX_ORIGINS {
        let why = format!("must be at most {MAX_ORIGINS}");
        return Err(ApiError::invalid("return_origins", why));
    }
    let mut origins = Vec::with_capacity(given.len());
    for (at, origin) in given.iter().enumerate() {
        let origin = parse_origin(origin).map_err(|why| {
            ApiError::bad_request("invalid_return_url", why).param(format!("return_origins[{at}]"))
        })?;
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    let row = ConsentRow {
        tenant_id: caller.tenant_id.to_string(),
        authorize_url,
        return_origins: json!(origins).to_string(),
        updated_at: now_micros(),
    };
    gateway.store.put_consent(&row).await?;
    Ok(Json(consent_out(Some(row))))
}
