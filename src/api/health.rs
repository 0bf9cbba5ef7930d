//! `/health`, `/ready` and the JWKS: open to all.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::edge::AppState;

const SERVICE: &str = "smithgate";

/// The commit that this binary was built from, when the build said so.
fn commit() -> &'static str {
    option_env!("SMITHGATE_COMMIT").unwrap_or("unknown")
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    pub ok: bool,
    pub service: &'static str,
    pub commit: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Checks {
    /// `ok` or `down`.
    pub db: &'static str,
    pub accepting: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    pub ok: bool,
    pub service: &'static str,
    pub checks: Checks,
}

/// Tells that the process lives.
#[utoipa::path(get, path = "/health", tag = "health", security(()),
    responses((status = 200, body = Health)))]
pub async fn health() -> Json<Health> {
    Json(Health {
        ok: true,
        service: SERVICE,
        commit: commit(),
    })
}

/// Tells whether work can be taken.
#[utoipa::path(get, path = "/ready", tag = "health", security(()),
    responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub async fn ready(State(gateway): State<AppState>) -> Response {
    let db = gateway.journal.health().takes_writes().await;
    let ok = db && !gateway.is_draining();
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let checks = Checks {
        db: if db { "ok" } else { "down" },
        accepting: !gateway.is_draining(),
    };
    let body = Ready {
        ok,
        service: SERVICE,
        checks,
    };
    (status, Json(body)).into_response()
}

/// Serves the public keys of tokens minted here (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "tokens", security(()),
    responses((status = 200, body = Object)))]
pub async fn jwks(State(gateway): State<AppState>) -> Response {
    let cached = [(http::header::CACHE_CONTROL, "public, max-age=300")];
    (cached, Json(gateway.auth.jwks().clone())).into_response()
}
