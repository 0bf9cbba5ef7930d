//! The authorization server by which MCP hosts connect to deployments.
//!
//! Lives here: `metadata` (RFC 8414, RFC 9728), `clients` (registration, RFC 7591), `request` and
//! `consent` (where a human lets a host in), `delegated` (consent on a tenant's own page), `server`
//! (tokens), `refusal`.

mod clients;
mod consent;
mod delegated;
mod metadata;
mod refusal;
mod request;
mod server;

pub use metadata::metadata_url;

use http::Method;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::edge::{AppState, Route};

/// What is said of its routes: a host has no token yet.
pub fn routes() -> Vec<Route> {
    let open = |method, pattern| Route::rest(method, pattern).open();
    vec![
        open(Method::GET, "/.well-known/oauth-authorization-server"),
        open(Method::GET, "/.well-known/oauth-protected-resource/{*path}"),
        open(Method::POST, "/oauth/register"),
        open(Method::GET, "/oauth/authorize"),
        open(Method::POST, "/oauth/authorize"),
        open(Method::POST, "/oauth/token"),
        open(Method::POST, "/oauth/revoke"),
    ]
}

/// Its operations and their routes.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(metadata::resource))
        .routes(routes!(metadata::server))
        .routes(routes!(clients::register))
        .routes(routes!(server::token))
        .routes(routes!(server::revoke))
        .routes(routes!(consent::page, consent::decide))
        .routes(routes!(delegated::one))
        .routes(routes!(delegated::complete))
        .routes(routes!(delegated::decline))
}
