//! The edge: Pingora listeners and the service that owns a session from its request header to its
//! last byte. Hot wires are served natively; everything else goes over the bridge to the axum
//! router of `api`. May import everything.

mod app;
mod bridge;
mod chat;
mod connection;
mod exchange;
mod files;
mod forward;
mod head;
mod keyed;
mod metrics;
mod native;
mod referred;
mod responses;
mod server;
mod stream;
mod turn;
mod ui;

pub use server::Server;
