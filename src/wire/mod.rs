//! The client wires: bytes to a run request, frames to bytes. One folder each, with what serves it
//! and its routes.
//!
//! Lives here beside them: who asks (`caller`), how a turn is begun and followed, whatever the wire
//! (`turn`), how a call without a smith is answered (`routed`), a smith's turn
//! of a whole conversation (`smith`), how an answer of a provider that speaks
//! the client's wire is passed on (`forward`), keys
//! of turns that are sent again (`keyed`), decisions on runs that wait (`decision`), files that a
//! request names (`files`), counts of a request's tokens (`count`), and the vocabulary that wires share (`openai`). A wire knows no other wire.

mod cached;
mod caller;
pub mod chat;
mod count;
mod decision;
pub mod embeddings;
mod fields;
mod files;
mod forward;
pub mod gemini;
mod headers;
mod keyed;
pub mod mcp;
pub mod messages;
pub mod native;
mod one_answer;
pub mod openai;
pub mod relay;
pub mod responses;
mod routed;
mod smith;
mod turn;
pub mod ui;

pub use one_answer::{OneAnswer, OneAnswerEncoder};

use bytes::{Bytes, BytesMut};

use crate::error::ApiError;
use crate::frame::{Frame, StopReason, Usage};
use crate::model::ModelError;
use crate::sse::EventTooLarge;

/// Frames on their way to a client, as the events of its wire.
pub trait FrameEncoder {
    /// Appends the events of `frame`. A run's terminal frame ends the stream.
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut);
    /// Events written so far.
    fn written(&self) -> u64;
}

/// An encoder whose stream may also end without a run's terminal frame.
pub trait AnswerEncoder: FrameEncoder {
    /// Appends what ends the stream well.
    fn finish(&mut self, stop: StopReason, usage: &Usage, buf: &mut BytesMut);
    /// Appends what tells of a failure, and ends the stream.
    fn fail(&mut self, error: &ApiError, buf: &mut BytesMut);
    /// Whether the stream has had its end.
    fn is_ended(&self) -> bool;
}

/// A provider's stream on its way to a client of the same wire.
pub trait StreamGate: Send + Sync {
    /// Takes one read and gives what may go on: whole events only, maybe nothing.
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, EventTooLarge>;
    /// Called at the end of the body: what may still go on, or `None` when the stream was cut.
    fn end(&mut self) -> Option<Bytes>;
    /// Whether the first piece of content, or the end of a good answer, has gone through: until then
    /// another provider may still be asked.
    fn has_content(&self) -> bool;
    /// The failure that came in the place of content.
    fn failure(&mut self) -> Option<ModelError>;
    /// Whether an error was let through since this was asked last: one behind content is the client's.
    fn told_error(&mut self) -> bool;
    /// Whether the stream's last event was seen.
    fn is_done(&self) -> bool;
    /// The usage, once it was told.
    fn usage(&self) -> Option<Usage>;
    /// Events let through.
    fn events(&self) -> u64;
    /// How this wire tells of a failure after the header.
    fn write_error(&self, error: &ApiError, buf: &mut BytesMut);
}

/// What a run's [`Frame::RunFailed`] tells of.
fn failure(code: &Bytes, message: &Bytes, param: &Option<Box<Bytes>>) -> ApiError {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let error = ApiError::of_code(text(code), text(message));
    match param {
        None => error,
        Some(param) => error.param(text(param)),
    }
}
