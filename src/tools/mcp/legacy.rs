//! MCP's older HTTP+SSE transport (specification 2024-11-05): one stream of events for everything
//! that the server says, whose first event names where messages are posted.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::Method;
use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::streamable_http_client::StreamableHttpResponseLimits;
use sse_stream::{Error as SseError, Sse};

use super::transport::{GuardedHttp, Heads, HttpError, calls_tool, events};

/// A stream that is open, and where to post.
pub struct LegacySse {
    http: GuardedHttp,
    bearer: Option<String>,
    post_to: Arc<str>,
    events: BoxStream<'static, Result<Sse, SseError>>,
}

impl LegacySse {
    /// Opens the stream at `url` and waits for its `endpoint` event.
    pub async fn connect(
        http: GuardedHttp,
        url: &str,
        bearer: Option<String>,
    ) -> Result<Self, HttpError> {
        let heads = Heads::with_bearer(bearer.clone());
        let sent = http.request(Method::GET, url, Bytes::new(), heads).await?;
        if !sent.status.is_success() || !sent.is_event_stream() {
            return Err(HttpError::Status(sent.status));
        }
        let limit = StreamableHttpResponseLimits::default().max_sse_event_size;
        let mut events = events(sent, limit);
        let first = events.next().await;
        let endpoint = match first {
            Some(Ok(event)) if event.event.as_deref() == Some("endpoint") => event.data,
            _ => None,
        };
        let endpoint = endpoint.ok_or_else(|| HttpError::Url("no endpoint event".to_owned()))?;
        let base = url::Url::parse(url).map_err(|e| HttpError::Url(e.to_string()))?;
        let target = base
            .join(endpoint.trim())
            .map_err(|e| HttpError::Url(e.to_string()))?;
        // A server that sends messages elsewhere would be sent the caller's secret with them.
        if target.origin() != base.origin() {
            return Err(HttpError::Url("the endpoint is on another host".to_owned()));
        }
        Ok(Self {
            http,
            bearer,
            post_to: target.as_str().into(),
            events,
        })
    }
}

impl Transport<RoleClient> for LegacySse {
    type Error = HttpError;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), HttpError>> + Send + 'static {
        let (http, post_to) = (self.http.clone(), self.post_to.clone());
        let mut heads = Heads::with_bearer(self.bearer.clone());
        heads.calls_tool = calls_tool(&message);
        async move {
            let body = serde_json::to_vec(&message).map_err(|e| HttpError::Url(e.to_string()))?;
            let sent = http
                .request(Method::POST, &post_to, body.into(), heads)
                .await?;
            let status = sent.status;
            sent.release();
            match status.is_success() {
                true => Ok(()),
                false => Err(HttpError::Status(status)),
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let event = self.events.next().await?.ok()?;
            let data = event.data.unwrap_or_default();
            match serde_json::from_str(&data) {
                Ok(message) => return Some(message),
                Err(error) => tracing::debug!(%error, "an MCP server sent what is no message"),
            }
        }
    }

    async fn close(&mut self) -> Result<(), HttpError> {
        self.events = futures_util::stream::empty().boxed();
        Ok(())
    }
}
