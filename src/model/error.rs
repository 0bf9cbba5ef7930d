//! What can go wrong between a model name and its last frame, and how a client sees it.

use std::time::Duration;

use http::StatusCode;

use super::fault::{FAILED, Fault, without_secret};
use super::param::{Lost, Param};
use crate::error::ApiError;
use crate::store::StoreError;
use crate::upstream::UpstreamError;

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
    #[error("{}", .0.message)]
    Status(Box<Fault>),
    /// The provider told of an error inside an answer that began well.
    #[error("{}", .0.message)]
    InStream(Box<Fault>),
    #[error("the model provider's stream was cut before its end")]
    Cut,
    #[error("the model provider sent what its wire does not allow: {0}")]
    Malformed(String),
    #[error("the model provider's answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The request has something that this provider's wire cannot carry.
    #[error("{0}")]
    Unsupported(String),
    /// The model, and what was asked for that it does not take.
    #[error("the model '{model}' does not take {}", .lost.names())]
    Lost { model: String, lost: Lost },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ModelError {
    /// An error that a decoder has read inside of an answer.
    pub fn told(code: &str, message: &str) -> Self {
        Self::InStream(Box::new(Fault::told(code, message)))
    }

    /// Takes `secret` out of what the provider said, should it have repeated it.
    pub fn without(self, secret: Option<&str>) -> Self {
        let said = |fault: Box<Fault>| Box::new(fault.without(secret));
        match self {
            Self::Status(fault) => Self::Status(said(fault)),
            Self::InStream(fault) => Self::InStream(said(fault)),
            Self::Malformed(text) => Self::Malformed(without_secret(text, secret)),
            other => other,
        }
    }

    /// Whether the same target may do better a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout(_) | Self::Cut | Self::Malformed(_) => true,
            Self::InStream(fault) | Self::Status(fault) => fault.is_retryable(),
            _ => false,
        }
    }

    /// Whether another target may do better. What is an error behind a good status says little of
    /// the request.
    pub fn is_of_target(&self) -> bool {
        match self {
            Self::InStream(_) => true,
            Self::Status(fault) => fault.is_of_target(),
            Self::Lost { .. } => true,
            other => other.is_retryable(),
        }
    }

    /// How long the provider wants to be left alone.
    pub fn pause(&self) -> Option<Duration> {
        match self {
            Self::InStream(fault) | Self::Status(fault) => fault.pause,
            _ => None,
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
            Self::Status(fault) => fault.kind(),
            Self::InStream(_) => "in_stream",
            Self::Cut => "cut",
            Self::Malformed(_) => "malformed",
            Self::TooLarge(_) => "too_large",
            Self::Unsupported(_) => "unsupported",
            Self::Lost { .. } => "lost",
            Self::Store(_) => "store",
        }
    }
}

impl From<UpstreamError> for ModelError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Forbidden(why) => Self::Forbidden(why),
            UpstreamError::Connect(why) => Self::Connect(why),
            UpstreamError::Timeout(step) => Self::Timeout(step),
            UpstreamError::Cut => Self::Cut,
            UpstreamError::Malformed(why) => Self::Malformed(why),
            UpstreamError::TooLarge(limit) => Self::TooLarge(limit),
        }
    }
}

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
            ModelError::Lost { lost, .. } => {
                let first = lost.params().next().map_or("", Param::name);
                Self::bad_request("unsupported_parameter", message).param(first)
            }
            ModelError::Timeout(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, FAILED, message),
            ModelError::Status(fault) | ModelError::InStream(fault) => (*fault).into(),
            ModelError::Connect(_)
            | ModelError::Cut
            | ModelError::Malformed(_)
            | ModelError::TooLarge(_) => Self::new(StatusCode::BAD_GATEWAY, FAILED, message),
            ModelError::Store(error) => error.into(),
        }
    }
}
