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
use super::fields::FIELDS;
use super::forward::{SAME_WIRE, WIRE, is_same, prepared};
use super::{Display, MessagesRequest, StreamEncoder, decode, message};
use crate::auth::{Principal, Use};
use crate::edge::{AppState, Exchange, Gone, Route, parse, readable};
use crate::error::ApiError;
use crate::ids;
use crate::model::{Lost, ModelRequest, Route as ModelRoute};
use crate::run::Collected;
use crate::wire::OneAnswerEncoder;
use crate::wire::caller::Caller;
use crate::wire::fields::{Fields, Given};
use crate::wire::forward::{Prepared, SameWire};
use crate::wire::openai::rewrite::named_model;
use crate::wire::routed::{Call, ModelWire, Plan};
use crate::wire::smith::{SmithCall, SmithTurn};

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
    Run(Box<Answered>),
    Model(Plan<Messages>),
    ClientLeft,
}

async fn begin(exchange: &mut Exchange) -> Result<Begun, ApiError> {
    let Caller {
        principal,
        smith,
        thread,
    } = Caller::using(exchange, Use::Messages).await?;
    let body = exchange.body().await?;
    if let Some(smith_id) = smith {
        let body = readable(&body);
        return Box::pin(smith_turn(exchange, &principal, smith_id, thread, &body)).await;
    }
    let (model, stream) = named_model::<MessagesRequest>(&body)?;
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
    const FIELDS: Fields = FIELDS;

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

/// A turn, and what of its call the answer hangs on.
struct Answered {
    begun: SmithTurn,
    stream: bool,
    display: Display,
}

async fn smith_turn(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: Arc<str>,
    thread: Option<String>,
    body: &Bytes,
) -> Result<Begun, ApiError> {
    let decoded = decode(parse::<MessagesRequest>(body)?)?;
    Given::of(exchange, body, FIELDS)?.tell(exchange, Lost::default());
    let (stream, display) = (decoded.stream, decoded.display);
    let call = SmithCall {
        wire: WIRE,
        smith_id,
        thread,
        body,
        conversation: "messages",
        model: decoded.model.clone(),
        request: decoded.into_request(),
        stream,
        format_member: "output_config.format",
    };
    let begun = SmithTurn::begin(exchange, principal, call).await?;
    Ok(begun.map_or(Begun::ClientLeft, |begun| {
        Begun::Run(Box::new(Answered {
            begun,
            stream,
            display,
        }))
    }))
}

impl Answered {
    fn id(&self) -> String {
        format!("msg_{}", self.begun.id_body())
    }

    async fn stream(self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        let inner = StreamEncoder::new(&self.id(), &self.begun.model, self.display);
        let mut encoder = OneAnswerEncoder::new(self.begun.one_answer(), inner);
        let turn = self.begun.turn;
        exchange.start_stream(&[]).await?;
        turn.stream(exchange, &mut encoder, WIRE).await
    }

    async fn whole(self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        let (id, mut one_answer) = (self.id(), self.begun.one_answer());
        let (model, display) = (self.begun.model, self.display);
        match self.begun.turn.whole(exchange, &mut one_answer).await? {
            Ok(answer) => {
                let body = message(&id, &model, &answer, display).to_string();
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
