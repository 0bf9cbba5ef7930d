//! Schedules: turns that begin by the clock.
//!
//! Lives here: the worker that fires what is due; what an expression means is in `cron`. A
//! fire is a turn in its smith's lane; it is written with the schedule's next time in one transaction,
//! so that it happens once, whatever nodes look at the clock or die.

mod worker;

pub use worker::Schedules;
