//! An answer kept while it is written.

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::Exchange;
use crate::answers::{AnswerKey, KeptAnswer, MAX_ANSWER};
use crate::store::now_micros;

/// An answer that is to be kept, as far as it is written.
pub struct Recording {
    key: AnswerKey,
    lasts: u64,
    written: BytesMut,
    is_stream: bool,
}

impl Recording {
    /// Of the answer to `key`, which is kept for `lasts` seconds.
    pub fn new(key: AnswerKey, lasts: u64) -> Self {
        Self {
            key,
            lasts,
            written: BytesMut::new(),
            is_stream: false,
        }
    }
}

impl Exchange {
    /// Keeps the answer that is about to be written, if it is whole in the end and not too large.
    pub fn record(&mut self, recording: Recording) {
        self.recording = Some(Box::new(recording));
    }

    /// What leaves in pieces.
    pub(super) fn note(&mut self, piece: &Bytes) {
        let alive = match &self.recording {
            None => return,
            Some(_) => self.sign_of_life(),
        };
        let Some(recording) = &mut self.recording else {
            return;
        };
        if *piece == alive {
            return;
        }
        if recording.written.len() + piece.len() > MAX_ANSWER {
            self.recording = None;
            return;
        }
        recording.is_stream = true;
        recording.written.extend_from_slice(piece);
    }

    /// What leaves as a whole.
    pub(super) fn note_whole(&mut self, status: StatusCode, body: &Bytes) {
        if let Some(mut recording) = self.recording.take()
            && status == StatusCode::OK
            && body.len() <= MAX_ANSWER
        {
            recording.written.extend_from_slice(body);
            self.keep(*recording);
        }
    }

    /// Ends what is recorded of a stream: it is kept if it `is_whole`.
    pub fn end_recording(&mut self, is_whole: bool) {
        if let Some(recording) = self.recording.take()
            && is_whole
            && recording.is_stream
        {
            self.keep(*recording);
        }
    }

    fn keep(&self, recording: Recording) {
        let answer = KeptAnswer {
            is_stream: recording.is_stream,
            content: recording.written.freeze(),
            kept_at: now_micros(),
            lasts: recording.lasts,
        };
        self.gateway.answers.keep(recording.key, answer);
    }
}
