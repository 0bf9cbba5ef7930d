//! Calling model providers: from a neutral request to frames.
//!
//! Lives here: the neutral request, routing of model names to targets and keys, the upstream HTTP
//! client with its address guard, one file for each provider wire under `provider/`, and the call
//! that tries targets in order. May import `frame`, `sse`, `store`, `secrets`, `config`,
//! `metrics`, `error`.

mod address;
mod call;
mod continuity;
mod embeddings;
mod endpoint;
mod error;
mod fault;
mod fit;
pub mod framing;
mod http;
mod media;
mod opening;
mod plain;
mod pool;
pub mod provider;
mod request;
mod response;
mod routing;
pub mod rules;
pub mod schema;

pub use address::{AddressGuard, Refused};
pub use call::{ModelCall, Models};
pub use continuity::Continuity;
pub use embeddings::{Embedded, tokens_of_answer, vector_bytes, vector_of_bytes};
pub use endpoint::Endpoint;
pub use error::ModelError;
pub use fault::{Cause, Fault};
pub use http::{Names, Timeouts, Upstream, UpstreamRequest};
pub use opening::{Answered, Whole};
pub use provider::reasoning::of_message as reasoning_of;
pub use request::*;
pub use response::UpstreamResponse;
pub use routing::{CatalogueEntry, Route, Routing, split_model};
