//! Native runs as a client wire (`runs.md`; `observed.md` 4).
//!
//! Lives here: `RunIn` to a run's input, frames as the native SSE envelope, runs as records
//! (`rest`), and what begins them by the clock (`schedules`), whose input is theirs.

mod decode;
mod document;
mod encode;
mod hosted;
mod rest;
mod schedules;
mod serve;

pub use decode::{InputMessage, RunIn, RunInput, decode, decode_input};
pub use encode::{Encoder, write_duplicate};
pub use serve::routes;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::edge::AppState;

/// The wire's name in metrics.
const WIRE: &str = "native";

/// Its operations, and the routes of those that are no streams.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(serve::Operations::openapi())
        .routes(routes!(rest::list_of_smith))
        .routes(routes!(rest::one))
        .routes(routes!(rest::submit))
        .routes(routes!(rest::list))
        .routes(routes!(schedules::list, schedules::create))
        .routes(routes!(
            schedules::one,
            schedules::update,
            schedules::remove
        ))
        .routes(routes!(schedules::run_now))
        .routes(routes!(schedules::fires))
}
