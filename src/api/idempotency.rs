//! `Idempotency-Key`: a replay returns the first answer; the same key with another body is 409,
//! and so is a replay while the first request is in flight.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};

use crate::auth::Principal;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::store::{Idempotency, now_micros};

const MAX_KEY: usize = 255;
const UPLOADS: &str = "/v1/files";

/// A claimed key: finish or abandon it.
pub struct Mine {
    gateway: Arc<Gateway>,
    tenant_id: Arc<str>,
    key: String,
}

/// What a key stands for.
pub enum Claim {
    Mine(Mine),
    /// The run that the first request with this key started.
    Earlier(String),
}

impl Mine {
    /// Keeps the first answer.
    pub async fn finish(self, status: u16, body: &[u8]) -> Result<(), ApiError> {
        let store = &self.gateway.store;
        store
            .finish_idempotent(&self.tenant_id, &self.key, status, body)
            .await?;
        Ok(())
    }

    /// Gives the key back: the request had no effect.
    pub async fn abandon(self) -> Result<(), ApiError> {
        let store = &self.gateway.store;
        store.abandon_idempotent(&self.tenant_id, &self.key).await?;
        Ok(())
    }
}

/// 409 `idempotency_in_progress`.
pub fn in_progress() -> ApiError {
    ApiError::conflict(
        "idempotency_in_progress",
        "the first request with this Idempotency-Key is under way",
    )
}

fn reused() -> ApiError {
    ApiError::conflict(
        "idempotency_key_reused",
        "this Idempotency-Key was used with another request",
    )
}

fn fingerprint(path: &str, body: &[u8]) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(path.as_bytes());
    context.update(&[0]);
    context.update(body);
    hex::encode(context.finish().as_ref())
}

async fn begin(
    gateway: &Arc<Gateway>,
    tenant_id: &Arc<str>,
    key: &str,
    path: &str,
    body: &[u8],
    run_id: Option<&str>,
) -> Result<(Mine, Idempotency), ApiError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(ApiError::invalid(
            "Idempotency-Key",
            format!("must be 1 to {MAX_KEY} characters"),
        ));
    }
    let print = fingerprint(path, body);
    // Two smiths of a tenant, or two kinds of resource, may use the same key.
    let key = format!("{path} {key}");
    let state = gateway
        .store
        .begin_idempotent(tenant_id, &key, &print, run_id, now_micros())
        .await?;
    let mine = Mine {
        gateway: gateway.clone(),
        tenant_id: tenant_id.clone(),
        key,
    };
    Ok((mine, state))
}

/// Claims a key for a new run.
pub async fn claim_run(
    gateway: &Arc<Gateway>,
    tenant_id: &Arc<str>,
    key: &str,
    path: &str,
    body: &[u8],
    run_id: &str,
) -> Result<Claim, ApiError> {
    let (mine, state) = begin(gateway, tenant_id, key, path, body, Some(run_id)).await?;
    match state {
        Idempotency::New => Ok(Claim::Mine(mine)),
        Idempotency::Mismatch => Err(reused()),
        Idempotency::InProgress { run_id } | Idempotency::Done { run_id, .. } => {
            run_id.map(Claim::Earlier).ok_or_else(reused)
        }
    }
}

/// Answers a creating POST once for each key. What has an effect of its own (runs) claims its key
/// itself and does not come through here.
pub async fn layer(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let key = match request.headers().get("idempotency-key") {
        Some(key) if request.method() == Method::POST => key.clone(),
        _ => return next.run(request).await,
    };
    let Some(principal) = request.extensions().get::<Arc<Principal>>().cloned() else {
        return next.run(request).await;
    };
    match once(&gateway, &principal, &key, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn once(
    gateway: &Arc<Gateway>,
    principal: &Principal,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = key
        .to_str()
        .map_err(|_| ApiError::invalid("Idempotency-Key", "must be printable ASCII"))?;
    let (parts, body) = request.into_parts();
    // One smith's key is not another's: a replay shows the first answer.
    let acting = principal.smith_id().map_or("", |smith| &**smith);
    let path = format!("{}{acting}", parts.uri.path());
    let (print, body) = match path.starts_with(UPLOADS) {
        // A file is not held in memory to be compared: its length has to do.
        true => {
            let length = parts.headers.get(header::CONTENT_LENGTH);
            (
                length
                    .map_or_else(Vec::new, |l| l.as_bytes().to_vec())
                    .into(),
                body,
            )
        }
        false => {
            let body = whole(body).await?;
            (body.clone(), Body::from(body))
        }
    };
    let (mine, state) = begin(gateway, &principal.tenant_id, key, &path, &print, None).await?;
    // First answers may hold secrets that are shown once.
    let owner = format!("idempotency/{}/{}", principal.tenant_id, mine.key);
    match state {
        Idempotency::Mismatch => Err(reused()),
        Idempotency::InProgress { .. } => Err(in_progress()),
        Idempotency::Done { status, body, .. } => {
            let body = gateway
                .vault
                .open(&owner, &body)
                .map_err(ApiError::internal)?;
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let json = [(header::CONTENT_TYPE, "application/json")];
            Ok((status, json, body.to_vec()).into_response())
        }
        Idempotency::New => {
            let request = Request::from_parts(parts, body);
            let response = next.run(request).await;
            if !response.status().is_success() {
                mine.abandon().await?;
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let body = whole(body).await?;
            let sealed = gateway
                .vault
                .seal(&owner, &body)
                .map_err(ApiError::internal)?;
            mine.finish(parts.status.as_u16(), &sealed).await?;
            Ok(Response::from_parts(parts, Body::from(body)))
        }
    }
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, usize::MAX)
        .await
        .map_err(|e| ApiError::bad_request("invalid_request", e.to_string()))
}
