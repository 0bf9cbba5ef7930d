//! `ask`, the tool by which an MCP host talks with a smith: a run, its progress, and what a human
//! must decide on the way, which the host is asked to ask (elicitation). What else the server
//! offers is in [`super::server`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequest,
    ElicitRequestParams, ElicitResult, ElicitationAction, InputRequest, InputRequiredResult,
    InputResponses, ProgressNotificationParam, ProgressToken, ProtocolVersion,
};
use rmcp::service::RequestContext;
use serde::Deserialize;
use serde_json::{Value, json};

use super::caller::McpCaller;
use crate::auth::Scope;
use crate::error::ApiError;
use crate::frame::Frame;
use crate::gateway::Gateway;
use crate::ids;
use crate::model::{Role, Turn};
use crate::run::{
    Cancelled, Collected, Collector, LiveRun, Reader, RunRequest, Thread, Word, that_count,
};
use crate::store::{ApprovalStatus, RunRow};

/// A host hears of progress no more often.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// A human is shown so many characters of a call's arguments.
const MAX_SHOWN: usize = 2000;

/// The arguments of `ask`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskIn {
    pub message: String,
    #[serde(default)]
    pub thread_id: Option<String>,
}

/// Tells the host how far an answer is.
struct Progress {
    token: ProgressToken,
    told_at: Option<Instant>,
    characters: usize,
}

impl Progress {
    async fn tell(&mut self, frames: &[Frame], context: &RequestContext<RoleServer>) {
        for frame in frames {
            if let Frame::Text(text) | Frame::Refusal(text) = frame {
                self.characters += text.unescape().chars().count();
            }
        }
        let is_early = |at: Instant| at.elapsed() < PROGRESS_EVERY;
        if self.characters == 0 || self.told_at.is_some_and(is_early) {
            return;
        }
        self.told_at = Some(Instant::now());
        let told = ProgressNotificationParam::new(self.token.clone(), self.characters as f64)
            .with_message(format!("{} characters", self.characters));
        // A host that does not listen misses nothing but this.
        let _ = context.peer.notify_progress(told).await;
    }
}

/// Cancels a run whose call was given up, in whatever way.
struct Guard(Option<Arc<LiveRun>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run.cancel(given_up());
        }
    }
}

fn given_up() -> Cancelled {
    Cancelled::Asked(Some("the host cancelled the call".to_owned()))
}

fn cancelled() -> ApiError {
    ApiError::conflict("run_cancelled", "the call was cancelled")
}

/// What a human must decide before a run goes on.
#[derive(Debug)]
struct Waits {
    approval_id: String,
    tool: String,
    args: String,
    /// A tool's question, empty for a call that waits for leave.
    elicitation: Option<Value>,
}

impl Waits {
    /// The call's arguments, as far as a human is shown them.
    fn shown(&self) -> String {
        let mut shown: String = self.args.chars().take(MAX_SHOWN).collect();
        if shown.len() < self.args.len() {
            shown.push('…');
        }
        shown
    }

    /// What the host shows; `None` for a question that MCP's forms cannot carry.
    fn question(&self) -> Option<ElicitRequestParams> {
        let (message, schema) = match &self.elicitation {
            Some(asked) => {
                let message = asked["message"].as_str().unwrap_or_default().to_owned();
                (message, asked["requested_schema"].clone())
            }
            None => {
                let shown = self.shown();
                let message = format!("May the assistant run '{}' with {shown}?", self.tool);
                let schema = json!({
                    "type": "object",
                    "properties": { "approve": {
                        "type": "boolean", "title": "Approve",
                        "description": "Whether it may run.",
                    } },
                    "required": ["approve"],
                });
                (message, schema)
            }
        };
        Some(ElicitRequestParams::FormElicitationParams {
            meta: None,
            message,
            requested_schema: serde_json::from_value(schema).ok()?,
        })
    }

    /// The human's word; `None` when there is none, as of a dialog that was closed.
    fn word(&self, answer: ElicitResult) -> Option<Word> {
        let content = answer.content.filter(|content| !content.is_null());
        let (approve, content) = match (answer.action, &self.elicitation) {
            (ElicitationAction::Decline, _) => (false, None),
            (ElicitationAction::Accept, Some(_)) => (true, content),
            (ElicitationAction::Accept, None) => {
                let approve = content.as_ref().map(|content| &content["approve"]);
                (approve == Some(&Value::Bool(true)), None)
            }
            _ => return None,
        };
        Some(Word {
            approval_id: Some(self.approval_id.clone()),
            approve,
            content,
            ..Word::default()
        })
    }
}

/// A human's leave for a call that no run makes.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a call, and it is moved once"
)]
pub enum Leave {
    Given,
    /// And why.
    Refused(&'static str),
    /// The host must call again with it.
    Asked(CallToolResponse),
}

/// The state of a call that waits for leave.
const LEAVE: &str = "leave";

/// How a run came to rest.
enum Rest {
    Completed(Collected),
    Waits,
}

/// How a host takes questions.
#[derive(Clone, Copy, PartialEq)]
enum Asking {
    /// By a request within the call (revisions up to 2025-11-25).
    Within,
    /// By a result after which the host calls again with the answers (from 2026-07-28 on).
    Again,
    /// Not at all.
    Never,
}

fn asking(caller: &McpCaller, context: &RequestContext<RoleServer>) -> Asking {
    let elicits = context.client_capabilities().and_then(|c| c.elicitation);
    // Neither mode named means forms (2025-06-18).
    let takes_forms = elicits.is_some_and(|c| c.form.is_some() || c.url.is_none());
    let version = context.protocol_version();
    match takes_forms && caller.principal.require(Scope::ApprovalsWrite).is_ok() {
        false => Asking::Never,
        true if version.is_some_and(|v| v >= ProtocolVersion::V_2026_07_28) => Asking::Again,
        true => Asking::Within,
    }
}

/// One call of `ask`.
pub struct Ask<'a> {
    pub gateway: &'a Gateway,
    pub caller: &'a McpCaller,
    pub context: &'a RequestContext<RoleServer>,
}

impl Ask<'_> {
    /// Starts a run, or goes on with the one that `request` brings a human's answers for.
    pub async fn answer(
        &self,
        input: AskIn,
        request: &CallToolRequestParams,
    ) -> Result<CallToolResponse, ApiError> {
        let state = request.request_state.as_ref().filter(|s| *s != LEAVE);
        let (run_id, thread, mut reader) = match state {
            Some(run_id) => {
                let run = self.run(run_id).await?;
                let thread = run.thread_id.clone();
                let waits = self.pending(&run).await?;
                let answers = request.input_responses.as_ref();
                let words = words(&waits, answers.unwrap_or(&BTreeMap::new()))?;
                match self.decide(run_id, words).await? {
                    Some(reader) => (run_id.clone(), thread, reader),
                    None => return Ok(self.waiting(run_id, &thread).await?.into()),
                }
            }
            None => self.start(input).await?,
        };
        loop {
            let waits = match self.follow(reader).await? {
                Rest::Completed(answer) => {
                    let reply = answer.text();
                    let mut result = CallToolResult::success(vec![ContentBlock::text(&*reply)]);
                    result.structured_content =
                        Some(json!({ "reply": reply, "thread_id": thread, "run_id": run_id }));
                    return Ok(result.into());
                }
                Rest::Waits => self.pending(&self.run(&run_id).await?).await?,
            };
            let asking = asking(self.caller, self.context);
            if asking == Asking::Again {
                let questions: Option<BTreeMap<_, _>> = waits
                    .iter()
                    .map(|w| {
                        let question = InputRequest::Elicitation(ElicitRequest::new(w.question()?));
                        Some((w.approval_id.clone(), question))
                    })
                    .collect();
                if let Some(questions) = questions {
                    let required = InputRequiredResult::new(Some(questions), Some(run_id));
                    return Ok(CallToolResponse::InputRequired(required));
                }
            }
            let words = match asking {
                Asking::Within => self.asked(&run_id, &waits).await?,
                _ => Vec::new(),
            };
            reader = match self.decide(&run_id, words).await? {
                Some(reader) => reader,
                None => return Ok(self.waiting(&run_id, &thread).await?.into()),
            };
        }
    }

    /// Asks for leave to call a tool for the host.
    pub async fn leave(
        &self,
        tool: &str,
        args: String,
        request: &CallToolRequestParams,
    ) -> Result<Leave, ApiError> {
        let wait = Waits {
            approval_id: LEAVE.to_owned(),
            tool: tool.to_owned(),
            args,
            elicitation: None,
        };
        let said = |word: Option<Word>| match word {
            Some(word) if word.approve => Leave::Given,
            _ => Leave::Refused("a human did not allow this call"),
        };
        if request.request_state.as_deref() == Some(LEAVE) {
            self.caller.principal.require(Scope::ApprovalsWrite)?;
            let answers = request.input_responses.as_ref();
            let words = words(&[wait], answers.unwrap_or(&BTreeMap::new()))?;
            return Ok(said(words.into_iter().next()));
        }
        let Some(question) = wait.question() else {
            return Err(ApiError::internal("the question of an approval is no form"));
        };
        Ok(match asking(self.caller, self.context) {
            Asking::Never => {
                Leave::Refused("this call needs a human's leave, which this host cannot ask for")
            }
            Asking::Again => {
                let question = InputRequest::Elicitation(ElicitRequest::new(question));
                let questions = BTreeMap::from([(LEAVE.to_owned(), question)]);
                let required = InputRequiredResult::new(Some(questions), Some(LEAVE.to_owned()));
                Leave::Asked(CallToolResponse::InputRequired(required))
            }
            Asking::Within => {
                let answer = self.put(question).await?;
                said(answer.and_then(|answer| wait.word(answer)))
            }
        })
    }

    /// Puts a question to the host within the call; `None` when it fails to ask, which leaves the
    /// question open. The error: the host gave the call up.
    async fn put(&self, question: ElicitRequestParams) -> Result<Option<ElicitResult>, ApiError> {
        tokio::select! {
            answer = self.context.peer.create_elicitation(question) => Ok(answer.ok()),
            () = self.context.ct.cancelled() => Err(cancelled()),
        }
    }

    /// Passes a tool's own question on to the host; `None` when nobody answers it.
    pub async fn passed_on(&self, message: String, schema: Value) -> Option<Value> {
        let wait = Waits {
            approval_id: String::new(),
            tool: String::new(),
            args: String::new(),
            elicitation: Some(json!({ "message": message, "requested_schema": schema })),
        };
        if asking(self.caller, self.context) != Asking::Within {
            return None;
        }
        let answer = self.put(wait.question()?).await.ok()??;
        let word = wait.word(answer)?;
        word.content.filter(|_| word.approve)
    }

    async fn start(&self, input: AskIn) -> Result<(String, String, Reader), ApiError> {
        if input.message.trim().is_empty() {
            return Err(ApiError::invalid("message", "is empty"));
        }
        let thread = input.thread_id.filter(|id| !id.is_empty());
        if thread
            .as_deref()
            .is_some_and(|id| !ids::is_sane_thread_id(id))
        {
            return Err(ApiError::invalid(
                "thread_id",
                "must be 1 to 256 printable characters",
            ));
        }
        let thread = thread.unwrap_or_else(|| ids::mint(ids::Kind::Thread));
        let (gateway, caller) = (self.gateway, self.caller);
        gateway.overload.check()?;
        let permit = gateway
            .admission
            .begin_run(&caller.principal, Some(&caller.smith_id))?;
        let run_id = ids::mint(ids::Kind::Run);
        let metadata = json!({ "deployment_id": caller.deployment_id });
        let started = gateway
            .runs
            .start(RunRequest {
                run_id: run_id.clone(),
                thread: Thread::Kept(thread.clone()),
                input_record: json!([{ "role": "user", "content": input.message }]).to_string(),
                input: vec![Turn::text(Role::User, input.message)],
                metadata: metadata.as_object().cloned().map(Into::into),
                detached: true,
                ..RunRequest::of(&caller.principal, caller.smith_id.clone(), "mcp", permit)
            })
            .await?;
        Ok((run_id, thread, started.reader))
    }

    /// A run of this smith; the host may name any that it likes.
    async fn run(&self, run_id: &str) -> Result<RunRow, ApiError> {
        let tenant = &self.caller.principal.tenant_id;
        let run = self.gateway.store.run(tenant, run_id).await?;
        run.filter(|run| run.smith_id == *self.caller.smith_id)
            .ok_or_else(|| ApiError::not_found("run", run_id))
    }

    async fn pending(&self, run: &RunRow) -> Result<Vec<Waits>, ApiError> {
        let store = &self.gateway.store;
        let approvals = store.run_approvals(&run.tenant_id, &run.id).await?;
        let pending = approvals
            .into_iter()
            .filter(|row| row.status == ApprovalStatus::Pending);
        let waits = pending.map(|row| Waits {
            approval_id: row.id,
            tool: row.tool.unwrap_or_default(),
            args: row.args,
            elicitation: row.elicitation.and_then(|e| serde_json::from_str(&e).ok()),
        });
        Ok(waits.collect())
    }

    /// Asks within the call, one question after the other, until one is declined or left open.
    async fn asked(&self, run_id: &str, waits: &[Waits]) -> Result<Vec<Word>, ApiError> {
        let mut words = Vec::new();
        for wait in waits {
            let Some(question) = wait.question() else {
                return Ok(words);
            };
            let Ok(answer) = self.put(question).await else {
                let run = self.run(run_id).await?;
                self.gateway.runs.go_on(&run, Some(given_up())).await?;
                return Err(cancelled());
            };
            let word = answer.and_then(|answer| wait.word(answer));
            let Some(word) = word else {
                return Ok(words);
            };
            let declined = !word.approve;
            words.push(word);
            if declined {
                break;
            }
        }
        Ok(words)
    }

    /// Writes what was decided. `None` when the run still waits.
    async fn decide(&self, run_id: &str, mut words: Vec<Word>) -> Result<Option<Reader>, ApiError> {
        if words.is_empty() {
            return Ok(None);
        }
        let principal = &self.caller.principal;
        principal.require(Scope::ApprovalsWrite)?;
        let run = self.run(run_id).await?;
        for word in &mut words {
            word.actor = Some(principal.actor());
        }
        let going_on = self.gateway.runs.decide_all(&run, &words).await?;
        Ok(going_on.map(|live| live.later_reader()))
    }

    /// What a host is told of a run that waits for somebody else's decision.
    async fn waiting(&self, run_id: &str, thread: &str) -> Result<CallToolResult, ApiError> {
        let run = self.run(run_id).await?;
        let waits = self.pending(&run).await?;
        let mut text = "The assistant waits for a decision on:".to_owned();
        for wait in &waits {
            let (tool, id, shown) = (&wait.tool, &wait.approval_id, wait.shown());
            text += &format!("\n- {tool} ({id}) with {shown}");
        }
        let approvals: Vec<Value> = waits
            .iter()
            .map(|wait| json!({ "approval_id": wait.approval_id, "tool": wait.tool }))
            .collect();
        let mut result = CallToolResult::success(vec![ContentBlock::text(&text)]);
        result.structured_content = Some(json!({
            "reply": text, "thread_id": thread, "run_id": run_id,
            "status": run.status, "approvals": approvals,
        }));
        Ok(result)
    }

    async fn follow(&self, mut reader: Reader) -> Result<Rest, ApiError> {
        let token = self.context.meta.get_progress_token();
        let mut progress = token.map(|token| Progress {
            token,
            told_at: None,
            characters: 0,
        });
        let run = reader.run().clone();
        let mut guard = Guard(Some(run.clone()));
        let mut collector = Collector::default();
        let mut frames = Vec::new();
        let mut rest = None;
        loop {
            tokio::select! {
                biased;
                more = reader.next(&mut frames) => if !more { break },
                () = self.context.ct.cancelled() => return Err(cancelled()),
            }
            for frame in &frames {
                collector.add(frame);
                match frame {
                    Frame::RunCompleted { .. } => rest = Some(true),
                    Frame::RunPaused { .. } => rest = Some(false),
                    _ => {}
                }
            }
            if let Some(progress) = &mut progress {
                progress.tell(&frames, self.context).await;
            }
            frames.clear();
        }
        guard.0 = None;
        match rest {
            Some(true) => Ok(Rest::Completed(collector.finish())),
            Some(false) => Ok(Rest::Waits),
            None => Err(run
                .failure
                .get()
                .cloned()
                .unwrap_or_else(|| ApiError::run_cancelled(b""))),
        }
    }
}

/// The words in a second call's answers that count.
fn words(waits: &[Waits], answers: &InputResponses) -> Result<Vec<Word>, ApiError> {
    let mut words = Vec::new();
    for (id, answer) in answers {
        let Some(wait) = waits.iter().find(|wait| wait.approval_id == *id) else {
            return Err(ApiError::invalid(
                "inputResponses",
                "answers an approval that does not wait",
            ));
        };
        let answer = serde_json::from_value(answer.clone())
            .map_err(|e| ApiError::invalid("inputResponses", e.to_string()))?;
        words.extend(wait.word(answer));
    }
    Ok(that_count(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(elicitation: Option<Value>) -> Waits {
        Waits {
            approval_id: "apr_1".to_owned(),
            tool: "melt".to_owned(),
            args: r#"{"thing":"ring"}"#.to_owned(),
            elicitation,
        }
    }

    fn answers(value: Value) -> InputResponses {
        serde_json::from_value(value).expect("answers")
    }

    #[test]
    fn only_a_clear_yes_is_leave() {
        let leave = |answer| {
            let said = answers(json!({ "apr_1": answer }));
            let words = words(&[waits(None)], &said).expect("words");
            words.first().map(|word| word.approve)
        };
        let yes = json!({ "action": "accept", "content": { "approve": true } });
        let no = json!({ "action": "accept", "content": { "approve": false } });
        assert_eq!(leave(yes), Some(true));
        assert_eq!(leave(no), Some(false));
        assert_eq!(leave(json!({ "action": "accept" })), Some(false));
        assert_eq!(leave(json!({ "action": "decline" })), Some(false));
        assert_eq!(leave(json!({ "action": "cancel" })), None);
    }

    #[test]
    fn answers_to_other_approvals_are_refused() {
        let said = answers(json!({ "apr_2": { "action": "decline" } }));
        assert!(words(&[waits(None)], &said).is_err());
    }

    #[test]
    fn questions_show_the_call_or_are_the_tools_own() {
        let asked = serde_json::to_value(waits(None).question().expect("a question"));
        let asked = asked.expect("JSON");
        let message = asked["message"].as_str().expect("a message");
        assert!(
            message.contains("melt") && message.contains("ring"),
            "{message}"
        );
        let own = json!({ "message": "How wide?", "requested_schema": {
            "type": "object", "properties": { "width": { "type": "integer" } } } });
        let asked = serde_json::to_value(waits(Some(own)).question().expect("a question"));
        let asked = asked.expect("JSON");
        assert_eq!(asked["message"], "How wide?");
        assert_eq!(
            asked["requestedSchema"]["properties"]["width"]["type"],
            "integer"
        );
        let odd = json!({ "message": "?", "requested_schema": { "type": "array" } });
        assert!(waits(Some(odd)).question().is_none());
    }
}
