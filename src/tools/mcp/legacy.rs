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

use super::error::HttpError;
use super::key::ServerKey;
use super::lenient::{Asked, messages};
use super::transport::{GuardedHttp, Heads, calls_tool};

/// A stream that is open, and where to post.
pub struct LegacySse {
    http: GuardedHttp,
    key: ServerKey,
    post_to: Arc<str>,
    events: BoxStream<'static, Result<Sse, SseError>>,
}

impl LegacySse {
    /// Opens the stream and waits for its `endpoint` event.
    pub async fn connect(http: GuardedHttp, key: &ServerKey) -> Result<Self, HttpError> {
        let url = &*key.url;
        let heads = Heads::of(key);
        let sent = http.request(Method::GET, url, Bytes::new(), heads).await?;
        if !sent.status.is_success() || !sent.is_event_stream() {
            let (status, said) = (sent.status, String::new());
            return Err(HttpError::Status { status, said });
        }
        let limit = StreamableHttpResponseLimits::default().max_sse_event_size;
        let mut events = http.events(None, sent, limit, None);
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
            key: key.clone(),
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
        let mut heads = Heads::of(&self.key);
        heads.calls_tool = calls_tool(&message);
        if let Some(asked) = Asked::of(&message) {
            http.open().add(&asked);
        }
        async move {
            let body = serde_json::to_vec(&message).map_err(|e| HttpError::Url(e.to_string()))?;
            let sent = http
                .request(Method::POST, &post_to, body.into(), heads)
                .await?;
            let status = sent.status;
            sent.release();
            match status.is_success() {
                true => Ok(()),
                false => Err(HttpError::Status {
                    status,
                    said: String::new(),
                }),
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let event = self.events.next().await?.ok()?;
            let data = event.data.unwrap_or_default();
            let read = messages(data.as_bytes(), None, self.http.open());
            if let Some(message) = read.and_then(|mut read| read.pop()) {
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> Result<(), HttpError> {
        self.events = futures_util::stream::empty().boxed();
        Ok(())
    }
}
