//! Runs: one turn of a smith, from its input to its record. Knows no wire.
//!
//! Lives here: what a run is asked ([`RunRequest`]), the smith's effective configuration, the loop
//! that calls the model (`engine`) and the tools (`tools`), files in messages (`attachments`), how it pauses and goes on (`resume`,
//! `leases`, `lapsed`, `state`), the live frames that clients follow, the record. May import `bus`, `model`,
//! `tools`, `work`, `store`, `frame`, `auth`'s types, `metrics`, `ids`, `error`.

mod account;
mod accounting;
pub mod attachments;
mod begin;
mod budget;
mod cancel;
mod consolidation;
mod engine;
mod finish;
mod frame_log;
mod job;
mod lapsed;
mod leases;
mod live;
pub mod panels;
mod prices;
mod record;
mod request;
mod resolve;
mod resume;
mod runs;
mod spender;
mod state;
mod structured;
mod tools;
mod transcript;
mod turnstile;

pub use account::{root_span_id, trace_id};
pub use accounting::Accounting;
pub use budget::{Budgets, percent, this_period};
pub use lapsed::LapsedRuns;
pub use live::{Cancelled, LiveRun, Reader};
pub use prices::PriceBook;
pub use record::{RunView, actor_out, output_of, run_out, usage_of};
pub use request::{
    INCLUDE_CITATIONS, INCLUDE_REASONING, INCLUDE_TOOL_ARGS, Link, ResponseRecord, RunRequest,
    Thread,
};
pub use resolve::{Effective, Smiths, render_instructions};
pub use resume::{Word, not_paused, that_count};
pub use runs::{RunParts, Runs, Started};
pub use spender::{NANOS, Spender, day_of, today};
pub use transcript::{Collected, Collector};
