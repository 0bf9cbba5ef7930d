//! MCP's Streamable HTTP over the gateway's HTTP client: one pool, one address guard, no redirect
//! is followed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, SseError, StreamableHttpClient, StreamableHttpError,
    StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use sse_stream::{Sse, SseStream};

use crate::model::{Endpoint, ModelError, Models, Timeouts, UpstreamRequest, UpstreamResponse};

/// MCP's headers (specification 2025-06-18, "Streamable HTTP").
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: &str = "text/event-stream";
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(65),
    idle: Duration::from_secs(300),
};

type Headers = HashMap<HeaderName, HeaderValue>;
type Failed = StreamableHttpError<HttpError>;

/// Why a request did not get through.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0}")]
    Upstream(#[from] ModelError),
    #[error("the URL cannot be used: {0}")]
    Url(String),
    #[error("a header holds what no header may")]
    Header,
    #[error("the server answered with status {0}")]
    Status(StatusCode),
}

/// What goes into a request's header.
#[derive(Default)]
pub(super) struct Heads<'a> {
    session: Option<&'a str>,
    bearer: Option<String>,
    custom: Headers,
    last_event_id: Option<String>,
    /// It calls a tool, which may act: it must not reach the server twice.
    pub(super) calls_tool: bool,
}

impl Heads<'_> {
    /// Of a request without a session.
    pub(super) fn with_bearer(bearer: Option<String>) -> Self {
        Self {
            bearer,
            ..Self::default()
        }
    }
}

/// The client that `rmcp` speaks through.
#[derive(Clone)]
pub struct GuardedHttp {
    models: Arc<Models>,
}

fn failed(error: impl Into<HttpError>) -> Failed {
    StreamableHttpError::Client(error.into())
}

impl GuardedHttp {
    /// Over the gateway's HTTP client.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models }
    }

    /// Sends a request as it is, whatever its answer's status.
    pub(super) async fn request(
        &self,
        method: Method,
        uri: &str,
        body: Bytes,
        heads: Heads<'_>,
    ) -> Result<UpstreamResponse, HttpError> {
        let url = url::Url::parse(uri).map_err(|e| HttpError::Url(e.to_string()))?;
        let query = url.query().map(|query| format!("?{query}"));
        let mut base = url;
        base.set_query(None);
        base.set_fragment(None);
        let endpoint = Endpoint::parse(base.as_str(), false).map_err(HttpError::Url)?;
        // A base URL has lost its last slash, which some servers insist on.
        let slash = if base.path().ends_with('/') { "/" } else { "" };
        let path = format!("{slash}{}", query.unwrap_or_default());
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| HttpError::Header);
        let mut headers: Vec<(HeaderName, HeaderValue)> = heads.custom.into_iter().collect();
        headers.push((header::ACCEPT, BOTH));
        if !body.is_empty() {
            headers.push((
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ));
        }
        if let Some(session) = heads.session {
            headers.push((SESSION_ID, value(session)?));
        }
        if let Some(bearer) = heads.bearer {
            let mut secret = value(&format!("Bearer {bearer}"))?;
            secret.set_sensitive(true);
            headers.push((header::AUTHORIZATION, secret));
        }
        if let Some(id) = &heads.last_event_id {
            headers.push((LAST_EVENT_ID, value(id)?));
        }
        let request = UpstreamRequest {
            method,
            path: &path,
            headers: &headers,
            body,
            repeatable: !heads.calls_tool,
        };
        let sent = self.models.upstream.send(&endpoint, &request, TIMEOUTS);
        Ok(sent.await?)
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        body: Bytes,
        heads: Heads<'_>,
    ) -> Result<UpstreamResponse, Failed> {
        let response = self
            .request(method, uri, body, heads)
            .await
            .map_err(failed)?;
        match response.status {
            StatusCode::UNAUTHORIZED => {
                let asked = response
                    .headers
                    .get(header::WWW_AUTHENTICATE)
                    .and_then(|v| v.to_str().ok())
                    .unwrap_or_default();
                Err(StreamableHttpError::AuthRequired(AuthRequiredError::new(
                    asked.to_owned(),
                )))
            }
            status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                let after = response.headers.get(header::RETRY_AFTER);
                let after = after.and_then(|v| v.to_str().ok()).map(str::to_owned);
                Err(HttpStatusError::new(status.as_u16(), after).into())
            }
            _ => Ok(response),
        }
    }
}

/// Whether a message calls a tool.
pub(super) fn calls_tool(message: &ClientJsonRpcMessage) -> bool {
    let ClientJsonRpcMessage::Request(request) = message else {
        return false;
    };
    matches!(request.request, ClientRequest::CallToolRequest(_))
}

fn session_of(response: &UpstreamResponse) -> Option<String> {
    let id = response.headers.get(SESSION_ID)?.to_str().ok()?;
    Some(id.to_owned())
}

/// The events of a response, none larger than `limit` bytes.
pub(super) fn events(
    response: UpstreamResponse,
    limit: usize,
) -> BoxStream<'static, Result<Sse, SseError>> {
    // Bytes since the last blank line, and the last byte seen.
    let state = (response, 0usize, false);
    let bytes = futures_util::stream::unfold(Some(state), move |state| async move {
        let (mut response, mut held, mut newline) = state?;
        match response.chunk().await {
            Ok(None) => None,
            Err(error) => Some((Err(std::io::Error::other(error)), None)),
            Ok(Some(chunk)) => {
                for byte in chunk.iter().filter(|b| **b != b'\r') {
                    held = if *byte == b'\n' && newline {
                        0
                    } else {
                        held + 1
                    };
                    newline = *byte == b'\n';
                    if held > limit {
                        let error = format!("an event is larger than {limit} bytes");
                        return Some((Err(std::io::Error::other(error)), None));
                    }
                }
                Some((Ok(chunk), Some((response, held, newline))))
            }
        }
    });
    SseStream::from_bytes_stream(bytes).boxed()
}

impl StreamableHttpClient for GuardedHttp {
    type Error = HttpError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            limits,
        )
        .await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let body = Bytes::from(serde_json::to_vec(&message)?);
        let calls_tool = calls_tool(&message);
        let mut response = self
            .send(
                Method::POST,
                &uri,
                body,
                Heads {
                    session: session_id.as_deref(),
                    bearer: auth_header,
                    custom: custom_headers,
                    last_event_id: None,
                    calls_tool,
                },
            )
            .await?;
        match response.status {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
                response.release();
                return Ok(StreamableHttpPostResponse::Accepted);
            }
            StatusCode::NOT_FOUND if session_id.is_some() => {
                return Err(StreamableHttpError::SessionExpired);
            }
            _ => {}
        }
        let session = session_of(&response);
        if response.status.is_success() && response.is_event_stream() {
            let events = events(response, limits.max_sse_event_size);
            return Ok(StreamableHttpPostResponse::Sse(events, session));
        }
        let status = response.status;
        let body = response
            .body(limits.max_json_response_size)
            .await
            .map_err(failed)?;
        match serde_json::from_slice::<ServerJsonRpcMessage>(&body) {
            Ok(message) => Ok(StreamableHttpPostResponse::Json(message, session)),
            Err(_) if !status.is_success() => Err(failed(HttpError::Status(status))),
            // Some servers acknowledge a notification with an empty 200.
            Err(_) if body.trim_ascii().is_empty() => Ok(StreamableHttpPostResponse::Accepted),
            Err(error) => Err(StreamableHttpError::Deserialize(error)),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<(), Failed> {
        let response = self
            .send(
                Method::DELETE,
                &uri,
                Bytes::new(),
                Heads {
                    session: Some(&session_id),
                    bearer: auth_header,
                    custom: custom_headers,
                    last_event_id: None,
                    calls_tool: false,
                },
            )
            .await?;
        let status = response.status;
        response.release();
        match status {
            StatusCode::METHOD_NOT_ALLOWED => {
                Err(StreamableHttpError::ServerDoesNotSupportDeleteSession)
            }
            status if status.is_success() => Ok(()),
            status => Err(failed(HttpError::Status(status))),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failed> {
        let limit = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(
            uri,
            session_id,
            last_event_id,
            auth_header,
            custom_headers,
            limit,
        )
        .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
        max_sse_event_size: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failed> {
        let response = self
            .send(
                Method::GET,
                &uri,
                Bytes::new(),
                Heads {
                    session: session_id.as_deref(),
                    bearer: auth_header,
                    custom: custom_headers,
                    last_event_id,
                    calls_tool: false,
                },
            )
            .await?;
        if response.status == StatusCode::METHOD_NOT_ALLOWED {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        if !response.status.is_success() {
            return Err(failed(HttpError::Status(response.status)));
        }
        if !response.is_event_stream() {
            let told = response.headers.get(header::CONTENT_TYPE);
            let told = told.and_then(|v| v.to_str().ok()).unwrap_or(EVENT_STREAM);
            return Err(StreamableHttpError::UnexpectedContentType(Some(
                told.to_owned(),
            )));
        }
        Ok(events(response, max_sse_event_size))
    }
}
