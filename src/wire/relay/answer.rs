//! An answer on its way back: bytes as they come, what is told beside them, and what it took.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;

use crate::edge::stream::{self, Pieces};
use crate::edge::{Exchange, Extra, Gone};
use crate::frame::Usage;
use crate::limit::Permit;
use crate::model::provider::usage_in_chunk;
use crate::run::Spender;
use crate::sse::raw_events;
use crate::upstream::UpstreamResponse;

/// Of an answer, what is looked at for what it took: the whole of one that is JSON, the end of a stream.
const LOOKED_AT: usize = 256 * 1024;
/// Headers of a provider's answer that go on with its body.
const TOLD: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::RETRY_AFTER,
];

/// An answer that has begun.
pub struct Answer {
    pub response: UpstreamResponse,
    /// All that is passed on of an error.
    pub error: Option<Bytes>,
    pub provider: Arc<str>,
    pub model: String,
    pub spender: Spender,
    pub _permit: Permit,
}

/// The body, with a copy of what tells what it took.
struct Passing<'a> {
    response: &'a mut UpstreamResponse,
    seen: BytesMut,
    is_stream: bool,
    /// It broke before its end.
    is_cut: bool,
}

impl Passing<'_> {
    fn look(&mut self, piece: &Bytes) {
        if self.is_stream {
            // The end alone matters; what is before it goes when there is twice as much.
            if self.seen.len() + piece.len() > 2 * LOOKED_AT {
                let keep = self.seen.len().saturating_sub(LOOKED_AT);
                let _ = self.seen.split_to(keep);
            }
            let from = piece.len().saturating_sub(LOOKED_AT);
            self.seen.extend_from_slice(&piece[from..]);
        } else if self.seen.len() <= LOOKED_AT {
            self.seen
                .extend_from_slice(&piece[..piece.len().min(LOOKED_AT + 1)]);
        }
    }

    fn usage(&self) -> Usage {
        let told = |value: &Value| {
            usage_in_chunk(value).or_else(|| usage_in_chunk(value.get("response")?))
        };
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        let usage = match self.is_stream {
            false => read(&self.seen).and_then(|answer| told(&answer)),
            true => raw_events(&self.seen.clone().freeze())
                .filter_map(|event| told(&read(&event.data()?)?))
                .last(),
        };
        usage.unwrap_or_default()
    }
}

impl Pieces for Passing<'_> {
    async fn next(&mut self) -> Option<Bytes> {
        match self.response.chunk().await {
            Ok(piece) => {
                let piece = piece?;
                self.look(&piece);
                Some(piece)
            }
            Err(error) => {
                tracing::warn!(%error, "an answer that is passed on was cut short");
                self.is_cut = true;
                None
            }
        }
    }
}

impl Answer {
    /// Passes it on.
    pub async fn write(mut self, exchange: &mut Exchange) -> Result<(), Gone> {
        let status = self.response.status;
        let headers = &self.response.headers;
        let mut extra: Vec<Extra> = Vec::new();
        for name in TOLD {
            if let Some(value) = headers.get(&name) {
                extra.push((name, value.clone()));
            }
        }
        // Whatever it is, it is not a page of the gateway's.
        extra.push((
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ));
        extra.push((
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("sandbox; default-src 'none'"),
        ));
        if let Some(error) = self.error {
            return exchange.respond(status, &extra, error).await;
        }
        let is_stream = self.response.is_event_stream();
        let length = headers.get(header::CONTENT_LENGTH).cloned();
        let length = length.filter(|_| self.response.is_as_it_is());
        let mut passing = Passing {
            response: &mut self.response,
            seen: BytesMut::new(),
            is_stream,
            is_cut: false,
        };
        let written = if is_bodiless(status) {
            exchange.respond(status, &extra, Bytes::new()).await
        } else if is_stream {
            match exchange.start_stream(&extra).await {
                Ok(()) => stream::write(exchange, &mut passing).await,
                Err(gone) => Err(gone),
            }
        } else {
            pass(exchange, (status, extra, length), &mut passing).await
        };
        let is_cut = passing.is_cut;
        let usage = passing.usage();
        exchange
            .gateway
            .accounting
            .add(&self.spender, &self.provider, &self.model, &usage);
        match (written, is_cut) {
            // A client that reads to the end must not take it for the whole.
            (Ok(()), true) => Err(Gone),
            (Err(gone), _) => {
                exchange.gateway.metrics.cancelled_calls.inc();
                Err(gone)
            }
            (Ok(()), false) => Ok(()),
        }
    }
}

async fn pass(
    exchange: &mut Exchange,
    (status, extra, length): (http::StatusCode, Vec<Extra>, Option<HeaderValue>),
    passing: &mut Passing<'_>,
) -> Result<(), Gone> {
    if !exchange.start_pieces(status, &extra, length).await? {
        return Ok(());
    }
    loop {
        let piece = tokio::select! {
            biased;
            piece = passing.next() => piece,
            () = exchange.client_gone() => return Err(Gone),
        };
        match piece {
            Some(piece) => exchange.write(piece).await?,
            None => return Ok(()),
        }
    }
}

/// Whether a status has no body.
fn is_bodiless(status: http::StatusCode) -> bool {
    status == http::StatusCode::NO_CONTENT || status == http::StatusCode::NOT_MODIFIED
}
