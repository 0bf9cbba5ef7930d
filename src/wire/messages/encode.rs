//! Frames as the events of a message. Its blocks come one after the other, as Anthropic's do: what
//! another provider tells of a later one meanwhile waits for its turn.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::citations::citation;
use super::errors::write_error;
use super::thinking::{self, Display};
use super::{begun, stop_details, stop_reason, usage_out};
use crate::error::ApiError;
use crate::frame::{Escaped, Frame, Signer, StopReason, Usage};
use crate::model::arguments_object;
use crate::sse;
use crate::wire::{AnswerEncoder, FrameEncoder, failure};

/// Writes one streamed answer.
pub struct StreamEncoder {
    message: Value,
    display: Display,
    is_begun: bool,
    is_ended: bool,
    /// The index of the next block.
    next: u32,
    /// The first is being written, the others wait for its end.
    blocks: VecDeque<Block>,
    /// The last text that has ended, for sources that are told late.
    last_text: Option<u32>,
    /// Sources that were told before there was a text.
    early: Vec<String>,
    /// Escaped.
    refusal: BytesMut,
    events: u64,
}

/// A block of the answer.
struct Block {
    index: u32,
    kind: Kind,
    /// Events that wait for their turn, without the index.
    held: Vec<Held>,
    is_done: bool,
}

/// A delta's type and member, and what that is in JSON.
struct Held {
    kind: &'static str,
    member: &'static str,
    value: BytesMut,
}

enum Kind {
    /// The next text is another block once this has sources.
    Text {
        is_cited: bool,
    },
    Thinking {
        is_signed: bool,
    },
    /// Thinking that cannot be read.
    Redacted(String),
    Tool(Tool),
}

struct Tool {
    /// Among the answer's calls.
    call: u32,
    id: String,
    name: String,
    input: Input,
}

/// The JSON of a call's input so far.
enum Input {
    None,
    Object,
    /// It does not begin as an object does; escaped.
    Odd(BytesMut),
}

const TEXT: (&str, &str) = ("text_delta", "text");
const THINKING: (&str, &str) = ("thinking_delta", "thinking");
const SIGNATURE: (&str, &str) = ("signature_delta", "signature");
const INPUT: (&str, &str) = ("input_json_delta", "partial_json");
const CITATION: (&str, &str) = ("citations_delta", "citation");

impl Block {
    fn begins(&self) -> Value {
        match &self.kind {
            Kind::Text { .. } => json!({ "type": "text", "text": "" }),
            Kind::Thinking { .. } => json!({ "type": "thinking", "thinking": "", "signature": "" }),
            Kind::Redacted(data) => json!({ "type": "redacted_thinking", "data": data }),
            Kind::Tool(tool) => json!({ "type": "tool_use", "id": tool.id, "name": tool.name,
                "input": {} }),
        }
    }

    fn is_tool(&self) -> bool {
        matches!(self.kind, Kind::Tool(_))
    }
}

fn quoted(escaped: &[u8]) -> BytesMut {
    let mut value = BytesMut::with_capacity(escaped.len() + 2);
    value.put_u8(b'"');
    value.put_slice(escaped);
    value.put_u8(b'"');
    value
}

impl StreamEncoder {
    /// `model` as the client shall see it.
    pub fn new(id: &str, model: &str, display: Display) -> Self {
        Self {
            message: begun(id, model),
            display,
            is_begun: false,
            is_ended: false,
            next: 0,
            blocks: VecDeque::new(),
            last_text: None,
            early: Vec::new(),
            refusal: BytesMut::new(),
            events: 0,
        }
    }

    fn event(&mut self, kind: &str, data: &[&[u8]], buf: &mut BytesMut) {
        self.events += 1;
        sse::write_event(buf, Some(kind), None, data);
    }

    fn begin(&mut self, buf: &mut BytesMut) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        let message = self.message.take();
        let event = json!({ "type": "message_start", "message": message }).to_string();
        self.event("message_start", &[event.as_bytes()], buf);
        self.event("ping", &[b"{\"type\":\"ping\"}"], buf);
    }

    fn begin_block(&mut self, buf: &mut BytesMut) {
        let Some(block) = self.blocks.front_mut() else {
            return;
        };
        let (index, held) = (block.index, std::mem::take(&mut block.held));
        let event = json!({ "type": "content_block_start", "index": index,
            "content_block": block.begins() });
        let event = event.to_string();
        self.event("content_block_start", &[event.as_bytes()], buf);
        for Held {
            kind,
            member,
            value,
        } in held
        {
            self.delta(index, (kind, member), &[&value], buf);
        }
    }

    fn delta(
        &mut self,
        index: u32,
        (kind, member): (&'static str, &'static str),
        value: &[&[u8]],
        buf: &mut BytesMut,
    ) {
        let mut number = itoa::Buffer::new();
        let before: [&[u8]; 7] = [
            b"{\"type\":\"content_block_delta\",\"index\":",
            number.format(index).as_bytes(),
            b",\"delta\":{\"type\":\"",
            kind.as_bytes(),
            b"\",\"",
            member.as_bytes(),
            b"\":",
        ];
        let mut data = smallvec::SmallVec::<[&[u8]; 12]>::from_slice(&before);
        data.extend_from_slice(value);
        data.push(b"}}");
        self.event("content_block_delta", &data, buf);
    }

    /// A piece of the block at `place` of those that are open.
    fn piece(
        &mut self,
        place: usize,
        (kind, member): (&'static str, &'static str),
        value: &[&[u8]],
        buf: &mut BytesMut,
    ) {
        let Some(block) = self.blocks.get_mut(place) else {
            return;
        };
        if place == 0 {
            let index = block.index;
            return self.delta(index, (kind, member), value, buf);
        }
        // Pieces of one text become one.
        if kind != CITATION.0
            && let Some(last) = block.held.last_mut().filter(|last| last.kind == kind)
        {
            let end = last.value.len() - 1;
            last.value.truncate(end);
            let whole = value.concat();
            last.value.put_slice(&whole[1..]);
            return;
        }
        let value = BytesMut::from(&value.concat()[..]);
        block.held.push(Held {
            kind,
            member,
            value,
        });
    }

    /// Ends the blocks that are done, up to the first that is not.
    fn go_on(&mut self, buf: &mut BytesMut) {
        while let Some(block) = self.blocks.front().filter(|block| block.is_done) {
            let index = block.index;
            match block.kind {
                Kind::Text { .. } => self.last_text = Some(index),
                Kind::Thinking { is_signed: false } => {
                    let none = thinking::written(Signer::Chat, "");
                    self.sign(0, &none, buf);
                }
                _ => {}
            }
            self.blocks.pop_front();
            let event = json!({ "type": "content_block_stop", "index": index }).to_string();
            self.event("content_block_stop", &[event.as_bytes()], buf);
            self.begin_block(buf);
        }
    }

    /// Begins a block, which ends what was said before it; its place among those that are open.
    fn open(&mut self, kind: Kind, buf: &mut BytesMut) -> usize {
        self.begin(buf);
        // A call ends when it is told to.
        if let Some(last) = self.blocks.back_mut().filter(|last| !last.is_tool()) {
            last.is_done = true;
        }
        self.go_on(buf);
        self.blocks.push_back(Block {
            index: self.next,
            kind,
            held: Vec::new(),
            is_done: false,
        });
        self.next += 1;
        if self.blocks.len() == 1 {
            self.begin_block(buf);
        }
        self.blocks.len() - 1
    }

    fn text(&mut self, text: &Escaped, buf: &mut BytesMut) {
        let last = self.blocks.back().filter(|last| !last.is_done);
        let goes_on =
            matches!(last, Some(last) if matches!(last.kind, Kind::Text { is_cited: false }));
        let place = match goes_on {
            true => self.blocks.len() - 1,
            false => self.open(Kind::Text { is_cited: false }, buf),
        };
        self.piece(place, TEXT, &[b"\"", text.as_bytes(), b"\""], buf);
        for told in std::mem::take(&mut self.early) {
            self.piece(place, CITATION, &[told.as_bytes()], buf);
        }
    }

    fn cite(&mut self, told: &Bytes, buf: &mut BytesMut) {
        let Ok(told) = serde_json::from_slice::<Value>(told) else {
            return;
        };
        let value = citation(&told).to_string();
        let is_text = |block: &Block| matches!(block.kind, Kind::Text { .. });
        match (self.blocks.iter().rposition(is_text), self.last_text) {
            (Some(place), _) => {
                // What is for all of the text does not end a piece of it.
                if let Kind::Text { is_cited } = &mut self.blocks[place].kind {
                    *is_cited |= told["end_index"].as_u64() > Some(0);
                }
                self.piece(place, CITATION, &[value.as_bytes()], buf);
            }
            // It came too late for its text's end.
            (None, Some(index)) => self.delta(index, CITATION, &[value.as_bytes()], buf),
            (None, None) => self.early.push(value),
        }
    }

    /// The place of the thinking that is open.
    fn thinking(&mut self, buf: &mut BytesMut) -> usize {
        let last = self.blocks.back().filter(|last| !last.is_done);
        match last.map(|last| &last.kind) {
            Some(Kind::Thinking { is_signed: false }) => self.blocks.len() - 1,
            _ => self.open(Kind::Thinking { is_signed: false }, buf),
        }
    }

    fn sign(&mut self, place: usize, signature: &str, buf: &mut BytesMut) {
        let signature = Escaped::escape(signature);
        let value = [&b"\""[..], signature.as_bytes(), b"\""];
        self.piece(place, SIGNATURE, &value, buf);
        if let Some(Block {
            kind: Kind::Thinking { is_signed },
            ..
        }) = self.blocks.get_mut(place)
        {
            *is_signed = true;
        }
    }

    fn thought(&mut self, signer: Signer, signature: &Bytes, redacted: bool, buf: &mut BytesMut) {
        let signature = String::from_utf8_lossy(signature);
        let written = thinking::written(signer, &signature).into_owned();
        let place = match redacted {
            true => self.open(Kind::Redacted(written), buf),
            false => {
                let last = self.blocks.back().filter(|last| !last.is_done);
                let is_open =
                    matches!(last, Some(last) if matches!(last.kind, Kind::Thinking { .. }));
                if !is_open && signature.is_empty() {
                    return;
                }
                let place = self.thinking(buf);
                self.sign(place, &written, buf);
                place
            }
        };
        self.blocks[place].is_done = true;
        self.go_on(buf);
    }

    fn tool(&mut self, call: u32) -> Option<(usize, &mut Tool)> {
        let blocks = self.blocks.iter_mut().enumerate();
        blocks
            .filter(|(_, block)| !block.is_done)
            .find_map(|(place, block)| match &mut block.kind {
                Kind::Tool(tool) if tool.call == call => Some((place, tool)),
                _ => None,
            })
    }

    fn input(&mut self, call: u32, piece: &Escaped, buf: &mut BytesMut) {
        let Some((place, tool)) = self.tool(call) else {
            return;
        };
        let is_blank = |text: &str| text.trim_ascii().is_empty();
        match &mut tool.input {
            Input::None if is_blank(&piece.unescape()) => return,
            Input::None if piece.as_bytes().trim_ascii_start().starts_with(b"{") => {
                tool.input = Input::Object;
            }
            Input::None => {
                tool.input = Input::Odd(BytesMut::from(piece.as_bytes()));
                return;
            }
            Input::Object => {}
            Input::Odd(held) => return held.put_slice(piece.as_bytes()),
        }
        self.piece(place, INPUT, &[b"\"", piece.as_bytes(), b"\""], buf);
    }

    fn end_tool(&mut self, call: u32, buf: &mut BytesMut) {
        let Some((place, tool)) = self.tool(call) else {
            return;
        };
        // Clients parse what they are given as an object.
        if let Input::Odd(held) = &mut tool.input {
            let arguments = Escaped::from_valid(std::mem::take(held).freeze()).unescape();
            let object = Escaped::escape(&arguments_object(&arguments).to_string());
            let value = quoted(object.as_bytes());
            self.piece(place, INPUT, &[&value], buf);
        }
        self.blocks[place].is_done = true;
        self.go_on(buf);
    }

    fn end_all(&mut self, buf: &mut BytesMut) {
        // A call whose end was not told ends with the answer.
        let calls = self.blocks.iter().filter(|block| !block.is_done);
        let calls: Vec<u32> = calls
            .filter_map(|block| match &block.kind {
                Kind::Tool(tool) => Some(tool.call),
                _ => None,
            })
            .collect();
        for call in calls {
            self.end_tool(call, buf);
        }
        if let Some(last) = self.blocks.back_mut() {
            last.is_done = true;
        }
        self.go_on(buf);
    }
}

impl FrameEncoder for StreamEncoder {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        match frame {
            Frame::ModelStarted { .. } => {
                // Of a run's next answer, whose calls are counted anew.
                if self.is_begun {
                    self.end_all(buf);
                }
                self.begin(buf);
            }
            Frame::Text(text) => self.text(text, buf),
            Frame::Cited(told) => self.cite(told, buf),
            Frame::Reasoning(text) => match self.display {
                Display::Hidden => {}
                Display::Omitted => {
                    self.thinking(buf);
                }
                Display::Shown => {
                    let place = self.thinking(buf);
                    self.piece(place, THINKING, &[b"\"", text.as_bytes(), b"\""], buf);
                }
            },
            Frame::ReasoningDone {
                signer,
                signature,
                redacted,
            } if self.display != Display::Hidden => {
                self.thought(*signer, signature, *redacted, buf);
            }
            Frame::Refusal(text) => self.refusal.put_slice(text.as_bytes()),
            Frame::ToolStarted { index, id, name } => {
                let tool = Tool {
                    call: *index,
                    id: String::from_utf8_lossy(id).into_owned(),
                    name: String::from_utf8_lossy(name).into_owned(),
                    input: Input::None,
                };
                self.open(Kind::Tool(tool), buf);
            }
            Frame::ToolArgs { index, delta } => self.input(*index, delta, buf),
            Frame::ToolDone { index, .. } => self.end_tool(*index, buf),
            Frame::RunCompleted { stop, usage, .. } => self.finish(*stop, usage, buf),
            Frame::RunFailed {
                code,
                message,
                param,
            } => self.fail(&failure(code, message, param), buf),
            Frame::RunCancelled { reason } => self.fail(&ApiError::run_cancelled(reason), buf),
            _ => {}
        }
    }

    fn written(&self) -> u64 {
        self.events
    }
}

impl AnswerEncoder for StreamEncoder {
    fn finish(&mut self, stop: StopReason, usage: &Usage, buf: &mut BytesMut) {
        self.begin(buf);
        self.end_all(buf);
        let refusal = Escaped::from_valid(std::mem::take(&mut self.refusal).freeze()).unescape();
        let reason = stop_reason(stop, !refusal.is_empty());
        let event = json!({
            "type": "message_delta",
            "delta": {
                "stop_reason": reason,
                "stop_sequence": null,
                "stop_details": stop_details(reason, &refusal),
            },
            "usage": usage_out(usage),
        });
        self.event("message_delta", &[event.to_string().as_bytes()], buf);
        self.event("message_stop", &[b"{\"type\":\"message_stop\"}"], buf);
        self.is_ended = true;
    }

    fn fail(&mut self, error: &ApiError, buf: &mut BytesMut) {
        self.events += 1;
        write_error(error, buf);
        self.is_ended = true;
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}
