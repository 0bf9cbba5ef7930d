//! The upstream HTTP client: Pingora's sessions, with the address guard in front of every
//! connection. Dropping a response closes its connection, which is how a provider learns
//! that nobody listens any more.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error as PingoraError, ErrorType};
use pingora_http::RequestHeader;

use super::address::AddressGuard;
use super::error::ModelError;
use super::plain::{Place, PlainPool, PlainStream};
use crate::block;
use crate::silence::Silence;

const POOL_SIZE: usize = 1024;
const POOL_IDLE: Duration = Duration::from_secs(60);
const DNS_TTL: Duration = Duration::from_secs(30);
const MAX_STREAMS_PER_CONNECTION: usize = 100;

/// A provider's base URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    authority: Arc<str>,
    /// Without a trailing slash.
    base_path: String,
    /// Named by the operator: the address guard does not apply.
    trusted: bool,
}

impl Endpoint {
    /// From a base URL such as `https://api.openai.com/v1`; the message says what is wrong.
    pub fn parse(base_url: &str, trusted: bool) -> Result<Self, String> {
        let url = url::Url::parse(base_url).map_err(|e| e.to_string())?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(format!("'{other}' is no http(s) URL")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must hold no user name or password".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must hold no query and no fragment".to_owned());
        }
        let host = url.host_str().ok_or("names no host")?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().ok_or("names no port")?,
            authority: authority.into(),
            base_path: url.path().trim_end_matches('/').to_owned(),
            trusted,
        })
    }

    /// The IP address, when the host is one.
    pub fn literal_address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    /// Until the response header.
    pub first_byte: Duration,
    /// Between two reads of the body.
    pub idle: Duration,
}

/// One request.
#[derive(Debug)]
pub struct UpstreamRequest<'a> {
    pub method: Method,
    /// After the base path; begins with a slash and may hold a query.
    pub path: &'a str,
    pub headers: &'a [(HeaderName, HeaderValue)],
    pub body: Bytes,
    /// Whether it may reach the server twice: a kept connection that breaks before the answer does
    /// not tell whether the request got through (RFC 9110, section 9.2.2).
    pub repeatable: bool,
}

/// The addresses of a host and port.
type Looked = futures_util::future::BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;

/// How names are looked up.
pub struct Names(pub Box<dyn Fn(String, u16) -> Looked + Send + Sync>);

fn system_names(host: String, port: u16) -> Looked {
    Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
}

/// The client. One for the whole gateway.
pub struct Upstream {
    /// With TLS, on HTTP/2 where it is offered.
    connector: Arc<Connector>,
    /// Without TLS.
    plain: Arc<PlainPool>,
    guard: AddressGuard,
    names: arc_swap::ArcSwap<Names>,
    addresses: moka::future::Cache<(String, u16), Arc<[SocketAddr]>>,
}

impl Upstream {
    /// A client whose untrusted endpoints are held by `guard`.
    pub fn new(guard: AddressGuard) -> Self {
        Self {
            connector: Arc::new(Connector::new(Some(ConnectorOptions::new(POOL_SIZE)))),
            plain: PlainPool::new(POOL_IDLE),
            guard,
            names: arc_swap::ArcSwap::from_pointee(Names(Box::new(system_names))),
            addresses: moka::future::Cache::builder()
                .max_capacity(10_000)
                .time_to_live(DNS_TTL)
                .build(),
        }
    }

    /// The guard, for checks at registration.
    pub fn guard(&self) -> &AddressGuard {
        &self.guard
    }

    /// Looks names up with `names` from now on, instead of asking the system.
    pub fn resolve_with(&self, names: Names) {
        self.names.store(Arc::new(names));
        self.addresses.invalidate_all();
    }

    /// Whether `endpoint` may be reached: looks its name up and holds every address against the
    /// guard. What is allowed now can still be refused when it is connected to.
    pub async fn check(&self, endpoint: &Endpoint) -> Result<(), ModelError> {
        self.resolve(endpoint).await.map(|_| ())
    }

    async fn resolve(&self, endpoint: &Endpoint) -> Result<Arc<[SocketAddr]>, ModelError> {
        let found = match endpoint.literal_address() {
            Some(ip) => Arc::from([SocketAddr::new(ip, endpoint.port)].as_slice()),
            None => {
                let key = (endpoint.host.clone(), endpoint.port);
                let looked = self.addresses.try_get_with(key, async {
                    let names = self.names.load_full();
                    let found = (names.0)(endpoint.host.clone(), endpoint.port).await?;
                    Ok::<_, std::io::Error>(found.into())
                });
                Box::pin(looked)
                    .await
                    .map_err(|e| ModelError::Connect(format!("{}: {e}", endpoint.host)))?
            }
        };
        if endpoint.trusted {
            return Ok(found);
        }
        // The address that is checked is the one that is connected to.
        let mut refused = None;
        let allowed: Vec<SocketAddr> = found
            .iter()
            .copied()
            .filter(|address| match self.guard.check(address.ip()) {
                Ok(()) => true,
                Err(why) => {
                    refused = Some(why);
                    false
                }
            })
            .collect();
        match (allowed.is_empty(), refused) {
            (true, Some(why)) => Err(ModelError::Forbidden(format!("{}: {why}", endpoint.host))),
            _ => Ok(allowed.into()),
        }
    }

    /// Sends `request` and waits for the response header. Stale pooled connections are replaced,
    /// unless the request is not repeatable and may have been read; nothing else is repeated here.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        request: &UpstreamRequest<'_>,
        timeouts: Timeouts,
    ) -> Result<UpstreamResponse, ModelError> {
        let addresses = self.resolve(endpoint).await?;
        if addresses.is_empty() {
            return Err(ModelError::Connect(format!(
                "{} has no address",
                endpoint.host
            )));
        }
        let mut last = None;
        for address in addresses.iter() {
            match self.send_to(*address, endpoint, request, timeouts).await {
                Err(error @ ModelError::Connect(_)) => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or(ModelError::Cut))
    }

    async fn send_to(
        &self,
        address: SocketAddr,
        endpoint: &Endpoint,
        request: &UpstreamRequest<'_>,
        timeouts: Timeouts,
    ) -> Result<UpstreamResponse, ModelError> {
        let origin = self.origin(address, endpoint, timeouts);
        // A pooled connection may have been closed by the provider in the meantime.
        const STALE_TRIES: usize = 3;
        let mut tried = 0;
        loop {
            tried += 1;
            let (mut session, reused) = origin.session(timeouts).await?;
            session.set_read_timeout(Some(timeouts.first_byte));
            session.set_write_timeout(Some(timeouts.first_byte));
            match exchange(&mut session, endpoint, request).await {
                Ok((status, headers)) => {
                    // The silence keeps the time from here on: Pingora's timeout makes a timer for
                    // every read that has to wait.
                    session.set_read_timeout(None);
                    return Ok(UpstreamResponse {
                        status,
                        headers,
                        session: Some(session),
                        silence: Silence::new(timeouts.idle),
                        is_waiting: false,
                        failed: None,
                        origin,
                    });
                }
                Err(error)
                    if reused
                        && tried < STALE_TRIES
                        && (request.repeatable && is_stale(&error) || is_unsent(&error)) => {}
                Err(error) => return Err(read_error(&error, "response header")),
            }
        }
    }

    fn origin(&self, address: SocketAddr, endpoint: &Endpoint, timeouts: Timeouts) -> Origin {
        if !endpoint.tls {
            let place = (address, endpoint.authority.clone());
            return Origin::Plain(place, self.plain.clone());
        }
        let mut peer = HttpPeer::new(address, true, endpoint.host.clone());
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect * 2);
        peer.options.max_h2_streams = MAX_STREAMS_PER_CONNECTION;
        peer.options.alpn = ALPN::H2H1;
        Origin::Tls(Box::new(peer), self.connector.clone())
    }
}

/// Where a request goes, and where its connection is kept.
enum Origin {
    Plain(Place, Arc<PlainPool>),
    Tls(Box<HttpPeer>, Arc<Connector>),
}

impl Origin {
    /// A connection, and whether it was used before.
    async fn session(&self, timeouts: Timeouts) -> Result<(Box<HttpSession>, bool), ModelError> {
        let (place, pool) = match self {
            Self::Plain(place, pool) => (place, pool),
            Self::Tls(peer, connector) => {
                // Boxed, as a handshake's state is large and most calls need none of it.
                let session = Box::pin(connector.get_http_session(&**peer)).await;
                return match session {
                    Ok((session, reused)) => Ok((Box::new(session), reused)),
                    Err(error) => Err(connect_error(&error)),
                };
            }
        };
        let (stream, reused) = match pool.take(place) {
            Some(stream) => (stream, true),
            None => {
                let made = tokio::time::timeout(timeouts.connect, PlainStream::connect(place.0));
                match Box::pin(made).await {
                    Ok(Ok(stream)) => (Box::new(stream), false),
                    Ok(Err(error)) => return Err(ModelError::Connect(error.to_string())),
                    Err(_) => return Err(ModelError::Timeout("connecting")),
                }
            }
        };
        let session = HttpSession::H1(Http1Session::new(stream));
        Ok((Box::new(session), reused))
    }

    /// Takes a connection back whose answer was read to its end.
    async fn release(&self, session: Box<HttpSession>) {
        match (self, *session) {
            (Self::Plain(place, pool), HttpSession::H1(mut session)) => {
                session.respect_keepalive();
                let stream = session.reuse().await.map(|stream| stream.into_any());
                if let Some(Ok(stream)) = stream.map(|s| s.downcast::<PlainStream>()) {
                    pool.put(place.clone(), stream);
                }
            }
            (Self::Plain(..), _) => {}
            (Self::Tls(peer, connector), session) => {
                let kept = connector.release_http_session(session, &**peer, Some(POOL_IDLE));
                kept.await;
            }
        }
    }
}

async fn exchange(
    session: &mut HttpSession,
    endpoint: &Endpoint,
    request: &UpstreamRequest<'_>,
) -> Result<(StatusCode, HeaderMap), Box<PingoraError>> {
    let path = format!("{}{}", endpoint.base_path, request.path);
    let mut header = RequestHeader::build_no_case(
        request.method.clone(),
        path.as_bytes(),
        Some(request.headers.len() + 2),
    )?;
    header.insert_header(http::header::HOST, &*endpoint.authority)?;
    for (name, value) in request.headers {
        header.insert_header(name.clone(), value.clone())?;
    }
    let has_body = !request.body.is_empty();
    if has_body || request.method == Method::POST {
        header.insert_header(http::header::CONTENT_LENGTH, request.body.len())?;
    }
    session.write_request_header(Box::new(header)).await?;
    if has_body {
        session
            .write_request_body(request.body.clone(), true)
            .await?;
    }
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let Some(header) = session.response_header() else {
            return PingoraError::e_explain(ErrorType::InvalidHTTPHeader, "no header");
        };
        if !header.status.is_informational() {
            return Ok((header.status, header.headers.clone()));
        }
    }
}

fn is_stale(error: &PingoraError) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed
            | ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::H2Error
    )
}

/// Whether the server cannot have the whole request: some of it was never taken.
fn is_unsent(error: &PingoraError) -> bool {
    matches!(error.etype(), ErrorType::WriteError)
}

fn connect_error(error: &PingoraError) -> ModelError {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => {
            ModelError::Timeout("connecting")
        }
        _ => ModelError::Connect(error.to_string()),
    }
}

fn read_error(error: &PingoraError, what: &'static str) -> ModelError {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => ModelError::Timeout(what),
        ErrorType::InvalidHTTPHeader => ModelError::Malformed("a bad HTTP header".to_owned()),
        _ => ModelError::Cut,
    }
}

/// Pieces that are ready together are taken together, up to about this many bytes.
const READ_BYTES: usize = 64 * 1024;

/// A response whose body is still being read.
pub struct UpstreamResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    session: Option<Box<HttpSession>>,
    silence: Silence,
    /// The next piece is being waited for.
    is_waiting: bool,
    /// What ended the body behind pieces that were still good.
    failed: Option<ModelError>,
    origin: Origin,
}

fn append(into: &mut BytesMut, piece: &[u8]) {
    let room = |into: &BytesMut| into.capacity() - into.len();
    if room(into) < piece.len() {
        match into.is_empty() {
            true => *into = block::READ.with(|block| block.begin(piece.len())),
            false => into.reserve(piece.len().max(into.len())),
        }
    }
    into.extend_from_slice(piece);
}

/// Appends the next piece of the body to `into`; `false` at its end.
async fn piece(session: &mut HttpSession, into: &mut BytesMut) -> Result<bool, Box<PingoraError>> {
    match session {
        // Out of the session's own buffer, without a copy in between.
        HttpSession::H1(session) => match session.read_body_ref().await? {
            Some(piece) => append(into, piece),
            None => return Ok(false),
        },
        session => match session.read_response_body().await? {
            Some(piece) => append(into, &piece),
            None => return Ok(false),
        },
    }
    Ok(true)
}

impl UpstreamResponse {
    /// Appends what has come of the body, waiting for at least one piece; `false` at its end, when
    /// the connection goes back to the pool.
    async fn fill(&mut self, into: &mut BytesMut) -> Result<bool, ModelError> {
        let Some(session) = &mut self.session else {
            return match self.failed.take() {
                Some(error) => Err(error),
                None => Ok(false),
            };
        };
        if !self.is_waiting {
            // A wait that was dropped and begun again is one wait.
            self.is_waiting = true;
            self.silence.broken();
        }
        let before = into.len();
        let mut read = tokio::select! {
            biased;
            read = piece(session, into) => read,
            () = self.silence.lasts() => {
                self.session = None;
                return Err(ModelError::Timeout("response body"));
            }
        };
        self.is_waiting = false;
        while matches!(read, Ok(true)) && into.len() - before < READ_BYTES {
            match piece(session, into).now_or_never() {
                Some(more) => read = more,
                None => break,
            }
        }
        let error = match read {
            Ok(true) => return Ok(true),
            // What came before is told first, and the end again: nothing is lost by a call that is
            // dropped while the connection is given back.
            Ok(false) if into.len() > before => return Ok(true),
            Ok(false) => {
                if let Some(session) = self.session.take() {
                    // Boxed: it is the largest state of a stream, and comes once.
                    Box::pin(self.origin.release(session)).await;
                }
                return Ok(false);
            }
            Err(error) => read_error(&error, "response body"),
        };
        self.session = None;
        match into.len() > before {
            true => {
                self.failed = Some(error);
                Ok(true)
            }
            false => Err(error),
        }
    }

    /// All that has come of the body, waiting for at least one piece; `None` at its end, when the
    /// connection goes back to the pool. May be dropped while waiting without losing bytes.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ModelError> {
        let mut chunk = BytesMut::new();
        let more = self.fill(&mut chunk).await?;
        Ok(more.then(|| block::READ.with(|block| block.cut_off(chunk))))
    }

    /// The whole body, of at most `limit` bytes.
    pub async fn body(&mut self, limit: usize) -> Result<Bytes, ModelError> {
        let declared = self.headers.get(http::header::CONTENT_LENGTH);
        let declared = declared.and_then(|v| v.to_str().ok()?.parse().ok());
        let mut whole = BytesMut::with_capacity(declared.unwrap_or(0).min(READ_BYTES));
        while self.fill(&mut whole).await? {
            if whole.len() > limit {
                self.session = None;
                return Err(ModelError::TooLarge(limit));
            }
        }
        Ok(whole.freeze())
    }

    /// Gives the connection back once the rest of a body that nobody needs has come, if it comes
    /// soon; else closes it.
    pub fn release(mut self) {
        const REST: Duration = Duration::from_secs(1);
        if self.session.is_none() || matches!(self.chunk().now_or_never(), Some(Ok(None) | Err(_)))
        {
            return;
        }
        tokio::spawn(async move {
            let rest = async { while let Ok(Some(_)) = self.chunk().await {} };
            let _ = tokio::time::timeout(REST, rest).await;
        });
    }

    /// Drops the headers, which nobody looks at while a stream lasts.
    pub fn forget_headers(&mut self) {
        self.headers = HeaderMap::new();
    }

    /// `Retry-After` in seconds, from seconds or an HTTP date.
    pub fn retry_after(&self) -> Option<u64> {
        let text = self.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
        if let Ok(seconds) = text.trim().parse::<f64>() {
            return Some(seconds.max(0.0).ceil() as u64);
        }
        let at = httpdate::parse_http_date(text).ok()?;
        Some(
            at.duration_since(std::time::SystemTime::now())
                .map_or(0, |d| d.as_secs() + 1),
        )
    }

    /// Whether the body is an event stream.
    pub fn is_event_stream(&self) -> bool {
        self.headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.trim_start().starts_with("text/event-stream"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request on each connection and closes it on the second; tells how many came.
    async fn breaks_kept_connections(listener: TcpListener, came: Arc<AtomicUsize>) {
        while let Ok((mut socket, _)) = listener.accept().await {
            let came = came.clone();
            tokio::spawn(async move {
                let mut buf = [0u8; 4096];
                for answers in [true, false] {
                    if !matches!(socket.read(&mut buf).await, Ok(1..)) {
                        return;
                    }
                    came.fetch_add(1, Ordering::SeqCst);
                    if answers {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        let _ = socket.write_all(answer).await;
                    }
                }
            });
        }
    }

    #[tokio::test]
    async fn only_what_is_repeatable_is_sent_again_when_a_kept_connection_breaks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let came = Arc::new(AtomicUsize::new(0));
        tokio::spawn(breaks_kept_connections(listener, came.clone()));
        let endpoint = Endpoint::parse(&url, true).expect("valid");
        let upstream = Upstream::new(AddressGuard::default());
        let time = Duration::from_secs(5);
        let timeouts = Timeouts {
            connect: time,
            first_byte: time,
            idle: time,
        };
        for (repeatable, answered, requests) in
            [(true, true, 1), (true, true, 3), (false, false, 4)]
        {
            let request = UpstreamRequest {
                method: Method::POST,
                path: "/",
                headers: &[],
                body: Bytes::from_static(b"{}"),
                repeatable,
            };
            let sent = upstream.send(&endpoint, &request, timeouts).await;
            assert_eq!(came.load(Ordering::SeqCst), requests);
            match sent {
                Ok(mut response) => {
                    assert!(answered, "sent again");
                    assert_eq!(response.body(10).await.expect("a body"), "ok");
                }
                Err(error) => assert!(!answered && matches!(error, ModelError::Cut), "{error}"),
            }
        }
    }

    #[test]
    fn base_urls_are_taken_apart() {
        let endpoint = Endpoint::parse("https://api.openai.com/v1/", false).expect("valid");
        assert_eq!(endpoint.base_path, "/v1");
        assert_eq!((endpoint.port, endpoint.tls), (443, true));
        assert_eq!(&*endpoint.authority, "api.openai.com");
        let endpoint = Endpoint::parse("http://[::1]:9000", false).expect("valid");
        assert_eq!(endpoint.literal_address(), "::1".parse().ok());
        assert_eq!(&*endpoint.authority, "[::1]:9000");
        for bad in [
            "ftp://x",
            "nope",
            "https://u:p@x/",
            "https://x/?a=b",
            "https://x/#f",
        ] {
            assert!(Endpoint::parse(bad, false).is_err(), "{bad}");
        }
    }
}
