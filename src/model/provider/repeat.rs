//! Events that differ from the one before in a piece of text alone, as most of a stream do: they
//! are recognized by the bytes around that text, and not parsed. JSON with the same bytes around
//! another valid string is the same JSON but for that string.

use std::ops::Range;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::StreamDecoder;
use super::said::Halves;
use crate::frame::{Escaped, Frame};
use crate::model::error::ModelError;
use crate::sse::{Event, Odd, odd};

/// What differs from event to event besides the text, and is no decoder's concern.
const OBFUSCATION: &[u8] = b"\"obfuscation\":\"";
const SEQUENCE_NUMBER: &[u8] = b"\"sequence_number\":";
/// A stream whose events never repeat is not tried any further.
const MOST_MISSES: u8 = 8;

/// A decoder, and what the event before looked like.
pub(super) struct Repeating<D> {
    decoder: D,
    last: Option<Shape>,
    misses: u8,
    halves: Halves,
}

/// What a hole in a shape holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Hole {
    /// The frame's text: the inside of a string.
    Text,
    /// The inside of another string.
    String,
    /// A number without a sign.
    Number,
}

/// An event without what differs.
#[derive(Debug)]
struct Shape {
    /// What stays, without the holes.
    fixed: Box<[u8]>,
    /// Where in `fixed` they are, in their order.
    holes: smallvec::SmallVec<[(u32, Hole); 3]>,
    /// A frame of this kind.
    frame: fn(Escaped, u32) -> Frame,
    index: u32,
}

impl<D: StreamDecoder> Repeating<D> {
    /// Before the first event.
    pub fn new(decoder: D) -> Self {
        Self {
            decoder,
            last: None,
            misses: 0,
            halves: Halves::default(),
        }
    }
}

impl<D: StreamDecoder> Repeating<D> {
    /// Takes what an event that cannot be read was meant to be, if that is known.
    #[cold]
    fn meant(
        &mut self,
        event: &Event,
        read: Result<(), ModelError>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let data = event.data.trim_ascii();
        if serde_json::from_slice::<IgnoredAny>(data).is_ok() && !data.starts_with(b"\"") {
            return read;
        }
        match odd(event.name.as_deref(), data) {
            None => read,
            Some(Odd::Alive) => Ok(()),
            Some(Odd::Events(events)) => {
                for data in events {
                    let event = Event {
                        data: Bytes::copy_from_slice(data),
                        ..event.clone()
                    };
                    self.decoder.event(&event, out)?;
                }
                Ok(())
            }
        }
    }
}

impl<D: StreamDecoder> StreamDecoder for Repeating<D> {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        if let Some(shape) = &self.last {
            if let Some((frame, is_plain)) = shape.frame_of(&event.data) {
                self.misses = 0;
                self.decoder.repeated(&frame, is_plain);
                out.push(frame);
                return Ok(());
            }
            self.last = None;
            self.misses = self.misses.saturating_add(1);
        }
        let before = out.len();
        let mut read = self.decoder.event(event, out);
        if matches!(read, Err(ModelError::Malformed(_))) && out.len() == before {
            read = self.meant(event, read, out);
        }
        self.halves.mend(out, before);
        read?;
        if self.misses < MOST_MISSES
            && !self.halves.waits()
            && self.decoder.may_repeat()
            && let [frame] = &out[before..]
        {
            self.last = Shape::of(&event.data, frame);
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        self.halves.give_up(out);
        self.decoder.finish(out)
    }
}

impl Shape {
    /// Of an event that nothing but `frame` came of.
    fn of(data: &Bytes, frame: &Frame) -> Option<Self> {
        let (text, make, index): (_, fn(Escaped, u32) -> Frame, _) = match frame {
            Frame::Text(text) => (text, |text, _| Frame::Text(text), 0),
            Frame::Reasoning(text) => (text, |text, _| Frame::Reasoning(text), 0),
            Frame::ToolArgs { index, delta } => (
                delta,
                |delta, index| Frame::ToolArgs { index, delta },
                *index,
            ),
            _ => return None,
        };
        let text = within(data, text.as_bytes())?;
        let mut found = smallvec::SmallVec::<[(Range<usize>, Hole); 3]>::new();
        for (key, hole) in [(OBFUSCATION, Hole::String), (SEQUENCE_NUMBER, Hole::Number)] {
            // Inside of a string there are no such quotes.
            if let Some(at) = memchr::memmem::find(data, key) {
                let from = at + key.len();
                found.push((from..from + hole.length(&data[from..])?.0, hole));
            }
        }
        found.push((text, Hole::Text));
        found.sort_by_key(|(range, _)| range.start);
        let mut fixed = Vec::with_capacity(data.len());
        let mut holes = smallvec::SmallVec::new();
        let mut at = 0;
        for (range, hole) in found {
            fixed.extend_from_slice(data.get(at..range.start)?);
            holes.push((u32::try_from(fixed.len()).ok()?, hole));
            at = range.end;
        }
        fixed.extend_from_slice(data.get(at..)?);
        Some(Self {
            fixed: fixed.into(),
            holes,
            frame: make,
            index,
        })
    }

    /// The frame of an event that looks like this, and whether its text is plain ASCII.
    fn frame_of(&self, data: &Bytes) -> Option<(Frame, bool)> {
        let (mut at, mut from) = (0, 0);
        let (mut text, mut is_plain) = (0..0, false);
        for &(until, hole) in &self.holes {
            let until = until as usize;
            let same = &self.fixed[from..until];
            if !data[at..].starts_with(same) {
                return None;
            }
            at += same.len();
            from = until;
            let (length, is_ascii) = hole.length(&data[at..])?;
            if hole == Hole::Text {
                text = at..at + length;
                is_plain = is_ascii;
            }
            at += length;
        }
        if data[at..] != self.fixed[from..] || text.is_empty() {
            return None;
        }
        let text = Escaped::from_valid(data.slice(text));
        Some(((self.frame)(text, self.index), is_plain))
    }
}

impl Hole {
    /// How much of `rest` it is, and whether that is ASCII without escapes.
    fn length(self, rest: &[u8]) -> Option<(usize, bool)> {
        match self {
            Self::Text | Self::String => string_length(rest),
            Self::Number => match rest.iter().take_while(|b| b.is_ascii_digit()).count() {
                0 => None,
                length => Some((length, true)),
            },
        }
    }
}

/// The length of a string's inside, up to its closing quote, and whether it is ASCII without escapes.
/// `None` for what is no valid string, and for escapes of code points, which a parser must look at.
fn string_length(rest: &[u8]) -> Option<(usize, bool)> {
    let (mut at, mut is_escaped) = (0, false);
    loop {
        at += memchr::memchr2(b'"', b'\\', &rest[at..])?;
        if rest[at] == b'"' {
            break;
        }
        if !matches!(
            rest.get(at + 1)?,
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't'
        ) {
            return None;
        }
        is_escaped = true;
        at += 2;
    }
    let inside = &rest[..at];
    // Without a way out in the middle it looks at many bytes at once.
    let (has_controls, bits) = inside
        .iter()
        .fold((false, 0), |(any, bits), b| (any | (*b < 0x20), bits | *b));
    let is_ascii = bits < 0x80;
    let is_text = !has_controls && (is_ascii || std::str::from_utf8(inside).is_ok());
    is_text.then_some((at, is_ascii && !is_escaped))
}

/// Where `inner` lies in `data`, when it is not a copy.
fn within(data: &Bytes, inner: &[u8]) -> Option<Range<usize>> {
    let start = (inner.as_ptr() as usize).checked_sub(data.as_ptr() as usize)?;
    let end = start.checked_add(inner.len())?;
    (start > 0 && data.get(start - 1) == Some(&b'"') && data.get(end) == Some(&b'"'))
        .then_some(start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::api;
    use super::*;
    use crate::config::ProviderWire;

    const WIRES: [ProviderWire; 4] = [
        ProviderWire::OpenaiChat,
        ProviderWire::OpenaiResponses,
        ProviderWire::Anthropic,
        ProviderWire::Gemini,
    ];

    fn event(data: Vec<u8>) -> Event {
        Event {
            name: None,
            data: data.into(),
            id: None,
            retry: None,
        }
    }

    #[test]
    fn what_is_no_object_is_no_answer() {
        for wire in WIRES {
            for data in [
                "\"hi\"",
                "1",
                "true",
                "null",
                "[1]",
                "[]",
                "[\"a\",{}]",
                "{}",
            ] {
                let frames = &mut Vec::new();
                // Whether it is skipped or refused is the wire's to say.
                let _ = api(wire).decoder().event(&event(data.into()), frames);
                let says = |frame: &Frame| !matches!(frame, Frame::ModelStarted { .. });
                assert!(!frames.iter().any(says), "{wire:?} {data}");
                let whole = api(wire).decode_full(&Bytes::from(data));
                assert!(
                    whole.is_err() || data.starts_with(['[', '{']),
                    "{wire:?} {data}"
                );
            }
        }
    }

    /// Counts what is parsed.
    struct Counting {
        inner: Box<dyn StreamDecoder>,
        parsed: usize,
    }

    impl StreamDecoder for Counting {
        fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
            self.parsed += 1;
            self.inner.event(event, out)
        }

        fn may_repeat(&self) -> bool {
            self.inner.may_repeat()
        }

        fn repeated(&mut self, frame: &Frame, is_plain: bool) {
            self.inner.repeated(frame, is_plain);
        }

        fn is_done(&self) -> bool {
            self.inner.is_done()
        }

        fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
            self.inner.finish(out)
        }
    }

    fn counting(wire: ProviderWire) -> Repeating<Counting> {
        Repeating::new(Counting {
            inner: api(wire).parser(),
            parsed: 0,
        })
    }

    fn delta(wire: ProviderWire, kind: u8, n: usize, body: &[u8]) -> Vec<u8> {
        let (before, after) = match (wire, kind) {
            (ProviderWire::OpenaiChat, 0) => (
                r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":""#.to_owned(),
                format!(r#""}},"finish_reason":null}}],"usage":null,"obfuscation":"x{n}"}}"#),
            ),
            (ProviderWire::OpenaiChat, 1) => (
                r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"reasoning":""#.to_owned(),
                r#""},"finish_reason":null}]}"#.to_owned(),
            ),
            (ProviderWire::OpenaiChat, _) => (
                r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":""#.to_owned(),
                r#""}}]}}]}"#.to_owned(),
            ),
            (ProviderWire::OpenaiResponses, 0) => (
                format!(r#"{{"type":"response.output_text.delta","sequence_number":{n},"delta":""#),
                format!(r#"","obfuscation":"{n}","item_id":"i"}}"#),
            ),
            (ProviderWire::OpenaiResponses, 1) => (
                r#"{"type":"response.reasoning_text.delta","delta":""#.to_owned(),
                format!(r#"","sequence_number":{n}}}"#),
            ),
            (ProviderWire::OpenaiResponses, _) => (
                r#"{"type":"response.refusal.delta","delta":""#.to_owned(),
                format!(r#"","sequence_number":{n}}}"#),
            ),
            (ProviderWire::Anthropic, 0) => (
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""#.to_owned(),
                r#""}}"#.to_owned(),
            ),
            (ProviderWire::Anthropic, 1) => (
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":""#.to_owned(),
                r#"","signature":"s"}}"#.to_owned(),
            ),
            (ProviderWire::Anthropic, _) => (
                r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""#.to_owned(),
                r#""}}"#.to_owned(),
            ),
            (ProviderWire::Gemini, 0) => (
                r#"{"candidates":[{"content":{"parts":[{"text":""#.to_owned(),
                r#""}]}}],"usageMetadata":{"promptTokenCount":3}}"#.to_owned(),
            ),
            (ProviderWire::Gemini, 1) => (
                r#"{"candidates":[{"content":{"parts":[{"thought":true,"text":""#.to_owned(),
                r#""}]}}]}"#.to_owned(),
            ),
            (ProviderWire::Gemini, _) => (
                r#"{"candidates":[{"content":{"parts":[{"text":""#.to_owned(),
                r#"","thoughtSignature":"s"}]}}]}"#.to_owned(),
            ),
        };
        [before.as_bytes(), body, after.as_bytes()].concat()
    }

    fn opening(wire: ProviderWire) -> Vec<Event> {
        let data: &[&str] = match wire {
            ProviderWire::Anthropic => &[
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
                r#"{"type":"content_block_start","index":1,"content_block":{"type":"thinking"}}"#,
                r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
            ],
            _ => &[],
        };
        data.iter()
            .map(|data| event(data.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn texts_that_follow_each_other_are_not_parsed() {
        for wire in WIRES {
            let mut decoder = counting(wire);
            let mut frames = Vec::new();
            for event in opening(wire) {
                decoder.event(&event, &mut frames).expect("decodes");
            }
            for n in 0..100 {
                let text = format!(r#"word {n}\n\"ü\""#);
                let event = event(delta(wire, 0, n, text.as_bytes()));
                decoder.event(&event, &mut frames).expect("decodes");
                assert_eq!(
                    frames.last(),
                    Some(&Frame::Text(Escaped::from_valid(text.into())))
                );
            }
            let opened = opening(wire).len();
            assert!(
                decoder.decoder.parsed <= opened + 2,
                "{wire:?}: {}",
                decoder.decoder.parsed
            );
        }
    }

    #[test]
    fn events_that_never_repeat_are_given_up_on() {
        let mut decoder = counting(ProviderWire::Gemini);
        let mut frames = Vec::new();
        for n in 0..20 {
            let text = format!(
                r#"{{"candidates":[{{"content":{{"parts":[{{"text":"a"}}]}}}}],"usageMetadata":{{"promptTokenCount":{n}}}}}"#
            );
            decoder
                .event(&event(text.into()), &mut frames)
                .expect("decodes");
        }
        assert_eq!(decoder.decoder.parsed, 20);
        assert!(decoder.last.is_none());
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => "[ -!#-\\[\\]-~ü\u{1f600}]{0,12}".prop_map(String::into_bytes),
            1 => Just(br#"\n\t\"\\\/"#.to_vec()),
            1 => Just(br#"\u00e9\ud83d\ude00"#.to_vec()),
            1 => Just(br#"\ud800"#.to_vec()),
            1 => Just(br#"\x"#.to_vec()),
            1 => Just(vec![b'a', 0x0a]),
            1 => Just(vec![b'a', 0xff]),
            1 => Just(br#"","obfuscation":"y"#.to_vec()),
            1 => Just(br#"\"obfuscation\":\"y"#.to_vec()),
            1 => Just(br#"a\"#.to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn what_is_recognized_is_what_is_parsed(
            events in proptest::collection::vec((0u8..3, piece()), 1..30),
        ) {
            for wire in WIRES {
                let (mut fast, mut slow) = (api(wire).decoder(), api(wire).parser());
                let (mut seen, mut expected) = (Vec::new(), Vec::new());
                let mut halves = Halves::default();
                for event in opening(wire) {
                    fast.event(&event, &mut seen).expect("decodes");
                    slow.event(&event, &mut expected).expect("decodes");
                }
                for (n, (kind, body)) in events.iter().enumerate() {
                    let event = event(delta(wire, *kind, n, body));
                    let is_fine = fast.event(&event, &mut seen).is_ok();
                    let before = expected.len();
                    prop_assert_eq!(is_fine, slow.event(&event, &mut expected).is_ok());
                    halves.mend(&mut expected, before);
                    prop_assert_eq!(&seen, &expected);
                }
                halves.give_up(&mut expected);
                let is_fine = fast.finish(&mut seen).is_ok();
                prop_assert_eq!(is_fine, slow.finish(&mut expected).is_ok());
                prop_assert_eq!(&seen, &expected);
            }
        }
    }
}
