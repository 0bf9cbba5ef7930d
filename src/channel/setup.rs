//! What a tenant gives an account with, checked.

use http::StatusCode;

use crate::error::ApiError;

/// Understood, and not enough to work with: names the field.
pub fn unprocessable(code: &'static str, param: &'static str, why: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, why).param(param)
}

/// A text that an account cannot do without, trimmed.
pub fn needed(param: &'static str, value: Option<String>) -> Result<String, ApiError> {
    let value = value.map(|value| value.trim().to_owned());
    let value = value.filter(|value| !value.is_empty());
    value.ok_or_else(|| unprocessable("empty_config", param, "is missing"))
}
