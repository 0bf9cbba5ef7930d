//! The bridge from a Pingora session to the axum router: right for REST calls, too slow for wires.

use std::pin::pin;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tower::Service;

use super::exchange::{BEARER, Exchange, Extra, Gone, SMALL_REQUEST, bad_coding};
use super::marks::{RoutePattern, Streamed};
use super::route::Routes;
use crate::coding::Unpacker;
use crate::error::ApiError;

/// Answers of REST calls are gathered up to this size, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How soon a stream that is silent notices that this node goes down.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// Pieces of a body that are on their way to the handler.
const PIECES_AHEAD: usize = 4;
/// What an upload takes of memory, whatever its length.
const UPLOAD_BYTES: usize = 2 * 1024 * 1024;

/// Serves a request through the router. `is_upload`: the body is passed on as it arrives.
pub async fn serve(exchange: &mut Exchange, routes: &Routes, is_upload: bool) -> Result<(), Gone> {
    exchange.route = "rest";
    let answered = match is_upload {
        true => upload(exchange, routes).await,
        false => call(exchange, routes).await,
    };
    match answered {
        Ok(answer) => respond(exchange, answer).await,
        Err(error) if error.status == StatusCode::UNAUTHORIZED => {
            let challenge = challenge(exchange, routes);
            exchange.respond_challenge(&error, challenge).await
        }
        Err(error) => exchange.respond_error(&error).await,
    }
}

/// How a caller without a token gets one: MCP hosts are told where (RFC 9728 5.1).
fn challenge(exchange: &Exchange, routes: &Routes) -> HeaderValue {
    let head = exchange.request();
    let mut headers = head.headers.clone();
    exchange.settle_origin(&mut headers);
    let metadata = (routes.metadata)(&exchange.gateway, head.uri.path(), &headers);
    let challenge = metadata.map(|url| format!("Bearer resource_metadata=\"{url}\""));
    challenge
        .and_then(|challenge| HeaderValue::try_from(challenge).ok())
        .unwrap_or(BEARER)
}

async fn call(exchange: &mut Exchange, routes: &Routes) -> Result<http::Response<Body>, ApiError> {
    let (mut request, limit) = head(exchange, routes).await?;
    let body: Bytes = match takes_body(request.method()) {
        true => exchange.body_within(limit).await?,
        false => Bytes::new(),
    };
    *request.body_mut() = Body::from(body);
    let Ok(answer) = routes.router.clone().call(request).await;
    Ok(answer)
}

async fn upload(
    exchange: &mut Exchange,
    routes: &Routes,
) -> Result<http::Response<Body>, ApiError> {
    let (mut request, _) = head(exchange, routes).await?;
    let limit = exchange.gateway.config.limits.max_file_bytes;
    let unpacker = exchange.unpacker()?;
    let patience = Duration::from_secs(exchange.gateway.config.server.body_timeout_s);
    exchange.hold(UPLOAD_BYTES).await?;
    exchange.begin_body(limit).await?;
    let (pieces, inbox) = mpsc::channel::<Result<Bytes, std::io::Error>>(PIECES_AHEAD);
    let body = stream::unfold(inbox, |mut inbox| async move {
        inbox.recv().await.map(|piece| (piece, inbox))
    });
    *request.body_mut() = Body::from_stream(body);
    let mut router = routes.router.clone();
    let mut call = pin!(router.call(request));
    let mut feed = pin!(feed(exchange, pieces, limit, patience, unpacker));
    let mut fed = None;
    loop {
        tokio::select! {
            biased;
            answer = &mut call => {
                return match fed {
                    // What the client did wrong says more than what the handler made of it.
                    Some(Err(error)) => Err(error),
                    _ => {
                        let Ok(answer) = answer;
                        Ok(answer)
                    }
                };
            }
            done = &mut feed, if fed.is_none() => fed = Some(done),
        }
    }
}

async fn feed(
    exchange: &mut Exchange,
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    limit: usize,
    patience: Duration,
    mut unpacker: Option<Unpacker>,
) -> Result<(), ApiError> {
    let (mut received, mut unpacked) = (0, 0);
    let begun = Instant::now();
    let rate = exchange.gateway.config.server.min_upload_rate.max(1);
    let fed = loop {
        // Slow as a whole is too slow, too: no upload lasts for ever.
        let due = patience + Duration::from_secs(received as u64 / rate);
        let left = due.saturating_sub(begun.elapsed());
        let piece = match exchange.body_piece(patience.min(left)).await {
            Ok(Some(piece)) => piece,
            Ok(None) => match unpacker.is_some_and(|unpacker| !unpacker.is_ended()) {
                true => {
                    break Err(ApiError::bad_request(
                        "invalid_request",
                        "the body is cut off",
                    ));
                }
                false => return Ok(()),
            },
            Err(error) => break Err(error),
        };
        received += piece.len();
        if received > limit {
            break Err(ApiError::too_large(limit));
        }
        let Some(unpacker) = &mut unpacker else {
            if pieces.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
            continue;
        };
        unpacker.push(piece);
        let passed = pass_unpacked(unpacker, &pieces, &mut unpacked, limit);
        match Box::pin(passed).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = &fed {
        let told = std::io::Error::other(error.message.to_string());
        let _ = pieces.send(Err(told)).await;
    }
    fed
}

/// Passes on what has come out; `false` when nobody takes it any more.
async fn pass_unpacked(
    unpacker: &mut Unpacker,
    pieces: &mpsc::Sender<Result<Bytes, std::io::Error>>,
    unpacked: &mut usize,
    limit: usize,
) -> Result<bool, ApiError> {
    loop {
        let mut out = BytesMut::new();
        if !unpacker
            .pull(&mut out)
            .map_err(|error| bad_coding(&error))?
        {
            return Ok(true);
        }
        *unpacked += out.len();
        if *unpacked > limit {
            return Err(ApiError::too_large(limit));
        }
        if pieces.send(Ok(out.freeze())).await.is_err() {
            return Ok(false);
        }
    }
}

/// Passes a body on piece by piece, for as long as the client is there. What a client only listens
/// to ends when this node goes down.
async fn pass_on(exchange: &mut Exchange, body: Body) -> Result<(), Gone> {
    let gateway = exchange.gateway.clone();
    let listens = exchange.request().method == Method::GET;
    let mut pieces = body.into_data_stream();
    loop {
        let piece = tokio::select! {
            biased;
            piece = futures_util::StreamExt::next(&mut pieces) => piece,
            () = exchange.client_gone() => return Err(Gone),
            () = tokio::time::sleep(LOOK_AROUND) => match listens && gateway.is_draining() {
                true => None,
                false => continue,
            },
        };
        match piece {
            Some(Ok(piece)) => exchange.write(piece).await?,
            Some(Err(error)) => {
                tracing::error!(%error, "an answer was cut short");
                return Err(Gone);
            }
            None => return Ok(()),
        }
    }
}

async fn respond(exchange: &mut Exchange, answer: http::Response<Body>) -> Result<(), Gone> {
    let (parts, body) = answer.into_parts();
    if let Some(route) = parts.extensions.get::<RoutePattern>() {
        exchange.route = route.0;
    }
    let streamed = parts.extensions.get::<Streamed>().is_some();
    let mut extra: Vec<Extra> = Vec::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        if streamed || name != http::header::CONTENT_LENGTH {
            extra.push((name.clone(), value.clone()));
        }
    }
    if streamed {
        if !exchange.start_body(parts.status, &extra).await? {
            return Ok(());
        }
        return pass_on(exchange, body).await;
    }
    if let Some(error) = parts.extensions.get::<ApiError>() {
        // Of the router, which knows no dialects.
        let (status, body) = exchange.told(error);
        return exchange.respond(status, &extra, body).await;
    }
    let body = match http_body_util::Limited::new(body, MAX_ANSWER)
        .collect()
        .await
    {
        Ok(collected) => collected.to_bytes(),
        Err(error) => return exchange.respond_error(&ApiError::internal(error)).await,
    };
    exchange.respond(parts.status, &extra, body).await
}

/// Whether requests of this method have a body.
pub fn takes_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// The request without its body, its caller verified, and how large its body may be. Who calls and
/// what they may do is checked before the body is read.
async fn head(
    exchange: &mut Exchange,
    routes: &Routes,
) -> Result<(http::Request<Body>, usize), ApiError> {
    let path = exchange.request().uri.path();
    let open = routes.is_open(path);
    let mut limit = SMALL_REQUEST;
    let principal = match open {
        true => None,
        false => Some(exchange.principal().await?),
    };
    let head = exchange.request();
    if let Some(principal) = &principal
        && takes_body(&head.method)
        && let Some(need) = (routes.need)(&head.method, head.uri.path())
    {
        need.check(principal)?;
        limit = exchange.gateway.config.server.max_body_bytes;
    }
    let mut request = http::Request::builder()
        .method(head.method.clone())
        .uri(head.uri.clone())
        .body(Body::empty())
        .map_err(|e| ApiError::bad_request("invalid_request", e.to_string()))?;
    request.headers_mut().clone_from(&head.headers);
    // The handler gets the body as it was before it was packed.
    if request
        .headers_mut()
        .remove(http::header::CONTENT_ENCODING)
        .is_some()
    {
        request.headers_mut().remove(http::header::CONTENT_LENGTH);
    }
    exchange.settle_origin(request.headers_mut());
    if let Some(principal) = principal {
        request.extensions_mut().insert(principal);
    }
    Ok((request, limit))
}
