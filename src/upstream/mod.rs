//! The one way out of the house: requests to servers whose addresses others chose (model providers,
//! MCP servers, webhooks, OAuth providers, pages), each held against the address guard before it is
//! connected to.
//!
//! Lives here: base URLs taken apart, the guard, the client with its kept connections, and the
//! answer with its body as it comes. Knows no model and no wire.

mod address;
mod cleartext;
mod client;
mod endpoint;
mod error;
pub mod framing;
mod pieces;
mod pool;
mod raw;
mod response;

pub use address::{AddressGuard, Refused};
pub use client::{Names, Timeouts, Upstream, UpstreamRequest};
pub use endpoint::Endpoint;
pub use error::UpstreamError;
pub use pieces::{SendError, Source, Unanswered};
pub use pingora_core::protocols::Stream;
pub use response::UpstreamResponse;
