//! What can go wrong between a model name and its last frame, and how a client sees it.

use http::StatusCode;

use crate::error::ApiError;
use crate::store::StoreError;

/// A failed model call.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("no key for the model provider '{0}': set one with PUT /v1/tenant/model_keys/{0}")]
    NoKey(String),
    #[error("{0}")]
    UnknownModel(String),
    #[error("the provider's address is not allowed: {0}")]
    Forbidden(String),
    #[error("cannot reach the model provider: {0}")]
    Connect(String),
    #[error("the model provider did not answer in time ({0})")]
    Timeout(&'static str),
    /// The provider answered with an error status.
    #[error("{message}")]
    Status {
        status: u16,
        message: String,
        retry_after: Option<u64>,
    },
    /// The provider reported an error inside its stream.
    #[error("the model provider failed in mid-stream: {message}")]
    InStream {
        message: String,
        overloaded: bool,
        rate_limited: bool,
    },
    #[error("the model provider's stream was cut before its end")]
    Cut,
    #[error("the model provider sent what its wire does not allow: {0}")]
    Malformed(String),
    #[error("the model provider's answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The request has something that this provider's wire cannot carry.
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ModelError {
    /// Whether the same or another target may do better.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout(_) | Self::Cut | Self::Malformed(_) => true,
            Self::InStream { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 409 | 425 | 429 | 500..=599),
            _ => false,
        }
    }

    /// A short kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoKey(_) => "no_key",
            Self::UnknownModel(_) => "unknown_model",
            Self::Forbidden(_) => "forbidden",
            Self::Connect(_) => "connect",
            Self::Timeout(_) => "timeout",
            Self::Status { status: 429, .. } => "rate_limited",
            Self::Status {
                status: 401 | 403, ..
            } => "key_refused",
            Self::Status { status, .. } if *status >= 500 => "status_5xx",
            Self::Status { .. } => "status_4xx",
            Self::InStream { .. } => "in_stream",
            Self::Cut => "cut",
            Self::Malformed(_) => "malformed",
            Self::TooLarge(_) => "too_large",
            Self::Unsupported(_) => "unsupported",
            Self::Store(_) => "store",
        }
    }
}

const FAILED: &str = "model_request_failed";
/// When a provider names no time, a second is a fair guess.
const DEFAULT_RETRY_SECONDS: u64 = 1;

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        let message = error.to_string();
        match error {
            ModelError::NoKey(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "model_key_missing",
                message,
            ),
            ModelError::UnknownModel(_) => Self::invalid("model", message),
            ModelError::Forbidden(_) => Self::forbidden("forbidden_target", message),
            ModelError::Unsupported(_) => Self::bad_request("unsupported", message),
            ModelError::Timeout(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, FAILED, message),
            ModelError::Status {
                status,
                retry_after,
                ..
            } => match status {
                401 | 403 => Self::new(
                    StatusCode::BAD_GATEWAY,
                    FAILED,
                    format!("the model provider refused the configured key: {message}"),
                ),
                429 => Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limit_exceeded",
                    message,
                )
                .retry_after(retry_after.unwrap_or(DEFAULT_RETRY_SECONDS)),
                503 | 529 => Self::unavailable(
                    "service_overloaded",
                    message,
                    retry_after.unwrap_or(DEFAULT_RETRY_SECONDS),
                ),
                400..=499 => Self::new(
                    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
                    FAILED,
                    message,
                ),
                _ => Self::new(StatusCode::BAD_GATEWAY, FAILED, message),
            },
            ModelError::InStream {
                overloaded,
                rate_limited,
                ..
            } => {
                if rate_limited {
                    Self::new(
                        StatusCode::TOO_MANY_REQUESTS,
                        "rate_limit_exceeded",
                        message,
                    )
                    .retry_after(DEFAULT_RETRY_SECONDS)
                } else if overloaded {
                    Self::unavailable("service_overloaded", message, DEFAULT_RETRY_SECONDS)
                } else {
                    Self::new(StatusCode::BAD_GATEWAY, FAILED, message)
                }
            }
            ModelError::Connect(_)
            | ModelError::Cut
            | ModelError::Malformed(_)
            | ModelError::TooLarge(_) => Self::new(StatusCode::BAD_GATEWAY, FAILED, message),
            ModelError::Store(error) => error.into(),
        }
    }
}
