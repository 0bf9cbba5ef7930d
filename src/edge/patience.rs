//! A limit on how long a new connection may keep silent before its first bytes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

/// As long as the preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// Wraps an app. With `h2c`, Pingora reads the length of the preface of HTTP/2 before it tells the
/// protocols apart, and waits for it without limit; here the same read is bounded first.
pub struct Patience<A> {
    app: Arc<A>,
    first_bytes_time: Duration,
}

impl<A> Patience<A> {
    /// Gives each connection `first_bytes_time` for its first bytes.
    pub fn new(app: A, first_bytes_time: Duration) -> Self {
        Self {
            app: Arc::new(app),
            first_bytes_time,
        }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Patience<A> {
    async fn process_new(
        self: &Arc<Self>,
        mut stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // Under TLS the protocol is negotiated, and nothing is read ahead.
        if stream.get_ssl_digest().is_none() {
            let mut preface = [0u8; PREFACE_BYTES];
            let peek = stream.try_peek(&mut preface);
            tokio::time::timeout(self.first_bytes_time, peek)
                .await
                .ok()?
                .ok()?;
        }
        self.app.process_new(stream, shutdown).await
    }
}
