//! Tokens.

use serde::{Deserialize, Serialize};

/// Tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// The `iss` claim of tokens minted here.
    pub issuer: String,
    /// Verified tokens kept in memory.
    pub cache_entries: u64,
    /// How long an MCP host that was let in may stay, however much it is used, in days.
    pub grant_days: u32,
    /// Registered MCP hosts that nobody let in yet; the oldest go.
    pub max_unused_clients: u32,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            issuer: "smithgate".to_owned(),
            cache_entries: 100_000,
            grant_days: 90,
            max_unused_clients: 10_000,
        }
    }
}
