//! One request and its answer on a Pingora session: limits going in, headers and writes going out.
//!
//! Lives here: the exchange with its caller and its end, the `body`, the `answer`.

mod answer;
mod body;
mod record;

pub use answer::{BEARER, COST, cost_value};
pub use body::{SMALL_REQUEST, bad_coding};
pub use record::Recording;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;

use super::dialect::Dialect;
use super::idempotency::Mine;
use super::once::Once;
use crate::auth::{Principal, SMITH_HEADER};
use crate::bodies::Held;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::ids;
use crate::limit::Standing;
use crate::sse::KEEP_ALIVE;

/// The only version of the API's vocabulary.
pub const API_VERSION: &str = "2026-05-01";

/// A connection after an answer, and what was already read of its next request.
pub type GoesOn = (Stream, BytesMut);

/// The client has left or takes no more bytes.
#[derive(Debug)]
pub struct Gone;

/// A request being answered.
pub struct Exchange {
    session: Box<ServerSession>,
    pub gateway: Arc<Gateway>,
    request_id: HeaderValue,
    has_origin: bool,
    /// The body tells its own end.
    is_chunked: bool,
    /// How the path's clients are spoken to, where not as all others.
    pub(super) dialect: Option<&'static Dialect>,
    /// The route's pattern, for metrics.
    pub route: &'static str,
    started: Instant,
    /// Since when the client waits: all of its request is there.
    asked: Instant,
    status: Option<StatusCode>,
    /// Whether the connection may serve another request.
    reusable: bool,
    /// The client has left, or the answer was cut short.
    broken: bool,
    streaming: bool,
    /// How the caller stands to its limits.
    standing: Option<Standing>,
    /// The tenant that calls, when it is known.
    tenant: Option<Arc<str>>,
    /// What the body takes of the node's budget, until the answer begins.
    held: Option<Box<Held>>,
    /// The call's key, while it has no answer.
    once: Option<Box<Once>>,
    /// The answer is one that was given before.
    pub is_replay: bool,
    /// What the answer's header tells besides.
    told: Vec<Extra>,
    /// The answer is kept while it is written.
    recording: Option<Box<Recording>>,
}

/// An additional response header.
pub type Extra = (HeaderName, HeaderValue);

impl Exchange {
    /// Takes a session whose request header has been read.
    pub fn new(session: Box<ServerSession>, gateway: Arc<Gateway>) -> Self {
        let headers = &session.req_header().headers;
        let request_id = headers
            .get("x-request-id")
            .filter(|id| ids::is_sane_request_id(id.as_bytes()))
            .cloned()
            .unwrap_or_else(|| {
                HeaderValue::from_str(&ids::mint_request_id())
                    .unwrap_or(HeaderValue::from_static("unknown"))
            });
        Self {
            has_origin: headers.contains_key(header::ORIGIN),
            is_chunked: headers.contains_key(header::TRANSFER_ENCODING),
            session,
            gateway,
            request_id,
            dialect: None,
            route: "unknown",
            started: Instant::now(),
            asked: Instant::now(),
            status: None,
            reusable: true,
            broken: false,
            streaming: false,
            standing: None,
            tenant: None,
            held: None,
            once: None,
            is_replay: false,
            told: Vec::new(),
            recording: None,
        }
    }

    /// Holds the call's key until it is answered: a whole answer is kept for it.
    pub fn hold_key(&mut self, key: Mine) {
        self.once = Some(Box::new(Once::new(key)));
    }

    /// Has the answer's header tell something, in place of what it was to tell by that name. What comes
    /// behind the header is told no more.
    pub fn tell(&mut self, name: HeaderName, value: HeaderValue) {
        if !self.streaming {
            self.told.retain(|(other, _)| *other != name);
            self.told.push((name, value));
        }
    }

    /// The request's header.
    pub fn request(&self) -> &RequestHeader {
        self.session.req_header()
    }

    /// A request header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.session.req_header().headers.get(name)?.to_str().ok()
    }

    /// The verified caller, counted against its limits; also checks `IC-Api-Version`.
    pub async fn principal(&mut self) -> Result<Arc<Principal>, ApiError> {
        if let Some(version) = self.header("ic-api-version")
            && version != API_VERSION
        {
            return Err(ApiError::bad_request(
                "unsupported_api_version",
                format!("IC-Api-Version '{version}' is not supported; use {API_VERSION}"),
            ));
        }
        let headers = &self.session.req_header().headers;
        let bearer = headers.get(header::AUTHORIZATION);
        let keyed = self.dialect.filter(|_| bearer.is_none());
        let key = keyed.and_then(|dialect| headers.get(dialect.key_header));
        let key = key.map(|key| Cow::Borrowed(key.as_bytes()));
        let of_query = || {
            self.parameter(keyed?.key_parameter?)
                .map(String::into_bytes)
        };
        let key = key.or_else(|| of_query().map(Cow::Owned));
        let auth = &self.gateway.auth;
        let principal = match key {
            Some(key) => auth.caller(key.trim_ascii()).await?,
            None => {
                let header = bearer.map(HeaderValue::as_bytes);
                auth.authenticate(header).await?
            }
        };
        self.tenant = Some(principal.tenant_id.clone());
        match self
            .gateway
            .admission
            .admit(&principal, self.header(SMITH_HEADER))
        {
            Ok(standing) => self.standing = standing,
            Err(refused) => {
                self.standing = Some(refused.standing);
                return Err(refused.error);
            }
        }
        Ok(principal)
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let query = self.request().uri.query()?;
        let mut given = url::form_urlencoded::parse(query.as_bytes());
        let (_, value) = given.find(|(given, _)| given == name)?;
        Some(value.into_owned())
    }

    /// How the client is spoken to from now on, where what it asks for has a form of its own.
    pub fn speak(&mut self, dialect: &'static Dialect) {
        self.dialect = Some(dialect);
    }

    /// Silence on a stream after which a comment is written.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.gateway.config.server.keep_alive_ms)
    }

    /// What is written to a stream that is silent.
    pub fn sign_of_life(&self) -> Bytes {
        Bytes::from_static(self.dialect.map_or(KEEP_ALIVE, |d| d.sign_of_life))
    }

    /// For how long the client waits by now.
    pub fn waited(&self) -> Duration {
        self.asked.elapsed()
    }

    /// Whether an event stream has begun: an error can only be told inside of it.
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// Leaves in a copy of the request's headers only what is true of how the client reaches us:
    /// what a proxy says is believed when it is configured, and TLS that ends here is known.
    pub fn settle_origin(&self, headers: &mut HeaderMap) {
        if !self.gateway.config.server.trust_forwarded {
            headers.remove("x-forwarded-proto");
            headers.remove("x-forwarded-host");
        }
        let digest = self.session.digest();
        if digest.is_some_and(|digest| digest.ssl_digest.is_some()) {
            let https = HeaderValue::from_static("https");
            headers.entry("x-forwarded-proto").or_insert(https);
        }
        // HTTP/2 names the host elsewhere.
        if !headers.contains_key(header::HOST)
            && let Some(authority) = self.request().uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(header::HOST, host);
        }
    }

    /// Writes a piece of a stream, waiting while the client is slow.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        if piece.is_empty() {
            return Ok(());
        }
        self.note(&piece);
        // What HTTP/2 takes is not held by each stream on HTTP/1.1.
        let written = match &mut *self.session {
            ServerSession::H1(session) => session.write_body(&piece).await.map(|_| ()),
            session => Box::pin(session.write_response_body(piece, false)).await,
        };
        written.map_err(|_| self.gone())
    }

    /// Waits until the client has left. Must be polled beside the next frame, never instead of it.
    pub async fn client_gone(&mut self) {
        // Bytes after the request (pipelining) are not served beside a stream either.
        let _ = match &mut *self.session {
            ServerSession::H1(session) => session.read_body_or_idle(true).await,
            session => Box::pin(session.read_body_or_idle(true)).await,
        };
        self.broken = true;
    }

    /// Ends the answer; the connection may serve another request.
    pub async fn finish(mut self) -> Option<GoesOn> {
        if let Some(once) = self.once.take() {
            Box::pin(once.give_back()).await;
        }
        let status = self.status.map_or(499, |s| s.as_u16());
        self.gateway
            .metrics
            .requests
            .with_label_values(&[self.route, itoa::Buffer::new().format(status)])
            .inc();
        if self.streaming {
            self.gateway.metrics.streams_open.dec();
        }
        if self.broken || self.status.is_none() {
            self.session.shutdown().await;
            return None;
        }
        if !self.session.is_body_done() {
            // The rest of a body must not be taken for the next request.
            self.reusable = false;
            if !self.session.is_http2() && self.session.finish_body().await.is_err() {
                return None;
            }
            self.drain().await;
        }
        if !self.reusable {
            self.session.set_keepalive(None);
        }
        let reusable = (*self.session).finish().await.ok().flatten()?;
        let (stream, rest) = reusable.into_parts();
        let rest = rest.unwrap_or_default();
        // Where such a body ends is what servers disagree about most, so what came along with it is
        // not taken for a request.
        match self.is_chunked && !rest.is_empty() {
            true => None,
            false => Some((stream, rest)),
        }
    }
}
