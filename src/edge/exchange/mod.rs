//! One request and its answer on a Pingora session: limits going in, headers and writes going out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_http::{RequestHeader, ResponseHeader};

use super::once::Once;
use crate::api::idempotency::{Mine, REPLAYED};
use crate::auth::{Principal, SMITH_HEADER};
use crate::bodies::Held;
use crate::coding::{self, CodingError, Unpacker};
use crate::error::ApiError;
use crate::gateway::{Gateway, shuts_down};
use crate::ids;
use crate::limit::Standing;
use crate::untrusted;

/// The only version of the API's vocabulary.
pub const API_VERSION: &str = "2026-05-01";

/// Response headers that scripts of other origins may read.
const EXPOSED: &str = "X-Request-Id, Retry-After, Idempotent-Replayed, X-RateLimit-Limit-Requests, \
    X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests";

/// The largest body of a route that needs no token, or whose requests are small.
pub const SMALL_REQUEST: usize = 64 * 1024;
/// What is written at once of an answer, so that the time for one write fits all lengths.
const ANSWER_PIECE: usize = 256 * 1024;
/// An unread body of at most this many bytes is read before an early answer, so that the
/// connection can be kept.
const SMALL_BODY: u64 = 64 * 1024;
/// How long a body, or the next piece of an upload, is waited for when this node shuts down: work that
/// has not begun is another's.
const BODY_WHILE_DRAINING: Duration = Duration::from_secs(3);
/// How long an unread body may take to arrive before the connection is given up. Closing a socket
/// with unread bytes resets it, and a reset can take the answer away from the client.
const LINGER: Duration = Duration::from_secs(1);

const UNKNOWN_CODING: &str = "unsupported_content_encoding";

/// What is wrong with a body that was packed.
pub fn bad_coding(error: &CodingError) -> ApiError {
    match error {
        CodingError::TooLarge(limit) => ApiError::too_large(*limit),
        other => ApiError::bad_request("invalid_request", other.to_string()),
    }
}

/// JSON in UTF-16, as some shells write it, in UTF-8; `None` for what is none.
fn from_utf16(body: &[u8]) -> Option<Bytes> {
    let (of, body): (fn([u8; 2]) -> u16, _) = match body {
        [0xff, 0xfe, rest @ ..] => (u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => (u16::from_be_bytes, rest),
        [b'{' | b'[', 0, ..] => (u16::from_le_bytes, body),
        [0, b'{' | b'[', ..] => (u16::from_be_bytes, body),
        _ => return None,
    };
    let units = body.chunks_exact(2).map(|pair| of([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.trim_start()
        .starts_with(['{', '['])
        .then(|| Bytes::from(text))
}

/// Without the byte order mark that some shells put before JSON.
fn without_mark(body: Bytes) -> Bytes {
    if let Some(text) = from_utf16(&body) {
        return text;
    }
    match body.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if matches!(rest.trim_ascii_start().first(), Some(b'{' | b'[')) => {
            body.slice(body.len() - rest.len()..)
        }
        _ => body,
    }
}

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
        }
    }

    /// Holds the call's key until it is answered: a whole answer is kept for it.
    pub fn hold_key(&mut self, key: Mine) {
        self.once = Some(Box::new(Once::new(key)));
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
    pub fn principal(&mut self) -> Result<Arc<Principal>, ApiError> {
        if let Some(version) = self.header("ic-api-version")
            && version != API_VERSION
        {
            return Err(ApiError::bad_request(
                "unsupported_api_version",
                format!("IC-Api-Version '{version}' is not supported; use {API_VERSION}"),
            ));
        }
        let value = self.session.req_header().headers.get(header::AUTHORIZATION);
        let principal = self
            .gateway
            .auth
            .authenticate(value.map(HeaderValue::as_bytes))?;
        self.tenant = Some(principal.tenant_id.clone());
        match self
            .gateway
            .gate
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

    /// Silence on a stream after which a comment is written.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.gateway.config.server.keep_alive_ms)
    }

    /// For how long the client waits by now.
    pub fn waited(&self) -> Duration {
        self.asked.elapsed()
    }

    /// Whether an event stream has begun: an error can only be told inside of it.
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// How the body was packed on its way; `None` when it is as it is.
    pub fn unpacker(&self) -> Result<Option<Unpacker>, ApiError> {
        Unpacker::of(&self.session.req_header().headers).map_err(|error| {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            ApiError::new(status, UNKNOWN_CODING, error.to_string())
        })
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

    fn declared_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    fn expects_continue(&self) -> bool {
        self.header("expect")
            .is_some_and(|v| v.eq_ignore_ascii_case("100-continue"))
    }

    /// Reads away what the client still sends, for a bounded time.
    async fn drain(&mut self) {
        let drained = tokio::time::timeout(LINGER, self.session.drain_request_body()).await;
        if !matches!(drained, Ok(Ok(()))) {
            self.reusable = false;
        }
    }

    /// The whole request body, within the configured size and time.
    pub async fn body(&mut self) -> Result<Bytes, ApiError> {
        self.body_within(self.gateway.config.server.max_body_bytes)
            .await
    }

    /// The whole request body of at most `limit` bytes. It is counted in the node's budget until the
    /// answer begins.
    pub async fn body_within(&mut self, limit: usize) -> Result<Bytes, ApiError> {
        let unpacker = self.unpacker()?;
        self.begin_body(limit).await?;
        let time = Duration::from_secs(self.gateway.config.server.body_timeout_s);
        let gateway = self.gateway.clone();
        let body = tokio::select! {
            biased;
            read = tokio::time::timeout(time, self.read_body(limit)) => match read {
                Ok(body) => body?,
                Err(_) => return Err(self.late_body()),
            },
            () = gateway.draining_for(BODY_WHILE_DRAINING) => {
                self.reusable = false;
                return Err(shuts_down());
            }
        };
        self.asked = Instant::now();
        let body = match unpacker {
            // Boxed: seldom, and large.
            Some(unpacker) if !body.is_empty() => {
                Box::pin(self.unpacked(unpacker, body, limit)).await?
            }
            _ => body,
        };
        let body = without_mark(body);
        self.hold_parsed(&body).await?;
        Ok(body)
    }

    /// Counts what JSON becomes once it is parsed, where that is far more than its text; refuses what
    /// no budget would be enough for.
    async fn hold_parsed(&mut self, body: &Bytes) -> Result<(), ApiError> {
        if !matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return Ok(());
        }
        if untrusted::is_vast(body) {
            return Err(ApiError::bad_request(
                "invalid_request",
                "the JSON has more values in lists and objects than can be held",
            ));
        }
        match untrusted::unusual_bytes(body) {
            0 => Ok(()),
            bytes => self.budget().grow_within_share(bytes).await,
        }
    }

    /// What a packed body becomes, which nobody knows before: all that it may be is counted meanwhile.
    async fn unpacked(
        &mut self,
        unpacker: Unpacker,
        packed: Bytes,
        limit: usize,
    ) -> Result<Bytes, ApiError> {
        let so_far = packed.len();
        self.hold(limit.saturating_sub(so_far)).await?;
        let unpacked = unpacker.whole(packed, limit).await;
        let unpacked = unpacked.map_err(|error| bad_coding(&error))?;
        if let Some(held) = &mut self.held {
            held.shrink(limit.saturating_sub(unpacked.len()));
        }
        Ok(unpacked)
    }

    fn late_body(&mut self) -> ApiError {
        self.reusable = false;
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request",
            "the request body did not arrive in time",
        )
    }

    /// Lets the client send its body, unless it says itself that it is above `limit` bytes.
    pub async fn begin_body(&mut self, limit: usize) -> Result<(), ApiError> {
        if self
            .declared_length()
            .is_some_and(|length| length > limit as u64)
        {
            self.reusable = false;
            return Err(ApiError::too_large(limit));
        }
        if self.expects_continue() && self.write_continue().await.is_err() {
            self.reusable = false;
            return Err(ApiError::bad_request(
                "invalid_request",
                "the client has left",
            ));
        }
        Ok(())
    }

    /// Pingora takes an interim response for an answer before the body, and would close behind it.
    async fn write_continue(&mut self) -> Result<(), Box<pingora_core::Error>> {
        self.session
            .set_close_on_response_before_downstream_finish(false);
        let written = self.session.write_continue_response().await;
        self.session
            .set_close_on_response_before_downstream_finish(true);
        written
    }

    /// The next piece of the body; `None` at its end. `patience` is for this piece alone.
    pub async fn body_piece(&mut self, patience: Duration) -> Result<Option<Bytes>, ApiError> {
        let gateway = self.gateway.clone();
        let piece = tokio::select! {
            biased;
            piece = tokio::time::timeout(patience, self.session.read_request_body()) => piece,
            () = gateway.draining_for(BODY_WHILE_DRAINING) => {
                self.reusable = false;
                return Err(shuts_down());
            }
        };
        match piece {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => {
                self.reusable = false;
                tracing::debug!(%error, "reading a request body");
                Err(ApiError::bad_request(
                    "invalid_request",
                    "the request body is broken",
                ))
            }
            Err(_) => Err(self.late_body()),
        }
    }

    /// Reads away the body of a request whose method has none; 413 for one that is not small.
    pub async fn no_body(&mut self) -> Result<(), ApiError> {
        if self.session.is_body_done() {
            return Ok(());
        }
        let length = self.declared_length().unwrap_or(0);
        if self.expects_continue() || length > SMALL_BODY {
            self.reusable = false;
            return match length > SMALL_BODY {
                true => Err(ApiError::too_large(SMALL_REQUEST)),
                false => Ok(()),
            };
        }
        let mut read = 0;
        let drained = tokio::time::timeout(LINGER, async {
            while let Ok(Some(piece)) = self.session.read_request_body().await {
                read += piece.len() as u64;
                if read > SMALL_BODY {
                    return false;
                }
            }
            true
        });
        let is_small = drained.await;
        if is_small != Ok(true) {
            self.reusable = false;
        }
        match is_small {
            Ok(false) => Err(ApiError::too_large(SMALL_REQUEST)),
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// What the request takes of the node's budget, until the answer begins.
    pub fn budget(&mut self) -> &mut Held {
        self.held.get_or_insert_with(|| {
            let owner = self.tenant.clone().unwrap_or_else(|| Arc::from(""));
            Box::new(self.gateway.bodies.begin(owner))
        })
    }

    /// Takes `bytes` of the node's budget for the body, until the answer begins.
    pub async fn hold(&mut self, bytes: usize) -> Result<(), ApiError> {
        let grown = self.budget().grow(bytes).await;
        if grown.is_err() {
            self.reusable = false;
        }
        grown
    }

    async fn read_body(&mut self, limit: usize) -> Result<Bytes, ApiError> {
        let mut first: Option<Bytes> = None;
        let mut whole = BytesMut::new();
        loop {
            let piece = self.session.read_request_body().await.map_err(|error| {
                self.reusable = false;
                tracing::debug!(%error, "reading a request body");
                ApiError::bad_request("invalid_request", "the request body is broken")
            })?;
            let Some(piece) = piece else {
                break;
            };
            if whole.len() + first.as_ref().map_or(0, Bytes::len) + piece.len() > limit {
                self.reusable = false;
                return Err(ApiError::too_large(limit));
            }
            self.hold(piece.len()).await?;
            match first.take() {
                None if whole.is_empty() => first = Some(piece),
                None => whole.extend_from_slice(&piece),
                Some(before) => {
                    whole.extend_from_slice(&before);
                    whole.extend_from_slice(&piece);
                }
            }
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    }

    fn head(&self, status: StatusCode, extra: &[Extra]) -> Box<ResponseHeader> {
        // Without a map of how names are spelled: in lower case, as on HTTP/2.
        let mut head = ResponseHeader::build_no_case(status, Some(6))
            .unwrap_or_else(|_| unreachable!("a StatusCode is a valid status"));
        // Inserting checked names and values cannot fail.
        let mut set = |name: HeaderName, value: HeaderValue| {
            let _ = head.insert_header(name, value);
        };
        set(
            HeaderName::from_static("x-request-id"),
            self.request_id.clone(),
        );
        if self.has_origin {
            set(
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                HeaderValue::from_static("*"),
            );
            set(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(EXPOSED),
            );
        }
        if let Some(standing) = &self.standing {
            for (name, value) in [
                ("x-ratelimit-limit-requests", u64::from(standing.limit)),
                (
                    "x-ratelimit-remaining-requests",
                    u64::from(standing.remaining),
                ),
            ] {
                set(HeaderName::from_static(name), HeaderValue::from(value));
            }
            // OpenAI's clients read a duration here.
            if let Ok(reset) = HeaderValue::from_str(&format!("{}s", standing.reset_s)) {
                set(HeaderName::from_static("x-ratelimit-reset-requests"), reset);
            }
        }
        if self.is_replay {
            set(REPLAYED, HeaderValue::from_static("true"));
        }
        for (name, value) in extra {
            set(name.clone(), value.clone());
        }
        Box::new(head)
    }

    async fn write_head(&mut self, head: Box<ResponseHeader>) -> Result<(), Gone> {
        self.held = None;
        let write_time = Duration::from_secs(self.gateway.config.server.write_timeout_s);
        self.session.set_write_timeout(Some(write_time));
        let unread = !self.session.is_body_done();
        if unread
            && self.reusable
            && !self.expects_continue()
            && self
                .declared_length()
                .is_some_and(|length| length <= SMALL_BODY)
        {
            self.drain().await;
        }
        self.status = Some(head.status);
        self.gateway
            .metrics
            .time_to_first_byte
            .with_label_values(&[self.route])
            .observe(self.started.elapsed().as_secs_f64());
        if !self.reusable || self.gateway.is_draining() {
            self.session.set_keepalive(None);
        }
        self.session
            .write_response_header(head)
            .await
            .map_err(|_| self.gone())
    }

    /// Drops what the request's headers take (2 KiB), which a stream would hold for as long as it
    /// lasts and nobody looks at any more.
    fn forget_headers(&mut self) {
        if !self.session.is_body_done() {
            return;
        }
        let asked = self.session.req_header_mut();
        let (mut kept, ()) = http::Request::new(()).into_parts();
        kept.method.clone_from(&asked.method);
        kept.uri.clone_from(&asked.uri);
        kept.version = asked.version;
        *asked = kept.into();
    }

    fn gone(&mut self) -> Gone {
        self.broken = true;
        Gone
    }

    /// Answers in one piece.
    pub async fn respond(
        &mut self,
        status: StatusCode,
        extra: &[Extra],
        body: Bytes,
    ) -> Result<(), Gone> {
        if let Some(once) = self.once.take() {
            // Before the client has its answer, so that it gets no other one from then on.
            Box::pin(once.settle(status, &body)).await;
        }
        let mut head = self.head(status, extra);
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        if !bodiless {
            let _ = head.insert_header(header::CONTENT_LENGTH, body.len());
        }
        let is_head = self.request().method == http::Method::HEAD;
        self.write_head(head).await?;
        if bodiless || is_head {
            return Ok(());
        }
        let mut rest = body;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(ANSWER_PIECE));
            self.session
                .write_response_body(piece, rest.is_empty())
                .await
                .map_err(|_| self.gone())?;
        }
        Ok(())
    }

    /// Answers with JSON.
    pub async fn respond_json(&mut self, status: StatusCode, body: Bytes) -> Result<(), Gone> {
        let json = (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.respond(status, &[json], body).await
    }

    /// Answers with the error envelope.
    pub async fn respond_error(&mut self, error: &ApiError) -> Result<(), Gone> {
        let mut extra = vec![(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        if let Some(seconds) = error.retry_after {
            extra.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if error.code == "insufficient_quota" {
            // The clients of OpenAI and Anthropic try a 429 again unless they are told not to.
            let name = HeaderName::from_static("x-should-retry");
            extra.push((name, HeaderValue::from_static("false")));
        }
        if error.code == UNKNOWN_CODING {
            let known = HeaderValue::from_static(coding::KNOWN);
            extra.push((header::ACCEPT_ENCODING, known));
        }
        if error.status == StatusCode::UNAUTHORIZED {
            extra.push((header::WWW_AUTHENTICATE, self.how_to_authenticate()));
        }
        // Whoever may have to answer with an error holds no room for that meanwhile.
        Box::pin(self.respond(error.status, &extra, error.body())).await
    }

    /// Tells of an error: as the answer, or by `write` inside of a stream that has begun meanwhile.
    pub async fn fail(
        &mut self,
        error: &ApiError,
        write: fn(&ApiError, &mut BytesMut),
    ) -> Result<(), Gone> {
        if !self.streaming {
            return self.respond_error(error).await;
        }
        let mut buf = BytesMut::new();
        write(error, &mut buf);
        self.write(buf.freeze()).await
    }

    /// MCP hosts learn where to get a token (RFC 9728 5.1).
    fn how_to_authenticate(&self) -> HeaderValue {
        let head = self.request();
        let mut headers = head.headers.clone();
        self.settle_origin(&mut headers);
        let metadata = crate::api::metadata_url(&self.gateway, head.uri.path(), &headers);
        let challenge = metadata.map(|url| format!("Bearer resource_metadata=\"{url}\""));
        challenge
            .and_then(|challenge| HeaderValue::try_from(challenge).ok())
            .unwrap_or(HeaderValue::from_static("Bearer"))
    }

    /// Begins an answer whose body follows in pieces; `extra` tells its length. `false`: only the
    /// header was asked for.
    pub async fn start_body(&mut self, status: StatusCode, extra: &[Extra]) -> Result<bool, Gone> {
        let head = self.head(status, extra);
        let wants_body = self.request().method != http::Method::HEAD;
        self.write_head(head).await?;
        Ok(wants_body)
    }

    /// Begins an event stream, unless it has begun while its first event was waited for.
    pub async fn start_stream(&mut self, extra: &[Extra]) -> Result<(), Gone> {
        if self.streaming {
            return Ok(());
        }
        let mut head = self.head(StatusCode::OK, extra);
        let set = [
            (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache"),
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        for (name, value) in set {
            let _ = head.insert_header(name, HeaderValue::from_static(value));
        }
        if !self.session.is_http2() {
            if self.request().version == Version::HTTP_11 {
                let _ = head.insert_header(
                    header::TRANSFER_ENCODING,
                    HeaderValue::from_static("chunked"),
                );
            } else {
                self.reusable = false;
            }
        }
        self.write_head(head).await?;
        self.forget_headers();
        self.streaming = true;
        self.gateway.metrics.streams_open.inc();
        Ok(())
    }

    /// Writes a piece of a stream, waiting while the client is slow.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        if piece.is_empty() {
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_utf16_is_read() {
        let text = "{\"a\":\"\u{e9}\u{1f600}\"}";
        let little = |unit: u16| unit.to_le_bytes();
        let big = |unit: u16| unit.to_be_bytes();
        let coded = |mark: &[u8], of: fn(u16) -> [u8; 2]| {
            let units = text.encode_utf16().flat_map(of);
            Bytes::from_iter(mark.iter().copied().chain(units))
        };
        for body in [
            coded(b"\xff\xfe", little),
            coded(b"\xfe\xff", big),
            coded(b"", little),
            coded(b"", big),
            Bytes::from([b"\xef\xbb\xbf", text.as_bytes()].concat()),
        ] {
            assert_eq!(without_mark(body), text);
        }
        for other in [&b"\xff\xfePK"[..], b"PK\x03\x04", b"{}", b""] {
            assert_eq!(without_mark(Bytes::copy_from_slice(other)), other);
        }
    }
}
