//! One model call: targets in order, retries on each, and the frames of the first that answers.
//! Targets change only before the first frame; after it an error is the run's error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::address::AddressGuard;
use super::continuity::Continuity;
use super::error::ModelError;
use super::http::{Timeouts, Upstream, UpstreamRequest};
use super::provider::{self, StreamDecoder};
use super::request::ModelRequest;
use super::response::UpstreamResponse;
use super::routing::{Route, Routing};
use crate::config::{Config, Limits};
use crate::frame::Frame;
use crate::metrics::Metrics;
use crate::sse::Splitter;

/// Largest error body that is read for its message, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A provider that asks for a longer pause is not waited for: the client is told instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Everything needed to call models. One for the whole gateway.
pub struct Models {
    pub upstream: Upstream,
    pub routing: Routing,
    pub continuity: Continuity,
    pub(super) limits: Limits,
    metrics: Metrics,
}

/// A streamed answer that has begun.
pub struct ModelCall {
    pub route: Route,
    response: Option<UpstreamResponse>,
    splitter: Splitter,
    decoder: Box<dyn StreamDecoder>,
    pending: Vec<Frame>,
    received: usize,
    limit: usize,
    ended: bool,
}

impl Models {
    /// Puts the parts together.
    pub fn new(config: &Config, routing: Routing, metrics: Metrics) -> Self {
        Self {
            upstream: Upstream::new(AddressGuard::new(config.egress.allow_networks.clone())),
            routing,
            continuity: Continuity::default(),
            limits: config.limits.clone(),
            metrics,
        }
    }

    fn timeouts(&self, route: &Route) -> Timeouts {
        Timeouts {
            connect: Duration::from_millis(self.limits.connect_timeout_ms),
            first_byte: route
                .timeout
                .unwrap_or(Duration::from_millis(self.limits.first_byte_timeout_ms)),
            idle: Duration::from_millis(self.limits.idle_timeout_ms),
        }
    }

    /// Sends a body of `route`'s wire to it; an error status becomes an error.
    pub(super) async fn send(
        &self,
        route: &Route,
        path: &str,
        body: Bytes,
    ) -> Result<UpstreamResponse, ModelError> {
        let api = provider::api(route.wire);
        let headers = api.headers(route.key.as_deref().map(|k| k.as_str()));
        let request = UpstreamRequest {
            method: Method::POST,
            path,
            headers: &headers,
            body,
            repeatable: true,
        };
        let mut response = self
            .upstream
            .send(&route.endpoint, &request, self.timeouts(route))
            .await?;
        if response.status.is_success() {
            return Ok(response);
        }
        let status = response.status.as_u16();
        let retry_after = response.retry_after();
        let body = response.body(MAX_ERROR_BODY).await.unwrap_or_default();
        Err(ModelError::Status {
            status,
            message: provider::error_message(status, &body),
            retry_after,
        })
    }

    /// Calls `attempt` with the place of each route and for its retries, until one answers.
    pub(super) async fn try_routes<T, F, A>(
        &self,
        routes: &[Route],
        mut attempt: A,
    ) -> Result<T, ModelError>
    where
        A: FnMut(usize) -> F,
        F: Future<Output = Result<T, ModelError>>,
    {
        let mut last = None;
        for (at, route) in routes.iter().enumerate() {
            let mut pause = FIRST_PAUSE;
            for tried in 0..=route.retries {
                let error = match attempt(at).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                self.metrics
                    .provider_errors
                    .with_label_values(&[&*route.provider, error.kind()])
                    .inc();
                tracing::warn!(provider = %route.provider, model = %route.model, %error,
                    "provider call failed");
                let asked = match &error {
                    ModelError::Status { retry_after, .. } => retry_after.map(Duration::from_secs),
                    _ => None,
                };
                let retryable = error.is_retryable();
                let elsewhere = retryable
                    || matches!(
                        error,
                        ModelError::Status {
                            status: 401 | 403 | 404,
                            ..
                        }
                    );
                last = Some(error);
                if !elsewhere {
                    return Err(last.unwrap_or(ModelError::Cut));
                }
                let wait = asked.unwrap_or(pause).max(pause);
                if !retryable || tried == route.retries || wait > LONGEST_PAUSE {
                    break;
                }
                tokio::time::sleep(wait).await;
                pause *= 2;
            }
        }
        Err(last.unwrap_or_else(|| ModelError::UnknownModel("the model has no target".into())))
    }

    /// Bodies of the routes' own wires, forwarded as they are; `bodies` are in the order of
    /// `routes`. Answers the place of the route that answered.
    pub async fn forward(
        &self,
        routes: &[Route],
        path: &str,
        bodies: &[Bytes],
    ) -> Result<(usize, UpstreamResponse), ModelError> {
        self.try_routes(routes, |at| async move {
            let body = bodies.get(at).cloned().unwrap_or_default();
            Ok((at, self.send(&routes[at], path, body).await?))
        })
        .await
    }

    fn encode(
        &self,
        tenant_id: &Arc<str>,
        route: &Route,
        request: &ModelRequest,
        stream: bool,
    ) -> Result<Bytes, ModelError> {
        let mut request = request.clone();
        request.model.clone_from(&route.model);
        self.continuity.restore(tenant_id, &mut request);
        let body = provider::api(route.wire).body(&request, stream, route.stream_usage)?;
        Ok(Bytes::from(body.to_string()))
    }

    /// Starts a streamed call; returns when its first frames are there.
    pub async fn stream(
        &self,
        tenant_id: &Arc<str>,
        routes: Vec<Route>,
        request: &ModelRequest,
    ) -> Result<Box<ModelCall>, ModelError> {
        let routes = routes.as_slice();
        self.try_routes(routes, |at| async move {
            let route = &routes[at];
            let body = self.encode(tenant_id, route, request, true)?;
            let api = provider::api(route.wire);
            let path = api.path(&route.model, true);
            let mut response = self.send(route, &path, body).await?;
            let mut pending = Vec::new();
            let streamed = response.is_event_stream();
            if !streamed {
                // Some compatible providers answer in one piece whatever they were asked.
                let body = response.body(self.limits.max_answer_bytes).await?;
                pending = api.decode_full(&body)?;
            }
            response.forget_headers();
            let mut call = Box::new(ModelCall {
                route: route.clone(),
                response: streamed.then_some(response),
                splitter: Splitter::new(self.limits.max_event_bytes),
                decoder: api.decoder(),
                pending,
                received: 0,
                limit: self.limits.max_answer_bytes,
                ended: !streamed,
            });
            while call.pending.is_empty() && !call.ended {
                let mut first = Vec::new();
                call.read(&mut first).await?;
                call.pending = first;
            }
            Ok(call)
        })
        .await
    }

    /// A call that is not streamed: all its frames.
    pub async fn complete(
        &self,
        tenant_id: &Arc<str>,
        routes: Vec<Route>,
        request: &ModelRequest,
    ) -> Result<(Route, Vec<Frame>), ModelError> {
        let routes = routes.as_slice();
        self.try_routes(routes, |at| async move {
            let route = &routes[at];
            let body = self.encode(tenant_id, route, request, false)?;
            let api = provider::api(route.wire);
            let path = api.path(&route.model, false);
            let mut response = self.send(route, &path, body).await?;
            let body = response.body(self.limits.max_answer_bytes).await?;
            let frames = api.decode_full(&body)?;
            Ok((route.clone(), frames))
        })
        .await
    }
}

impl ModelCall {
    /// Appends all frames that are ready, waiting for at least one; `false` after the last.
    /// May be dropped while waiting without losing frames.
    pub async fn frames(&mut self, out: &mut Vec<Frame>) -> Result<bool, ModelError> {
        if !self.pending.is_empty() {
            out.append(&mut std::mem::take(&mut self.pending));
            return Ok(true);
        }
        while out.is_empty() && !self.ended {
            self.read(out).await?;
        }
        Ok(!out.is_empty())
    }

    async fn read(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let read = match &mut self.response {
            Some(response) => response.chunk().await?,
            None => None,
        };
        let Some(read) = read else {
            return self.end(out);
        };
        self.received += read.len();
        if self.received > self.limit {
            self.response = None;
            return Err(ModelError::TooLarge(self.limit));
        }
        // Frames share this memory.
        self.splitter.push(read);
        loop {
            match self.splitter.next_event() {
                Ok(Some(event)) => self.decoder.event(&event, out)?,
                Ok(None) => break,
                Err(error) => {
                    self.response = None;
                    return Err(ModelError::Malformed(error.to_string()));
                }
            }
            if self.decoder.is_done() {
                return self.end(out);
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        self.ended = true;
        if let Some(response) = self.response.take() {
            response.release();
        }
        self.decoder.finish(out)
    }
}
