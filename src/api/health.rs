//! `/health`, `/ready` and the JWKS: open to all.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::AppState;

const SERVICE: &str = "smithgate";

/// The commit that this binary was built from, when the build said so.
fn commit() -> &'static str {
    option_env!("SMITHGATE_COMMIT").unwrap_or("unknown")
}

/// `GET /health`: the process lives.
pub async fn health() -> Json<Value> {
    Json(json!({ "ok": true, "service": SERVICE, "commit": commit() }))
}

/// `GET /ready`: work can be taken.
pub async fn ready(State(gateway): State<AppState>) -> Response {
    let db = gateway.store.ping().await.is_ok();
    let ok = db && !gateway.is_draining();
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ok": ok,
        "service": SERVICE,
        "checks": { "db": db, "accepting": !gateway.is_draining() },
    });
    (status, Json(body)).into_response()
}

/// `GET /.well-known/jwks.json`: the public keys of tokens minted here.
pub async fn jwks(State(gateway): State<AppState>) -> Response {
    let cached = [(http::header::CACHE_CONTROL, "public, max-age=300")];
    (cached, Json(gateway.auth.jwks().clone())).into_response()
}
