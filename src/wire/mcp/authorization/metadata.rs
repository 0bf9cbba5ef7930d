//! What hosts learn before they have a token: metadata of endpoints (RFC 9728) and of the
//! authorization server (RFC 8414).

use axum::Json;
use axum::extract::{Path, State};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::auth::Scope;
use crate::edge::AppState;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// What a connector may be let do.
pub(super) const CONNECTOR_SCOPES: [Scope; 2] = [Scope::RunsWrite, Scope::ApprovalsWrite];
/// Where the caller reaches this gateway: as configured, else as it says itself, or as a proxy says
/// that is believed. The edge has taken away what is not, and says itself when there is TLS.
pub(super) fn base_url(gateway: &Gateway, headers: &HeaderMap) -> String {
    if gateway.config.server.public_url.is_some() {
        return gateway.public_url();
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
        return gateway.public_url();
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

/// The same, as they are written.
pub(super) fn scope_names() -> [&'static str; 2] {
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

#[cfg(test)]
mod tests {
    use super::*;

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
