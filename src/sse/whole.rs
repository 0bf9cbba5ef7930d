//! A stream that is passed on: reads of any size become whole events, so that a broken stream can
//! be given a proper end.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// Why a stream cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {0} bytes")]
pub struct EventTooLarge(pub usize);

/// Holds back what is not yet a whole event. What is let through shares no copy unless an event
/// spans reads.
#[derive(Debug)]
pub struct WholeEvents {
    held: BytesMut,
    limit: usize,
}

impl WholeEvents {
    /// `limit`: the most bytes that one event may hold.
    pub fn new(limit: usize) -> Self {
        Self {
            held: BytesMut::new(),
            limit,
        }
    }

    /// Takes one read and gives the events that are whole, maybe none.
    pub fn pass(&mut self, mut chunk: Bytes) -> Result<Bytes, EventTooLarge> {
        let whole = if self.held.is_empty() {
            let end = last_event_end(&chunk);
            let rest = chunk.split_off(end);
            self.held.extend_from_slice(&rest);
            chunk
        } else {
            // The end may lie across the seam, so the search begins a little before it.
            let seam = self.held.len().saturating_sub(3);
            self.held.extend_from_slice(&chunk);
            match last_event_end(&self.held[seam..]) {
                0 => Bytes::new(),
                end => self.held.split_to(seam + end).freeze(),
            }
        };
        match self.held.len() > self.limit {
            true => Err(EventTooLarge(self.limit)),
            false => Ok(whole),
        }
    }

    /// Takes out what is held back.
    pub fn rest(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

/// Where the last whole event of `bytes` ends; 0 when there is none.
fn last_event_end(bytes: &[u8]) -> usize {
    let lf = memmem::rfind(bytes, b"\n\n").map_or(0, |at| at + 2);
    if lf == bytes.len() {
        return lf;
    }
    let crlf = memmem::rfind(bytes, b"\r\n\r\n").map_or(0, |at| at + 4);
    lf.max(crlf)
}

/// Where the first event of `bytes` ends.
pub fn first_event_end(bytes: &[u8]) -> Option<usize> {
    let lf = memmem::find(bytes, b"\n\n").map(|at| at + 2);
    let crlf = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4);
    match (lf, crlf) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
