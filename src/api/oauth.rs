//! The tenant's OAuth clients (`/v1/tenant/providers`), and the authorization of a smith's
//! connection: begun by the caller, ended by the provider's redirect to `/v1/oauth/callback`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::Scope;
use crate::connection::{Authorization, Credential, authorization, check_page};
use crate::edge::AppState;
use crate::edge::extract::{Admin, Anyone, Input, MAX_URL, MAX_WORD, check_text, permitted, sent};
use crate::edge::html::{document, no_store};
use crate::edge::page::{Filters, List};
use crate::error::ApiError;
use crate::ids;
use crate::store::{ConnectionRow, OauthProviderRow, OauthStateRow, now_micros};

const MAX_SECRET: usize = 16 * 1024;
/// How long an authorization may take, in microseconds.
const PATIENCE: i64 = 15 * 60 * 1_000_000;

#[derive(Deserialize, ToSchema)]
pub struct ProviderIn {
    #[serde(default)]
    pub client_id: Option<String>,
    /// Absent: the stored one stays; null clears it.
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub client_secret: Option<Option<String>>,
    #[serde(default)]
    pub token_uri: Option<String>,
    #[serde(default)]
    pub scopes_allowed: Option<Vec<String>>,
    /// Asked for fresh tokens when there is no client secret.
    #[serde(default)]
    pub refresh_webhook: Option<String>,
    #[serde(default)]
    pub authorize_url: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderOut {
    pub provider: String,
    pub client_id: Option<String>,
    pub token_uri: Option<String>,
    pub scopes_allowed: Vec<String>,
    pub refresh_webhook: Option<String>,
    pub authorize_url: Option<String>,
    pub has_client_secret: bool,
    /// Always true.
    pub configured: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct AuthorizeIn {
    #[schema(min_length = 1, max_length = 512)]
    pub provider: String,
    /// Where the person's browser goes afterwards.
    #[serde(default)]
    pub return_url: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AuthorizeOut {
    /// Null when this gateway cannot begin it: no client, no `authorize_url` of the provider, or
    /// no `server.public_url`.
    pub authorize_url: Option<String>,
    pub provider: String,
}

fn provider_out(row: OauthProviderRow) -> ProviderOut {
    ProviderOut {
        has_client_secret: row.sealed.is_some(),
        configured: true,
        provider: row.provider,
        client_id: row.client_id,
        token_uri: row.token_uri,
        scopes_allowed: serde_json::from_str(&row.scopes_allowed).unwrap_or_default(),
        refresh_webhook: row.refresh_webhook,
        authorize_url: row.authorize_url,
    }
}

/// Lists the tenant's OAuth clients, never their secrets.
#[utoipa::path(get, path = "/v1/tenant/providers", tag = "connections",
    responses((status = 200, body = List<ProviderOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<List<ProviderOut>>, ApiError> {
    let rows = gateway.store.oauth_providers(&caller.tenant_id).await?;
    let data = rows.into_iter().map(provider_out).collect();
    Ok(Json(List { data }))
}

/// Reads an OAuth client.
#[utoipa::path(get, path = "/v1/tenant/providers/{provider}", tag = "connections",
    params(("provider" = String, Path)), responses((status = 200, body = ProviderOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(provider): Path<String>,
) -> Result<Json<ProviderOut>, ApiError> {
    let row = gateway
        .store
        .oauth_provider(&caller.tenant_id, &provider)
        .await?;
    row.map(|row| Json(provider_out(row)))
        .ok_or_else(|| ApiError::not_found("provider", &provider))
}

/// Stores an OAuth client.
#[utoipa::path(put, path = "/v1/tenant/providers/{provider}", tag = "connections",
    params(("provider" = String, Path)), request_body = ProviderIn,
    responses((status = 200, body = ProviderOut)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(provider): Path<String>,
    Input(input): Input<ProviderIn>,
) -> Result<Json<ProviderOut>, ApiError> {
    if !crate::config::is_provider_name(&provider) {
        return Err(ApiError::bad_request(
            "unknown_provider",
            "a provider's name is [a-z0-9][a-z0-9_-]*",
        ));
    }
    for (param, url) in [
        ("token_uri", &input.token_uri),
        ("refresh_webhook", &input.refresh_webhook),
    ] {
        if let Some(url) = url {
            check_text(param, url, MAX_URL)?;
            gateway.connections.check_url(param, url).await?;
        }
    }
    if let Some(url) = &input.authorize_url {
        check_text("authorize_url", url, MAX_URL)?;
        check_page("authorize_url", "invalid_url", url)?;
    }
    let client_id = input.client_id.filter(|id| !id.is_empty());
    check_text("client_id", client_id.as_deref().unwrap_or(""), MAX_WORD)?;
    let scopes = input.scopes_allowed.unwrap_or_default();
    for scope in &scopes {
        check_text("scopes_allowed", scope, MAX_WORD)?;
    }
    let tenant = &caller.tenant_id;
    let sealed = match input.client_secret {
        None => {
            let kept = gateway.store.oauth_provider(tenant, &provider).await?;
            kept.and_then(|row| row.sealed)
        }
        Some(secret) => match secret.filter(|secret| !secret.is_empty()) {
            None => None,
            Some(secret) => {
                check_text("client_secret", &secret, MAX_SECRET)?;
                Some(
                    gateway
                        .connections
                        .seal_secret(tenant, &provider, &secret)?,
                )
            }
        },
    };
    let row = OauthProviderRow {
        tenant_id: tenant.to_string(),
        provider,
        client_id,
        token_uri: input.token_uri,
        scopes_allowed: json!(scopes).to_string(),
        refresh_webhook: input.refresh_webhook,
        authorize_url: input.authorize_url,
        sealed,
        updated_at: now_micros(),
    };
    gateway.store.put_oauth_provider(&row).await?;
    Ok(Json(provider_out(row)))
}

/// Deletes an OAuth client.
#[utoipa::path(delete, path = "/v1/tenant/providers/{provider}", tag = "connections",
    params(("provider" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(provider): Path<String>,
) -> Result<StatusCode, ApiError> {
    let gone = gateway
        .store
        .delete_oauth_provider(&caller.tenant_id, &provider);
    match gone.await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("provider", &provider)),
    }
}

fn callback_url(gateway: &AppState) -> Option<String> {
    let public = gateway.config.server.public_url.as_deref()?;
    Some(format!(
        "{}/v1/oauth/callback",
        public.trim_end_matches('/')
    ))
}

/// Begins an authorization: the person's browser is to go to `authorize_url`.
#[utoipa::path(post, path = "/v1/smiths/{id}/connections/authorize", tag = "connections",
    params(("id" = String, Path)), request_body = AuthorizeIn,
    responses((status = 200, body = AuthorizeOut)))]
pub async fn authorize(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
    Input(input): Input<AuthorizeIn>,
) -> Result<Json<AuthorizeOut>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::ConnectionsWrite).await?;
    check_text("provider", &input.provider, MAX_WORD)?;
    if let Some(url) = &input.return_url {
        super::returns::check(&gateway, &caller.tenant_id, url).await?;
    }
    let row = gateway
        .store
        .oauth_provider(&caller.tenant_id, &input.provider)
        .await?
        .ok_or_else(|| ApiError::not_found("provider", &input.provider).param("provider"))?;
    let authorize_url = match callback_url(&gateway) {
        Some(callback) => {
            let begun = Authorization {
                provider: &row,
                smith_id: &id,
                callback,
                return_url: input.return_url,
            };
            authorization(gateway.store.as_ref(), &gateway.vault, begun).await?
        }
        None => None,
    };
    Ok(Json(AuthorizeOut {
        authorize_url,
        provider: input.provider,
    }))
}

/// Ends an authorization: the provider has sent the person's browser back.
#[utoipa::path(get, path = "/v1/oauth/callback", tag = "connections", security(()),
    params(("state" = Option<String>, Query), ("code" = Option<String>, Query),
        ("error" = Option<String>, Query)),
    responses((status = 200, content_type = "text/html", body = String),
        (status = 303, description = "To the `return_url`")))]
pub async fn callback(
    State(gateway): State<AppState>,
    filters: Filters,
) -> Result<Response, ApiError> {
    let unknown = || {
        ApiError::bad_request(
            "invalid_state",
            "this authorization is unknown, was used, or took too long",
        )
        .param("state")
    };
    let state = filters.get("state").ok_or_else(unknown)?;
    let pending = gateway.store.take_oauth_state(&state).await?;
    let pending = pending
        .filter(|row| row.created_at > now_micros() - PATIENCE)
        .ok_or_else(unknown)?;
    let outcome = match (filters.get("error"), filters.get("code")) {
        (None, Some(code)) => match connect(&gateway, &pending, &code).await {
            Ok(()) => "connected",
            Err(error) if pending.return_url.is_none() => return Err(error),
            Err(_) => "failed",
        },
        _ => "denied",
    };
    if let Some(page) = &pending.return_url {
        let mut url = super::returns::check(&gateway, &pending.tenant_id, page).await?;
        url.query_pairs_mut()
            .append_pair("provider", &pending.provider)
            .append_pair("status", outcome);
        return Ok(([no_store()], Redirect::to(url.as_str())).into_response());
    }
    let told = html! {
        h1 { "Smithgate" }
        p { "The connection is " (outcome) ". You may close this page." }
    };
    Ok(document(StatusCode::OK, &told))
}

async fn connect(gateway: &AppState, pending: &OauthStateRow, code: &str) -> Result<(), ApiError> {
    let connections = &gateway.connections;
    let store = &gateway.store;
    let verifier = gateway
        .vault
        .open(&format!("oauth_state/{}", pending.id), &pending.sealed)
        .map_err(ApiError::internal)?;
    let verifier = String::from_utf8_lossy(&verifier).into_owned();
    let provider = store
        .oauth_provider(&pending.tenant_id, &pending.provider)
        .await?
        .ok_or_else(|| ApiError::not_found("provider", &pending.provider))?;
    let failed = |why: &'static str| ApiError::bad_request("connect_failed", why);
    let token_uri = provider
        .token_uri
        .clone()
        .ok_or_else(|| failed("the provider has no token_uri"))?;
    let callback = callback_url(gateway).ok_or_else(|| failed("server.public_url is not set"))?;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", callback.as_str()),
        ("code_verifier", verifier.as_str()),
    ];
    let granted = connections
        .token(&token_uri, Some(&provider), &form)
        .await?;
    let (tenant, smith) = (&pending.tenant_id, &pending.smith_id);
    let known = store
        .connections(tenant, smith, Some(&pending.provider), None, 1)
        .await?;
    let now = now_micros();
    if let Some(mut row) = known.into_iter().next() {
        let mut credential = connections.open(&row)?;
        connections.grant(&mut row, &mut credential, granted)?;
        store.update_connection(&row).await?;
        return Ok(());
    }
    let mut row = ConnectionRow {
        id: ids::mint(ids::Kind::Connection),
        tenant_id: tenant.clone(),
        smith_id: smith.clone(),
        provider: pending.provider.clone(),
        scopes: provider.scopes_allowed.clone(),
        status: "active".to_owned(),
        expires_at: None,
        metadata: "{}".to_owned(),
        sealed: Vec::new(),
        created_at: now,
        updated_at: now,
    };
    connections.grant(&mut row, &mut Credential::default(), granted)?;
    store.insert_connection(&row).await?;
    Ok(())
}
