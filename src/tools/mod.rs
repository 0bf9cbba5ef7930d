//! Tools that a smith may use.
//!
//! Lives here: the MCP client (`mcp`), the list of hosted tools (`hosted`), presets of known MCP
//! servers (`catalog`). May import `store`, `secrets`, `connection`, `model`'s HTTP client (for its
//! address guard), `error`.

pub mod catalog;
pub mod hosted;
pub mod mcp;
