//! What a host asks a human for: which requests may be shown, the code that comes of them, and the
//! way back to the host.

use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode};
use maud::html;
use serde::Deserialize;
use serde_json::json;
use url::Url;
use utoipa::{IntoParams, ToSchema};

use super::clients::may_redirect;
use super::metadata::{base_url, deployment_in};
use super::server::hash;
use crate::auth::Scope;
use crate::connection::random_text;
use crate::edge::html::{document, no_store};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::ids;
use crate::store::{ConnectorClientRow, ConnectorCodeRow, now_micros};

const MAX_STATE: usize = 4096;
/// The length of a SHA-256 as text that URLs take.
const CHALLENGE: usize = 43;

/// What a host asks for.
#[derive(Debug, Clone, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// `code`.
    #[serde(default)]
    pub response_type: String,
    #[serde(default)]
    pub client_id: String,
    #[serde(default)]
    pub redirect_uri: String,
    /// The MCP endpoint (RFC 8707).
    #[serde(default)]
    pub resource: String,
    /// PKCE (RFC 7636).
    #[serde(default)]
    pub code_challenge: String,
    /// `S256`.
    #[serde(default)]
    pub code_challenge_method: String,
    #[serde(default)]
    pub state: Option<String>,
}

/// A request that may be shown to a human.
pub(super) struct Fit {
    pub asked: Asked,
    pub client: ConnectorClientRow,
    pub deployment_id: String,
    pub issuer: String,
}

/// Who is let in where, and by which token.
pub(super) struct LetIn<'a> {
    pub client_id: &'a str,
    pub tenant_id: &'a str,
    pub smith_id: &'a str,
    pub deployment_id: &'a str,
    pub redirect_uri: &'a str,
    pub challenge: &'a str,
    pub scopes: &'a [Scope],
    pub cause_token_id: &'a str,
}

/// A code that its client exchanges for tokens.
pub(super) async fn issue_code(gateway: &Gateway, who: LetIn<'_>) -> Result<String, ApiError> {
    let code = random_text()?;
    let scopes: Vec<&str> = who.scopes.iter().map(|scope| scope.as_str()).collect();
    let row = ConnectorCodeRow {
        id: hash(&code),
        client_id: who.client_id.to_owned(),
        tenant_id: who.tenant_id.to_owned(),
        smith_id: who.smith_id.to_owned(),
        deployment_id: who.deployment_id.to_owned(),
        redirect_uri: who.redirect_uri.to_owned(),
        challenge: who.challenge.to_owned(),
        scopes: json!(scopes).to_string(),
        grant_id: ids::mint(ids::Kind::ConnectorGrant),
        cause_token_id: who.cause_token_id.to_owned(),
        created_at: now_micros(),
        used_at: None,
    };
    gateway.store.insert_connector_code(&row).await?;
    Ok(code)
}

/// Checks a request: what is wrong with the client is told to the human, all else to the client
/// (RFC 6749 4.1.2.1).
pub(super) async fn fit(
    gateway: &Gateway,
    headers: &HeaderMap,
    asked: Asked,
) -> Result<Result<Fit, Response>, ApiError> {
    let client = gateway.store.connector_client(&asked.client_id).await?;
    let Some(client) = client.filter(|client| may_redirect(client, &asked.redirect_uri)) else {
        return Ok(Err(misled()));
    };
    let issuer = base_url(gateway, headers);
    let deployment_id = deployment_of(&asked.resource, &issuer).unwrap_or_default();
    let fit = Fit {
        client,
        deployment_id: deployment_id.to_owned(),
        issuer,
        asked,
    };
    let asked = &fit.asked;
    let wrong = if asked.state.as_ref().is_some_and(|s| s.len() > MAX_STATE) {
        Some(("invalid_request", "state is too long"))
    } else if asked.response_type != "code" {
        Some(("unsupported_response_type", "response_type must be 'code'"))
    } else if asked.code_challenge_method != "S256" || asked.code_challenge.len() != CHALLENGE {
        Some(("invalid_request", "PKCE with S256 is required"))
    } else if fit.deployment_id.is_empty() {
        Some((
            "invalid_target",
            "resource is no MCP endpoint of this server",
        ))
    } else {
        None
    };
    Ok(match wrong {
        None => Ok(fit),
        Some((error, why)) => {
            let fields = [("error", error), ("error_description", why)];
            Err(back(&fit, &fields))
        }
    })
}

fn deployment_of(resource: &str, issuer: &str) -> Option<String> {
    let resource = Url::parse(resource).ok()?;
    let here = Url::parse(issuer).ok()?;
    let id = deployment_in(
        resource
            .path()
            .strip_prefix(here.path().trim_end_matches('/'))?,
    )?;
    (resource.origin() == here.origin()).then(|| id.to_owned())
}

/// Where the human goes back to: the host's page, with what came of it.
pub(super) fn back_url(
    redirect_uri: &str,
    state: Option<&str>,
    issuer: &str,
    fields: &[(&str, &str)],
) -> Option<Url> {
    // It was parsed when it was registered.
    let mut url = Url::parse(redirect_uri).ok()?;
    url.query_pairs_mut()
        .extend_pairs(fields)
        .extend_pairs(state.map(|state| ("state", state)))
        .append_pair("iss", issuer);
    Some(url)
}

/// Sends the human back to the host.
pub(super) fn back(fit: &Fit, fields: &[(&str, &str)]) -> Response {
    let state = fit.asked.state.as_deref();
    match back_url(&fit.asked.redirect_uri, state, &fit.issuer, fields) {
        Some(url) => found_at(&url),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// A redirect that nobody keeps.
pub(super) fn found_at(url: &Url) -> Response {
    let mut response = ([no_store()], Redirect::to(url.as_str())).into_response();
    *response.status_mut() = StatusCode::FOUND;
    response
}

/// The refusal of a request that cannot be told to who sent it.
pub(super) fn misled() -> Response {
    let why = html! {
        h1 { "This link does not work" }
        p {
            "The program that sent you here is not registered, or wants you to be sent back to a \
             place that it did not register."
        }
    };
    document(StatusCode::BAD_REQUEST, &why)
}
