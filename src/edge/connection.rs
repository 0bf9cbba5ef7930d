//! A connection's life: a task of its own, a limit on how long it may keep silent before its first
//! bytes, then its requests, one after the other on HTTP/1.1 and side by side on HTTP/2.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Stream, l4};
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncRead, ReadBuf};

use super::app::App;

/// The preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most of a request that is read at once: most requests whole.
const READ_BYTES: usize = 16 * 1024;

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
    let mut begun = BytesMut::new();
    let is_http2 = match stream.get_ssl_digest() {
        Some(_) => matches!(stream.selected_alpn_proto(), Some(ALPN::H2)),
        None => {
            let first = tokio::time::timeout(first_bytes_time, is_preface(&mut stream, &mut begun));
            match first.await {
                Ok(Ok(is_preface)) => is_preface,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    };
    if is_http2 {
        let Some(stream) = unread(stream, &begun) else {
            return;
        };
        drop(begun);
        pingora_core::apps::ServerApp::process_new(&app, stream, &shutdown).await;
        return;
    }
    let mut wait = first_bytes_time;
    loop {
        if begun.is_empty() {
            let read = tokio::time::timeout(wait, read_some(&mut stream, &mut begun));
            if !matches!(read.await, Ok(Ok(1..))) {
                return;
            }
        }
        let mut session = Box::new(ServerSession::new_http1(stream));
        if let ServerSession::H1(session) = &mut *session {
            session.set_pipelined_prefix(std::mem::take(&mut begun));
        }
        let Some(reusable) = app.answer(session).await else {
            return;
        };
        let (reused, rest) = reusable.into_parts();
        stream = reused;
        begun = rest.unwrap_or_default();
        wait = app.keepalive();
    }
}

/// Reads until it is clear whether `stream` begins with the preface.
async fn is_preface(stream: &mut Stream, begun: &mut BytesMut) -> io::Result<bool> {
    loop {
        if read_some(stream, begun).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let compared = begun.len().min(PREFACE.len());
        if begun[..compared] != PREFACE[..compared] {
            return Ok(false);
        }
        if compared == PREFACE.len() {
            return Ok(true);
        }
    }
}

/// Gives `stream` back what was read of it.
fn unread(stream: Stream, begun: &[u8]) -> Option<Stream> {
    if begun.is_empty() {
        return Some(stream);
    }
    // Only what is not TLS was read.
    let mut stream = stream.into_any().downcast::<l4::stream::Stream>().ok()?;
    stream.rewind(begun);
    Some(stream)
}

/// Waits for bytes and appends them; how many there were. Who waits holds no memory for them, and a
/// request is kept in as much as it has: Pingora's reader takes 4 KiB for each and holds them for as
/// long as the answer streams.
async fn read_some(stream: &mut Stream, begun: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| poll_read_some(stream, begun, cx)).await
}

fn poll_read_some(
    stream: &mut Stream,
    begun: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut room = [MaybeUninit::<u8>::uninit(); READ_BYTES];
    let mut read = ReadBuf::uninit(&mut room);
    ready!(Pin::new(stream).poll_read(cx, &mut read))?;
    begun.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}
