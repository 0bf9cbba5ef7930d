//! `/oauth/authorize`: where a human lets an MCP host in to a smith. The human proves who they are
//! with a token of that smith.

use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use maud::html;
use serde::Deserialize;
use url::Url;
use utoipa::ToSchema;

use super::delegated;
use super::metadata::CONNECTOR_SCOPES;
use super::request::{Asked, Fit, LetIn, back, fit, issue_code, misled};
use crate::auth::{Principal, Scope};
use crate::edge::AppState;
use crate::edge::html::document;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::wire::mcp::deployment::answers_for;

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
