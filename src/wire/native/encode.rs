//! The native SSE envelope. The number of a frame follows from the frames before it and from what
//! the run includes, so the live stream, a replay and a replay after a restart number alike.

use bytes::{BufMut, BytesMut};

use crate::frame::{ApprovalRequired, Escaped, Frame, Usage};
use crate::run::{INCLUDE_CITATIONS, INCLUDE_REASONING, INCLUDE_TOOL_ARGS};
use crate::sse;
use crate::wire::FrameEncoder;

/// Writes a run's frames from its first on, leaving out those up to a number.
pub struct Encoder {
    /// `{"v":1,"run_id":"…"`
    head: Vec<u8>,
    include_mask: i64,
    next: u64,
    skip_to: u64,
    call_ids: Vec<Escaped>,
    written: u64,
}

impl Encoder {
    /// `after`: the last number that the client has.
    pub fn new(run_id: &str, include_mask: i64, after: Option<u64>) -> Self {
        let mut head = b"{\"v\":1,\"run_id\":\"".to_vec();
        head.extend_from_slice(Escaped::escape(run_id).as_bytes());
        head.push(b'"');
        Self {
            head,
            include_mask,
            next: 0,
            skip_to: after.map_or(0, |after| after.saturating_add(1)),
            call_ids: Vec::new(),
            written: 0,
        }
    }

    fn event(&mut self, buf: &mut BytesMut, name: &str, parts: &[&[u8]]) {
        let number = self.next;
        self.next += 1;
        if number < self.skip_to {
            return;
        }
        self.written += 1;
        buf.put_slice(b"event: ");
        buf.put_slice(name.as_bytes());
        buf.put_slice(b"\nid: ");
        buf.put_slice(itoa::Buffer::new().format(number).as_bytes());
        buf.put_slice(b"\ndata: ");
        buf.put_slice(&self.head);
        for part in parts {
            buf.put_slice(part);
        }
        buf.put_slice(b"}\n\n");
    }
}

impl FrameEncoder for Encoder {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        let text = |bytes: &[u8]| Escaped::escape(&String::from_utf8_lossy(bytes));
        match frame {
            Frame::RunStarted {
                smith_id,
                thread_id,
            } => self.event(
                buf,
                "run.started",
                &[
                    b",\"smith_id\":\"",
                    text(smith_id).as_bytes(),
                    b"\",\"thread_id\":\"",
                    text(thread_id).as_bytes(),
                    b"\"",
                ],
            ),
            // A refusal has no frame of its own here.
            Frame::Text(delta) | Frame::Refusal(delta) => self.event(
                buf,
                "message.delta",
                &[b",\"delta\":\"", delta.as_bytes(), b"\""],
            ),
            Frame::Reasoning(delta) if self.include_mask & INCLUDE_REASONING != 0 => self.event(
                buf,
                "reasoning.delta",
                &[b",\"delta\":\"", delta.as_bytes(), b"\""],
            ),
            Frame::Cited(citation) if self.include_mask & INCLUDE_CITATIONS != 0 => {
                self.event(buf, "message.citation", &[b",\"citation\":", citation]);
            }
            Frame::ModelStarted { .. } => self.call_ids.clear(),
            Frame::ToolStarted { id, .. } => self.call_ids.push(text(id)),
            Frame::ToolArgs { index, delta } if self.include_mask & INCLUDE_TOOL_ARGS != 0 => {
                let id = self
                    .call_ids
                    .get(*index as usize)
                    .cloned()
                    .unwrap_or_default();
                self.event(
                    buf,
                    "tool.args.delta",
                    &[
                        b",\"tool_call_id\":\"",
                        id.as_bytes(),
                        b"\",\"delta\":\"",
                        delta.as_bytes(),
                        b"\"",
                    ],
                );
            }
            Frame::ToolExecuting(call) => self.event(
                buf,
                "tool.executing",
                &[
                    b",\"tool\":\"",
                    text(&call.name).as_bytes(),
                    b"\",\"tool_call_id\":\"",
                    text(&call.id).as_bytes(),
                    b"\",\"args\":",
                    &call.args,
                ],
            ),
            Frame::ToolCompleted(done) => self.event(
                buf,
                "tool.completed",
                &[
                    b",\"tool\":\"",
                    text(&done.name).as_bytes(),
                    b"\",\"tool_call_id\":\"",
                    text(&done.id).as_bytes(),
                    b"\",\"is_error\":",
                    if done.is_error { b"true" } else { b"false" },
                    b",\"duration_ms\":",
                    itoa::Buffer::new().format(done.duration_ms).as_bytes(),
                ],
            ),
            Frame::ApprovalRequired(asked) => {
                let ApprovalRequired {
                    approval_id,
                    id,
                    name,
                    args,
                    elicitation,
                    ..
                } = &**asked;
                let asked: &[&[u8]] = match elicitation.is_empty() {
                    true => &[],
                    false => &[b",\"elicitation\":", elicitation],
                };
                let (approval_id, id, name) = (text(approval_id), text(id), text(name));
                let mut parts: Vec<&[u8]> = vec![
                    b",\"approval_id\":\"",
                    approval_id.as_bytes(),
                    b"\",\"tool_call_id\":\"",
                    id.as_bytes(),
                    b"\",\"tool\":\"",
                    name.as_bytes(),
                    b"\",\"args\":",
                    args,
                ];
                parts.extend_from_slice(asked);
                self.event(buf, "approval.required", &parts);
            }
            Frame::RunPaused { status, .. } => self.event(
                buf,
                "run.paused",
                &[b",\"status\":\"", text(status).as_bytes(), b"\""],
            ),
            Frame::MessageCompleted { content } => self.event(
                buf,
                "message.completed",
                &[b",\"content\":\"", content.as_bytes(), b"\""],
            ),
            Frame::RunCompleted {
                stop,
                usage,
                warnings,
            } => self.event(
                buf,
                "run.completed",
                &[
                    b",\"stop_reason\":\"",
                    stop.as_str().as_bytes(),
                    b"\",\"usage\":",
                    usage_text(usage).as_bytes(),
                    b",\"warnings\":",
                    if warnings.is_empty() { b"[]" } else { warnings },
                ],
            ),
            Frame::RunFailed {
                code,
                message,
                param,
            } => {
                let (message, code) = (text(message), text(code));
                let param = param.as_ref().map(|param| text(param));
                let mut parts: Vec<&[u8]> = vec![
                    b",\"error\":\"",
                    message.as_bytes(),
                    b"\",\"code\":\"",
                    code.as_bytes(),
                    b"\"",
                ];
                if let Some(param) = &param {
                    parts.extend([b",\"param\":\"" as &[u8], param.as_bytes(), b"\""]);
                }
                self.event(buf, "run.failed", &parts);
            }
            Frame::RunCancelled { reason } if reason.is_empty() => {
                self.event(buf, "run.cancelled", &[]);
            }
            Frame::RunCancelled { reason } => self.event(
                buf,
                "run.cancelled",
                &[b",\"reason\":\"", text(reason).as_bytes(), b"\""],
            ),
            _ => {}
        }
    }

    fn written(&self) -> u64 {
        self.written
    }
}

fn usage_text(usage: &Usage) -> String {
    format!(
        "{{\"input_tokens\":{},\"output_tokens\":{},\"total_tokens\":{}}}",
        usage.input,
        usage.output,
        usage.total()
    )
}

/// The only event of a stream that a re-used `Idempotency-Key` answers.
pub fn write_duplicate(run_id: &str, buf: &mut BytesMut) {
    let run_id = Escaped::escape(run_id);
    sse::write_event(
        buf,
        Some("run.duplicate"),
        Some(0),
        &[b"{\"v\":1,\"run_id\":\"", run_id.as_bytes(), b"\"}"],
    );
}
