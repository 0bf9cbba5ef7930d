//! The internal frame: what a model or a run says, piece by piece, whatever wire it came from.
//!
//! Lives here: [`Frame`] and its parts, [`Usage`], [`StopReason`], the escaped text they carry, and the binary
//! codec of the frame log. Imports nothing of ours.

pub mod citation;
mod codec;
mod escaped;
mod room;

pub use codec::{CodecError, decode, decode_all, encode, encode_all};
pub use escaped::Escaped;
pub(crate) use escaped::unescape_into;
pub use room::Room;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Tokens of one model call or of a whole run. `input` counts cached tokens too, `output` counts
/// reasoning tokens too (OpenAI's meaning).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    #[serde(default)]
    pub cache_read: u64,
    #[serde(default)]
    pub cache_write: u64,
    #[serde(default)]
    pub reasoning: u64,
}

impl Usage {
    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input + self.output
    }

    /// Adds the tokens of another call.
    pub fn add(&mut self, other: &Usage) {
        self.input += other.input;
        self.output += other.output;
        self.cache_read += other.cache_read;
        self.cache_write += other.cache_write;
        self.reasoning += other.reasoning;
    }
}

/// Why a model or a run stopped (`runs.md`, `stop_reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndTurn,
    MaxTokens,
    ToolCalls,
    ApprovalRejected,
    Cancelled,
    ContentFilter,
    Error,
}

impl StopReason {
    /// The native spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndTurn => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::ToolCalls => "tool_calls",
            Self::ApprovalRejected => "approval_rejected",
            Self::Cancelled => "cancelled",
            Self::ContentFilter => "content_filter",
            Self::Error => "error",
        }
    }
}

/// Whose models made a signature, and so the only ones that may be sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signer {
    Anthropic,
    Google,
    OpenAi,
    /// A provider of OpenAI's Chat Completions that thinks aloud: what goes with the text says
    /// whose it is and in which member it came.
    Chat,
}

/// A call of a tool that runs on this side.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolExecuting {
    pub id: Bytes,
    pub name: Bytes,
    /// The MCP server's name, or `hosted`.
    pub server: Bytes,
    /// The JSON object that it is called with.
    pub args: Bytes,
    /// A human approved the call.
    pub approved: bool,
}

/// How such a call ended.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCompleted {
    pub id: Bytes,
    pub name: Bytes,
    pub is_error: bool,
    pub duration_ms: u64,
    /// What the model is told.
    pub output: Escaped,
}

/// A call that a human is asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalRequired {
    pub approval_id: Bytes,
    pub id: Bytes,
    pub name: Bytes,
    pub server: Bytes,
    /// A JSON object.
    pub args: Bytes,
    /// The JSON object `{message, requested_schema}` of a tool that asks for input, else empty.
    pub elicitation: Bytes,
}

/// One piece of a model's answer or of a run's life. What is large and rare is kept apart, for a
/// run keeps thousands of small pieces. Cloning costs reference counts, no copy.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// A model call answered: the provider's response id and the model it names.
    ModelStarted { id: Bytes, model: Bytes },
    /// A piece of assistant text.
    Text(Escaped),
    /// A piece of visible reasoning.
    Reasoning(Escaped),
    /// A reasoning block ended. `signature` (may be empty) must go back to its signer with the
    /// next turn; `redacted` blocks carry only that.
    ReasoningDone {
        signer: Signer,
        signature: Bytes,
        redacted: bool,
    },
    /// A piece of a refusal.
    Refusal(Escaped),
    /// What the answer rests on, see [`citation`]: the JSON text of an object. Its places count
    /// characters of this model answer's text.
    Cited(Bytes),
    /// A tool call began. `index` counts the calls of this model answer from 0.
    ToolStarted { index: u32, id: Bytes, name: Bytes },
    /// A piece of its arguments' JSON text.
    ToolArgs { index: u32, delta: Escaped },
    /// The call is complete. `signature` (may be empty) is a thought signature of Google's, which
    /// must go back to it with the next turn; no other provider signs calls.
    ToolDone { index: u32, signature: Bytes },
    /// Tokens of this model call, final.
    ModelUsage(Usage),
    /// The model call ended.
    ModelStopped(StopReason),
    /// The run began: always its first frame.
    RunStarted { smith_id: Bytes, thread_id: Bytes },
    /// A tool that runs on this side began.
    ToolExecuting(Arc<ToolExecuting>),
    /// It ended.
    ToolCompleted(Arc<ToolCompleted>),
    /// A call waits for a human.
    ApprovalRequired(Arc<ApprovalRequired>),
    /// The run waits; `usage` is what it took so far.
    RunPaused { status: Bytes, usage: Usage },
    /// The whole text of a finished message.
    MessageCompleted { content: Escaped },
    /// Terminal. `warnings` is a JSON array of `{code, message}`.
    RunCompleted {
        stop: StopReason,
        usage: Usage,
        warnings: Bytes,
    },
    /// Terminal. `code` is an API error code; `param` is the member of the request that is at
    /// fault; boxed, as it is seldom told and a run keeps thousands of frames.
    RunFailed {
        code: Bytes,
        message: Bytes,
        param: Option<Box<Bytes>>,
    },
    /// Terminal. `reason` may be empty.
    RunCancelled { reason: Bytes },
}

impl Frame {
    /// Moves what is small into `room`, see [`Room`].
    pub fn settle(&mut self, room: &mut Room) {
        match self {
            Self::Text(text) | Self::Reasoning(text) | Self::Refusal(text) => text.settle(room),
            Self::ToolArgs { delta, .. } => delta.settle(room),
            Self::ModelStarted { id, model } => {
                room.settle(id);
                room.settle(model);
            }
            Self::ToolStarted { id, name, .. } => {
                room.settle(id);
                room.settle(name);
            }
            Self::Cited(citation) => room.settle(citation),
            Self::ReasoningDone { signature, .. } | Self::ToolDone { signature, .. } => {
                room.settle(signature);
            }
            _ => {}
        }
    }

    /// Whether the run's stream ends with this frame.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::RunCompleted { .. } | Self::RunFailed { .. } | Self::RunCancelled { .. }
        )
    }

    /// Whether the run waits, or has ended, with this frame.
    pub fn is_rest(&self) -> bool {
        self.is_terminal() || matches!(self, Self::RunPaused { .. })
    }

    /// The bytes that this frame keeps alive, for memory accounting.
    pub fn weight(&self) -> usize {
        let payload = match self {
            Self::Text(t) | Self::Reasoning(t) | Self::Refusal(t) => t.as_bytes().len(),
            Self::MessageCompleted { content } => content.as_bytes().len(),
            Self::ToolArgs { delta, .. } => delta.as_bytes().len(),
            Self::ReasoningDone { signature, .. } | Self::ToolDone { signature, .. } => {
                signature.len()
            }
            Self::ToolStarted { id, name, .. } => id.len() + name.len(),
            Self::Cited(citation) => citation.len(),
            Self::ToolExecuting(call) => call.args.len(),
            Self::ApprovalRequired(asked) => asked.args.len(),
            Self::ToolCompleted(done) => done.output.as_bytes().len(),
            _ => 0,
        };
        std::mem::size_of::<Self>() + payload
    }
}
