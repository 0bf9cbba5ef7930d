//! From what a target answers back to what the caller asked for: names of tools, an answer that
//! had to be given by a tool, and whose reasoning it is.

use std::sync::Arc;

use bytes::Bytes;

use super::fence::Fence;
use super::spoken::Spoken;
use crate::config::ProviderWire;
use crate::frame::{Escaped, Frame, StopReason};
use crate::model::param::Lost;
use crate::model::provider::reasoning::name_provider;
use crate::model::request::ResponseFormat;

/// What was changed in a request.
#[derive(Debug)]
pub struct Undo {
    provider: Arc<str>,
    /// A provider of a wire on which reasoning is told apart by who made it.
    names_provider: bool,
    /// Names of tools as they were sent and as the caller knows them.
    pub names: Vec<(String, String)>,
    /// The tool that takes the answer.
    pub answer: Option<Answer>,
    /// For a target that may leave the model's own tags in the text.
    pub spoken: Option<Box<Spoken>>,
    /// For an answer that is JSON.
    pub fence: Option<Box<Fence>>,
    /// The form that the answer must have, as far as the target is not held to it.
    pub held_to: Option<Box<ResponseFormat>>,
    /// What was asked for and is not sent.
    pub lost: Lost,
}

/// An answer that comes as the arguments of a tool.
#[derive(Debug, Default)]
pub struct Answer {
    pub tool: String,
    /// The places among the calls of those of this tool, once they have begun: the first is the
    /// answer, which is not given twice.
    calls: Vec<u32>,
    has_text: bool,
    has_ended: bool,
    /// Text before it, which is the answer where no call comes.
    held: Vec<Frame>,
    other_calls: bool,
}

impl Undo {
    /// Of a request in which nothing was changed yet.
    pub fn new(provider: Arc<str>, wire: ProviderWire) -> Self {
        Self {
            provider,
            names_provider: wire == ProviderWire::OpenaiChat,
            names: Vec::new(),
            answer: None,
            spoken: None,
            fence: None,
            held_to: None,
            lost: Lost::default(),
        }
    }

    /// Who is asked.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Changes frames back that were just read.
    pub fn frames(&mut self, frames: &mut Vec<Frame>) {
        if let Some(spoken) = &mut self.spoken {
            spoken.frames(frames);
            if spoken.is_over() {
                self.spoken = None;
            }
        }
        self.named(frames);
    }

    /// The same at the end of an answer that has none: what is held back is given.
    pub fn give_up(&mut self, frames: &mut Vec<Frame>) {
        if let Some(mut spoken) = self.spoken.take() {
            let mut held = Vec::new();
            spoken.give_up(&mut held);
            self.named(&mut held);
            frames.append(&mut held);
        }
    }

    fn named(&mut self, frames: &mut Vec<Frame>) {
        if self.names_provider || !self.names.is_empty() {
            for frame in frames.iter_mut() {
                if let Frame::ToolStarted { name, .. } = frame {
                    let sent = |pair: &&(String, String)| pair.0.as_bytes() == &name[..];
                    if let Some((_, known)) = self.names.iter().find(sent) {
                        *name = Bytes::copy_from_slice(known.as_bytes());
                    }
                } else if self.names_provider {
                    name_provider(frame, &self.provider);
                }
            }
        }
        if let Some(answer) = &mut self.answer {
            for frame in std::mem::take(frames) {
                answer.frame(frame, frames);
            }
        }
        if let Some(fence) = &mut self.fence {
            fence.frames(frames);
        }
    }
}

impl Answer {
    /// Taken by this tool.
    pub fn by(tool: String) -> Self {
        Self {
            tool,
            ..Self::default()
        }
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Frame>) {
        match frame {
            Frame::ToolStarted { index, name, .. } if name == self.tool.as_bytes() => {
                if !self.calls.contains(&index) {
                    self.calls.push(index);
                }
                self.held.clear();
            }
            Frame::ToolStarted { index, id, name } => {
                self.other_calls = true;
                let index = self.shifted(index);
                out.push(Frame::ToolStarted { index, id, name });
            }
            Frame::ToolArgs { index, delta } if self.calls.first() == Some(&index) => {
                self.has_text = true;
                out.push(Frame::Text(delta));
            }
            Frame::ToolArgs { index, .. } if self.calls.contains(&index) => {}
            Frame::ToolArgs { index, delta } => {
                let index = self.shifted(index);
                out.push(Frame::ToolArgs { index, delta });
            }
            Frame::ToolDone { index, .. } if self.calls.first() == Some(&index) => self.end(out),
            Frame::ToolDone { index, .. } if self.calls.contains(&index) => {}
            Frame::ToolDone { index, signature } => {
                let index = self.shifted(index);
                out.push(Frame::ToolDone { index, signature });
            }
            Frame::Text(_) if self.calls.is_empty() => self.held.push(frame),
            Frame::Text(_) => {}
            Frame::ModelStopped(stop) => {
                out.append(&mut self.held);
                self.end(out);
                let answered = !self.calls.is_empty() && !self.other_calls;
                out.push(Frame::ModelStopped(match stop {
                    StopReason::ToolCalls if answered => StopReason::EndTurn,
                    stop => stop,
                }));
            }
            _ => out.push(frame),
        }
    }

    fn end(&mut self, out: &mut Vec<Frame>) {
        if !self.calls.is_empty() && !std::mem::replace(&mut self.has_ended, true) && !self.has_text
        {
            out.push(Frame::Text(Escaped::escape("{}")));
        }
    }

    /// The place of another call, as if the answer's were none.
    fn shifted(&self, index: u32) -> u32 {
        let before = |answer: &&u32| **answer < index;
        self.calls.iter().filter(before).fold(index, |at, _| at - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(index: u32, name: &'static str) -> Frame {
        Frame::ToolStarted {
            index,
            id: "c".into(),
            name: name.into(),
        }
    }

    fn text(text: &str) -> Frame {
        Frame::Text(Escaped::escape(text))
    }

    fn undone(frames: Vec<Frame>) -> Vec<Frame> {
        let mut answer = Answer::by("answer".to_owned());
        let mut out = Vec::new();
        for frame in frames {
            answer.frame(frame, &mut out);
        }
        out
    }

    #[test]
    fn a_tools_arguments_are_the_answer() {
        let args = |text: &str| Frame::ToolArgs {
            index: 0,
            delta: Escaped::escape(text),
        };
        let done = Frame::ToolDone {
            index: 0,
            signature: Bytes::new(),
        };
        let out = undone(vec![
            text("Here it is:"),
            started(0, "answer"),
            args("{\"a\":"),
            args("1}"),
            done.clone(),
            Frame::ModelStopped(StopReason::ToolCalls),
        ]);
        let end = Frame::ModelStopped(StopReason::EndTurn);
        assert_eq!(out, [text("{\"a\":"), text("1}"), end.clone()]);
        let out = undone(vec![started(0, "answer"), done, end.clone()]);
        assert_eq!(out, [text("{}"), end.clone()]);
        let out = undone(vec![text("{}"), end.clone()]);
        assert_eq!(out, [text("{}"), end]);
    }

    #[test]
    fn an_answer_is_given_once() {
        let args = |index: u32, text: &str| Frame::ToolArgs {
            index,
            delta: Escaped::escape(text),
        };
        let done = |index: u32| Frame::ToolDone {
            index,
            signature: Bytes::new(),
        };
        let stop = Frame::ModelStopped(StopReason::ToolCalls);
        let out = undone(vec![
            started(0, "answer"),
            args(0, "{\"a\":1}"),
            done(0),
            started(1, "answer"),
            args(1, "{\"a\":2}"),
            done(1),
            started(2, "f"),
            args(2, "{}"),
            done(2),
            stop.clone(),
        ]);
        let other = [started(0, "f"), args(0, "{}"), done(0), stop.clone()];
        assert_eq!(out[0], text("{\"a\":1}"));
        assert_eq!(out[1..], other);
        let out = undone(vec![
            started(0, "answer"),
            started(1, "answer"),
            args(1, "{}"),
            args(0, "{\"a\":1}"),
            done(1),
            done(0),
            stop,
        ]);
        let end = Frame::ModelStopped(StopReason::EndTurn);
        assert_eq!(out, [text("{\"a\":1}"), end]);
    }

    #[test]
    fn other_calls_keep_their_order() {
        let stop = Frame::ModelStopped(StopReason::ToolCalls);
        let out = undone(vec![
            started(0, "answer"),
            started(1, "f"),
            Frame::ToolArgs {
                index: 1,
                delta: Escaped::escape("{}"),
            },
            stop.clone(),
        ]);
        assert_eq!(out[0], started(0, "f"));
        assert!(matches!(out[1], Frame::ToolArgs { index: 0, .. }));
        assert_eq!(out.last(), Some(&stop));
    }
}
