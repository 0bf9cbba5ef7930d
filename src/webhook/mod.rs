//! Events that leave: signed deliveries to the tenants' webhooks, out of the outbox that the
//! store's transactions fill.
//!
//! Lives here: signatures, one attempt, the schedule of repeats, the work. May import `work`, `store`,
//! `secrets`, `model`'s HTTP client (for its address guard), `run`'s times, `ids`, `error`.

mod attempt;
mod signature;
mod worker;

pub use attempt::{Attempt, Sender};
pub use signature::{headers, new_secret};
pub use worker::{Deliveries, Webhooks};
