//! `/v1/tenant/tokens`: minting, listing, revoking (`observed.md` 1.2).

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{
    Mint, Minted, MintedScope, SMITH_TOKEN_MAX_SECONDS, Scope, ScopeSet, TOKEN_MAX_SECONDS,
};
use crate::edge::AppState;
use crate::edge::extract::{Admin, Input, MAX_NAME, check_text};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::store::TokenRow;

/// What a token may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    Smith,
    Admin,
}

/// A new token.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenIn {
    /// The default is `smith`.
    #[serde(default)]
    #[schema(value_type = Option<TokenKind>)]
    pub scope: Option<String>,
    #[serde(default)]
    pub smith_id: Option<String>,
    /// Required for a smith token.
    #[serde(default)]
    pub permissions: Option<Vec<String>>,
    /// A smith token lives at most 86400 seconds.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 315360000_i64)]
    pub ttl_seconds: Option<i64>,
    #[serde(default)]
    #[schema(max_length = 200)]
    pub name: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TokenOut {
    pub id: String,
    pub name: Option<String>,
    pub sub: String,
    pub scopes: Vec<String>,
    /// The handle that the secret begins with.
    pub prefix: Option<String>,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
}

/// A new token with its secret, which is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct MintedOut {
    pub id: String,
    pub token: String,
    pub scope: TokenKind,
    pub sub: String,
    pub scopes: Vec<String>,
    pub expires_at: Option<Time>,
}

fn token_out(token: TokenRow) -> TokenOut {
    TokenOut {
        id: token.id,
        name: token.name,
        sub: token.sub,
        scopes: serde_json::from_str(&token.scopes).unwrap_or_default(),
        prefix: token.prefix,
        created_at: Time(token.created_at),
        expires_at: token.expires_at.map(Time),
        revoked_at: token.revoked_at.map(Time),
    }
}

pub(super) fn minted_out(minted: Minted) -> MintedOut {
    MintedOut {
        id: minted.row.id,
        token: minted.token,
        scope: match minted.row.sub.contains(':') {
            true => TokenKind::Smith,
            false => TokenKind::Admin,
        },
        sub: minted.row.sub,
        scopes: minted.scopes,
        expires_at: minted.row.expires_at.map(Time),
    }
}

/// Lists the tenant's tokens.
#[utoipa::path(get, path = "/v1/tenant/tokens", tag = "tokens", params(PageParams),
    responses((status = 200, body = Page<TokenOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<TokenOut>>, ApiError> {
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .tokens(&caller.tenant_id, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |t| t.id.clone(), token_out)))
}

/// Mints a token: its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tenant/tokens", tag = "tokens", request_body = TokenIn,
    responses((status = 201, body = MintedOut)))]
pub async fn mint(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<TokenIn>,
) -> Result<(StatusCode, Json<MintedOut>), ApiError> {
    let mint = check(&gateway, &caller.tenant_id, input).await?;
    let minted = gateway.auth.mint(mint).await?;
    Ok((StatusCode::CREATED, Json(minted_out(minted))))
}

async fn check(gateway: &AppState, tenant_id: &str, input: TokenIn) -> Result<Mint, ApiError> {
    check_text("name", input.name.as_deref().unwrap_or_default(), MAX_NAME)?;
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

/// Revokes a token with the hosts that it let in, on every node within 5 seconds.
#[utoipa::path(delete, path = "/v1/tenant/tokens/{id}", tag = "tokens",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn revoke(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    if gateway
        .auth
        .revoke_with_grants(&caller.tenant_id, &id)
        .await?
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("token", &id))
    }
}
