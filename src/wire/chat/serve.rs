//! `POST /v1/chat/completions`: a smith's turn, or model routing without a smith (bytes passed on
//! where client and provider speak the same wire, translated otherwise).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::fields::FIELDS;
use crate::auth::{Principal, Use};
use crate::config::{LimitName, ProviderWire};
use crate::edge::{AppState, Exchange, Gone, Route, parse, readable};
use crate::error::ApiError;
use crate::ids;
use crate::model::{Lost, ModelRequest, Route as ModelRoute};
use crate::run::Collected;
use crate::store::now_seconds;
use crate::wire::OneAnswerEncoder;
use crate::wire::caller::Caller;
use crate::wire::chat::{self, ChatRequest, CustomTools, EventGate, StreamEncoder, decode};
use crate::wire::fields::{Fields, Given};
use crate::wire::forward::{Prepared, SameWire};
use crate::wire::openai::rewrite::{named_model, rewrite};
use crate::wire::routed::{Call, ModelWire, Plan};
use crate::wire::smith::{SmithCall, SmithTurn};

/// The wire's name in metrics.
const WIRE: &str = "chat_completions";

static SAME_WIRE: SameWire = SameWire {
    wire: WIRE,
    provider_wire: ProviderWire::OpenaiChat,
    path: |_, _| "/chat/completions".into(),
    headers: &[
        "openai-organization",
        "openai-project",
        "openai-beta",
        "x-client-request-id",
        // OpenRouter's, by which an application is known there.
        "http-referer",
        "x-title",
    ],
    answer: "choices",
    may_be_empty: false,
    instead: None,
    usage_of_answer: chat::forward::usage_of_answer,
    gate: |limit, hide_usage| Box::new(EventGate::new(limit, hide_usage)),
};

/// What the document says of what is answered natively here.
#[derive(OpenApi)]
#[openapi(paths(serve))]
pub struct Operations;

/// Its operation in the document; its route is served natively.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Operations::openapi())
}

/// What this wire answers.
pub fn routes() -> Vec<Route> {
    vec![
        Route::wire(Method::POST, "/v1/chat/completions", |exchange, _| {
            Box::pin(serve(exchange))
        })
        .begins_work(),
    ]
}

/// Answers with OpenAI's Chat Completions, streamed or not. With a smith (its token, or
/// `IC-Smith-Id`) it is the smith's turn; without one, `model` names a provider's.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header), ("IC-Thread-Id" = Option<String>, Header)),
    request_body = Object,
    responses((status = 200, content(
        (Object = "application/json"), (String = "text/event-stream")))))]
pub async fn serve(exchange: &mut Exchange) -> Result<(), Gone> {
    // What only the beginning needs is not held while the answer streams.
    match Box::pin(begin(exchange)).await {
        Ok(Begun::Run(run)) if run.stream => Box::pin(run.stream(exchange)).await,
        Ok(Begun::Run(run)) => Box::pin(run.whole(exchange)).await,
        Ok(Begun::Model(plan)) => plan.answer(exchange).await,
        Ok(Begun::ClientLeft) => Err(Gone),
        Err(error) => exchange.fail(&error, chat::encode::write_error).await,
    }
}

/// What a call turned out to be.
enum Begun {
    Run(Box<Answered>),
    Model(Plan<Chat>),
    ClientLeft,
}

async fn begin(exchange: &mut Exchange) -> Result<Begun, ApiError> {
    let Caller {
        principal,
        smith,
        thread,
    } = Caller::using(exchange, Use::ChatCompletions).await?;
    let body = exchange.body().await?;
    if let Some(smith_id) = smith {
        let body = readable(&body);
        return Box::pin(smith_turn(exchange, &principal, smith_id, thread, &body)).await;
    }
    let (model, stream) = named_model::<ChatRequest>(&body)?;
    let call = Call {
        model,
        stream,
        has_thread: thread.is_some(),
        body: body.clone(),
    };
    Ok(Begun::Model(Plan::begin(exchange, &principal, call).await?))
}

// ---- without a smith ----

/// Chat Completions of a provider's model.
struct Chat;

/// What of a call its answer hangs on.
struct Asked {
    include_usage: bool,
    has_functions: bool,
    custom: CustomTools,
}

/// The id and the time of an answer that is made here.
fn new_answer() -> (String, i64) {
    let id = format!("chatcmpl-{}", ids::mint_request_id());
    (id, now_seconds())
}

impl ModelWire for Chat {
    type Asked = Asked;
    type Encoder = StreamEncoder;
    const SAME_WIRE: &'static SameWire = &SAME_WIRE;
    const FIELDS: Fields = FIELDS;

    fn is_same(route: &ModelRoute) -> bool {
        route.wire == ProviderWire::OpenaiChat
    }

    fn prepare(body: &Bytes, route: &ModelRoute, stream: bool) -> Result<Prepared, ApiError> {
        let ask_usage = stream && route.stream_usage;
        let forwarded = rewrite(body, &route.model, ask_usage)?;
        let body = match route.rules.limit_name {
            LimitName::MaxTokens => chat::forward::with_older_limit(forwarded.body),
            LimitName::MaxCompletionTokens => forwarded.body,
        };
        Ok(Prepared {
            body,
            hide_usage: forwarded.hide_usage,
        })
    }

    fn passed_on(body: &Bytes) -> Asked {
        Asked {
            include_usage: chat::forward::asks_for_usage(body),
            has_functions: chat::forward::has_functions(body),
            custom: CustomTools::of(body),
        }
    }

    fn read(body: &Bytes) -> Result<(ModelRequest, Asked), ApiError> {
        let decoded = decode(parse::<ChatRequest>(body)?)?;
        let asked = Asked {
            include_usage: decoded.include_usage,
            has_functions: decoded.has_functions,
            custom: CustomTools::of(body),
        };
        Ok((decoded.into_request(), asked))
    }

    fn encoder(asked: Asked, model: &str) -> StreamEncoder {
        let (id, created) = new_answer();
        encoder(asked, &id, created, model)
    }

    fn whole(asked: Asked, model: &str, answer: Collected) -> Bytes {
        let (id, created) = new_answer();
        whole(asked, &id, created, model, &answer)
    }
}

fn encoder(asked: Asked, id: &str, created: i64, model: &str) -> StreamEncoder {
    StreamEncoder::new(id, created, model, asked.include_usage)
        .with_functions(asked.has_functions)
        .with_custom(asked.custom)
}

fn whole(asked: Asked, id: &str, created: i64, model: &str, answer: &Collected) -> Bytes {
    let mut body = chat::full_answer(id, created, model, answer);
    if asked.has_functions {
        body = chat::as_function_call(body);
    }
    asked.custom.restore(&mut body);
    body.to_string().into()
}

// ---- a smith's turn ----

/// A turn, and what of its call the answer hangs on.
struct Answered {
    begun: SmithTurn,
    stream: bool,
    asked: Asked,
}

async fn smith_turn(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: Arc<str>,
    thread: Option<String>,
    body: &Bytes,
) -> Result<Begun, ApiError> {
    let decoded = decode(parse::<ChatRequest>(body)?)?;
    Given::of(exchange, body, FIELDS)?.tell(exchange, Lost::default());
    let (stream, include_usage) = (decoded.stream, decoded.include_usage);
    let has_functions = decoded.has_functions;
    let call = SmithCall {
        wire: WIRE,
        smith_id,
        thread,
        body,
        conversation: "messages",
        model: decoded.model.clone(),
        request: decoded.into_request(),
        stream,
        format_member: "response_format",
    };
    let Some(begun) = SmithTurn::begin(exchange, principal, call).await? else {
        return Ok(Begun::ClientLeft);
    };
    let custom = match begun.is_decided {
        true => CustomTools::default(),
        false => CustomTools::of(body),
    };
    let asked = Asked {
        include_usage,
        has_functions,
        custom,
    };
    Ok(Begun::Run(Box::new(Answered {
        begun,
        stream,
        asked,
    })))
}

impl Answered {
    fn id(&self) -> String {
        format!("chatcmpl-{}", self.begun.id_body())
    }

    async fn stream(self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        let (id, one_answer) = (self.id(), self.begun.one_answer());
        let inner = encoder(self.asked, &id, self.begun.created, &self.begun.model);
        let mut encoder = OneAnswerEncoder::new(one_answer, inner);
        let turn = self.begun.turn;
        exchange.start_stream(&[]).await?;
        turn.stream(exchange, &mut encoder, WIRE).await
    }

    async fn whole(self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        let (id, mut one_answer) = (self.id(), self.begun.one_answer());
        let (created, model) = (self.begun.created, self.begun.model);
        match self.begun.turn.whole(exchange, &mut one_answer).await? {
            Ok(answer) => {
                let body = whole(self.asked, &id, created, &model, &answer);
                exchange.respond_json(StatusCode::OK, body).await
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
    fn what_serves_a_chat_call_stays_small() {
        fn size<'a, F: Future>(_: fn(&'a mut Exchange) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let size = size(serve);
        assert!(size <= 6 * 1024, "{size} bytes");
    }
}
