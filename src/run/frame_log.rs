//! The frames of a run on their way to the journal, gathered so that a delta costs no entry.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::live::LiveRun;
use super::transcript::Collector;
use crate::bus::Bus;
use crate::frame::{self, Escaped, Frame};
use crate::store::{Journal, Op};

/// Frames are handed to the journal at this size, or after a while: soon, where others may follow the
/// run or go on with it; for the record alone it has time, as thousands of slow streams would make
/// an entry each.
const LOG_BYTES: usize = 32 * 1024;
const LOG_SOON: Duration = Duration::from_millis(200);
const LOG_LATER: Duration = Duration::from_secs(2);

/// Frames on their way to the journal.
pub(super) struct FrameLog {
    tenant_id: Arc<str>,
    run_id: Arc<str>,
    node_id: Arc<str>,
    bus: Bus,
    /// What other nodes are not told yet, and the number of its first frame.
    untold: BytesMut,
    told: i64,
    first: i64,
    count: i64,
    bytes: BytesMut,
    every: Duration,
    flushed_at: tokio::time::Instant,
}

impl FrameLog {
    /// Of a run whose frames so far, if any, are in the journal.
    pub(super) fn new(live: &LiveRun, node_id: Arc<str>, bus: &Bus) -> Self {
        let logged = live.resumed_at() as i64;
        Self {
            node_id,
            // Nobody can follow a run that ends with its client.
            bus: match live.is_detached() {
                true => bus.clone(),
                false => Bus::default(),
            },
            tenant_id: live.tenant_id.clone(),
            run_id: live.run_id.clone(),
            untold: BytesMut::new(),
            told: logged,
            first: logged,
            count: logged,
            bytes: BytesMut::new(),
            every: match live.is_detached() {
                true => LOG_SOON,
                false => LOG_LATER,
            },
            flushed_at: tokio::time::Instant::now(),
        }
    }

    /// How many frames the run has.
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// Takes frames in.
    pub(super) fn add(&mut self, frames: &[Frame]) {
        let before = self.bytes.len();
        self.bytes.reserve(frames.iter().map(Frame::weight).sum());
        frame::encode_all(frames, &mut self.bytes);
        if self.bus.is_on() {
            self.untold.extend_from_slice(&self.bytes[before..]);
        }
        self.count += frames.len() as i64;
    }

    /// Takes the last frames in. The log has the whole text already, piece by piece: it is not written
    /// once more ([`fill`]).
    pub(super) fn add_last(&mut self, frames: &[Frame]) {
        if self.bus.is_on() {
            frame::encode_all(frames, &mut self.untold);
        }
        for frame in frames {
            match frame {
                Frame::MessageCompleted { .. } => {
                    let content = Escaped::default();
                    frame::encode(&Frame::MessageCompleted { content }, &mut self.bytes);
                }
                other => frame::encode(other, &mut self.bytes),
            }
        }
        self.count += frames.len() as i64;
    }

    /// Tells other nodes what was taken in. Frames that are shown only when they are kept are told
    /// only then: a node that goes on with the run takes what was told for what happened.
    pub(super) fn tell(&mut self) {
        if !self.untold.is_empty() {
            let count = (self.count - self.told) as usize;
            let first = self.told as usize;
            let told = self.untold.split().freeze();
            self.bus.frames(&self.run_id, first, count, told);
        }
        self.told = self.count;
    }

    /// The number of the first frame since the last time, and all since then, encoded.
    pub(super) fn take(&mut self) -> (i64, Vec<u8>) {
        let first = self.first;
        self.first = self.count;
        self.flushed_at = tokio::time::Instant::now();
        (first, std::mem::take(&mut self.bytes).into())
    }

    /// Hands over what has gathered, when it is much or old.
    pub(super) fn flush_if_due(&mut self, journal: &Journal) {
        if self.bytes.len() >= LOG_BYTES || self.flushed_at.elapsed() >= self.every {
            let (first, frames) = self.take();
            journal.append(Op::Frames {
                tenant_id: self.tenant_id.clone(),
                run_id: self.run_id.clone(),
                node_id: self.node_id.clone(),
                first,
                frames,
            });
        }
    }
}

/// Gives the frames of a log, from its first on, the text that is not written twice.
pub(super) fn fill(frames: &mut [Frame]) {
    let mut said = Collector::default();
    for frame in frames {
        match frame {
            Frame::ModelStarted { .. } => said = Collector::default(),
            Frame::MessageCompleted { content } if content.is_empty() => {
                *content = Escaped::escape(&std::mem::take(&mut said).finish().said());
            }
            _ => {}
        }
        said.add(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{StopReason, Usage};

    #[test]
    fn a_log_holds_the_text_once_and_tells_it_whole() {
        let live = LiveRun::new(
            "run_1".into(),
            "proj_1".into(),
            "smt_1".into(),
            "thr_1".into(),
            0,
            false,
        );
        let started = || Frame::ModelStarted {
            id: "c".into(),
            model: "m".into(),
        };
        let text = |text: &str| Frame::Text(Escaped::escape(text));
        let piece = "a \"word\" of it, ";
        let completed = |text: &str| Frame::MessageCompleted {
            content: Escaped::escape(text),
        };
        // A call that was cut, one that called tools, and the last.
        let mut all = vec![started(), text("cut"), started(), text("I look.")];
        all.extend([completed("I look."), started()]);
        all.extend(std::iter::repeat_n(text(piece), 100));
        let last = [
            completed(&piece.repeat(100)),
            Frame::RunCompleted {
                stop: StopReason::EndTurn,
                usage: Usage::default(),
                warnings: "[]".into(),
            },
        ];
        let mut log = FrameLog::new(&live, "node".into(), &Bus::default());
        log.add(&all);
        log.add_last(&last);
        let (first, bytes) = log.take();
        assert_eq!((first, log.count()), (0, all.len() + 2));
        let words = bytes.windows(4).filter(|four| four == b"word").count();
        assert_eq!(words, 100);
        all.extend(last);
        let mut seen = frame::decode_all(bytes.into()).expect("frames");
        fill(&mut seen);
        assert_eq!(seen, all);
    }
}
