//! The loop: resolve the configuration, call the model, keep the frames, close the record.
//!
//! A run's row is committed before its first frame goes out, and its end before its last, so that
//! no client ever knows more than the store does. Everything between goes to the journal behind
//! the stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use super::account::ModelSpan;
use super::accounting::Accounting;
use super::budget::Budgets;
use super::consolidation::Consolidation;
use super::finish::unbroken;
use super::frame_log::FrameLog;
use super::live::{Cancelled, LiveRun, Reader};
use super::record::UsageRecord;
use super::request::{ResponseRecord, RunRequest, Thread};
use super::resolve::{Effective, Smiths};
use super::state::{Base, Progress};
use super::tools::{Called, Held, calls_of, lost, mark, mark_approved};
use super::transcript::{Collected, Collector};
use super::turnstile::Turnstile;
use crate::bodies::{self, Bodies};
use crate::bus::Bus;
use crate::config::Limits;
use crate::error::ApiError;
use crate::frame::{Escaped, Frame, Room, StopReason, Usage};
use crate::ids;
use crate::limit::Permit;
use crate::metrics::Metrics;
use crate::model::{Caching, ModelRequest, Models, ResponseFormat, Role, Route, Turn, unmark};
use crate::store::{Journal, Op, RunEnd, RunRow, RunStatus, Store, now_micros};
use crate::tools::{ToolSet, Toolbox};
use crate::untrusted::Sandbox;

/// Longest title that a conversation is given.
const TITLE_CHARS: usize = 80;

/// Starts runs, and finds those that are under way on this node.
pub struct Runs {
    pub(super) store: Arc<dyn Store>,
    pub(super) journal: Journal,
    pub models: Arc<Models>,
    pub smiths: Arc<Smiths>,
    pub accounting: Arc<Accounting>,
    pub budgets: Arc<Budgets>,
    pub(super) limits: Limits,
    metrics: Metrics,
    pub(super) node_id: Arc<str>,
    pub bus: Bus,
    pub(super) tools: Arc<Toolbox>,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) bodies: Arc<Bodies>,
    /// Calls whose tools asked something, by the approval that waits.
    pub(super) held: Mutex<HashMap<String, Held>>,
    /// Ends of runs that the store did not take, for when it does.
    turnstile: Turnstile,
    pub(super) unsettled: Mutex<Vec<RunEnd>>,
    pub(super) consolidation: Consolidation,
    pub(super) approval_timeout: Duration,
    live: RwLock<HashMap<Arc<str>, Arc<LiveRun>>>,
    count: AtomicUsize,
}

/// What runs work with.
pub struct RunParts {
    pub node_id: Arc<str>,
    pub bus: Bus,
    pub tools: Arc<Toolbox>,
    pub sandbox: Arc<Sandbox>,
    pub bodies: Arc<Bodies>,
    /// How long a human may take for an approval.
    pub approval_timeout: Duration,
    pub store: Arc<dyn Store>,
    pub journal: Journal,
    pub models: Arc<Models>,
    pub smiths: Arc<Smiths>,
    pub accounting: Arc<Accounting>,
    pub budgets: Arc<Budgets>,
    pub metrics: Metrics,
}

/// A run that has begun.
pub struct Started {
    /// What its client reads.
    pub reader: Reader,
    /// The model that it asks for, as named by its configuration.
    pub model: String,
    /// When the run was made, in microseconds.
    pub created_at: i64,
    /// As in the request, with the model.
    pub response: Option<ResponseRecord>,
}

/// Model calls of one run (`tools.md`).
const MAX_MODEL_CALLS: usize = 32;

/// What the task of a run works on.
pub(super) struct Job {
    pub live: Arc<LiveRun>,
    pub row: Arc<RunRow>,
    /// The row is already committed.
    pub committed: bool,
    pub routes: Vec<Route>,
    /// What the model is asked; gone when only its answer is waited for.
    request: Option<Box<ModelRequest>>,
    /// The turns that this run adds to its thread, before the answer.
    pub new_turns: Vec<Turn>,
    pub warnings: Vec<Value>,
    pub effective: Arc<Effective>,
    /// The smith's own tools; empty when they sit out.
    pub tools: Arc<ToolSet>,
    /// What is mounted for this run beside them, sealed.
    mounts: Option<String>,
    pub progress: Progress,
    /// The model, as the caller or the configuration names it.
    pub model: String,
    /// Whether its base was written, and so a state of it.
    pub has_state: bool,
    /// How many frames there were before the model call that is under way.
    speaks_from: Option<usize>,
    /// What the files in the request take of the node's memory.
    pub files: Option<Box<bodies::Held>>,
    _permit: Permit,
}

/// How a run came to its end.
pub(super) enum End {
    Completed(Box<Collected>),
    /// A human rejected a call.
    Rejected,
    Failed(ApiError),
    Cancelled(Cancelled),
}

/// Where a run stands when nothing more is to be done for now.
enum Turned {
    Answered(Box<Collected>),
    Waiting,
    Rejected,
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
    fn said(&self) -> Collector {
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
    fn forget_request(&mut self) {
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
    fn forget_input(&mut self) {
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

impl Runs {
    /// Puts the parts together.
    pub fn new(parts: RunParts, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            store: parts.store,
            journal: parts.journal,
            models: parts.models,
            smiths: parts.smiths,
            accounting: parts.accounting,
            budgets: parts.budgets,
            limits,
            metrics: parts.metrics,
            node_id: parts.node_id,
            bus: parts.bus,
            tools: parts.tools,
            sandbox: parts.sandbox,
            bodies: parts.bodies,
            held: Mutex::default(),
            unsettled: Mutex::default(),
            turnstile: Turnstile::default(),
            consolidation: Consolidation::default(),
            approval_timeout: parts.approval_timeout,
            live: RwLock::default(),
            count: AtomicUsize::new(0),
        })
    }

    /// Begins a run. What can be refused is refused here; what goes wrong later is a frame.
    pub async fn start(self: &Arc<Self>, request: RunRequest) -> Result<Started, ApiError> {
        // Who answers with a run would hold all this for as long as it streams.
        Box::pin(self.begin(request)).await
    }

    async fn begin(self: &Arc<Self>, mut request: RunRequest) -> Result<Started, ApiError> {
        self.journal.check()?;
        if self.count.load(Ordering::Relaxed) >= self.limits.max_concurrent_runs {
            return Err(ApiError::unavailable(
                "service_overloaded",
                "this node runs as many turns as it can",
                1,
            ));
        }
        let effective = self
            .smiths
            .effective(&request.tenant_id, &request.smith_id)
            .await?;
        effective.require_published()?;
        let spender = effective.spender();
        self.budgets.check(&spender).await?;
        self.check_format(&request.tenant_id, request.response_format.as_ref())
            .await?;
        let model = self.model_for(&effective, request.model.as_deref())?;
        let routes = self
            .models
            .routing
            .resolve(&request.tenant_id, Some(&request.smith_id), &model)
            .await?;
        if let Some(response) = &mut request.response {
            response.echo.insert("model".into(), json!(model));
        }
        // Until the thread is claimed.
        let (mut passing, mut turn) = (None, None);
        let history = match &request.thread {
            Thread::Stateless(_) | Thread::Chain(None) => Vec::new(),
            Thread::Kept(thread) => {
                // Before the history is read: a run that ends between the two would be missing in it,
                // and leave the thread free.
                let (tenant_id, smith_id) = (&request.tenant_id, &request.smith_id);
                passing = Some(self.turnstile.enter(tenant_id, smith_id, thread).await);
                let seen = self.store.see_thread(tenant_id, smith_id, thread).await?;
                if seen.is_held {
                    return Err(thread_held());
                }
                // Between nodes the store decides: it gives a turn to one run.
                turn = Some(seen.turn + 1);
                self.history(&request, thread).await?
            }
            Thread::Chain(Some(link)) => self.chain(&request, &link.run_id).await?,
        };
        let response = request.response.clone();
        let detached = request.detached;
        let own_tools = request.client_tools.is_empty() && request.response_format.is_none();
        let tools = self
            .tools_of(&request.tenant_id, &effective, own_tools)
            .await?;
        let (tools, mounts) = match &request.mounted {
            Some(mounted) => {
                let sealed = self.tools.seal_mounts(&request.run_id, &mounted.mounts)?;
                (self.tools.with_mounted(&tools, mounted), Some(sealed))
            }
            None => (tools, None),
        };
        let (given, member) = (request.input.len(), request.input_member);
        let mut job = self.job(request, effective, routes, history, tools, &model, turn)?;
        job.mounts = mounts;
        self.attach(&mut job, given, member).await?;
        let started = Started {
            reader: job.live.first_reader(),
            model,
            created_at: job.row.created_at,
            response,
        };
        // A client that does not follow the run will ask for it by its id.
        if job.row.exclusive || detached {
            let base = match detached {
                true => Some(serde_json::to_string(&job.base()).map_err(ApiError::internal)?),
                false => None,
            };
            job.has_state = detached;
            let created = Op::CreateRun(job.row.clone(), base);
            if !self.journal.commit(created).await? {
                return Err(thread_held());
            }
            job.committed = true;
            job.forget_input();
        }
        drop(passing);
        self.spawn(job);
        Ok(started)
    }

    /// The model that a call asks for, by the name that it or the smith has for it.
    pub async fn model_of(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &Arc<str>,
        asked: Option<&str>,
    ) -> Result<String, ApiError> {
        let effective = self.smiths.effective(tenant_id, smith_id).await?;
        self.model_for(&effective, asked)
    }

    fn model_for(&self, effective: &Effective, asked: Option<&str>) -> Result<String, ApiError> {
        let own = effective.config.model.as_deref();
        let named = [asked, own, self.models.routing.default_model()];
        let named = named.into_iter().flatten().find(|model| !model.is_empty());
        named.map(str::to_owned).ok_or_else(|| {
            ApiError::invalid("model", "neither the call nor the smith names a model")
        })
    }

    /// Lets a run run.
    pub(super) fn spawn(self: &Arc<Self>, job: Box<Job>) {
        self.live
            .write()
            .insert(job.live.run_id.clone(), job.live.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        let runs = self.clone();
        tokio::spawn(async move { runs.run(job).await });
    }

    /// The tools of a smith, none when they sit out.
    pub(super) async fn tools_of(
        &self,
        tenant_id: &Arc<str>,
        effective: &Effective,
        own_tools: bool,
    ) -> Result<Arc<ToolSet>, ApiError> {
        match own_tools {
            true => {
                let smith_id = &effective.smith.id;
                self.tools.set(tenant_id, smith_id, &effective.config).await
            }
            false => Ok(Arc::default()),
        }
    }

    async fn history(&self, request: &RunRequest, thread: &str) -> Result<Vec<Turn>, ApiError> {
        let transcripts = self
            .store
            .thread_transcripts(
                &request.tenant_id,
                &request.smith_id,
                thread,
                i64::from(self.limits.thread_turns),
            )
            .await?;
        let mut turns = Vec::new();
        if ids::body(ids::Kind::Conversation, thread).is_some() {
            turns = self.conversation_turns(request, thread).await?;
        }
        turns.extend(turns_of(&transcripts)?);
        Ok(turns)
    }

    /// The turns of a response and of those before it.
    async fn chain(&self, request: &RunRequest, run_id: &str) -> Result<Vec<Turn>, ApiError> {
        let limit = i64::from(self.limits.thread_turns);
        let transcripts = self
            .store
            .chain_transcripts(&request.tenant_id, &request.smith_id, run_id, limit)
            .await?;
        turns_of(&transcripts)
    }

    /// The turns that a conversation was made with.
    async fn conversation_turns(
        &self,
        request: &RunRequest,
        id: &str,
    ) -> Result<Vec<Turn>, ApiError> {
        let found = self.store.conversation(&request.tenant_id, id).await?;
        let conversation = found
            .filter(|c| *c.smith_id == *request.smith_id)
            .ok_or_else(|| {
                ApiError::new(
                    StatusCode::NOT_FOUND,
                    "conversation_not_found",
                    format!("there is no conversation '{id}' of this smith"),
                )
            })?;
        serde_json::from_str(&conversation.turns).map_err(ApiError::internal)
    }

    /// A conversation is named after its first user turn.
    pub(super) async fn touch_conversation(&self, job: &Job) {
        let thread = &job.row.thread_id;
        if ids::body(ids::Kind::Conversation, thread).is_none() {
            return;
        }
        let said = job.new_turns.iter().find(|turn| turn.role == Role::User);
        let text = said.map(|turn| crate::model::joined_text(&turn.parts));
        let title: String = text
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(TITLE_CHARS)
            .collect();
        let touched = self
            .store
            .title_conversation(&job.row.tenant_id, thread, &title, now_micros())
            .await;
        if let Err(error) = touched {
            tracing::warn!(%error, "cannot name a conversation");
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "called in one place, with what it found"
    )]
    fn job(
        &self,
        mut request: RunRequest,
        effective: Arc<Effective>,
        routes: Vec<Route>,
        mut history: Vec<Turn>,
        tools: Arc<ToolSet>,
        model: &str,
        turn: Option<i64>,
    ) -> Result<Box<Job>, ApiError> {
        let instructions = effective
            .instructions
            .clone()
            .map_err(|why| ApiError::bad_request("invalid_variables", why))?;
        unmark(&mut request.input);
        let exclusive = matches!(request.thread, Thread::Kept(_));
        let new_turns = match request.thread {
            Thread::Kept(_) | Thread::Chain(_) => request.input.clone(),
            // The caller holds the history; only its newest words belong to this run.
            Thread::Stateless(_) => {
                let from = request
                    .input
                    .iter()
                    .rposition(|t| t.role == Role::Assistant)
                    .map_or(0, |at| at + 1);
                request.input[from..].to_vec()
            }
        };
        let (thread_id, previous_run_id) = match request.thread {
            Thread::Kept(id) | Thread::Stateless(Some(id)) => (id, None),
            Thread::Chain(Some(link)) => (link.thread_id, Some(link.run_id)),
            Thread::Stateless(None) | Thread::Chain(None) => (ids::mint(ids::Kind::Thread), None),
        };
        let response = request.response.as_ref().map(serde_json::to_string);
        let response = response.transpose().map_err(ApiError::internal)?;
        let warnings = tools.warnings.clone();
        let system = [
            Some(instructions),
            tools.prompt.clone(),
            request.extra_instructions,
        ]
        .into_iter()
        .flatten()
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join("\n\n");
        history.extend(request.input);
        let now = now_micros();
        let live = LiveRun::new(
            request.run_id.as_str().into(),
            request.tenant_id.clone(),
            request.smith_id.clone(),
            thread_id.as_str().into(),
            request.include_mask,
            request.detached,
        );
        let row = Arc::new(RunRow {
            id: request.run_id,
            tenant_id: request.tenant_id.to_string(),
            smith_id: request.smith_id.to_string(),
            agent_id: effective.smith.agent_id.clone(),
            thread_id,
            channel: request.channel,
            status: RunStatus::Running,
            exclusive,
            include_mask: request.include_mask,
            input: request.input_record,
            transcript: None,
            output: None,
            stop_reason: None,
            error_code: None,
            error: None,
            warnings: Value::Array(warnings.clone()).to_string(),
            token_usage: None,
            metadata: request.metadata.map(|metadata| metadata.to_text()),
            actor: Some(request.actor.to_string()),
            node_id: self.node_id.to_string(),
            lease_until: self.lease().until,
            created_at: now,
            updated_at: now,
            previous_run_id,
            response,
            cancel_reason: None,
            takings: 0,
            turn,
        });
        let own_tools = !tools.defs.is_empty();
        let model_request = ModelRequest {
            model: String::new(),
            system: (!system.is_empty()).then_some(system),
            turns: history,
            tools: match own_tools {
                true => tools.defs.clone(),
                false => request.client_tools,
            },
            tool_choice: request.tool_choice,
            parallel_tool_calls: request.parallel_tool_calls,
            response_format: request.response_format,
            params: request.params,
            // Turns of a smith begin alike.
            caching: Caching {
                is_automatic: true,
                ..Caching::default()
            },
        };
        Ok(Box::new(Job {
            live,
            row,
            committed: false,
            routes,
            request: Some(Box::new(model_request)),
            new_turns,
            warnings,
            effective,
            tools,
            mounts: None,
            progress: Progress::default(),
            model: model.to_owned(),
            has_state: false,
            speaks_from: None,
            files: None,
            _permit: request.permit,
        }))
    }

    async fn run(self: Arc<Self>, mut job: Box<Job>) {
        let live = job.live.clone();
        let mut log = FrameLog::new(&live, self.node_id.clone(), &self.bus);
        let turned = tokio::select! {
            biased;
            why = live.cancelled() => Err(End::Cancelled(why)),
            turned = unbroken(self.turn(&mut job, &mut log)) => turned.map_err(End::Failed),
        };
        let turned = match turned {
            Ok(Turned::Waiting) => match Box::pin(self.pause(&mut job, &mut log)).await {
                Ok(()) => None,
                Err(error) => Some(End::Failed(error)),
            },
            Ok(Turned::Answered(answer)) => Some(End::Completed(answer)),
            Ok(Turned::Rejected) => Some(End::Rejected),
            Err(end) => Some(end),
        };
        let collector = match &turned {
            Some(End::Failed(_) | End::Cancelled(_)) => job.said(),
            _ => Collector::default(),
        };
        let calls = &mut job.progress.model_calls;
        if let (Some(call), Some(end)) =
            (calls.last_mut().filter(|call| call.ended_at == 0), &turned)
        {
            call.ended_at = now_micros();
            call.usage = call.usage.or(collector.usage);
            match end {
                End::Failed(error) => call.error = Some(error.code.to_string()),
                End::Cancelled(_) => call.error = Some("cancelled".to_owned()),
                End::Completed(_) | End::Rejected => {}
            }
        }
        if matches!(turned, Some(End::Cancelled(Cancelled::ClientGone))) {
            self.metrics.cancelled_calls.inc();
        }
        match turned {
            None => {}
            Some(End::Failed(error)) if error.code == lost().code => {
                self.is_alive(&live).await;
                let _ = live.failure.set(error);
                // The stream ends without a terminal frame: "unknown", which is the truth here.
                live.close(&mut Vec::new());
            }
            Some(end) => Box::pin(self.end(job, log, collector, end)).await,
        }
        self.live.write().remove(&live.run_id);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Model calls and tool calls in turn, until there is an answer or humans must decide.
    async fn turn(&self, job: &mut Job, log: &mut FrameLog) -> Result<Turned, ApiError> {
        loop {
            if !job.progress.pending.is_empty() {
                match Box::pin(self.call_tools(job, log)).await? {
                    Called::Waiting => return Ok(Turned::Waiting),
                    Called::Rejected => return Ok(Turned::Rejected),
                    Called::All => {}
                }
                let results = job.progress.results();
                if let Some(turn) = job.progress.steps.last_mut() {
                    mark_approved(&mut turn.parts, &job.progress.pending);
                }
                job.request().turns.push(results.clone());
                job.progress.steps.push(results);
                job.progress.pending.clear();
            }
            if job.progress.model_calls.len() >= MAX_MODEL_CALLS {
                return Err(ApiError::new(
                    StatusCode::BAD_GATEWAY,
                    "tool_loop_failed",
                    format!("no answer after {MAX_MODEL_CALLS} model calls"),
                ));
            }
            if !job.progress.model_calls.is_empty() {
                // What the calls before have cost is known by now, and of other runs as well.
                self.budgets.check(&job.effective.spender()).await?;
            }
            job.speaks_from = Some(log.count());
            let collector = self.model_call(job, log).await?;
            // Calls of an answer that was cut may be cut themselves, and are not made.
            let is_cut = collector.stop == Some(StopReason::MaxTokens);
            let is_last = job.tools.defs.is_empty() || !collector.has_calls() || is_cut;
            let answer = collector.finish();
            if is_last {
                return Ok(Turned::Answered(Box::new(answer)));
            }
            job.speaks_from = None;
            self.step(job, log, answer);
        }
    }

    /// Takes in a model's turn that calls the smith's own tools.
    fn step(&self, job: &mut Job, log: &mut FrameLog, mut answer: Collected) {
        let live = &job.live;
        self.models
            .continuity
            .remember(&live.tenant_id, &live.smith_id, &answer.parts);
        let text = answer.text();
        if !text.is_empty() {
            let content = Escaped::escape(&text);
            let mut said = vec![Frame::MessageCompleted { content }];
            log.add(&said);
            log.tell();
            live.write(&mut said);
        }
        job.progress.usage.add(&answer.usage);
        job.progress.pending = calls_of(&answer.parts);
        mark(&mut answer.parts, &job.tools);
        let turn = answer.into_turn();
        job.request().turns.push(turn.clone());
        job.progress.steps.push(turn);
        // What the caller forced was for the first call.
        job.request().tool_choice = None;
    }

    /// One model call, and what it said; before the first, the run's own first frame.
    async fn model_call(&self, job: &mut Job, log: &mut FrameLog) -> Result<Collector, ApiError> {
        let live = job.live.clone();
        let routes = job.routes.clone();
        if let Some(first) = routes.first() {
            job.progress.model_calls.reserve_exact(1);
            job.progress.model_calls.push(ModelSpan {
                started_at: now_micros(),
                ended_at: 0,
                provider: first.provider.to_string(),
                model: first.model.clone(),
                usage: None,
                cost: None,
                error: None,
            });
        }
        let asked = job.request.get_or_insert_default();
        let model_call =
            Box::pin(
                self.models
                    .stream(&live.tenant_id, &live.smith_id, routes, asked),
            );
        let mut frames = Vec::with_capacity(2);
        if log.count() == 0 {
            frames.push(Frame::RunStarted {
                smith_id: Bytes::copy_from_slice(live.smith_id.as_bytes()),
                thread_id: Bytes::copy_from_slice(live.thread_id.as_bytes()),
            });
        }
        let mut call = if job.committed {
            log.add(&frames);
            log.tell();
            live.write(&mut frames);
            model_call.await?
        } else {
            // The row is committed while the provider thinks: so it costs no time.
            let takes_writes = self.journal.health().took_lately();
            let announce = async {
                self.journal
                    .commit(Op::CreateRun(job.row.clone(), None))
                    .await?;
                log.add(&frames);
                log.tell();
                live.write(&mut frames);
                Ok::<_, ApiError>(())
            };
            if takes_writes {
                let (announced, call) = tokio::join!(announce, model_call);
                job.committed = announced.is_ok();
                announced?;
                call?
            } else {
                // A store that was not heard of for a while may take none, and then nobody is asked.
                announce.await?;
                job.committed = true;
                model_call.await?
            }
        };
        job.forget_request();
        job.forget_input();
        // What is kept for as long as the run, in memory of its own.
        let mut room = Room::default();
        loop {
            let more = call.frames(&mut frames).await;
            frames.iter_mut().for_each(|frame| frame.settle(&mut room));
            log.add(&frames);
            log.tell();
            live.write(&mut frames);
            log.flush_if_due(&self.journal);
            if !more? {
                break;
            }
            live.wait_for_client(self.limits.max_lead_bytes).await;
        }
        let collector = job.said();
        let usage = collector.usage.unwrap_or_default();
        let route = &call.route;
        let cost = self.accounting.add(
            &job.effective.spender(),
            &route.provider,
            &route.model,
            &usage,
        );
        if let Some(span) = job.progress.model_calls.last_mut() {
            span.ended_at = now_micros();
            span.provider = route.provider.to_string();
            span.model.clone_from(&route.model);
            span.usage = Some(usage);
            span.cost = cost;
        }
        Ok(collector)
    }

    /// The run, when it is under way on this node and the tenant's.
    pub fn live(&self, tenant_id: &str, run_id: &str) -> Option<Arc<LiveRun>> {
        let live = self.live.read().get(run_id).cloned()?;
        (&*live.tenant_id == tenant_id).then_some(live)
    }

    /// Whether a run is this node's by its row. Another node takes the runs of one that does not renew
    /// its leases, which may only be late: what that one still has of them is no truth any more.
    pub fn has(&self, run: &RunRow) -> bool {
        run.is_under_way() && *run.node_id == *self.node_id
    }

    /// Whether a run is under way on another node by its row.
    pub fn lost(&self, run: &RunRow) -> bool {
        run.is_under_way() && !self.has(run)
    }

    /// This node's id.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// Runs under way on this node.
    pub fn live_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Cancels all runs of this node.
    pub fn cancel_all(&self) {
        for live in self.live.read().values() {
            live.cancel(Cancelled::Shutdown);
        }
    }
}

fn thread_held() -> ApiError {
    ApiError::conflict(
        "conversation_locked",
        "another run of this thread is under way",
    )
}

fn turns_of(transcripts: &[String]) -> Result<Vec<Turn>, ApiError> {
    let mut turns = Vec::new();
    for transcript in transcripts {
        let more: Vec<Turn> = serde_json::from_str(transcript).map_err(ApiError::internal)?;
        turns.extend(more);
    }
    Ok(turns)
}

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
