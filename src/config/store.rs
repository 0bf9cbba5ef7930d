//! What is kept, where, for how long, and how nodes hear of it.

use serde::{Deserialize, Serialize};

/// Where rows live.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `postgres://…`; absent: SQLite in `data_dir`.
    pub url: Option<String>,
    /// Connections to PostgreSQL, or readers of SQLite; 0 means a default by engine.
    pub connections: u32,
}

/// The way between nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    /// `redis://…` or `rediss://…`; absent: nodes see each other's work in the store.
    pub redis_url: Option<String>,
}

/// Encryption at rest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// 32 bytes in base64; absent: made at first start and kept in `data_dir`.
    pub master_key: Option<String>,
}

/// For how many days things are kept; 0 keeps them for ever.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Runs that have ended, with their approvals and traces; threads forget them too.
    pub runs_days: u32,
    /// The frames of runs, from which streams are shown again.
    pub frames_days: u32,
    pub events_days: u32,
    /// Deliveries to webhooks that have ended.
    pub deliveries_days: u32,
    pub traces_days: u32,
    /// Entries of the usage ledger; sums stay.
    pub usage_events_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            runs_days: 365,
            frames_days: 30,
            events_days: 90,
            deliveries_days: 30,
            traces_days: 90,
            usage_events_days: 400,
        }
    }
}
