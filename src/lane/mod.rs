//! Lanes: turns that no client waits for, one after the other in each thread of a smith.
//!
//! Lives here: the worker that makes runs of what waits. Schedules and channels put turns into lanes;
//! a turn knows the id of its run beforehand, so that a node that dies in between leaves no second one.

mod begin;
mod worker;

pub use begin::SORRY;
pub use worker::{Begun, Lanes};
