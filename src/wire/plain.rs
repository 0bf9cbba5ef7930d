//! A run of several steps as one model's answer, for wires that know no server-side tools: these
//! stay unseen, and an approval that waits is a call of its tool.

use bytes::{Bytes, BytesMut};

use super::FrameEncoder;
use crate::frame::{ApprovalRequired, Escaped, Frame, StopReason};

/// Between what was said in two steps; escaped.
const PARAGRAPH: &[u8] = b"\\n\\n";

/// Turns the frames of a run into those of one answer.
pub struct Plain {
    run_id: Bytes,
    /// Whether the tools are the smith's own.
    own_tools: bool,
    said: bool,
    paragraph_due: bool,
    calls: u32,
}

impl Plain {
    /// For the run with this id.
    pub fn new(run_id: &str, own_tools: bool) -> Self {
        Self {
            run_id: Bytes::copy_from_slice(run_id.as_bytes()),
            own_tools,
            said: false,
            paragraph_due: false,
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
                hand_on(frame);
            }
            Frame::Text(_) => {
                if std::mem::take(&mut self.paragraph_due) {
                    hand_on(&Frame::Text(Escaped::from_valid(Bytes::from_static(
                        PARAGRAPH,
                    ))));
                }
                self.said = true;
                hand_on(frame);
            }
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
pub struct PlainEncoder<E> {
    pub plain: Plain,
    pub inner: E,
}

impl<E: FrameEncoder> FrameEncoder for PlainEncoder<E> {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        let inner = &mut self.inner;
        self.plain.say(frame, |frame| inner.frame(frame, buf));
    }

    fn written(&self) -> u64 {
        self.inner.written()
    }
}
