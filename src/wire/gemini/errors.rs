//! Errors in Google's shape, and what else its clients expect of the edge.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Form;
use crate::edge::{Dialect, EVENTS};
use crate::error::ApiError;
use crate::sse;

/// How clients of this wire are spoken to. Google's own clients take a comment in a stream for JSON;
/// an empty line is nothing to them, nor to any reader of events.
pub(super) static DIALECT: Dialect = Dialect {
    status: |error| error.status,
    error_body: body,
    key_header: "x-goog-api-key",
    key_parameter: Some("key"),
    request_id_header: "x-request-id",
    stream_type: EVENTS,
    sign_of_life: b"\n\n",
};

/// The same where a stream is a list.
pub(super) static LISTED: Dialect = Dialect {
    status: |error| error.status,
    error_body: body,
    key_header: "x-goog-api-key",
    key_parameter: Some("key"),
    request_id_header: "x-request-id",
    stream_type: "application/json; charset=utf-8",
    sign_of_life: b"\n",
};

/// The envelope of this wire's errors, in the document.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `envelope` writes")]
pub(super) struct GeminiErrorOut {
    error: GeminiErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `envelope` writes")]
pub(super) struct GeminiErrorBody {
    /// The HTTP status.
    code: u16,
    message: String,
    /// Its name, such as `INVALID_ARGUMENT`.
    status: String,
    /// `google.rpc.ErrorInfo`, and what else there is to tell.
    details: Vec<Value>,
}

/// The name of `google.rpc.Code` that an HTTP status stands for.
fn status(error: &ApiError) -> &'static str {
    match error.status.as_u16() {
        401 => "UNAUTHENTICATED",
        402 => "FAILED_PRECONDITION",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        405 | 501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        400..=499 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}

fn detail(kind: &str, members: Value) -> Value {
    let mut detail = json!({ "@type": format!("type.googleapis.com/google.rpc.{kind}") });
    for (name, member) in members.as_object().into_iter().flatten() {
        detail[name] = member.clone();
    }
    detail
}

fn envelope(error: &ApiError, request_id: Option<&str>) -> Value {
    let mut info = json!({ "reason": error.code.to_ascii_uppercase(), "domain": "smithgate" });
    let mut message = error.message.to_string();
    let mut details = Vec::new();
    if let Some(param) = &error.param {
        info["metadata"] = json!({ "param": param });
        let violation = json!({ "field": param, "description": error.message });
        details.push(detail(
            "BadRequest",
            json!({ "fieldViolations": [violation] }),
        ));
        if !message.contains(&**param) {
            message = format!("{param}: {message}");
        }
    }
    details.insert(0, detail("ErrorInfo", info));
    if let Some(seconds) = error.retry_after {
        let delay = format!("{seconds}s");
        details.push(detail("RetryInfo", json!({ "retryDelay": delay })));
    }
    if let Some(id) = request_id {
        details.push(detail("RequestInfo", json!({ "requestId": id })));
    }
    json!({
        "error": {
            "code": error.status.as_u16(),
            "message": message,
            "status": status(error),
            "details": details,
        },
    })
}

fn body(error: &ApiError, request_id: &str) -> Bytes {
    envelope(error, Some(request_id)).to_string().into()
}

/// How a stream tells of a failure. `is_begun`: there are pieces before it.
pub(super) fn write_error(error: &ApiError, form: Form, is_begun: bool, buf: &mut BytesMut) {
    let told = envelope(error, None).to_string();
    match form {
        Form::Events => sse::write_event(buf, None, None, &[told.as_bytes()]),
        Form::List => {
            buf.put_slice(if is_begun { b",\n" } else { b"[" });
            buf.put_slice(told.as_bytes());
            buf.put_slice(b"\n]");
        }
    }
}

/// Of a stream in which nothing was said yet.
pub(super) fn write_event(error: &ApiError, buf: &mut BytesMut) {
    write_error(error, Form::Events, false, buf);
}

/// The same in a list.
pub(super) fn write_item(error: &ApiError, buf: &mut BytesMut) {
    write_error(error, Form::List, false, buf);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_words_that_clients_know() {
        for (error, code, word) in [
            (ApiError::unauthenticated("no"), 401, "UNAUTHENTICATED"),
            (ApiError::invalid("a", "no"), 400, "INVALID_ARGUMENT"),
            (ApiError::not_found("file", "a"), 404, "NOT_FOUND"),
            (ApiError::too_large(3), 413, "INVALID_ARGUMENT"),
            (ApiError::forbidden("a", "no"), 403, "PERMISSION_DENIED"),
            (
                ApiError::of_code("rate_limit_exceeded", "no").retry_after(7),
                429,
                "RESOURCE_EXHAUSTED",
            ),
            (
                ApiError::unavailable("service_overloaded", "no", 1),
                503,
                "UNAVAILABLE",
            ),
            (ApiError::of_code("x", "no"), 502, "INTERNAL"),
        ] {
            let body: Value = serde_json::from_slice(&body(&error, "req_1")).expect("JSON");
            let told = &body["error"];
            assert_eq!(
                (&told["code"], &told["status"]),
                (&json!(code), &json!(word))
            );
            let details = told["details"].as_array().expect("details");
            assert_eq!(details[0]["reason"], error.code.to_ascii_uppercase());
            let delay = details
                .iter()
                .find_map(|detail| detail["retryDelay"].as_str());
            let expected = error.retry_after.map(|seconds| format!("{seconds}s"));
            assert_eq!(delay, expected.as_deref());
            assert_eq!(details.last().expect("one")["requestId"], "req_1");
        }
        let error = ApiError::invalid("contents[0].role", "is missing");
        let told = envelope(&error, None);
        assert_eq!(told["error"]["message"], "contents[0].role: is missing");
    }

    #[test]
    fn a_list_is_ended_by_its_error() {
        let error = ApiError::unauthenticated("no");
        for is_begun in [false, true] {
            let mut buf = BytesMut::from(if is_begun { "[{}" } else { "\n" });
            write_error(&error, Form::List, is_begun, &mut buf);
            let list: Vec<Value> = serde_json::from_slice(&buf).expect("a list");
            assert_eq!(list.last().expect("one")["error"]["code"], 401);
        }
    }
}
