//! JSON without the code fence that models put around it, also where they were asked not to.

use crate::frame::{Escaped, Frame};

/// What stands before the JSON is no longer than this, or is no fence.
const LONGEST_OPENING: usize = 64;

/// Takes a fence away from text on its way.
#[derive(Debug, Default)]
pub struct Fence {
    state: State,
    /// How deep the JSON is at this place.
    depth: u32,
    in_string: bool,
    /// The next character is escaped in the JSON.
    is_escaped: bool,
}

#[derive(Debug, Default)]
enum State {
    /// So much was said, which may become a fence.
    #[default]
    Before,
    Held(Vec<u8>),
    Within,
    /// Behind the JSON: the fence's end, and words on it.
    Behind,
    /// There is no fence.
    None,
}

/// What the beginning of an answer is.
enum Opening {
    /// A fence, up to here.
    Fence(usize),
    Other,
    Unclear,
}

/// A character of an escaped text, as far as JSON in it is concerned, and its bytes.
fn character(rest: &[u8]) -> (u8, usize) {
    match (rest.first(), rest.get(1)) {
        (Some(b'\\'), Some(b'n' | b't' | b'r')) => (b' ', 2),
        (Some(b'\\'), Some(b'u')) => (b'x', rest.len().min(6)),
        (Some(b'\\'), Some(other)) => (*other, 2),
        (Some(other), _) => (*other, 1),
        (None, _) => (b' ', 0),
    }
}

fn opening(held: &[u8]) -> Opening {
    let mut at = 0;
    let mut ticks = 0;
    while at < held.len() {
        let (char, length) = character(&held[at..]);
        match char {
            b' ' if ticks == 0 || ticks == 3 => {}
            b'`' if ticks < 3 => ticks += 1,
            b'{' | b'[' if ticks == 3 => return Opening::Fence(at),
            // The language.
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' if ticks == 3 => {}
            _ => return Opening::Other,
        }
        at += length;
    }
    match held.len() > LONGEST_OPENING {
        true => Opening::Other,
        false => Opening::Unclear,
    }
}

impl Fence {
    /// Changes frames that were just read.
    pub fn frames(&mut self, frames: &mut Vec<Frame>) {
        if matches!(self.state, State::None) {
            return;
        }
        for frame in std::mem::take(frames) {
            self.frame(frame, frames);
        }
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Frame>) {
        match frame {
            Frame::Text(text) => self.text(text, out),
            // What comes between says nothing of the text.
            Frame::ModelStarted { .. }
            | Frame::ModelUsage(_)
            | Frame::Reasoning(_)
            | Frame::ReasoningDone { .. }
            | Frame::Cited(_) => out.push(frame),
            other => {
                self.give_up(out);
                out.push(other);
            }
        }
    }

    fn text(&mut self, text: Escaped, out: &mut Vec<Frame>) {
        let mut held = match &mut self.state {
            State::None => return out.push(Frame::Text(text)),
            State::Behind => return,
            State::Within => return self.within(text, out),
            State::Before => Vec::new(),
            State::Held(held) => std::mem::take(held),
        };
        let is_first = held.is_empty();
        held.extend_from_slice(text.as_bytes());
        match opening(&held) {
            Opening::Unclear => self.state = State::Held(held),
            Opening::Other => {
                self.state = State::None;
                out.push(Frame::Text(match is_first {
                    true => text,
                    false => Escaped::from_valid(held.into()),
                }));
            }
            Opening::Fence(end) => {
                self.state = State::Within;
                held.drain(..end);
                self.within(Escaped::from_valid(held.into()), out);
            }
        }
    }

    fn within(&mut self, text: Escaped, out: &mut Vec<Frame>) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let (char, length) = character(&bytes[at..]);
            at += length;
            match char {
                _ if std::mem::take(&mut self.is_escaped) => {}
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.state = State::Behind;
                        let json = text.bytes().slice(..at);
                        return out.push(Frame::Text(Escaped::from_valid(json)));
                    }
                }
                _ => {}
            }
        }
        out.push(Frame::Text(text));
    }

    /// The text is over: what was held is all there is.
    fn give_up(&mut self, out: &mut Vec<Frame>) {
        if let State::Held(held) = &mut self.state {
            let held = std::mem::take(held);
            self.state = State::None;
            out.push(Frame::Text(Escaped::from_valid(held.into())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::StopReason;

    /// What is left of a text that comes in pieces of so many characters.
    fn unfenced(text: &str, pieces: usize) -> String {
        let mut fence = Fence::default();
        let chars: Vec<char> = text.chars().collect();
        let mut frames: Vec<Frame> = chars
            .chunks(pieces)
            .map(|piece| Frame::Text(Escaped::escape(&piece.iter().collect::<String>())))
            .collect();
        frames.push(Frame::ModelStopped(StopReason::EndTurn));
        let mut out = Vec::new();
        for frame in frames {
            let mut one = vec![frame];
            fence.frames(&mut one);
            out.append(&mut one);
        }
        let text = |frame: &Frame| match frame {
            Frame::Text(text) => text.unescape(),
            _ => String::new(),
        };
        out.iter().map(text).collect()
    }

    #[test]
    fn a_fence_is_taken_away_in_whatever_pieces_it_comes() {
        let json = "{\"a\": \"```\\n}\\\"\",\n \"ü\": [1, {\"\\\\\": 2}]}";
        for (before, behind) in [
            ("```json\n", "\n```"),
            (" \n```\n", "\n```\n"),
            ("```JSON", "```\nI hope this helps: {}"),
            ("```json5 \r\n\t", ""),
        ] {
            for pieces in 1..20 {
                let text = format!("{before}{json}{behind}");
                assert_eq!(unfenced(&text, pieces), json, "{text} by {pieces}");
            }
        }
    }

    #[test]
    fn what_has_no_fence_stays_as_it_is() {
        let long = " ".repeat(100);
        for text in [
            "{\"a\": \"```json\"}",
            "``",
            "",
            "Here: ```json\n{}\n```",
            "`{}`",
            "```text: no JSON```",
            &long,
        ] {
            for pieces in 1..8 {
                assert_eq!(unfenced(text, pieces), text, "by {pieces}");
            }
        }
    }
}
