//! What a smith offers to an MCP host: the tool `ask`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    JsonObject, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProgressToken,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::Deserialize;
use serde_json::{Value, json};

use super::mcp::McpCaller;
use crate::error::ApiError;
use crate::frame::Frame;
use crate::gateway::Gateway;
use crate::ids;
use crate::model::{Params, Role, Turn};
use crate::run::{Cancelled, Collected, Collector, LiveRun, Reader, RunRequest, Thread};

const ASK: &str = "ask";
/// A host hears of progress no more often.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// One host's view of its smith.
pub struct SmithServer {
    gateway: Arc<Gateway>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskIn {
    message: String,
    #[serde(default)]
    thread_id: Option<String>,
}

fn schema(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}

fn ask_tool() -> Tool {
    let input = schema(json!({
        "type": "object",
        "properties": {
            "message": { "type": "string", "description": "What to say to it." },
            "thread_id": {
                "type": "string",
                "description": "The thread to go on with, from an earlier answer.",
            },
        },
        "required": ["message"],
        "additionalProperties": false,
    }));
    let output = schema(json!({
        "type": "object",
        "properties": {
            "reply": { "type": "string" },
            "thread_id": { "type": "string" },
            "run_id": { "type": "string" },
        },
        "required": ["reply", "thread_id", "run_id"],
    }));
    let description = "Asks the assistant behind this server, who has instructions and a memory of \
                       its own, and gives its answer.";
    Tool::new(ASK, description, input)
        .with_title("Ask")
        .with_raw_output_schema(output)
}

/// A failure that the host's model is told.
fn told(error: &ApiError) -> CallToolResult {
    let text = match &error.param {
        Some(param) => format!("{}: {param} {}", error.code, error.message),
        None => format!("{}: {}", error.code, error.message),
    };
    CallToolResult::error(vec![ContentBlock::text(text)])
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
            if let Frame::Text(text) = frame {
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
            let reason = "the host cancelled the call".to_owned();
            run.cancel(Cancelled::Asked(Some(reason)));
        }
    }
}

impl SmithServer {
    /// Over `gateway`.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    async fn ask(
        &self,
        caller: &McpCaller,
        input: AskIn,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ApiError> {
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
        let gateway = &self.gateway;
        let permit = gateway
            .gate
            .begin_run(&caller.principal, Some(&caller.smith_id))?;
        let run_id = ids::mint(ids::Kind::Run);
        let metadata = json!({ "deployment_id": caller.deployment_id });
        let started = gateway
            .runs
            .start(RunRequest {
                run_id: run_id.clone(),
                tenant_id: caller.principal.tenant_id.clone(),
                smith_id: caller.smith_id.clone(),
                channel: "mcp".to_owned(),
                thread: Thread::Kept(thread.clone()),
                input_record: json!([{ "role": "user", "content": input.message }]),
                input: vec![Turn::text(Role::User, input.message)],
                extra_instructions: None,
                model: None,
                client_tools: Vec::new(),
                tool_choice: None,
                parallel_tool_calls: None,
                response_format: None,
                params: Params::default(),
                include_mask: 0,
                metadata: metadata.as_object().cloned(),
                actor: caller.principal.actor(),
                response: None,
                permit,
                detached: true,
            })
            .await?;
        let answer = self.follow(started.reader, context).await?;
        let reply = answer.text();
        let mut result = CallToolResult::success(vec![ContentBlock::text(reply.clone())]);
        result.structured_content =
            Some(json!({ "reply": reply, "thread_id": thread, "run_id": run_id }));
        Ok(result)
    }

    async fn follow(
        &self,
        mut reader: Reader,
        context: &RequestContext<RoleServer>,
    ) -> Result<Collected, ApiError> {
        let mut progress = context.meta.get_progress_token().map(|token| Progress {
            token,
            told_at: None,
            characters: 0,
        });
        let run = reader.run().clone();
        let mut guard = Guard(Some(run.clone()));
        let mut collector = Collector::default();
        let mut frames = Vec::new();
        let mut completed = false;
        loop {
            tokio::select! {
                biased;
                more = reader.next(&mut frames) => if !more { break },
                () = context.ct.cancelled() => {
                    return Err(ApiError::conflict("run_cancelled", "the call was cancelled"));
                }
            }
            for frame in &frames {
                collector.add(frame);
                completed |= matches!(frame, Frame::RunCompleted { .. });
            }
            if let Some(progress) = &mut progress {
                progress.tell(&frames, context).await;
            }
            frames.clear();
        }
        guard.0 = None;
        match completed {
            true => Ok(collector.finish()),
            false => {
                Err(run.failure.get().cloned().unwrap_or_else(|| {
                    ApiError::conflict("run_cancelled", "the run was cancelled")
                }))
            }
        }
    }
}

impl ServerHandler for SmithServer {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("smithgate", env!("CARGO_PKG_VERSION"));
        info.instructions =
            Some("One assistant with instructions and a memory of its own: ask it.".to_owned());
        info
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![ask_tool()]))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == ASK).then(ask_tool)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name != ASK {
            let message = format!("there is no tool '{}'", request.name);
            return Err(ErrorData::invalid_params(message, None));
        }
        let parts = context.extensions.get::<Parts>();
        let caller = parts.and_then(|parts| parts.extensions.get::<Arc<McpCaller>>().cloned());
        let caller =
            caller.ok_or_else(|| ErrorData::internal_error("the call has no caller", None))?;
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let input: AskIn = serde_json::from_value(arguments)
            .map_err(|e| ErrorData::invalid_params(e.to_string(), None))?;
        let answered = self.ask(&caller, input, &context).await;
        Ok(answered.unwrap_or_else(|error| told(&error)).into())
    }
}
