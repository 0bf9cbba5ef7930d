//! A stream that is passed on: reads of any size become whole events, so that a broken stream can
//! be given a proper end.

use std::borrow::Cow;

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
            let seam = self.held.len().saturating_sub(4);
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

    /// Takes out what is held back at the end of a body: an event whose empty line is missing is whole
    /// when all of its data is, as `is_whole` tells. Empty: there is nothing; `None`: it is cut.
    pub fn last(&mut self, is_whole: impl Fn(&[u8]) -> bool) -> Option<Bytes> {
        let mut last = BytesMut::from(self.rest().trim_ascii());
        if last.is_empty() {
            return Some(Bytes::new());
        }
        last.extend_from_slice(b"\n\n");
        let last = last.freeze();
        let is_whole = raw_events(&last).all(|event| event.data().is_none_or(|d| is_whole(&d)));
        is_whole.then_some(last)
    }

    /// Takes out what is held back.
    pub fn rest(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

/// Where the last whole event of `bytes` ends, which is behind an empty line; 0 when there is none.
fn last_event_end(bytes: &[u8]) -> usize {
    let mut until = bytes.len();
    while let Some(at) = memchr::memrchr2(b'\n', b'\r', &bytes[..until]) {
        // The line that ends here is empty when another ends right before.
        let line_end = match at > 0 && bytes[at] == b'\n' && bytes[at - 1] == b'\r' {
            true => at - 1,
            false => at,
        };
        if line_end > 0 && matches!(bytes[line_end - 1], b'\n' | b'\r') {
            return at + 1;
        }
        until = line_end;
    }
    0
}

/// An event as it was sent, up to and with the empty line behind it.
#[derive(Debug, Clone, Copy)]
pub struct RawEvent<'a> {
    pub bytes: &'a [u8],
    /// The `event:` field, if any.
    pub name: Option<&'a [u8]>,
    first_data: Option<&'a [u8]>,
    has_more_data: bool,
}

impl<'a> RawEvent<'a> {
    /// The `data:` lines joined by a line feed; `None` for what is no event but a comment.
    pub fn data(&self) -> Option<Cow<'a, [u8]>> {
        let first = self.first_data?;
        if !self.has_more_data {
            return Some(Cow::Borrowed(first));
        }
        let mut lines = Vec::new();
        let mut rest = self.bytes;
        while !rest.is_empty() {
            let (line, behind) = first_line(rest);
            if let Some((b"data", value)) = field_of(line) {
                lines.push(value);
            }
            rest = behind;
        }
        Some(Cow::Owned(lines.join(&b'\n')))
    }
}

/// The events of `bytes`, which hold whole ones; one that is cut off comes as the last.
pub fn raw_events(bytes: &[u8]) -> impl Iterator<Item = RawEvent<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let from = rest;
        let mut event = RawEvent {
            bytes: from,
            name: None,
            first_data: None,
            has_more_data: false,
        };
        while !rest.is_empty() {
            let (line, behind) = first_line(rest);
            rest = behind;
            match field_of(line) {
                Some((b"data", value)) => match event.first_data {
                    None => event.first_data = Some(value),
                    Some(_) => event.has_more_data = true,
                },
                Some((b"event", value)) => event.name = Some(value),
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        event.bytes = &from[..from.len() - rest.len()];
        Some(event)
    })
}

/// A line without its end, and what is behind it.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
        return (bytes, &[]);
    };
    let behind = match bytes[end..].starts_with(b"\r\n") {
        true => end + 2,
        false => end + 1,
    };
    (&bytes[..end], &bytes[behind..])
}

/// The name and the value of a line.
fn field_of(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let Some(colon) = memchr::memchr(b':', line) else {
        return (!line.is_empty()).then_some((line, &[]));
    };
    let value = &line[colon + 1..];
    Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
}

/// Whether `json` has a member of this name, with its quotes, whose value is not null; cheap, and
/// may be wrong about a string that is the same. A name inside of a text has other quotes.
pub fn may_tell(json: &[u8], name: &[u8]) -> bool {
    memmem::find_iter(json, name).any(|at| {
        let behind = json[at + name.len()..].trim_ascii_start();
        behind
            .strip_prefix(b":")
            .is_some_and(|value| value.trim_ascii_start().first() != Some(&b'n'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Splitter;
    use proptest::prelude::*;

    #[test]
    fn only_members_that_are_there_are_told() {
        for (json, tells) in [
            (&br#"{"usage":{"a":1}}"#[..], true),
            (br#"{"usage" : {}}"#, true),
            (br#"{"usage":null}"#, false),
            (br#"{"usage": null,"x":{"usage":1}}"#, true),
            (br#"{"content":"the \"usage\":1"}"#, false),
            (br#"{"content":"usage"}"#, false),
        ] {
            assert_eq!(may_tell(json, b"\"usage\""), tells, "{json:?}");
        }
    }

    proptest! {
        #[test]
        fn events_are_what_a_splitter_makes_of_them(
            text in "((data: ?[a-z:]{0,9}|event: ?[a-z]{1,3}|: c|id: 1|data)(\n|\r\n|\r)|\n|\r\n|\r){0,20}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.sort_unstable();
            let (mut whole, mut splitter) = (WholeEvents::new(1000), Splitter::new(1000));
            let (mut seen, mut expected, mut passed) = (Vec::new(), Vec::new(), Vec::new());
            let mut from = 0;
            for cut in at.into_iter().chain([bytes.len()]) {
                let piece = Bytes::copy_from_slice(&bytes[from..cut]);
                from = cut;
                splitter.push(piece.clone());
                while let Some(event) = splitter.next_event().expect("small") {
                    expected.push((event.name.map(|n| n.to_vec()), event.data.to_vec()));
                }
                let events = whole.pass(piece).expect("small");
                passed.extend_from_slice(&events);
                let mut length = 0;
                for event in raw_events(&events) {
                    length += event.bytes.len();
                    if let Some(data) = event.data() {
                        seen.push((event.name.map(<[u8]>::to_vec), data.to_vec()));
                    }
                }
                prop_assert_eq!(length, events.len());
            }
            prop_assert_eq!(&seen[..], &expected[..seen.len()]);
            // An event whose last line may go on with a line feed is told at once by one of them.
            prop_assert!(expected.len() - seen.len() <= 1);
            passed.extend_from_slice(&whole.rest());
            prop_assert_eq!(&passed[..], bytes);
        }
    }
}
