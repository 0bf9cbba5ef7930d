//! `/v1/ui/decisions/{token}` and `/v1/ui/connections/{token}`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::{answer, filled};
use super::pages::{self, question_of};
use super::{Asked, Sealed, Wanted};
use crate::channel::Hub;
use crate::connection::{Authorization, authorization};
use crate::edge::html::no_store;
use crate::edge::{AppState, Route};
use crate::error::ApiError;
use crate::run::Word;
use crate::store::{ApprovalRow, ApprovalStatus, RunRow};

/// Its operations.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(show, decide))
        .routes(routes!(show_connection, connect))
}

/// What the edge must know of its routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::rest(Method::GET, "/v1/ui/decisions/{token}").open(),
        Route::rest(Method::POST, "/v1/ui/decisions/{token}").open(),
        Route::rest(Method::GET, "/v1/ui/connections/{token}").open(),
        Route::rest(Method::POST, "/v1/ui/connections/{token}").open(),
    ]
}

fn unknown(headers: &HeaderMap) -> Result<Response, ApiError> {
    let text = "It is too old, or part of it is missing. Ask again where you were asked.";
    pages::note(
        StatusCode::NOT_FOUND,
        headers,
        "This link opens nothing",
        text,
    )
}

async fn found(
    hub: &Hub,
    token: &str,
) -> Result<Option<(Asked, ApprovalRow, Option<RunRow>)>, ApiError> {
    let Some(asked) = Asked::open(hub, token) else {
        return Ok(None);
    };
    let tenant_id = &asked.tenant_id;
    let Some(approval) = hub.store.approval(tenant_id, &asked.approval_id).await? else {
        return Ok(None);
    };
    let run = match &approval.run_id {
        Some(run_id) => hub.store.run(tenant_id, run_id).await?,
        None => None,
    };
    Ok(Some((asked, approval, run)))
}

/// Shows what waits for a decision. Nothing is decided by that.
#[utoipa::path(get, path = "/v1/ui/decisions/{token}", tag = "decisions", security(()),
    params(("token" = String, Path)),
    responses((status = 200, content_type = "text/html", body = String),
        (status = 404, content_type = "text/html", body = String)))]
pub async fn show(
    State(gateway): State<AppState>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match found(&gateway.hub, &token).await? {
        None => unknown(&headers),
        Some((_, approval, _)) if approval.status != ApprovalStatus::Pending => {
            pages::decided(&headers, &approval, false)
        }
        Some((_, approval, _)) => pages::decision(&headers, &approval, None, None),
    }
}

/// Decides.
#[utoipa::path(post, path = "/v1/ui/decisions/{token}", tag = "decisions", security(()),
    params(("token" = String, Path)),
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, content_type = "text/html", body = String),
        (status = 404, content_type = "text/html", body = String),
        (status = 422, content_type = "text/html", body = String)))]
pub async fn decide(
    State(gateway): State<AppState>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let hub = &gateway.hub;
    let Some((asked, approval, run)) = found(hub, &token).await? else {
        return unknown(&headers);
    };
    if approval.status != ApprovalStatus::Pending {
        return pages::decided(&headers, &approval, false);
    }
    let Some(run) = run else {
        return unknown(&headers);
    };
    let filled = filled(&body);
    let said = filled
        .get("decision")
        .map(Vec::as_slice)
        .unwrap_or_default();
    // The button is the last of the form: before it may be a field of that name.
    let approve = match said.last().map(String::as_str) {
        Some("approve") => true,
        Some("reject") => false,
        _ => {
            let wrong = Some(("", "Nothing was decided."));
            return pages::decision(&headers, &approval, None, wrong);
        }
    };
    let content = question_of(&approval).filter(|_| approve);
    let content = content.map(|asked| answer(&asked["requested_schema"], &filled));
    let word = Word {
        approval_id: Some(approval.id.clone()),
        approve,
        content,
        actor: Some(actor(&asked)),
        ..Word::default()
    };
    match hub.runs.decide(&run, &word).await {
        Ok(_) => told(hub, &headers, &approval, true).await,
        Err(error) if error.status == StatusCode::CONFLICT => {
            told(hub, &headers, &approval, false).await
        }
        Err(error) if error.code == "invalid_input" => {
            let at = error.param.as_deref().unwrap_or_default();
            let at = at.trim_start_matches("content").trim_start_matches('.');
            let wrong = (at, error.message.as_ref());
            pages::decision(&headers, &approval, Some(&filled), Some(wrong))
        }
        Err(error) => Err(error),
    }
}

async fn told(
    hub: &Hub,
    headers: &HeaderMap,
    approval: &ApprovalRow,
    is_new: bool,
) -> Result<Response, ApiError> {
    let now = hub
        .store
        .approval(&approval.tenant_id, &approval.id)
        .await?;
    pages::decided(headers, now.as_ref().unwrap_or(approval), is_new)
}

fn actor(asked: &Asked) -> Value {
    let email = if asked.channel == "email" {
        asked.sender_id.as_str()
    } else {
        ""
    };
    json!({ "kind": asked.channel, "id": asked.sender_id, "token_id": "", "email": email })
}

/// Shows what a smith wants to use. Nothing is begun by that.
#[utoipa::path(get, path = "/v1/ui/connections/{token}", tag = "decisions", security(()),
    params(("token" = String, Path)),
    responses((status = 200, content_type = "text/html", body = String),
        (status = 404, content_type = "text/html", body = String)))]
pub async fn show_connection(
    State(gateway): State<AppState>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match Wanted::open(&gateway.hub, &token) {
        Some(wanted) => pages::connection(&headers, &wanted.provider),
        None => unknown(&headers),
    }
}

/// Leads to the provider, where the person says yes or no.
#[utoipa::path(post, path = "/v1/ui/connections/{token}", tag = "decisions", security(()),
    params(("token" = String, Path)),
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "To the provider's page"),
        (status = 404, content_type = "text/html", body = String),
        (status = 409, content_type = "text/html", body = String)))]
pub async fn connect(
    State(gateway): State<AppState>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let hub = &gateway.hub;
    let Some(wanted) = Wanted::open(hub, &token) else {
        return unknown(&headers);
    };
    let (tenant_id, smith_id) = (&wanted.tenant_id, &wanted.smith_id);
    let provider = hub
        .store
        .oauth_provider(tenant_id, &wanted.provider)
        .await?;
    let smith = hub.store.smith(tenant_id, smith_id).await?;
    let (Some(provider), Some(_)) = (provider, smith) else {
        return unknown(&headers);
    };
    // The way back must be one that the provider's browser finds, and that this gateway knows.
    let public = gateway.config.server.public_url.as_deref();
    let page = match public.map(|public| public.trim_end_matches('/')) {
        Some(public) => {
            let begun = Authorization {
                provider: &provider,
                smith_id,
                callback: format!("{public}/v1/oauth/callback"),
                return_url: None,
            };
            authorization(hub.store.as_ref(), &hub.vault, begun).await?
        }
        None => None,
    };
    match page {
        Some(page) => {
            let mut answer = Redirect::to(&page).into_response();
            let (name, value) = no_store();
            let value = http::HeaderValue::from_static(value);
            answer.headers_mut().insert(name, value);
            let value = http::HeaderValue::from_static("no-referrer");
            answer.headers_mut().insert(header::REFERRER_POLICY, value);
            Ok(answer)
        }
        None => {
            let text = "This gateway is not set up to begin it. Tell whoever runs it.";
            pages::note(StatusCode::CONFLICT, &headers, "Not possible yet", text)
        }
    }
}
