//! `/v1/smiths/{id}/connections`: a smith's grants at OAuth providers. Tokens go in, never out.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::Scope;
use crate::connection::Credential;
use crate::edge::AppState;
use crate::edge::extract::check_metadata;
use crate::edge::extract::{Anyone, Input, MAX_WORD, check_text, permitted};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::{Time, parse_micros};
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::store::{ConnectionRow, now_micros};

const MAX_TOKEN: usize = 16 * 1024;
const MAX_SCOPES: usize = 200;

/// The tokens of a grant.
#[derive(Deserialize, ToSchema)]
pub struct CredentialIn {
    /// Only `oauth_tokens`.
    #[serde(default)]
    pub kind: Option<String>,
    #[serde(default)]
    pub access_token: Option<String>,
    #[serde(default)]
    pub refresh_token: Option<String>,
    #[serde(default)]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    #[serde(default)]
    pub token_uri: Option<String>,
}

#[derive(Deserialize, ToSchema)]
pub struct ConnectionIn {
    #[schema(min_length = 1, max_length = 512)]
    pub provider: String,
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    pub credential: CredentialIn,
    #[serde(default)]
    pub metadata: Option<Object>,
}

#[derive(Deserialize, ToSchema)]
pub struct ConnectionPatch {
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// Only an `active` one is used.
    #[serde(default)]
    #[schema(pattern = "^(active|expired|revoked)?$")]
    pub status: Option<String>,
    #[serde(default)]
    pub credential: Option<CredentialIn>,
    #[serde(default)]
    pub metadata: Option<Object>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionOut {
    pub id: String,
    pub provider: String,
    pub scopes: Vec<String>,
    /// `active` or `expired`.
    pub status: String,
    pub expires_at: Option<Time>,
    pub metadata: Object,
    pub created_at: Time,
}

pub(super) fn connection_out(row: ConnectionRow) -> ConnectionOut {
    let expired = row.expires_at.is_some_and(|at| at <= now_micros());
    ConnectionOut {
        id: row.id,
        provider: row.provider,
        scopes: serde_json::from_str(&row.scopes).unwrap_or_default(),
        status: match expired {
            true => "expired".to_owned(),
            false => row.status,
        },
        expires_at: row.expires_at.map(Time),
        metadata: Object::parse_or_empty(&row.metadata),
        created_at: Time(row.created_at),
    }
}

fn check_scopes(scopes: &[String]) -> Result<(), ApiError> {
    if scopes.len() > MAX_SCOPES {
        return Err(ApiError::invalid(
            "scopes",
            format!("must be at most {MAX_SCOPES}"),
        ));
    }
    scopes
        .iter()
        .try_for_each(|scope| check_text("scopes", scope, MAX_WORD))
}

/// The credential that `input` makes of `kept`, and when it expires.
async fn credential_of(
    gateway: &AppState,
    (tenant, provider): (&str, &str),
    input: CredentialIn,
    mut kept: Credential,
    expires_at: &mut Option<i64>,
) -> Result<Credential, ApiError> {
    if let Some(kind) = &input.kind
        && kind != "oauth_tokens"
    {
        return Err(ApiError::bad_request(
            "unsupported_credential",
            "only oauth_tokens can be kept",
        )
        .param("credential.kind"));
    }
    for (param, token) in [
        ("credential.access_token", &input.access_token),
        ("credential.refresh_token", &input.refresh_token),
    ] {
        if let Some(token) = token {
            check_text(param, token, MAX_TOKEN)?;
            if token.trim().is_empty() {
                return Err(ApiError::bad_request("empty_token", "the token is empty").param(param));
            }
        }
    }
    if let Some(uri) = &input.token_uri {
        let connections = &gateway.connections;
        connections.check_url("credential.token_uri", uri).await?;
        connections.check_token_uri(tenant, provider, uri).await?;
    }
    if let Some(text) = &input.expires_at {
        let at = parse_micros(text).ok_or_else(|| {
            ApiError::invalid("credential.expires_at", "must be a time (RFC 3339)")
        })?;
        *expires_at = Some(at);
    } else if input.access_token.is_some() {
        *expires_at = None;
    }
    kept.access_token = input.access_token.or(kept.access_token);
    kept.refresh_token = input.refresh_token.or(kept.refresh_token);
    kept.token_uri = input.token_uri.or(kept.token_uri);
    if kept.access_token.is_none() && kept.refresh_token.is_none() {
        return Err(
            ApiError::bad_request("empty_credentials", "the credential holds no token")
                .param("credential"),
        );
    }
    Ok(kept)
}

/// Lists a smith's connections.
#[utoipa::path(get, path = "/v1/smiths/{id}/connections", tag = "connections",
    params(("id" = String, Path), PageParams, ("provider" = Option<String>, Query)),
    responses((status = 200, body = Page<ConnectionOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<ConnectionOut>>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::ConnectionsRead).await?;
    let provider = page.filter("provider");
    let rows = gateway
        .store
        .connections(
            &caller.tenant_id,
            &id,
            provider.as_deref(),
            page.before.as_deref(),
            page.fetch(),
        )
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), connection_out)))
}

/// Makes a connection from tokens that the caller has.
#[utoipa::path(post, path = "/v1/smiths/{id}/connections", tag = "connections",
    params(("id" = String, Path)), request_body = ConnectionIn,
    responses((status = 201, body = ConnectionOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
    Input(input): Input<ConnectionIn>,
) -> Result<(StatusCode, Json<ConnectionOut>), ApiError> {
    permitted(&gateway, &caller, &id, Scope::ConnectionsWrite).await?;
    check_text("provider", &input.provider, MAX_WORD)?;
    if input.provider.trim().is_empty() {
        return Err(
            ApiError::bad_request("unknown_provider", "names no provider").param("provider"),
        );
    }
    let scopes = input.scopes.unwrap_or_default();
    check_scopes(&scopes)?;
    let metadata = input.metadata.unwrap_or_default();
    check_metadata(&metadata)?;
    let mut expires_at = None;
    let empty = Credential::default();
    let of = (&*caller.tenant_id, input.provider.as_str());
    let credential = credential_of(&gateway, of, input.credential, empty, &mut expires_at).await?;
    let connection = ids::mint(ids::Kind::Connection);
    let now = now_micros();
    let row = ConnectionRow {
        sealed: gateway
            .connections
            .seal(&caller.tenant_id, &connection, &credential)?,
        id: connection,
        tenant_id: caller.tenant_id.to_string(),
        smith_id: id,
        provider: input.provider,
        scopes: json!(scopes).to_string(),
        status: "active".to_owned(),
        expires_at,
        metadata: metadata.to_text(),
        created_at: now,
        updated_at: now,
    };
    gateway.store.insert_connection(&row).await?;
    Ok((StatusCode::CREATED, Json(connection_out(row))))
}

async fn found(
    gateway: &AppState,
    tenant: &str,
    smith: &str,
    id: &str,
) -> Result<ConnectionRow, ApiError> {
    let row = gateway.store.connection(tenant, smith, id).await?;
    row.ok_or_else(|| ApiError::not_found("connection", id))
}

/// Reads a connection.
#[utoipa::path(get, path = "/v1/smiths/{id}/connections/{connection}", tag = "connections",
    params(("id" = String, Path), ("connection" = String, Path)),
    responses((status = 200, body = ConnectionOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, connection)): Path<(String, String)>,
) -> Result<Json<ConnectionOut>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::ConnectionsRead).await?;
    let row = found(&gateway, &caller.tenant_id, &id, &connection).await?;
    Ok(Json(connection_out(row)))
}

/// Changes a connection: new tokens replace those that are sent.
#[utoipa::path(patch, path = "/v1/smiths/{id}/connections/{connection}", tag = "connections",
    params(("id" = String, Path), ("connection" = String, Path)),
    request_body = ConnectionPatch, responses((status = 200, body = ConnectionOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, connection)): Path<(String, String)>,
    Input(input): Input<ConnectionPatch>,
) -> Result<Json<ConnectionOut>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::ConnectionsWrite).await?;
    let mut row = found(&gateway, &caller.tenant_id, &id, &connection).await?;
    if let Some(scopes) = input.scopes {
        check_scopes(&scopes)?;
        row.scopes = json!(scopes).to_string();
    }
    if let Some(metadata) = input.metadata {
        check_metadata(&metadata)?;
        row.metadata = metadata.to_text();
    }
    if let Some(status) = input.status.filter(|status| !status.is_empty()) {
        if !["active", "expired", "revoked"].contains(&status.as_str()) {
            let message = "must be active, expired or revoked";
            return Err(ApiError::invalid("status", message));
        }
        row.status = status;
    }
    if let Some(credential) = input.credential {
        let kept = gateway.connections.open(&row)?;
        let of = (row.tenant_id.as_str(), row.provider.as_str());
        let credential = credential_of(&gateway, of, credential, kept, &mut row.expires_at).await?;
        row.sealed = gateway
            .connections
            .seal(&row.tenant_id, &row.id, &credential)?;
        row.status = "active".to_owned();
    }
    row.updated_at = now_micros();
    if !gateway.store.update_connection(&row).await? {
        return Err(ApiError::not_found("connection", &connection));
    }
    Ok(Json(connection_out(row)))
}

/// Deletes a connection and its tokens.
#[utoipa::path(delete, path = "/v1/smiths/{id}/connections/{connection}", tag = "connections",
    params(("id" = String, Path), ("connection" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, connection)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    permitted(&gateway, &caller, &id, Scope::ConnectionsWrite).await?;
    let gone = gateway
        .store
        .delete_connection(&caller.tenant_id, &id, &connection);
    match gone.await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("connection", &connection)),
    }
}

/// Gets fresh tokens from the provider.
#[utoipa::path(post, path = "/v1/smiths/{id}/connections/{connection}/refresh",
    tag = "connections", params(("id" = String, Path), ("connection" = String, Path)),
    responses((status = 200, body = ConnectionOut)))]
pub async fn refresh(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, connection)): Path<(String, String)>,
) -> Result<Json<ConnectionOut>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::ConnectionsWrite).await?;
    let row = found(&gateway, &caller.tenant_id, &id, &connection).await?;
    Ok(Json(connection_out(
        gateway.connections.refresh(row).await?,
    )))
}
