//! `/v1/tenant/tokens`: minting, listing, revoking (`observed.md` 1.2).

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::PageQuery;
use super::{AppState, Caller};
use crate::auth::{Mint, MintedScope, SMITH_TOKEN_MAX_SECONDS, Scope, ScopeSet, TOKEN_MAX_SECONDS};
use crate::error::ApiError;
use crate::run::rfc3339;
use crate::store::TokenRow;
use crate::wire::parse;

#[derive(Debug, Deserialize)]
struct TokenIn {
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    smith_id: Option<String>,
    #[serde(default)]
    permissions: Option<Vec<String>>,
    #[serde(default)]
    ttl_seconds: Option<i64>,
    #[serde(default)]
    name: Option<String>,
}

fn token_out(token: &TokenRow) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "sub": token.sub,
        "scopes": serde_json::from_str::<Value>(&token.scopes).unwrap_or_default(),
        "prefix": token.prefix,
        "created_at": rfc3339(token.created_at),
        "expires_at": token.expires_at.map(rfc3339),
        "revoked_at": token.revoked_at.map(rfc3339),
    })
}

/// `GET /v1/tenant/tokens`.
pub async fn list(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    page: PageQuery,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .tokens(&caller.tenant_id, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |t| t.id.clone(), token_out)))
}

/// `POST /v1/tenant/tokens`: the secret is in this answer and nowhere else.
pub async fn mint(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    caller.require_admin()?;
    // A replay would have to show the secret again, and it is kept nowhere.
    if headers.contains_key("idempotency-key") {
        return Err(ApiError::bad_request(
            "unsupported",
            "a token's secret is shown once, so minting takes no Idempotency-Key",
        )
        .param("Idempotency-Key"));
    }
    let mint = check(&gateway, &caller.tenant_id, parse(&body)?).await?;
    let minted = gateway.auth.mint(mint).await?;
    let scope = if minted.row.sub.contains(':') {
        "smith"
    } else {
        "admin"
    };
    let out = json!({
        "id": minted.row.id,
        "token": minted.token,
        "scope": scope,
        "sub": minted.row.sub,
        "scopes": minted.scopes,
        "expires_at": minted.row.expires_at.map(rfc3339),
    });
    Ok((StatusCode::CREATED, Json(out)).into_response())
}

async fn check(gateway: &AppState, tenant_id: &str, input: TokenIn) -> Result<Mint, ApiError> {
    if let Some(ttl) = input.ttl_seconds
        && !(1..=TOKEN_MAX_SECONDS).contains(&ttl)
    {
        return Err(ApiError::invalid(
            "ttl_seconds",
            format!("must be 1 to {TOKEN_MAX_SECONDS}"),
        ));
    }
    let (scope, ttl_seconds) = match input.scope.as_deref().unwrap_or("smith") {
        "admin" => {
            if input.smith_id.is_some() {
                return Err(ApiError::invalid("smith_id", "an admin token has no smith"));
            }
            if input.permissions.is_some_and(|p| !p.is_empty()) {
                return Err(ApiError::bad_request(
                    "invalid_token_scope",
                    "an admin token has every permission of its tenant",
                )
                .param("permissions"));
            }
            (MintedScope::Admin, input.ttl_seconds)
        }
        "smith" => {
            let smith_id = input
                .smith_id
                .ok_or_else(|| ApiError::invalid("smith_id", "a smith token needs its smith"))?;
            let scopes = permissions(input.permissions.unwrap_or_default())?;
            let ttl = input.ttl_seconds.unwrap_or(SMITH_TOKEN_MAX_SECONDS);
            if ttl > SMITH_TOKEN_MAX_SECONDS {
                return Err(ApiError::invalid(
                    "ttl_seconds",
                    "a smith token lives at most 24 hours",
                ));
            }
            if gateway.store.smith(tenant_id, &smith_id).await?.is_none() {
                return Err(ApiError::not_found("smith", &smith_id).param("smith_id"));
            }
            (MintedScope::Smith { smith_id, scopes }, Some(ttl))
        }
        other => {
            return Err(ApiError::bad_request(
                "invalid_token_scope",
                format!("no token scope '{other}'"),
            )
            .param("scope"));
        }
    };
    Ok(Mint {
        tenant_id: tenant_id.to_owned(),
        scope,
        ttl_seconds,
        name: input.name,
    })
}

fn permissions(names: Vec<String>) -> Result<ScopeSet, ApiError> {
    if names.is_empty() {
        return Err(ApiError::bad_request(
            "permissions_required",
            "a smith token needs its permissions named",
        )
        .param("permissions"));
    }
    names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            name.parse::<Scope>().map_err(|()| {
                ApiError::bad_request("invalid_scope", format!("no permission '{name}'"))
                    .param(format!("permissions[{at}]"))
            })
        })
        .collect()
}

/// `DELETE /v1/tenant/tokens/{id}`.
pub async fn revoke(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.require_admin()?;
    if gateway.auth.revoke(&caller.tenant_id, &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("token", &id))
    }
}
