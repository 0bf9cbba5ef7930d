//! Connections without TLS: a request leaves in one write, and an answer that waits
//! holds no buffer.
//!
//! Lives here: [`CleartextStream`], on which Pingora's HTTP/1.1 session writes a request and reads the
//! head of its answer, and [`CleartextBody`], which reads the rest. Pingora's own connector flushes a
//! request's header and body one after the other, and its session keeps 4 KiB for a head and 64 KiB
//! for a body (of which a page is touched) until the body has ended.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::BytesMut;
use http::Method;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::error::UpstreamError;
use super::framing::{Framing, HeadEnd};
use crate::block;

/// A larger request is written in several pieces.
const TOGETHER_BYTES: usize = 64 * 1024;

/// What is read at once where a head is expected.
const HEAD_READ_BYTES: usize = 16 * 1024;
/// What is read of a body at once.
const READ_BYTES: usize = 64 * 1024;

/// A TCP connection on which a request's header waits for its body, and which is read no further
/// than to the end of an answer's head.
#[derive(Debug)]
pub struct CleartextStream {
    socket: TcpStream,
    head: HeadEnd,
    /// Came together with the head.
    behind_head: Vec<u8>,
    /// Written, but not yet sent.
    held: Vec<u8>,
    sent: usize,
    /// The next flush is the one behind the header, which another follows.
    holds_header: bool,
}

impl CleartextStream {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that connects to what the guard let through"
        )]
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            head: HeadEnd::default(),
            behind_head: Vec::new(),
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
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let read = self.socket.try_read(&mut byte);
        matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Hands over what `read` holds of a head, and keeps the rest.
    fn hand_head(&mut self, read: &[u8], buf: &mut ReadBuf<'_>) {
        let fits = read.len().min(buf.remaining());
        let (of_head, behind) = read.split_at(self.head.find(&read[..fits]));
        buf.put_slice(of_head);
        self.behind_head = behind.to_vec();
    }
}

impl AsyncRead for CleartextStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.behind_head.is_empty() {
            let behind = std::mem::take(&mut self.behind_head);
            self.hand_head(&behind, buf);
            return Poll::Ready(Ok(()));
        }
        let mut room = [MaybeUninit::<u8>::uninit(); HEAD_READ_BYTES];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
        self.hand_head(read.filled(), buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CleartextStream {
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
impl Shutdown for CleartextStream {
    async fn shutdown(&mut self) {
        // A connection that cannot be shut down is closed by being dropped.
        let _ = self.socket.shutdown().await;
    }
}

impl UniqueID for CleartextStream {
    fn id(&self) -> UniqueIDType {
        std::os::fd::AsRawFd::as_raw_fd(&self.socket)
    }
}

impl Ssl for CleartextStream {}

impl GetTimingDigest for CleartextStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for CleartextStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for CleartextStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for CleartextStream {}

/// The body of an answer whose head was read. Dropping it closes its connection.
#[derive(Debug)]
pub struct CleartextBody {
    stream: Box<CleartextStream>,
    framing: Framing,
    /// The connection may be used again behind the body's end.
    is_kept: bool,
}

impl CleartextBody {
    /// Behind the head that `session` has read, of an answer to a request with `method`.
    pub fn behind(mut session: Http1Session, method: &Method) -> Result<Self, UpstreamError> {
        session.respect_keepalive();
        let is_kept = session.will_keepalive();
        let header = session.resp_header();
        let header = header.ok_or_else(|| UpstreamError::Malformed("no header".to_owned()))?;
        let framing = Framing::of(method, header.status, &header.headers)?;
        let head_bytes = session.get_headers_raw_bytes().len();
        match session
            .into_inner()
            .into_any()
            .downcast::<CleartextStream>()
        {
            // Else the two differ on where the head ends, and the body would lack its beginning.
            Ok(stream) if stream.head.length() == Some(head_bytes) => Ok(Self {
                stream,
                framing,
                is_kept,
            }),
            _ => Err(UpstreamError::Malformed("a bad HTTP header".to_owned())),
        }
    }

    /// Appends what one read brings of the body to `into`, waiting for it; `false` at its end. May
    /// be dropped while waiting without losing bytes.
    pub async fn piece(&mut self, into: &mut BytesMut) -> Result<bool, UpstreamError> {
        poll_fn(|cx| self.poll_piece(cx, into)).await
    }

    // Its room for a read should not be part of whatever waits for it.
    #[inline(never)]
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<Result<bool, UpstreamError>> {
        let mut room = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        while !self.framing.is_ended() {
            let behind_head = std::mem::take(&mut self.stream.behind_head);
            let mut read = ReadBuf::uninit(&mut room);
            if behind_head.is_empty() {
                let socket = Pin::new(&mut self.stream.socket);
                match ready!(socket.poll_read(cx, &mut read)) {
                    Ok(()) if !read.filled().is_empty() => {}
                    Ok(()) if self.framing.close() => break,
                    Ok(()) | Err(_) => return Poll::Ready(Err(UpstreamError::Cut)),
                }
            }
            let read = match behind_head.is_empty() {
                true => read.filled(),
                false => &behind_head,
            };
            let before = into.len();
            block::READ.with(|block| block.make_room(into, read.len()));
            let taken = self.framing.decode(read, into)?;
            // What nobody asked for is no answer to the next request.
            self.is_kept &= taken == read.len();
            if into.len() > before {
                return Poll::Ready(Ok(true));
            }
        }
        Poll::Ready(Ok(false))
    }

    /// The connection, once the body was read to its end, if it may be used again.
    pub fn into_kept(mut self) -> Option<Box<CleartextStream>> {
        self.stream.holds_header = true;
        (self.framing.is_ended() && self.is_kept && self.stream.behind_head.is_empty())
            .then_some(self.stream)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::upstream::pool::Place;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// A connection, its other side, and where it leads.
    pub async fn pair() -> (Box<CleartextStream>, TcpStream, Place) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (stream, accepted) = tokio::join!(CleartextStream::connect(address), listener.accept());
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
}
