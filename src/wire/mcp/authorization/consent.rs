//! `/oauth/authorize`: where a human lets an MCP host in to a smith. The human proves who they are
//! with a token of that smith.

use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode};
use maud::html;
use serde::Deserialize;
use serde_json::json;
use url::Url;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::connector::{CONNECTOR_SCOPES, base_url, deployment_in, hash, may_redirect, no_store};
use super::delegated;
use super::html::document;
use super::mcp::answers_for;
use crate::auth::{Principal, Scope};
use crate::connection::random_text;
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

/// The form of the consent page.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Consent {
    #[serde(flatten)]
    pub asked: Asked,
    /// A token of the smith that the host may talk with.
    #[serde(default)]
    pub connect_token: String,
    /// `deny` sends the host away.
    #[serde(default)]
    pub decision: Option<String>,
}

/// A request that may be shown to a human.
pub(super) struct Fit {
    pub asked: Asked,
    pub client: ConnectorClientRow,
    pub deployment_id: String,
    pub issuer: String,
}

/// Shows a human who wants in.
#[utoipa::path(get, path = "/oauth/authorize", tag = "connectors", security(()), params(Asked),
    responses((status = 200, body = String, content_type = "text/html"),
        (status = "default", body = String, content_type = "text/html")))]
pub async fn page(
    State(gateway): State<AppState>,
    headers: HeaderMap,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Ok(Query(asked)) = query else {
        return Ok(misled());
    };
    let fit = match fit(&gateway, &headers, asked).await? {
        Ok(fit) => fit,
        Err(refusal) => return Ok(refusal),
    };
    // A tenant that asks its people itself does so.
    Ok(match delegated::begin(&gateway, &fit).await? {
        Some(sent_there) => sent_there,
        None => consent_page(StatusCode::OK, &fit, None),
    })
}

/// Lets a host in, or sends it away.
#[utoipa::path(post, path = "/oauth/authorize", tag = "connectors", security(()),
    request_body(content = Consent, content_type = "application/x-www-form-urlencoded"),
    responses((status = 302),
        (status = "default", body = String, content_type = "text/html")))]
pub async fn decide(
    State(gateway): State<AppState>,
    headers: HeaderMap,
    form: Result<Form<Consent>, FormRejection>,
) -> Result<Response, ApiError> {
    let Ok(Form(consent)) = form else {
        return Ok(misled());
    };
    let fit = match fit(&gateway, &headers, consent.asked).await? {
        Ok(fit) => fit,
        Err(refusal) => return Ok(refusal),
    };
    if let Some(sent_there) = delegated::begin(&gateway, &fit).await? {
        return Ok(sent_there);
    }
    if consent.decision.as_deref() == Some("deny") {
        return Ok(back(&fit, &[("error", "access_denied")]));
    }
    let token = consent.connect_token.trim();
    let who = match connecting(&gateway, &fit, token).await {
        Ok(who) => who,
        Err(error) if error.status.is_server_error() => return Err(error),
        Err(error) => {
            let page = consent_page(StatusCode::UNAUTHORIZED, &fit, Some(&error.message));
            return Ok(page);
        }
    };
    let scopes: Vec<Scope> = CONNECTOR_SCOPES
        .into_iter()
        .filter(|scope| who.principal.require(*scope).is_ok())
        .collect();
    let code = issue_code(
        &gateway,
        LetIn {
            client_id: &fit.client.id,
            tenant_id: &who.principal.tenant_id,
            smith_id: &who.smith_id,
            deployment_id: &fit.deployment_id,
            redirect_uri: &fit.asked.redirect_uri,
            challenge: &fit.asked.code_challenge,
            scopes: &scopes,
            cause_token_id: &who.principal.token_id,
        },
    );
    let code = code.await?;
    Ok(back(&fit, &[("code", &code)]))
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

struct Connecting {
    principal: std::sync::Arc<Principal>,
    smith_id: String,
}

/// Who lets the host in.
async fn connecting(gateway: &Gateway, fit: &Fit, token: &str) -> Result<Connecting, ApiError> {
    let principal = gateway.auth.verify(token.as_bytes())?;
    let smith_id = principal.smith_id().map(ToString::to_string);
    let smith_id = smith_id.ok_or_else(|| ApiError::unauthenticated("this is no smith's token"))?;
    principal.require(Scope::RunsWrite)?;
    let token = gateway
        .store
        .token(&principal.tenant_id, &principal.token_id)
        .await?;
    // Else a host would let others in, and itself again after its grant has ended.
    if token.is_some_and(|token| token.grant_id.is_some()) {
        return Err(ApiError::forbidden(
            "insufficient_scope",
            "this token is a host's own, which lets nobody in",
        ));
    }
    answers_for(gateway, &principal.tenant_id, &fit.deployment_id, &smith_id).await?;
    Ok(Connecting {
        principal,
        smith_id,
    })
}

/// Checks a request: what is wrong with the client is told to the human, all else to the client
/// (RFC 6749 4.1.2.1).
async fn fit(
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
fn back(fit: &Fit, fields: &[(&str, &str)]) -> Response {
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

fn consent_page(status: StatusCode, fit: &Fit, error: Option<&str>) -> Response {
    let asked = &fit.asked;
    let target = Url::parse(&asked.redirect_uri).ok();
    let target = target.as_ref().and_then(Url::host_str).unwrap_or_default();
    let hidden = [
        ("response_type", &asked.response_type),
        ("client_id", &asked.client_id),
        ("redirect_uri", &asked.redirect_uri),
        ("resource", &asked.resource),
        ("code_challenge", &asked.code_challenge),
        ("code_challenge_method", &asked.code_challenge_method),
    ];
    let body = html! {
        h1 { "Let " (fit.client.name) " in?" }
        p {
            b { (fit.client.name) } " at " b { (target) } " wants to talk with your assistant at "
            code { (asked.resource) } " and to pass on your decisions on what it may do."
        }
        @if let Some(error) = error {
            p.error role="alert" { "It cannot be let in: " (error) "." }
        }
        form method="post" action=(format!("{}/oauth/authorize", fit.issuer)) {
            @for (name, value) in hidden {
                input type="hidden" name=(name) value=(value);
            }
            @if let Some(state) = &asked.state {
                input type="hidden" name="state" value=(state);
            }
            label {
                "Your connect token"
                input type="password" name="connect_token" autocomplete="off" autofocus;
            }
            button type="submit" name="decision" value="allow" { "Let it in" }
            button type="submit" name="decision" value="deny" { "Send it away" }
        }
    };
    document(status, &body)
}

/// The refusal of a request that cannot be told to who sent it.
fn misled() -> Response {
    let why = html! {
        h1 { "This link does not work" }
        p {
            "The program that sent you here is not registered, or wants you to be sent back to a \
             place that it did not register."
        }
    };
    document(StatusCode::BAD_REQUEST, &why)
}
