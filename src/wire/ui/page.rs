//! `GET /hosted/{id}/stream`: an answer on its way to a web page (`channel::web`), in the same parts
//! as `/v1/ui/chat`. Who may follow what is the page's own matter; here its frames are written.

use std::pin::pin;

use bytes::BytesMut;
use http::{Method, header};

use crate::channel::web::{Settings, awaited, until_gone};
use crate::edge::{Exchange, Gone, Route};
use crate::frame::{Escaped, Frame, ToolCompleted};
use crate::wire::FrameEncoder;
use crate::wire::turn::{Followed, while_stream_waits};
use crate::wire::ui::Encoder;
use crate::wire::ui::encode::write_error;
use crate::wire::ui::head::{WIRE, encoder, headers};

/// Its route.
pub fn route() -> Route {
    Route::wire(Method::GET, "/hosted/{id}/stream", |exchange, ids| {
        Box::pin(async move { follow(exchange, ids[0]).await })
    })
    .open()
}

/// Follows the run of a turn, or a run, from its first part on, until it rests.
#[utoipa::path(get, path = "/hosted/{id}/stream", tag = "web page", security(()),
    params(("id" = String, Path), ("turn" = Option<String>, Query),
        ("run" = Option<String>, Query)),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub async fn follow(exchange: &mut Exchange, id: &str) -> Result<(), Gone> {
    let mut asked = exchange.request().headers.clone();
    exchange.settle_origin(&mut asked);
    let query = exchange
        .request()
        .uri
        .query()
        .unwrap_or_default()
        .to_owned();
    asked.remove(header::ACCEPT_ENCODING);
    let hub = exchange.gateway.hub.clone();
    let found = {
        let waiting = pin!(awaited(&hub, id, &asked, &query));
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
    let mut encoder = Shown {
        inner: encoder(run_id),
        settings: awaited.settings,
    };
    exchange.start_stream(&headers()).await?;
    tokio::select! {
        written = followed.stream(exchange, &mut encoder, WIRE) => written,
        // What a deployment's end is to its visitors, it is at once.
        () = until_gone(&hub, id) => Ok(()),
    }
}

/// What a page shows of a run.
struct Shown {
    inner: Encoder,
    settings: Settings,
}

impl FrameEncoder for Shown {
    fn frame(&mut self, frame: &Frame, buf: &mut BytesMut) {
        match frame {
            Frame::Reasoning(_) | Frame::ReasoningDone { .. } if !self.settings.shows_reasoning => {
            }
            Frame::ToolArgs { .. } if !self.settings.shows_tools => {}
            Frame::ToolCompleted(done) if !self.settings.shows_tools => {
                let done = ToolCompleted {
                    output: Escaped::escape(""),
                    ..(**done).clone()
                };
                self.inner.frame(&Frame::ToolCompleted(done.into()), buf);
            }
            other => self.inner.frame(other, buf),
        }
    }

    fn written(&self) -> u64 {
        self.inner.written()
    }
}
