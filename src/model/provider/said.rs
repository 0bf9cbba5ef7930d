//! What a model says, in whatever shape a provider gives it: strings are shared as they are, parts
//! in lists and objects become their text, halves of surrogate pairs come together or are replaced.

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{cited, text_of};
use crate::frame::{Escaped, Frame};
use crate::lenient::{Half, half_at, well_formed};
use crate::model::error::ModelError;

/// As what something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Text,
    Reasoning,
    Refusal,
}

impl Voice {
    pub fn frame(self, text: Escaped) -> Frame {
        match self {
            Self::Text => Frame::Text(text),
            Self::Reasoning => Frame::Reasoning(text),
            Self::Refusal => Frame::Refusal(text),
        }
    }
}

/// What one answer said so far.
#[derive(Default)]
pub(super) struct Speech {
    spoke: bool,
    /// The kind of something that has no place in an answer, and says nothing.
    passed_over: Option<Box<str>>,
    /// Tool calls that stood among the parts of a content.
    pub calls: Vec<Value>,
}

/// Whether there is anything to say: neither null nor empty.
pub(super) fn is_something(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| !matches!(raw.get(), "null" | "\"\"" | "[]" | "{}"))
}

impl Speech {
    /// Appends what `raw` says.
    pub fn say(
        &mut self,
        data: &Bytes,
        raw: Option<&RawValue>,
        voice: Voice,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let Some(raw) = raw else {
            return Ok(());
        };
        if raw.get().starts_with('"') {
            if let Some(text) = text_of(data, Some(raw)) {
                self.spoke = true;
                out.push(voice.frame(text));
            }
            return Ok(());
        }
        self.parts(&value_of(raw)?, voice, out)
    }

    /// Appends a text that is escaped.
    pub fn say_escaped(&mut self, text: Escaped, voice: Voice, out: &mut Vec<Frame>) {
        self.spoke = true;
        out.push(voice.frame(text));
    }

    /// Appends a text that was made here.
    pub fn say_text(&mut self, text: &str, voice: Voice, out: &mut Vec<Frame>) {
        if !text.is_empty() {
            self.spoke = true;
            out.push(voice.frame(Escaped::escape(text)));
        }
    }

    /// Notes what has no place in an answer and says nothing by itself.
    pub fn pass_over(&mut self, kind: &str) {
        self.passed_over
            .get_or_insert_with(|| kind.chars().take(80).collect());
    }

    /// Whether there was such.
    pub fn has_passed_over(&self) -> bool {
        self.passed_over.is_some()
    }

    /// Whether anything was said.
    pub fn has_spoken(&self) -> bool {
        self.spoke
    }

    /// Refuses an answer of which nothing could be read, though there was something.
    pub fn end(&self, has_calls: bool) -> Result<(), ModelError> {
        match &self.passed_over {
            Some(kind) if !self.spoke && !has_calls => Err(ModelError::Malformed(format!(
                "the answer holds nothing but '{kind}'"
            ))),
            _ => Ok(()),
        }
    }

    /// Appends what a value of any shape says.
    pub fn parts(
        &mut self,
        value: &Value,
        voice: Voice,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        match value {
            Value::Null => {}
            Value::String(text) => self.say_text(text, voice, out),
            Value::Number(_) | Value::Bool(_) => self.say_text(&value.to_string(), voice, out),
            Value::Array(parts) => {
                for part in parts {
                    self.parts(part, voice, out)?;
                }
            }
            Value::Object(_) => self.part(value, voice, out)?,
        }
        Ok(())
    }

    fn part(&mut self, part: &Value, voice: Voice, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let kind = part["type"].as_str().unwrap_or_default();
        let voice = match kind {
            "thinking" | "thought" | "reasoning" | "reasoning_content" | "reasoning_text"
            | "reasoning.text" | "reasoning.summary" => Voice::Reasoning,
            "refusal" => Voice::Refusal,
            "tool_use" | "tool_call" | "function_call" | "function" => {
                self.calls.push(part.clone());
                return Ok(());
            }
            // Where something is from, or what only its provider can read.
            "reference"
            | "tool_reference"
            | "citation"
            | "citations"
            | "annotation"
            | "annotations"
            | "file_citation"
            | "url_citation"
            | "reasoning.encrypted"
            | "redacted_thinking" => {
                match cited::frame(part.clone()) {
                    Some(citation) => out.push(citation),
                    None => self.pass_over(kind),
                }
                return Ok(());
            }
            _ => voice,
        };
        let members = [
            "text",
            "thinking",
            "reasoning",
            "refusal",
            "content",
            "summary",
            "value",
            "transcript",
        ];
        if let Some(said) = members.iter().find_map(|name| part.get(name)) {
            return self.parts(said, voice, out);
        }
        match media_of(part) {
            Some(media) => {
                self.say_text(&media, voice, out);
                Ok(())
            }
            None if part.as_object().is_none_or(|part| part.is_empty()) => Ok(()),
            None => Err(ModelError::Malformed(format!(
                "a part of type '{}' has no place in an answer",
                kind.chars().take(80).collect::<String>()
            ))),
        }
    }
}

/// An image, a sound or a file of an answer as a Markdown link, which every client can carry.
fn media_of(part: &Value) -> Option<String> {
    let at = |pointer: &str| part.pointer(pointer).and_then(Value::as_str);
    let url = [
        "/image_url/url",
        "/image_url",
        "/url",
        "/source/url",
        "/file/url",
    ];
    if let Some(url) = url.into_iter().find_map(at) {
        let is_image = at("/type").is_none_or(|kind| kind.contains("image"));
        return Some(link(if is_image { "image/" } else { "" }, url));
    }
    let data = ["/source/data", "/data", "/b64_json", "/result"]
        .into_iter()
        .find_map(at)?;
    let kind = ["/source/media_type", "/media_type", "/mimeType"]
        .into_iter()
        .find_map(at)
        .unwrap_or("image/png");
    Some(link(kind, &format!("data:{kind};base64,{data}")))
}

/// A Markdown link to what is of this media type.
pub(super) fn link(media_type: &str, url: &str) -> String {
    match media_type.starts_with("image/") {
        true => format!("![image]({url})"),
        false => format!("[file]({url})"),
    }
}

fn value_of(raw: &RawValue) -> Result<Value, ModelError> {
    let bad = |error: serde_json::Error| ModelError::Malformed(error.to_string());
    serde_json::from_str(raw.get())
        .or_else(|_| serde_json::from_slice(&well_formed(raw.get().as_bytes())))
        .map_err(bad)
}

/// The arguments of a call, whichever their shape: text as it is, anything else as its JSON text.
/// Nothing and an empty list are no arguments.
pub(super) fn arguments_of(data: &Bytes, raw: Option<&RawValue>) -> Option<Escaped> {
    let raw = raw?;
    match raw.get() {
        "null" | "[]" => None,
        text if text.starts_with('"') => text_of(data, Some(raw)),
        other => Some(Escaped::escape(other)),
    }
}

/// Whether a piece is white space alone, which says nothing before the first brace.
pub(super) fn is_blank(piece: &Escaped) -> bool {
    piece.as_bytes().len() < 64 && piece.unescape().trim().is_empty()
}

/// Halves of surrogate pairs in the texts of one answer: those that a provider cut apart come
/// together, the others become U+FFFD.
#[derive(Default)]
pub(super) struct Halves {
    /// What the last text ended in, and of which frame.
    held: Option<(Said, [u8; 6])>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    As(Voice),
    Arguments(u32),
}

const REPLACEMENT: &[u8] = b"\\ufffd";

fn text_in(frame: &mut Frame) -> Option<(Said, &mut Escaped)> {
    Some(match frame {
        Frame::Text(text) => (Said::As(Voice::Text), text),
        Frame::Reasoning(text) => (Said::As(Voice::Reasoning), text),
        Frame::Refusal(text) => (Said::As(Voice::Refusal), text),
        Frame::ToolArgs { index, delta } => (Said::Arguments(*index), delta),
        _ => return None,
    })
}

impl Said {
    fn frame(self, text: Escaped) -> Frame {
        match self {
            Self::As(voice) => voice.frame(text),
            Self::Arguments(index) => Frame::ToolArgs { index, delta: text },
        }
    }
}

impl Halves {
    /// Whether a half waits for the other.
    pub fn waits(&self) -> bool {
        self.held.is_some()
    }

    /// Mends the frames from `from` on.
    pub fn mend(&mut self, frames: &mut Vec<Frame>, from: usize) {
        let has_half = |text: &[u8]| {
            let mut escapes = memchr::memmem::find_iter(text, b"\\u");
            escapes.any(|at| matches!(text.get(at + 2), Some(b'd' | b'D')))
        };
        let needs =
            |frame: &mut Frame| text_in(frame).is_some_and(|(_, text)| has_half(text.as_bytes()));
        if self.held.is_none() && !frames[from..].iter_mut().any(needs) {
            return;
        }
        for mut frame in frames.split_off(from) {
            let Some((said, text)) = text_in(&mut frame) else {
                self.give_up(frames);
                frames.push(frame);
                continue;
            };
            if self.held.is_some_and(|(before, _)| before != said) {
                self.give_up(frames);
            }
            *text = self.joined(said, text);
            if !text.is_empty() {
                frames.push(frame);
            }
        }
    }

    /// What waits is not completed any more.
    pub fn give_up(&mut self, frames: &mut Vec<Frame>) {
        if let Some((said, _)) = self.held.take() {
            frames.push(said.frame(Escaped::from_valid(Bytes::from_static(REPLACEMENT))));
        }
    }

    fn joined(&mut self, said: Said, text: &Escaped) -> Escaped {
        let held = self.held.take();
        let mut whole = Vec::with_capacity(text.as_bytes().len() + 6);
        if let Some((_, half)) = held {
            whole.extend_from_slice(&half);
        }
        whole.extend_from_slice(text.as_bytes());
        let mut out = Vec::with_capacity(whole.len());
        let mut rest = &whole[..];
        while let Some(at) = memchr::memchr(b'\\', rest) {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            let (taken, kept) = match half_at(rest) {
                Half::None => {
                    let length = rest.len().min(2);
                    (length, &rest[..length])
                }
                Half::Pair => (12, &rest[..12]),
                Half::High if rest.len() == 6 => {
                    let mut half = [0; 6];
                    half.copy_from_slice(rest);
                    self.held = Some((said, half));
                    (6, &rest[..0])
                }
                Half::High | Half::Low => (6, REPLACEMENT),
            };
            out.extend_from_slice(kept);
            rest = &rest[taken..];
        }
        out.extend_from_slice(rest);
        Escaped::from_valid(Bytes::from(out))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(json: &str) -> Result<Vec<(Voice, String)>, String> {
        let data = Bytes::copy_from_slice(json.as_bytes());
        let text = std::str::from_utf8(&data).expect("UTF-8");
        let raw: &RawValue = serde_json::from_str(text).expect("JSON");
        let mut out = Vec::new();
        Speech::default()
            .say(&data, Some(raw), Voice::Text, &mut out)
            .map_err(|error| error.to_string())?;
        let voiced = |frame: &Frame| match frame {
            Frame::Reasoning(text) => (Voice::Reasoning, text.unescape()),
            Frame::Refusal(text) => (Voice::Refusal, text.unescape()),
            Frame::Text(text) => (Voice::Text, text.unescape()),
            other => panic!("{other:?}"),
        };
        Ok(out.iter().map(voiced).collect())
    }

    #[test]
    fn every_shape_of_a_content_is_said() {
        let text = |text: &str| (Voice::Text, text.to_owned());
        for (json, expected) in [
            (r#""a""#, vec![text("a")]),
            ("null", vec![]),
            ("[]", vec![]),
            ("7", vec![text("7")]),
            (r#"["a",{"text":"b"},null]"#, vec![text("a"), text("b")]),
            (r#"{"type":"text","text":{"value":"a"}}"#, vec![text("a")]),
            (
                r#"[{"type":"thinking","thinking":[{"type":"text","text":"hmm"}]},{"type":"text","text":"a"}]"#,
                vec![(Voice::Reasoning, "hmm".to_owned()), text("a")],
            ),
            (
                r#"[{"type":"refusal","refusal":"no"}]"#,
                vec![(Voice::Refusal, "no".to_owned())],
            ),
            (
                r#"[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]"#,
                vec![text("![image](https://x/y.png)")],
            ),
            (r#"[{"type":"reference","reference_ids":[1]}]"#, vec![]),
            (r#""half \ud83d""#, vec![text("half \u{fffd}")]),
        ] {
            assert_eq!(said(json), Ok(expected), "{json}");
        }
        let error = said(r#"[{"type":"hologram","depth":3}]"#).expect_err("refused");
        assert!(error.contains("'hologram'"), "{error}");
    }

    fn texts(frames: &[Frame]) -> Vec<String> {
        frames
            .iter()
            .map(|frame| match frame {
                Frame::Text(text) => format!("t:{}", text.as_str()),
                Frame::ToolArgs { delta, .. } => format!("a:{}", delta.as_str()),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn halves_come_together_or_are_replaced() {
        let frame = |text: &'static str| match text.split_at(2) {
            ("t:", text) => Frame::Text(Escaped::from_valid(text.into())),
            (_, text) => Frame::ToolArgs {
                index: 0,
                delta: Escaped::from_valid(text.into()),
            },
        };
        for (given, expected) in [
            (vec!["t:a", "t:b"], vec!["t:a", "t:b"]),
            (
                vec![r"t:a\ud83d", r"t:\ude00b"],
                vec!["t:a", r"t:\ud83d\ude00b"],
            ),
            (vec![r"t:\ud83d", "t:b"], vec![r"t:\ufffdb"]),
            (
                vec![r"t:\ud83d", r"a:\ude00"],
                vec![r"t:\ufffd", r"a:\ufffd"],
            ),
            (vec![r"t:x\\ud83d"], vec![r"t:x\\ud83d"]),
            (vec![r"t:\ud83d"], vec![r"t:\ufffd"]),
        ] {
            let mut halves = Halves::default();
            let mut out = Vec::new();
            for text in given {
                let from = out.len();
                out.push(frame(text));
                halves.mend(&mut out, from);
            }
            halves.give_up(&mut out);
            assert_eq!(texts(&out), expected);
        }
    }

    proptest! {
        #[test]
        fn mended_pieces_are_strings_and_say_what_the_whole_says(
            units in prop::collection::vec(
                prop_oneof![Just("\\ud83d"), Just("\\ude00"), Just("\\n"), Just("a"), Just("\\\\")],
                0..10,
            ),
            cuts in prop::collection::vec(any::<bool>(), 10),
        ) {
            let whole = Escaped::from_valid(Bytes::from(units.concat()));
            let mut pieces = vec![String::new()];
            for (unit, cut) in units.iter().zip(cuts) {
                if cut {
                    pieces.push(String::new());
                }
                pieces.last_mut().expect("a piece").push_str(unit);
            }
            let mut halves = Halves::default();
            let (mut out, mut said) = (Vec::new(), String::new());
            for piece in pieces {
                let from = out.len();
                out.push(Frame::Text(Escaped::from_valid(Bytes::from(piece))));
                halves.mend(&mut out, from);
            }
            halves.give_up(&mut out);
            for frame in &out {
                if let Frame::Text(text) = frame {
                    let quoted = format!("\"{}\"", text.as_str());
                    said += &serde_json::from_str::<String>(&quoted).expect("a string");
                }
            }
            prop_assert_eq!(said, whole.unescape());
        }
    }
}
