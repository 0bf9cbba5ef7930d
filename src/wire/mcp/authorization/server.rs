//! The authorization server by which MCP hosts connect to deployments: metadata (RFC 8414,
//! RFC 9728), registration (RFC 7591), tokens (RFC 6749 with PKCE, RFC 9700) and their revocation
//! (RFC 7009). Where a human lets a host in is in [`super::consent`].

use std::num::NonZeroU32;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::{Host, Url};
use utoipa::ToSchema;

use super::AppState;
use super::extract::{MAX_NAME, MAX_URL};
use super::mcp::answers_for;
use crate::auth::{Mint, Minted, MintedScope, Scope, ScopeSet};
use crate::connection::{challenge, random_text};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::ids;
use crate::store::{ConnectorClientRow, ConnectorGrantRow, GrantsOf, now_micros};

const MAX_REDIRECTS: usize = 20;
const SECOND: i64 = 1_000_000;
/// How long an access token lives, in seconds.
const ACCESS_SECONDS: i64 = 3600;
const DAY: i64 = 24 * 3600 * SECOND;
/// A refresh token that nobody uses for so long is void, in microseconds.
const REFRESH_IDLE: i64 = 90 * DAY;
/// A client that nobody let in within so long may be forgotten for a new one, in microseconds.
const LET_IN_WITHIN: i64 = 15 * 60 * SECOND;
/// How long a code may be exchanged, in microseconds (RFC 6749 4.1.2: at most 10 minutes).
const CODE_PATIENCE: i64 = 5 * 60 * SECOND;
/// A refresh token that was replaced is taken once more for so long, in microseconds: the answer
/// that brought the new one may have been lost.
const ROTATION_GRACE: i64 = 30 * SECOND;
/// What a connector may be let do.
pub(super) const CONNECTOR_SCOPES: [Scope; 2] = [Scope::RunsWrite, Scope::ApprovalsWrite];
/// Registrations that this node takes in a second: anybody may register, and each is a row.
const REGISTRATIONS: NonZeroU32 = NonZeroU32::new(10).unwrap();

static REGISTERING: LazyLock<DefaultDirectRateLimiter> =
    LazyLock::new(|| RateLimiter::direct(Quota::per_second(REGISTRATIONS)));

/// A refusal in OAuth's shape (RFC 6749 5.2).
#[derive(Debug)]
pub struct OauthError {
    pub status: StatusCode,
    pub error: &'static str,
    pub description: String,
}

/// A refusal as it is written.
#[derive(Serialize, ToSchema)]
pub struct OauthRefusal {
    pub error: &'static str,
    pub error_description: String,
}

impl OauthError {
    pub(super) fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description: description.into(),
        }
    }
}

impl From<ApiError> for OauthError {
    fn from(error: ApiError) -> Self {
        Self {
            status: error.status,
            error: "server_error",
            description: error.message.to_string(),
        }
    }
}

impl From<crate::store::StoreError> for OauthError {
    fn from(error: crate::store::StoreError) -> Self {
        ApiError::from(error).into()
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let body = OauthRefusal {
            error: self.error,
            error_description: self.description,
        };
        (self.status, [no_store()], Json(body)).into_response()
    }
}

pub(super) fn no_store() -> (header::HeaderName, &'static str) {
    (header::CACHE_CONTROL, "no-store")
}

/// Where the caller reaches this gateway: as configured, else as it says itself, or as a proxy says
/// that is believed. The edge has taken away what is not, and says itself when there is TLS.
pub(super) fn base_url(gateway: &Gateway, headers: &HeaderMap) -> String {
    if gateway.config.server.public_url.is_some() {
        return super::deployments::public_url(gateway);
    }
    let text = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        // A chain of proxies lists what each of them saw, the client's first.
        Some(value.split(',').next().unwrap_or_default().trim())
    };
    let named = text("x-forwarded-host").or_else(|| text("host"));
    let is_name = |host: &&str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b);
        (1..=255).contains(&host.len()) && host.bytes().all(allowed)
    };
    let Some(host) = named.filter(is_name) else {
        return super::deployments::public_url(gateway);
    };
    match text("x-forwarded-proto") {
        Some("https") => format!("https://{host}"),
        _ => format!("http://{host}"),
    }
}

/// Where the metadata of an endpoint that wants a token is; `None` for endpoints that no connector
/// uses.
pub fn metadata_url(gateway: &Gateway, path: &str, headers: &HeaderMap) -> Option<String> {
    deployment_in(path)?;
    let base = base_url(gateway, headers);
    Some(format!("{base}/.well-known/oauth-protected-resource{path}"))
}

/// The deployment of an MCP endpoint's path.
pub(super) fn deployment_in(path: &str) -> Option<&str> {
    let id = path
        .strip_prefix("/v1/deployments/")?
        .strip_suffix("/mcp")?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(is_plain)).then_some(id)
}

fn scope_names() -> [&'static str; 2] {
    CONNECTOR_SCOPES.map(Scope::as_str)
}

/// Says which authorization server guards an MCP endpoint (RFC 9728).
#[utoipa::path(get, path = "/.well-known/oauth-protected-resource/v1/deployments/{id}/mcp",
    tag = "connectors", security(()), params(("id" = String, Path)),
    responses((status = 200, body = Object)))]
pub async fn resource(
    State(gateway): State<AppState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let path = format!("/v1/deployments/{id}/mcp");
    deployment_in(&path).ok_or_else(|| ApiError::not_found("deployment", &id))?;
    let base = base_url(&gateway, &headers);
    Ok(Json(json!({
        "resource": format!("{base}{path}"),
        "authorization_servers": [base],
        "scopes_supported": scope_names(),
        "bearer_methods_supported": ["header"],
        "resource_name": "Smithgate",
    })))
}

/// Describes the authorization server (RFC 8414).
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server", tag = "connectors",
    security(()), responses((status = 200, body = Object)))]
pub async fn server(State(gateway): State<AppState>, headers: HeaderMap) -> Json<Value> {
    let base = base_url(&gateway, &headers);
    Json(json!({
        "issuer": base,
        "authorization_endpoint": format!("{base}/oauth/authorize"),
        "token_endpoint": format!("{base}/oauth/token"),
        "registration_endpoint": format!("{base}/oauth/register"),
        "revocation_endpoint": format!("{base}/oauth/revoke"),
        "jwks_uri": format!("{base}/.well-known/jwks.json"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "scopes_supported": scope_names(),
        "authorization_response_iss_parameter_supported": true,
    }))
}

/// An MCP host that registers itself. Members of RFC 7591 that change nothing are ignored.
#[derive(Deserialize, ToSchema)]
pub struct RegisterIn {
    /// Where it is sent back to: https, or http on this machine.
    pub redirect_uris: Vec<String>,
    #[serde(default)]
    #[schema(max_length = 200)]
    pub client_name: Option<String>,
}

/// A registered MCP host; it has no secret.
#[derive(Serialize, ToSchema)]
pub struct RegisterOut {
    pub client_id: String,
    /// In seconds since 1970.
    pub client_id_issued_at: i64,
    pub client_name: String,
    pub redirect_uris: Vec<String>,
    pub grant_types: [&'static str; 2],
    pub response_types: [&'static str; 1],
    pub token_endpoint_auth_method: &'static str,
    pub scope: String,
}

/// Registers an MCP host (RFC 7591).
#[utoipa::path(post, path = "/oauth/register", tag = "connectors", security(()),
    request_body = RegisterIn, responses((status = 201, body = RegisterOut), (status = "default", body = OauthRefusal)))]
pub async fn register(
    State(gateway): State<AppState>,
    body: Bytes,
) -> Result<Response, OauthError> {
    if REGISTERING.check().is_err() {
        return Err(OauthError {
            status: StatusCode::TOO_MANY_REQUESTS,
            ..OauthError::new("temporarily_unavailable", "too many register at once")
        });
    }
    let bad = |why: String| OauthError::new("invalid_client_metadata", why);
    let input: RegisterIn = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
    let name = input.client_name.unwrap_or_default();
    let name = if name.trim().is_empty() {
        "An MCP host".to_owned()
    } else {
        name.trim().to_owned()
    };
    if name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let why = format!("client_name must be at most {MAX_NAME} printable bytes");
        return Err(bad(why));
    }
    if !(1..=MAX_REDIRECTS).contains(&input.redirect_uris.len()) {
        let why = format!("1 to {MAX_REDIRECTS} redirect_uris are needed");
        return Err(OauthError::new("invalid_redirect_uri", why));
    }
    for uri in &input.redirect_uris {
        check_redirect(uri).map_err(|why| OauthError::new("invalid_redirect_uri", why))?;
    }
    let now = now_micros();
    let row = ConnectorClientRow {
        id: ids::mint(ids::Kind::ConnectorClient),
        name: name.clone(),
        redirect_uris: json!(input.redirect_uris).to_string(),
        created_at: now,
        used_at: None,
    };
    let most = i64::from(gateway.config.auth.max_unused_clients);
    let kept = gateway
        .store
        .insert_connector_client(&row, most, now - LET_IN_WITHIN);
    if !kept.await? {
        return Err(OauthError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..OauthError::new("temporarily_unavailable", "too many have registered")
        });
    }
    let out = RegisterOut {
        client_id: row.id,
        client_id_issued_at: now / SECOND,
        client_name: name,
        redirect_uris: input.redirect_uris,
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: "none",
        scope: scope_names().join(" "),
    };
    Ok((StatusCode::CREATED, [no_store()], Json(out)).into_response())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn check_redirect(uri: &str) -> Result<(), String> {
    let url = Url::parse(uri).map_err(|e| format!("'{uri}' is no URL: {e}"))?;
    let secure = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    match (uri.len() <= MAX_URL, secure, url.fragment()) {
        (false, ..) => Err(format!("a redirect URI has at most {MAX_URL} bytes")),
        (_, false, _) => Err(format!("'{uri}' must be https, or http on this machine")),
        (.., Some(_)) => Err(format!("'{uri}' must have no fragment")),
        _ => Ok(()),
    }
}

/// Whether a client may be sent to `asked`: as registered, on this machine on any port (RFC 8252
/// 7.3).
pub(super) fn may_redirect(client: &ConnectorClientRow, asked: &str) -> bool {
    let known: Vec<String> = serde_json::from_str(&client.redirect_uris).unwrap_or_default();
    if known.iter().any(|uri| uri == asked) {
        return true;
    }
    let portless = |uri: &str| {
        let mut url = Url::parse(uri).ok()?;
        if url.scheme() != "http" || !is_loopback(&url) {
            return None;
        }
        url.set_port(None).ok()?;
        Some(url)
    };
    let asked = portless(asked);
    asked.is_some() && known.iter().any(|uri| portless(uri) == asked)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn client(uris: &[&str]) -> ConnectorClientRow {
        ConnectorClientRow {
            id: "occ_1".to_owned(),
            name: "host".to_owned(),
            redirect_uris: json!(uris).to_string(),
            created_at: 0,
            used_at: None,
        }
    }

    #[test]
    fn redirects_are_as_registered_and_on_this_machine_on_any_port() {
        let host = client(&["https://host.test/cb", "http://127.0.0.1:1/cb"]);
        assert!(may_redirect(&host, "https://host.test/cb"));
        assert!(may_redirect(&host, "http://127.0.0.1:4711/cb"));
        for bad in [
            "https://host.test/cb2",
            "https://host.test:444/cb",
            "http://127.0.0.1:1/other",
            "http://localhost:1/cb",
            "http://127.0.0.1.evil.test/cb",
            "",
        ] {
            assert!(!may_redirect(&host, bad), "{bad}");
        }
    }

    #[test]
    fn only_safe_redirects_are_registered() {
        for good in [
            "https://a.test/cb?x=1",
            "http://localhost:3/cb",
            "http://[::1]/",
        ] {
            assert!(check_redirect(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.test/cb",
            "javascript:alert(1)",
            "https://a.test/#x",
            "x",
            "http://localhost.evil.test/",
        ] {
            assert!(check_redirect(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_are_told_by_their_path() {
        assert_eq!(deployment_in("/v1/deployments/dep_1/mcp"), Some("dep_1"));
        for other in [
            "/v1/deployments//mcp",
            "/v1/deployments/a/b/mcp",
            "/v1/deployments/\"/mcp",
        ] {
            assert_eq!(deployment_in(other), None, "{other}");
        }
    }
}
