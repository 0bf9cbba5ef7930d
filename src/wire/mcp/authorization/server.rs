//! The authorization server's tokens (RFC 6749 with PKCE, RFC 9700) and their revocation (RFC 7009).

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use super::metadata::deployment_in;
use super::refusal::{OauthError, OauthRefusal};
use crate::auth::{Mint, Minted, MintedScope, ScopeSet};
use crate::connection::{challenge, random_text};
use crate::edge::AppState;
use crate::edge::html::no_store;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::store::{ConnectorGrantRow, GrantsOf, now_micros};
use crate::wire::mcp::deployment::answers_for;

const SECOND: i64 = 1_000_000;
/// How long an access token lives, in seconds.
const ACCESS_SECONDS: i64 = 3600;
const DAY: i64 = 24 * 3600 * SECOND;
/// A refresh token that nobody uses for so long is void, in microseconds.
const REFRESH_IDLE: i64 = 90 * DAY;
/// How long a code may be exchanged, in microseconds (RFC 6749 4.1.2: at most 10 minutes).
const CODE_PATIENCE: i64 = 5 * 60 * SECOND;
/// A refresh token that was replaced is taken once more for so long, in microseconds: the answer
/// that brought the new one may have been lost.
const ROTATION_GRACE: i64 = 30 * SECOND;
/// The SHA-256 of a secret, as it is stored.
pub(super) fn hash(secret: &str) -> String {
    challenge(secret)
}

/// The form of `POST /oauth/token`.
#[derive(Deserialize, ToSchema)]
pub struct TokenForm {
    /// `authorization_code` or `refresh_token`.
    #[serde(default)]
    pub grant_type: String,
    #[serde(default)]
    pub client_id: String,
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub redirect_uri: Option<String>,
    #[serde(default)]
    pub code_verifier: String,
    #[serde(default)]
    pub refresh_token: String,
    /// The MCP endpoint (RFC 8707).
    #[serde(default)]
    pub resource: Option<String>,
}

/// A smith token and what replaces it.
#[derive(Serialize, ToSchema)]
pub struct TokensOut {
    pub access_token: String,
    pub token_type: &'static str,
    /// In seconds.
    pub expires_in: i64,
    /// Serves once.
    pub refresh_token: String,
    pub scope: String,
}

/// Exchanges a code or a refresh token for tokens.
#[utoipa::path(post, path = "/oauth/token", tag = "connectors", security(()),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = TokensOut), (status = "default", body = OauthRefusal)))]
pub async fn token(
    State(gateway): State<AppState>,
    form: Result<Form<TokenForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, OauthError> {
    let Form(form) = form.map_err(|e| OauthError::new("invalid_request", e.body_text()))?;
    let client = gateway.store.connector_client(&form.client_id).await?;
    if client.is_none() {
        return Err(OauthError {
            status: StatusCode::UNAUTHORIZED,
            ..OauthError::new("invalid_client", "there is no such client")
        });
    }
    let tokens = match form.grant_type.as_str() {
        "authorization_code" => exchange(&gateway, &form).await?,
        "refresh_token" => refresh(&gateway, &form).await?,
        _ => {
            let why = "grant_type must be 'authorization_code' or 'refresh_token'";
            return Err(OauthError::new("unsupported_grant_type", why));
        }
    };
    Ok(([no_store()], Json(tokens)).into_response())
}

fn invalid_grant(why: &str) -> OauthError {
    OauthError::new("invalid_grant", why)
}

/// A client that names the endpoint again must name the one that it was let in to.
fn check_resource(form: &TokenForm, deployment_id: &str) -> Result<(), OauthError> {
    let Some(resource) = &form.resource else {
        return Ok(());
    };
    let url = Url::parse(resource).ok();
    match url.as_ref().and_then(|url| deployment_in(url.path())) == Some(deployment_id) {
        true => Ok(()),
        false => Err(OauthError::new("invalid_target", "it was let in elsewhere")),
    }
}

async fn exchange(gateway: &Gateway, form: &TokenForm) -> Result<TokensOut, OauthError> {
    let store = &gateway.store;
    let now = now_micros();
    let code = store.use_connector_code(&hash(&form.code), now).await?;
    let code = code.filter(|code| code.client_id == form.client_id);
    let code = code.ok_or_else(|| invalid_grant("there is no such code"))?;
    if code.used_at.is_some() {
        // Somebody has it who should not (RFC 6749 4.1.2).
        end(gateway, &code.tenant_id, &code.grant_id).await?;
        return Err(invalid_grant("the code was used before"));
    }
    if code.created_at < now - CODE_PATIENCE {
        return Err(invalid_grant("the code has expired"));
    }
    if form.redirect_uri.as_deref() != Some(&code.redirect_uri) {
        return Err(invalid_grant("redirect_uri is not the one of the code"));
    }
    if form.code_verifier.len() < 43 || challenge(&form.code_verifier) != code.challenge {
        return Err(invalid_grant("code_verifier does not fit the challenge"));
    }
    check_resource(form, &code.deployment_id)?;
    let (secret, mut grant) = (
        random_text()?,
        ConnectorGrantRow {
            id: code.grant_id,
            client_id: code.client_id,
            tenant_id: code.tenant_id,
            smith_id: code.smith_id,
            deployment_id: code.deployment_id,
            scopes: code.scopes,
            refresh_hash: String::new(),
            previous_hash: None,
            rotated_at: now,
            token_id: String::new(),
            created_at: now,
            expires_at: now + REFRESH_IDLE.min(lifetime(gateway)),
            revoked_at: None,
            cause_token_id: code.cause_token_id,
            ends_at: now + lifetime(gateway),
        },
    );
    grant.refresh_hash = hash(&secret);
    let minted = access_token(gateway, &grant).await?;
    grant.token_id.clone_from(&minted.row.id);
    store.insert_connector_grant(&grant).await?;
    // What ended its reason meanwhile did not find the grant.
    if let Err(error) = check_reason(gateway, &grant).await {
        end(gateway, &grant.tenant_id, &grant.id).await?;
        return Err(error);
    }
    Ok(tokens_out(&grant, minted, &secret))
}

async fn refresh(gateway: &Gateway, form: &TokenForm) -> Result<TokensOut, OauthError> {
    let unknown = || invalid_grant("this refresh token is not valid");
    let (id, secret) = form.refresh_token.split_once('.').ok_or_else(unknown)?;
    let grant = gateway.store.connector_grant(id).await?;
    let mut grant = grant
        .filter(|grant| grant.client_id == form.client_id && grant.revoked_at.is_none())
        .ok_or_else(unknown)?;
    let now = now_micros();
    let shown = hash(secret);
    let is_recent = grant.rotated_at > now - ROTATION_GRACE;
    let is_previous = grant.previous_hash.as_deref() == Some(&*shown);
    if shown != grant.refresh_hash && !(is_previous && is_recent) {
        // A token that was replaced: somebody else has it, too (RFC 9700 4.14.2). Who knows the
        // grant's id, which is as random, has seen one of its tokens.
        end(gateway, &grant.tenant_id, &grant.id).await?;
        return Err(unknown());
    }
    if grant.expires_at < now || grant.ends_at < now {
        return Err(unknown());
    }
    check_resource(form, &grant.deployment_id)?;
    let fresh = random_text()?;
    let held = std::mem::replace(&mut grant.refresh_hash, hash(&fresh));
    // Who shows the previous one again never got what came after it.
    if shown == held {
        grant.previous_hash = Some(held.clone());
        grant.rotated_at = now;
    }
    grant.expires_at = (now + REFRESH_IDLE).min(grant.ends_at);
    let minted = access_token(gateway, &grant).await?;
    grant.token_id.clone_from(&minted.row.id);
    let rotated = gateway.store.rotate_connector_grant(&grant, &held).await?;
    if !rotated {
        gateway
            .auth
            .revoke(&grant.tenant_id, &minted.row.id)
            .await?;
        return Err(unknown());
    }
    Ok(tokens_out(&grant, minted, &fresh))
}

/// How long a grant may last, in microseconds.
fn lifetime(gateway: &Gateway) -> i64 {
    i64::from(gateway.config.auth.grant_days) * DAY
}

/// Refuses a grant whose smith, deployment or token that let the host in is gone. Each of them ends
/// its grants itself; this is for what happens at the same time.
async fn check_reason(gateway: &Gateway, grant: &ConnectorGrantRow) -> Result<(), OauthError> {
    let (tenant, store) = (&grant.tenant_id, &gateway.store);
    let gone = || invalid_grant("what it was let in to is gone");
    let smith = store.smith(tenant, &grant.smith_id).await?;
    smith.ok_or_else(gone)?;
    match answers_for(gateway, tenant, &grant.deployment_id, &grant.smith_id).await {
        Ok(()) => {}
        Err(error) if error.status.is_server_error() => return Err(error.into()),
        Err(_) => return Err(gone()),
    }
    // Grants from before this was kept name no token.
    if grant.cause_token_id.is_empty() {
        return Ok(());
    }
    let cause = store.token(tenant, &grant.cause_token_id).await?;
    match cause.is_some_and(|token| token.revoked_at.is_none()) {
        true => Ok(()),
        false => Err(invalid_grant("the token that let it in was revoked")),
    }
}

/// A smith token of a grant, if who it is for and where still exist.
async fn access_token(gateway: &Gateway, grant: &ConnectorGrantRow) -> Result<Minted, OauthError> {
    check_reason(gateway, grant).await?;
    let left = (grant.ends_at - now_micros()) / SECOND;
    let names: Vec<String> = serde_json::from_str(&grant.scopes).map_err(ApiError::internal)?;
    let scopes: ScopeSet = names.iter().filter_map(|name| name.parse().ok()).collect();
    let mint = Mint {
        tenant_id: grant.tenant_id.clone(),
        scope: MintedScope::Smith {
            smith_id: grant.smith_id.clone(),
            scopes,
        },
        ttl_seconds: Some(ACCESS_SECONDS.min(left.max(1))),
        name: Some(format!("connector {}", grant.client_id)),
    };
    let grant_id = Some(grant.id.clone());
    Ok(gateway.auth.mint_for(mint, grant_id).await?)
}

fn tokens_out(grant: &ConnectorGrantRow, minted: Minted, secret: &str) -> TokensOut {
    TokensOut {
        scope: minted.scopes.join(" "),
        access_token: minted.token,
        token_type: "Bearer",
        expires_in: ACCESS_SECONDS.min((grant.ends_at - now_micros()) / SECOND),
        refresh_token: format!("{}.{secret}", grant.id),
    }
}

async fn end(gateway: &Gateway, tenant: &str, id: &str) -> Result<(), OauthError> {
    let which = GrantsOf::Grant(id);
    gateway.auth.end_grants(tenant, which).await?;
    Ok(())
}

/// The form of `POST /oauth/revoke`.
#[derive(Deserialize, ToSchema)]
pub struct RevokeForm {
    #[serde(default)]
    pub token: String,
}

/// Revokes a refresh token with its access token, or an access token (RFC 7009).
#[utoipa::path(post, path = "/oauth/revoke", tag = "connectors", security(()),
    request_body(content = RevokeForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200), (status = "default", body = OauthRefusal)))]
pub async fn revoke(
    State(gateway): State<AppState>,
    form: Result<Form<RevokeForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, OauthError> {
    let Form(form) = form.map_err(|e| OauthError::new("invalid_request", e.body_text()))?;
    if let Some((id, secret)) = form.token.split_once('.')
        && let Some(grant) = gateway.store.connector_grant(id).await?
        && [Some(&grant.refresh_hash), grant.previous_hash.as_ref()].contains(&Some(&hash(secret)))
    {
        end(&gateway, &grant.tenant_id, id).await?;
    } else if let Ok(principal) = gateway.auth.verify(form.token.as_bytes())
        && principal.smith_id().is_some()
    {
        let token_id = &principal.token_id;
        gateway.auth.revoke(&principal.tenant_id, token_id).await?;
    }
    Ok([no_store()].into_response())
}
