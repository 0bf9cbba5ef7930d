//! `POST /v1/hosted/{id}/chat`: a message of a web page's visitor, answered by the frames of its run
//! (`observed.md` 4.8). Whose page it is and who visits is `channel::web`'s matter.

use std::pin::pin;

use bytes::BytesMut;
use http::Method;

use super::{Encoder, WIRE};
use crate::channel::web::{HostedIn, hosted, until_gone};
use crate::edge::{Exchange, Gone, Route, parse, readable};
use crate::error::ApiError;
use crate::wire::turn::{Followed, while_stream_waits};

/// A request of somebody without a token is small.
const MAX_BODY: usize = 64 * 1024;

/// Its route.
pub fn route() -> Route {
    Route::wire(Method::POST, "/v1/hosted/{id}/chat", |exchange, ids| {
        Box::pin(async move { chat(exchange, ids[0]).await })
    })
    .open()
    .begins_work()
}

/// Answers a visitor, who is who the program says: always with a stream.
#[utoipa::path(post, path = "/v1/hosted/{id}/chat", tag = "web page", security(()),
    params(("id" = String, Path)), request_body = HostedIn,
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub async fn chat(exchange: &mut Exchange, id: &str) -> Result<(), Gone> {
    let said = match read(exchange).await {
        Ok(said) => said,
        Err(error) => return exchange.respond_error(&error).await,
    };
    let hub = exchange.gateway.hub.clone();
    let found = {
        let waiting = pin!(hosted(&hub, id, said));
        while_stream_waits(exchange, waiting).await
    };
    let awaited = match found {
        Some(Ok(awaited)) => awaited,
        Some(Err(error)) => return exchange.fail(&error, write_error).await,
        None => return Err(Gone),
    };
    let gateway = exchange.gateway.clone();
    let (run_id, tenant_id) = (&awaited.run_id, &awaited.tenant_id);
    let followed = match Followed::of(&gateway, tenant_id, run_id, awaited.run) {
        Ok(followed) => followed,
        Err(error) => return exchange.fail(&error, write_error).await,
    };
    let mut encoder = Encoder::new(run_id, 0, None);
    exchange.start_stream(&[]).await?;
    tokio::select! {
        written = followed.stream(exchange, &mut encoder, WIRE) => written,
        () = until_gone(&hub, id) => Ok(()),
    }
}

async fn read(exchange: &mut Exchange) -> Result<HostedIn, ApiError> {
    let body = exchange.body_within(MAX_BODY).await?;
    parse(&readable(&body))
}

/// What ends a stream in which nothing has been said.
fn write_error(error: &ApiError, buf: &mut BytesMut) {
    let event = format!(
        "event: run.failed\ndata: {}\n\n",
        serde_json::json!({ "v": 1,
        "error": error.message, "code": error.code })
    );
    buf.extend_from_slice(event.as_bytes());
}
