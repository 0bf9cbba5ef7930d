//! How a run begins: what can be refused is refused, its thread is read, and its row is made.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use serde_json::{Value, json};

use super::job::Job;
use super::live::LiveRun;
use super::request::{RunRequest, Thread};
use super::resolve::Effective;
use super::runs::{Runs, Started};
use super::state::Progress;
use crate::error::ApiError;
use crate::ids;
use crate::model::{Caching, ModelRequest, Role, Route, Turn, unmark};
use crate::store::{Op, RunRow, RunStatus, now_micros};
use crate::tools::ToolSet;

impl Runs {
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
            loses_nothing: false,
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
