//! What the task of a run works on, and how it comes to an end.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::live::{Cancelled, LiveRun};
use super::record::UsageRecord;
use super::resolve::Effective;
use super::state::{Base, Progress};
use super::transcript::{Collected, Collector};
use crate::bodies;
use crate::error::ApiError;
use crate::frame::{Frame, Usage};
use crate::limit::Permit;
use crate::model::{ModelRequest, ResponseFormat, Route, Turn};
use crate::store::RunRow;
use crate::tools::ToolSet;

/// What the task of a run works on.
pub(super) struct Job {
    pub live: Arc<LiveRun>,
    pub row: Arc<RunRow>,
    /// The row is already committed.
    pub committed: bool,
    pub routes: Vec<Route>,
    /// What the model is asked; gone when only its answer is waited for.
    pub request: Option<Box<ModelRequest>>,
    /// The turns that this run adds to its thread, before the answer.
    pub new_turns: Vec<Turn>,
    pub warnings: Vec<Value>,
    pub effective: Arc<Effective>,
    /// The smith's own tools; empty when they sit out.
    pub tools: Arc<ToolSet>,
    /// What is mounted for this run beside them, sealed.
    pub mounts: Option<String>,
    pub progress: Progress,
    /// The model, as the caller or the configuration names it.
    pub model: String,
    /// Whether its base was written, and so a state of it.
    pub has_state: bool,
    /// How many frames there were before the model call that is under way.
    pub speaks_from: Option<usize>,
    /// Its place among those that its tenant may run, until it is dropped.
    /// What the files in the request take of the node's memory.
    pub files: Option<Box<bodies::Held>>,
    pub _permit: Permit,
}

/// How a run came to its end.
pub(super) enum End {
    Completed(Box<Collected>),
    /// A human rejected a call.
    Rejected,
    Failed(ApiError),
    Cancelled(Cancelled),
}

impl Job {
    /// Of a run that goes on from what was written of it.
    #[allow(
        clippy::too_many_arguments,
        reason = "called in one place, with what it found"
    )]
    pub fn revived(
        live: Arc<LiveRun>,
        row: Arc<RunRow>,
        base: Base,
        progress: Progress,
        effective: Arc<Effective>,
        routes: Vec<Route>,
        tools: Arc<ToolSet>,
        permit: Permit,
    ) -> Self {
        let mut request = base.request;
        request.turns.extend(progress.steps.iter().cloned());
        if !progress.steps.is_empty() {
            // What the caller forced was for the first call.
            request.tool_choice = None;
        }
        if base.own_tools {
            request.tools.clone_from(&tools.defs);
        }
        Self {
            live,
            row,
            committed: true,
            routes,
            request: Some(Box::new(request)),
            new_turns: base.new_turns,
            warnings: base.warnings,
            effective,
            tools,
            mounts: base.mounts,
            progress,
            model: base.model,
            has_state: true,
            speaks_from: None,
            files: None,
            _permit: permit,
        }
    }

    /// How it began, for who goes on with it.
    pub fn base(&self) -> Base {
        let own_tools = !self.tools.defs.is_empty();
        let mut request = self.request.as_deref().cloned().unwrap_or_default();
        let steps = self.progress.steps.len();
        request.turns.truncate(request.turns.len() - steps);
        if own_tools {
            request.tools = Vec::new();
        }
        Base {
            request,
            model: self.model.clone(),
            new_turns: self.new_turns.clone(),
            warnings: self.warnings.clone(),
            own_tools,
            mounts: self.mounts.clone(),
            detached: self.live.is_detached(),
        }
    }

    /// What the model call that is under way, or was the last thing to be, has said.
    pub fn said(&self) -> Collector {
        let said = self.speaks_from.map(|from| self.live.said_since(from));
        said.unwrap_or_default()
    }

    /// What the model is asked.
    pub fn request(&mut self) -> &mut ModelRequest {
        self.request.get_or_insert_default()
    }

    /// What the answer must look like.
    pub fn format(&self) -> Option<&ResponseFormat> {
        self.request.as_ref()?.response_format.as_ref()
    }

    /// Lets go of what only a further model call would need.
    pub fn forget_request(&mut self) {
        if !self.tools.defs.is_empty() {
            return;
        }
        self.routes = Vec::new();
        self.files = None;
        let format = self.request.take().and_then(|asked| asked.response_format);
        if format.is_some() {
            self.request().response_format = format;
        }
    }

    /// Lets go of what is in the store: the input may be a long history.
    pub fn forget_input(&mut self) {
        if let Some(row) = Arc::get_mut(&mut self.row) {
            row.input = String::new();
        }
    }

    /// The record of what the run used, as JSON text.
    pub fn used(&self, usage: &Usage) -> String {
        UsageRecord {
            tokens: *usage,
            cost: super::account::total_cost(&self.progress.model_calls),
        }
        .to_text()
    }
}

/// How a run that failed says so.
pub(super) fn failed_frame(error: &ApiError) -> Frame {
    Frame::RunFailed {
        code: Bytes::copy_from_slice(error.code.as_bytes()),
        message: Bytes::copy_from_slice(error.message.as_bytes()),
        param: error
            .param
            .as_deref()
            .map(|param| Box::new(Bytes::copy_from_slice(param.as_bytes()))),
    }
}
