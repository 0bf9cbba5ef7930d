//! Connections to providers without TLS: a request leaves in one write, and connections are kept
//! without a task that watches over each.
//!
//! Lives here: [`PlainStream`], which Pingora's HTTP/1.1 session runs on, and [`PlainPool`].
//! Pingora's own connector flushes a request's header and body one after the other, and spawns a
//! task for every connection that is put back; together they cost a third of a short call.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// A larger request is written in several pieces.
const TOGETHER_BYTES: usize = 64 * 1024;

/// A TCP connection on which a request's header waits for its body.
#[derive(Debug)]
pub struct PlainStream {
    socket: TcpStream,
    /// Written, but not yet sent.
    held: Vec<u8>,
    sent: usize,
    /// The next flush is the one behind the header, which another follows.
    holds_header: bool,
}

impl PlainStream {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            held: Vec::new(),
            sent: 0,
            holds_header: true,
        })
    }

    fn send_held(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.sent < self.held.len() {
            let socket = Pin::new(&mut self.socket);
            match ready!(socket.poll_write(cx, &self.held[self.sent..]))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        // An open stream has nothing more to send for a long time.
        self.held = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Whether the other side has neither closed it nor said anything.
    fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let read = self.socket.try_read(&mut byte);
        matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for PlainStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.held.len() + buf.len() <= TOGETHER_BYTES {
            self.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.send_held(cx))?;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if std::mem::take(&mut self.holds_header) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.send_held(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for PlainStream {
    async fn shutdown(&mut self) {
        // A connection that cannot be shut down is closed by being dropped.
        let _ = self.socket.shutdown().await;
    }
}

impl UniqueID for PlainStream {
    fn id(&self) -> UniqueIDType {
        std::os::fd::AsRawFd::as_raw_fd(&self.socket)
    }
}

impl Ssl for PlainStream {}

impl GetTimingDigest for PlainStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for PlainStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for PlainStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for PlainStream {}

// ---- connections that wait for their next request ----

/// Threads that look in different places first do not wait for each other.
const SHARDS: usize = 16;
/// Idle connections to one address in one shard.
const MAX_IDLE: usize = 128;

struct Idle {
    stream: Box<PlainStream>,
    since: Instant,
}

/// Where a connection leads: an address, and the name by which it is asked. What answers to one
/// name may not speak for another.
pub type Place = (SocketAddr, Arc<str>);

type Shard = Mutex<HashMap<Place, Vec<Idle>>>;

/// Idle connections by place. The one that was used last is used first.
pub struct PlainPool {
    shards: [Shard; SHARDS],
    keep: Duration,
    is_swept: AtomicBool,
}

/// This thread's shard.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<Option<usize>> = const { Cell::new(None) });
    OWN.with(|own| match own.get() {
        Some(shard) => shard,
        None => {
            let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            own.set(Some(shard));
            shard
        }
    })
}

impl PlainPool {
    /// An empty pool that keeps a connection for `keep`.
    pub fn new(keep: Duration) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            keep,
            is_swept: AtomicBool::new(false),
        })
    }

    /// A connection to `place` that still stands.
    pub fn take(&self, place: &Place) -> Option<Box<PlainStream>> {
        let own = own_shard();
        (0..SHARDS).find_map(|n| {
            let mut shard = self.shards[(own + n) % SHARDS].lock();
            let waiting = shard.get_mut(place)?;
            while let Some(idle) = waiting.pop() {
                if idle.since.elapsed() < self.keep && idle.stream.is_quiet() {
                    return Some(idle.stream);
                }
            }
            None
        })
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn put(self: &Arc<Self>, place: Place, mut stream: Box<PlainStream>) {
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            self.sweep_now_and_then();
        }
        stream.holds_header = true;
        let idle = Idle {
            stream,
            since: Instant::now(),
        };
        let mut shard = self.shards[own_shard()].lock();
        let waiting = shard.entry(place).or_default();
        if waiting.len() < MAX_IDLE {
            waiting.push(idle);
        }
    }

    fn sweep_now_and_then(self: &Arc<Self>) {
        let (pool, every) = (Arc::downgrade(self), self.keep / 4);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every.max(Duration::from_secs(1))).await;
                match pool.upgrade() {
                    Some(pool) => pool.sweep(),
                    None => return,
                }
            }
        });
    }

    /// Closes what has waited too long, or was closed by the other side.
    fn sweep(&self) {
        for shard in &self.shards {
            let mut closed = Vec::new();
            shard.lock().retain(|_, waiting| {
                let stale =
                    |idle: &mut Idle| idle.since.elapsed() >= self.keep || !idle.stream.is_quiet();
                closed.extend(waiting.extract_if(.., stale));
                !waiting.is_empty()
            });
            // Dropped here, without the lock.
            drop(closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (Box<PlainStream>, TcpStream, Place) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (stream, accepted) = tokio::join!(PlainStream::connect(address), listener.accept());
        let accepted = accepted.expect("accepted").0;
        let place = (address, "host".into());
        (Box::new(stream.expect("connected")), accepted, place)
    }

    #[tokio::test]
    async fn a_header_waits_for_its_body() {
        let (mut stream, mut other, _) = pair().await;
        let mut buf = [0u8; 16];
        stream.write_all(b"head").await.expect("held");
        stream.flush().await.expect("held");
        tokio::task::yield_now().await;
        assert!(other.try_read(&mut buf).is_err());
        stream.write_all(b"body").await.expect("held");
        stream.flush().await.expect("sent");
        assert_eq!(other.read(&mut buf).await.expect("read"), 8);
        assert_eq!(&buf[..8], b"headbody");
        // What is larger goes out on its way.
        let large = vec![7u8; 3 * TOGETHER_BYTES];
        let (sent, got) = tokio::join!(
            async {
                stream.write_all(&large).await?;
                stream.flush().await
            },
            async {
                let mut got = vec![0u8; large.len()];
                other.read_exact(&mut got).await.map(|_| got)
            }
        );
        sent.expect("sent");
        assert!(got.expect("read") == large);
    }

    #[tokio::test]
    async fn only_standing_connections_are_given_out() {
        let pool = PlainPool::new(Duration::from_secs(60));
        let (stream, other, place) = pair().await;
        pool.put(place.clone(), stream);
        assert!(pool.take(&(place.0, "another".into())).is_none());
        let stream = pool.take(&place).expect("it stands");
        assert!(pool.take(&place).is_none());
        pool.put(place.clone(), stream);
        drop(other);
        let begun = Instant::now();
        while pool.shards.iter().any(|shard| !shard.lock().is_empty()) {
            assert!(begun.elapsed() < Duration::from_secs(5), "it stays");
            pool.sweep();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(pool.take(&place).is_none());
        let pool = PlainPool::new(Duration::ZERO);
        let (stream, _other, place) = pair().await;
        pool.put(place.clone(), stream);
        assert!(pool.take(&place).is_none());
    }
}
