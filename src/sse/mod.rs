//! Server-sent events over [`Bytes`]: splitting what a provider sends and writing what a client
//! reads (WHATWG HTML, "Server-sent events").
//!
//! Lives here: [`Splitter`], [`Event`], [`write_event`], [`WholeEvents`],
//! [`raw_events`], [`odd`]. Imports nothing of ours.

mod odd;
mod whole;

pub use odd::{Odd, odd};
pub use whole::{EventTooLarge, RawEvent, WholeEvents, may_tell, raw_events};

use bytes::{BufMut, Bytes, BytesMut};

/// One dispatched event. `data` shares the reader's memory unless it spanned reads or lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `event:` field, if any.
    pub name: Option<Bytes>,
    /// The `data:` lines joined by a line feed.
    pub data: Bytes,
    /// The `id:` field, if this event carried one.
    pub id: Option<Bytes>,
    /// The `retry:` field in milliseconds, if this event carried one.
    pub retry: Option<u64>,
}

/// Why a stream is no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    #[error("an event is larger than {0} bytes")]
    TooLarge(usize),
}

/// Cuts reads of any size into events. Holds at most one unfinished event, of at most `limit`
/// bytes; fields other than `event`, `data`, `id` and `retry`, comments and events without data are dropped.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    /// Unread input; when `partial` is set it begins with an unfinished line already searched.
    input: Bytes,
    /// An unfinished line of earlier reads.
    partial: BytesMut,
    skip_line_feed: bool,
    at_start: bool,
    name: Option<Bytes>,
    id: Option<Bytes>,
    retry: Option<u64>,
    data: Option<Bytes>,
    joined: Option<BytesMut>,
}

impl Splitter {
    /// `limit`: the most bytes that one event may hold.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            input: Bytes::new(),
            partial: BytesMut::new(),
            skip_line_feed: false,
            at_start: true,
            name: None,
            id: None,
            retry: None,
            data: None,
            joined: None,
        }
    }

    /// Gives the next read. All events of the one before must have been taken.
    pub fn push(&mut self, chunk: Bytes) {
        if self.input.is_empty() {
            self.input = chunk;
        } else {
            let mut both = BytesMut::with_capacity(self.input.len() + chunk.len());
            both.extend_from_slice(&self.input);
            both.extend_from_slice(&chunk);
            self.input = both.freeze();
        }
    }

    /// The next whole event, or `None` until more is pushed.
    pub fn next_event(&mut self) -> Result<Option<Event>, SseError> {
        loop {
            let Some(line) = self.next_line()? else {
                return Ok(None);
            };
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Ok(Some(event));
                }
            } else {
                self.field(line)?;
            }
        }
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, SseError> {
        if self.skip_line_feed && !self.input.is_empty() {
            self.skip_line_feed = false;
            if self.input[0] == b'\n' {
                let _ = self.input.split_to(1);
            }
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', &self.input) else {
            self.check(self.partial.len() + self.input.len())?;
            self.partial.extend_from_slice(&self.input);
            self.input = Bytes::new();
            return Ok(None);
        };
        let tail = self.input.split_to(end);
        let terminator = self.input.split_to(1);
        if terminator[0] == b'\r' {
            self.skip_line_feed = true;
        }
        let mut line = if self.partial.is_empty() {
            tail
        } else {
            self.check(self.partial.len() + tail.len())?;
            self.partial.extend_from_slice(&tail);
            self.partial.split().freeze()
        };
        if self.at_start {
            self.at_start = false;
            if line.starts_with(b"\xef\xbb\xbf") {
                line = line.slice(3..);
            }
        }
        Ok(Some(line))
    }

    fn check(&self, extra: usize) -> Result<(), SseError> {
        let held = self.data.as_ref().map_or(0, Bytes::len)
            + self.joined.as_ref().map_or(0, BytesMut::len);
        if held + extra > self.limit {
            Err(SseError::TooLarge(self.limit))
        } else {
            Ok(())
        }
    }

    fn field(&mut self, line: Bytes) -> Result<(), SseError> {
        let (name_end, value_start) = match memchr::memchr(b':', &line) {
            Some(0) => return Ok(()),
            Some(colon) if line.get(colon + 1) == Some(&b' ') => (colon, colon + 2),
            Some(colon) => (colon, colon + 1),
            None => (line.len(), line.len()),
        };
        match &line[..name_end] {
            b"data" => {
                let value = line.slice(value_start..);
                self.check(value.len())?;
                if let Some(joined) = &mut self.joined {
                    joined.put_u8(b'\n');
                    joined.extend_from_slice(&value);
                } else if let Some(first) = self.data.take() {
                    let mut joined = BytesMut::with_capacity(first.len() + value.len() + 1);
                    joined.extend_from_slice(&first);
                    joined.put_u8(b'\n');
                    joined.extend_from_slice(&value);
                    self.joined = Some(joined);
                } else {
                    self.data = Some(value);
                }
            }
            b"event" => self.name = Some(line.slice(value_start..)),
            b"id" => self.id = Some(line.slice(value_start..)),
            b"retry" => {
                let text = std::str::from_utf8(&line[value_start..]).ok();
                self.retry = text.and_then(|text| text.parse().ok()).or(self.retry);
            }
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = self.name.take();
        let id = self.id.take();
        let retry = self.retry.take();
        let data = match self.joined.take() {
            Some(joined) => joined.freeze(),
            None => self.data.take()?,
        };
        Some(Event {
            name,
            data,
            id,
            retry,
        })
    }
}

/// Appends an event with one `data:` line; `data` must hold no line break.
pub fn write_event(buf: &mut BytesMut, name: Option<&str>, id: Option<u64>, data: &[&[u8]]) {
    if let Some(name) = name {
        buf.put_slice(b"event: ");
        buf.put_slice(name.as_bytes());
        buf.put_u8(b'\n');
    }
    if let Some(id) = id {
        buf.put_slice(b"id: ");
        buf.put_slice(itoa::Buffer::new().format(id).as_bytes());
        buf.put_u8(b'\n');
    }
    buf.put_slice(b"data: ");
    for part in data {
        buf.put_slice(part);
    }
    buf.put_slice(b"\n\n");
}

/// A comment that keeps idle connections open.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(parts: &[&[u8]]) -> Vec<Event> {
        let mut splitter = Splitter::new(1 << 20);
        let mut events = Vec::new();
        for part in parts {
            splitter.push(Bytes::copy_from_slice(part));
            while let Some(event) = splitter.next_event().expect("within the limit") {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn line_ends_comments_and_joined_data() {
        let events = split(&[
            b"\xef\xbb\xbf: hi\n\nretry: 50\nevent: a\r\ndata: 1\r\ndata:2\r\n\r\nid: 7\rdata: 3\r\rdata\n\n",
        ]);
        assert_eq!(events.len(), 3);
        assert_eq!(&events[0].data[..], b"1\n2");
        assert_eq!(events[0].name.as_deref(), Some(&b"a"[..]));
        assert_eq!((events[0].retry, events[1].retry), (Some(50), None));
        assert_eq!(events[1].id.as_deref(), Some(&b"7"[..]));
        assert_eq!(&events[2].data[..], b"");
    }

    #[test]
    fn whole_events_share_the_readers_memory() {
        let chunk = Bytes::from_static(b"data: abc\n\n");
        let mut splitter = Splitter::new(100);
        splitter.push(chunk.clone());
        let event = splitter.next_event().unwrap().unwrap();
        assert_eq!(event.data.as_ptr(), chunk[6..].as_ptr());
    }

    #[test]
    fn endless_lines_are_refused() {
        let mut splitter = Splitter::new(1000);
        let mut refused = false;
        for _ in 0..20 {
            splitter.push(Bytes::from_static(&[b'x'; 100]));
            refused |= splitter.next_event().is_err();
        }
        assert!(refused);
        let mut splitter = Splitter::new(1000);
        let refused = (0..200).any(|_| {
            splitter.push(Bytes::from_static(b"data: 1234567890\n"));
            splitter.next_event().is_err()
        });
        assert!(refused);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            text in "(data: [a-z]{0,9}(\n|\r\n|\r)|event: [a-z]{1,3}\n|\n|\r\n|: c\n|id: 1\n){0,20}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = text.as_bytes();
            let whole = split(&[bytes]);
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.sort_unstable();
            let mut parts = Vec::new();
            let mut from = 0;
            for cut in at {
                parts.push(&bytes[from..cut]);
                from = cut;
            }
            parts.push(&bytes[from..]);
            prop_assert_eq!(split(&parts), whole);
        }

        #[test]
        fn what_is_written_is_split(data in "[^\r\n]*", id in any::<u64>()) {
            let mut buf = BytesMut::new();
            write_event(&mut buf, Some("run.x"), Some(id), &[data.as_bytes()]);
            let events = split(&[&buf]);
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(&events[0].data[..], data.as_bytes());
            let id_text = id.to_string();
            prop_assert_eq!(events[0].id.as_deref(), Some(id_text.as_bytes()));
        }
    }
}
