//! `POST /v1/messages`: a smith's turn, or model routing without a smith (bytes passed on where
//! client and provider speak the same wire, translated otherwise).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::count::{__path_count_tokens, count_tokens};
use super::errors::{DIALECT, MessagesErrorOut, write_error};
use super::forward::{SAME_WIRE, WIRE, is_same, named_model, prepared};
use super::{DecodedMessages, Display, MessagesRequest, StreamEncoder, decode, message};
use crate::auth::{Principal, Scope};
use crate::edge::{AppState, Exchange, Gone, Route, parse, readable};
use crate::error::ApiError;
use crate::ids;
use crate::model::{ModelRequest, Route as ModelRoute};
use crate::run::{Collected, RunRequest, Thread};
use crate::wire::caller::Caller;
use crate::wire::decision;
use crate::wire::files;
use crate::wire::forward::{Prepared, SameWire};
use crate::wire::keyed::Key;
use crate::wire::openai::approval::{decisions, without_decisions};
use crate::wire::routed::{Call, ModelWire, Plan};
use crate::wire::turn::{RunTurn, check_thread_id};
use crate::wire::{OneAnswer, OneAnswerEncoder};

/// What the document says of what is answered natively here.
#[derive(OpenApi)]
#[openapi(paths(serve, count_tokens))]
pub struct Operations;

/// Its operations in the document; its routes are served natively.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Operations::openapi())
}

/// What this wire answers.
pub fn routes() -> Vec<Route> {
    vec![
        Route::wire(Method::POST, "/v1/messages", |exchange, _| {
            Box::pin(serve(exchange))
        })
        .begins_work()
        .speaks(&DIALECT),
        Route::wire(Method::POST, "/v1/messages/count_tokens", |exchange, _| {
            Box::pin(count_tokens(exchange))
        })
        .begins_work()
        .speaks(&DIALECT),
    ]
}

/// Answers with Anthropic's Messages, streamed or not. With a smith (its token, or `IC-Smith-Id`) it
/// is the smith's turn; without one, `model` names a provider's. A token may come in `x-api-key`;
/// errors have Anthropic's shape.
#[utoipa::path(post, path = "/v1/messages", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header), ("IC-Thread-Id" = Option<String>, Header),
        ("anthropic-version" = Option<String>, Header),
        ("anthropic-beta" = Option<String>, Header)),
    request_body = Object,
    responses((status = 200, content(
        (Object = "application/json"), (String = "text/event-stream"))),
        (status = "default", description = "An error, in Anthropic's envelope",
            body = MessagesErrorOut)))]
pub async fn serve(exchange: &mut Exchange) -> Result<(), Gone> {
    // What only the beginning needs is not held while the answer streams.
    match Box::pin(begin(exchange)).await {
        Ok(Begun::Run(run)) if run.stream => Box::pin(run.stream(exchange)).await,
        Ok(Begun::Run(run)) => Box::pin(run.whole(exchange)).await,
        Ok(Begun::Model(plan)) => plan.answer(exchange).await,
        Ok(Begun::ClientLeft) => Err(Gone),
        Err(error) => exchange.fail(&error, write_error).await,
    }
}

/// What a call turned out to be.
enum Begun {
    Run(Box<SmithTurn>),
    Model(Plan<Messages>),
    ClientLeft,
}

async fn begin(exchange: &mut Exchange) -> Result<Begun, ApiError> {
    let Caller {
        principal,
        smith,
        thread,
    } = Caller::of(exchange, Scope::RunsWrite)?;
    let body = exchange.body().await?;
    if let Some(smith_id) = smith {
        let body = readable(&body);
        return Box::pin(smith_turn(exchange, &principal, smith_id, thread, &body)).await;
    }
    let (model, stream) = named_model(&body)?;
    let call = Call {
        model,
        stream,
        has_thread: thread.is_some(),
        body: body.clone(),
    };
    Ok(Begun::Model(Plan::begin(exchange, &principal, call).await?))
}

// ---- without a smith ----

/// Messages of a provider's model.
struct Messages;

/// The id of an answer that is made here.
fn new_id() -> String {
    format!("msg_{}", ids::mint_request_id())
}

impl ModelWire for Messages {
    type Asked = Display;
    type Encoder = StreamEncoder;
    const SAME_WIRE: &'static SameWire = &SAME_WIRE;

    fn is_same(route: &ModelRoute) -> bool {
        is_same(route)
    }

    fn prepare(body: &Bytes, route: &ModelRoute, _stream: bool) -> Result<Prepared, ApiError> {
        Ok(Prepared {
            body: prepared(body, &route.model)?,
            hide_usage: false,
        })
    }

    fn passed_on(body: &Bytes) -> Display {
        #[derive(Deserialize)]
        struct Probe {
            thinking: Value,
        }
        let probe = serde_json::from_slice::<Probe>(body);
        probe.map_or(Display::Hidden, |probe| Display::of(&probe.thinking))
    }

    fn read(body: &Bytes) -> Result<(ModelRequest, Display), ApiError> {
        let decoded = decode(parse::<MessagesRequest>(body)?)?;
        let display = decoded.display;
        Ok((decoded.into_request(), display))
    }

    fn encoder(display: Display, model: &str) -> StreamEncoder {
        StreamEncoder::new(&new_id(), model, display)
    }

    fn whole(display: Display, model: &str, answer: Collected) -> Bytes {
        message(&new_id(), model, &answer, display)
            .to_string()
            .into()
    }
}

// ---- a smith's turn ----

struct SmithTurn {
    turn: RunTurn,
    model: String,
    stream: bool,
    display: Display,
    own_tools: bool,
}

/// What of a request the run's record shows.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    messages: &'a serde_json::value::RawValue,
}

async fn smith_turn(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: Arc<str>,
    thread: Option<String>,
    body: &Bytes,
) -> Result<Begun, ApiError> {
    let decoded = decode(parse::<MessagesRequest>(body)?)?;
    if let Some(thread) = &thread {
        check_thread_id(thread)?;
        if decoded.response_format.is_some() {
            return Err(ApiError::bad_request(
                "invalid_response_format",
                "a structured answer is stateless: leave IC-Thread-Id out",
            )
            .param("output_config.format"));
        }
    }
    let runs = exchange.gateway.runs.clone();
    let asked = decoded.model.clone();
    let model = async || {
        let (tenant_id, asked) = (&principal.tenant_id, asked.as_deref());
        runs.model_of(tenant_id, &smith_id, asked).await
    };
    let (stream, display) = (decoded.stream, decoded.display);
    if let Some((run_id, words)) = decisions(&decoded.turns)? {
        let asked = decision::Asked {
            run_id: &run_id,
            words,
            places: [0, 0],
            body,
        };
        let decided = decision::decide(exchange, principal, &smith_id, asked);
        let decided = Box::pin(decided).await?;
        return Ok(Begun::Run(Box::new(SmithTurn {
            turn: decided.turn,
            model: model().await?,
            stream,
            display,
            own_tools: true,
        })));
    }
    let run_id = ids::mint(ids::Kind::Run);
    let mine = match Key::claim(exchange, principal, body, &run_id, false).await? {
        Key::New(mine) => mine,
        Key::Again(again) => {
            return Ok(Begun::Run(Box::new(SmithTurn {
                turn: again.turn(),
                model: model().await?,
                stream,
                display,
                own_tools: decoded.tools.is_empty(),
            })));
        }
    };
    let begun = new_turn(exchange, principal, smith_id, run_id, thread, decoded, body);
    Key::settle(mine, Box::pin(begun).await).await
}

async fn new_turn(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: Arc<str>,
    run_id: String,
    thread: Option<String>,
    decoded: DecodedMessages,
    body: &Bytes,
) -> Result<Begun, ApiError> {
    let record: Record<'_> = serde_json::from_slice(body).map_err(ApiError::internal)?;
    files::check(&exchange.gateway, principal, &decoded.turns, body).await?;
    let own_tools = decoded.tools.is_empty();
    let (stream, display) = (decoded.stream, decoded.display);
    let detached = thread.is_some();
    let permit = exchange
        .gateway
        .admission
        .begin_run(principal, Some(&smith_id))?;
    let runs = exchange.gateway.runs.clone();
    let started = runs
        .start(RunRequest {
            run_id,
            thread: thread.map_or(Thread::Stateless(None), Thread::Kept),
            input: without_decisions(decoded.turns),
            input_record: record.messages.get().to_owned(),
            input_member: "messages",
            extra_instructions: decoded.system,
            model: decoded.model,
            client_tools: decoded.tools,
            tool_choice: decoded.tool_choice,
            parallel_tool_calls: decoded.parallel_tool_calls,
            response_format: decoded.response_format,
            params: decoded.params,
            detached,
            ..RunRequest::of(principal, smith_id, WIRE, permit)
        })
        .await?;
    let Some(turn) = RunTurn::new(started.reader)
        .begun(exchange, stream, &[])
        .await?
    else {
        return Ok(Begun::ClientLeft);
    };
    Ok(Begun::Run(Box::new(SmithTurn {
        turn,
        model: started.model,
        stream,
        display,
        own_tools,
    })))
}

impl SmithTurn {
    fn id(&self) -> String {
        let run_id = &self.turn.run().run_id;
        let body = ids::body(ids::Kind::Run, run_id).unwrap_or(run_id);
        format!("msg_{body}")
    }

    fn one_answer(&self) -> OneAnswer {
        OneAnswer::new(&self.turn.run().run_id, self.own_tools)
    }

    async fn stream(self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        let inner = StreamEncoder::new(&self.id(), &self.model, self.display);
        let mut encoder = OneAnswerEncoder::new(self.one_answer(), inner);
        let turn = self.turn;
        exchange.start_stream(&[]).await?;
        turn.stream(exchange, &mut encoder, WIRE).await
    }

    async fn whole(self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        let (id, display) = (self.id(), self.display);
        let mut one_answer = self.one_answer();
        match self.turn.whole(exchange, &mut one_answer).await? {
            Ok(answer) => {
                let body = message(&id, &self.model, &answer, display).to_string();
                exchange.respond_json(StatusCode::OK, body.into()).await
            }
            Err(error) => exchange.respond_error(&error).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A future is moved whole when it is made, and boxed whole by Pingora's traits.
    #[test]
    fn what_serves_a_call_stays_small() {
        fn size<'a, F: Future>(_: fn(&'a mut Exchange) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let size = size(serve);
        assert!(size <= 6 * 1024, "{size} bytes");
    }
}
