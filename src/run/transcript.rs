//! What a model said, put together from its frames: the assistant turn for the thread, the output
//! for the record.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::frame::{Escaped, Frame, StopReason, Usage, citation, unescape_into};
use crate::model::{Part, Role, Signature, Turn};

/// Of a text, in bytes.
const LEAST_ROOM: usize = 256;

struct OpenCall {
    /// Its arguments, escaped.
    written: Vec<u8>,
    signature: Bytes,
}

#[derive(Default)]
enum Piece {
    #[default]
    None,
    Text(Vec<u8>),
    Reasoning(Vec<u8>),
}

/// Gathers the frames of one model call. Text stays escaped until it is asked for.
#[derive(Default)]
pub struct Collector {
    pub started: Option<(Bytes, Bytes)>,
    parts: Vec<Part>,
    open: Piece,
    is_brief: bool,
    /// What the text that comes may take.
    room: usize,
    refusal: Vec<u8>,
    /// Where the parts of the last answer begin.
    began: usize,
    /// What the text that is open, or that will come, rests on.
    cited: Vec<Value>,
    calls: Vec<OpenCall>,
    /// How many of them are of answers before the last.
    earlier: usize,
    pub usage: Option<Usage>,
    pub stop: Option<StopReason>,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Collected {
    pub parts: Vec<Part>,
    /// The provider's response id and model.
    pub started: Option<(Bytes, Bytes)>,
    pub usage: Usage,
    pub stop: StopReason,
}

fn plain(escaped: &[u8]) -> String {
    let mut text = String::with_capacity(escaped.len());
    unescape_into(escaped, &mut text);
    text
}

fn utf8(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signature_of(bytes: &Bytes) -> Option<String> {
    (!bytes.is_empty()).then(|| utf8(bytes))
}

impl Collector {
    /// Gathers what a later call may need, which is not the visible text, nor the provider's names:
    /// their bytes would keep the block that they were read into.
    pub fn brief() -> Self {
        Self {
            is_brief: true,
            ..Self::default()
        }
    }

    fn close_piece(&mut self, signature: Option<Signature>, redacted: bool) {
        match std::mem::take(&mut self.open) {
            Piece::None => {
                if signature.is_some() {
                    self.parts.push(Part::Reasoning {
                        text: String::new(),
                        signature,
                        redacted,
                    });
                }
            }
            Piece::Text(text) => {
                self.parts.push(Part::Text { text: plain(&text) });
                let cited = std::mem::take(&mut self.cited).into_iter();
                self.parts.extend(cited.map(|of| Part::Citation { of }));
                if signature.is_some() {
                    self.parts.push(Part::Reasoning {
                        text: String::new(),
                        signature,
                        redacted,
                    });
                }
            }
            Piece::Reasoning(text) => self.parts.push(Part::Reasoning {
                text: plain(&text),
                signature,
                redacted,
            }),
        }
    }

    /// Places are told in the answer's text, and kept in the part's.
    fn cite(&mut self, citation: &Bytes) {
        let Ok(citation) = serde_json::from_slice::<Value>(citation) else {
            return;
        };
        let is_text = |part: &Part| matches!(part, Part::Text { .. });
        let of_answer = &self.parts[self.began..];
        let before = match (&self.open, of_answer.iter().rposition(is_text)) {
            (Piece::Text(_), _) | (_, None) => of_answer.len(),
            (_, Some(last)) => last,
        };
        let chars: usize = of_answer[..before]
            .iter()
            .map(|part| match part {
                Part::Text { text } => text.chars().count(),
                _ => 0,
            })
            .sum();
        let of = citation::shifted(citation, -i64::try_from(chars).unwrap_or_default());
        match before == of_answer.len() {
            true => self.cited.push(of),
            // The text that it came too late for.
            false => {
                let is_cited = |part: &&Part| matches!(part, Part::Citation { .. });
                let behind = of_answer[before + 1..].iter().take_while(is_cited).count();
                let at = self.began + before + 1 + behind;
                self.parts.insert(at, Part::Citation { of });
            }
        }
    }

    /// Takes frames in that came together.
    pub fn add_all(&mut self, frames: &[Frame]) {
        if let Piece::None = self.open {
            self.room = frames.iter().map(Frame::weight).sum();
        }
        for frame in frames {
            self.add(frame);
        }
    }

    /// Takes one frame in.
    pub fn add(&mut self, frame: &Frame) {
        match frame {
            Frame::ModelStarted { id, model } => {
                self.close_piece(None, false);
                // Each answer counts its calls from 0.
                self.earlier = self.calls.len();
                self.began = self.parts.len();
                self.cited.clear();
                if !self.is_brief {
                    self.started = Some((id.clone(), model.clone()));
                }
            }
            Frame::Text(_) if self.is_brief => {
                if let Piece::Reasoning(_) = self.open {
                    self.close_piece(None, false);
                }
            }
            Frame::Text(text) => {
                if !matches!(self.open, Piece::Text(_)) {
                    self.close_piece(None, false);
                    self.open = Piece::Text(Vec::with_capacity(self.room.max(LEAST_ROOM)));
                }
                if let Piece::Text(all) = &mut self.open {
                    all.extend_from_slice(text.as_bytes());
                }
            }
            Frame::Reasoning(text) => {
                if !matches!(self.open, Piece::Reasoning(_)) {
                    self.close_piece(None, false);
                    self.open = Piece::Reasoning(Vec::with_capacity(LEAST_ROOM));
                }
                if let Piece::Reasoning(all) = &mut self.open {
                    all.extend_from_slice(text.as_bytes());
                }
            }
            Frame::ReasoningDone {
                signer,
                signature,
                redacted,
            } => {
                if *redacted {
                    self.close_piece(None, false);
                }
                let signature = signature_of(signature).map(|value| Signature {
                    signer: *signer,
                    value,
                });
                self.close_piece(signature, *redacted);
            }
            Frame::Cited(citation) if !self.is_brief => self.cite(citation),
            Frame::Refusal(text) => self.refusal.extend_from_slice(text.as_bytes()),
            Frame::ToolStarted { id, name, .. } => {
                self.close_piece(None, false);
                // Its place among the parts; what it says is filled in at the end.
                self.parts.push(Part::ToolCall {
                    id: utf8(id),
                    name: utf8(name),
                    arguments: String::new(),
                    signature: None,
                    server: None,
                    approved: false,
                });
                self.calls.push(OpenCall {
                    written: Vec::new(),
                    signature: Bytes::new(),
                });
            }
            Frame::ToolArgs { index, delta } => {
                if let Some(call) = self.calls.get_mut(self.earlier + *index as usize) {
                    call.written.extend_from_slice(delta.as_bytes());
                }
            }
            Frame::ToolDone { index, signature } => {
                if let Some(call) = self.calls.get_mut(self.earlier + *index as usize) {
                    call.signature = signature.clone();
                }
            }
            Frame::ModelUsage(usage) => self.usage = Some(*usage),
            Frame::ModelStopped(stop) => self.stop = Some(*stop),
            _ => {}
        }
    }

    /// Whether the model called a tool.
    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The whole answer.
    pub fn finish(mut self) -> Collected {
        self.close_piece(None, false);
        let mut parts = self.parts;
        if !self.refusal.is_empty() {
            parts.push(Part::Refusal {
                text: plain(&self.refusal),
            });
        }
        let mut calls = self.calls.iter();
        for part in &mut parts {
            if let Part::ToolCall {
                arguments,
                signature,
                ..
            } = part
                && let Some(call) = calls.next()
            {
                *arguments = match call.written.is_empty() {
                    true => "{}".to_owned(),
                    false => plain(&call.written),
                };
                *signature = signature_of(&call.signature);
            }
        }
        Collected {
            parts,
            started: self.started,
            usage: self.usage.unwrap_or_default(),
            stop: self.stop.unwrap_or(StopReason::EndTurn),
        }
    }
}

impl Collected {
    /// The visible text.
    pub fn text(&self) -> Cow<'_, str> {
        crate::model::joined_text(&self.parts)
    }

    /// The same where a refusal has no place of its own, and is said, too.
    pub fn said(&self) -> Cow<'_, str> {
        crate::model::said_text(&self.parts)
    }

    /// As a turn of the thread.
    pub fn into_turn(self) -> Turn {
        Turn {
            role: Role::Assistant,
            parts: self.parts,
        }
    }

    /// Its tool calls in OpenAI's shape.
    pub fn tool_calls(&self) -> Vec<Value> {
        self.parts
            .iter()
            .filter_map(|part| match part {
                Part::ToolCall {
                    id,
                    name,
                    arguments,
                    signature,
                    ..
                } => {
                    let mut call = json!({
                        "id": id,
                        "type": "function",
                        "function": { "name": name, "arguments": arguments },
                    });
                    if let Some(signature) = signature {
                        call["extra_content"] =
                            json!({ "google": { "thought_signature": signature } });
                    }
                    Some(call)
                }
                _ => None,
            })
            .collect()
    }

    /// As JSON text, for the run's record; `said` is the text, escaped. With `in_transcript` it is
    /// left out, as the record has it there (`record::output`): it is long, and each copy is written
    /// twice.
    pub fn output(
        &self,
        said: &Escaped,
        in_transcript: bool,
        is_json: bool,
        suggested_replies: Option<&[String]>,
    ) -> String {
        let calls = self.tool_calls();
        let with_text = !said.is_empty() || calls.is_empty();
        let mut rest = serde_json::Map::new();
        if with_text {
            let kind = if is_json {
                "application/json"
            } else {
                "text/plain"
            };
            rest.insert("content_type".into(), json!(kind));
        }
        if !calls.is_empty() {
            rest.insert("tool_calls".into(), Value::Array(calls));
        }
        if let Some(replies) = suggested_replies {
            rest.insert("suggested_replies".into(), json!(replies));
        }
        let rest = Value::Object(rest).to_string();
        match with_text && !in_transcript {
            // The text is long, and was escaped once.
            true => ["{\"content\":\"", &said.as_str(), "\",", &rest[1..]].concat(),
            false => rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Signer;

    #[test]
    fn parts_keep_their_order_and_signatures() {
        let (mut collector, mut brief) = (Collector::default(), Collector::brief());
        let text = |t: &str| Escaped::escape(t);
        for frame in [
            Frame::ModelStarted {
                id: "r1".into(),
                model: "m".into(),
            },
            Frame::Reasoning(text("think")),
            Frame::ReasoningDone {
                signer: Signer::Anthropic,
                signature: Bytes::from_static(b"sig"),
                redacted: false,
            },
            Frame::ReasoningDone {
                signer: Signer::Anthropic,
                signature: Bytes::from_static(b"red"),
                redacted: true,
            },
            Frame::Text(text("a\n")),
            Frame::Text(text("b")),
            Frame::ToolStarted {
                index: 0,
                id: "c1".into(),
                name: "f".into(),
            },
            Frame::ToolArgs {
                index: 0,
                delta: text("{\"x\":"),
            },
            Frame::ToolArgs {
                index: 0,
                delta: text("1}"),
            },
            Frame::ToolDone {
                index: 0,
                signature: Bytes::from_static(b"g"),
            },
            Frame::ModelStopped(StopReason::ToolCalls),
        ] {
            collector.add(&frame);
            brief.add(&frame);
        }
        let (mut collected, brief) = (collector.finish(), brief.finish());
        assert_eq!(collected.text(), "a\nb");
        let mut refusing = Collector::default();
        refusing.add(&Frame::Refusal(text("I cannot.")));
        assert_eq!(refusing.finish().said(), "I cannot.");
        assert_eq!(collected.parts.len(), 4);
        assert!(
            matches!(&collected.parts[0], Part::Reasoning { text, signature: Some(s), redacted: false }
            if text == "think" && s.value == "sig")
        );
        assert!(matches!(
            &collected.parts[1],
            Part::Reasoning { redacted: true, .. }
        ));
        assert!(
            matches!(&collected.parts[3], Part::ToolCall { arguments, signature: Some(s), .. }
            if arguments == "{\"x\":1}" && s == "g")
        );
        collected.parts.remove(2);
        collected.started = None;
        assert_eq!(brief, collected);
    }
}
