//! What clients of another API expect of the edge itself, where that differs from what all others
//! get: the shape of errors, where a token comes, what a stream is, and what keeps a silent one alive.

use bytes::Bytes;
use http::StatusCode;

use crate::error::ApiError;

/// The media type of a stream of events.
pub const EVENTS: &str = "text/event-stream; charset=utf-8";

/// How a route's clients are spoken to, before its handler is reached and after.
pub struct Dialect {
    /// An error's status.
    pub status: fn(&ApiError) -> StatusCode,
    /// The body of an answer that is an error, with the id of its request.
    pub error_body: fn(&ApiError, &str) -> Bytes,
    /// The header that a token may come in where there is no `Authorization`.
    pub key_header: &'static str,
    /// The query's parameter that it may come in where there is neither.
    pub key_parameter: Option<&'static str>,
    /// The header that tells the request's id, beside `X-Request-Id`.
    pub request_id_header: &'static str,
    /// The media type of a stream.
    pub stream_type: &'static str,
    /// What is written to a stream that is silent.
    pub sign_of_life: &'static [u8],
}
