//! How much of everything there may be.

use serde::{Deserialize, Serialize};

/// Limits on runs and provider calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Time to connect to a provider, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time until a provider's response header, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// The same for an answer that is not streamed, whose header comes when all of it is there.
    /// A stream may be kept alive by comments alone for as long.
    pub whole_answer_timeout_ms: u64,
    /// Longest silence inside a provider's stream, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Largest single event of a provider's stream, in bytes.
    pub max_event_bytes: usize,
    /// Largest whole answer of a provider, in bytes.
    pub max_answer_bytes: usize,
    /// How far a run may be ahead of a slow client, in bytes.
    pub max_lead_bytes: usize,
    /// Recent runs of a thread that a turn sees.
    pub thread_turns: u32,
    /// Largest file that is kept, in bytes.
    pub max_file_bytes: usize,
    /// Runs at once on this node; more are answered 503 `service_overloaded`.
    pub max_concurrent_runs: usize,
    /// New model calls and runs are answered 503 `service_overloaded` while what is ready waits
    /// longer than this for a worker, in milliseconds; 0: never.
    pub max_worker_lag_ms: u64,
    /// A node that shows no life for this long loses its runs and other work to others, in
    /// milliseconds.
    pub lease_ms: u64,
    pub rate: Rates,
    pub concurrency: Concurrency,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 120_000,
            whole_answer_timeout_ms: 600_000,
            idle_timeout_ms: 120_000,
            max_event_bytes: 8 * 1024 * 1024,
            max_answer_bytes: 64 * 1024 * 1024,
            max_lead_bytes: 1024 * 1024,
            thread_turns: 50,
            max_file_bytes: 512 * 1024 * 1024,
            max_concurrent_runs: 20_000,
            max_worker_lag_ms: 40,
            lease_ms: 30_000,
            rate: Rates::default(),
            concurrency: Concurrency::default(),
        }
    }
}

/// Requests that each of them may make in a minute, on each node; 0 means no limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    pub tenant_per_minute: u32,
    pub token_per_minute: u32,
    pub smith_per_minute: u32,
}

/// Runs and routed calls that each of them may have at once, on each node; 0 means no limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    pub tenant_runs: usize,
    pub token_runs: usize,
    pub smith_runs: usize,
}
