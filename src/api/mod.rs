//! The REST resources (`resources.md`): axum routers behind the edge's bridge, which has verified
//! the caller and put the [`Principal`] into the request's extensions.
//!
//! Lives here: one file for each resource, the list envelope, idempotency. May import `store`,
//! `auth`, `run`, `model`, `error`.

mod agents;
mod health;
pub mod idempotency;
mod model_keys;
mod models;
mod page;
mod runs;
mod smiths;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::StatusCode;
use http::request::Parts;

use crate::auth::Principal;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// The pattern of the route that answered, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct RoutePattern(pub &'static str);

/// The verified caller, as an extractor.
pub struct Caller(pub Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Arc<Principal>>()
            .cloned()
            .map(Self)
            .ok_or_else(|| ApiError::unauthenticated("no token was verified"))
    }
}

type AppState = Arc<Gateway>;

/// All REST routes.
pub fn router(gateway: AppState) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/.well-known/jwks.json", get(health::jwks))
        .route("/v1/tenant/tokens", get(tokens::list).post(tokens::mint))
        .route("/v1/tenant/tokens/{id}", delete(tokens::revoke))
        .route("/v1/tenant/model_keys", get(model_keys::list))
        .route(
            "/v1/tenant/model_keys/{provider}",
            put(model_keys::put).delete(model_keys::remove),
        )
        .route("/v1/smiths/{id}/model_keys", get(model_keys::list_of_smith))
        .route(
            "/v1/smiths/{id}/model_keys/{provider}",
            put(model_keys::put_of_smith).delete(model_keys::remove_of_smith),
        )
        .route("/v1/tenant/usage", get(models::usage))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/agents", get(agents::list).post(agents::create))
        .route("/v1/agents/{id}", get(agents::one))
        .route(
            "/v1/agents/{id}/versions",
            get(agents::versions).post(agents::publish),
        )
        .route("/v1/smiths", get(smiths::list).post(smiths::create))
        .route("/v1/smiths/{id}", get(smiths::one))
        .route("/v1/smiths/{id}/runs", get(runs::list_of_smith))
        .route("/v1/smiths/{id}/runs/{run}", get(runs::one))
        .route("/v1/smiths/{id}/runs/{run}/submit", post(runs::submit))
        .route("/v1/runs", get(runs::list))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(middleware::from_fn(note_route))
        .with_state(gateway)
}

async fn not_found(request: Request) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("no route {} {}", request.method(), request.uri().path()),
    )
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "invalid_request",
        format!(
            "{} does not take {}",
            request.uri().path(),
            request.method()
        ),
    )
}

/// Passes the matched pattern out to the edge. Patterns are few, so keeping each for ever is
/// cheaper than carrying strings.
async fn note_route(request: Request, next: Next) -> Response {
    let pattern = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| interned(path.as_str()));
    let mut response = next.run(request).await.into_response();
    if let Some(pattern) = pattern {
        response.extensions_mut().insert(RoutePattern(pattern));
    }
    response
}

fn interned(pattern: &str) -> &'static str {
    use std::collections::HashSet;
    static PATTERNS: parking_lot::RwLock<Option<HashSet<&'static str>>> =
        parking_lot::RwLock::new(None);
    if let Some(found) = PATTERNS
        .read()
        .as_ref()
        .and_then(|set| set.get(pattern).copied())
    {
        return found;
    }
    let mut patterns = PATTERNS.write();
    let set = patterns.get_or_insert_default();
    if let Some(found) = set.get(pattern) {
        return found;
    }
    let kept: &'static str = Box::leak(pattern.to_owned().into_boxed_str());
    set.insert(kept);
    kept
}
