//! What models say in tags of their own, where the server before them does not take them apart:
//! reasoning between `<think>` and `</think>` at the very beginning of an answer, and calls of tools
//! as text at its end. Servers of open models do that when they are started without the parser for
//! the model (docs.vllm.ai, "Reasoning outputs", "Tool calling"; BerriAI/litellm#26326, #24253).
//!
//! Nothing is lost: a tag anywhere else is text (BerriAI/litellm#10702), and what only looks like a
//! call is given as the text that it is. A call counts when all that is left of the answer is calls of
//! tools that the request has, and the answer was not cut.

use bytes::Bytes;

use super::textual::{Known, calls_in};
use crate::frame::{Escaped, Frame, StopReason};
use crate::ids;
use crate::model::provider::reasoning::Heard;
use crate::model::request::ToolDef;

/// Tags around reasoning.
const THOUGHTS: [(&str, &str); 2] = [("<think>", "</think>"), ("<thinking>", "</thinking>")];
/// What calls begin with.
const CALLS: [&str; 2] = ["<tool_call>", "<function="];
/// Blanks before a tag, in bytes; more are text.
const MOST_BLANKS: usize = 256;
/// The longest text that may be calls, in bytes.
const LONGEST_CALLS: usize = 1024 * 1024;

/// Takes tags apart in frames on their way.
#[derive(Debug)]
pub struct Spoken {
    state: State,
    /// Escaped text that is not clear yet.
    held: Vec<u8>,
    tools: Vec<Known>,
    heard: Heard,
    /// Text was given.
    has_text: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was said.
    Before,
    /// Up to this tag; whether something was said.
    Thinking(&'static str, bool),
    /// Behind reasoning, before text.
    Thought,
    Talking,
    /// What is held begins like a call.
    Calling,
    /// All is text from here on.
    Text,
}

/// How a text begins.
#[derive(Debug, PartialEq, Eq)]
enum Begins {
    /// With the tag, of so many bytes.
    With(usize),
    /// With what may become the tag.
    Maybe,
    Otherwise,
}

/// The character that an escaped text begins with, as far as tags are made of it, and its bytes.
fn character(text: &[u8]) -> (u8, usize) {
    match text {
        [b'\\', b'n' | b'r' | b't', ..] => (b' ', 2),
        // Some write these for the sake of web pages.
        [b'\\', b'u', b'0', b'0', digits @ ..] if digits.len() >= 2 => match &digits[..2] {
            [b'3', b'c' | b'C'] => (b'<', 6),
            [b'3', b'e' | b'E'] => (b'>', 6),
            [b'3', b'd' | b'D'] => (b'=', 6),
            [b'2', b'f' | b'F'] => (b'/', 6),
            [b'2', b'0'] => (b' ', 6),
            _ => (0, 6),
        },
        [b'\\', b'u', ..] => (0, text.len().min(6)),
        [b'\\', b'/', ..] => (b'/', 2),
        [b'\\', _, ..] => (0, 2),
        [other, ..] => (*other, 1),
        [] => (0, 0),
    }
}

fn begins(text: &[u8], tag: &str) -> Begins {
    let mut at = 0;
    for wanted in tag.bytes() {
        if at >= text.len() {
            return Begins::Maybe;
        }
        let (found, length) = character(&text[at..]);
        if found != wanted {
            return Begins::Otherwise;
        }
        at += length;
    }
    Begins::With(at)
}

/// Bytes of blanks at the beginning.
fn blanks(text: &[u8]) -> usize {
    let mut at = 0;
    while at < text.len() {
        match character(&text[at..]) {
            (b' ', length) => at += length,
            _ => break,
        }
    }
    at
}

/// Where in `text` one of `tags` begins, or may begin at its end; with the blanks before it, and the
/// tag's bytes where it is there.
fn find(text: &[u8], tags: &[&'static str]) -> Option<(usize, usize, Option<usize>)> {
    let (mut at, mut blank_from) = (0, None);
    while at < text.len() {
        let (found, length) = character(&text[at..]);
        if found == b'<' {
            for tag in tags {
                match begins(&text[at..], tag) {
                    Begins::With(length) => {
                        return Some((blank_from.unwrap_or(at), at, Some(length)));
                    }
                    Begins::Maybe => return Some((blank_from.unwrap_or(at), at, None)),
                    Begins::Otherwise => {}
                }
            }
        }
        blank_from = (found == b' ').then(|| blank_from.unwrap_or(at));
        at += length;
        if found != b' ' {
            // Most of a text is none of these.
            at += memchr::memchr3(b'<', b'\\', b' ', &text[at..])?;
        }
    }
    // Blanks at the end may be those before a tag, unless they are many.
    let from = blank_from.filter(|from| text.len() - from <= MOST_BLANKS)?;
    Some((from, text.len(), None))
}

impl Spoken {
    /// For an answer to a request with these tools.
    pub fn new(tools: &[ToolDef]) -> Self {
        Self {
            state: State::Before,
            held: Vec::new(),
            tools: tools.iter().map(Known::of).collect(),
            heard: Heard::default(),
            has_text: false,
        }
    }

    /// Whether nothing is changed from here on.
    pub fn is_over(&self) -> bool {
        self.state == State::Text
    }

    /// Changes frames that were just read.
    pub fn frames(&mut self, frames: &mut Vec<Frame>) {
        if self.state == State::Text {
            return;
        }
        for frame in std::mem::take(frames) {
            self.frame(frame, frames);
        }
    }

    /// The answer ended without its end: what is held was said.
    pub fn give_up(&mut self, out: &mut Vec<Frame>) {
        match self.state {
            State::Thinking(_, said) => {
                let thought = std::mem::take(&mut self.held);
                self.think(thought, said, out);
                out.extend(self.heard.end());
            }
            _ => self.say_held(out),
        }
        self.state = State::Text;
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Frame>) {
        match frame {
            Frame::Text(text) => self.text(text, out),
            Frame::ModelStopped(stop) => {
                let is_whole = matches!(stop, StopReason::EndTurn | StopReason::ToolCalls);
                let called = self.state == State::Calling && is_whole && self.call(out);
                self.give_up(out);
                out.push(Frame::ModelStopped(match called {
                    true => StopReason::ToolCalls,
                    false => stop,
                }));
            }
            // The server takes reasoning, or calls, apart itself.
            Frame::Reasoning(_) if self.state == State::Before => {
                self.say_held(out);
                self.state = State::Talking;
                out.push(frame);
            }
            Frame::ToolStarted { .. } => {
                self.give_up(out);
                out.push(frame);
            }
            other => out.push(other),
        }
    }

    fn text(&mut self, text: Escaped, out: &mut Vec<Frame>) {
        if self.state == State::Text {
            return out.push(Frame::Text(text));
        }
        if self.held.is_empty() {
            return self.take(text.bytes().clone(), out);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(text.as_bytes());
        if self.state == State::Calling {
            self.held = held;
            if self.held.len() > LONGEST_CALLS {
                self.give_up(out);
            }
            return;
        }
        self.take(held.into(), out);
    }

    /// Takes all that is not clear yet.
    fn take(&mut self, mut text: Bytes, out: &mut Vec<Frame>) {
        while !text.is_empty() {
            text = match self.state {
                State::Before => self.begin(text),
                State::Thinking(close, said) => self.thought(text, close, said, out),
                State::Thought => {
                    let text = text.slice(blanks(&text)..);
                    if !text.is_empty() {
                        self.state = self.talking();
                    }
                    text
                }
                State::Talking => self.talk(text, out),
                State::Calling => {
                    self.held = text.to_vec();
                    Bytes::new()
                }
                State::Text => {
                    out.push(Frame::Text(Escaped::from_valid(text)));
                    Bytes::new()
                }
            };
        }
    }

    /// Where tags no longer count but those of calls, if there are tools.
    fn talking(&self) -> State {
        match self.tools.is_empty() {
            true => State::Text,
            false => State::Talking,
        }
    }

    fn begin(&mut self, text: Bytes) -> Bytes {
        let blank = blanks(&text);
        let open = THOUGHTS.iter().filter(|_| blank <= MOST_BLANKS);
        for (open, close) in open {
            match begins(&text[blank..], open) {
                Begins::With(length) => {
                    self.state = State::Thinking(close, false);
                    return text.slice(blank + length..);
                }
                Begins::Maybe => {
                    self.held = text.to_vec();
                    return Bytes::new();
                }
                Begins::Otherwise => {}
            }
        }
        self.state = self.talking();
        text
    }

    fn thought(
        &mut self,
        text: Bytes,
        close: &'static str,
        said: bool,
        out: &mut Vec<Frame>,
    ) -> Bytes {
        match find(&text, &[close]) {
            None => self.think(text, said, out),
            Some((until, tag, Some(length))) => {
                self.think(text.slice(..until), said, out);
                out.extend(self.heard.end());
                self.state = State::Thought;
                return text.slice(tag + length..);
            }
            Some((until, ..)) => {
                self.held = text[until..].to_vec();
                self.think(text.slice(..until), said, out);
            }
        }
        Bytes::new()
    }

    fn think(&mut self, thought: impl Into<Bytes>, said: bool, out: &mut Vec<Frame>) {
        let mut thought: Bytes = thought.into();
        if !said {
            thought = thought.slice(blanks(&thought)..);
        }
        if thought.is_empty() {
            return;
        }
        if let State::Thinking(_, said) = &mut self.state {
            *said = true;
        }
        self.heard.text(true);
        out.push(Frame::Reasoning(Escaped::from_valid(thought)));
    }

    fn talk(&mut self, text: Bytes, out: &mut Vec<Frame>) -> Bytes {
        let found = find(&text, &CALLS).filter(|(_, at, _)| *at < text.len());
        let said = match found {
            None => text.clone(),
            // Blanks alone are not said before a call.
            Some((0, ..)) if !self.has_text => Bytes::new(),
            Some((_, at, _)) => text.slice(..at),
        };
        if let Some((.., tag)) = found {
            self.held = text[said.len()..].to_vec();
            if tag.is_some() {
                self.state = State::Calling;
            }
        }
        if !said.is_empty() {
            self.has_text = true;
            out.push(Frame::Text(Escaped::from_valid(said)));
        }
        Bytes::new()
    }

    fn say_held(&mut self, out: &mut Vec<Frame>) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            out.push(Frame::Text(Escaped::from_valid(held.into())));
        }
    }

    /// Gives the calls that are held, if that is what they are.
    fn call(&mut self, out: &mut Vec<Frame>) -> bool {
        let said = Escaped::from_valid(std::mem::take(&mut self.held).into());
        let Some(calls) = calls_in(&said.unescape(), &self.tools) else {
            self.held = said.as_bytes().to_vec();
            return false;
        };
        for (index, call) in (0..).zip(calls) {
            out.push(Frame::ToolStarted {
                index,
                id: ids::mint(ids::Kind::Call).into(),
                name: call.name.into(),
            });
            out.push(Frame::ToolArgs {
                index,
                delta: Escaped::escape(&call.arguments),
            });
            out.push(Frame::ToolDone {
                index,
                signature: Bytes::new(),
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is seen of an answer.
    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        text: String,
        reasoning: String,
        calls: Vec<(String, String)>,
        stop: Option<StopReason>,
    }

    fn tools() -> Vec<ToolDef> {
        let tool = |name: &str| ToolDef {
            name: name.to_owned(),
            description: None,
            parameters: json!({ "type": "object", "properties": {
                "city": { "type": "string" }, "days": { "type": "integer" } } }),
            strict: None,
        };
        vec![tool("get_weather"), tool("f")]
    }

    fn of(pieces: &[&str], stop: Option<StopReason>) -> Seen {
        let mut spoken = Spoken::new(&tools());
        let mut frames = Vec::new();
        for piece in pieces {
            let mut read = vec![Frame::Text(Escaped::from_valid(Bytes::copy_from_slice(
                piece.as_bytes(),
            )))];
            spoken.frames(&mut read);
            frames.append(&mut read);
        }
        match stop {
            Some(stop) => {
                let mut read = vec![Frame::ModelStopped(stop)];
                spoken.frames(&mut read);
                frames.append(&mut read);
            }
            None => spoken.give_up(&mut frames),
        }
        let mut seen = Seen::default();
        for frame in frames {
            match frame {
                Frame::Text(text) => seen.text += &text.unescape(),
                Frame::Reasoning(text) => seen.reasoning += &text.unescape(),
                Frame::ToolStarted { name, .. } => seen
                    .calls
                    .push((String::from_utf8_lossy(&name).into_owned(), String::new())),
                Frame::ToolArgs { delta, .. } => {
                    seen.calls.last_mut().expect("a call").1 += &delta.unescape();
                }
                Frame::ModelStopped(stop) => seen.stop = Some(stop),
                _ => {}
            }
        }
        seen
    }

    /// However the escaped text is cut between its characters.
    fn cut(text: &str, stop: Option<StopReason>) -> Seen {
        let escaped = Escaped::escape(text);
        let escaped = escaped.as_str().into_owned();
        let whole = of(&[&escaped], stop);
        let mut places = Vec::new();
        let mut at = 0;
        while at < escaped.len() {
            let width = escaped[at..].chars().next().map_or(1, char::len_utf8);
            at += character(&escaped.as_bytes()[at..]).1.max(width);
            places.push(at);
        }
        for at in &places {
            let seen = of(&[&escaped[..*at], &escaped[*at..]], stop);
            assert_eq!(seen, whole, "{text} cut at {at}");
        }
        let mut pieces = Vec::new();
        let mut from = 0;
        for at in places {
            pieces.push(&escaped[from..at]);
            from = at;
        }
        assert_eq!(of(&pieces, stop), whole, "{text} by characters");
        whole
    }

    const END: Option<StopReason> = Some(StopReason::EndTurn);
    const LENGTH: Option<StopReason> = Some(StopReason::MaxTokens);

    #[test]
    fn reasoning_at_the_very_beginning_is_reasoning() {
        for (said, reasoning, text) in [
            ("<think>Hm</think>Hi", "Hm", "Hi"),
            ("\n <think>\nHm\n</think>\n\nHi\n", "Hm", "Hi\n"),
            ("<think>\n\n</think>\n\nHi", "", "Hi"),
            ("<think></think>", "", ""),
            (
                "<thinking>a < b\n</thin\n</thinking>Hi",
                "a < b\n</thin",
                "Hi",
            ),
            (
                "<think>\"ü\\ 😀\" </think >\n</think> <think>x</think>",
                "\"ü\\ 😀\" </think >",
                "<think>x</think>",
            ),
            ("<think>never closed ", "never closed ", ""),
            // Anywhere else they are text.
            ("Hi <think>Hm</think>", "", "Hi <think>Hm</think>"),
            ("`<think>` is a tag", "", "`<think>` is a tag"),
            ("<thin", "", "<thin"),
            ("<think", "", "<think"),
            ("<thinker>x</thinker>", "", "<thinker>x</thinker>"),
            ("  \n", "", "  \n"),
            ("", "", ""),
        ] {
            for stop in [END, LENGTH, None] {
                let seen = cut(said, stop);
                let told = (seen.reasoning.as_str(), seen.text.as_str());
                assert_eq!(told, (reasoning, text), "{said}");
                assert!(seen.calls.is_empty());
                assert_eq!(seen.stop, stop);
            }
        }
        let escaped = of(
            &["\\u003cthi", "nk\\u003eHm\\u003c\\/think", "\\u003EHi"],
            END,
        );
        assert_eq!(
            (escaped.reasoning.as_str(), escaped.text.as_str()),
            ("Hm", "Hi")
        );
        // A backslash before what only looks like an escape.
        let literal = of(&["<think>a\\\\u003c/think>b"], END);
        assert_eq!(literal.reasoning, "a\\u003c/think>b");
        let long = format!("{}<think>x</think>", " ".repeat(1000));
        assert_eq!(of(&[&long], END).text, long);
    }

    #[test]
    fn calls_in_text_are_calls_when_nothing_else_is_left() {
        let paris = ("get_weather".to_owned(), "{\"city\":\"Paris\"}".to_owned());
        for (said, text) in [
            (
                "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
                "",
            ),
            (
                "Let me see.\n\n<tool_call>{\"name\":\"get_weather\",\"parameters\":{\"city\":\"Paris\"}}</tool_call>\n",
                "Let me see.\n\n",
            ),
            (
                "<tool_call>{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\":\\\"Paris\\\"}\"}",
                "",
            ),
            ("<function=get_weather>{\"city\":\"Paris\"}</function>", ""),
            (
                "a <b <function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>",
                "a <b ",
            ),
            (
                "<tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter></function>\n</tool_call>",
                "",
            ),
        ] {
            let seen = cut(said, END);
            assert_eq!(
                (seen.text.as_str(), &seen.calls[..]),
                (text, &[paris.clone()][..]),
                "{said}"
            );
            assert_eq!(seen.stop, Some(StopReason::ToolCalls), "{said}");
            // One that was cut is no call, and neither is one of an answer that broke off.
            for stop in [LENGTH, None] {
                let seen = cut(said, stop);
                assert_eq!((seen.text.as_str(), seen.stop), (said, stop));
                assert!(seen.calls.is_empty());
            }
            for at in said.find('<').unwrap_or(0)..said.trim_end().len() {
                let Some(part) = said.get(..at) else { continue };
                let seen = of(&[&Escaped::escape(part).as_str()], LENGTH);
                assert!(seen.calls.is_empty() && seen.text == part, "{part}");
            }
        }
        let both = cut(
            "<think>Hm</think><tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"f\",\"arguments\":{\"days\":1}}</tool_call>",
            END,
        );
        assert_eq!((both.reasoning.as_str(), both.text.as_str()), ("Hm", ""));
        let f = |arguments: &str| ("f".to_owned(), arguments.to_owned());
        assert_eq!(both.calls, [f("{}"), f("{\"days\":1}")]);
    }

    #[test]
    fn what_only_looks_like_a_call_is_text() {
        for said in [
            "<tool_call>{\"name\":\"unknown\",\"arguments\":{}}</tool_call>",
            "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call> and so on",
            "<tool_call>{\"name\":\"f\",\"arguments\":{\"city\":\"Pa",
            "<tool_call>{\"name\":\"f\",\"arguments\":[1]}</tool_call>",
            "<tool_call>{\"name\":\"f\",\"arguments\":\"no JSON\"}</tool_call>",
            "```xml\n<tool_call>{\"name\":\"f\"}</tool_call>\n```",
            "<function=f>{\"city\":1}",
            "<function=f>no</function>",
            "<function=unknown></function>",
            "<tool_call></tool_call>",
            "<tool_call>",
            "<tool_",
        ] {
            let seen = cut(said, END);
            assert_eq!((seen.text.as_str(), seen.stop), (said, END), "{said}");
            assert!(seen.calls.is_empty() && seen.reasoning.is_empty(), "{said}");
        }
        let long = format!("<tool_call>{}", "x".repeat(LONGEST_CALLS + 1));
        assert_eq!(of(&[&long, "<think>"], END).text, format!("{long}<think>"));
    }

    #[test]
    fn where_the_server_takes_apart_itself_nothing_is_changed() {
        let mut spoken = Spoken::new(&tools());
        let thought = Frame::Reasoning(Escaped::escape("Hm"));
        let tag = Frame::Text(Escaped::escape("<think>x</think>"));
        let mut frames = vec![thought.clone(), tag.clone()];
        spoken.frames(&mut frames);
        assert_eq!(frames, [thought, tag]);
        let mut spoken = Spoken::new(&tools());
        let call = Frame::ToolStarted {
            index: 0,
            id: "a".into(),
            name: "f".into(),
        };
        let text = Frame::Text(Escaped::escape("<tool_call>{\"name\":\"f\"}</tool_call>"));
        let mut frames = vec![
            text.clone(),
            call.clone(),
            Frame::ModelStopped(StopReason::ToolCalls),
        ];
        spoken.frames(&mut frames);
        assert_eq!(frames[..2], [text, call]);
    }
}
