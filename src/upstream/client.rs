//! The upstream HTTP client: Pingora's sessions, with the address guard in front of every
//! connection. Dropping a response ([`UpstreamResponse`]) closes its connection, which is how a
//! server learns that nobody listens any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
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
use super::cleartext::{CleartextBody, CleartextStream};
use super::endpoint::Endpoint;
use super::error::{UpstreamError, read_error};
use super::pool::{CleartextPool, POOL_IDLE, Place};
use super::response::{Body, UpstreamResponse};

const POOL_SIZE: usize = 1024;
/// What servers are told of us, unless a request says otherwise.
const USER_AGENT: &str = concat!("smithgate/", env!("CARGO_PKG_VERSION"));
const DNS_TTL: Duration = Duration::from_secs(30);
const MAX_STREAMS_PER_CONNECTION: usize = 100;

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
    plain: Arc<CleartextPool>,
    guard: AddressGuard,
    names: arc_swap::ArcSwap<Names>,
    addresses: moka::future::Cache<(String, u16), Arc<[SocketAddr]>>,
}

impl Upstream {
    /// A client whose untrusted endpoints are held by `guard`.
    pub fn new(guard: AddressGuard) -> Self {
        Self {
            connector: Arc::new(Connector::new(Some(ConnectorOptions::new(POOL_SIZE)))),
            plain: CleartextPool::new(POOL_IDLE),
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
    pub async fn check(&self, endpoint: &Endpoint) -> Result<(), UpstreamError> {
        self.resolve(endpoint).await.map(|_| ())
    }

    pub(super) async fn resolve(
        &self,
        endpoint: &Endpoint,
    ) -> Result<Arc<[SocketAddr]>, UpstreamError> {
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
                    .map_err(|e| UpstreamError::Connect(format!("{}: {e}", endpoint.host)))?
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
            (true, Some(why)) => Err(UpstreamError::Forbidden(format!(
                "{}: {why}",
                endpoint.host
            ))),
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
    ) -> Result<UpstreamResponse, UpstreamError> {
        let addresses = self.resolve(endpoint).await?;
        if addresses.is_empty() {
            return Err(UpstreamError::Connect(format!(
                "{} has no address",
                endpoint.host
            )));
        }
        let mut last = None;
        for address in addresses.iter() {
            match self.send_to(*address, endpoint, request, timeouts).await {
                Err(error @ UpstreamError::Connect(_)) => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or(UpstreamError::Cut))
    }

    async fn send_to(
        &self,
        address: SocketAddr,
        endpoint: &Endpoint,
        request: &UpstreamRequest<'_>,
        timeouts: Timeouts,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let origin = self.origin(address, endpoint, timeouts);
        // A pooled connection may have been closed by the server in the meantime.
        const STALE_TRIES: usize = 3;
        let mut tried = 0;
        loop {
            tried += 1;
            let (mut session, reused) = origin.session(timeouts).await?;
            session.set_read_timeout(Some(timeouts.first_byte));
            session.set_write_timeout(Some(timeouts.first_byte));
            match exchange(&mut session, endpoint, request).await {
                Ok((status, headers)) => {
                    let body = origin.body(session, &request.method)?;
                    return Ok(UpstreamResponse::new(status, headers, body, timeouts.idle));
                }
                Err(error)
                    if reused
                        && tried < STALE_TRIES
                        && (request.repeatable && is_stale(&error) || is_unsent(&error)) => {}
                Err(error) => return Err(read_error(&error, "response header")),
            }
        }
    }

    pub(super) fn origin(
        &self,
        address: SocketAddr,
        endpoint: &Endpoint,
        timeouts: Timeouts,
    ) -> Origin {
        if !endpoint.tls {
            let place = (address, endpoint.authority.clone());
            return Origin::Cleartext(place, self.plain.clone());
        }
        let mut peer = HttpPeer::new(address, true, endpoint.host.clone());
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect * 2);
        peer.options.max_h2_streams = MAX_STREAMS_PER_CONNECTION;
        peer.options.alpn = ALPN::H2H1;
        Origin::Tls(Box::new(peer), self.connector.clone())
    }
}

/// Names a connection that no other request is given.
fn only_once() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Where a request goes, and where its connection is kept.
pub(super) enum Origin {
    Cleartext(Place, Arc<CleartextPool>),
    Tls(Box<HttpPeer>, Arc<Connector>),
}

impl Origin {
    /// The same, with a connection that was not used before.
    pub(super) fn anew(mut self) -> Self {
        match &mut self {
            Self::Cleartext(_, pool) => *pool = CleartextPool::new(POOL_IDLE),
            Self::Tls(peer, _) => peer.group_key = only_once(),
        }
        self
    }

    /// A connection, and whether it was used before.
    pub(super) async fn session(
        &self,
        timeouts: Timeouts,
    ) -> Result<(Box<HttpSession>, bool), UpstreamError> {
        let (place, pool) = match self {
            Self::Cleartext(place, pool) => (place, pool),
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
                let made =
                    tokio::time::timeout(timeouts.connect, CleartextStream::connect(place.0));
                match Box::pin(made).await {
                    Ok(Ok(stream)) => (Box::new(stream), false),
                    Ok(Err(error)) => return Err(UpstreamError::Connect(error.to_string())),
                    Err(_) => return Err(UpstreamError::Timeout("connecting")),
                }
            }
        };
        let session = HttpSession::H1(Http1Session::new(stream));
        Ok((Box::new(session), reused))
    }

    /// What is to come of the answer whose head `session` has read, to a request with `method`.
    pub(super) fn body(
        self,
        mut session: Box<HttpSession>,
        method: &Method,
    ) -> Result<Body, UpstreamError> {
        match self {
            Self::Cleartext(place, pool) => {
                let HttpSession::H1(session) = *session else {
                    return Err(UpstreamError::Malformed("no HTTP/1.1 answer".to_owned()));
                };
                let body = CleartextBody::behind(session, method)?;
                Ok(Body::Cleartext(body, place, pool))
            }
            Self::Tls(peer, connector) => {
                // The silence keeps the time from here on: Pingora's timeout makes a timer for
                // every read that has to wait.
                session.set_read_timeout(None);
                Ok(Body::Tls(session, peer, connector))
            }
        }
    }
}

/// The header of a request, without what tells its body's length.
pub(super) fn head_of(
    endpoint: &Endpoint,
    request: &UpstreamRequest<'_>,
) -> Result<RequestHeader, Box<PingoraError>> {
    let mut header = RequestHeader::build_no_case(
        request.method.clone(),
        endpoint.target(request.path).as_bytes(),
        Some(request.headers.len() + 3),
    )?;
    header.insert_header(http::header::HOST, &*endpoint.authority)?;
    header.insert_header(
        http::header::USER_AGENT,
        HeaderValue::from_static(USER_AGENT),
    )?;
    for (name, value) in request.headers {
        header.insert_header(name.clone(), value.clone())?;
    }
    Ok(header)
}

/// The header of the answer that is none of those in between.
pub(super) async fn read_head(
    session: &mut HttpSession,
) -> Result<(StatusCode, HeaderMap), Box<PingoraError>> {
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

async fn exchange(
    session: &mut HttpSession,
    endpoint: &Endpoint,
    request: &UpstreamRequest<'_>,
) -> Result<(StatusCode, HeaderMap), Box<PingoraError>> {
    let mut header = head_of(endpoint, request)?;
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
    read_head(session).await
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

fn connect_error(error: &PingoraError) -> UpstreamError {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => {
            UpstreamError::Timeout("connecting")
        }
        _ => UpstreamError::Connect(error.to_string()),
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

    /// Each step may take `time`.
    async fn sent(
        upstream: &Upstream,
        url: &str,
        request: &UpstreamRequest<'_>,
        time: Duration,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let endpoint = Endpoint::parse(url, true).expect("valid");
        let timeouts = Timeouts {
            connect: time,
            first_byte: time,
            idle: time,
        };
        upstream.send(&endpoint, request, timeouts).await
    }

    #[tokio::test]
    async fn only_what_is_repeatable_is_sent_again_when_a_kept_connection_breaks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let came = Arc::new(AtomicUsize::new(0));
        tokio::spawn(breaks_kept_connections(listener, came.clone()));
        let upstream = Upstream::new(AddressGuard::default());
        let time = Duration::from_secs(5);
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
            let sent = sent(&upstream, &url, &request, time).await;
            assert_eq!(came.load(Ordering::SeqCst), requests);
            match sent {
                Ok(mut response) => {
                    assert!(answered, "sent again");
                    assert_eq!(response.body(10).await.expect("a body"), "ok");
                }
                Err(error) => assert!(!answered && matches!(error, UpstreamError::Cut), "{error}"),
            }
        }
    }

    /// Reads a request of one read and writes `answer` in pieces of `length`, on every connection;
    /// tells how many connections there were. Closes it behind the answer if that `closes`.
    async fn says(
        listener: TcpListener,
        answer: &'static [u8],
        (length, closes): (usize, bool),
        connections: Arc<AtomicUsize>,
    ) {
        while let Ok((mut socket, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                socket.set_nodelay(true).expect("set");
                let mut buf = [0u8; 4096];
                while matches!(socket.read(&mut buf).await, Ok(1..)) {
                    for piece in answer.chunks(length) {
                        if socket.write_all(piece).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(Duration::from_micros(50)).await;
                    }
                    if closes {
                        return;
                    }
                }
            });
        }
    }

    async fn asked(
        upstream: &Upstream,
        url: &str,
        method: Method,
    ) -> Result<String, UpstreamError> {
        let request = UpstreamRequest {
            method,
            path: "/",
            headers: &[],
            body: Bytes::new(),
            repeatable: true,
        };
        let mut response = sent(upstream, url, &request, Duration::from_millis(500)).await?;
        let body = response.body(100_000).await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(format!("{} {body}", response.status.as_u16()))
    }

    #[tokio::test]
    async fn an_answer_is_the_same_in_whatever_pieces_it_comes() {
        const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
            3\r\none\r\n4;a=b\r\n two\r\n0\r\nx: y\r\n\r\n";
        const SIZED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\none two";
        const EARLY: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\
            \r\nHTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\none two";
        const MORE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\none two three";
        const LAST: &[u8] =
            b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\none two";
        const CUT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\none two";
        const CUT_CHUNK: &[u8] =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\none two\r\n";
        const BAD_CHUNK: &[u8] =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\none two three\r\n";
        const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\none two";
        const OLD: &[u8] = b"HTTP/1.0 200 OK\ncontent-length: 7\n\none two";
        const NONE: &[u8] = b"HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n\r\n";
        let (get, whole) = (Method::GET, "200 one two");
        for (answer, closes, method, expected, kept) in [
            (CHUNKED, false, &get, whole, true),
            (SIZED, false, &get, whole, true),
            (EARLY, false, &get, whole, true),
            (MORE, false, &get, whole, false),
            (LAST, true, &get, whole, false),
            (CUT, true, &get, "cut", false),
            (CUT_CHUNK, true, &get, "cut", false),
            (BAD_CHUNK, false, &get, "a chunk does not end", false),
            (CLOSED, true, &get, whole, false),
            (OLD, true, &get, whole, false),
            (NONE, false, &get, "204 ", true),
            (
                &SIZED[..SIZED.len() - 7],
                false,
                &Method::HEAD,
                "200 ",
                true,
            ),
        ] {
            for length in [1, 2, 7, 45, 1000] {
                if answer == MORE && length < answer.len() {
                    // What comes after the connection was given back is found when it is taken.
                    continue;
                }
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
                let url = format!("http://{}", listener.local_addr().expect("an address"));
                let connections = Arc::new(AtomicUsize::new(0));
                let server = says(listener, answer, (length, closes), connections.clone());
                let server = tokio::spawn(server);
                let upstream = Upstream::new(AddressGuard::default());
                for _ in 0..2 {
                    let told = match asked(&upstream, &url, method.clone()).await {
                        Ok(told) => told,
                        Err(error) => error.to_string(),
                    };
                    let answer = String::from_utf8_lossy(answer);
                    assert!(told.contains(expected), "{answer:?} by {length}: {told:?}");
                }
                let opened = connections.load(Ordering::SeqCst);
                assert_eq!(opened, if kept { 1 } else { 2 }, "{answer:?} by {length}");
                server.abort();
            }
        }
    }
}
