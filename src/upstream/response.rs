//! The answer of a server: its head, and its body as it comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, StatusCode};
use pingora_core::Error as PingoraError;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;

use super::cleartext::CleartextBody;
use super::error::{UpstreamError, read_error};
use super::pool::{CleartextPool, POOL_IDLE, Place};
use crate::block;
use crate::coding::Unpacker;
use crate::silence::Silence;

/// Pieces that are ready together are taken together, up to about this many bytes.
const READ_BYTES: usize = 64 * 1024;

/// How long the beginning of a body is waited for that is not needed.
const BEGINNING_TIME: Duration = Duration::from_secs(10);

/// A response whose body is still being read. What was compressed on its way is unpacked, whether
/// or not that was asked for.
pub struct UpstreamResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    unread: Option<Body>,
    unpacker: Option<Box<Unpacker>>,
    /// Nothing was given to it so far.
    is_unpacker_new: bool,
    /// Was read already, and comes once more.
    front: Bytes,
    silence: Silence,
    /// The next piece is being waited for.
    is_waiting: bool,
    /// What ended the body behind pieces that were still good.
    failed: Option<UpstreamError>,
}

/// What a body is read from, and where its connection is kept afterwards.
pub(super) enum Body {
    Cleartext(CleartextBody, Place, Arc<CleartextPool>),
    Tls(Box<HttpSession>, Box<HttpPeer>, Arc<Connector>),
}

fn append(into: &mut BytesMut, piece: &[u8]) {
    block::READ.with(|block| block.make_room(into, piece.len()));
    into.extend_from_slice(piece);
}

impl Body {
    /// Appends the next piece to `into`; `false` at the end.
    async fn piece(&mut self, into: &mut BytesMut) -> Result<bool, UpstreamError> {
        let session = match self {
            Self::Cleartext(body, ..) => return body.piece(into).await,
            Self::Tls(session, ..) => &mut **session,
        };
        let error = |error: Box<PingoraError>| read_error(&error, "response body");
        match session {
            // Out of the session's own buffer, without a copy in between.
            HttpSession::H1(session) => match session.read_body_ref().await.map_err(error)? {
                Some(piece) => append(into, piece),
                None => return Ok(false),
            },
            session => match session.read_response_body().await.map_err(error)? {
                Some(piece) => append(into, &piece),
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// Takes the connection back once the body was read to its end.
    async fn release(self) {
        match self {
            Self::Cleartext(body, place, pool) => {
                if let Some(stream) = body.into_kept() {
                    pool.put(place, stream);
                }
            }
            Self::Tls(session, peer, connector) => {
                let kept = connector.release_http_session(*session, &*peer, Some(POOL_IDLE));
                // Boxed: it is the largest state of a stream, and comes once.
                Box::pin(kept).await;
            }
        }
    }
}

impl UpstreamResponse {
    /// Whose body may be silent for `idle`.
    pub(super) fn new(status: StatusCode, headers: HeaderMap, body: Body, idle: Duration) -> Self {
        let (unpacker, failed) = match Unpacker::of(&headers) {
            Ok(unpacker) => (unpacker.map(Box::new), None),
            Err(error) => (None, Some(UpstreamError::Malformed(error.to_string()))),
        };
        Self {
            status,
            headers,
            unread: failed.is_none().then_some(body),
            is_unpacker_new: unpacker.is_some(),
            unpacker,
            front: Bytes::new(),
            silence: Silence::new(idle),
            is_waiting: false,
            failed,
        }
    }

    /// Gives back the beginning of the body, which was taken to look at it.
    pub fn put_back(&mut self, front: Bytes) {
        self.front = front;
    }

    /// Gives back the beginning of a body which is packed, as its bytes tell.
    pub fn unpack(&mut self, mut unpacker: Unpacker, front: Bytes) {
        unpacker.push(front);
        self.unpacker = Some(Box::new(unpacker));
    }

    /// Whether its bytes are taken as they come.
    pub fn is_as_it_is(&self) -> bool {
        self.unpacker.is_none()
    }

    /// Appends what has come of the body, waiting for at least one piece; `false` at its end.
    async fn fill(&mut self, into: &mut BytesMut) -> Result<bool, UpstreamError> {
        if !self.front.is_empty() {
            into.extend_from_slice(&std::mem::take(&mut self.front));
            return Ok(true);
        }
        match self.unpacker.is_some() {
            false => self.fill_as_it_is(into).await,
            // Seldom: a stream that is not packed has no room for it.
            true => Box::pin(self.fill_unpacked(into)).await,
        }
    }

    async fn fill_unpacked(&mut self, into: &mut BytesMut) -> Result<bool, UpstreamError> {
        loop {
            if let Some(unpacker) = &mut self.unpacker {
                // Much may come of little: others are let in between.
                tokio::task::coop::consume_budget().await;
                match unpacker.pull(into) {
                    Ok(true) => return Ok(true),
                    Ok(false) => {}
                    Err(error) => {
                        self.unread = None;
                        return Err(UpstreamError::Malformed(error.to_string()));
                    }
                }
            }
            let mut packed = BytesMut::new();
            if !self.fill_as_it_is(&mut packed).await? {
                return Ok(false);
            }
            let is_first = std::mem::take(&mut self.is_unpacker_new);
            if let Some(unpacker) = &mut self.unpacker {
                // What is labelled as packed need not be.
                if is_first && !unpacker.may_begin(&packed) {
                    self.unpacker = None;
                    into.extend_from_slice(&packed);
                    return Ok(true);
                }
                unpacker.push(packed.freeze());
            }
        }
    }

    /// The same for the body as it is sent, when the connection goes back to the pool at its end.
    async fn fill_as_it_is(&mut self, into: &mut BytesMut) -> Result<bool, UpstreamError> {
        let Some(body) = &mut self.unread else {
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
            read = body.piece(into) => read,
            () = self.silence.lasts() => {
                self.unread = None;
                return Err(UpstreamError::Timeout("response body"));
            }
        };
        self.is_waiting = false;
        while matches!(read, Ok(true)) && into.len() - before < READ_BYTES {
            match body.piece(into).now_or_never() {
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
                if let Some(body) = self.unread.take() {
                    body.release().await;
                }
                return Ok(false);
            }
            Err(error) => error,
        };
        self.unread = None;
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
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        if !self.front.is_empty() {
            return Ok(Some(std::mem::take(&mut self.front)));
        }
        let mut chunk = BytesMut::new();
        let more = self.fill(&mut chunk).await?;
        Ok(more.then(|| block::READ.with(|block| block.cut_off(chunk))))
    }

    /// The whole body, of at most `limit` bytes.
    pub async fn body(&mut self, limit: usize) -> Result<Bytes, UpstreamError> {
        let declared = self.headers.get(http::header::CONTENT_LENGTH);
        let declared = declared.and_then(|v| v.to_str().ok()?.parse().ok());
        let mut whole = BytesMut::with_capacity(declared.unwrap_or(0).min(READ_BYTES));
        while self.fill(&mut whole).await? {
            if whole.len() > limit {
                self.unread = None;
                return Err(UpstreamError::TooLarge(limit));
            }
        }
        Ok(whole.freeze())
    }

    /// What comes of the body in some seconds, up to about `limit` bytes, however it goes on.
    pub async fn beginning(&mut self, limit: usize) -> Bytes {
        let mut begun = BytesMut::new();
        let read = async {
            while begun.len() < limit && matches!(self.fill(&mut begun).await, Ok(true)) {}
        };
        let _ = tokio::time::timeout(BEGINNING_TIME, read).await;
        begun.truncate(limit);
        begun.freeze()
    }

    /// Gives the connection back once the rest of a body that nobody needs has come, if it comes
    /// soon; else closes it.
    pub fn release(mut self) {
        const REST: Duration = Duration::from_secs(1);
        if self.unread.is_none() || matches!(self.chunk().now_or_never(), Some(Ok(None) | Err(_))) {
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

    /// Whether the body is said to be an event stream.
    pub fn is_event_stream(&self) -> bool {
        self.headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.trim_start().starts_with("text/event-stream"))
    }
}
