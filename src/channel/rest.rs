//! What channels serve: a line for each.

use utoipa_axum::router::OpenApiRouter;

use super::{discord, email, forms, slack, telegram, web, whatsapp};
use crate::edge::{AppState, Route};

/// Operations of all channels.
pub fn documented() -> OpenApiRouter<AppState> {
    telegram::documented()
        .merge(slack::documented())
        .merge(whatsapp::documented())
        .merge(email::documented())
        .merge(discord::documented())
        .merge(web::documented())
        .merge(forms::documented())
}

/// What the edge must know of their routes.
pub fn routes() -> Vec<Route> {
    [
        telegram::routes(),
        slack::routes(),
        whatsapp::routes(),
        email::routes(),
        discord::routes(),
        web::routes(),
        forms::routes(),
    ]
    .concat()
}
