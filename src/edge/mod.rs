//! The edge: the service that owns a session from its request's first byte to its answer's last.
//! What the table of routes gives to a wire is served natively; everything else goes over the
//! bridge to the axum router.
//!
//! Lives here: connections and their heads, the exchange with its limits, the bridge, streams, the
//! metrics; and what handlers of all rooms take and give: JSON bodies, extractors, list envelopes,
//! times, keys of idempotency. Knows no wire and no resource: the table is given to it.

mod accept;
mod actor;
mod app;
mod bridge;
mod dialect;
mod exchange;
pub mod extract;
mod head;
pub mod html;
pub mod idempotency;
mod json;
mod marks;
mod metrics;
mod need;
mod once;
pub mod page;
mod route;
pub(crate) mod stream;
pub mod time;

use std::sync::Arc;

use crate::gateway::Gateway;

pub use accept::Acceptor;
pub use actor::Actor;
pub use app::App;
pub use bridge::takes_body;
pub use dialect::{Dialect, EVENTS};
pub use exchange::{COST, Exchange, Extra, Gone, Recording, cost_value};
pub use json::{check_shape, in_words, parse, readable};
pub use marks::{RoutePattern, Streamed};
pub use metrics::MetricsApp;
pub use need::Need;
pub use route::{By, Ids, Route, Routes, Serve};

/// What axum's handlers are given beside the request.
pub type AppState = Arc<Gateway>;
