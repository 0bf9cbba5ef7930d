//! Parts of the hosted service that a gateway of one's own has no use for: its wallet, apps of third
//! parties that are linked to an organization, sandboxes for code, the evaluation of decisions. They
//! say so, where clients of the hosted service would take a 404 for a missing resource.

use axum::Router;
use axum::routing::any;
use http::StatusCode;

use crate::edge::AppState;
use crate::error::ApiError;

const PATHS: [&str; 6] = [
    "/v1/organization/billing/{*rest}",
    "/v1/organization/apps",
    "/v1/organization/apps/{id}",
    "/v1/tenant/sandbox_secrets",
    "/v1/tenant/sandbox_secrets/{name}",
    "/v1/evaluate",
];

/// Their routes.
pub fn routes(router: Router<AppState>) -> Router<AppState> {
    PATHS
        .iter()
        .fold(router, |router, path| router.route(path, any(unsupported)))
}

async fn unsupported(uri: http::Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "unsupported",
        format!(
            "{} is a part of the hosted service that this gateway does not have",
            uri.path()
        ),
    )
}
