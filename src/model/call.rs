//! One model call: targets in order, retries on each, and the frames of the first that answers.
//! Targets change only before the first piece of content; after it an error is the run's error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};

use super::beside::Beside;
use super::continuity::Continuity;
use super::error::ModelError;
use super::fault::Fault;
use super::fit::{Undo, fit};
use super::opening::{self, Answered};
use super::param::Lost;
use super::provider::{self, ProviderApi, StreamDecoder};
use super::request::{ModelRequest, ResponseFormat};
use super::routing::{Route, Routing};
use crate::config::{Config, Limits};
use crate::frame::Frame;
use crate::metrics::Metrics;
use crate::sse::{Event, Splitter};
use crate::upstream::{Timeouts, Upstream, UpstreamRequest, UpstreamResponse};

/// Largest error body that is read for its message, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A provider that asks for a longer pause is not waited for: the client is told instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Everything needed to call models. One for the whole gateway.
pub struct Models {
    /// The guarded client, which all parts of the gateway share.
    pub upstream: Arc<Upstream>,
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
    /// Until it is told on.
    beside: Option<Box<Beside>>,
    undo: Undo,
    pending: Vec<Frame>,
    /// Something was said: text, reasoning, a tool's call.
    has_content: bool,
    /// What ended it behind frames that were still good.
    failed: Option<ModelError>,
    received: usize,
    limit: usize,
    /// Since when what comes says nothing, and for how long it may, in milliseconds.
    idle_since: Option<Instant>,
    patience_ms: u32,
    ended: bool,
}

/// An answer that came in one piece.
pub struct Completed {
    pub route: Route,
    pub frames: Vec<Frame>,
    /// The form that the answer must have, as far as the target was not held to it.
    pub held_to: Option<Box<ResponseFormat>>,
    /// What was asked for and was not sent.
    pub lost: Lost,
    pub beside: Beside,
}

impl Models {
    /// Puts the parts together.
    pub fn new(
        config: &Config,
        upstream: Arc<Upstream>,
        routing: Routing,
        metrics: Metrics,
    ) -> Self {
        Self {
            upstream,
            continuity: Continuity::new(routing.store.clone()),
            routing,
            limits: config.limits.clone(),
            metrics,
        }
    }

    /// How long a provider may keep a connection alive without saying anything.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.limits.whole_answer_timeout_ms)
    }

    fn timeouts(&self, route: &Route, stream: bool) -> Timeouts {
        // An answer in one piece has no head before all of it is there.
        let patience = match stream {
            true => self.limits.first_byte_timeout_ms,
            false => self.limits.whole_answer_timeout_ms,
        };
        Timeouts {
            connect: Duration::from_millis(self.limits.connect_timeout_ms),
            first_byte: route.timeout.unwrap_or(Duration::from_millis(patience)),
            idle: Duration::from_millis(self.limits.idle_timeout_ms),
        }
    }

    /// Sends a body of `route`'s wire to it and looks at how the answer begins: what is no answer
    /// is an error, whatever its status. `told`: headers of the client that go on, in place of ours.
    pub async fn ask(
        &self,
        route: &Route,
        path: &str,
        body: Bytes,
        stream: bool,
        told: &[(HeaderName, HeaderValue)],
    ) -> Result<(Answered, Beside), ModelError> {
        let mut headers = headers_of(route);
        headers.retain(|(name, _)| !told.iter().any(|(other, _)| other == name));
        headers.extend_from_slice(told);
        let accepted = match stream {
            true => "text/event-stream, application/json",
            false => "application/json",
        };
        headers.push((header::ACCEPT, HeaderValue::from_static(accepted)));
        headers.push((
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        ));
        let request = UpstreamRequest {
            method: Method::POST,
            path,
            headers: &headers,
            body,
            repeatable: true,
        };
        let response = self
            .upstream
            .send(&route.endpoint, &request, self.timeouts(route, stream))
            .await?;
        if response.status.is_success() {
            let beside = Beside::of(&response.headers);
            // Each piece comes in time, all of them may not.
            let opened = opening::open(response, self.limits.max_answer_bytes);
            let opened = tokio::time::timeout(self.patience(), opened).await;
            let opened = opened.map_err(|_| ModelError::Timeout("response body"))?;
            return Ok((opened?, beside));
        }
        Err(failure_of(response).await)
    }

    /// Calls `attempt` with the place of each route and for its retries, until one answers; tells how
    /// often that was.
    pub async fn try_routes<T, F, A>(
        &self,
        routes: &[Route],
        mut attempt: A,
    ) -> Result<(T, u32), ModelError>
    where
        A: FnMut(usize) -> F,
        F: Future<Output = Result<T, ModelError>>,
    {
        let (mut last, mut attempts) = (None, 0);
        for (at, route) in routes.iter().enumerate() {
            let mut pause = FIRST_PAUSE;
            for tried in 0..=route.retries {
                attempts += 1;
                let error = match attempt(at).await {
                    Ok(answer) => return Ok((answer, attempts)),
                    Err(error) => error.without(route.secret()),
                };
                self.metrics
                    .provider_errors
                    .with_label_values(&[&*route.provider, error.kind()])
                    .inc();
                tracing::warn!(provider = %route.provider, model = %route.model, %error,
                    "provider call failed");
                let asked = error.pause();
                let (retryable, elsewhere) = (error.is_retryable(), error.is_of_target());
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

    fn encode(
        &self,
        route: &Route,
        request: &ModelRequest,
        stream: bool,
    ) -> Result<(Bytes, Undo), ModelError> {
        let asked = request;
        let mut request = asked.clone();
        let mut undo = fit(&mut request, route)?;
        let api = provider::api(route.wire);
        let body = api.body(&request, &route.rules, stream, route.stream_usage)?;
        undo.lost = Lost::of(asked, |param| {
            let mut places = api.places(param).iter();
            places.any(|place| body.pointer(place).is_some())
        });
        if asked.loses_nothing && !undo.lost.is_empty() {
            return Err(ModelError::Lost {
                model: route.model.clone(),
                lost: undo.lost,
            });
        }
        Ok((Bytes::from(body.to_string()), undo))
    }

    /// Starts a streamed call; returns when the first of its content is there. Until then the next
    /// target may still do better.
    pub async fn stream(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &Arc<str>,
        routes: Vec<Route>,
        request: &ModelRequest,
        told: &[(HeaderName, HeaderValue)],
    ) -> Result<Box<ModelCall>, ModelError> {
        let routes = &as_asked(routes, request);
        let restored = self.continuity.restored(tenant_id, smith_id, request);
        let restored = restored.await;
        let request = &*restored;
        let tried = self.try_routes(routes, |at| async move {
            let route = &routes[at];
            let (body, undo) = self.encode(route, request, true)?;
            let api = provider::api(route.wire);
            let path = api.path(&route.model, true);
            let (answered, beside) = self.ask(route, &path, body, true, told).await?;
            let mut call = self.call(route, api, answered)?;
            call.undo(undo);
            call.beside = Some(Box::new(beside));
            call.until_content().await?;
            Ok(call)
        });
        let (mut call, attempts) = tried.await?;
        if let Some(beside) = &mut call.beside {
            beside.attempts = attempts;
        }
        Ok(call)
    }

    /// A call that is not streamed: all its frames.
    pub async fn complete(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &Arc<str>,
        routes: Vec<Route>,
        request: &ModelRequest,
        told: &[(HeaderName, HeaderValue)],
    ) -> Result<Completed, ModelError> {
        let routes = &as_asked(routes, request);
        let restored = self.continuity.restored(tenant_id, smith_id, request);
        let restored = restored.await;
        let request = &*restored;
        let tried = self.try_routes(routes, |at| async move {
            let route = &routes[at];
            let (body, undo) = self.encode(route, request, false)?;
            let api = provider::api(route.wire);
            let path = api.path(&route.model, false);
            let (answered, beside) = self.ask(route, &path, body, false, told).await?;
            let mut call = self.call(route, api, answered)?;
            call.undo(undo);
            let held_to = call.undo.held_to.take();
            let lost = call.undo.lost;
            let frames = call.all().await?;
            Ok(Completed {
                route: route.clone(),
                frames,
                held_to,
                lost,
                beside,
            })
        });
        let (mut completed, attempts) = tried.await?;
        completed.beside.attempts = attempts;
        Ok(completed)
    }

    /// The call whose answer has begun so, by the rules of the wire that was spoken.
    pub fn call(
        &self,
        route: &Route,
        api: &dyn ProviderApi,
        answered: Answered,
    ) -> Result<Box<ModelCall>, ModelError> {
        let (response, pending) = match answered {
            Answered::Events(response) => (Some(response), Vec::new()),
            Answered::Whole(whole) => (None, whole.frames(api)?),
        };
        Ok(Box::new(ModelCall {
            route: route.clone(),
            ended: response.is_none(),
            response,
            splitter: Splitter::new(self.limits.max_event_bytes),
            decoder: api.decoder(),
            beside: None,
            undo: Undo::new(route.provider.clone(), route.wire),
            pending,
            has_content: false,
            failed: None,
            received: 0,
            limit: self.limits.max_answer_bytes,
            idle_since: None,
            patience_ms: u32::try_from(self.limits.whole_answer_timeout_ms).unwrap_or(u32::MAX),
        }))
    }
}

/// What a wire's own calls to `route` say of themselves, and its key.
pub(super) fn headers_of(route: &Route) -> Vec<(HeaderName, HeaderValue)> {
    let api = provider::api(route.wire);
    match (&route.auth_header, route.secret()) {
        (Some(name), Some(key)) => {
            let mut headers = api.headers(None);
            headers.extend(provider::keyed(name, key));
            headers
        }
        (_, key) => api.headers(key),
    }
}

/// What an answer with an error's status tells.
pub(super) async fn failure_of(mut response: UpstreamResponse) -> ModelError {
    let body = response.beginning(MAX_ERROR_BODY).await;
    let fault = Fault::of_answer(response.status.as_u16(), &response.headers, &body);
    ModelError::Status(Box::new(fault))
}

/// Whether what comes has said nothing for longer than `patience`; it says nothing now.
pub fn is_over(idle_since: &mut Option<Instant>, patience: Duration) -> bool {
    idle_since.get_or_insert_with(Instant::now).elapsed() > patience
}

/// Whether a frame is a piece of what was asked for, and not only of how it begins.
fn is_content(frame: &Frame) -> bool {
    !matches!(
        frame,
        Frame::ModelStarted { .. } | Frame::ModelUsage(_) | Frame::Cited(_)
    )
}

/// The routes as they take `request`.
fn as_asked(routes: Vec<Route>, request: &ModelRequest) -> Vec<Route> {
    let asked = |route: Route| route.of_request(request).unwrap_or(route);
    routes.into_iter().map(asked).collect()
}

impl ModelCall {
    /// The form that the answer must have, as far as the target is not held to it.
    pub fn held_to(&self) -> Option<&ResponseFormat> {
        self.undo.held_to.as_deref()
    }

    /// What is told beside it; once.
    pub fn take_beside(&mut self) -> Beside {
        self.beside
            .take()
            .map_or_else(Beside::default, |beside| *beside)
    }

    /// What was asked for and was not sent.
    pub fn lost(&self) -> Lost {
        self.undo.lost
    }

    /// Changes back what was changed in the request.
    fn undo(&mut self, undo: Undo) {
        self.undo = undo;
        self.undo.frames(&mut self.pending);
    }

    /// Reads until there is some content, or the end. A failure behind content is told later.
    pub async fn until_content(&mut self) -> Result<(), ModelError> {
        while !self.has_content && !self.ended {
            let mut more = Vec::new();
            let read = self.read(&mut more).await;
            self.pending.append(&mut more);
            match read {
                Err(error) if self.has_content => {
                    self.ended = true;
                    self.failed = Some(error);
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// All frames.
    pub async fn all(mut self) -> Result<Vec<Frame>, ModelError> {
        let mut all = Vec::new();
        loop {
            let mut frames = Vec::new();
            if !self.frames(&mut frames).await? {
                return Ok(all);
            }
            all.append(&mut frames);
        }
    }

    /// Appends all frames that are ready, waiting for at least one; `false` after the last.
    /// May be dropped while waiting without losing frames.
    pub async fn frames(&mut self, out: &mut Vec<Frame>) -> Result<bool, ModelError> {
        if !self.pending.is_empty() {
            out.append(&mut std::mem::take(&mut self.pending));
            return Ok(true);
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while out.is_empty() && !self.ended {
            self.read(out).await?;
        }
        Ok(!out.is_empty())
    }

    async fn read(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let read = self.decode_read(out).await;
        self.undo.frames(out);
        if read.is_err() {
            self.undo.give_up(out);
        }
        read.map_err(|error| error.without(self.route.secret()))
    }

    async fn decode_read(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let read = match &mut self.response {
            Some(response) => response.chunk().await,
            None => Ok(None),
        };
        let read = match read {
            Ok(Some(read)) => read,
            Ok(None) => return self.rest(out),
            Err(error) => return self.rest_or(error.into(), out),
        };
        self.received += read.len();
        if self.received > self.limit {
            self.response = None;
            return Err(ModelError::TooLarge(self.limit));
        }
        let before = out.len();
        // Frames share this memory.
        self.splitter.push(read);
        loop {
            match self.splitter.next_event() {
                Ok(Some(event)) => self.event(&event, out)?,
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
        if out.len() > before {
            self.idle_since = None;
        } else if is_over(
            &mut self.idle_since,
            Duration::from_millis(self.patience_ms.into()),
        ) {
            return self.rest_or(ModelError::Timeout("nothing but signs of life"), out);
        }
        Ok(())
    }

    /// An answer that has told its end is whole, however its connection ends; else it is `error`.
    fn rest_or(&mut self, error: ModelError, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        self.response = None;
        self.rest(out).map_err(|end| match end {
            ModelError::InStream(_) => end,
            _ => error,
        })
    }

    /// What is behind the last empty line, and the end.
    fn rest(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        // That line is often forgotten. An event that is cut off is none, and what ends without its
        // end is cut off anyway.
        self.splitter.push(Bytes::from_static(b"\n\n"));
        while let Ok(Some(event)) = self.splitter.next_event() {
            match self.event(&event, out) {
                Err(ModelError::Malformed(_)) => break,
                other => other?,
            }
        }
        self.end(out)
    }

    /// Decodes an event. One that tells of a failure, in whatever shape, is that failure.
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let failure = || Fault::in_event(event.name.as_deref(), &event.data);
        let before = out.len();
        if let Err(error) = self.decoder.event(event, out) {
            return Err(failure().map_or(error, |fault| ModelError::InStream(Box::new(fault))));
        }
        let told = match self.has_content {
            true => event.name.as_deref() == Some(b"error"),
            false => {
                self.has_content = out[before..].iter().any(is_content);
                !self.has_content
            }
        };
        match told.then(failure).flatten() {
            Some(fault) => Err(ModelError::InStream(Box::new(fault))),
            None => Ok(()),
        }
    }

    fn end(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        self.ended = true;
        if let Some(response) = self.response.take() {
            response.release();
        }
        self.decoder.finish(out)
    }
}
