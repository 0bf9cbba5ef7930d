//! The tool calls of a model's turn: gated, run side by side, written down before and after.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Map, Value, json};

use super::account::ToolSpan;
use super::frame_log::FrameLog;
use super::job::Job;
use super::runs::Runs;
use super::state::{CallState, Held, Pending};
use crate::error::ApiError;
use crate::frame::{ApprovalRequired, Escaped, Frame, ToolCompleted, ToolExecuting};
use crate::ids;
use crate::model::{Part, arguments_object, joined_text, shown_text};
use crate::store::{ApprovalStatus, Checkpoint, EventRow, Op, Pause, RunStatus, now_micros};
use crate::tools::{
    Calling, MAX_FILES_OF_RUN, Next, Output, Tool, ToolCall, ToolSet, hosted::ToolUser,
};
use crate::untrusted::{MAX_JSON_DEPTH, is_too_deep};

/// Calls that run side by side (`tools.md`).
const SIDE_BY_SIDE: usize = 8;

/// How the calls of a turn went.
pub(super) enum Called {
    /// All have their results.
    All,
    /// Humans must decide about some.
    Waiting,
    Rejected,
}

/// One call's way through [`Runs::call_one`].
struct Ended {
    at: usize,
    next: Next,
    calling: Calling,
}

fn object(arguments: &str) -> Result<Map<String, Value>, String> {
    if arguments.trim().is_empty() {
        return Ok(Map::new());
    }
    if is_too_deep(arguments.as_bytes()) {
        let message =
            format!("the arguments are nested too deeply: {MAX_JSON_DEPTH} levels are allowed");
        return Err(message);
    }
    match serde_json::from_str(arguments) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the arguments must be a JSON object".to_owned()),
        Err(error) => Err(format!("the arguments are no JSON: {error}")),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Whether a human must approve a call.
fn asks_first(tool: &Tool, call: &Pending) -> bool {
    let arguments = arguments_object(&call.arguments);
    tool.asks_first(arguments.as_object().unwrap_or(&Map::new()))
}

/// The event of a tool whose smith lacks a grant.
const CONNECTION: &str = "connection.required";

/// What a client is shown of a call: the tool's own name, its server, the arguments' text.
fn shown(set: &ToolSet, call: &Pending) -> (Bytes, Bytes, Bytes) {
    let tool = set.tools.get(&call.name);
    let name = tool.map_or(call.name.as_str(), |tool| tool.name.as_str());
    let server = tool.map_or("", |tool| tool.server.as_str());
    (
        bytes(name),
        bytes(server),
        arguments_object(&call.arguments).to_string().into(),
    )
}

impl Runs {
    /// Runs the pending calls as far as they may run.
    pub(super) async fn call_tools(
        &self,
        job: &mut Job,
        log: &mut FrameLog,
    ) -> Result<Called, ApiError> {
        let set = job.tools.clone();
        let pending = &mut job.progress.pending;
        if pending.iter().any(|call| call.state == CallState::Rejected) {
            return Ok(Called::Rejected);
        }
        for call in pending.iter_mut() {
            let tool = set.tools.get(&call.name);
            match call.state {
                CallState::New if !call.approved && tool.is_some_and(|t| asks_first(t, call)) => {
                    call.state = CallState::Waiting;
                    call.approval_id = Some(ids::mint(ids::Kind::Approval));
                }
                // It was under way when its node went down.
                CallState::Begun => {
                    let held = call.approval_id.as_ref().filter(|_| call.answer.is_some());
                    let is_held = held.is_some_and(|id| self.held.lock().contains_key(id));
                    if !is_held && !tool.is_some_and(|tool| tool.repeatable) {
                        let why = "The gateway stopped while this tool ran, and the outcome is \
                                   unknown: find out before calling it again.";
                        call.state = CallState::Done {
                            content: vec![Part::Text {
                                text: why.to_owned(),
                            }],
                            is_error: true,
                        };
                    }
                }
                _ => {}
            }
        }
        self.begin_calls(job, &set, log).await?;
        if job
            .progress
            .pending
            .iter()
            .any(|call| call.state == CallState::Waiting)
        {
            return Ok(Called::Waiting);
        }
        Ok(Called::All)
    }

    /// Begins what may begin, and waits until all of it has ended or asks something.
    async fn begin_calls(
        &self,
        job: &mut Job,
        set: &Arc<ToolSet>,
        log: &mut FrameLog,
    ) -> Result<(), ApiError> {
        let mut frames = Vec::new();
        let mut events = Vec::new();
        let mut harmless = true;
        let mut ready = Vec::new();
        for (at, call) in job.progress.pending.iter_mut().enumerate() {
            match call.state {
                CallState::New | CallState::Begun => {}
                // What was lost in a crash is told without having been run again.
                CallState::Done { .. } if !call.is_told(&job.progress.tool_calls) => {
                    ready.push(at);
                    continue;
                }
                _ => continue,
            }
            ready.push(at);
            let (name, server, args) = shown(set, call);
            if call.order.is_none() {
                call.order = Some(job.progress.begun);
                job.progress.begun += 1;
                call.begun_at = now_micros();
                events.push(self.tool_event(&job.row, "tool.executing", &name, call, None));
                frames.push(Frame::ToolExecuting(Arc::new(ToolExecuting {
                    id: bytes(&call.id),
                    name,
                    server,
                    args,
                    approved: call.approved,
                })));
            }
            call.state = match &call.state {
                CallState::New => CallState::Begun,
                other => other.clone(),
            };
            harmless &= set.tools.get(&call.name).is_none_or(|tool| tool.repeatable);
        }
        if ready.is_empty() {
            return Ok(());
        }
        // Before a side effect its intent is durable; what does no harm twice need not wait.
        self.checkpoint(job, log, frames, events, !harmless).await?;
        let mut waiting = ready.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < SIDE_BY_SIDE {
                let Some(at) = waiting.next() else { break };
                let call = job.progress.pending[at].clone();
                let caller = job.effective.caller();
                let run_id = job.row.id.clone();
                under_way.push(self.call_one(at, call, set.clone(), caller, run_id));
            }
            let Some(ended) = under_way.next().await else {
                return Ok(());
            };
            self.call_ended(job, set, log, ended).await?;
        }
    }

    async fn call_one(
        &self,
        at: usize,
        call: Pending,
        set: Arc<ToolSet>,
        caller: ToolUser,
        run_id: String,
    ) -> Ended {
        let done = |output| Ended {
            at,
            next: Next::Done(output),
            calling: Calling::Done(Output::default()),
        };
        if let CallState::Done { content, is_error } = call.state {
            return done(Output {
                content,
                is_error,
                ..Output::default()
            });
        }
        let Some(tool) = set.tools.get(&call.name) else {
            return done(Output::error(format!("there is no tool '{}'", call.name)));
        };
        let arguments = match object(&call.arguments) {
            Ok(arguments) => arguments,
            Err(why) => return done(Output::error(why)),
        };
        let held = match (&call.approval_id, call.answer) {
            (Some(id), Some(answer)) => {
                let held = self.held.lock().remove(id);
                held.map(|held| {
                    // The call's task may have ended meanwhile, which its next step tells.
                    let _ = held.reply.send(Some(answer));
                    held.calling
                })
            }
            _ => None,
        };
        let mut calling = match held {
            Some(calling) => calling,
            None => {
                let order = call.order.unwrap_or_default();
                let begun = ToolCall {
                    caller: caller.clone(),
                    idempotency_key: format!("{run_id}:{order}:{}", call.id),
                    run_id,
                    tool_call_id: call.id,
                    arguments,
                };
                self.tools.begin(tool, &begun).await
            }
        };
        let next = self.tools.next(tool, &caller, &mut calling).await;
        Ended { at, next, calling }
    }

    async fn call_ended(
        &self,
        job: &mut Job,
        set: &ToolSet,
        log: &mut FrameLog,
        ended: Ended,
    ) -> Result<(), ApiError> {
        let now = now_micros();
        let files = job.progress.files_of_results();
        let call = &mut job.progress.pending[ended.at];
        let output = match ended.next {
            Next::Done(mut output) => {
                output.fit_files(MAX_FILES_OF_RUN.saturating_sub(files));
                output
            }
            Next::Asks(question) => {
                let approval_id = ids::mint(ids::Kind::Approval);
                let held = Held {
                    tenant_id: job.live.tenant_id.clone(),
                    calling: ended.calling,
                    reply: question.reply,
                };
                self.held.lock().insert(approval_id.clone(), held);
                call.elicitation = Some(json!({
                    "message": question.message,
                    "requested_schema": question.schema,
                }));
                call.approval_id = Some(approval_id);
                call.answer = None;
                call.state = CallState::Waiting;
                return Ok(());
            }
        };
        let (name, server, _) = shown(set, call);
        let text = shown_text(&output.content);
        let frame = Frame::ToolCompleted(Arc::new(ToolCompleted {
            id: bytes(&call.id),
            name: name.clone(),
            is_error: output.is_error,
            duration_ms: u64::try_from((now - call.begun_at) / 1000).unwrap_or(0),
            output: Escaped::escape(&text),
        }));
        job.progress.tool_calls.push(ToolSpan {
            call_id: call.id.clone(),
            order: call.order.unwrap_or_default(),
            name: String::from_utf8_lossy(&name).into_owned(),
            server: String::from_utf8_lossy(&server).into_owned(),
            started_at: call.begun_at,
            ended_at: now,
            is_error: output.is_error,
        });
        call.state = CallState::Done {
            content: output.content,
            is_error: output.is_error,
        };
        let is_error = Some(output.is_error);
        let mut events = vec![self.tool_event(&job.row, "tool.completed", &name, call, is_error)];
        if let Some(provider) = output.lacks_connection {
            let data = json!({ "run_id": job.row.id, "provider": provider });
            let (tenant, smith) = (&job.row.tenant_id, Some(job.row.smith_id.as_str()));
            events.push(EventRow::new(tenant, CONNECTION, smith, &data, None));
        }
        if let Some(replies) = output.suggested_replies {
            job.progress.suggested_replies = Some(replies);
        }
        self.checkpoint(job, log, vec![frame], events, true).await
    }

    fn tool_event(
        &self,
        run: &crate::store::RunRow,
        kind: &str,
        name: &Bytes,
        call: &Pending,
        is_error: Option<bool>,
    ) -> EventRow {
        let mut data = json!({
            "run_id": run.id,
            "tool": String::from_utf8_lossy(name),
            "tool_call_id": call.id,
        });
        if let Some(is_error) = is_error {
            data["is_error"] = json!(is_error);
        }
        EventRow::new(&run.tenant_id, kind, Some(&run.smith_id), &data, None)
    }

    /// Writes down how far the run is, then shows the frames. With `wait`, nothing goes on before
    /// it is durable.
    async fn checkpoint(
        &self,
        job: &mut Job,
        log: &mut FrameLog,
        mut frames: Vec<Frame>,
        events: Vec<EventRow>,
        wait: bool,
    ) -> Result<(), ApiError> {
        log.add(&frames);
        let op = Op::Checkpoint(Box::new(self.point(job, log, events, None)?));
        if !wait {
            self.journal.append(op);
        } else if !self.journal.commit(op).await? {
            return Err(lost());
        }
        log.tell();
        job.live.write(&mut frames);
        Ok(())
    }

    fn point(
        &self,
        job: &mut Job,
        log: &mut FrameLog,
        events: Vec<EventRow>,
        pause: Option<Pause>,
    ) -> Result<Checkpoint, ApiError> {
        let base = match job.has_state {
            false => Some(serde_json::to_string(&job.base()).map_err(ApiError::internal)?),
            true => None,
        };
        job.has_state = true;
        let wants = events.iter().find(|event| event.kind == CONNECTION);
        let wants = wants.and_then(|event| {
            let data: Value = serde_json::from_str(&event.data).ok()?;
            data["provider"].as_str().map(str::to_owned)
        });
        Ok(Checkpoint {
            tenant_id: job.row.tenant_id.clone(),
            run_id: job.row.id.clone(),
            node_id: self.node_id.clone(),
            base,
            progress: job.progress.to_text()?,
            frames: Some(log.take()),
            events,
            pause,
            of_lane: job.row.may_be_of_lane(),
            wants,
            updated_at: now_micros(),
        })
    }

    /// Lets the run wait for humans; its stream ends here.
    pub(super) async fn pause(&self, job: &mut Job, log: &mut FrameLog) -> Result<(), ApiError> {
        let set = job.tools.clone();
        let run = job.row.clone();
        let now = now_micros();
        let expires = i64::try_from(self.approval_timeout.as_micros()).unwrap_or(i64::MAX);
        let (mut frames, mut events) = (Vec::new(), Vec::new());
        let (mut calls, mut approvals) = (Vec::new(), Vec::new());
        for call in &job.progress.pending {
            let Some(id) = call
                .approval_id
                .as_ref()
                .filter(|_| call.state == CallState::Waiting)
            else {
                continue;
            };
            let (name, server, args) = shown(&set, call);
            let tool = String::from_utf8_lossy(&name).into_owned();
            let arguments = arguments_object(&call.arguments);
            let mut waits = json!({ "approval_id": id, "tool_call_id": call.id, "tool": tool,
                "args": arguments, "server": String::from_utf8_lossy(&server) });
            let mut data = json!({ "run_id": run.id, "approval_id": id, "tool": tool,
                "tool_call_id": call.id, "args": arguments });
            if let Some(elicitation) = &call.elicitation {
                waits["elicitation"] = elicitation.clone();
                data["elicitation"] = elicitation.clone();
            }
            calls.push(waits);
            let (tenant, smith) = (&run.tenant_id, Some(run.smith_id.as_str()));
            events.push(EventRow::new(
                tenant,
                "approval.required",
                smith,
                &data,
                None,
            ));
            let elicitation = call.elicitation.as_ref().map(Value::to_string);
            frames.push(Frame::ApprovalRequired(Arc::new(ApprovalRequired {
                approval_id: bytes(id),
                id: bytes(&call.id),
                name,
                server,
                args,
                elicitation: elicitation.clone().unwrap_or_default().into(),
            })));
            approvals.push(crate::store::ApprovalRow {
                id: id.clone(),
                tenant_id: run.tenant_id.clone(),
                run_id: Some(run.id.clone()),
                smith_id: Some(run.smith_id.clone()),
                tool_call_id: Some(call.id.clone()),
                tool: Some(tool),
                args: arguments.to_string(),
                elicitation,
                status: ApprovalStatus::Pending,
                actor: None,
                reason: None,
                created_at: now,
                resolved_at: None,
                answer: None,
                expires_at: Some(now.saturating_add(expires)),
            });
        }
        let status = RunStatus::PausedForApproval;
        let data = json!({ "run_id": run.id, "status": status });
        let (tenant, smith) = (&run.tenant_id, Some(run.smith_id.as_str()));
        events.push(EventRow::new(tenant, "run.paused", smith, &data, None));
        frames.push(Frame::RunPaused {
            status: Bytes::from_static(status.as_str().as_bytes()),
            usage: job.progress.usage,
        });
        let mut turns = job.new_turns.clone();
        turns.extend(job.progress.steps.iter().cloned());
        let mut output = json!({ "tool_calls": calls });
        let said = job
            .progress
            .steps
            .last()
            .map(|turn| joined_text(&turn.parts));
        if let Some(text) = said.filter(|text| !text.is_empty()) {
            output["content"] = json!(text);
            output["content_type"] = json!("text/plain");
        }
        let pause = Pause {
            status,
            transcript: serde_json::to_string(&turns).ok(),
            output: output.to_string(),
            warnings: Value::Array(job.warnings.clone()).to_string(),
            token_usage: Some(job.used(&job.progress.usage)),
            approvals,
        };
        log.add(&frames);
        let point = self.point(job, log, events, Some(pause))?;
        if !self.journal.commit(Op::Checkpoint(Box::new(point))).await? {
            return Err(lost());
        }
        log.tell();
        self.answers_due.notify_one();
        job.live.close(&mut frames);
        Ok(())
    }
}

/// Another node has taken the run: this one says nothing more about it.
pub(super) fn lost() -> ApiError {
    ApiError::conflict("resume_failed", "another node has taken the run")
}

impl Pending {
    /// Whether clients have been told its end.
    fn is_told(&self, told: &[ToolSpan]) -> bool {
        told.iter()
            .any(|span| span.call_id == self.id && Some(span.order) == self.order)
    }
}

/// The calls that a model's turn makes.
pub(super) fn calls_of(parts: &[Part]) -> Vec<Pending> {
    parts
        .iter()
        .filter_map(|part| match part {
            Part::ToolCall {
                id,
                name,
                arguments,
                ..
            } => Some(Pending::new(id, name, arguments)),
            _ => None,
        })
        .collect()
}

/// Marks the calls that a human approved.
pub(super) fn mark_approved(parts: &mut [Part], calls: &[Pending]) {
    for part in parts {
        if let Part::ToolCall { id, approved, .. } = part {
            *approved = calls.iter().any(|call| call.id == *id && call.approved);
        }
    }
}

/// Marks calls as run on this side, and by whom.
pub(super) fn mark(parts: &mut [Part], set: &ToolSet) {
    for part in parts {
        if let Part::ToolCall { name, server, .. } = part {
            let of = |tool: &Tool| tool.server.clone();
            *server = Some(set.tools.get(name).map(of).unwrap_or_default());
        }
    }
}
