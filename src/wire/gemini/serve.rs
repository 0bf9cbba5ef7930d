//! `generateContent` and `streamGenerateContent`: a smith's turn, or model routing without a smith
//! (bytes passed on where client and provider speak the same wire, translated otherwise).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes as documented_routes;

use super::count::{__path_count_content_tokens, count_content_tokens};
use super::errors::{DIALECT, GeminiErrorOut, LISTED, write_event, write_item};
use super::fields::FIELDS;
use super::forward::{EVENTS, LIST, WIRE, is_same, prepared};
use super::generation::GenerationConfig;
use super::models::{__path_list_gemini_models, __path_one, list_gemini_models};
use super::{Form, GeminiRequest, OWN, StreamEncoder, decode, response};
use crate::auth::{Principal, Use};
use crate::edge::{AppState, Exchange, Gone, Ids, Route, parse, readable};
use crate::error::ApiError;
use crate::ids;
use crate::model::{Lost, ModelRequest, Route as ModelRoute, percent_decoded};
use crate::run::Collected;
use crate::wire::OneAnswerEncoder;
use crate::wire::caller::Caller;
use crate::wire::fields::{Fields, Given};
use crate::wire::forward::{Prepared, SameWire};
use crate::wire::routed::{Call, ModelWire, Plan};
use crate::wire::smith::{SmithCall, SmithTurn};

/// What the document says of what is answered natively here.
#[derive(OpenApi)]
#[openapi(paths(generate_content, stream_generate_content, count_content_tokens, one))]
pub struct Operations;

/// Its operations in the document; those that ask a model are served natively, and the id of a model may
/// hold slashes, which a documented path cannot say.
pub fn documented() -> OpenApiRouter<AppState> {
    let mut document = Operations::openapi();
    // The same, by the name of Google's stable version.
    for (path, item) in document.paths.paths.clone() {
        if item.post.is_some() {
            let path = path.replacen("/v1beta/", "/v1/", 1);
            document.paths.paths.insert(path, item);
        }
    }
    OpenApiRouter::with_openapi(document).routes(documented_routes!(list_gemini_models))
}

/// What this wire answers.
pub fn routes() -> Vec<Route> {
    vec![
        asking("/v1beta/{*id}:generateContent", whole),
        asking("/v1/models/{*id}:generateContent", whole),
        asking("/v1beta/{*id}:streamGenerateContent", streamed),
        asking("/v1/models/{*id}:streamGenerateContent", streamed),
        asking("/v1beta/{*id}:countTokens", counted),
        asking("/v1/models/{*id}:countTokens", counted),
        Route::rest(Method::GET, "/v1beta/models").speaks(&DIALECT),
        Route::rest(Method::GET, "/v1beta/models/{*id}").speaks(&DIALECT),
    ]
}

fn asking(pattern: &'static str, serve: crate::edge::Serve) -> Route {
    Route::wire(Method::POST, pattern, serve)
        .begins_work()
        .speaks(&DIALECT)
}

/// The model that a path names. Clients put `models/` before it, or leave that to the caller.
fn named(ids: &Ids<'_>) -> String {
    let name = percent_decoded(ids.first().copied().unwrap_or_default());
    let name = String::from_utf8_lossy(&name);
    name.strip_prefix("models/").unwrap_or(&name).to_owned()
}

fn whole<'a>(exchange: &'a mut Exchange, ids: Ids<'a>) -> Answering<'a> {
    Box::pin(generate_content(exchange, named(&ids)))
}

fn streamed<'a>(exchange: &'a mut Exchange, ids: Ids<'a>) -> Answering<'a> {
    Box::pin(stream_generate_content(exchange, named(&ids)))
}

fn counted<'a>(exchange: &'a mut Exchange, ids: Ids<'a>) -> Answering<'a> {
    Box::pin(count_content_tokens(exchange, named(&ids)))
}

type Answering<'a> = futures_util::future::BoxFuture<'a, Result<(), Gone>>;

/// Answers as Gemini does, in one piece. With a smith (its token, or `IC-Smith-Id`) it is the smith's
/// turn, and the model `smith` is its own; without one, `model` is a provider's. A token may come in
/// `x-goog-api-key` or as `key`; errors have Google's shape.
#[utoipa::path(post, path = "/v1beta/models/{model}:generateContent", tag = "wires",
    params(("model" = String, Path), ("IC-Smith-Id" = Option<String>, Header),
        ("IC-Thread-Id" = Option<String>, Header), ("key" = Option<String>, Query)),
    request_body = Object,
    responses((status = 200, body = Object),
        (status = "default", description = "An error, in Google's envelope",
            body = GeminiErrorOut)))]
pub async fn generate_content(exchange: &mut Exchange, model: String) -> Result<(), Gone> {
    serve(exchange, model, None).await
}

/// The same as a stream: of events with `alt=sse`, else a list whose items come one by one.
#[utoipa::path(post, path = "/v1beta/models/{model}:streamGenerateContent", tag = "wires",
    params(("model" = String, Path), ("IC-Smith-Id" = Option<String>, Header),
        ("IC-Thread-Id" = Option<String>, Header), ("alt" = Option<String>, Query),
        ("key" = Option<String>, Query)),
    request_body = Object,
    responses((status = 200, content(
        (String = "text/event-stream"), (Object = "application/json"))),
        (status = "default", description = "An error, in Google's envelope",
            body = GeminiErrorOut)))]
pub async fn stream_generate_content(exchange: &mut Exchange, model: String) -> Result<(), Gone> {
    let alt = exchange.parameter("alt");
    let alt = alt.or_else(|| exchange.parameter("$alt"));
    let form = match alt.as_deref() {
        Some("sse") => Form::Events,
        _ => Form::List,
    };
    if form == Form::List {
        exchange.speak(&LISTED);
    }
    serve(exchange, model, Some(form)).await
}

/// `form`: that of a stream.
async fn serve(exchange: &mut Exchange, model: String, form: Option<Form>) -> Result<(), Gone> {
    // What only the beginning needs is not held while the answer streams.
    match Box::pin(begin(exchange, model, form)).await {
        Ok(Begun::Run(run)) => match run.form {
            Some(form) => Box::pin(run.stream(exchange, form)).await,
            None => Box::pin(run.whole(exchange)).await,
        },
        Ok(Begun::Events(plan)) => plan.answer(exchange).await,
        Ok(Begun::List(plan)) => plan.answer(exchange).await,
        Ok(Begun::ClientLeft) => Err(Gone),
        Err(error) => {
            let write = match form {
                Some(Form::List) => write_item,
                _ => write_event,
            };
            exchange.fail(&error, write).await
        }
    }
}

/// What a call turned out to be.
enum Begun {
    Run(Box<Answered>),
    Events(Plan<Generate<false>>),
    List(Plan<Generate<true>>),
    ClientLeft,
}

async fn begin(
    exchange: &mut Exchange,
    model: String,
    form: Option<Form>,
) -> Result<Begun, ApiError> {
    let Caller {
        principal,
        smith,
        thread,
    } = Caller::using(exchange, Use::GenerateContent).await?;
    let body = exchange.body().await?;
    if let Some(smith_id) = smith {
        let asked = Asked {
            smith_id,
            thread,
            model: Some(model).filter(|model| model != OWN),
            form,
        };
        let body = readable(&body);
        return Box::pin(smith_turn(exchange, &principal, asked, &body)).await;
    }
    let call = Call {
        model,
        stream: form.is_some(),
        has_thread: thread.is_some(),
        body,
    };
    Ok(match form {
        Some(Form::List) => Begun::List(Plan::begin(exchange, &principal, call).await?),
        _ => Begun::Events(Plan::begin(exchange, &principal, call).await?),
    })
}

// ---- without a smith ----

/// Content of a provider's model. `LIST`: a stream of it is one.
struct Generate<const LIST: bool>;

impl<const LIST: bool> ModelWire for Generate<LIST> {
    /// Whether thoughts are shown.
    type Asked = bool;
    type Encoder = StreamEncoder;
    const FIELDS: Fields = FIELDS;
    const SAME_WIRE: &'static SameWire = if LIST { &self::LIST } else { &EVENTS };

    fn is_same(route: &ModelRoute) -> bool {
        is_same(route)
    }

    fn prepare(body: &Bytes, _route: &ModelRoute, _stream: bool) -> Result<Prepared, ApiError> {
        Ok(Prepared {
            body: prepared(body)?,
            hide_usage: false,
        })
    }

    fn passed_on(body: &Bytes) -> bool {
        #[derive(Deserialize)]
        struct Probe {
            #[serde(rename = "generationConfig", alias = "generation_config")]
            config: GenerationConfig,
        }
        let probe = serde_json::from_slice::<Probe>(body);
        probe.is_ok_and(|probe| probe.config.shows_thoughts())
    }

    fn read(body: &Bytes) -> Result<(ModelRequest, bool), ApiError> {
        let decoded = decode(parse::<GeminiRequest>(body)?)?;
        Ok((decoded.request, decoded.shows_thoughts))
    }

    fn encoder(shows_thoughts: bool, model: &str) -> StreamEncoder {
        let form = if LIST { Form::List } else { Form::Events };
        StreamEncoder::new(&ids::mint_request_id(), model, shows_thoughts, form)
    }

    fn whole(shows_thoughts: bool, model: &str, answer: Collected) -> Bytes {
        let id = ids::mint_request_id();
        let response = response(&id, model, &answer, shows_thoughts);
        response.to_string().into()
    }
}

// ---- a smith's turn ----

/// What of a call its body does not tell.
struct Asked {
    smith_id: Arc<str>,
    thread: Option<String>,
    model: Option<String>,
    form: Option<Form>,
}

/// A turn, and what of its call the answer hangs on.
struct Answered {
    begun: SmithTurn,
    form: Option<Form>,
    shows_thoughts: bool,
}

async fn smith_turn(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    asked: Asked,
    body: &Bytes,
) -> Result<Begun, ApiError> {
    let decoded = decode(parse::<GeminiRequest>(body)?)?;
    Given::of(exchange, body, FIELDS)?.tell(exchange, Lost::default());
    let (form, shows_thoughts) = (asked.form, decoded.shows_thoughts);
    let call = SmithCall {
        wire: WIRE,
        smith_id: asked.smith_id,
        thread: asked.thread,
        body,
        conversation: "contents",
        model: asked.model,
        request: decoded.request,
        stream: form.is_some(),
        format_member: "generationConfig.responseSchema",
    };
    let begun = SmithTurn::begin(exchange, principal, call).await?;
    Ok(begun.map_or(Begun::ClientLeft, |begun| {
        Begun::Run(Box::new(Answered {
            begun,
            form,
            shows_thoughts,
        }))
    }))
}

impl Answered {
    async fn stream(self: Box<Self>, exchange: &mut Exchange, form: Form) -> Result<(), Gone> {
        let (id, model) = (self.begun.id_body(), &self.begun.model);
        let inner = StreamEncoder::new(id, model, self.shows_thoughts, form);
        let mut encoder = OneAnswerEncoder::new(self.begun.one_answer(), inner);
        let turn = self.begun.turn;
        exchange.start_stream(&[]).await?;
        turn.stream(exchange, &mut encoder, WIRE).await
    }

    async fn whole(self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        let id = self.begun.id_body().to_owned();
        let mut one_answer = self.begun.one_answer();
        let (model, shows_thoughts) = (self.begun.model, self.shows_thoughts);
        match self.begun.turn.whole(exchange, &mut one_answer).await? {
            Ok(answer) => {
                let body = response(&id, &model, &answer, shows_thoughts).to_string();
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
        fn size<'a, F: Future>(_: fn(&'a mut Exchange, String) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let size = size(stream_generate_content);
        assert!(size <= 6 * 1024, "{size} bytes");
    }

    #[test]
    fn models_are_named_by_paths() {
        for route in routes().iter().filter(|route| route.method == Method::POST) {
            let verb = route.pattern.rsplit(':').next().unwrap_or_default();
            let path = match route.pattern.starts_with("/v1/") {
                true => format!("/v1/models/openai/gpt%2D5.5:{verb}"),
                false => format!("/v1beta/models/openai%2Fgpt-5.5:{verb}"),
            };
            let ids = route.ids(&path).expect("of this route");
            assert_eq!(named(&ids), "openai/gpt-5.5", "{path}");
            assert!(route.ids("/v1/models/openai/gpt-5.5").is_none());
        }
        let bare = routes()[0]
            .ids("/v1beta/a:b:generateContent")
            .map(|ids| named(&ids));
        assert_eq!(bare.as_deref(), Some("a:b"));
    }
}
