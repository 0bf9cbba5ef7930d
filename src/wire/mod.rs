//! The client wires: bytes to a run request, frames to bytes. One folder each.
//!
//! May import `frame`, `sse`, `run`'s and `model`'s public types, `auth`'s scopes, `error`.

pub mod chat;
pub mod native;

use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Parses a JSON body; the error names the field at fault.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let bad = ApiError::bad_request("invalid_request", error.inner().to_string());
        if path == "." { bad } else { bad.param(path) }
    })?;
    deserializer
        .end()
        .map_err(|e| ApiError::bad_request("invalid_request", e.to_string()))?;
    Ok(value)
}
