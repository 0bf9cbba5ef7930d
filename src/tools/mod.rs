//! Tools that a smith may use.
//!
//! Lives here: which tools a smith has and how they are called (`tool_set`, `registry`), what one call mounts
//! (`mount`), the MCP client
//! (`mcp`), the hosted tools (`hosted`), presets of known MCP servers (`catalog`). May import
//! `store`, `secrets`, `connection`, `model` (turns, and its HTTP client for the address guard),
//! `config`, `error`.

pub mod catalog;
pub mod hosted;
pub mod mcp;
mod mount;
mod output;
mod registry;
mod send;
mod skills;
mod tool_set;

pub use mount::{Approval, FILE_SEARCH, Mount, Mounted, Mounts};
pub use output::{MAX_FILES_OF_RUN, Output, TOO_LARGE, size_of_files};
pub use registry::{Calling, News, Next, ToolCall, Toolbox, secret_owner};
pub use send::{SendFunction, Senders, SendersSlot, Sending};
pub use tool_set::{HOSTED_SERVER, Tool, ToolSet, is_allowed, requires_approval};
