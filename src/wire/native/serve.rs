//! Native runs: `POST /v1/smiths/{id}/runs`, `POST …/{run}/replay` and `GET …/{run}/events`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::rest::RunOut;
use super::{WIRE, document};
use crate::auth::{Principal, Scope};
use crate::edge::idempotency::{self, Claim, Keyed};
use crate::edge::{Exchange, Gone, Route, parse, readable};
use crate::error::ApiError;
use crate::ids;
use crate::run::{Reader, RunRequest, Thread, run_out};
use crate::store::RunRow;
use crate::wire::native::{Encoder, RunIn, decode, write_duplicate};
use crate::wire::turn::{Followed, RunTurn, write_frames};

/// What the document says of what is answered natively here.
#[derive(OpenApi)]
#[openapi(paths(create, replay, events, super::hosted::chat))]
pub struct Operations;

/// What this wire answers.
pub fn routes() -> Vec<Route> {
    vec![
        Route::wire(Method::POST, "/v1/smiths/{id}/runs", |exchange, ids| {
            Box::pin(async move { create(exchange, ids[0]).await })
        })
        .begins_work(),
        Route::wire(
            Method::POST,
            "/v1/smiths/{id}/runs/{run}/replay",
            |exchange, ids| Box::pin(async move { replay(exchange, ids[0], ids[1]).await }),
        )
        .begins_work(),
        Route::wire(
            Method::GET,
            "/v1/smiths/{id}/runs/{run}/events",
            |exchange, ids| Box::pin(async move { events(exchange, ids[0], ids[1]).await }),
        ),
        super::hosted::route(),
    ]
}

/// Runs a turn of a smith: its record when it has ended, or the stream of its frames.
#[utoipa::path(post, path = "/v1/smiths/{id}/runs", tag = "runs",
    params(("id" = String, Path)), request_body = document::RunIn,
    responses((status = 200, content(
        (RunOut = "application/json"), (String = "text/event-stream")))))]
pub async fn create(exchange: &mut Exchange, smith_id: &str) -> Result<(), Gone> {
    // What only the beginning needs is not held while the answer streams.
    let begun = Box::pin(begin(exchange, smith_id)).await;
    answer(exchange, begun).await
}

/// Runs the same input again, as a fresh run on a fresh thread.
#[utoipa::path(post, path = "/v1/smiths/{id}/runs/{run}/replay", tag = "runs",
    params(("id" = String, Path), ("run" = String, Path)), request_body = document::ReplayIn,
    responses((status = 200, content(
        (RunOut = "application/json"), (String = "text/event-stream")))))]
pub async fn replay(exchange: &mut Exchange, smith_id: &str, run_id: &str) -> Result<(), Gone> {
    let begun = Box::pin(begin_replay(exchange, smith_id, run_id)).await;
    answer(exchange, begun).await
}

async fn answer(exchange: &mut Exchange, begun: Result<Begun, ApiError>) -> Result<(), Gone> {
    match begun {
        Ok(Begun::Stream(reader)) => {
            let mut encoder = encoder(&reader, None);
            exchange.start_stream(&[]).await?;
            let turn = RunTurn::new(reader);
            turn.stream(exchange, &mut encoder, WIRE).await
        }
        Ok(Begun::Duplicate(run_id)) => {
            let mut buf = BytesMut::new();
            write_duplicate(&run_id, &mut buf);
            exchange.start_stream(&[]).await?;
            exchange.write(buf.freeze()).await
        }
        Ok(Begun::Whole(body)) => exchange.respond_json(StatusCode::OK, body).await,
        Err(error) => exchange.respond_error(&error).await,
    }
}

enum Begun {
    Stream(Reader),
    /// An idempotent replay of a stream.
    Duplicate(String),
    Whole(Bytes),
}

async fn begin(exchange: &mut Exchange, smith_id: &str) -> Result<Begun, ApiError> {
    let principal = exchange.principal().await?;
    principal.require_smith(smith_id)?;
    principal.require(Scope::RunsWrite)?;
    let body = readable(&exchange.body().await?);
    let path = format!("runs/{smith_id}");
    start(exchange, &principal, smith_id, &path, &body).await
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReplayIn {
    stream: bool,
}

async fn begin_replay(
    exchange: &mut Exchange,
    smith_id: &str,
    run_id: &str,
) -> Result<Begun, ApiError> {
    let principal = exchange.principal().await?;
    principal.require_smith(smith_id)?;
    principal.require(Scope::RunsWrite)?;
    let body = readable(&exchange.body().await?);
    let asked = match body.trim_ascii().is_empty() {
        true => ReplayIn::default(),
        false => parse(&body)?,
    };
    let store = &exchange.gateway.store;
    let first = store
        .run(&principal.tenant_id, run_id)
        .await?
        .filter(|run| run.smith_id == smith_id)
        .ok_or_else(|| ApiError::not_found("run", run_id))?;
    let input: Value = serde_json::from_str(&first.input).map_err(ApiError::internal)?;
    // The smith's configuration of then is not recorded with the run.
    let metadata = json!({ "replay": { "of": run_id, "deterministic": false } });
    let again = json!({ "input": input, "stream": asked.stream, "metadata": metadata });
    let path = format!("runs/{smith_id}/{run_id}/replay");
    let again = Bytes::from(again.to_string());
    start(exchange, &principal, smith_id, &path, &again)
        .await
        .map_err(|error| match &*error.code {
            "invalid_input" | "invalid_request" => ApiError::bad_request(
                "replay_unsupported",
                "the input of this run came over a wire whose form can't be run again",
            ),
            _ => error,
        })
}

/// Starts the run that `body` asks for; `path` is what an idempotency key belongs to.
async fn start(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: &str,
    path: &str,
    body: &Bytes,
) -> Result<Begun, ApiError> {
    let key = idempotency::key_of(&exchange.request().headers)?.map(str::to_owned);
    let input = decode(parse::<RunIn>(body)?)?;
    let gateway = exchange.gateway.clone();
    crate::wire::files::check(&gateway, principal, &input.turns, body).await?;
    let run_id = ids::mint(ids::Kind::Run);
    let stream = input.stream;
    let permit = gateway
        .admission
        .begin_run(principal, Some(&smith_id.into()))?;
    let mut claim = None;
    if let Some(key) = key {
        let head = exchange.request();
        let keyed = Keyed {
            gateway: &gateway,
            principal,
            headers: &head.headers,
            method: &head.method,
            path,
            query: head.uri.query().unwrap_or_default(),
            key: &key,
        };
        match keyed.claim_run(body, &run_id).await? {
            Claim::Mine(mine) => claim = Some(mine),
            Claim::Earlier(_, first) => {
                exchange.is_replay = true;
                return match stream {
                    true => Ok(Begun::Duplicate(first)),
                    false => earlier(exchange, principal, &first).await,
                };
            }
        }
    }
    let request = RunRequest {
        run_id: run_id.clone(),
        thread: Thread::Kept(
            input
                .thread_id
                .unwrap_or_else(|| ids::mint(ids::Kind::Thread)),
        ),
        input: input.turns,
        input_record: input.record.to_string(),
        response_format: input.response_format,
        include_mask: input.include_mask,
        metadata: input.metadata,
        detached: true,
        ..RunRequest::of(principal, smith_id.into(), input.channel, permit)
    };
    let started = gateway.runs.start(request).await;
    if let Some(claim) = claim {
        match &started {
            // The key now stands for the run, whose record is the answer to give again.
            Ok(_) => claim.finish(StatusCode::OK, b"").await?,
            Err(_) => claim.abandon().await,
        }
    }
    let mut reader = started?.reader;
    if stream {
        return Ok(Begun::Stream(reader));
    }
    let mut frames = Vec::new();
    while reader.next(&mut frames).await {
        frames.clear();
    }
    whole(exchange, principal, &run_id).await
}

async fn whole(
    exchange: &Exchange,
    principal: &Principal,
    run_id: &str,
) -> Result<Begun, ApiError> {
    let run = exchange
        .gateway
        .store
        .run(&principal.tenant_id, run_id)
        .await?
        .ok_or_else(|| ApiError::not_found("run", run_id))?;
    Ok(Begun::Whole(run_out(&run).to_text().into()))
}

/// The record of the first run with this key, once it has ended.
async fn earlier(
    exchange: &Exchange,
    principal: &Principal,
    run_id: &str,
) -> Result<Begun, ApiError> {
    let run = exchange
        .gateway
        .store
        .run(&principal.tenant_id, run_id)
        .await?;
    match run {
        Some(run) if !run.is_under_way() => Ok(Begun::Whole(run_out(&run).to_text().into())),
        _ => Err(idempotency::in_progress()),
    }
}

/// Streams a run's frames: what is recorded, then live ones.
#[utoipa::path(get, path = "/v1/smiths/{id}/runs/{run}/events", tag = "runs",
    params(("id" = String, Path), ("run" = String, Path),
        ("follow" = Option<bool>, Query), ("after" = Option<i64>, Query, minimum = 0),
        ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub async fn events(exchange: &mut Exchange, smith_id: &str, run_id: &str) -> Result<(), Gone> {
    let found = match Box::pin(find(exchange, smith_id, run_id)).await {
        Ok(found) => found,
        Err(error) => return exchange.respond_error(&error).await,
    };
    exchange.start_stream(&[]).await?;
    let mut encoder = Encoder::new(&found.run.id, found.run.include_mask, found.after);
    match found.live {
        Some(mut reader) if !found.follow => {
            let mut frames = Vec::new();
            reader.take(&mut frames);
            write_frames(exchange, &frames, &mut encoder, WIRE).await
        }
        Some(reader) => {
            let followed = Followed::Live(reader);
            followed.stream(exchange, &mut encoder, WIRE).await
        }
        None => {
            let followed = Followed::Stored(Box::new(found.run), found.follow);
            followed.stream(exchange, &mut encoder, WIRE).await
        }
    }
}

struct Found {
    run: RunRow,
    live: Option<Reader>,
    follow: bool,
    after: Option<u64>,
}

async fn find(exchange: &mut Exchange, smith_id: &str, run_id: &str) -> Result<Found, ApiError> {
    let principal = exchange.principal().await?;
    principal.require_smith(smith_id)?;
    principal.require(Scope::RunsRead)?;
    let query = exchange.request().uri.query().unwrap_or_default();
    let mut follow = true;
    let mut after = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "follow" => match &*value {
                "true" | "1" | "" => follow = true,
                "false" | "0" => follow = false,
                _ => return Err(ApiError::invalid("follow", "must be true or false")),
            },
            "after" => {
                after =
                    Some(value.parse::<u64>().map_err(|_| {
                        ApiError::invalid("after", "must be the number of a frame")
                    })?);
            }
            _ => {}
        }
    }
    if let Some(last) = exchange.header("last-event-id").filter(|v| !v.is_empty()) {
        after =
            Some(last.parse::<u64>().map_err(|_| {
                ApiError::invalid("Last-Event-ID", "must be the number of a frame")
            })?);
    }
    let gateway = &exchange.gateway;
    // The live run is looked for first: a run that ends in between is in the store by then.
    let live = gateway.runs.live(&principal.tenant_id, run_id);
    let run = gateway
        .store
        .run(&principal.tenant_id, run_id)
        .await?
        .filter(|run| run.smith_id == smith_id)
        .ok_or_else(|| ApiError::not_found("run", run_id))?;
    let live = live.filter(|_| gateway.runs.has(&run));
    if live.is_none() {
        gateway.runs.check_frames(&run).await?;
    }
    Ok(Found {
        run,
        live: live.map(|live| live.reader()),
        follow,
        after,
    })
}

fn encoder(reader: &Reader, after: Option<u64>) -> Encoder {
    let run = reader.run();
    Encoder::new(&run.run_id, run.include_mask, after)
}
