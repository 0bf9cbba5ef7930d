//! Answers of the wire, streamed and whole, as frames.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::counts::Counts;
use crate::frame::{Escaped, Frame, Signer, StopReason};
use crate::ids;
use crate::lenient::{self, Few, aside, few, place, word};
use crate::model::error::ModelError;
use crate::model::provider::said::{Speech, Voice, arguments_of, is_blank, is_something};
use crate::model::provider::{
    StreamDecoder, Unread, check_count, cited, failed_with, finish, leniently, shared,
};
use crate::sse::Event;

#[derive(Deserialize)]
struct StreamEvent<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "word")]
    kind: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "place")]
    index: Option<u32>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "few")]
    content: Few<Block<'a>>,
    #[serde(borrow, default, deserialize_with = "word")]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    stop_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    /// In place of all else.
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "word")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    data: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    signature: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    citations: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow, default)]
    citation: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "word")]
    signature: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    stop_details: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type", deserialize_with = "word")]
    kind: Option<Cow<'a, str>>,
}

/// Why an answer stopped, in words for people.
#[derive(Default, Deserialize)]
struct StopDetails {
    #[serde(default, deserialize_with = "lenient::given::text")]
    explanation: Option<String>,
}

/// What a block of the answer is.
enum Open {
    Text {
        /// Where it begins among the text's characters.
        from: u64,
        cited: Vec<Value>,
    },
    Thinking {
        signature: String,
    },
    Tool(Call),
    Other,
}

struct Call {
    index: u32,
    /// What its beginning said: what counts if nothing comes after it.
    input: Option<Escaped>,
    has_arguments: bool,
}

#[derive(Default)]
pub(super) struct Decoder {
    started: bool,
    /// By the wire's index, in their order.
    blocks: Vec<(Option<u32>, Open)>,
    tools: u32,
    speech: Speech,
    /// Characters of text so far.
    chars: u64,
    counts: Counts,
    stop: Option<StopReason>,
    done: bool,
    /// The last event was a piece of a block.
    is_piece: bool,
    /// The last event added to a signature.
    signed: bool,
}

impl Decoder {
    /// For an answer that was not streamed.
    pub fn whole(body: &Bytes) -> Result<Vec<Frame>, ModelError> {
        let mut decoder = Self::default();
        let mut out = Vec::new();
        leniently(body, reshape_message, |body| {
            decoder.message(body, &mut out)
        })
        .map_err(|unread| unread.into_error(body))?;
        decoder.done = true;
        decoder.finish(&mut out)?;
        Ok(out)
    }

    fn message(&mut self, body: &Bytes, out: &mut Vec<Frame>) -> Result<(), Unread> {
        let message: Message<'_> = serde_json::from_slice(body)?;
        if is_something(message.error) {
            return Err(failed_with(message.error).into());
        }
        if message.content.is_empty() && message.stop_reason.is_none() {
            let message = "the answer holds no content".to_owned();
            return Err(ModelError::Malformed(message).into());
        }
        self.start(Some(&message), out);
        self.blocks_of(body, &message, out)?;
        let reason = message.stop_reason.as_deref().unwrap_or_default();
        self.stopped(reason, message.stop_details, out)?;
        Ok(())
    }

    fn start(&mut self, message: Option<&Message<'_>>, out: &mut Vec<Frame>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let id = message.and_then(|message| message.id.as_deref());
        let model = message.and_then(|message| message.model.as_deref());
        out.push(Frame::ModelStarted {
            id: shared(id.unwrap_or_default()),
            model: shared(model.unwrap_or_default()),
        });
        if let Some(message) = message {
            self.counts.add_raw(message.usage);
        }
    }

    /// Blocks that are whole.
    fn blocks_of(
        &mut self,
        data: &Bytes,
        message: &Message<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        for block in &message.content {
            self.open(data, None, block, out)?;
            self.close(None, out);
        }
        Ok(())
    }

    fn say(
        &mut self,
        data: &Bytes,
        raw: Option<&RawValue>,
        voice: Voice,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let before = out.len();
        self.speech.say(data, raw, voice, out)?;
        out[before..]
            .iter()
            .for_each(|frame| self.repeated(frame, false));
        Ok(())
    }

    /// Why the model stopped, if `reason` tells; of a refusal also what is told of it.
    fn stopped(
        &mut self,
        reason: &str,
        details: Option<&RawValue>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let Some(ended) = finish::ended(reason) else {
            return Ok(());
        };
        let details: StopDetails = aside(details).unwrap_or_default();
        let why = details.explanation.unwrap_or_default();
        let is_empty = !self.speech.has_spoken() && self.tools == 0;
        let stop = ended.stop(reason, &why, is_empty)?;
        if stop == StopReason::ContentFilter {
            self.speech.say_text(&why, Voice::Refusal, out);
        }
        self.stop = Some(stop);
        Ok(())
    }

    fn open(
        &mut self,
        data: &Bytes,
        at: Option<u32>,
        block: &Block<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let kind = match block.kind.as_deref().unwrap_or_default() {
            "" if block.name.is_some() => "tool_use",
            "" if block.thinking.is_some() => "thinking",
            "" => "text",
            kind => kind,
        };
        let open = match kind {
            "text" => {
                let from = self.chars;
                self.say(data, block.text, Voice::Text, out)?;
                Open::Text {
                    from,
                    cited: aside(block.citations).unwrap_or_default(),
                }
            }
            "thinking" => {
                let thinking = block.thinking.or(block.text);
                self.speech.say(data, thinking, Voice::Reasoning, out)?;
                Open::Thinking {
                    signature: block.signature.clone().unwrap_or_default().into_owned(),
                }
            }
            "redacted_thinking" => {
                out.push(Frame::ReasoningDone {
                    signer: Signer::Anthropic,
                    signature: shared(block.data.as_deref().unwrap_or_default()),
                    redacted: true,
                });
                Open::Other
            }
            "tool_use" => Open::Tool(self.call(data, block, out)?),
            other => {
                // What a server's own tools do is no part of the answer; what is said is.
                self.speech.pass_over(other);
                self.say(data, block.text, Voice::Text, out)?;
                Open::Other
            }
        };
        check_count(self.blocks.len() + 1)?;
        self.blocks.push((at, open));
        Ok(())
    }

    fn call(
        &mut self,
        data: &Bytes,
        block: &Block<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<Call, ModelError> {
        let Some(name) = block.name.as_deref().filter(|name| !name.is_empty()) else {
            let message = "a tool call that has no name".to_owned();
            return Err(ModelError::Malformed(message));
        };
        let index = self.tools;
        check_count(index as usize + 1)?;
        self.tools += 1;
        out.push(Frame::ToolStarted {
            index,
            id: match block.id.as_deref() {
                Some(id) if !id.is_empty() => shared(id),
                _ => Bytes::from(ids::mint(ids::Kind::Call)),
            },
            name: shared(name),
        });
        Ok(Call {
            index,
            // Streams begin with an empty object and send the text in deltas.
            input: arguments_of(data, block.input).filter(|input| input.as_bytes() != b"{}"),
            has_arguments: false,
        })
    }

    /// The block that a delta of this kind is for: the one of its index, else the last that fits.
    fn block(&mut self, at: Option<u32>, fits: fn(&Open) -> bool) -> Option<&mut Open> {
        let of_index = |(index, open): &(Option<u32>, Open)| *index == at && fits(open);
        let found = match self.blocks.iter().rposition(of_index) {
            None => self.blocks.iter().rposition(|(_, open)| fits(open)),
            found => found,
        };
        Some(&mut self.blocks[found?].1)
    }

    /// What a delta has tells what it is: its type and its block's are not always right.
    fn delta(
        &mut self,
        data: &Bytes,
        at: Option<u32>,
        delta: &Delta<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let mut known = false;
        if let Some(piece) = delta.partial_json {
            known = true;
            // Pieces may be of a tool that the provider runs itself.
            let is_known = self.speech.has_passed_over();
            if let Some(piece) = arguments_of(data, Some(piece)) {
                let block = self.block(at, |open| matches!(open, Open::Tool(_)));
                match block {
                    Some(Open::Tool(call)) => call.say(piece, out),
                    _ if is_known => {}
                    _ => {
                        let message = "pieces of a tool call that has no name".to_owned();
                        return Err(ModelError::Malformed(message));
                    }
                }
            }
        }
        if let Some(piece) = delta.signature.as_deref() {
            known = true;
            let block = self.block(at, |open| matches!(open, Open::Thinking { .. }));
            if let Some(Open::Thinking { signature }) = block {
                signature.push_str(piece);
                self.signed = true;
            }
        }
        if is_something(delta.thinking) {
            self.speech
                .say(data, delta.thinking, Voice::Reasoning, out)?;
        }
        if is_something(delta.text) {
            let thinks = delta.kind.as_deref() == Some("thinking_delta");
            let voice = if thinks {
                Voice::Reasoning
            } else {
                Voice::Text
            };
            self.say(data, delta.text, voice, out)?;
        }
        if let Some(citation) = aside(delta.citation) {
            known = true;
            let block = self.block(at, |open| matches!(open, Open::Text { .. }));
            if let Some(Open::Text { cited, .. }) = block {
                cited.push(citation);
            }
        }
        if !known && delta.text.is_none() && delta.thinking.is_none() {
            self.speech
                .pass_over(delta.kind.as_deref().unwrap_or("a delta"));
        }
        Ok(())
    }

    fn close(&mut self, at: Option<u32>, out: &mut Vec<Frame>) {
        let found = match self.blocks.iter().rposition(|(index, _)| *index == at) {
            None if at.is_none() => self.blocks.len().checked_sub(1),
            found => found,
        };
        if let Some(found) = found {
            self.blocks.remove(found).1.close(self.chars, out);
        }
    }
}

impl Call {
    fn say(&mut self, delta: Escaped, out: &mut Vec<Frame>) {
        if !self.has_arguments && is_blank(&delta) {
            return;
        }
        self.has_arguments = true;
        out.push(Frame::ToolArgs {
            index: self.index,
            delta,
        });
    }
}

impl Open {
    /// `chars`: those of the text so far.
    fn close(self, chars: u64, out: &mut Vec<Frame>) {
        match self {
            Self::Thinking { signature } => out.push(Frame::ReasoningDone {
                signer: Signer::Anthropic,
                signature: Bytes::from(signature),
                redacted: false,
            }),
            Self::Tool(mut call) => {
                if !call.has_arguments {
                    let none = Escaped::from_valid(Bytes::from_static(b"{}"));
                    let input = call.input.take().unwrap_or(none);
                    call.say(input, out);
                }
                out.push(Frame::ToolDone {
                    index: call.index,
                    signature: Bytes::new(),
                });
            }
            Self::Text { from, cited } => {
                let cited = cited.into_iter();
                out.extend(cited.filter_map(|told| cited::of_block(told, from, chars)));
            }
            Self::Other => {}
        }
    }
}

/// A message's content that is a text, and blocks that are.
fn reshape_message(message: &mut Value) {
    let text = |value: &mut Value| *value = json!({ "type": "text", "text": value.take() });
    match &mut message["content"] {
        content @ Value::String(_) => text(content),
        Value::Array(blocks) => blocks.iter_mut().filter(|b| b.is_string()).for_each(text),
        _ => {}
    }
}

/// The same in an event.
fn reshape_event(event: &mut Value) {
    if let Some(message) = event.get_mut("message").filter(|m| m.is_object()) {
        reshape_message(message);
    }
    for name in ["delta", "content_block"] {
        if let Some(said) = event.get_mut(name)
            && said.is_string()
        {
            *said = json!({ "type": "text", "text": said.take() });
        }
    }
}

impl Decoder {
    fn read(
        &mut self,
        data: &Bytes,
        name: Option<&[u8]>,
        out: &mut Vec<Frame>,
    ) -> Result<(), Unread> {
        let event: StreamEvent<'_> = serde_json::from_slice(data)?;
        self.signed = false;
        let kind = event.kind.as_deref().map(str::as_bytes).or(name);
        let kind = kind.unwrap_or_default();
        self.is_piece = kind == b"content_block_delta";
        match kind {
            b"message_start" => {
                self.start(event.message.as_ref(), out);
                if let Some(message) = &event.message {
                    self.blocks_of(data, message, out)?;
                }
            }
            b"content_block_start" => {
                self.start(None, out);
                if let Some(block) = &event.content_block {
                    self.open(data, event.index, block, out)?;
                }
            }
            b"content_block_delta" => {
                self.start(None, out);
                if let Some(delta) = &event.delta {
                    self.delta(data, event.index, delta, out)?;
                }
            }
            b"content_block_stop" => self.close(event.index, out),
            b"message_delta" => {
                self.counts.add_raw(event.usage);
                if let Some(delta) = &event.delta {
                    let reason = delta.stop_reason.as_deref().unwrap_or_default();
                    self.stopped(reason, delta.stop_details, out)?;
                }
            }
            b"message_stop" => {
                self.counts.add_raw(event.usage);
                self.done = true;
            }
            b"error" => return Err(failed_with(event.error).into()),
            _ if is_something(event.error) => return Err(failed_with(event.error).into()),
            _ => {}
        }
        Ok(())
    }
}

impl StreamDecoder for Decoder {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let data = event.data.trim_ascii();
        if data == b"[DONE]" || data.is_empty() {
            return Ok(());
        }
        let name = event.name.as_deref();
        leniently(&event.data, reshape_event, |data| {
            self.read(data, name, out)
        })
        .map_err(|unread| unread.into_error(&event.data))
    }

    fn may_repeat(&self) -> bool {
        self.is_piece && !self.signed
    }

    fn repeated(&mut self, frame: &Frame, is_plain: bool) {
        if let Frame::Text(text) = frame {
            self.chars += match is_plain {
                true => text.as_bytes().len() as u64,
                false => text.chars(),
            };
        }
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let mut stop = match self.stop.take() {
            Some(stop) => stop,
            None if self.done && self.started => StopReason::EndTurn,
            None => return Err(ModelError::Cut),
        };
        for (_, open) in std::mem::take(&mut self.blocks) {
            open.close(self.chars, out);
        }
        self.speech.end(self.tools > 0)?;
        if stop == StopReason::EndTurn && self.tools > 0 {
            stop = StopReason::ToolCalls;
        }
        out.push(Frame::ModelUsage(self.counts.usage()));
        out.push(Frame::ModelStopped(stop));
        Ok(())
    }
}
