//! The service: reads a request's header, finds its route, and hands it to a native wire or to
//! the bridge.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;

use super::exchange::{Exchange, GoesOn, Gone};
use super::route::Routes;
use super::{bridge, head};
use crate::error::ApiError;
use crate::gateway::Gateway;

/// Streams of one connection at a time.
const MAX_STREAMS: u32 = 256;
/// What a stream may have been given and not yet sent, in bytes.
const MAX_UNSENT: usize = 128 * 1024;
/// Streams that a client began and took back: those that nobody has looked at yet, and those whose
/// end is remembered for what may still come of them.
const MAX_TAKEN_BACK: usize = 32;
/// Streams of one connection that the client's own mistakes have ended; then it ends.
const MAX_MISTAKES: usize = 64;
const H2_IDLE: Duration = Duration::from_secs(300);

/// The service of all listeners but the metrics one.
pub struct App {
    gateway: Arc<Gateway>,
    routes: Routes,
    options: HttpServerOptions,
}

impl App {
    /// Over `gateway`, with the table of its routes.
    pub fn new(gateway: Arc<Gateway>, routes: Routes) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(H2_IDLE);
        Self {
            gateway,
            routes,
            options,
        }
    }

    /// What is large is boxed: a future is as large as its largest branch, and each connection has
    /// one.
    async fn serve(&self, exchange: &mut Exchange) -> Result<(), Gone> {
        let path = exchange.request().uri.path().to_owned();
        if !bridge::takes_body(&exchange.request().method)
            && let Err(error) = Box::pin(exchange.no_body()).await
        {
            exchange.route = "no body";
            return Box::pin(exchange.respond_error(&error)).await;
        }
        let is_api = path.starts_with("/v1/") || path.starts_with("/v1beta/");
        if exchange.request().method == Method::OPTIONS && is_api {
            exchange.route = "preflight";
            return Box::pin(preflight(exchange)).await;
        }
        let found = self.routes.find(&exchange.request().method, &path);
        if found.is_some_and(|route| route.begins_work)
            && let Err(error) = self.gateway.overload.check()
        {
            exchange.route = "overload";
            return Box::pin(exchange.respond_error(&error)).await;
        }
        let query = exchange.request().uri.query().unwrap_or_default();
        let by_wire = found.and_then(|route| Some((route, route.by.wire(query)?)));
        let served = match by_wire {
            Some((route, serve)) => {
                exchange.route = route.pattern;
                serve(exchange, route.ids(&path).unwrap_or_default())
            }
            None => {
                let is_upload = found.is_some_and(|route| route.upload);
                Box::pin(bridge::serve(exchange, &self.routes, is_upload))
            }
        };
        served.await
    }
}

/// Answers a CORS preflight: tokens are bearers, so any origin may ask.
async fn preflight(exchange: &mut Exchange) -> Result<(), Gone> {
    let asked = exchange
        .request()
        .headers
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .cloned()
        .unwrap_or(HeaderValue::from_static("Authorization, Content-Type"));
    let extra = [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS"),
        ),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, asked),
        (
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("86400"),
        ),
        (
            header::VARY,
            HeaderValue::from_static("Origin, Access-Control-Request-Headers"),
        ),
    ];
    exchange
        .respond(StatusCode::NO_CONTENT, &extra, Bytes::new())
        .await
}

impl App {
    /// How long a connection may be silent between two requests.
    pub fn keepalive(&self) -> Duration {
        Duration::from_secs(self.gateway.config.server.keepalive_timeout_s)
    }

    /// How long a request's header may take, once it has begun.
    pub fn header_time(&self) -> Duration {
        Duration::from_secs(self.gateway.config.server.header_timeout_s).min(self.keepalive())
    }

    /// Reads a request and answers it; what is left is for the next request of its connection.
    pub async fn answer(&self, mut session: Box<ServerSession>) -> Option<GoesOn> {
        session.set_keepalive(Some(self.keepalive().as_secs()));
        // Boxed, as what only the beginning needs would be held as long as the answer lasts.
        let read = tokio::time::timeout(self.header_time(), session.read_request());
        match Box::pin(read).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return None,
            Ok(Err(error)) => {
                // The error itself quotes the header, which may hold a token.
                let kind = error.etype().as_str();
                tracing::debug!(kind, "a bad request header");
                if matches!(error.etype(), pingora_core::ErrorType::InvalidHTTPHeader) {
                    let refusal = ApiError::bad_request("invalid_request", "bad HTTP request");
                    session.set_keepalive(None);
                    let told = session.respond_error_with_body(400, refusal.body());
                    let _ = Box::pin(told).await;
                }
                return None;
            }
        }
        session.set_pipelining_enabled(true);
        let mut exchange = Exchange::new(session, self.gateway.clone());
        exchange.dialect = self.routes.dialect(exchange.request().uri.path());
        let (_in_flight, refusal) = match self.gateway.enter() {
            Ok(in_flight) => (Some(in_flight), None),
            // Probes must see what is going on.
            Err(_) if ["/health", "/ready"].contains(&exchange.request().uri.path()) => {
                (None, None)
            }
            Err(error) => (None, Some(Box::new(error))),
        };
        let answered = match refusal {
            Some(refusal) => Box::pin(exchange.respond_error(&refusal)).await,
            None => self.serve(&mut exchange).await,
        };
        if answered.is_err() {
            tracing::debug!(route = exchange.route, "the client left");
        }
        Box::pin(exchange.finish()).await
    }
}

impl HttpServerApp for App {
    /// What the trait's `async fn` stands for: written as one, the future would hold the session
    /// itself, twice.
    fn process_new_http<'a, 'b, 'f>(
        self: &'a Arc<Self>,
        session: ServerSession,
        _shutdown: &'b ShutdownWatch,
    ) -> BoxFuture<'f, Option<ReusedHttpStream>>
    where
        'a: 'f,
        'b: 'f,
    {
        // HTTP/2 only: a stream's connection is not its own to go on with.
        Box::pin(self.answer(Box::new(session)).map(|_| None))
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = H2Options::new();
        options
            .max_header_list_size(head::MAX as u32)
            .max_concurrent_streams(MAX_STREAMS)
            .max_concurrent_reset_streams(MAX_TAKEN_BACK)
            .max_pending_accept_reset_streams(MAX_TAKEN_BACK)
            .max_local_error_reset_streams(Some(MAX_MISTAKES))
            .max_send_buffer_size(MAX_UNSENT);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
