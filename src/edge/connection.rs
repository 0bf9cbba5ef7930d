//! A connection's life: a task of its own, a limit on how long it may keep silent before its first
//! bytes, then its requests, one after the other on HTTP/1.1 and side by side on HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;

use super::app::App;

/// The preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What takes a listener's connections.
pub struct Connections {
    app: Arc<App>,
    first_bytes_time: Duration,
}

impl Connections {
    /// Gives each connection `first_bytes_time` for its first bytes.
    pub fn new(app: App, first_bytes_time: Duration) -> Self {
        Self {
            app: Arc::new(app),
            first_bytes_time,
        }
    }
}

#[async_trait]
impl ServerApp for Connections {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // Not in the caller's task, which has room for a handshake (8 KiB) for as long as it lives.
        tokio::spawn(serve(
            self.app.clone(),
            stream,
            shutdown.clone(),
            self.first_bytes_time,
        ));
        None
    }
}

/// Serves a connection to its end. Pingora's way to do so keeps the states of both protocols, and
/// with `h2c` waits without limit for as many bytes as the preface has.
async fn serve(
    app: Arc<App>,
    mut stream: Stream,
    shutdown: ShutdownWatch,
    first_bytes_time: Duration,
) {
    let is_http2 = match stream.get_ssl_digest() {
        Some(_) => matches!(stream.selected_alpn_proto(), Some(ALPN::H2)),
        None => {
            let mut first = [0u8; PREFACE.len()];
            let peek = tokio::time::timeout(first_bytes_time, stream.try_peek(&mut first));
            if !matches!(peek.await, Ok(Ok(_))) {
                return;
            }
            first == *PREFACE
        }
    };
    if is_http2 {
        pingora_core::apps::ServerApp::process_new(&app, stream, &shutdown).await;
        return;
    }
    let mut session = Box::new(ServerSession::new_http1(stream));
    while let Some(reused) = app.answer(session).await {
        let (stream, settings) = reused.consume();
        session = Box::new(ServerSession::new_http1(stream));
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
    }
}
