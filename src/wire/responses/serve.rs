//! `POST /v1/responses`: a smith's turn, or model routing without a smith; and
//! `GET /v1/responses/{id}?stream=true`, which goes on with a stream.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::WIRE;
use super::fields::FIELDS;
use super::record::{Stored, answer_items};
use super::smith::{SmithTurn, Turned, smith_turn};
use crate::auth::{SMITH_HEADER, Scope, Use};
use crate::config::ProviderWire;
use crate::edge::{Exchange, Gone, Route, parse, readable};
use crate::error::ApiError;
use crate::ids;
use crate::model::{ModelRequest, Route as ModelRoute};
use crate::run::Collected;
use crate::store::now_seconds;
use crate::wire::caller::Caller;
use crate::wire::fields::Fields;
use crate::wire::forward::{Prepared, SameWire};
use crate::wire::openai::rewrite::named_model;
use crate::wire::openai::rewrite::rewrite;
use crate::wire::responses::gate::{usage_in, write_error};
use crate::wire::responses::items::Numbering;
use crate::wire::responses::tools::warnings;
use crate::wire::responses::{
    Head, ResponsesGate, ResponsesRequest, Status, StreamEncoder, body_of, decode,
};
use crate::wire::routed::{Call, ModelWire, Plan};
use crate::wire::turn::Followed;

static SAME_WIRE: SameWire = SameWire {
    wire: WIRE,
    provider_wire: ProviderWire::OpenaiResponses,
    path: |_, _| "/responses".into(),
    headers: &[
        "openai-organization",
        "openai-project",
        "openai-beta",
        "x-client-request-id",
    ],
    answer: "output",
    // A response may run in the background, or have no room for more than its reasoning.
    may_be_empty: true,
    instead: None,
    usage_of_answer: |body| usage_in(&serde_json::from_slice::<Value>(body).ok()?),
    gate: |limit, _| Box::new(ResponsesGate::new(limit)),
};

/// What the document says of what is answered natively here.
#[derive(OpenApi)]
#[openapi(paths(create))]
pub struct Operations;

/// What this wire answers.
pub fn routes() -> Vec<Route> {
    vec![
        Route::wire(Method::POST, "/v1/responses", |exchange, _| {
            Box::pin(create(exchange))
        })
        .begins_work(),
        Route::wire_if(
            Method::GET,
            "/v1/responses/{id}",
            wants_stream,
            |exchange, ids| Box::pin(async move { resume(exchange, ids[0]).await }),
        ),
    ]
}

/// Answers with OpenAI's Responses, streamed or not, of a smith or of a provider's model.
#[utoipa::path(post, path = "/v1/responses", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header), ("IC-Thread-Id" = Option<String>, Header)),
    request_body = Object,
    responses((status = 200, content(
        (Object = "application/json"), (String = "text/event-stream")))))]
pub async fn create(exchange: &mut Exchange) -> Result<(), Gone> {
    // What only the beginning needs is not held while the answer streams.
    match Box::pin(begin(exchange)).await {
        Ok(Begun::Run(run)) => Box::pin(run.answer(exchange)).await,
        Ok(Begun::Background(response)) => {
            let body = response.to_string();
            exchange.respond_json(StatusCode::OK, body.into()).await
        }
        Ok(Begun::Model(plan)) => plan.answer(exchange).await,
        Ok(Begun::ClientLeft) => Err(Gone),
        Err(error) => {
            let write = |error: &ApiError, buf: &mut BytesMut| write_error(error, 0, buf);
            exchange.fail(&error, write).await
        }
    }
}

/// What a call turned out to be.
enum Begun {
    Run(Box<SmithTurn>),
    Background(Value),
    Model(Plan<Responses>),
    ClientLeft,
}

async fn begin(exchange: &mut Exchange) -> Result<Begun, ApiError> {
    let Caller {
        principal,
        smith,
        thread,
    } = Caller::using(exchange, Use::Responses).await?;
    let body = exchange.body().await?;
    match smith {
        Some(smith_id) => {
            let body = readable(&body);
            let turned = smith_turn(exchange, &principal, smith_id, thread, &body).await?;
            Ok(match turned {
                Turned::Run(turn) => Begun::Run(turn),
                Turned::Background(response) => Begun::Background(response),
                Turned::ClientLeft => Begun::ClientLeft,
            })
        }
        None => {
            let (model, stream) = named_model::<ResponsesRequest>(&body)?;
            let call = Call {
                model,
                stream,
                has_thread: thread.is_some(),
                body: body.clone(),
            };
            Ok(Begun::Model(Plan::begin(exchange, &principal, call).await?))
        }
    }
}

// ---- without a smith ----

/// Responses of a provider's model.
struct Responses;

/// What of a call its answer repeats, or hangs on.
#[derive(Default)]
struct Asked {
    echo: Map<String, Value>,
    encrypted: bool,
}

impl Asked {
    /// How an answer by `model` begins.
    fn begin(mut self, model: &str) -> (Head, Numbering, bool) {
        self.echo.insert("model".into(), json!(model));
        // What is not kept cannot be read again.
        self.echo.insert("store".into(), json!(false));
        let run_id = ids::mint(ids::Kind::Run);
        let body = ids::body(ids::Kind::Run, &run_id).unwrap_or(&run_id);
        let numbering = Numbering::new(body).with_tools(self.echo.get("tools"));
        let head = Head {
            id: format!("resp_{body}"),
            created_at: now_seconds(),
            echo: self.echo,
        };
        (head, numbering, self.encrypted)
    }
}

impl ModelWire for Responses {
    type Asked = Asked;
    type Encoder = StreamEncoder;
    const SAME_WIRE: &'static SameWire = &SAME_WIRE;
    const FIELDS: Fields = FIELDS;

    fn is_same(route: &ModelRoute) -> bool {
        route.responses
    }

    fn prepare(body: &Bytes, route: &ModelRoute, _stream: bool) -> Result<Prepared, ApiError> {
        Ok(Prepared {
            body: rewrite(body, &route.model, false)?.body,
            hide_usage: false,
        })
    }

    fn passed_on(body: &Bytes) -> Asked {
        let decoded = parse::<ResponsesRequest>(body).and_then(decode);
        let asked = decoded.map(|decoded| Asked {
            echo: decoded.echo,
            encrypted: decoded.encrypted,
        });
        asked.unwrap_or_default()
    }

    fn read(body: &Bytes) -> Result<(ModelRequest, Asked), ApiError> {
        let mut decoded = decode(parse::<ResponsesRequest>(body)?)?;
        if decoded.background {
            return Err(ApiError::bad_request(
                "unsupported_background",
                "only a smith's response runs in the background",
            )
            .param("background"));
        }
        if decoded.conversation.is_some() || decoded.previous_response_id.is_some() {
            return Err(ApiError::bad_request(
                "smith_required",
                "without a smith nothing is kept that a response could continue",
            ));
        }
        if !decoded.mounts.is_empty() {
            return Err(ApiError::bad_request(
                "smith_required",
                "tools of type 'mcp' and 'file_search' are run in a smith's turn: name the smith \
                 with IC-Smith-Id",
            )
            .param("tools"));
        }
        let mut echo = std::mem::take(&mut decoded.echo);
        let warnings = warnings(&decoded.left_out);
        if !warnings.is_empty() {
            echo.insert("warnings".into(), Value::Array(warnings));
        }
        let encrypted = decoded.encrypted;
        Ok((decoded.into_request()?, Asked { echo, encrypted }))
    }

    fn encoder(asked: Asked, model: &str) -> StreamEncoder {
        let (head, numbering, encrypted) = asked.begin(model);
        StreamEncoder::new(head, numbering, encrypted, None)
    }

    fn whole(asked: Asked, model: &str, answer: Collected) -> Bytes {
        let (head, mut numbering, encrypted) = asked.begin(model);
        let status = Status::Ended(answer.stop, answer.usage);
        let items = numbering.items(&[answer.into_turn()]);
        let output = answer_items(items, encrypted);
        head.response(&status, output).to_string().into()
    }
}

// ---- a stream that goes on ----

/// Whether a `GET` asks for the stream of a response.
pub fn wants_stream(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "stream" && matches!(&*value, "true" | "1"))
}

/// Serves `GET /v1/responses/{id}?stream=true&starting_after=N`.
pub async fn resume(exchange: &mut Exchange, id: &str) -> Result<(), Gone> {
    match Box::pin(find(exchange, id)).await {
        Ok((followed, mut encoder)) => {
            exchange.start_stream(&[]).await?;
            followed.stream(exchange, &mut encoder, WIRE).await
        }
        Err(error) => exchange.respond_error(&error).await,
    }
}

async fn find(exchange: &mut Exchange, id: &str) -> Result<(Followed, StreamEncoder), ApiError> {
    let principal = exchange.principal().await?;
    principal.require(Scope::RunsRead)?;
    let named = exchange.header(SMITH_HEADER).map(str::to_owned);
    let query = exchange.request().uri.query().unwrap_or_default();
    let mut after = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name == "starting_after" && !value.is_empty() {
            let number = value.parse::<u64>();
            let bad = |_| ApiError::invalid("starting_after", "must be the number of an event");
            after = Some(number.map_err(bad)?);
        }
    }
    let gateway = exchange.gateway.clone();
    let run_id = body_of(id).map(|body| format!("run_{body}"));
    // The live run is looked for first: a run that ends in between is in the store by then.
    let live = run_id.and_then(|id| Followed::live(&gateway, &principal.tenant_id, &id));
    let stored = Stored::find(&gateway, &principal, named.as_deref(), id).await?;
    let mut encoder = StreamEncoder::new(
        stored.head(),
        stored.answer_numbering(),
        stored.record.encrypted,
        after,
    )
    .with_listed(stored.record.listed.clone());
    if stored.has_own_tools() {
        encoder = encoder.with_own_tools(&stored.run.id);
    }
    let live = live.filter(|_| gateway.runs.has(&stored.run));
    if live.is_none() {
        gateway.runs.check_frames(&stored.run).await?;
    }
    let followed = live.unwrap_or_else(|| Followed::Stored(Box::new(stored.run), true));
    Ok((followed, encoder))
}
