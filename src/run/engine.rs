//! The loop: resolve the configuration, call the model, keep the frames, close the record.
//!
//! A run's row is committed before its first frame goes out, and its end before its last, so that
//! no client ever knows more than the store does. Everything between goes to the journal behind
//! the stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::StatusCode;
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::account::{self, ModelSpan};
use super::accounting::{Accounting, Spender};
use super::budget::Budgets;
use super::frame_log::FrameLog;
use super::leases::LEASE;
use super::live::{Cancelled, LiveRun, Reader};
use super::record::UsageRecord;
use super::request::{ResponseRecord, RunRequest, Thread};
use super::resolve::{Effective, Smiths};
use super::structured::{check_answer, check_format};
use super::transcript::{Collected, Collector};
use crate::config::Limits;
use crate::error::ApiError;
use crate::frame::{Escaped, Frame, StopReason, Usage};
use crate::ids;
use crate::limit::Permit;
use crate::metrics::Metrics;
use crate::model::{ModelRequest, Models, Role, Route, Turn};
use crate::store::{Journal, Op, RunEnd, RunRow, Store, now_micros};

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
    limits: Limits,
    metrics: Metrics,
    pub(super) node_id: String,
    live: RwLock<HashMap<Arc<str>, Arc<LiveRun>>>,
    count: AtomicUsize,
}

/// What runs work with.
pub struct RunParts {
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

/// What the task of a run works on.
struct Job {
    live: Arc<LiveRun>,
    row: Box<RunRow>,
    /// The row is already committed (it holds its thread).
    committed: bool,
    routes: Vec<Route>,
    request: ModelRequest,
    /// The turns that this run adds to its thread, before the answer.
    new_turns: Vec<Turn>,
    warnings: Vec<Value>,
    spender: Spender,
    /// The model calls so far.
    calls: Vec<ModelSpan>,
    _permit: Permit,
}

/// How a run came to its end.
enum End {
    Completed(Box<Collected>),
    Failed(ApiError),
    Cancelled(Cancelled),
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
            node_id: ids::mint(ids::Kind::Node),
            live: RwLock::default(),
            count: AtomicUsize::new(0),
        })
    }

    /// Begins a run. What can be refused is refused here; what goes wrong later is a frame.
    pub async fn start(self: &Arc<Self>, mut request: RunRequest) -> Result<Started, ApiError> {
        if self.journal.is_full() {
            return Err(ApiError::unavailable(
                "storage_unavailable",
                "the store is behind; try again soon",
                5,
            ));
        }
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
        check_format(request.response_format.as_ref())?;
        let model = request
            .model
            .clone()
            .filter(|m| !m.is_empty())
            .or_else(|| effective.config.model.clone().filter(|m| !m.is_empty()))
            .or_else(|| self.models.routing.default_model().map(str::to_owned))
            .ok_or_else(|| {
                ApiError::invalid("model", "neither the call nor the smith names a model")
            })?;
        let routes = self
            .models
            .routing
            .resolve(&request.tenant_id, Some(&request.smith_id), &model)
            .await?;
        if let Some(response) = &mut request.response {
            response.echo.insert("model".into(), json!(model));
        }
        let history = match &request.thread {
            Thread::Stateless(_) | Thread::Chain(None) => Vec::new(),
            Thread::Kept(thread) => self.history(&request, thread).await?,
            Thread::Chain(Some(link)) => self.chain(&request, &link.run_id).await?,
        };
        let response = request.response.clone();
        let detached = request.detached;
        let job = self.job(request, &effective, spender, routes, history)?;
        let started = Started {
            reader: job.live.first_reader(),
            model,
            created_at: job.row.created_at,
            response,
        };
        let mut job = job;
        // A client that does not follow the run will ask for it by its id.
        if job.row.exclusive || detached {
            let taken = self.journal.commit(Op::CreateRun(job.row.clone())).await?;
            if !taken {
                return Err(ApiError::conflict(
                    "conversation_locked",
                    "another run of this thread is under way",
                ));
            }
            job.committed = true;
        }
        self.live
            .write()
            .insert(job.live.run_id.clone(), job.live.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        let runs = self.clone();
        tokio::spawn(async move { runs.run(job).await });
        Ok(started)
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
    async fn touch_conversation(&self, job: &Job) {
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

    fn job(
        &self,
        request: RunRequest,
        effective: &Effective,
        spender: Spender,
        routes: Vec<Route>,
        mut history: Vec<Turn>,
    ) -> Result<Job, ApiError> {
        let instructions = effective
            .instructions
            .clone()
            .map_err(|why| ApiError::bad_request("invalid_variables", why))?;
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
        let mut warnings = Vec::new();
        let has_own_tools = !effective.config.enabled_hosted_tools.is_empty()
            || effective
                .config
                .mcp_servers
                .as_ref()
                .is_some_and(|s| !s.is_empty());
        if has_own_tools && request.client_tools.is_empty() {
            warnings.push(json!({
                "code": "unsupported_tools",
                "message": "the smith's own tools are not available on this node",
            }));
        }
        let system = [Some(instructions), request.extra_instructions]
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
        let row = Box::new(RunRow {
            id: request.run_id,
            tenant_id: request.tenant_id.to_string(),
            smith_id: request.smith_id.to_string(),
            agent_id: effective.smith.agent_id.clone(),
            thread_id,
            channel: request.channel,
            status: "running".to_owned(),
            exclusive,
            include_mask: request.include_mask,
            input: request.input_record.to_string(),
            transcript: None,
            output: None,
            stop_reason: None,
            error_code: None,
            error: None,
            warnings: Value::Array(warnings.clone()).to_string(),
            token_usage: None,
            metadata: request.metadata.map(|m| Value::Object(m).to_string()),
            actor: Some(request.actor.to_string()),
            node_id: self.node_id.clone(),
            lease_until: now + LEASE.as_micros() as i64,
            created_at: now,
            updated_at: now,
            previous_run_id,
            response,
        });
        Ok(Job {
            live,
            row,
            committed: false,
            routes,
            request: ModelRequest {
                model: String::new(),
                system: (!system.is_empty()).then_some(system),
                turns: history,
                tools: request.client_tools,
                tool_choice: request.tool_choice,
                parallel_tool_calls: request.parallel_tool_calls,
                response_format: request.response_format,
                params: request.params,
            },
            new_turns,
            warnings,
            spender,
            calls: Vec::new(),
            _permit: request.permit,
        })
    }

    async fn run(self: Arc<Self>, mut job: Job) {
        let live = job.live.clone();
        let mut log = FrameLog::new(&live);
        let mut collector = Collector::default();
        let end = tokio::select! {
            biased;
            why = live.cancelled() => End::Cancelled(why),
            end = self.turn(&mut job, &mut log, &mut collector) => match end {
                Ok(()) => End::Completed(Box::new(std::mem::take(&mut collector).finish())),
                Err(error) => End::Failed(error),
            },
        };
        if let Some(call) = job.calls.last_mut().filter(|call| call.ended_at == 0) {
            call.ended_at = now_micros();
            call.usage = call.usage.or(collector.usage);
            match &end {
                End::Failed(error) => call.error = Some(error.code.to_string()),
                End::Cancelled(_) => call.error = Some("cancelled".to_owned()),
                End::Completed(_) => {}
            }
        }
        if matches!(end, End::Cancelled(Cancelled::ClientGone)) {
            self.metrics.cancelled_calls.inc();
        }
        self.finish(job, log, collector, end).await;
        self.live.write().remove(&live.run_id);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// The model call, from the run's first frame to the model's last.
    async fn turn(
        &self,
        job: &mut Job,
        log: &mut FrameLog,
        collector: &mut Collector,
    ) -> Result<(), ApiError> {
        let live = job.live.clone();
        let routes = std::mem::take(&mut job.routes);
        if let Some(first) = routes.first() {
            job.calls.push(ModelSpan {
                started_at: now_micros(),
                ended_at: 0,
                provider: first.provider.to_string(),
                model: first.model.clone(),
                usage: None,
                cost: None,
                error: None,
            });
        }
        let model_call = self.models.stream(&live.tenant_id, routes, &job.request);
        let mut frames = vec![Frame::RunStarted {
            smith_id: Bytes::copy_from_slice(live.smith_id.as_bytes()),
            thread_id: Bytes::copy_from_slice(live.thread_id.as_bytes()),
        }];
        let mut call = if job.committed {
            log.add(&frames);
            live.write(&mut frames);
            model_call.await?
        } else {
            // The row is committed while the provider thinks.
            let announce = async {
                self.journal.commit(Op::CreateRun(job.row.clone())).await?;
                log.add(&frames);
                live.write(&mut frames);
                Ok::<_, ApiError>(())
            };
            let (announced, call) = tokio::join!(announce, model_call);
            job.committed = announced.is_ok();
            announced?;
            call?
        };
        loop {
            let more = call.frames(&mut frames).await;
            for frame in &frames {
                collector.add(frame);
            }
            log.add(&frames);
            live.write(&mut frames);
            log.flush_if_due(&self.journal);
            if !more? {
                break;
            }
            live.wait_for_client(self.limits.max_lead_bytes).await;
        }
        let usage = collector.usage.unwrap_or_default();
        let route = &call.route;
        let cost = self
            .accounting
            .add(&job.spender, &route.provider, &route.model, &usage);
        if let Some(span) = job.calls.last_mut() {
            span.ended_at = now_micros();
            span.provider = route.provider.to_string();
            span.model.clone_from(&route.model);
            span.usage = Some(usage);
            span.cost = cost;
        }
        Ok(())
    }

    async fn finish(&self, mut job: Job, mut log: FrameLog, collector: Collector, end: End) {
        let live = job.live.clone();
        if !job.committed {
            // The run failed or was cancelled while its row was on its way.
            let created = self.journal.commit(Op::CreateRun(job.row.clone())).await;
            job.committed = created.is_ok();
        }
        self.touch_conversation(&job).await;
        let end = match end {
            End::Completed(answer) => match check_answer(&job.request, &answer) {
                Ok(()) => End::Completed(answer),
                Err(error) => End::Failed(error),
            },
            other => other,
        };
        let warnings = Value::Array(std::mem::take(&mut job.warnings)).to_string();
        let mut row = RunEnd {
            tenant_id: job.row.tenant_id.clone(),
            id: job.row.id.clone(),
            status: "completed",
            transcript: None,
            output: None,
            stop_reason: None,
            error_code: None,
            error: None,
            warnings: warnings.clone(),
            token_usage: None,
            frames: None,
            event: None,
            trace: None,
            ledger: None,
            updated_at: now_micros(),
        };
        let used;
        let mut last = Vec::new();
        match end {
            End::Completed(answer) => {
                self.models
                    .continuity
                    .remember(&live.tenant_id, &answer.parts);
                let text = answer.text();
                if !text.is_empty() {
                    last.push(Frame::MessageCompleted {
                        content: Escaped::escape(&text),
                    });
                }
                last.push(Frame::RunCompleted {
                    stop: answer.stop,
                    usage: answer.usage,
                    warnings: Bytes::from(warnings),
                });
                let mut turns = std::mem::take(&mut job.new_turns);
                turns.push(answer.turn());
                row.transcript = serde_json::to_string(&turns).ok();
                let is_json = job.request.response_format.is_some();
                row.output = Some(answer.output(is_json).to_string());
                row.stop_reason = Some(answer.stop.as_str());
                used = Some(answer.usage);
            }
            End::Failed(error) => {
                tracing::info!(run_id = %live.run_id, code = %error.code, message = %error.message,
                    "run failed");
                last.push(failed_frame(&error));
                let _ = live.failure.set(error.clone());
                row.status = "failed";
                row.stop_reason = Some(StopReason::Error.as_str());
                (row.output, used) = partial_output(collector);
                row.error_code = Some(error.code.into_owned());
                row.error = Some(error.message.into_owned());
            }
            End::Cancelled(why) => {
                let reason = match &why {
                    Cancelled::Asked(reason) => reason.clone().unwrap_or_default(),
                    Cancelled::ClientGone => "the client left".to_owned(),
                    Cancelled::Shutdown => "the node is shutting down".to_owned(),
                };
                last.push(Frame::RunCancelled {
                    reason: Bytes::from(reason),
                });
                row.status = "cancelled";
                row.stop_reason = Some(StopReason::Cancelled.as_str());
                (row.output, used) = partial_output(collector);
            }
        }
        log.add(&last);
        row.frames = Some(log.take());
        row.token_usage = used.as_ref().map(|usage| {
            UsageRecord {
                tokens: *usage,
                cost: account::total_cost(&job.calls),
            }
            .to_text()
        });
        row.event = account::event(&job.row, &row, used.as_ref());
        row.trace = Some(account::trace(&job.row, &row, &job.calls));
        row.ledger = account::ledger(&job.row, &job.spender, &job.calls);
        if let Err(error) = self.journal.commit(Op::EndRun(Box::new(row))).await {
            // The client must not take for kept what is not.
            tracing::error!(run_id = %live.run_id, %error, "the end of a run was not kept");
            let error = ApiError::from(error);
            last = vec![failed_frame(&error)];
            let _ = live.failure.set(error);
        }
        live.close(&mut last);
    }

    /// The run, when it is under way on this node and the tenant's.
    pub fn live(&self, tenant_id: &str, run_id: &str) -> Option<Arc<LiveRun>> {
        let live = self.live.read().get(run_id).cloned()?;
        (&*live.tenant_id == tenant_id).then_some(live)
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
    }
}

/// What was said before a run failed or was cancelled, and the tokens that it took.
fn partial_output(collector: Collector) -> (Option<String>, Option<Usage>) {
    let usage = collector.usage;
    let answer = collector.finish();
    let said = !answer.text().is_empty();
    (said.then(|| answer.output(false).to_string()), usage)
}
