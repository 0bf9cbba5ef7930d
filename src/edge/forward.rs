//! A call that is passed on to a provider of the client's own wire: bytes stay as they are.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::exchange::{Exchange, Gone};
use super::turn::{count_frames, while_client_waits};
use crate::error::ApiError;
use crate::frame::Usage;
use crate::limit::Permit;
use crate::model::{ModelError, Route, UpstreamResponse};
use crate::run::Spender;
use crate::wire::Gate;

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
        let mut bodies = Vec::with_capacity(routes.len());
        let mut gates = Vec::with_capacity(routes.len());
        for route in &routes {
            let prepared = prepare(route)?;
            bodies.push(prepared.body);
            gates.push(prepared.gate);
        }
        let models = exchange.gateway.models.clone();
        let answer = {
            let sent = pin!(models.forward(&routes, passage.path, &bodies));
            while_client_waits(exchange, sent).await
        };
        let Some(answer) = answer else {
            return Ok(None);
        };
        let (at, response) = answer?;
        let (mut routes, mut gates) = (routes, gates);
        let (route, gate) = (routes.swap_remove(at), gates.swap_remove(at));
        Ok(Some(Self {
            tenant_id,
            passage,
            gate: (stream && response.is_event_stream()).then_some(gate),
            route,
            response,
            _permit: permit,
        }))
    }

    /// Passes the answer on.
    pub async fn answer(mut self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        match self.gate.take() {
            Some(gate) => self.stream(exchange, gate).await,
            None => self.whole(exchange).await,
        }
    }

    async fn whole(mut self: Box<Self>, exchange: &mut Exchange) -> Result<(), Gone> {
        let limit = exchange.gateway.config.limits.max_answer_bytes;
        let read = {
            let read = pin!(self.response.body(limit));
            while_client_waits(exchange, read).await
        };
        match read {
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
        mut self: Box<Self>,
        exchange: &mut Exchange,
        mut gate: Box<dyn Gate>,
    ) -> Result<(), Gone> {
        self.response.forget_headers();
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

    /// Passes events on until the end; `Some` is the error that the client must be told. What is
    /// ready together leaves in one write.
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
            let read = match read {
                Ok(Some(read)) => read,
                Ok(None) => {
                    return match gate.end() {
                        Some(rest) => exchange.write(rest).await.map(|()| None),
                        None => Ok(Some(ModelError::Cut)),
                    };
                }
                Err(error) => return Ok(Some(error)),
            };
            match gate.pass(read) {
                Ok(events) => exchange.write(events).await?,
                Err(error) => return Ok(Some(ModelError::Malformed(error.to_string()))),
            }
        }
        Ok(None)
    }
}
