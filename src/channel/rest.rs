//! What channels serve: a line for each.

use utoipa_axum::router::OpenApiRouter;

use super::{slack, telegram};
use crate::edge::{AppState, Route};

/// Operations of all channels.
pub fn documented() -> OpenApiRouter<AppState> {
    telegram::documented().merge(slack::documented())
}

/// What the edge must know of their routes.
pub fn routes() -> Vec<Route> {
    let mut routes = telegram::routes();
    routes.extend(slack::routes());
    routes
}
