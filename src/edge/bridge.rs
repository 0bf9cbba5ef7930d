//! The bridge from a Pingora session to the axum router: right for REST calls, too slow for wires.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::Service;

use super::exchange::{Exchange, Extra, Gone};
use crate::error::ApiError;

/// Paths that need no token.
const OPEN: [&str; 6] = [
    "/health",
    "/ready",
    "/.well-known/jwks.json",
    "/openapi.json",
    "/reference",
    "/v1/oauth/callback",
];
/// Answers of REST calls are gathered up to this size, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Serves a request through `router`.
pub async fn serve(exchange: &mut Exchange, router: &Router) -> Result<(), Gone> {
    exchange.route = "rest";
    let request = match request(exchange).await {
        Ok(request) => request,
        Err(error) => return exchange.respond_error(&error).await,
    };
    let Ok(answer) = router.clone().call(request).await;
    let (parts, body) = answer.into_parts();
    if let Some(route) = parts.extensions.get::<crate::api::RoutePattern>() {
        exchange.route = route.0;
    }
    let body = match http_body_util::Limited::new(body, MAX_ANSWER)
        .collect()
        .await
    {
        Ok(collected) => collected.to_bytes(),
        Err(error) => return exchange.respond_error(&ApiError::internal(error)).await,
    };
    let mut extra: Vec<Extra> = Vec::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        if name != http::header::CONTENT_LENGTH {
            extra.push((name.clone(), value.clone()));
        }
    }
    exchange.respond(parts.status, &extra, body).await
}

async fn request(exchange: &mut Exchange) -> Result<http::Request<Body>, ApiError> {
    let path = exchange.request().uri.path().to_owned();
    let principal = match OPEN.contains(&path.as_str()) {
        true => None,
        false => Some(exchange.principal()?),
    };
    let body: Bytes = exchange.body().await?;
    let head = exchange.request();
    let mut request = http::Request::builder()
        .method(head.method.clone())
        .uri(head.uri.clone())
        .body(Body::from(body))
        .map_err(|e| ApiError::bad_request("invalid_request", e.to_string()))?;
    request.headers_mut().clone_from(&head.headers);
    if let Some(principal) = principal {
        request.extensions_mut().insert(principal);
    }
    Ok(request)
}
