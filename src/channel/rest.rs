//! What channels serve: a line for each.

use utoipa_axum::router::OpenApiRouter;

use super::{email, telegram};
use crate::edge::{AppState, Route};

/// Operations of all channels.
pub fn documented() -> OpenApiRouter<AppState> {
    telegram::documented().merge(email::documented())
}

/// What the edge must know of their routes.
pub fn routes() -> Vec<Route> {
    [telegram::routes(), email::routes()].concat()
}
