//! `Idempotency-Key`: a replay returns the first answer; the same key with another body is 409,
//! and so is a replay while the first request is in flight.

use std::sync::Arc;

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::auth::Principal;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::store::{Idempotency, now_micros};

const MAX_KEY: usize = 255;

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

/// Answers a creating POST once for each key: `make` does the work and gives status and body.
pub async fn once<F>(
    gateway: &Arc<Gateway>,
    principal: &Principal,
    headers: &HeaderMap,
    path: &str,
    body: &Bytes,
    make: F,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<(StatusCode, Value), ApiError>>,
{
    let Some(key) = headers.get("idempotency-key") else {
        let (status, value) = make.await?;
        return Ok(json_response(status, value.to_string().into_bytes()));
    };
    let key = key
        .to_str()
        .map_err(|_| ApiError::invalid("Idempotency-Key", "must be printable ASCII"))?;
    let (mine, state) = begin(gateway, &principal.tenant_id, key, path, body, None).await?;
    match state {
        Idempotency::Mismatch => Err(reused()),
        Idempotency::InProgress { .. } => Err(in_progress()),
        Idempotency::Done { status, body, .. } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            Ok(json_response(status, body))
        }
        Idempotency::New => match make.await {
            Ok((status, value)) => {
                let body = value.to_string().into_bytes();
                mine.finish(status.as_u16(), &body).await?;
                Ok(json_response(status, body))
            }
            Err(error) => {
                mine.abandon().await?;
                Err(error)
            }
        },
    }
}

fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
