//! A call that is passed on to a provider of the client's own wire: bytes stay as they are.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;

use super::exchange::{Exchange, Gone};
use super::turn::{count_frames, while_client_waits};
use crate::error::ApiError;
use crate::frame::Usage;
use crate::limit::Permit;
use crate::model::{ModelError, Route, UpstreamResponse};
use crate::run::Spender;
use crate::wire::Gate;

/// Events that are ready together leave in one write of at most about this size.
const WRITE_BYTES: usize = 64 * 1024;

/// What passing on needs to know of a wire.
pub struct Passage {
    /// For metrics.
    pub wire: &'static str,
    /// Behind the base URL.
    pub path: &'static str,
    /// The usage in a whole answer.
    pub usage_of_answer: fn(&Bytes) -> Option<Usage>,
}

/// A body made ready for one route, and the gate of a streamed answer to it.
pub struct Prepared {
    pub body: Bytes,
    pub gate: Box<dyn Gate>,
}

/// An answer that has begun.
pub struct Forward {
    tenant_id: Arc<str>,
    passage: &'static Passage,
    route: Route,
    response: UpstreamResponse,
    gate: Option<Box<dyn Gate>>,
    _permit: Permit,
}

impl Forward {
    /// Sends the body on, to the first route that answers; `None` when the client left.
    /// `prepare` is called once for each route.
    pub async fn begin(
        exchange: &mut Exchange,
        tenant_id: Arc<str>,
        passage: &'static Passage,
        routes: Vec<Route>,
        stream: bool,
        permit: Permit,
        prepare: impl Fn(&Route) -> Result<Prepared, ApiError>,
    ) -> Result<Option<Self>, ApiError> {
        let mut prepared = Vec::with_capacity(routes.len());
        for route in &routes {
            prepared.push((route.target(), prepare(route)?));
        }
        let models = exchange.gateway.models.clone();
        let sent = models.forward(routes, passage.path, |route| {
            let target = route.target();
            let found = prepared.iter().find(|(of, _)| *of == target);
            found.map(|(_, p)| p.body.clone()).unwrap_or_default()
        });
        let Some(answer) = while_client_waits(exchange, sent).await else {
            return Ok(None);
        };
        let (route, response) = answer?;
        let target = route.target();
        let found = prepared.into_iter().find(|(of, _)| *of == target);
        let gate = found.map(|(_, prepared)| prepared.gate);
        Ok(Some(Self {
            tenant_id,
            passage,
            gate: gate.filter(|_| stream && response.is_event_stream()),
            route,
            response,
            _permit: permit,
        }))
    }

    /// Passes the answer on.
    pub async fn answer(mut self, exchange: &mut Exchange) -> Result<(), Gone> {
        match self.gate.take() {
            Some(gate) => self.stream(exchange, gate).await,
            None => self.whole(exchange).await,
        }
    }

    async fn whole(mut self, exchange: &mut Exchange) -> Result<(), Gone> {
        let limit = exchange.gateway.config.limits.max_answer_bytes;
        let read = self.response.body(limit);
        match while_client_waits(exchange, read).await {
            None => Err(Gone),
            Some(Ok(body)) => {
                let usage = (self.passage.usage_of_answer)(&body).unwrap_or_default();
                self.account(exchange, &usage);
                exchange.respond_json(http::StatusCode::OK, body).await
            }
            Some(Err(error)) => {
                self.count_error(exchange, &error);
                exchange.respond_error(&error.into()).await
            }
        }
    }

    fn account(&self, exchange: &Exchange, usage: &Usage) {
        let accounting = &exchange.gateway.accounting;
        accounting.add(
            &Spender::tenant(&self.tenant_id),
            &self.route.provider,
            &self.route.model,
            usage,
        );
    }

    fn count_error(&self, exchange: &Exchange, error: &ModelError) {
        let errors = &exchange.gateway.metrics.provider_errors;
        errors
            .with_label_values(&[&*self.route.provider, error.kind()])
            .inc();
    }

    async fn stream(
        mut self,
        exchange: &mut Exchange,
        mut gate: Box<dyn Gate>,
    ) -> Result<(), Gone> {
        exchange.start_stream(&[]).await?;
        let result = self.pass_on(exchange, gate.as_mut()).await;
        count_frames(exchange, self.passage.wire, gate.events());
        self.account(exchange, &gate.usage().unwrap_or_default());
        match result? {
            None => {
                self.response.release();
                Ok(())
            }
            Some(error) => {
                self.count_error(exchange, &error);
                let mut buf = BytesMut::new();
                gate.write_error(&error.into(), &mut buf);
                exchange.write(buf.freeze()).await
            }
        }
    }

    /// Passes events on until the end; `Some` is the error that the client must be told.
    async fn pass_on(
        &mut self,
        exchange: &mut Exchange,
        gate: &mut dyn Gate,
    ) -> Result<Option<ModelError>, Gone> {
        while !gate.is_done() {
            let read = tokio::select! {
                biased;
                read = self.response.chunk() => read,
                () = exchange.client_gone() => {
                    exchange.gateway.metrics.cancelled_calls.inc();
                    return Err(Gone);
                }
            };
            let chunk = match read {
                Ok(Some(chunk)) => self.coalesce(chunk),
                Ok(None) => {
                    return match gate.end() {
                        Some(rest) => exchange.write(rest).await.map(|()| None),
                        None => Ok(Some(ModelError::Cut)),
                    };
                }
                Err(error) => return Ok(Some(error)),
            };
            match gate.pass(chunk) {
                Ok(events) => exchange.write(events).await?,
                Err(error) => return Ok(Some(ModelError::Malformed(error.to_string()))),
            }
        }
        Ok(None)
    }

    /// Takes what else has come already, so that it leaves in the same write.
    fn coalesce(&mut self, first: Bytes) -> Bytes {
        let Some(Ok(Some(second))) = self.response.chunk().now_or_never() else {
            return first;
        };
        let mut both = BytesMut::with_capacity(WRITE_BYTES);
        both.extend_from_slice(&first);
        both.extend_from_slice(&second);
        while both.len() < WRITE_BYTES {
            match self.response.chunk().now_or_never() {
                Some(Ok(Some(more))) => both.extend_from_slice(&more),
                // An end or an error is found again by the next read.
                _ => break,
            }
        }
        both.freeze()
    }
}
