//! A connection's life: a task of its own, a limit on how long it may keep silent before its first
//! bytes and on how long and large a header may be, then its requests, one after the other on
//! HTTP/1.1 and side by side on HTTP/2.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::apps::ServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Stream, l4};
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::app::App;
use super::head::{self, Refused};
use crate::error::ApiError;
use crate::ids;

/// The preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most of a request that is read at once: most requests whole.
const READ_BYTES: usize = 16 * 1024;

/// How long a client that was refused may take to read why.
const LINGER: Duration = Duration::from_millis(500);
/// Files that a process may have open where the system does not tell.
const USUAL_FILES: usize = 1024;

/// What takes a listener's connections.
pub struct Acceptor {
    app: Arc<App>,
    first_bytes_time: Duration,
    most: usize,
    open: Arc<AtomicUsize>,
}

/// A connection that is counted until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Acceptor {
    /// Gives each connection `first_bytes_time` for its first bytes; takes `most` at once, 0 for what
    /// this process's files allow.
    pub fn new(app: App, first_bytes_time: Duration, most: usize) -> Self {
        Self {
            app: Arc::new(app),
            first_bytes_time,
            most: match most {
                0 => open_files() / 4 * 3,
                most => most,
            },
            open: Arc::default(),
        }
    }
}

/// How many files this process may have open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    let soft = line.and_then(|l| l.split_whitespace().nth(3));
    match soft {
        Some("unlimited") => usize::MAX / 4,
        soft => soft.and_then(|n| n.parse().ok()).unwrap_or(USUAL_FILES),
    }
}

#[async_trait]
impl ServerApp for Acceptor {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let open = Open(self.open.clone());
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            tracing::debug!(
                most = self.most,
                "a connection is closed: there are too many"
            );
            return None;
        }
        // Not in the caller's task, which has room for a handshake (8 KiB) for as long as it lives.
        tokio::spawn(serve(
            self.app.clone(),
            stream,
            shutdown.clone(),
            self.first_bytes_time,
            open,
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
    _open: Open,
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
        let whole = whole_head(&mut stream, &mut begun);
        match tokio::time::timeout(app.header_time(), whole).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(refused))) => {
                tracing::debug!(why = refused.why, "a bad request header");
                let told = refuse(&mut stream, refused);
                let _ = tokio::time::timeout(LINGER, Box::pin(told)).await;
                return;
            }
            Ok(Err(_)) | Err(_) => return,
        }
        let mut session = Box::new(ServerSession::new_http1(stream));
        if let ServerSession::H1(session) = &mut *session {
            session.set_pipelined_prefix(std::mem::take(&mut begun));
        }
        let Some(goes_on) = app.answer(session).await else {
            return;
        };
        (stream, begun) = goes_on;
        wait = app.keepalive();
    }
}

/// Reads until `begun` holds a whole header, and checks it. Pingora's own reader takes headers of
/// 1 MiB, and more leniently.
async fn whole_head(stream: &mut Stream, begun: &mut BytesMut) -> io::Result<Result<(), Refused>> {
    let mut seen = 0;
    loop {
        if seen == 0 {
            // Empty lines before a request are no part of it (RFC 9112, section 2.2).
            let empty = begun.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
            let empty = empty.count();
            begun.advance(empty);
        }
        if let Some(end) = head::end(begun, seen) {
            return Ok(match end > head::MAX {
                true => Err(head::TOO_LARGE),
                false => head::check(&begun[..end]),
            });
        }
        seen = begun.len();
        if seen > head::MAX {
            return Ok(Err(head::TOO_LARGE));
        }
        if read_some(stream, begun).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Tells a client why its request is not read, and waits a little for it to have read that: closing
/// a socket with unread bytes resets it, and a reset can take the answer away.
async fn refuse(stream: &mut Stream, refused: Refused) -> io::Result<()> {
    let body = ApiError::new(refused.status, "invalid_request", refused.why).body();
    let answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         x-request-id: {}\r\nconnection: close\r\n\r\n",
        refused.status.as_u16(),
        refused.status.canonical_reason().unwrap_or_default(),
        body.len(),
        ids::mint_request_id(),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.flush().await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
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
