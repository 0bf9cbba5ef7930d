//! What channels serve: a line for each.

use utoipa_axum::router::OpenApiRouter;

use super::{telegram, whatsapp};
use crate::edge::{AppState, Route};

/// Operations of all channels.
pub fn documented() -> OpenApiRouter<AppState> {
    telegram::documented().merge(whatsapp::documented())
}

/// What the edge must know of their routes.
pub fn routes() -> Vec<Route> {
    [telegram::routes(), whatsapp::routes()].concat()
}
