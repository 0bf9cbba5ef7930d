//! The API error and its one mapping to the OpenAI error envelope.
//!
//! Lives here: [`ApiError`] and the table of stable codes. Imports nothing of ours, so that every
//! layer can turn its own error into this one.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;

/// The `type` member of the error envelope (`conventions.md`, "Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    InvalidRequest,
    Authentication,
    Permission,
    NotFound,
    RateLimit,
    Api,
}

impl ErrorType {
    /// The wire spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::RateLimit => "rate_limit_error",
            Self::Api => "api_error",
        }
    }

    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Authentication,
            403 => Self::Permission,
            404 => Self::NotFound,
            429 => Self::RateLimit,
            400..=499 => Self::InvalidRequest,
            _ => Self::Api,
        }
    }
}

/// An error as a client sees it: status, stable code, message, the field at fault.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub status: StatusCode,
    /// A stable slug of the list in `conventions.md`.
    pub code: Cow<'static, str>,
    /// For people; never holds a secret.
    pub message: Cow<'static, str>,
    /// The request field at fault.
    pub param: Option<Cow<'static, str>>,
    /// Seconds until a retry makes sense; becomes `Retry-After`.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// A run that was cancelled, and why, if that is known.
    pub fn run_cancelled(reason: &[u8]) -> Self {
        let why = match reason.is_empty() {
            true => Cow::Borrowed("the run was cancelled"),
            false => Cow::Owned(String::from_utf8_lossy(reason).into_owned()),
        };
        Self::conflict("run_cancelled", why)
    }

    /// Any error: `type` follows from `status`.
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            param: None,
            retry_after: None,
        }
    }

    /// Names the request field at fault.
    pub fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Tells when to come back, in seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// From a code and a message alone, as a run keeps them; a code that does not say whose fault it
    /// is stands for 502.
    pub fn of_code(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let code = code.into();
        let status = match &*code {
            "context_length_exceeded" | "invalid_request" | "unsupported" => {
                StatusCode::BAD_REQUEST
            }
            "insufficient_quota" | "rate_limit_exceeded" => StatusCode::TOO_MANY_REQUESTS,
            "service_overloaded" | "storage_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, code, message)
    }

    /// 400 with a code.
    pub fn bad_request(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400 `invalid_request` for a field that does not fit.
    pub fn invalid(
        param: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::bad_request("invalid_request", message).param(param)
    }

    /// 401 `unauthenticated`; the message says what is wrong with the token.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    }

    /// 403 with a code.
    pub fn forbidden(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404 `not_found`.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("no {what} '{id}'"),
        )
    }

    /// 409 with a code.
    pub fn conflict(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 413 `payload_too_large`.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload_too_large",
            format!("the request body is larger than {limit} bytes"),
        )
    }

    /// 500 `internal_error`; the cause is logged, not shown.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "something went wrong on our side",
        )
    }

    /// 503 with a code and `Retry-After`.
    pub fn unavailable(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
        retry_after: u64,
    ) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(retry_after)
    }

    /// The `type` member.
    pub fn error_type(&self) -> ErrorType {
        ErrorType::of(self.status)
    }

    /// The envelope `{"error":{"message","type","param","code"}}`; all four keys always there.
    pub fn envelope(&self) -> serde_json::Value {
        serde_json::json!({
            "error": {
                "message": self.message,
                "type": self.error_type().as_str(),
                "param": self.param,
                "code": self.code,
            }
        })
    }

    /// The envelope as bytes.
    pub fn body(&self) -> Bytes {
        Bytes::from(self.envelope().to_string())
    }
}

impl axum::response::IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let mut response = axum::response::Response::new(axum::body::Body::from(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(http::header::RETRY_AFTER, http::HeaderValue::from(seconds));
        }
        // For the edge, where the path's clients read errors in another shape.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelope_always_has_four_keys() {
        let error = ApiError::invalid("input", "must be an array");
        let envelope = error.envelope();
        let inner = envelope["error"].as_object().expect("an object");
        assert_eq!(inner.len(), 4);
        assert_eq!(inner["type"], "invalid_request_error");
        assert_eq!(inner["param"], "input");
        let error = ApiError::unauthenticated("no token");
        assert!(error.envelope()["error"]["param"].is_null());
        assert_eq!(error.error_type().as_str(), "authentication_error");
    }
}
