//! `/v1/vector_stores`: OpenAI's Vector Stores API.

pub mod files;
pub mod stores;
mod wishes;
