//! Calling model providers: from a neutral request to frames.
//!
//! Lives here: the neutral request, what makes it fit a target, routing of model names to targets
//! and keys, one room for each provider wire under `provider/`, and the call that tries targets in
//! order.

mod beside;
mod call;
mod continuity;
mod embeddings;
mod error;
mod fault;
mod fit;
mod media;
mod media_type;
mod opening;
mod param;
pub mod provider;
mod relay;
mod request;
mod routing;
pub mod rules;
pub mod schema;

pub use beside::Beside;
pub use call::{Completed, ModelCall, Models, is_over};
pub use continuity::Continuity;
pub use embeddings::{Embedded, answer_in_form, tokens_of_answer, vector_bytes, vector_of_bytes};
pub use error::ModelError;
pub use fault::{Cause, Fault, without_secret};
pub use fit::{Refused, Spoken, pictures_apart, that_take};
pub use media_type::{extension_of, kind_of_bytes, percent_decoded, type_of};
pub use opening::{Answered, Whole};
pub use param::{Lost, Param};
pub use provider::reasoning::of_message as reasoning_of;
pub use relay::RelayCall;
pub use request::*;
pub use routing::{CatalogueEntry, Route, Routing, split_model};
