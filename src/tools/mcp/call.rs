//! One `tools/call`, which goes on by itself while a human is asked something about it.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequestParams,
    InputRequest, InputRequiredResult, ProgressNotificationParam, ResourceContents,
};
use rmcp::service::ServiceError;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use super::error::HttpError;
use super::key::ServerKey;
use super::session::{Heard, Question, Sessions, Taken};
use super::words;
use crate::model::{Part, Source, type_of};
use crate::upstream::UpstreamError;

const TICK: Duration = Duration::from_millis(250);
/// Rounds of questions in one call.
const MAX_ROUNDS: usize = 8;

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The tool did not run.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows whether the tool ran.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// What to call.
pub struct CallRequest {
    pub key: ServerKey,
    pub tool: String,
    pub arguments: Map<String, Value>,
    pub meta: Map<String, Value>,
    /// Whether a second call does no harm.
    pub repeatable: bool,
}

/// What happens next in a call.
pub enum Step {
    Asks(Question),
    Progress(ProgressNotificationParam),
    Done(Result<CallToolResult, CallError>),
}

/// A call under way; dropping it cancels it.
pub struct McpCall {
    heard: mpsc::Receiver<Heard>,
    task: tokio::task::JoinHandle<Result<CallToolResult, CallError>>,
}

impl Drop for McpCall {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl McpCall {
    /// Begins a call.
    pub fn begin(sessions: Arc<Sessions>, request: CallRequest) -> Self {
        let (hearer, heard) = mpsc::channel(4);
        let task = tokio::spawn(async move { call(&sessions, request, hearer).await });
        Self { heard, task }
    }

    /// Waits for a question, for progress or for the end.
    pub async fn next(&mut self) -> Step {
        tokio::select! {
            biased;
            Some(heard) = self.heard.recv() => match heard {
                Heard::Question(question) => Step::Asks(question),
                Heard::Progress(progress) => Step::Progress(progress),
            },
            done = &mut self.task => Step::Done(done.unwrap_or_else(|error| {
                Err(CallError::Unknown(error.to_string()))
            })),
        }
    }
}

async fn call(
    sessions: &Sessions,
    request: CallRequest,
    hearer: mpsc::Sender<Heard>,
) -> Result<CallToolResult, CallError> {
    let mut params = CallToolRequestParams::new(request.tool.clone());
    params = params.with_arguments(request.arguments.clone());
    let mut meta = rmcp::model::RequestMetaObject::new();
    meta.0.0.extend(request.meta.clone());
    params.meta = Some(meta);
    let mut fresh = false;
    let mut rounds = 0;
    loop {
        let taken = sessions.take(&request.key, fresh).await;
        let taken = taken.map_err(CallError::Refused)?;
        taken.session.tell(Some(hearer.clone()));
        let answer = timed(&taken, params.clone(), sessions.time_limit).await;
        let reused = taken.reused;
        match answer {
            Ok(CallToolResponse::Complete(result)) => {
                taken.give_back(true);
                return Ok(result);
            }
            Ok(CallToolResponse::InputRequired(required)) if rounds < MAX_ROUNDS => {
                rounds += 1;
                // The server keeps nothing of the call, and others may use the session meanwhile.
                taken.give_back(true);
                params.request_state.clone_from(&required.request_state);
                params.input_responses = Some(answers(required, &hearer).await);
            }
            Ok(_) => {
                taken.give_back(true);
                let why = "the server answered with what this gateway does not take up";
                return Err(CallError::Unknown(why.to_owned()));
            }
            Err(ServiceError::McpError(error)) => {
                taken.give_back(true);
                return Err(CallError::Refused(error.message.into_owned()));
            }
            Err(error) => {
                let why = words::of_request(&error, &taken.session.trouble);
                taken.give_back(false);
                let ran = may_have_run(&error);
                let again = matches!(
                    error,
                    ServiceError::TransportClosed | ServiceError::TransportSend(_)
                );
                // A kept session may have been closed meanwhile; a new one tells.
                if again && !fresh && (request.repeatable || (reused && !ran)) {
                    fresh = true;
                    continue;
                }
                return Err(match ran {
                    true => CallError::Unknown(why),
                    false => CallError::Refused(why),
                });
            }
        }
    }
}

/// The server's answer, within the time limit; waiting for a human does not count.
async fn timed(
    taken: &Taken,
    params: CallToolRequestParams,
    limit: Duration,
) -> Result<CallToolResponse, ServiceError> {
    let peer = taken.session.service.peer();
    let called = peer.call_tool_once(params);
    tokio::pin!(called);
    let mut left = limit;
    loop {
        match tokio::time::timeout(TICK.min(left), &mut called).await {
            Ok(answer) => return answer,
            Err(_) if taken.session.is_asking() => {}
            Err(_) => left = left.saturating_sub(TICK),
        }
        if left.is_zero() {
            return Err(ServiceError::Timeout { timeout: limit });
        }
    }
}

/// Whether a tool may have run although no answer came.
fn may_have_run(error: &ServiceError) -> bool {
    let ServiceError::TransportSend(sent) = error else {
        return true;
    };
    if let Some(http) = words::http_error(sent) {
        return match http {
            HttpError::Upstream(UpstreamError::Connect(_) | UpstreamError::Forbidden(_))
            | HttpError::Url(_)
            | HttpError::Header
            | HttpError::Moved { .. } => false,
            HttpError::Status { status, .. } => status.is_server_error(),
            HttpError::Upstream(_) | HttpError::Unreadable(_) => true,
        };
    }
    !matches!(
        words::cause::<StreamableHttpError<HttpError>>(sent),
        Some(
            StreamableHttpError::SessionExpired
                | StreamableHttpError::ReinitializationFailed(_)
                | StreamableHttpError::AuthRequired(_)
        )
    )
}

/// Asks what a server wants to know before it goes on.
async fn answers(
    required: InputRequiredResult,
    hearer: &mpsc::Sender<Heard>,
) -> std::collections::BTreeMap<String, Value> {
    let mut answers = std::collections::BTreeMap::new();
    for (key, request) in required.input_requests.unwrap_or_default() {
        let InputRequest::Elicitation(elicit) = request else {
            // Sampling and roots are not offered, so no honest server asks for them.
            continue;
        };
        let content = match elicit.params {
            ElicitRequestParams::FormElicitationParams {
                message,
                requested_schema,
                ..
            } => {
                let (reply, answer) = oneshot::channel();
                let schema = serde_json::to_value(requested_schema).unwrap_or_default();
                let question = Question {
                    message,
                    schema,
                    reply,
                };
                match hearer.send(Heard::Question(question)).await {
                    Ok(()) => answer.await.ok().flatten(),
                    Err(_) => None,
                }
            }
            _ => None,
        };
        let answer = match content {
            Some(content) => json!({ "action": "accept", "content": content }),
            None => json!({ "action": "decline" }),
        };
        answers.insert(key, answer);
    }
    answers
}

/// A file that is within a result, called as its address ends.
fn file(uri: &str, media_type: Option<&str>, blob: &str) -> Part {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let name = path.rsplit('/').find(|piece| !piece.is_empty());
    let media_type = media_type.or_else(|| name.and_then(type_of));
    let media_type = media_type.unwrap_or("application/octet-stream");
    let source = Source::from_data(media_type, blob.to_owned());
    match source.media_type() {
        Some(known) if known.starts_with("image/") => Part::Image {
            source,
            detail: None,
        },
        _ => Part::File {
            source,
            name: name.map(str::to_owned),
        },
    }
}

/// A result as the model is told it.
pub fn content_of(result: &CallToolResult) -> Vec<Part> {
    let text = |text: &str| Part::Text {
        text: text.to_owned(),
    };
    let mut parts: Vec<Part> = Vec::with_capacity(result.content.len());
    for block in &result.content {
        parts.push(match block {
            ContentBlock::Text(block) => text(&block.text),
            ContentBlock::Image(image) => Part::Image {
                source: Source::Data {
                    media_type: image.mime_type.clone(),
                    data: image.data.clone(),
                },
                detail: None,
            },
            ContentBlock::Audio(audio) => Part::File {
                source: Source::from_data(&audio.mime_type, audio.data.clone()),
                name: None,
            },
            ContentBlock::Resource(embedded) => match &embedded.resource {
                ResourceContents::TextResourceContents { text: body, .. } => text(body),
                ResourceContents::BlobResourceContents {
                    uri,
                    mime_type,
                    blob,
                    ..
                } => file(uri, mime_type.as_deref(), blob),
                _ => text("[a resource]"),
            },
            ContentBlock::ResourceLink(link) => text(&format!("[{}]({})", link.name, link.uri)),
            _ => text("[content of a kind that is not known here]"),
        });
    }
    if let Some(structured) = &result.structured_content
        && parts.is_empty()
    {
        parts.push(text(&structured.to_string()));
    }
    parts
}
