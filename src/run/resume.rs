//! Going on with runs: after a human's decision, and after the death of the node that had them.

use std::sync::Arc;

use bytes::BytesMut;
use http::StatusCode;
use serde_json::{Value, json};

use super::frame_log::fill;
use super::job::Job;
use super::live::{Cancelled, LiveRun};
use super::runs::Runs;
use super::state::{Base, CallState, Progress};
use crate::error::ApiError;
use crate::frame::{self, Frame};
use crate::limit::Permit;
use crate::store::{
    ApprovalRow, ApprovalStatus, Decision, EventRow, Lease, Op, RunRow, RunStatus, now_micros,
};
use crate::untrusted::{Fault, Schema};

/// A human's word on one approval.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Word {
    /// By its id, or by the call that it is about.
    pub approval_id: Option<String>,
    pub tool_call_id: Option<String>,
    pub approve: bool,
    /// Answers an elicitation.
    pub content: Option<Value>,
    pub reason: Option<String>,
    pub actor: Option<Value>,
}

/// Of the words on one run, those that count: one rejection ends it, so nothing counts beside that.
pub fn that_count(mut words: Vec<Word>) -> Vec<Word> {
    match words.iter().position(|word| !word.approve) {
        Some(at) => vec![words.swap_remove(at)],
        None => words,
    }
}

/// 409 for a run that waits for nothing.
pub fn not_paused(run: &RunRow) -> ApiError {
    ApiError::conflict(
        "run_not_paused",
        format!("the run is {}, it waits for nothing", run.status),
    )
}

impl Runs {
    /// This node's, from now on.
    pub(super) fn lease(&self) -> Lease<'_> {
        let now = now_micros();
        Lease {
            node_id: &self.node_id,
            until: now + self.limits.lease_ms as i64 * 1000,
            now,
        }
    }

    /// Writes a human's word on an approval of a run that waits; the first one wins. Answers the
    /// run when it goes on with that, else `None`: others must still decide.
    pub async fn decide(
        self: &Arc<Self>,
        run: &RunRow,
        word: &Word,
    ) -> Result<Option<Arc<LiveRun>>, ApiError> {
        self.decide_all(run, std::slice::from_ref(word)).await
    }

    /// As [`Runs::decide`], of several words: all are written, or none, so that who is refused may
    /// say all of them again.
    pub async fn decide_all(
        self: &Arc<Self>,
        run: &RunRow,
        words: &[Word],
    ) -> Result<Option<Arc<LiveRun>>, ApiError> {
        if run.status != RunStatus::PausedForApproval {
            return Err(not_paused(run));
        }
        let approvals = self.store.run_approvals(&run.tenant_id, &run.id).await?;
        let mut decisions = Vec::with_capacity(words.len());
        for word in words {
            decisions.push(self.decision(run, &approvals, word).await?);
        }
        if !self.store.decide_approvals(&decisions).await? {
            let message = "another decision was first";
            return Err(ApiError::conflict("run_not_paused", message));
        }
        self.go_on(run, None).await
    }

    /// What a word decides, when it may.
    async fn decision(
        &self,
        run: &RunRow,
        approvals: &[ApprovalRow],
        word: &Word,
    ) -> Result<Decision, ApiError> {
        let approval = find(approvals, word)?;
        if approval.status != ApprovalStatus::Pending {
            return Err(ApiError::conflict(
                "run_not_paused",
                format!("the approval is {} already", approval.status),
            ));
        }
        if word.approve {
            self.check_content(approval, word.content.as_ref()).await?;
        }
        let status = match word.approve {
            true => ApprovalStatus::Approved,
            false => ApprovalStatus::Rejected,
        };
        let data = json!({ "run_id": run.id, "approval_id": approval.id, "status": status,
            "tool": approval.tool, "tool_call_id": approval.tool_call_id,
            "decision": if word.approve { "approve" } else { "reject" }, "reason": word.reason });
        let (tenant, smith) = (&run.tenant_id, Some(run.smith_id.as_str()));
        let actor = word.actor.as_ref();
        Ok(Decision {
            tenant_id: run.tenant_id.clone(),
            approval_id: approval.id.clone(),
            status,
            actor: actor.map(Value::to_string),
            reason: word.reason.clone(),
            answer: word.content.as_ref().map(Value::to_string),
            at: now_micros(),
            event: EventRow::new(tenant, "approval.resolved", smith, &data, actor),
        })
    }

    /// Takes a paused run up again when all that it waits for is decided, or to cancel it.
    pub async fn go_on(
        self: &Arc<Self>,
        run: &RunRow,
        cancel: Option<Cancelled>,
    ) -> Result<Option<Arc<LiveRun>>, ApiError> {
        let approvals = self.store.run_approvals(&run.tenant_id, &run.id).await?;
        let pending = approvals
            .iter()
            .any(|a| a.status == ApprovalStatus::Pending);
        let rejected = approvals
            .iter()
            .any(|a| a.status == ApprovalStatus::Rejected);
        if pending && !rejected && cancel.is_none() {
            return Ok(None);
        }
        let lease = self.lease();
        let taken = self.store.take_paused_run(&run.tenant_id, &run.id, &lease);
        if !taken.await? {
            // Another decision of the same moment took it up.
            return Ok(self.live(&run.tenant_id, &run.id));
        }
        match self.revive(run, &approvals, cancel).await {
            Ok(live) => Ok(Some(live)),
            Err(error) => {
                // It is this node's now, and nobody else will ever look after it.
                self.fail(run, &error).await?;
                Err(error)
            }
        }
    }

    /// Refuses to show the frames of a run that has ended when they are no longer kept.
    pub async fn check_frames(&self, run: &RunRow) -> Result<(), ApiError> {
        let has_ended = run.status.has_ended();
        if has_ended && !self.store.has_frames(&run.tenant_id, &run.id).await? {
            return Err(ApiError::new(
                StatusCode::GONE,
                "not_found",
                format!(
                    "the events of run '{}' are no longer kept; its record is",
                    run.id
                ),
            ));
        }
        Ok(())
    }

    /// The frames of a run that are in its log.
    pub async fn logged_frames(
        &self,
        tenant_id: &str,
        run_id: &str,
    ) -> Result<Vec<Frame>, ApiError> {
        let mut frames = Vec::new();
        for bytes in self.store.run_frames(tenant_id, run_id).await? {
            frames.extend(frame::decode_all(bytes.into()).map_err(ApiError::internal)?);
        }
        fill(&mut frames);
        Ok(frames)
    }

    /// All frames of a run that this node has taken. What its last node told others and could not
    /// write is written now, so that nobody sees other frames under the same numbers.
    pub(super) async fn frames_so_far(&self, run: &RunRow) -> Result<Vec<Frame>, ApiError> {
        let mut frames = self.logged_frames(&run.tenant_id, &run.id).await?;
        let first = frames.len();
        let more = self.bus.claim(&run.id, first).await;
        if !more.is_empty() {
            let mut bytes = BytesMut::new();
            frame::encode_all(&more, &mut bytes);
            self.journal.append(Op::Frames {
                tenant_id: run.tenant_id.as_str().into(),
                run_id: run.id.as_str().into(),
                node_id: self.node_id.clone(),
                first: first as i64,
                frames: bytes.to_vec(),
            });
            frames.extend(more);
        }
        Ok(frames)
    }

    /// Goes on with a run that this node has taken.
    pub(super) async fn revive(
        self: &Arc<Self>,
        run: &RunRow,
        approvals: &[ApprovalRow],
        cancel: Option<Cancelled>,
    ) -> Result<Arc<LiveRun>, ApiError> {
        let missing = || {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "resume_failed",
                "what it takes to go on with the run is missing",
            )
        };
        let state = self.store.run_state(&run.tenant_id, &run.id).await?;
        let state = state.ok_or_else(missing)?;
        let base: Base = serde_json::from_str(&state.base).map_err(ApiError::internal)?;
        let mut progress = Progress::from_text(&state.progress)?;
        for call in &mut progress.pending {
            let row = approvals
                .iter()
                .find(|row| Some(&row.id) == call.approval_id.as_ref());
            let Some(row) = row.filter(|_| call.state == CallState::Waiting) else {
                continue;
            };
            match row.status {
                ApprovalStatus::Approved => {
                    call.approved = true;
                    let answer = row.answer.as_deref().map(serde_json::from_str);
                    call.answer = answer.transpose().map_err(ApiError::internal)?;
                    call.state = match call.elicitation {
                        None => CallState::New,
                        Some(_) => CallState::Begun,
                    };
                }
                ApprovalStatus::Rejected => call.state = CallState::Rejected,
                ApprovalStatus::Pending | ApprovalStatus::Cancelled => {}
            }
        }
        let frames = self.frames_so_far(run).await?;
        let tenant: Arc<str> = run.tenant_id.as_str().into();
        let smith: Arc<str> = run.smith_id.as_str().into();
        let effective = self.smiths.effective(&tenant, &smith).await?;
        let routing = &self.models.routing;
        let routes = routing.resolve(&tenant, Some(&smith), &base.model).await?;
        let mut tools = self.tools_of(&tenant, &effective, base.own_tools).await?;
        if let Some(sealed) = &base.mounts {
            let mounts = self.tools.open_mounts(&run.id, sealed)?;
            let mounted = self.tools.mount(&tenant, mounts).await?;
            tools = self.tools.with_mounted(&tools, &mounted);
        }
        let live = LiveRun::resumed(run, base.detached, frames);
        if let Some(why) = cancel {
            live.cancel(why);
        }
        let mut row = run.clone();
        row.node_id = self.node_id.to_string();
        let job = Job::revived(
            live.clone(),
            Arc::new(row),
            base,
            progress,
            effective,
            routes,
            tools,
            Permit::default(),
        );
        self.spawn(Box::new(job));
        Ok(live)
    }
}

fn find<'a>(approvals: &'a [ApprovalRow], word: &Word) -> Result<&'a ApprovalRow, ApiError> {
    let unknown = |id: &str| ApiError::not_found("approval", id).param("approval_id");
    if let Some(id) = &word.approval_id {
        let found = approvals.iter().find(|row| row.id == *id);
        return found.ok_or_else(|| unknown(id));
    }
    let is_it = |row: &&ApprovalRow| match &word.tool_call_id {
        Some(call) => row.tool_call_id.as_ref() == Some(call),
        None => row.status == ApprovalStatus::Pending,
    };
    let mut found = approvals.iter().rev().filter(is_it);
    let first = found.next();
    if word.tool_call_id.is_none() && found.next().is_some() {
        let message = "several approvals wait: name one";
        return Err(ApiError::invalid("approval_id", message));
    }
    first.ok_or_else(|| unknown(word.tool_call_id.as_deref().unwrap_or_default()))
}

impl Runs {
    /// Holds the answer to an elicitation to its schema.
    async fn check_content(
        &self,
        approval: &ApprovalRow,
        content: Option<&Value>,
    ) -> Result<(), ApiError> {
        let Some(elicitation) = &approval.elicitation else {
            return Ok(());
        };
        let asked: Value = serde_json::from_str(elicitation).map_err(ApiError::internal)?;
        let bad = |path: String, why: String| {
            ApiError::bad_request("invalid_input", why).param(format!("content{path}"))
        };
        let content =
            content.ok_or_else(|| bad(String::new(), "the tool asks for it".to_owned()))?;
        // A schema that is none cannot refuse anything.
        let Ok(schema) = Schema::read(&asked["requested_schema"]) else {
            return Ok(());
        };
        let tenant: Arc<str> = approval.tenant_id.as_str().into();
        match schema.check(content, &self.sandbox, &tenant).await {
            Ok(()) => Ok(()),
            Err(Fault::Mismatch { path, why }) => Err(bad(path.replace('/', "."), why)),
            Err(Fault::Undecided(why)) => Err(bad(String::new(), why)),
        }
    }
}
