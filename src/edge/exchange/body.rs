//! The request's body, within its limits of size, time and memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::Exchange;
use crate::bodies::Held;
use crate::coding::{CodingError, Unpacker};
use crate::error::ApiError;
use crate::gateway::shuts_down;
use crate::untrusted;

/// The largest body of a route that needs no token, or whose requests are small.
pub const SMALL_REQUEST: usize = 64 * 1024;
/// An unread body of at most this many bytes is read before an early answer, so that the
/// connection can be kept.
pub(super) const SMALL_BODY: u64 = 64 * 1024;
/// How long a body, or the next piece of an upload, is waited for when this node shuts down: work that
/// has not begun is another's.
const BODY_WHILE_DRAINING: Duration = Duration::from_secs(3);
/// How long an unread body may take to arrive before the connection is given up. Closing a socket
/// with unread bytes resets it, and a reset can take the answer away from the client.
const LINGER: Duration = Duration::from_secs(1);

/// The code of a refusal of a packing that is not known.
pub(super) const UNKNOWN_CODING: &str = "unsupported_content_encoding";

/// What is wrong with a body that was packed.
pub fn bad_coding(error: &CodingError) -> ApiError {
    match error {
        CodingError::TooLarge(limit) => ApiError::too_large(*limit),
        other => ApiError::bad_request("invalid_request", other.to_string()),
    }
}

/// JSON in UTF-16, as some shells write it, in UTF-8; `None` for what is none.
fn from_utf16(body: &[u8]) -> Option<Bytes> {
    let (of, body): (fn([u8; 2]) -> u16, _) = match body {
        [0xff, 0xfe, rest @ ..] => (u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => (u16::from_be_bytes, rest),
        [b'{' | b'[', 0, ..] => (u16::from_le_bytes, body),
        [0, b'{' | b'[', ..] => (u16::from_be_bytes, body),
        _ => return None,
    };
    let units = body.chunks_exact(2).map(|pair| of([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.trim_start()
        .starts_with(['{', '['])
        .then(|| Bytes::from(text))
}

/// Without the byte order mark that some shells put before JSON.
fn without_mark(body: Bytes) -> Bytes {
    if let Some(text) = from_utf16(&body) {
        return text;
    }
    match body.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if matches!(rest.trim_ascii_start().first(), Some(b'{' | b'[')) => {
            body.slice(body.len() - rest.len()..)
        }
        _ => body,
    }
}

impl Exchange {
    /// How the body was packed on its way; `None` when it is as it is.
    pub fn unpacker(&self) -> Result<Option<Unpacker>, ApiError> {
        Unpacker::of(&self.session.req_header().headers).map_err(|error| {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            ApiError::new(status, UNKNOWN_CODING, error.to_string())
        })
    }

    pub(super) fn declared_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    pub(super) fn expects_continue(&self) -> bool {
        self.header("expect")
            .is_some_and(|v| v.eq_ignore_ascii_case("100-continue"))
    }

    /// Reads away what the client still sends, for a bounded time.
    pub(super) async fn drain(&mut self) {
        let drained = tokio::time::timeout(LINGER, self.session.drain_request_body()).await;
        if !matches!(drained, Ok(Ok(()))) {
            self.reusable = false;
        }
    }

    /// The whole request body, within the configured size and time.
    pub async fn body(&mut self) -> Result<Bytes, ApiError> {
        self.body_within(self.gateway.config.server.max_body_bytes)
            .await
    }

    /// The whole request body of at most `limit` bytes. It is counted in the node's budget until the
    /// answer begins.
    pub async fn body_within(&mut self, limit: usize) -> Result<Bytes, ApiError> {
        let unpacker = self.unpacker()?;
        self.begin_body(limit).await?;
        let time = Duration::from_secs(self.gateway.config.server.body_timeout_s);
        let gateway = self.gateway.clone();
        let body = tokio::select! {
            biased;
            read = tokio::time::timeout(time, self.read_body(limit)) => match read {
                Ok(body) => body?,
                Err(_) => return Err(self.late_body()),
            },
            () = gateway.draining_for(BODY_WHILE_DRAINING) => {
                self.reusable = false;
                return Err(shuts_down());
            }
        };
        self.asked = Instant::now();
        let body = match unpacker {
            // Boxed: seldom, and large.
            Some(unpacker) if !body.is_empty() => {
                Box::pin(self.unpacked(unpacker, body, limit)).await?
            }
            _ => body,
        };
        let body = without_mark(body);
        self.hold_parsed(&body).await?;
        Ok(body)
    }

    /// Counts what JSON becomes once it is parsed, where that is far more than its text; refuses what
    /// no budget would be enough for.
    async fn hold_parsed(&mut self, body: &Bytes) -> Result<(), ApiError> {
        if !matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return Ok(());
        }
        if untrusted::is_vast(body) {
            return Err(ApiError::bad_request(
                "invalid_request",
                "the JSON has more values in lists and objects than can be held",
            ));
        }
        match untrusted::unusual_bytes(body) {
            0 => Ok(()),
            bytes => self.budget().grow_within_share(bytes).await,
        }
    }

    /// What a packed body becomes, which nobody knows before: all that it may be is counted meanwhile.
    async fn unpacked(
        &mut self,
        unpacker: Unpacker,
        packed: Bytes,
        limit: usize,
    ) -> Result<Bytes, ApiError> {
        let so_far = packed.len();
        self.hold(limit.saturating_sub(so_far)).await?;
        let unpacked = unpacker.whole(packed, limit).await;
        let unpacked = unpacked.map_err(|error| bad_coding(&error))?;
        if let Some(held) = &mut self.held {
            held.shrink(limit.saturating_sub(unpacked.len()));
        }
        Ok(unpacked)
    }

    fn late_body(&mut self) -> ApiError {
        self.reusable = false;
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request",
            "the request body did not arrive in time",
        )
    }

    /// Lets the client send its body, unless it says itself that it is above `limit` bytes.
    pub async fn begin_body(&mut self, limit: usize) -> Result<(), ApiError> {
        if self
            .declared_length()
            .is_some_and(|length| length > limit as u64)
        {
            self.reusable = false;
            return Err(ApiError::too_large(limit));
        }
        if self.expects_continue() && self.write_continue().await.is_err() {
            self.reusable = false;
            return Err(ApiError::bad_request(
                "invalid_request",
                "the client has left",
            ));
        }
        Ok(())
    }

    /// Pingora takes an interim response for an answer before the body, and would close behind it.
    async fn write_continue(&mut self) -> Result<(), Box<pingora_core::Error>> {
        self.session
            .set_close_on_response_before_downstream_finish(false);
        let written = self.session.write_continue_response().await;
        self.session
            .set_close_on_response_before_downstream_finish(true);
        written
    }

    /// The next piece of the body; `None` at its end. `patience` is for this piece alone.
    pub async fn body_piece(&mut self, patience: Duration) -> Result<Option<Bytes>, ApiError> {
        let gateway = self.gateway.clone();
        let piece = tokio::select! {
            biased;
            piece = tokio::time::timeout(patience, self.session.read_request_body()) => piece,
            () = gateway.draining_for(BODY_WHILE_DRAINING) => {
                self.reusable = false;
                return Err(shuts_down());
            }
        };
        match piece {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => {
                self.reusable = false;
                tracing::debug!(%error, "reading a request body");
                Err(ApiError::bad_request(
                    "invalid_request",
                    "the request body is broken",
                ))
            }
            Err(_) => Err(self.late_body()),
        }
    }

    /// Reads away the body of a request whose method has none; 413 for one that is not small.
    pub async fn no_body(&mut self) -> Result<(), ApiError> {
        if self.session.is_body_done() {
            return Ok(());
        }
        let length = self.declared_length().unwrap_or(0);
        if self.expects_continue() || length > SMALL_BODY {
            self.reusable = false;
            return match length > SMALL_BODY {
                true => Err(ApiError::too_large(SMALL_REQUEST)),
                false => Ok(()),
            };
        }
        let mut read = 0;
        let drained = tokio::time::timeout(LINGER, async {
            while let Ok(Some(piece)) = self.session.read_request_body().await {
                read += piece.len() as u64;
                if read > SMALL_BODY {
                    return false;
                }
            }
            true
        });
        let is_small = drained.await;
        if is_small != Ok(true) {
            self.reusable = false;
        }
        match is_small {
            Ok(false) => Err(ApiError::too_large(SMALL_REQUEST)),
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// What the request takes of the node's budget, until the answer begins.
    pub fn budget(&mut self) -> &mut Held {
        self.held.get_or_insert_with(|| {
            let owner = self.tenant.clone().unwrap_or_else(|| Arc::from(""));
            Box::new(self.gateway.bodies.begin(owner))
        })
    }

    /// Takes `bytes` of the node's budget for the body, until the answer begins.
    pub async fn hold(&mut self, bytes: usize) -> Result<(), ApiError> {
        let grown = self.budget().grow(bytes).await;
        if grown.is_err() {
            self.reusable = false;
        }
        grown
    }

    async fn read_body(&mut self, limit: usize) -> Result<Bytes, ApiError> {
        let mut first: Option<Bytes> = None;
        let mut whole = BytesMut::new();
        loop {
            let piece = self.session.read_request_body().await.map_err(|error| {
                self.reusable = false;
                tracing::debug!(%error, "reading a request body");
                ApiError::bad_request("invalid_request", "the request body is broken")
            })?;
            let Some(piece) = piece else {
                break;
            };
            if whole.len() + first.as_ref().map_or(0, Bytes::len) + piece.len() > limit {
                self.reusable = false;
                return Err(ApiError::too_large(limit));
            }
            self.hold(piece.len()).await?;
            match first.take() {
                None if whole.is_empty() => first = Some(piece),
                None => whole.extend_from_slice(&piece),
                Some(before) => {
                    whole.extend_from_slice(&before);
                    whole.extend_from_slice(&piece);
                }
            }
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_utf16_is_read() {
        let text = "{\"a\":\"\u{e9}\u{1f600}\"}";
        let little = |unit: u16| unit.to_le_bytes();
        let big = |unit: u16| unit.to_be_bytes();
        let coded = |mark: &[u8], of: fn(u16) -> [u8; 2]| {
            let units = text.encode_utf16().flat_map(of);
            Bytes::from_iter(mark.iter().copied().chain(units))
        };
        for body in [
            coded(b"\xff\xfe", little),
            coded(b"\xfe\xff", big),
            coded(b"", little),
            coded(b"", big),
            Bytes::from([b"\xef\xbb\xbf", text.as_bytes()].concat()),
        ] {
            assert_eq!(without_mark(body), text);
        }
        for other in [&b"\xff\xfePK"[..], b"PK\x03\x04", b"{}", b""] {
            assert_eq!(without_mark(Bytes::copy_from_slice(other)), other);
        }
    }
}
