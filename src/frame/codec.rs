//! The binary form of frames: one tag byte, then varints and length-prefixed bytes. It is the
//! format of the frame log and, between nodes, of live frames; tags are never reused.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    ApprovalRequired, Escaped, Frame, Signer, StopReason, ToolCompleted, ToolExecuting, Usage,
};

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the frame is cut short")]
    Short,
    #[error("unknown frame tag {0}")]
    Tag(u8),
    #[error("a value is out of range")]
    Range,
}

const MODEL_STARTED: u8 = 1;
const TEXT: u8 = 2;
const REASONING: u8 = 3;
const REASONING_DONE: u8 = 4;
const REFUSAL: u8 = 5;
const TOOL_STARTED: u8 = 6;
const TOOL_ARGS: u8 = 7;
const TOOL_DONE: u8 = 8;
const MODEL_USAGE: u8 = 9;
const MODEL_STOPPED: u8 = 10;
const RUN_STARTED: u8 = 16;
const MESSAGE_COMPLETED: u8 = 17;
const RUN_COMPLETED: u8 = 18;
const RUN_FAILED: u8 = 19;
const RUN_CANCELLED: u8 = 20;
const TOOL_EXECUTING: u8 = 21;
const TOOL_COMPLETED: u8 = 22;
const APPROVAL_REQUIRED: u8 = 23;
const RUN_PAUSED: u8 = 24;
const CITED: u8 = 25;
/// [`RUN_FAILED`] with a `param`.
const RUN_FAILED_AT: u8 = 26;

fn put_varint(buf: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buf.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

fn put_bytes(buf: &mut BytesMut, bytes: &[u8]) {
    put_varint(buf, bytes.len() as u64);
    buf.put_slice(bytes);
}

fn put_usage(buf: &mut BytesMut, usage: &Usage) {
    for value in [
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write,
        usage.reasoning,
    ] {
        put_varint(buf, value);
    }
}

fn stop_code(stop: StopReason) -> u8 {
    match stop {
        StopReason::EndTurn => 0,
        StopReason::MaxTokens => 1,
        StopReason::ToolCalls => 2,
        StopReason::ApprovalRejected => 3,
        StopReason::Cancelled => 4,
        StopReason::ContentFilter => 5,
        StopReason::Error => 6,
    }
}

fn stop_of(code: u8) -> Result<StopReason, CodecError> {
    Ok(match code {
        0 => StopReason::EndTurn,
        1 => StopReason::MaxTokens,
        2 => StopReason::ToolCalls,
        3 => StopReason::ApprovalRejected,
        4 => StopReason::Cancelled,
        5 => StopReason::ContentFilter,
        6 => StopReason::Error,
        _ => return Err(CodecError::Range),
    })
}

fn signer_code(signer: Signer) -> u8 {
    match signer {
        Signer::Anthropic => 0,
        Signer::Google => 1,
        Signer::OpenAi => 2,
        Signer::Chat => 3,
    }
}

fn signer_of(code: u8) -> Result<Signer, CodecError> {
    Ok(match code {
        0 => Signer::Anthropic,
        1 => Signer::Google,
        2 => Signer::OpenAi,
        3 => Signer::Chat,
        _ => return Err(CodecError::Range),
    })
}

/// Appends the binary form of `frame` to `buf`.
pub fn encode(frame: &Frame, buf: &mut BytesMut) {
    match frame {
        Frame::ModelStarted { id, model } => {
            buf.put_u8(MODEL_STARTED);
            put_bytes(buf, id);
            put_bytes(buf, model);
        }
        Frame::Text(text) => {
            buf.put_u8(TEXT);
            put_bytes(buf, text.as_bytes());
        }
        Frame::Reasoning(text) => {
            buf.put_u8(REASONING);
            put_bytes(buf, text.as_bytes());
        }
        Frame::ReasoningDone {
            signer,
            signature,
            redacted,
        } => {
            buf.put_u8(REASONING_DONE);
            buf.put_u8(signer_code(*signer));
            put_bytes(buf, signature);
            buf.put_u8(u8::from(*redacted));
        }
        Frame::Refusal(text) => {
            buf.put_u8(REFUSAL);
            put_bytes(buf, text.as_bytes());
        }
        Frame::Cited(citation) => {
            buf.put_u8(CITED);
            put_bytes(buf, citation);
        }
        Frame::ToolStarted { index, id, name } => {
            buf.put_u8(TOOL_STARTED);
            put_varint(buf, u64::from(*index));
            put_bytes(buf, id);
            put_bytes(buf, name);
        }
        Frame::ToolArgs { index, delta } => {
            buf.put_u8(TOOL_ARGS);
            put_varint(buf, u64::from(*index));
            put_bytes(buf, delta.as_bytes());
        }
        Frame::ToolDone { index, signature } => {
            buf.put_u8(TOOL_DONE);
            put_varint(buf, u64::from(*index));
            put_bytes(buf, signature);
        }
        Frame::ModelUsage(usage) => {
            buf.put_u8(MODEL_USAGE);
            put_usage(buf, usage);
        }
        Frame::ModelStopped(stop) => {
            buf.put_u8(MODEL_STOPPED);
            buf.put_u8(stop_code(*stop));
        }
        Frame::RunStarted {
            smith_id,
            thread_id,
        } => {
            buf.put_u8(RUN_STARTED);
            put_bytes(buf, smith_id);
            put_bytes(buf, thread_id);
        }
        Frame::MessageCompleted { content } => {
            buf.put_u8(MESSAGE_COMPLETED);
            put_bytes(buf, content.as_bytes());
        }
        Frame::RunCompleted {
            stop,
            usage,
            warnings,
        } => {
            buf.put_u8(RUN_COMPLETED);
            buf.put_u8(stop_code(*stop));
            put_usage(buf, usage);
            put_bytes(buf, warnings);
        }
        Frame::RunFailed {
            code,
            message,
            param,
        } => {
            buf.put_u8(match param {
                None => RUN_FAILED,
                Some(_) => RUN_FAILED_AT,
            });
            put_bytes(buf, code);
            put_bytes(buf, message);
            if let Some(param) = param {
                put_bytes(buf, param);
            }
        }
        Frame::RunCancelled { reason } => {
            buf.put_u8(RUN_CANCELLED);
            put_bytes(buf, reason);
        }
        Frame::ToolExecuting(call) => {
            buf.put_u8(TOOL_EXECUTING);
            for bytes in [&call.id, &call.name, &call.server, &call.args] {
                put_bytes(buf, bytes);
            }
            buf.put_u8(u8::from(call.approved));
        }
        Frame::ToolCompleted(done) => {
            buf.put_u8(TOOL_COMPLETED);
            put_bytes(buf, &done.id);
            put_bytes(buf, &done.name);
            buf.put_u8(u8::from(done.is_error));
            put_varint(buf, done.duration_ms);
            put_bytes(buf, done.output.as_bytes());
        }
        Frame::ApprovalRequired(asked) => {
            buf.put_u8(APPROVAL_REQUIRED);
            let about = [&asked.approval_id, &asked.id, &asked.name, &asked.server];
            for bytes in about.into_iter().chain([&asked.args, &asked.elicitation]) {
                put_bytes(buf, bytes);
            }
        }
        Frame::RunPaused { status, usage } => {
            buf.put_u8(RUN_PAUSED);
            put_bytes(buf, status);
            put_usage(buf, usage);
        }
    }
}

fn take_u8(buf: &mut Bytes) -> Result<u8, CodecError> {
    if buf.has_remaining() {
        Ok(buf.get_u8())
    } else {
        Err(CodecError::Short)
    }
}

fn take_varint(buf: &mut Bytes) -> Result<u64, CodecError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(buf)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(CodecError::Range);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(CodecError::Range)
}

fn take_bytes(buf: &mut Bytes) -> Result<Bytes, CodecError> {
    let len = usize::try_from(take_varint(buf)?).map_err(|_| CodecError::Range)?;
    if len > buf.remaining() {
        return Err(CodecError::Short);
    }
    Ok(buf.split_to(len))
}

fn take_index(buf: &mut Bytes) -> Result<u32, CodecError> {
    u32::try_from(take_varint(buf)?).map_err(|_| CodecError::Range)
}

fn take_text(buf: &mut Bytes) -> Result<Escaped, CodecError> {
    Ok(Escaped::from_valid(take_bytes(buf)?))
}

fn take_usage(buf: &mut Bytes) -> Result<Usage, CodecError> {
    Ok(Usage {
        input: take_varint(buf)?,
        output: take_varint(buf)?,
        cache_read: take_varint(buf)?,
        cache_write: take_varint(buf)?,
        reasoning: take_varint(buf)?,
    })
}

/// Takes one frame off the front of `buf`; its payloads share `buf`'s memory.
pub fn decode(buf: &mut Bytes) -> Result<Frame, CodecError> {
    let tag = take_u8(buf)?;
    Ok(match tag {
        MODEL_STARTED => Frame::ModelStarted {
            id: take_bytes(buf)?,
            model: take_bytes(buf)?,
        },
        TEXT => Frame::Text(take_text(buf)?),
        REASONING => Frame::Reasoning(take_text(buf)?),
        REASONING_DONE => Frame::ReasoningDone {
            signer: signer_of(take_u8(buf)?)?,
            signature: take_bytes(buf)?,
            redacted: take_u8(buf)? != 0,
        },
        REFUSAL => Frame::Refusal(take_text(buf)?),
        TOOL_STARTED => Frame::ToolStarted {
            index: take_index(buf)?,
            id: take_bytes(buf)?,
            name: take_bytes(buf)?,
        },
        TOOL_ARGS => Frame::ToolArgs {
            index: take_index(buf)?,
            delta: take_text(buf)?,
        },
        TOOL_DONE => Frame::ToolDone {
            index: take_index(buf)?,
            signature: take_bytes(buf)?,
        },
        MODEL_USAGE => Frame::ModelUsage(take_usage(buf)?),
        MODEL_STOPPED => Frame::ModelStopped(stop_of(take_u8(buf)?)?),
        RUN_STARTED => Frame::RunStarted {
            smith_id: take_bytes(buf)?,
            thread_id: take_bytes(buf)?,
        },
        MESSAGE_COMPLETED => Frame::MessageCompleted {
            content: take_text(buf)?,
        },
        RUN_COMPLETED => Frame::RunCompleted {
            stop: stop_of(take_u8(buf)?)?,
            usage: take_usage(buf)?,
            warnings: take_bytes(buf)?,
        },
        RUN_FAILED => Frame::RunFailed {
            code: take_bytes(buf)?,
            message: take_bytes(buf)?,
            param: None,
        },
        RUN_FAILED_AT => Frame::RunFailed {
            code: take_bytes(buf)?,
            message: take_bytes(buf)?,
            param: Some(Box::new(take_bytes(buf)?)),
        },
        CITED => Frame::Cited(take_bytes(buf)?),
        RUN_CANCELLED => Frame::RunCancelled {
            reason: take_bytes(buf)?,
        },
        TOOL_EXECUTING => Frame::ToolExecuting(Arc::new(ToolExecuting {
            id: take_bytes(buf)?,
            name: take_bytes(buf)?,
            server: take_bytes(buf)?,
            args: take_bytes(buf)?,
            approved: take_u8(buf)? != 0,
        })),
        TOOL_COMPLETED => Frame::ToolCompleted(Arc::new(ToolCompleted {
            id: take_bytes(buf)?,
            name: take_bytes(buf)?,
            is_error: take_u8(buf)? != 0,
            duration_ms: take_varint(buf)?,
            output: take_text(buf)?,
        })),
        APPROVAL_REQUIRED => Frame::ApprovalRequired(Arc::new(ApprovalRequired {
            approval_id: take_bytes(buf)?,
            id: take_bytes(buf)?,
            name: take_bytes(buf)?,
            server: take_bytes(buf)?,
            args: take_bytes(buf)?,
            elicitation: take_bytes(buf)?,
        })),
        RUN_PAUSED => Frame::RunPaused {
            status: take_bytes(buf)?,
            usage: take_usage(buf)?,
        },
        other => return Err(CodecError::Tag(other)),
    })
}

/// Appends frames to `buf`.
pub fn encode_all(frames: &[Frame], buf: &mut BytesMut) {
    for frame in frames {
        encode(frame, buf);
    }
}

/// All frames of `bytes`.
pub fn decode_all(mut bytes: Bytes) -> Result<Vec<Frame>, CodecError> {
    let mut frames = Vec::new();
    while bytes.has_remaining() {
        frames.push(decode(&mut bytes)?);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
    }

    fn text() -> impl Strategy<Value = Escaped> {
        ".*".prop_map(|t| Escaped::escape(&t))
    }

    fn usage() -> impl Strategy<Value = Usage> {
        any::<[u64; 5]>().prop_map(
            |[input, output, cache_read, cache_write, reasoning]| Usage {
                input,
                output,
                cache_read,
                cache_write,
                reasoning,
            },
        )
    }

    fn stop() -> impl Strategy<Value = StopReason> {
        (0u8..7).prop_map(|code| stop_of(code).expect("in range"))
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (blob(), blob()).prop_map(|(id, model)| Frame::ModelStarted { id, model }),
            text().prop_map(Frame::Text),
            text().prop_map(Frame::Reasoning),
            (0u8..3, blob(), any::<bool>()).prop_map(|(code, signature, redacted)| {
                Frame::ReasoningDone {
                    signer: signer_of(code).expect("in range"),
                    signature,
                    redacted,
                }
            }),
            text().prop_map(Frame::Refusal),
            (any::<u32>(), blob(), blob()).prop_map(|(index, id, name)| Frame::ToolStarted {
                index,
                id,
                name
            }),
            (any::<u32>(), text()).prop_map(|(index, delta)| Frame::ToolArgs { index, delta }),
            (any::<u32>(), blob())
                .prop_map(|(index, signature)| Frame::ToolDone { index, signature }),
            usage().prop_map(Frame::ModelUsage),
            stop().prop_map(Frame::ModelStopped),
            (blob(), blob()).prop_map(|(smith_id, thread_id)| Frame::RunStarted {
                smith_id,
                thread_id
            }),
            text().prop_map(|content| Frame::MessageCompleted { content }),
            (stop(), usage(), blob()).prop_map(|(stop, usage, warnings)| Frame::RunCompleted {
                stop,
                usage,
                warnings
            }),
            (
                blob(),
                blob(),
                proptest::option::of(blob().prop_map(Box::new))
            )
                .prop_map(|(code, message, param)| Frame::RunFailed {
                    code,
                    message,
                    param
                }),
            blob().prop_map(Frame::Cited),
            blob().prop_map(|reason| Frame::RunCancelled { reason }),
            (blob(), blob(), blob(), any::<bool>()).prop_map(|(id, name, args, approved)| {
                Frame::ToolExecuting(Arc::new(ToolExecuting {
                    server: name.clone(),
                    id,
                    name,
                    args,
                    approved,
                }))
            }),
            (blob(), blob(), any::<bool>(), any::<u64>(), text()).prop_map(
                |(id, name, is_error, duration_ms, output)| {
                    Frame::ToolCompleted(Arc::new(ToolCompleted {
                        id,
                        name,
                        is_error,
                        duration_ms,
                        output,
                    }))
                }
            ),
            (blob(), blob(), blob(), blob()).prop_map(|(approval_id, id, args, elicitation)| {
                Frame::ApprovalRequired(Arc::new(ApprovalRequired {
                    name: id.clone(),
                    server: args.clone(),
                    approval_id,
                    id,
                    args,
                    elicitation,
                }))
            }),
            (blob(), usage()).prop_map(|(status, usage)| Frame::RunPaused { status, usage }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(frames in proptest::collection::vec(frame(), 0..20)) {
            let mut buf = BytesMut::new();
            for frame in &frames {
                encode(frame, &mut buf);
            }
            prop_assert_eq!(decode_all(buf.freeze()).unwrap(), frames);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in blob()) {
            let _ = decode_all(bytes);
        }

        #[test]
        fn a_cut_frame_is_refused(frame in frame(), keep in 0.0f64..1.0) {
            let mut buf = BytesMut::new();
            encode(&frame, &mut buf);
            let keep = ((buf.len() as f64) * keep) as usize;
            let mut cut = buf.freeze().slice(..keep.min(1_000_000));
            prop_assert!(decode(&mut cut).is_err());
        }
    }
}
