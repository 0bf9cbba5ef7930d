//! A smith as an MCP server (Streamable HTTP), as a client wire.
//!
//! Lives here: `host` (the endpoint: whom a call is for, whose a session is), `server` (what a smith
//! offers), `ask`, `own_tools` and `panels` (its tools), `authorization` (how a host gets a token).

mod ask;
mod authorization;
mod caller;
mod deployment;
mod host;
mod own_tools;
mod panels;
mod schema;
mod server;

pub use authorization::{documented, metadata_url, routes};
pub use host::router;
