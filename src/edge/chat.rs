//! `POST /v1/chat/completions`: a smith's turn, or model routing without a smith (bytes passed on
//! where client and provider speak the same wire, translated otherwise).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::StatusCode;

use super::exchange::{Exchange, Gone, KEEP_ALIVE_EVERY};
use crate::auth::{Principal, Scope};
use crate::config::ProviderWire;
use crate::error::ApiError;
use crate::frame::{Frame, Usage};
use crate::ids;
use crate::limit::Permit;
use crate::model::{ModelCall, ModelError, Route, UpstreamResponse};
use crate::run::{Collector, Reader, RunRequest, Spender, Thread};
use crate::sse::KEEP_ALIVE;
use crate::store::now_seconds;
use crate::wire::chat::{self, ChatRequest, EventGate, Peek, StreamEncoder, decode};
use crate::wire::parse;

/// Frames that are ready together leave in one write of at most about this size.
const WRITE_BYTES: usize = 64 * 1024;

/// Serves one call.
pub async fn serve(exchange: &mut Exchange) -> Result<(), Gone> {
    match begin(exchange).await {
        Ok(Plan::Run(run)) => run.answer(exchange).await,
        Ok(Plan::Forward(forward)) => forward.answer(exchange).await,
        Ok(Plan::Translate(translate)) => translate.answer(exchange).await,
        Ok(Plan::ClientLeft) => Err(Gone),
        Err(error) => exchange.respond_error(&error).await,
    }
}

/// What a call turned out to be, with its provider's answer begun where there is one.
enum Plan {
    Run(Box<SmithTurn>),
    Forward(Box<Forward>),
    Translate(Box<Translate>),
    ClientLeft,
}

/// Runs `work` while the client waits; `None` when it left first, which drops the work.
async fn while_client_waits<T>(
    exchange: &mut Exchange,
    work: impl Future<Output = T>,
) -> Option<T> {
    let gateway = exchange.gateway.clone();
    tokio::select! {
        biased;
        done = work => Some(done),
        () = exchange.client_gone() => {
            gateway.metrics.cancelled_calls.inc();
            None
        }
    }
}

async fn begin(exchange: &mut Exchange) -> Result<Plan, ApiError> {
    let principal = exchange.principal()?;
    principal.require(Scope::RunsWrite)?;
    let smith = principal.acting_smith(exchange.header("ic-smith-id"))?;
    let thread = exchange.header("ic-thread-id").map(str::to_owned);
    let body = exchange.body().await?;
    if let Some(smith_id) = smith {
        return smith_turn(exchange, &principal, smith_id, thread, &body).await;
    }
    let peek: Peek<'_> = parse_peek(&body)?;
    let model = peek.model.as_deref().unwrap_or_default();
    let gateway = exchange.gateway.clone();
    if thread.is_some() || !gateway.models.routing.is_qualified(model) {
        return Err(ApiError::bad_request(
            "smith_required",
            "name a smith with IC-Smith-Id, or a model as <provider>/<model>",
        ));
    }
    let model = model.to_owned();
    let stream = peek.stream.unwrap_or(false);
    let tenant_id = principal.tenant_id.clone();
    gateway.budgets.check(&Spender::tenant(&tenant_id)).await?;
    let permit = gateway.gate.begin_run(&principal, None)?;
    let routes = gateway
        .models
        .routing
        .resolve(&tenant_id, None, &model)
        .await?;
    if routes
        .iter()
        .all(|route| route.wire == ProviderWire::OpenaiChat)
    {
        return forward(exchange, tenant_id, routes, body, stream, permit).await;
    }
    let decoded = decode(parse::<ChatRequest>(&body)?)?;
    let include_usage = decoded.include_usage;
    let request = decoded.into_request();
    let models = gateway.models.clone();
    let answer = if stream {
        let started = models.stream(&tenant_id, routes, &request);
        match while_client_waits(exchange, started).await {
            None => return Ok(Plan::ClientLeft),
            Some(call) => Answer::Stream(Box::new(call?)),
        }
    } else {
        let whole = models.complete(&tenant_id, routes, &request);
        match while_client_waits(exchange, whole).await {
            None => return Ok(Plan::ClientLeft),
            Some(answer) => {
                let (route, frames) = answer?;
                Answer::Whole(Box::new(route), frames)
            }
        }
    };
    Ok(Plan::Translate(Box::new(Translate {
        tenant_id,
        model,
        include_usage,
        answer,
        _permit: permit,
    })))
}

fn parse_peek(body: &[u8]) -> Result<Peek<'_>, ApiError> {
    serde_json::from_slice(body).map_err(|e| {
        // The full parser names the field at fault.
        match parse::<ChatRequest>(body) {
            Err(error) => error,
            Ok(_) => ApiError::bad_request("invalid_request", e.to_string()),
        }
    })
}

// ---- a smith's turn ----

struct SmithTurn {
    reader: Reader,
    /// Frames taken while waiting for the first that tells how it goes.
    frames: Vec<Frame>,
    model: String,
    stream: bool,
    include_usage: bool,
}

async fn smith_turn(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: Arc<str>,
    thread: Option<String>,
    body: &Bytes,
) -> Result<Plan, ApiError> {
    let request: ChatRequest = parse(body)?;
    let record: serde_json::Value = serde_json::from_slice(body).map_err(ApiError::internal)?;
    let decoded = decode(request)?;
    if let Some(thread) = &thread {
        if !ids::is_sane_thread_id(thread) {
            return Err(ApiError::bad_request(
                "invalid_request",
                "IC-Thread-Id must be 1 to 256 printable characters",
            ));
        }
        if decoded.response_format.is_some() {
            return Err(ApiError::bad_request(
                "invalid_response_format",
                "a structured answer is stateless: leave IC-Thread-Id out",
            )
            .param("response_format"));
        }
    }
    let detached = thread.is_some();
    let permit = exchange
        .gateway
        .gate
        .begin_run(principal, Some(&smith_id))?;
    let runs = exchange.gateway.runs.clone();
    let started = runs
        .start(RunRequest {
            run_id: ids::mint(ids::Kind::Run),
            tenant_id: principal.tenant_id.clone(),
            smith_id,
            channel: "chat_completions".to_owned(),
            thread: thread.map_or(Thread::Stateless, Thread::Kept),
            input: decoded.turns,
            input_record: record["messages"].clone(),
            extra_instructions: decoded.system,
            model: decoded.model,
            client_tools: decoded.tools,
            tool_choice: decoded.tool_choice,
            parallel_tool_calls: decoded.parallel_tool_calls,
            response_format: decoded.response_format,
            params: decoded.params,
            include_mask: 0,
            metadata: None,
            actor: principal.actor(),
            permit,
            detached,
        })
        .await?;
    let mut turn = SmithTurn {
        reader: started.reader,
        frames: Vec::new(),
        model: started.model,
        stream: decoded.stream,
        include_usage: decoded.include_usage,
    };
    // A refusal before the first token is an HTTP error, which clients retry by its status.
    while turn.frames.len() < 2 {
        let more = tokio::select! {
            biased;
            more = turn.reader.next(&mut turn.frames) => more,
            () = exchange.client_gone() => return Ok(Plan::ClientLeft),
        };
        if !more {
            break;
        }
    }
    match turn.frames.get(1).or(turn.frames.first()) {
        Some(Frame::RunFailed { .. } | Frame::RunCancelled { .. }) | None => Err(turn.failure()),
        _ => Ok(Plan::Run(Box::new(turn))),
    }
}

impl SmithTurn {
    fn failure(&self) -> ApiError {
        self.reader
            .run()
            .failure
            .get()
            .cloned()
            .unwrap_or_else(|| ApiError::conflict("run_cancelled", "the run was cancelled"))
    }

    fn id(&self) -> String {
        let run_id = &self.reader.run().run_id;
        format!(
            "chatcmpl-{}",
            ids::body(ids::Kind::Run, run_id).unwrap_or(run_id)
        )
    }

    async fn answer(mut self, exchange: &mut Exchange) -> Result<(), Gone> {
        if !self.stream {
            return self.whole(exchange).await;
        }
        let mut encoder =
            StreamEncoder::new(&self.id(), now_seconds(), &self.model, self.include_usage);
        exchange.start_stream(&[]).await?;
        let mut buf = BytesMut::with_capacity(4096);
        loop {
            for frame in self.frames.drain(..) {
                encoder.frame(&frame, &mut buf);
            }
            exchange.write(buf.split().freeze()).await?;
            tokio::select! {
                biased;
                more = self.reader.next(&mut self.frames) => if !more { break },
                () = exchange.client_gone() => return Err(Gone),
                () = tokio::time::sleep(KEEP_ALIVE_EVERY) => buf.extend_from_slice(KEEP_ALIVE),
            }
        }
        count_frames(exchange, encoder.chunks);
        Ok(())
    }

    async fn whole(mut self, exchange: &mut Exchange) -> Result<(), Gone> {
        let mut collector = Collector::default();
        let mut end = None;
        loop {
            for frame in self.frames.drain(..) {
                collector.add(&frame);
                if let Frame::RunCompleted { stop, usage, .. } = frame {
                    end = Some((stop, usage));
                }
            }
            tokio::select! {
                biased;
                more = self.reader.next(&mut self.frames) => if !more { break },
                () = exchange.client_gone() => return Err(Gone),
            }
        }
        let Some((stop, usage)) = end else {
            return exchange.respond_error(&self.failure()).await;
        };
        let mut answer = collector.finish();
        answer.stop = stop;
        answer.usage = usage;
        let body = chat::full_answer(&self.id(), now_seconds(), &self.model, &answer);
        exchange
            .respond_json(StatusCode::OK, body.to_string().into())
            .await
    }
}

fn count_frames(exchange: &Exchange, chunks: u64) {
    exchange
        .gateway
        .metrics
        .frames
        .with_label_values(&["chat_completions"])
        .inc_by(chunks);
}

// ---- passed on as it is ----

struct Forward {
    tenant_id: Arc<str>,
    route: Route,
    response: UpstreamResponse,
    stream: bool,
    hide_usage: bool,
    _permit: Permit,
}

async fn forward(
    exchange: &mut Exchange,
    tenant_id: Arc<str>,
    routes: Vec<Route>,
    body: Bytes,
    stream: bool,
    permit: Permit,
) -> Result<Plan, ApiError> {
    let mut bodies = Vec::with_capacity(routes.len());
    for route in &routes {
        let ask_usage = stream && route.stream_usage;
        bodies.push((
            route.target(),
            chat::forward::rewrite(&body, &route.model, ask_usage)?,
        ));
    }
    let of_route = |route: &Route| {
        let target = route.target();
        let found = bodies.iter().find(|(of, _)| *of == target);
        found.map(|(_, forwarded)| forwarded)
    };
    let models = exchange.gateway.models.clone();
    let sent = models.forward(routes, "/chat/completions", |route| {
        of_route(route).map(|f| f.body.clone()).unwrap_or_default()
    });
    match while_client_waits(exchange, sent).await {
        None => Ok(Plan::ClientLeft),
        Some(answer) => {
            let (route, response) = answer?;
            let hide_usage = of_route(&route).is_some_and(|f| f.hide_usage);
            Ok(Plan::Forward(Box::new(Forward {
                tenant_id,
                stream: stream && response.is_event_stream(),
                route,
                response,
                hide_usage,
                _permit: permit,
            })))
        }
    }
}

impl Forward {
    async fn answer(self, exchange: &mut Exchange) -> Result<(), Gone> {
        if self.stream {
            self.stream(exchange).await
        } else {
            self.whole(exchange).await
        }
    }

    async fn whole(mut self, exchange: &mut Exchange) -> Result<(), Gone> {
        let limit = exchange.gateway.config.limits.max_answer_bytes;
        let read = self.response.body(limit);
        match while_client_waits(exchange, read).await {
            None => Err(Gone),
            Some(Ok(body)) => {
                let usage = chat::forward::usage_of_answer(&body).unwrap_or_default();
                self.account(exchange, &usage);
                exchange.respond_json(StatusCode::OK, body).await
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

    async fn stream(mut self, exchange: &mut Exchange) -> Result<(), Gone> {
        exchange.start_stream(&[]).await?;
        let limit = exchange.gateway.config.limits.max_event_bytes;
        let mut gate = EventGate::new(limit, self.hide_usage);
        let result = self.pass_on(exchange, &mut gate).await;
        count_frames(exchange, gate.events);
        self.account(exchange, &gate.usage().unwrap_or_default());
        match result? {
            None => {
                self.response.release();
                Ok(())
            }
            Some(error) => {
                self.count_error(exchange, &error);
                let mut buf = BytesMut::new();
                chat::encode::write_error(&error.into(), &mut buf);
                exchange.write(buf.freeze()).await
            }
        }
    }

    /// Passes events on until the end; `Some` is the error that the client must be told.
    async fn pass_on(
        &mut self,
        exchange: &mut Exchange,
        gate: &mut EventGate,
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

// ---- translated ----

enum Answer {
    Stream(Box<ModelCall>),
    Whole(Box<Route>, Vec<Frame>),
}

struct Translate {
    tenant_id: Arc<str>,
    model: String,
    include_usage: bool,
    answer: Answer,
    _permit: Permit,
}

impl Translate {
    async fn answer(self, exchange: &mut Exchange) -> Result<(), Gone> {
        let id = format!("chatcmpl-{}", ids::mint_request_id());
        let created = now_seconds();
        let gateway = exchange.gateway.clone();
        match self.answer {
            Answer::Whole(route, frames) => {
                let mut collector = Collector::default();
                for frame in &frames {
                    collector.add(frame);
                }
                let answer = collector.finish();
                gateway
                    .models
                    .continuity
                    .remember(&self.tenant_id, &answer.parts);
                gateway.accounting.add(
                    &Spender::tenant(&self.tenant_id),
                    &route.provider,
                    &route.model,
                    &answer.usage,
                );
                let body = chat::full_answer(&id, created, &self.model, &answer);
                exchange
                    .respond_json(StatusCode::OK, body.to_string().into())
                    .await
            }
            Answer::Stream(mut call) => {
                let encoder = StreamEncoder::new(&id, created, &self.model, self.include_usage);
                let mut collector = Collector::default();
                let result = translate_stream(exchange, &mut call, encoder, &mut collector).await;
                let answer = collector.finish();
                gateway
                    .models
                    .continuity
                    .remember(&self.tenant_id, &answer.parts);
                gateway.accounting.add(
                    &Spender::tenant(&self.tenant_id),
                    &call.route.provider,
                    &call.route.model,
                    &answer.usage,
                );
                result
            }
        }
    }
}

async fn translate_stream(
    exchange: &mut Exchange,
    call: &mut ModelCall,
    mut encoder: StreamEncoder,
    collector: &mut Collector,
) -> Result<(), Gone> {
    exchange.start_stream(&[]).await?;
    let mut frames = Vec::new();
    let mut buf = BytesMut::with_capacity(4096);
    while !encoder.is_ended() {
        let read = tokio::select! {
            biased;
            read = call.frames(&mut frames) => read,
            () = exchange.client_gone() => {
                exchange.gateway.metrics.cancelled_calls.inc();
                return Err(Gone);
            }
            () = tokio::time::sleep(KEEP_ALIVE_EVERY) => {
                exchange.write(Bytes::from_static(KEEP_ALIVE)).await?;
                continue;
            }
        };
        for frame in frames.drain(..) {
            collector.add(&frame);
            encoder.frame(&frame, &mut buf);
        }
        match read {
            Ok(true) => {}
            Ok(false) => {
                let stop = collector.stop.unwrap_or(crate::frame::StopReason::EndTurn);
                encoder.finish(stop, &collector.usage.unwrap_or_default(), &mut buf);
            }
            Err(error) => {
                let errors = &exchange.gateway.metrics.provider_errors;
                errors
                    .with_label_values(&[&*call.route.provider, error.kind()])
                    .inc();
                encoder.fail(&error.into(), &mut buf);
            }
        }
        exchange.write(buf.split().freeze()).await?;
    }
    count_frames(exchange, encoder.chunks);
    Ok(())
}
