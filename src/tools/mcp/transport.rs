//! MCP's Streamable HTTP over the gateway's HTTP client: one pool, one address guard. A redirect is
//! followed once, on the same origin. What servers answer is read by its bytes, not by its label.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, SseError, StreamableHttpClient, StreamableHttpError,
    StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use sse_stream::Sse;

use super::error::HttpError;
use super::key::ServerKey;
use super::lenient::{self, Asked, Kind, Open};
use super::reading::{Reading, event_of};
use super::words::{Trouble, wants_authorization};
use crate::sse::Splitter;
use crate::upstream::{
    Endpoint, Timeouts, Upstream, UpstreamError, UpstreamRequest, UpstreamResponse,
};

/// MCP's headers (specification 2025-06-18, "Streamable HTTP").
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(65),
    idle: Duration::from_secs(300),
};
/// The most that is read of an answer that is an error, in bytes.
const MAX_ERROR: usize = 64 * 1024;

type Headers = HashMap<HeaderName, HeaderValue>;
type Failed = StreamableHttpError<HttpError>;

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
    pub(super) fn of(key: &ServerKey) -> Self {
        Self {
            bearer: key.bearer.as_deref().map(str::to_owned),
            custom: key.headers.iter().cloned().collect(),
            ..Self::default()
        }
    }

    fn lines(self, has_body: bool) -> Result<Vec<(HeaderName, HeaderValue)>, HttpError> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| HttpError::Header);
        let mut lines: Vec<(HeaderName, HeaderValue)> = self.custom.into_iter().collect();
        lines.push((header::ACCEPT, BOTH));
        if has_body {
            let json = HeaderValue::from_static("application/json");
            lines.push((header::CONTENT_TYPE, json));
        }
        if let Some(session) = self.session {
            lines.push((SESSION_ID, value(session)?));
        }
        if let Some(bearer) = self.bearer {
            let mut secret = value(&format!("Bearer {bearer}"))?;
            secret.set_sensitive(true);
            lines.push((header::AUTHORIZATION, secret));
        }
        if let Some(id) = &self.last_event_id {
            lines.push((LAST_EVENT_ID, value(id)?));
        }
        Ok(lines)
    }
}

/// The client that `rmcp` speaks through, for one session.
#[derive(Clone)]
pub struct GuardedHttp {
    upstream: Arc<Upstream>,
    open: Open,
    trouble: Trouble,
    /// The server refused the header that names the protocol's revision.
    without_version: Arc<AtomicBool>,
}

fn failed(error: impl Into<HttpError>) -> Failed {
    StreamableHttpError::Client(error.into())
}

impl GuardedHttp {
    /// Over the gateway's HTTP client.
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self {
            upstream,
            open: Open::default(),
            trouble: Trouble::default(),
            without_version: Arc::default(),
        }
    }

    /// What went wrong last.
    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// The requests that wait for their answers.
    pub(super) fn open(&self) -> &Open {
        &self.open
    }

    /// Sends a request as it is, whatever its answer's status. A redirect on the same origin is
    /// followed once, with the same method and body.
    pub(super) async fn request(
        &self,
        method: Method,
        uri: &str,
        body: Bytes,
        mut heads: Heads<'_>,
    ) -> Result<UpstreamResponse, HttpError> {
        if self.without_version.load(Ordering::Relaxed) {
            heads.custom.remove(&PROTOCOL_VERSION);
        }
        let repeatable = !heads.calls_tool;
        let lines = heads.lines(!body.is_empty())?;
        let url = url::Url::parse(uri).map_err(|e| HttpError::Url(e.to_string()))?;
        let first = self.once(&method, &url, body.clone(), &lines, repeatable);
        let response = first.await?;
        let Some((to, may_follow)) = redirect(&method, &url, &response) else {
            return Ok(response);
        };
        let moved = |status: StatusCode, to: Option<url::Url>| HttpError::Moved {
            status,
            to: to.map_or_else(|| "nowhere".to_owned(), shown),
        };
        let status = response.status;
        response.release();
        let next = match to {
            Some(next) if may_follow => next,
            to => return Err(moved(status, to)),
        };
        let second = self.once(&method, &next, body, &lines, repeatable).await?;
        match redirect(&method, &next, &second) {
            Some((to, _)) => Err(moved(second.status, to)),
            None => Ok(second),
        }
    }

    async fn once(
        &self,
        method: &Method,
        url: &url::Url,
        body: Bytes,
        headers: &[(HeaderName, HeaderValue)],
        repeatable: bool,
    ) -> Result<UpstreamResponse, HttpError> {
        let query = url.query().map(|query| format!("?{query}"));
        let mut base = url.clone();
        base.set_query(None);
        base.set_fragment(None);
        let endpoint = Endpoint::parse(base.as_str(), false).map_err(HttpError::Url)?;
        // A base URL has lost its last slash, which some servers insist on.
        let slash = if base.path().ends_with('/') { "/" } else { "" };
        let request = UpstreamRequest {
            method: method.clone(),
            path: &format!("{slash}{}", query.unwrap_or_default()),
            headers,
            body,
            repeatable,
        };
        let sent = self.upstream.send(&endpoint, &request, TIMEOUTS);
        Ok(sent.await?)
    }

    /// Sends a message and reads what answers it.
    async fn post(
        &self,
        uri: &str,
        message: &ClientJsonRpcMessage,
        session: Option<&str>,
        bearer: Option<&str>,
        custom: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let body = Bytes::from(serde_json::to_vec(message)?);
        let asked = Asked::of(message);
        if let Some(asked) = &asked {
            self.open.add(asked);
        }
        let names_version = custom.contains_key(&PROTOCOL_VERSION);
        let heads = || Heads {
            session,
            bearer: bearer.map(str::to_owned),
            custom: custom.clone(),
            last_event_id: None,
            calls_tool: calls_tool(message),
        };
        let sent = self.request(Method::POST, uri, body.clone(), heads());
        let mut response = sent.await.map_err(failed)?;
        let Some(asked) = asked else {
            return heard(message, response);
        };
        let mut said = self.error_body(&mut response).await;
        let refuses = |said: &Option<Bytes>, word: &str| {
            let text = said
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            text.to_ascii_lowercase().replace('-', " ").contains(word)
        };
        if response.status == StatusCode::BAD_REQUEST
            && names_version
            && refuses(&said, "protocol version")
            && !self.without_version.swap(true, Ordering::Relaxed)
        {
            // It does not know the header, or not the revision that it named itself.
            let again = self.request(Method::POST, uri, body, heads());
            response = again.await.map_err(failed)?;
            said = self.error_body(&mut response).await;
        }
        match response.status {
            StatusCode::UNAUTHORIZED => {
                let asks = header_of(&response, &header::WWW_AUTHENTICATE);
                return Err(StreamableHttpError::AuthRequired(AuthRequiredError::new(
                    asks,
                )));
            }
            StatusCode::NOT_FOUND if session.is_some() => {
                return Err(StreamableHttpError::SessionExpired);
            }
            StatusCode::BAD_REQUEST if session.is_some() && refuses(&said, "session") => {
                return Err(StreamableHttpError::SessionExpired);
            }
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT if asked.kind != Kind::Initialize => {
                // The answer comes on the session's own stream.
                response.release();
                return Ok(StreamableHttpPostResponse::Accepted);
            }
            _ => {}
        }
        let text_for_people = |body: &[u8]| {
            let secrets = custom.values().filter(|value| value.is_sensitive());
            let secrets = secrets
                .filter_map(|value| value.to_str().ok())
                .chain(bearer);
            let hide = |text: String, secret: &str| match secret.is_empty() {
                true => text,
                false => text.replace(secret, "…"),
            };
            secrets.fold(lenient::excerpt(body), hide)
        };
        if let Some(body) = said {
            let told = lenient::messages(&body, Some(&asked), &self.open).unwrap_or_default();
            let is_protocol = lenient::looks_like_json(&body) && holds_code(&body);
            return match told.into_iter().find(lenient::is_answer) {
                Some(answer) if is_protocol => Ok(StreamableHttpPostResponse::Json(answer, None)),
                _ => Err(failed(HttpError::Status {
                    status: response.status,
                    said: text_for_people(&body),
                })),
            };
        }
        let new_session = session_of(&response);
        let first = match response.is_event_stream() {
            true => None,
            false => first_bytes(&mut response).await.map_err(failed)?,
        };
        if response.is_event_stream() || first.as_deref().is_some_and(looks_like_events) {
            let events = self.events(first, response, limits.max_sse_event_size, Some(asked));
            return Ok(StreamableHttpPostResponse::Sse(events, new_session));
        }
        let mut whole = bytes::BytesMut::from(first.as_deref().unwrap_or_default());
        let left = limits.max_json_response_size.saturating_sub(whole.len());
        whole.extend_from_slice(&response.body(left).await.map_err(failed)?);
        let read = lenient::messages(&whole, Some(&asked), &self.open);
        let mut messages = read.filter(|messages| messages.iter().any(lenient::is_answer));
        match messages
            .as_mut()
            .map(|messages| (messages.pop(), messages.len()))
        {
            Some((Some(answer), 0)) => Ok(StreamableHttpPostResponse::Json(answer, new_session)),
            Some((Some(answer), _)) => {
                let all = messages.into_iter().flatten().chain([answer]);
                let events: Vec<_> = all
                    .filter_map(|message| event_of(&message))
                    .map(Ok)
                    .collect();
                let events = stream::iter(events).boxed();
                Ok(StreamableHttpPostResponse::Sse(events, new_session))
            }
            _ => Err(failed(HttpError::Unreadable(text_for_people(&whole)))),
        }
    }

    /// The body of an answer that is an error; `None` of one that is none.
    async fn error_body(&self, response: &mut UpstreamResponse) -> Option<Bytes> {
        match response.status.is_success() {
            true => None,
            false => Some(response.body(MAX_ERROR).await.unwrap_or_default()),
        }
    }

    /// The events of a response, none larger than `limit` bytes, behind `first`. A stream that is
    /// no event stream but JSON is told as one event.
    pub(super) fn events(
        &self,
        first: Option<Bytes>,
        response: UpstreamResponse,
        limit: usize,
        asked: Option<Asked>,
    ) -> BoxStream<'static, Result<Sse, SseError>> {
        let reading = Reading {
            first,
            response,
            splitter: Splitter::new(limit),
            limit,
            is_first: true,
            open: self.open.clone(),
            asked,
        };
        let parts = stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(events)) => Some((
                    events.into_iter().map(Ok).collect::<Vec<_>>(),
                    Some(reading),
                )),
                Ok(None) => None,
                Err(why) => Some((vec![Err(SseError::Body(why.into()))], None)),
            }
        });
        parts.flat_map(stream::iter).boxed()
    }
}

/// Where a response sends on to, if anywhere, and whether that may be followed; `None` when it does
/// not send on. RFC 9110, section 15.4: 307 and 308 keep the method. 301 and 302 may keep it, which
/// only makes sense where nothing but the last slash differs; elsewhere they lead to pages for
/// people. 303 asks for another method.
fn redirect(
    method: &Method,
    url: &url::Url,
    response: &UpstreamResponse,
) -> Option<(Option<url::Url>, bool)> {
    if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let to = header_of(response, &header::LOCATION);
    let to = url.join(&to).ok().filter(|_| !to.is_empty());
    let may_follow = to.as_ref().is_some_and(|to| {
        let slash = |url: &url::Url| url.path().trim_end_matches('/').to_owned();
        let keeps_method = match response.status.as_u16() {
            307 | 308 => true,
            301 | 302 => *method == Method::GET || slash(to) == slash(url),
            _ => *method == Method::GET,
        };
        keeps_method
            && to.origin() == url.origin()
            && to.username().is_empty()
            && to.password().is_none()
    });
    Some((to, may_follow))
}

/// An address for people: without what may be a secret.
fn shown(mut url: url::Url) -> String {
    const LONGEST: usize = 300;
    // Neither can fail for what has a host, and nothing is shown of the rest.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().chars().take(LONGEST).collect()
}

/// What became of a message that nothing answers. A notification is for the server to make of what
/// it likes; an answer of ours must have got through.
fn heard(
    message: &ClientJsonRpcMessage,
    response: UpstreamResponse,
) -> Result<StreamableHttpPostResponse, Failed> {
    let status = response.status;
    response.release();
    if status.is_success() {
        return Ok(StreamableHttpPostResponse::Accepted);
    }
    if matches!(message, ClientJsonRpcMessage::Notification(_)) {
        tracing::debug!(%status, "an MCP server does not take a notification");
        return Ok(StreamableHttpPostResponse::Accepted);
    }
    let said = String::new();
    Err(failed(HttpError::Status { status, said }))
}

/// Whether a message calls a tool.
pub(super) fn calls_tool(message: &ClientJsonRpcMessage) -> bool {
    Asked::of(message).is_some_and(|asked| asked.kind == Kind::CallTool)
}

fn header_of(response: &UpstreamResponse, name: &HeaderName) -> String {
    let value = response.headers.get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn session_of(response: &UpstreamResponse) -> Option<String> {
    Some(header_of(response, &SESSION_ID)).filter(|id| !id.is_empty())
}

/// Whether the error in a body is one of the protocol, and not the server's of HTTP.
fn holds_code(body: &[u8]) -> bool {
    let body: serde_json::Value =
        serde_json::from_slice(lenient::without_mark(body)).unwrap_or_default();
    let is_one = |message: &serde_json::Value| {
        message.get("jsonrpc").is_some() || message.pointer("/error/code").is_some()
    };
    match &body {
        serde_json::Value::Array(messages) => messages.iter().any(is_one),
        message => is_one(message),
    }
}

/// The first bytes that are more than white space.
async fn first_bytes(response: &mut UpstreamResponse) -> Result<Option<Bytes>, UpstreamError> {
    let mut first = bytes::BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        first.extend_from_slice(&chunk);
        // Enough for the longest name of a field.
        let seen = lenient::without_mark(&first);
        if seen.len() >= "retry:".len() || first.len() > MAX_ERROR {
            break;
        }
    }
    Ok((!first.is_empty()).then(|| first.freeze()))
}

fn looks_like_events(body: &[u8]) -> bool {
    let body = lenient::without_mark(body);
    let fields: [&[u8]; 5] = [b"event:", b"data:", b"id:", b"retry:", b":"];
    fields.iter().any(|field| body.starts_with(field))
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
        let (session, bearer) = (session_id.as_deref(), auth_header.as_deref());
        let posted = self.post(&uri, &message, session, bearer, custom_headers, limits);
        // The transport's task ends without a word when a session does not begin.
        posted.await.inspect_err(|error| {
            self.trouble.note(match error {
                StreamableHttpError::Client(error) => error.to_string(),
                StreamableHttpError::AuthRequired(asked) => {
                    wants_authorization(&asked.www_authenticate_header)
                }
                _ => "the server forgot the session".to_owned(),
            });
        })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<(), Failed> {
        let response = self
            .request(
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
            .await
            .map_err(failed)?;
        let status = response.status;
        response.release();
        match status.is_success() {
            true => Ok(()),
            // The server ends it by itself.
            false => Err(StreamableHttpError::ServerDoesNotSupportDeleteSession),
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
        let goes_on = last_event_id.is_some();
        let mut response = self
            .request(
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
            .await
            .map_err(failed)?;
        let status = response.status;
        if goes_on && (status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()) {
            let said = String::new();
            return Err(failed(HttpError::Status { status, said }));
        }
        let mut first = None;
        if status.is_success() && !response.is_event_stream() {
            first = first_bytes(&mut response).await.map_err(failed)?;
        }
        let is_stream =
            response.is_event_stream() || first.as_deref().is_some_and(looks_like_events);
        if !status.is_success() || !is_stream {
            // A page, a 404, a 405, …: there is no such stream.
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        Ok(self.events(first, response, max_sse_event_size, None))
    }
}
