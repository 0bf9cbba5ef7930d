//! `/oauth/authorize`: where a human lets an MCP host in to a smith. The human proves who they are
//! with a token of that smith.

use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::connector::{CONNECTOR_SCOPES, base_url, deployment_in, hash, may_redirect, no_store};
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
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:4rem auto;\
    padding:0 1rem}input[type=password]{width:100%;font:inherit;padding:.5rem;\
    box-sizing:border-box}button{font:inherit;padding:.5rem 1rem;margin:1rem .5rem 0 0}\
    .error{color:#a00}code{word-break:break-all}";

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
struct Fit {
    asked: Asked,
    client: ConnectorClientRow,
    deployment_id: String,
    issuer: String,
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
    Ok(match fit(&gateway, &headers, asked).await? {
        Ok(fit) => consent_page(StatusCode::OK, &fit, None),
        Err(refusal) => refusal,
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
    let code = random_text()?;
    let scopes: Vec<&str> = CONNECTOR_SCOPES
        .into_iter()
        .filter(|scope| who.principal.require(*scope).is_ok())
        .map(Scope::as_str)
        .collect();
    let row = ConnectorCodeRow {
        id: hash(&code),
        client_id: fit.client.id.clone(),
        tenant_id: who.principal.tenant_id.to_string(),
        smith_id: who.smith_id,
        deployment_id: fit.deployment_id.clone(),
        redirect_uri: fit.asked.redirect_uri.clone(),
        challenge: fit.asked.code_challenge.clone(),
        scopes: json!(scopes).to_string(),
        grant_id: ids::mint(ids::Kind::ConnectorGrant),
        created_at: now_micros(),
        used_at: None,
    };
    gateway.store.insert_connector_code(&row).await?;
    Ok(back(&fit, &[("code", &code)]))
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

/// Sends the human back to the host.
fn back(fit: &Fit, fields: &[(&str, &str)]) -> Response {
    // It was parsed when it was registered.
    let Ok(mut url) = Url::parse(&fit.asked.redirect_uri) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(fields);
        if let Some(state) = &fit.asked.state {
            query.append_pair("state", state);
        }
        query.append_pair("iss", &fit.issuer);
    }
    let found = (StatusCode::FOUND, [no_store()], Redirect::to(url.as_str()));
    let mut response = found.into_response();
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

fn document(status: StatusCode, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Smithgate" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    let headers = [
        no_store(),
        // No `form-action`: browsers hold redirects after the form to it as well.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, Html(page.into_string())).into_response()
}
