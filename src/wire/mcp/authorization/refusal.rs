//! Refusals in OAuth's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::edge::html::no_store;
use crate::error::ApiError;

/// A refusal in OAuth's shape (RFC 6749 5.2).
#[derive(Debug)]
pub struct OauthError {
    pub status: StatusCode,
    pub error: &'static str,
    pub description: String,
}

/// A refusal as it is written.
#[derive(Serialize, ToSchema)]
pub struct OauthRefusal {
    pub error: &'static str,
    pub error_description: String,
}

impl OauthError {
    pub(super) fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description: description.into(),
        }
    }
}

impl From<ApiError> for OauthError {
    fn from(error: ApiError) -> Self {
        Self {
            status: error.status,
            error: "server_error",
            description: error.message.to_string(),
        }
    }
}

impl From<crate::store::StoreError> for OauthError {
    fn from(error: crate::store::StoreError) -> Self {
        ApiError::from(error).into()
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let body = OauthRefusal {
            error: self.error,
            error_description: self.description,
        };
        (self.status, [no_store()], Json(body)).into_response()
    }
}
