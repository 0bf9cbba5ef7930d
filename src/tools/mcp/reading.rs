//! An event stream of a server, whatever it puts there.

use bytes::Bytes;
use rmcp::model::ServerJsonRpcMessage;
use sse_stream::Sse;

use super::lenient::{self, Asked, Open};
use crate::sse::Splitter;
use crate::upstream::{UpstreamError, UpstreamResponse};

/// A server that ends its stream is not asked again sooner than this, in milliseconds, nor later.
const RETRY_MILLIS: std::ops::RangeInclusive<u64> = 1_000..=60_000;

/// An event stream that is being read.
pub(super) struct Reading {
    pub first: Option<Bytes>,
    pub response: UpstreamResponse,
    pub splitter: Splitter,
    pub limit: usize,
    pub is_first: bool,
    pub open: Open,
    pub asked: Option<Asked>,
}

impl Reading {
    async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        let told = |error: UpstreamError| error.about("the MCP server");
        let chunk = match self.first.take() {
            Some(first) => Some(first),
            None => self.response.chunk().await.map_err(told)?,
        };
        if let Some(chunk) = &chunk
            && self.is_first
            && !lenient::without_mark(chunk).is_empty()
        {
            self.is_first = false;
            if !lenient::looks_like_json(chunk) {
                return Ok(Some(chunk.clone()));
            }
            let mut whole = bytes::BytesMut::from(&chunk[..]);
            let left = self.limit.saturating_sub(whole.len());
            whole.extend_from_slice(&self.response.body(left).await.map_err(told)?);
            let line: Vec<u8> = lenient::without_mark(&whole)
                .iter()
                .map(|byte| {
                    if matches!(byte, b'\n' | b'\r') {
                        b' '
                    } else {
                        *byte
                    }
                })
                .collect();
            return Ok(Some([b"data: ", &line[..], b"\n\n"].concat().into()));
        }
        Ok(chunk)
    }

    /// The events of the next chunk.
    pub async fn next(&mut self) -> Result<Option<Vec<Sse>>, String> {
        let Some(chunk) = self.chunk().await? else {
            return Ok(None);
        };
        self.splitter.push(chunk);
        let mut events = Vec::new();
        while let Some(event) = self.splitter.next_event().map_err(|e| e.to_string())? {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            let mut sse = Sse {
                event: event.name.as_ref().map(text),
                data: None,
                id: event.id.as_ref().map(text).filter(|id| !id.contains('\0')),
                retry: event
                    .retry
                    .map(|millis| millis.clamp(*RETRY_MILLIS.start(), *RETRY_MILLIS.end())),
            };
            if sse.event.as_deref() == Some("endpoint") {
                sse.data = Some(text(&event.data));
                events.push(sse);
                continue;
            }
            // What is a message is one, whatever the event is called.
            sse.event = None;
            let read = lenient::messages(&event.data, self.asked.as_ref(), &self.open);
            let messages = read.unwrap_or_default();
            // An event without a message tells from where to go on.
            events.push(sse);
            events.extend(messages.iter().filter_map(event_of));
        }
        Ok(Some(events))
    }
}

/// A message as the event that brings it.
pub(super) fn event_of(message: &ServerJsonRpcMessage) -> Option<Sse> {
    Some(Sse {
        data: Some(serde_json::to_string(message).ok()?),
        ..Sse::default()
    })
}
