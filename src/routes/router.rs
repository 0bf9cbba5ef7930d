//! The router behind the bridge: what is documented, what is not, and what all of it passes through.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::document::{self, document};
use super::reference;
use crate::edge::{self, AppState, By, Route, RoutePattern, idempotency};
use crate::error::ApiError;
use crate::model::percent_decoded;
use crate::{api, wire};

/// Routes that wires answer come here with other methods only, and are refused with `Allow`.
fn refused_otherwise(router: Router<AppState>, listed: &[Route]) -> Router<AppState> {
    let mut known: Vec<(&http::Method, &str)> = Vec::new();
    listed.iter().fold(router, |router, route| {
        let method = axum::routing::MethodFilter::try_from(route.method.clone());
        match (route.by, method) {
            (By::Wire(_), Ok(method)) => {
                let pattern = route.routed();
                // Several may differ in what stands behind the rest of a path alone.
                if known.contains(&(&route.method, pattern)) {
                    return router;
                }
                known.push((&route.method, pattern));
                router.route(pattern, axum::routing::on(method, not_found))
            }
            _ => router,
        }
    })
}

/// All routes behind the bridge; `listed`: the table that the edge has, with those of the wires.
pub fn router(gateway: AppState, listed: Arc<[Route]>) -> Router {
    let (router, _) = document::documented().split_for_parts();
    refused_otherwise(api::out_of_scope(router), &listed)
        // The id of a model may hold slashes, which a documented path cannot say.
        .route("/v1/models/{*id}", axum::routing::get(api::model))
        .route(
            "/v1beta/models/{*id}",
            axum::routing::get(wire::gemini::model),
        )
        .merge(wire::mcp::router(&gateway))
        .route(
            "/openapi.json",
            axum::routing::get(async || document::answer(&document())),
        )
        .route(
            "/reference",
            axum::routing::get(async || axum::response::Html(reference::page(&document()))),
        )
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // The edge has its own limits.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(
            gateway.clone(),
            idempotency::layer,
        ))
        .layer(middleware::from_fn(edge::html::guard))
        .route_layer(middleware::from_fn(move |request, next| {
            by_its_method(listed.clone(), request, next)
        }))
        .route_layer(middleware::from_fn(note_route))
        .with_state(gateway)
}

async fn not_found(request: Request) -> ApiError {
    let path = request.uri().path();
    // Of clients whose base URL ends too early.
    let hint = match path.starts_with("/v1/") || path.starts_with("/v1beta/") {
        true => "",
        false => ": the API is under /v1, which belongs to the base URL",
    };
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("no route {} {path}{hint}", request.method()),
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

/// Refuses what names a verb of a wire, which has one method, where a resource has a path like it.
async fn by_its_method(listed: Arc<[Route]>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_verb = |route: &&Route| route.routed() != route.pattern && route.ids(path).is_some();
    let other = listed.iter().find(is_verb);
    let Some(route) = other.filter(|route| route.method != *request.method()) else {
        return next.run(request).await;
    };
    let allowed = HeaderValue::from_str(route.method.as_str());
    let mut refused = method_not_allowed(request).await.into_response();
    refused
        .headers_mut()
        .extend(allowed.ok().map(|allowed| (header::ALLOW, allowed)));
    refused
}

/// Passes the matched pattern out to the edge.
async fn note_route(request: Request, next: Next) -> Response {
    let pattern = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| interned(path.as_str()));
    // No id holds a NUL, and PostgreSQL does not take one; nor do the extractors take what is no text.
    if request.uri().path().contains("%00") {
        return ApiError::not_found("resource", "with a NUL in its id").into_response();
    }
    if std::str::from_utf8(&percent_decoded(request.uri().path())).is_err() {
        return ApiError::not_found("resource", "whose id is no text").into_response();
    }
    let mut response = next.run(request).await.into_response();
    if let Some(pattern) = pattern {
        response.extensions_mut().insert(RoutePattern(pattern));
    }
    response
}

/// Patterns are few, so keeping each for ever is cheaper than carrying strings.
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
