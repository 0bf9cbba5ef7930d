//! The edge: the service that owns a session from its request's first byte to its answer's last.
//! What the table of routes gives to a wire is served natively; everything else goes over the
//! bridge to the axum router.
//!
//! Lives here: connections and their heads, the exchange with its limits, the bridge, streams, the
//! metrics. Knows no wire and no resource: the table is given to it.

mod app;
mod bridge;
mod connection;
mod exchange;
mod head;
mod metrics;
mod once;
mod route;
pub(crate) mod stream;

pub use app::App;
pub use connection::Connections;
pub use exchange::{Exchange, Extra, Gone};
pub use metrics::MetricsApp;
pub use route::{By, Ids, Route, Routes};
