//! `POST /v1/ui/chat` and `GET /v1/ui/chat/{id}/stream`: what the AI SDK's `useChat` talks to, from
//! a browser and with a smith's own token.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::auth::{Principal, Scope};
use crate::edge::{AppState, Exchange, Gone, Route, parse, readable};
use crate::error::ApiError;
use crate::ids;
use crate::run::{RunRequest, Thread, Word};
use crate::wire::caller::Caller;
use crate::wire::decision;
use crate::wire::keyed::Key;
use crate::wire::turn::{Followed, RunTurn, check_thread_id};
use crate::wire::ui::encode::write_error;
use crate::wire::ui::head::{WIRE, encoder, headers};
use crate::wire::ui::{DecodedUiChat, UiRequest, decode};

/// The messages as the run's record shows them.
fn input_record(body: &[u8]) -> Value {
    let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
    let messages = body["messages"].as_array_mut();
    let shown = |message: &mut Value| json!({ "role": message["role"].take(), "content": message["parts"].take() });
    messages.into_iter().flatten().map(shown).collect()
}

/// An error that names a part as this wire does.
fn as_parts(error: ApiError) -> ApiError {
    let param = error.param.as_ref();
    match param.map(|param| param.replacen(".content[", ".parts[", 1)) {
        Some(param) => error.param(param),
        None => error,
    }
}

/// What the AI SDK's `DefaultChatTransport` posts.
#[derive(Debug, Serialize, ToSchema)]
#[allow(
    dead_code,
    reason = "documents what `decode` takes, which is more lenient"
)]
struct UiChatIn {
    /// The chat's id.
    id: String,
    /// The whole conversation: `UIMessage`s.
    messages: Vec<serde_json::Map<String, serde_json::Value>>,
    trigger: Option<String>,
    /// Overrides the smith's model.
    model: Option<String>,
}

/// What the document says of what is answered natively here.
#[derive(OpenApi)]
#[openapi(paths(create, resume, super::page::follow))]
pub struct Operations;

/// Its operations in the document; its routes are served natively.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Operations::openapi())
}

/// What this wire answers.
pub fn routes() -> Vec<Route> {
    vec![
        Route::wire(Method::POST, "/v1/ui/chat", |exchange, _| {
            Box::pin(create(exchange))
        })
        .begins_work(),
        Route::wire(Method::GET, "/v1/ui/chat/{id}/stream", |exchange, ids| {
            Box::pin(async move { resume(exchange, ids[0]).await })
        }),
        super::page::route(),
    ]
}

/// Answers a chat of the AI SDK's `useChat` with its UI message stream.
#[utoipa::path(post, path = "/v1/ui/chat", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header), ("IC-Thread-Id" = Option<String>, Header)),
    request_body = UiChatIn,
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub async fn create(exchange: &mut Exchange) -> Result<(), Gone> {
    // What only the beginning needs is not held while the answer streams.
    match Box::pin(begin(exchange)).await {
        Ok(Some((turn, denied))) => {
            let mut encoder = encoder(&turn.run().run_id);
            exchange.start_stream(&headers()).await?;
            if let Some(denied) = denied {
                let mut buf = BytesMut::new();
                encoder.going_on(&turn.run().thread_id, &denied, &mut buf);
                exchange.write(buf.freeze()).await?;
            }
            turn.stream(exchange, &mut encoder, WIRE).await
        }
        Ok(None) => Err(Gone),
        Err(error) => exchange.fail(&error, write_error).await,
    }
}

/// The turn, and for one that goes on with a run that waited, the calls that will never run.
async fn begin(
    exchange: &mut Exchange,
) -> Result<Option<(RunTurn, Option<Vec<String>>)>, ApiError> {
    let caller = Caller::of(exchange, Scope::RunsWrite).await?;
    let smith_id = caller.smith_id()?;
    let (principal, kept) = (caller.principal, caller.thread);
    if let Some(thread) = &kept {
        check_thread_id(thread)?;
    }
    let body = readable(&exchange.body().await?);
    let decoded = decode(parse::<UiRequest>(&body)?)?;
    if let Some((run_id, _)) = decoded.decisions.first() {
        let run_id = run_id.clone();
        let of_run = decoded
            .decisions
            .into_iter()
            .filter(|(run, _)| *run == run_id);
        let words: Vec<Word> = of_run.map(|(_, word)| word).collect();
        // One rejection ends the run, and what was approved beside it is not run either.
        let denied = match words.iter().any(|word| !word.approve) {
            true => words
                .iter()
                .filter_map(|word| word.tool_call_id.clone())
                .collect(),
            false => Vec::new(),
        };
        let asked = decision::Asked {
            run_id: &run_id,
            words,
            places: [0, 0],
            body: &body,
        };
        let decided = decision::decide(exchange, &principal, &smith_id, asked).await?;
        return Ok(Some((decided.turn, Some(denied))));
    }
    let run_id = ids::mint(ids::Kind::Run);
    let mine = match Key::claim(exchange, &principal, &body, &run_id, false).await? {
        Key::New(mine) => mine,
        Key::Again(again) => return Ok(Some((again.turn(), None))),
    };
    let begun = new_turn(exchange, &principal, smith_id, run_id, kept, decoded, &body);
    let begun = Key::settle(mine, Box::pin(begun).await).await?;
    Ok(begun.map(|turn| (turn, None)))
}

async fn new_turn(
    exchange: &mut Exchange,
    principal: &Principal,
    smith_id: Arc<str>,
    run_id: String,
    kept: Option<String>,
    decoded: DecodedUiChat,
    body: &Bytes,
) -> Result<Option<RunTurn>, ApiError> {
    crate::wire::files::check(&exchange.gateway, principal, &decoded.turns, body).await?;
    let mut turns = decoded.turns;
    // With a thread the history is here, and only the newest words count.
    let thread = match kept {
        Some(thread) => {
            let asked = turns
                .iter()
                .rposition(|turn| turn.role == crate::model::Role::User);
            turns.drain(..asked.unwrap_or(0));
            Thread::Kept(thread)
        }
        None => Thread::Stateless(Some(decoded.chat_id)),
    };
    let gateway = exchange.gateway.clone();
    let permit = gateway.admission.begin_run(principal, Some(&smith_id))?;
    let started = gateway
        .runs
        .start(RunRequest {
            run_id,
            thread,
            input: turns,
            input_record: input_record(body).to_string(),
            input_member: "messages",
            extra_instructions: decoded.system,
            model: decoded.model,
            // A page that is loaded again comes back for the rest.
            detached: true,
            ..RunRequest::of(principal, smith_id, WIRE, permit)
        })
        .await
        .map_err(as_parts)?;
    let turn = RunTurn::new(started.reader);
    turn.begun(exchange, true, &headers()).await
}

/// Goes on with the answer to a chat, from its first part; 204 when none is under way.
#[utoipa::path(get, path = "/v1/ui/chat/{id}/stream", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 204, description = "Nothing is under way")))]
pub async fn resume(exchange: &mut Exchange, chat: &str) -> Result<(), Gone> {
    match find(exchange, chat).await {
        Ok(Some((run_id, followed))) => {
            let mut encoder = encoder(&run_id);
            exchange.start_stream(&headers()).await?;
            followed.stream(exchange, &mut encoder, WIRE).await
        }
        Ok(None) => {
            let none = Bytes::new();
            exchange.respond(StatusCode::NO_CONTENT, &[], none).await
        }
        Err(error) => exchange.respond_error(&error).await,
    }
}

async fn find(exchange: &mut Exchange, chat: &str) -> Result<Option<(String, Followed)>, ApiError> {
    let caller = Caller::of(exchange, Scope::RunsRead).await?;
    let smith_id = caller.smith_id()?;
    let (principal, kept) = (caller.principal, caller.thread);
    let chat = url::form_urlencoded::parse(format!("id={}", chat.replace('+', "%2B")).as_bytes())
        .next()
        .map(|(_, chat)| chat.into_owned());
    let thread = kept.or(chat).unwrap_or_default();
    let gateway = exchange.gateway.clone();
    let run = gateway
        .store
        .running_in_thread(&principal.tenant_id, &smith_id, &thread)
        .await?;
    Ok(run.map(|run| {
        let live = Followed::live(&gateway, &principal.tenant_id, &run.id);
        let live = live.filter(|_| gateway.runs.has(&run));
        (
            run.id.clone(),
            live.unwrap_or_else(|| Followed::Stored(Box::new(run), true)),
        )
    }))
}
