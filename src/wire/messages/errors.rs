//! Errors in Anthropic's shape, and what else its clients expect of the edge.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::edge::{Dialect, EVENTS};
use crate::error::ApiError;
use crate::sse;

/// How clients of this wire are spoken to.
pub(super) static DIALECT: Dialect = Dialect {
    status,
    error_body: body,
    key_header: "x-api-key",
    key_parameter: None,
    request_id_header: "request-id",
    stream_type: EVENTS,
    sign_of_life: b"event: ping\ndata: {\"type\":\"ping\"}\n\n",
};

/// The envelope of this wire's errors, in the document.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `envelope` writes")]
pub(super) struct MessagesErrorOut {
    /// `error`.
    #[serde(rename = "type")]
    kind: String,
    error: MessagesErrorBody,
    request_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `envelope` writes")]
pub(super) struct MessagesErrorBody {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    details: MessagesErrorDetails,
}

#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `envelope` writes")]
pub(super) struct MessagesErrorDetails {
    /// A stable slug.
    error_code: String,
    /// The field at fault.
    #[schema(required)]
    param: Option<String>,
}

/// Of a provider that has too much to do, which clients of this wire tell from other failures.
const OVERLOADED: u16 = 529;

fn status(error: &ApiError) -> StatusCode {
    let overloaded = StatusCode::from_u16(OVERLOADED).ok();
    overloaded
        .filter(|_| error.code == "service_overloaded")
        .unwrap_or(error.status)
}

fn kind(error: &ApiError) -> &'static str {
    match (error.status.as_u16(), &*error.code) {
        (_, "insufficient_quota") | (402, _) => "billing_error",
        (_, "service_overloaded") => "overloaded_error",
        (401, _) => "authentication_error",
        (403, _) => "permission_error",
        (404, _) => "not_found_error",
        (413, _) => "request_too_large",
        (429, _) => "rate_limit_error",
        (504, _) => "timeout_error",
        (400..=499, _) => "invalid_request_error",
        _ => "api_error",
    }
}

/// The words by which agents know that a conversation must be made shorter.
const TOO_LONG: &str = "prompt is too long";

fn message(error: &ApiError) -> String {
    let message = match &error.param {
        Some(param) if !error.message.contains(&**param) => {
            format!("{param}: {}", error.message)
        }
        _ => error.message.to_string(),
    };
    match &*error.code {
        "context_length_exceeded" if !message.to_lowercase().contains(TOO_LONG) => {
            format!("{TOO_LONG}: {message}")
        }
        _ => message,
    }
}

fn envelope(error: &ApiError) -> Value {
    json!({
        "type": "error",
        "error": {
            "type": kind(error),
            "message": message(error),
            "details": { "error_code": error.code, "param": error.param },
        },
    })
}

fn body(error: &ApiError, request_id: &str) -> Bytes {
    let mut envelope = envelope(error);
    envelope["request_id"] = json!(request_id);
    envelope.to_string().into()
}

/// `event: error`: how this wire tells of a failure after the header.
pub(super) fn write_error(error: &ApiError, buf: &mut BytesMut) {
    let event = envelope(error).to_string();
    sse::write_event(buf, Some("error"), None, &[event.as_bytes()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_kinds_that_clients_know() {
        for (error, code, kind) in [
            (ApiError::unauthenticated("no"), 401, "authentication_error"),
            (ApiError::invalid("a", "no"), 400, "invalid_request_error"),
            (ApiError::not_found("file", "a"), 404, "not_found_error"),
            (ApiError::too_large(3), 413, "request_too_large"),
            (ApiError::forbidden("a", "no"), 403, "permission_error"),
            (
                ApiError::of_code("rate_limit_exceeded", "no"),
                429,
                "rate_limit_error",
            ),
            (
                ApiError::of_code("insufficient_quota", "no"),
                429,
                "billing_error",
            ),
            (
                ApiError::unavailable("service_overloaded", "no", 1),
                529,
                "overloaded_error",
            ),
            (ApiError::of_code("x", "no"), 502, "api_error"),
        ] {
            assert_eq!(status(&error).as_u16(), code, "{error}");
            let body: Value = serde_json::from_slice(&body(&error, "req_1")).expect("JSON");
            assert_eq!(body["type"], "error");
            assert_eq!(body["error"]["type"], kind, "{error}");
            assert_eq!(body["request_id"], "req_1");
        }
    }

    #[test]
    fn messages_name_the_member_and_tell_agents_to_compact() {
        let error = ApiError::invalid("messages[0].role", "is missing");
        assert_eq!(message(&error), "messages[0].role: is missing");
        let error = ApiError::of_code("context_length_exceeded", "8192 tokens at most");
        assert_eq!(message(&error), "prompt is too long: 8192 tokens at most");
    }
}
