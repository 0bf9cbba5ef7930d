//! Native runs as a client wire (`runs.md`; `observed.md` 4).
//!
//! Lives here: `RunIn` to a run's input, and frames as the native SSE envelope.

mod decode;
mod encode;
mod serve;

pub use decode::{RunIn, RunInput, decode};
pub use encode::{Encoder, write_duplicate};
pub use serve::routes;
