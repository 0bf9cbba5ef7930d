//! What it takes to go on with a run on any node: how it began, and what it did since.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use super::account::{ModelSpan, ToolSpan};
use crate::error::ApiError;
use crate::frame::Usage;
use crate::model::{ModelRequest, Part, Role, Turn};
use crate::tools::{Calling, size_of_files};

/// How a run began. Written once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Base {
    /// With the history and the input, and the caller's own tools.
    pub request: ModelRequest,
    /// As the caller or the configuration names it.
    pub model: String,
    /// The turns that the run adds to its thread, before the answer.
    pub new_turns: Vec<Turn>,
    pub warnings: Vec<Value>,
    /// Whether the smith's own tools are used.
    pub own_tools: bool,
    /// What is mounted for this run, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounts: Option<String>,
    pub detached: bool,
}

/// What a run did since it began. Written before and after each side effect.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// What the model and the tools said in turn.
    pub steps: Vec<Turn>,
    pub model_calls: Vec<ModelSpan>,
    pub tool_calls: Vec<ToolSpan>,
    /// Of the model calls that have ended.
    pub usage: Usage,
    /// The calls of the model's last turn, until all have their results.
    pub pending: Vec<Pending>,
    /// Calls begun so far.
    pub begun: u32,
    pub suggested_replies: Option<Vec<String>>,
}

/// A tool call and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub id: String,
    /// As the model knows the tool.
    pub name: String,
    /// JSON text, as the model wrote it.
    pub arguments: String,
    pub state: CallState,
    /// Its place among the calls that were begun.
    pub order: Option<u32>,
    pub approval_id: Option<String>,
    pub approved: bool,
    /// `{message, requested_schema}`: what the tool asks of a human.
    pub elicitation: Option<Value>,
    /// What the human answered.
    pub answer: Option<Value>,
    pub begun_at: i64,
}

/// How far a tool call is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum CallState {
    /// The model asked for it.
    New,
    /// A human must decide.
    Waiting,
    /// A human did not want it.
    Rejected,
    /// It may have run.
    Begun,
    Done {
        content: Vec<Part>,
        is_error: bool,
    },
}

/// A call that waits for a human's answer to its tool's question.
pub(super) struct Held {
    pub tenant_id: Arc<str>,
    pub calling: Calling,
    pub reply: oneshot::Sender<Option<Value>>,
}

impl Pending {
    /// Of a call that the model made.
    pub fn new(id: &str, name: &str, arguments: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            state: CallState::New,
            order: None,
            approval_id: None,
            approved: false,
            elicitation: None,
            answer: None,
            begun_at: 0,
        }
    }
}

impl Progress {
    /// As JSON text.
    pub fn to_text(&self) -> Result<String, ApiError> {
        serde_json::to_string(self).map_err(ApiError::internal)
    }

    /// From JSON text; empty text is a run that did nothing yet.
    pub fn from_text(text: &str) -> Result<Self, ApiError> {
        match text.is_empty() {
            true => Ok(Self::default()),
            false => serde_json::from_str(text).map_err(ApiError::internal),
        }
    }

    /// What the files in all results so far take, in bytes as they are written down.
    pub fn files_of_results(&self) -> usize {
        let mut size = 0;
        for part in self.steps.iter().flat_map(|turn| &turn.parts) {
            if let Part::ToolResult { content, .. } = part {
                size += size_of_files(content);
            }
        }
        for call in &self.pending {
            if let CallState::Done { content, .. } = &call.state {
                size += size_of_files(content);
            }
        }
        size
    }

    /// The results of the pending calls, in the order in which the calls were begun.
    pub fn results(&self) -> Turn {
        let mut calls: Vec<&Pending> = self.pending.iter().collect();
        calls.sort_by_key(|call| call.order.unwrap_or(u32::MAX));
        let part = |call: &Pending| {
            let (content, is_error) = match &call.state {
                CallState::Done { content, is_error } => (content.clone(), *is_error),
                _ => {
                    let text = "The person did not approve this turn's calls; it did not run.";
                    (
                        vec![Part::Text {
                            text: text.to_owned(),
                        }],
                        true,
                    )
                }
            };
            Part::ToolResult {
                tool_call_id: call.id.clone(),
                content,
                is_error,
            }
        };
        Turn {
            role: Role::Tool,
            parts: calls.into_iter().map(part).collect(),
        }
    }
}
