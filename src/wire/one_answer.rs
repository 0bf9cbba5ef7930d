//! A run of several steps as one model's answer, for wires that know no server-side tools: these
//! stay unseen, and an approval that waits is a call of its tool.

use bytes::{Bytes, BytesMut};

use super::FrameEncoder;
use crate::frame::{ApprovalRequired, Escaped, Frame, StopReason, citation};

/// Between what was said in two steps; escaped.
const PARAGRAPH: &[u8] = b"\\n\\n";
const PARAGRAPH_CHARS: i64 = 2;

/// A citation in a text that begins `by` characters later.
fn cited(of: &Bytes, by: i64) -> Frame {
    let moved = serde_json::from_slice(of).map(|of| citation::shifted(of, by).to_string());
    Frame::Cited(moved.map_or_else(|_| of.clone(), Bytes::from))
}

/// Turns the frames of a run into those of one answer.
pub struct OneAnswer {
    run_id: Bytes,
    /// Whether the tools are the smith's own.
    own_tools: bool,
    said: bool,
    paragraph_due: bool,
    /// The step's text began with a paragraph.
    has_paragraph: bool,
    calls: u32,
}

impl OneAnswer {
    /// For the run with this id.
    pub fn new(run_id: &str, own_tools: bool) -> Self {
        Self {
            run_id: Bytes::copy_from_slice(run_id.as_bytes()),
            own_tools,
            said: false,
            paragraph_due: false,
            has_paragraph: false,
            calls: 0,
        }
    }

    /// Hands on what `frame` says in one answer.
    pub fn say(&mut self, frame: &Frame, mut hand_on: impl FnMut(&Frame)) {
        if !self.own_tools {
            return hand_on(frame);
        }
        match frame {
            Frame::ModelStarted { .. } => {
                self.paragraph_due = self.said;
                self.has_paragraph = false;
                hand_on(frame);
            }
            Frame::Text(_) => {
                if std::mem::take(&mut self.paragraph_due) {
                    self.has_paragraph = true;
                    hand_on(&Frame::Text(Escaped::from_valid(Bytes::from_static(
                        PARAGRAPH,
                    ))));
                }
                self.said = true;
                hand_on(frame);
            }
            Frame::Cited(of) if self.has_paragraph => hand_on(&cited(of, PARAGRAPH_CHARS)),
            Frame::ToolStarted { .. } | Frame::ToolArgs { .. } | Frame::ToolDone { .. } => {}
            Frame::ToolExecuting(_) | Frame::ToolCompleted(_) => {}
            Frame::ApprovalRequired(asked) => {
                let ApprovalRequired { id, name, args, .. } = &**asked;
                let index = self.calls;
                self.calls += 1;
                let mut whole = BytesMut::from(&self.run_id[..]);
                whole.extend_from_slice(b"::");
                whole.extend_from_slice(id);
                hand_on(&Frame::ToolStarted {
                    index,
                    id: whole.freeze(),
                    name: name.clone(),
                });
                let delta = Escaped::escape(&String::from_utf8_lossy(args));
                hand_on(&Frame::ToolArgs { index, delta });
                hand_on(&Frame::ToolDone {
                    index,
                    signature: Bytes::new(),
                });
            }
            Frame::RunPaused { usage, .. } => hand_on(&Frame::RunCompleted {
                stop: StopReason::ToolCalls,
                usage: *usage,
                warnings: Bytes::new(),
            }),
            _ => hand_on(frame),
        }
    }
}

/// An encoder of one answer that a run of several steps goes to.
pub struct OneAnswerEncoder<E> {
    one_answer: OneAnswer,
    inner: E,
    /// Characters that were said, and those of the steps before this one.
    chars: u64,
    before: u64,
}

impl<E> OneAnswerEncoder<E> {
    /// Hands on to `inner`.
    pub fn new(one_answer: OneAnswer, inner: E) -> Self {
        Self {
            one_answer,
            inner,
            chars: 0,
            before: 0,
        }
    }
}

impl<E: FrameEncoder> FrameEncoder for OneAnswerEncoder<E> {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        let Self {
            one_answer,
            inner,
            chars,
            before,
        } = self;
        one_answer.say(frame, |frame| {
            match frame {
                Frame::Text(text) => *chars += text.chars(),
                Frame::ModelStarted { .. } => *before = *chars,
                Frame::Cited(of) => {
                    let by = i64::try_from(*before).unwrap_or_default();
                    return inner.frame(&cited(of, by), buf);
                }
                _ => {}
            }
            inner.frame(frame, buf);
        });
    }

    fn written(&self) -> u64 {
        self.inner.written()
    }
}
