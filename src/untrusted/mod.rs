//! What strangers wrote: documents, pages, archives, schemas, deep JSON. Nothing of it is parsed
//! or evaluated without a bound on size, depth, unfolding and time.
//!
//! Lives here: the sandbox (child processes of this binary that parse under limits of memory and
//! time), the parsers that run in it, JSON Schema with its bounds, and the scan for the depth of
//! JSON. May import `config`, `error`.

mod archive;
mod child;
mod depth;
mod document;
mod frame;
mod front_matter;
mod job;
mod letter;
pub mod mail;
mod markup;
mod page;
mod pool;
mod queue;
mod sandbox;
mod schema;

pub use archive::Bounds as ArchiveBounds;
pub use child::{SUBCOMMAND, run as run_child};
pub use depth::{MAX_JSON_DEPTH, is_too_deep, is_vast, unusual_bytes};
pub use document::{Cutting, ExtractError};
pub use front_matter::{check as check_front_matter, split as split_front_matter};
pub use page::shown as shown_page;
pub use sandbox::{Sandbox, SandboxError};
pub use schema::{Fault, Schema, SchemaError};
