//! A smith's turn on the wires whose calls hold the whole conversation: begun, decided, or found by its
//! key. What differs between them is how the call is read and how the answer is written.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::keyed::Key;
use super::openai::approval::{decisions, without_decisions};
use super::turn::{RunTurn, check_thread_id};
use super::{decision, files};
use crate::auth::Principal;
use crate::edge::Exchange;
use crate::error::ApiError;
use crate::ids;
use crate::model::ModelRequest;
use crate::run::{RunRequest, Thread};

/// What a call asks of a smith.
pub struct SmithCall<'a> {
    /// The wire's name in metrics.
    pub wire: &'static str,
    pub smith_id: Arc<str>,
    /// `None`: the turn is of no thread.
    pub thread: Option<String>,
    /// As it was sent.
    pub body: &'a Bytes,
    /// The member that is its conversation: `messages`, or `contents`.
    pub conversation: &'static str,
    pub request: ModelRequest,
    /// The model that the caller names.
    pub model: Option<String>,
    pub stream: bool,
    /// The member that asks for a structured answer, which a thread does not go with.
    pub format_member: &'static str,
}

/// A turn that is under way.
pub struct SmithTurn {
    pub turn: RunTurn,
    /// When it began, in seconds since the Unix epoch.
    pub created: i64,
    pub model: String,
    /// The caller brought no tools.
    pub own_tools: bool,
    /// The call decided on a run that waited.
    pub is_decided: bool,
}

/// What of a request the run's record shows.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    contents: Option<&'a RawValue>,
}

impl SmithTurn {
    /// Begins a turn, goes on with one that was decided on, or finds the one that the call's key stands
    /// for; `None`: the client left.
    pub async fn begin(
        exchange: &mut Exchange,
        principal: &Arc<Principal>,
        call: SmithCall<'_>,
    ) -> Result<Option<Self>, ApiError> {
        if let Some(thread) = &call.thread {
            check_thread_id(thread)?;
            if call.request.response_format.is_some() {
                return Err(ApiError::bad_request(
                    "invalid_response_format",
                    "a structured answer is stateless: leave IC-Thread-Id out",
                )
                .param(call.format_member));
            }
        }
        let runs = exchange.gateway.runs.clone();
        let (smith_id, asked) = (call.smith_id.clone(), call.model.clone());
        let model = async || {
            let (tenant_id, asked) = (&principal.tenant_id, asked.as_deref());
            runs.model_of(tenant_id, &smith_id, asked).await
        };
        if let Some((run_id, words)) = decisions(&call.request.turns)? {
            let asked = decision::Asked {
                run_id: &run_id,
                words,
                places: [0, 0],
                body: call.body,
            };
            let decided = decision::decide(exchange, principal, &smith_id, asked);
            let decided = Box::pin(decided).await?;
            return Ok(Some(Self {
                turn: decided.turn,
                created: decided.begun.at,
                model: model().await?,
                own_tools: true,
                is_decided: true,
            }));
        }
        let run_id = ids::mint(ids::Kind::Run);
        let mine = match Key::claim(exchange, principal, call.body, &run_id, false).await? {
            Key::New(mine) => mine,
            Key::Again(again) => {
                return Ok(Some(Self {
                    created: again.run.created_at / 1_000_000,
                    turn: again.turn(),
                    model: model().await?,
                    own_tools: call.request.tools.is_empty(),
                    is_decided: false,
                }));
            }
        };
        let begun = Self::new(exchange, principal, run_id, call);
        Key::settle(mine, Box::pin(begun).await).await
    }

    async fn new(
        exchange: &mut Exchange,
        principal: &Arc<Principal>,
        run_id: String,
        call: SmithCall<'_>,
    ) -> Result<Option<Self>, ApiError> {
        let (request, body) = (call.request, call.body);
        let record: Record<'_> = serde_json::from_slice(body).map_err(ApiError::internal)?;
        let record = match call.conversation {
            "contents" => record.contents,
            _ => record.messages,
        };
        files::check(&exchange.gateway, principal, &request.turns, body).await?;
        let own_tools = request.tools.is_empty();
        let detached = call.thread.is_some();
        let permit = exchange
            .gateway
            .admission
            .begin_run(principal, Some(&call.smith_id))?;
        let runs = exchange.gateway.runs.clone();
        let started = runs
            .start(RunRequest {
                run_id,
                thread: call.thread.map_or(Thread::Stateless(None), Thread::Kept),
                input: without_decisions(request.turns),
                input_record: record.map_or("[]", RawValue::get).to_owned(),
                input_member: call.conversation,
                extra_instructions: request.system,
                model: call.model,
                client_tools: request.tools,
                tool_choice: request.tool_choice,
                parallel_tool_calls: request.parallel_tool_calls,
                response_format: request.response_format,
                params: request.params,
                detached,
                ..RunRequest::of(principal, call.smith_id, call.wire, permit)
            })
            .await?;
        let turn = RunTurn::new(started.reader)
            .begun(exchange, call.stream, &[])
            .await?;
        Ok(turn.map(|turn| Self {
            turn,
            created: started.created_at / 1_000_000,
            model: started.model,
            own_tools,
            is_decided: false,
        }))
    }

    /// The part of the run's id that ids of the wire share with it.
    pub fn id_body(&self) -> &str {
        let run_id = &self.turn.run().run_id;
        ids::body(ids::Kind::Run, run_id).unwrap_or(run_id)
    }

    /// What makes the run one model's answer.
    pub fn one_answer(&self) -> super::OneAnswer {
        super::OneAnswer::new(&self.turn.run().run_id, self.own_tools)
    }
}
