//! What channels serve: a line for each.

use utoipa_axum::router::OpenApiRouter;

use super::{discord, telegram, whatsapp};
use crate::edge::{AppState, Route};

/// Operations of all channels.
pub fn documented() -> OpenApiRouter<AppState> {
    telegram::documented()
        .merge(whatsapp::documented())
        .merge(discord::documented())
}

/// What the edge must know of their routes.
pub fn routes() -> Vec<Route> {
    [telegram::routes(), whatsapp::routes(), discord::routes()].concat()
}
