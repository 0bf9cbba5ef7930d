//! A call that is passed on to a provider of the client's own wire: bytes stay as they are. They are
//! looked at: an answer that is none is an error, and until the first piece of content the next
//! target is asked. One that is whole where a stream was asked for, or the other way round, is
//! translated.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::headers;
use super::turn::{Answer, count_frames, while_client_waits, while_stream_waits};
use crate::auth::Principal;
use crate::config::ProviderWire;
use crate::edge::stream::{self, Pieces};
use crate::edge::{Exchange, Gone};
use crate::error::ApiError;
use crate::frame::Usage;
use crate::limit::Permit;
use crate::model::{
    Answered, Beside, Completed, Lost, ModelError, Models, Route, is_over, provider, without_secret,
};
use crate::run::Spender;
use crate::sse::{self, EventTooLarge, raw_events};
use crate::upstream::UpstreamResponse;
use crate::wire::StreamGate;

/// Most bytes that are held back before there is content.
const MOST_HELD: usize = 1024 * 1024;

/// What passing on needs to know of a wire.
pub struct SameWire {
    /// For metrics.
    pub wire: &'static str,
    /// How answers are decoded that can't be passed on.
    pub provider_wire: ProviderWire,
    /// Behind the base URL; whether the answer is a stream.
    pub path: fn(&Route, bool) -> Cow<'static, str>,
    /// Of the client's headers, those that its provider is told.
    pub headers: &'static [&'static str],
    /// The member of a whole answer that holds what was asked for.
    pub answer: &'static str,
    /// Whether that may be an empty list.
    pub may_be_empty: bool,
    /// The member that tells why it is not there, where one may.
    pub instead: Option<&'static str>,
    /// The usage in a whole answer.
    pub usage_of_answer: fn(&Bytes) -> Option<Usage>,
    /// For a streamed answer with events of at most so many bytes; whether usage was asked for
    /// here, and is not shown.
    pub gate: fn(usize, bool) -> Box<dyn StreamGate>,
}

/// A body made ready for one route.
pub struct Prepared {
    pub body: Bytes,
    pub hide_usage: bool,
}

/// How an answer has begun.
pub enum Begun {
    Forward(Box<Forward>),
    /// It can't be passed on as it is.
    Translated(Answer, Permit),
    ClientLeft,
}

/// An answer that is passed on.
pub struct Forward {
    caller: Arc<Principal>,
    same_wire: &'static SameWire,
    provider: Arc<str>,
    model: String,
    passing: Passing,
    _permit: Permit,
}

enum Passing {
    Whole(Bytes),
    Stream(Box<StreamPieces>),
}

const ONLY_ALIVE: &str = "nothing but signs of life";

/// A stream with its first piece of content.
struct StreamPieces {
    response: UpstreamResponse,
    gate: Box<dyn StreamGate>,
    held: Bytes,
    /// Since when nothing comes but comments, and for how long they may.
    idle_since: Option<Instant>,
    patience: Duration,
    is_ended: bool,
    /// What ended it, where that was no good end.
    failed: Option<&'static str>,
    /// It told of an error, however it ended.
    has_error: bool,
    /// What the provider must not repeat to the client.
    key: Option<Arc<Zeroizing<String>>>,
}

/// One attempt's answer.
enum Attempt {
    Passing(Passing),
    Translated(Answer),
}

impl SameWire {
    /// Asks `route`, and looks at the answer.
    async fn attempt(
        &self,
        models: &Models,
        limit: usize,
        route: &Route,
        prepared: &Prepared,
        stream: bool,
        told: &[(HeaderName, HeaderValue)],
    ) -> Result<(Attempt, Beside), ModelError> {
        let body = prepared.body.clone();
        let path = (self.path)(route, stream);
        let asked = models.ask(route, &path, body, stream, told);
        let (answered, beside) = asked.await?;
        if let Answered::Whole(whole) = &answered
            && !(self.may_be_empty && whole.outline[self.answer].is_array())
            && self
                .instead
                .is_none_or(|name| whole.outline[name].is_null())
        {
            whole.must_hold(self.answer)?;
        }
        let attempt = match (answered, stream) {
            (Answered::Events(response), true) => {
                let gate = (self.gate)(limit, prepared.hide_usage);
                let mut pieces = StreamPieces::begin(response, gate, models.patience()).await?;
                pieces.key.clone_from(&route.key);
                let held = std::mem::take(&mut pieces.held);
                pieces.held = pieces.clean(held);
                Attempt::Passing(Passing::Stream(Box::new(pieces)))
            }
            (Answered::Whole(whole), false) if !whole.is_in_pieces() => {
                let body = match whole.outline["error"].is_null() {
                    true => whole.body,
                    false => clean_answer(whole.body, route),
                };
                Attempt::Passing(Passing::Whole(body))
            }
            (answered, _) => {
                let api = provider::api(self.provider_wire);
                let mut call = models.call(route, api, answered)?;
                let answer = match stream {
                    true => {
                        call.until_content().await?;
                        Answer::Stream(call)
                    }
                    false => Answer::Whole(Box::new(Completed {
                        route: route.clone(),
                        held_to: None,
                        frames: call.all().await?,
                        lost: Lost::default(),
                        beside: Beside::default(),
                    })),
                };
                Attempt::Translated(answer)
            }
        };
        Ok((attempt, beside))
    }
}

/// Events without `key` in those that tell of an error.
fn without_key(events: Bytes, key: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(events.len());
    for event in raw_events(&events) {
        let Some(data) = event.data() else {
            // A piece of a list, or a comment.
            let told = String::from_utf8_lossy(event.bytes);
            out.extend_from_slice(without_secret(told.into_owned(), Some(key)).as_bytes());
            continue;
        };
        let clean = match serde_json::from_slice::<Value>(&data) {
            Ok(told) if is_told(event.name, &told) => {
                let mut clean = told.clone();
                clean_texts(&mut clean, key);
                (clean != told).then(|| clean.to_string())
            }
            Ok(_) => None,
            Err(_) if event.name == Some(b"error") => {
                let told = String::from_utf8_lossy(&data);
                let clean = without_secret(told.clone().into_owned(), Some(key));
                (clean != told).then_some(clean)
            }
            Err(_) => None,
        };
        match clean {
            Some(clean) => {
                let name = event.name.and_then(|name| std::str::from_utf8(name).ok());
                sse::write_event(&mut out, name, None, &[clean.as_bytes()]);
            }
            None => out.extend_from_slice(event.bytes),
        }
    }
    out.freeze()
}

/// Whether an event tells of an error.
fn is_told(name: Option<&[u8]>, event: &Value) -> bool {
    let has_error = |value: &Value| !value["error"].is_null();
    name == Some(b"error")
        || event["type"] == "error"
        || has_error(event)
        || has_error(&event["response"])
        || event["choices"]
            .as_array()
            .is_some_and(|all| all.iter().any(has_error))
}

fn clean_texts(value: &mut Value, key: &str) {
    match value {
        Value::String(text) => *text = without_secret(std::mem::take(text), Some(key)),
        Value::Array(items) => items.iter_mut().for_each(|item| clean_texts(item, key)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| clean_texts(member, key)),
        _ => {}
    }
}

/// The same for an answer in one piece whose status is good and which tells of an error all the same.
fn clean_answer(body: Bytes, route: &Route) -> Bytes {
    let Some(key) = route.secret() else {
        return body;
    };
    let Ok(mut told) = serde_json::from_slice::<Value>(&body) else {
        return body;
    };
    let before = told["error"].clone();
    clean_texts(&mut told["error"], key);
    match told["error"] == before {
        true => body,
        false => told.to_string().into(),
    }
}

impl StreamPieces {
    /// Reads up to the first piece of content. A failure before is an error.
    async fn begin(
        mut response: UpstreamResponse,
        mut gate: Box<dyn StreamGate>,
        patience: Duration,
    ) -> Result<Self, ModelError> {
        let mut held = BytesMut::new();
        let mut idle_since = None;
        let mut is_ended = false;
        while !gate.has_content() && !is_ended && held.len() <= MOST_HELD {
            match response.chunk().await? {
                // No content yet, whatever the events are.
                Some(_) if is_over(&mut idle_since, patience) => {
                    return Err(ModelError::Timeout(ONLY_ALIVE));
                }
                Some(chunk) => {
                    let events = gate.pass(chunk);
                    held.extend_from_slice(
                        &events.map_err(|e| ModelError::Malformed(e.to_string()))?,
                    );
                }
                None => {
                    is_ended = true;
                    let rest = gate.end();
                    if let Some(failure) = gate.failure() {
                        return Err(failure);
                    }
                    held.extend_from_slice(&rest.ok_or(ModelError::Cut)?);
                }
            }
            if let Some(failure) = gate.failure() {
                return Err(failure);
            }
        }
        Ok(Self {
            response,
            held: held.freeze(),
            idle_since: None,
            patience,
            is_ended: is_ended || gate.is_done(),
            gate,
            failed: None,
            has_error: false,
            key: None,
        })
    }

    /// The rest of a stream of which no more comes; or `error`, if it has not told its end.
    fn end(&mut self, error: ModelError) -> Bytes {
        match self.gate.end() {
            Some(rest) => {
                self.is_ended = true;
                self.clean(rest)
            }
            None => self.fail(error),
        }
    }

    /// What may go on of a read; no error is one of nothing but comments for too long.
    fn pass(&mut self, read: Bytes) -> Result<Bytes, Option<EventTooLarge>> {
        let before = self.gate.events();
        let events = self.gate.pass(read)?;
        if self.gate.events() != before {
            self.idle_since = None;
        } else if is_over(&mut self.idle_since, self.patience) {
            return Err(None);
        }
        Ok(self.clean(events))
    }

    /// Takes the provider's key out of an error that it tells; all else stays as it is.
    fn clean(&mut self, events: Bytes) -> Bytes {
        if !self.gate.told_error() {
            return events;
        }
        self.has_error = true;
        match &self.key {
            Some(key) => without_key(events, key),
            None => events,
        }
    }

    fn fail(&mut self, error: ModelError) -> Bytes {
        self.is_ended = true;
        self.failed = Some(error.kind());
        let mut buf = BytesMut::new();
        self.gate.write_error(&error.into(), &mut buf);
        buf.freeze()
    }
}

impl Pieces for StreamPieces {
    /// What is ready together leaves in one piece; the last is an error that the client must be
    /// told, if there is one.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.held.is_empty() {
            return Some(std::mem::take(&mut self.held));
        }
        if self.is_ended {
            return None;
        }
        match self.response.chunk().await {
            Ok(Some(read)) => match self.pass(read) {
                Ok(events) => {
                    self.is_ended = self.gate.is_done();
                    Some(events)
                }
                Err(None) => Some(self.end(ModelError::Timeout(ONLY_ALIVE))),
                Err(Some(error)) => Some(self.fail(ModelError::Malformed(error.to_string()))),
            },
            Ok(None) => Some(self.end(ModelError::Cut)),
            // An answer that has told its end is whole, however its connection ends.
            Err(error) => Some(self.end(error.into())),
        }
    }
}

impl Forward {
    /// Sends the body on, to the first route that answers. `prepare` is called once for each route.
    pub async fn begin(
        exchange: &mut Exchange,
        caller: Arc<Principal>,
        same_wire: &'static SameWire,
        mut routes: Vec<Route>,
        stream: bool,
        permit: Permit,
        prepare: impl Fn(&Route) -> Result<Prepared, ApiError>,
    ) -> Result<Begun, ApiError> {
        let prepared: Vec<Prepared> = routes.iter().map(prepare).collect::<Result<_, _>>()?;
        let models = exchange.gateway.models.clone();
        let limit = exchange.gateway.config.limits.max_event_bytes;
        let told = headers::onward(exchange, same_wire.headers);
        let answer = {
            let (routes, prepared, models, told) = (&routes, &prepared, &models, &told);
            let sent = models.try_routes(routes, |at| async move {
                let (route, prepared) = (&routes[at], &prepared[at]);
                let attempt = same_wire.attempt(models, limit, route, prepared, stream, told);
                let (attempt, beside) = Box::pin(attempt).await?;
                Ok((at, attempt, beside))
            });
            let sent = pin!(sent);
            match stream {
                true => while_stream_waits(exchange, sent).await,
                false => while_client_waits(exchange, sent).await,
            }
        };
        let answer = headers::answered(exchange, answer)?;
        let Some(((at, attempt, mut beside), attempts)) = answer else {
            return Ok(Begun::ClientLeft);
        };
        beside.attempts = attempts;
        headers::tell(exchange, &routes[at].provider, &routes[at].model, beside);
        Ok(match attempt {
            Attempt::Translated(answer) => Begun::Translated(answer, permit),
            Attempt::Passing(passing) => {
                // Of the route no more is held than what is counted at the end.
                let Route {
                    provider, model, ..
                } = routes.swap_remove(at);
                Begun::Forward(Box::new(Self {
                    caller,
                    same_wire,
                    provider,
                    model,
                    passing,
                    _permit: permit,
                }))
            }
        })
    }

    /// Passes the answer on.
    pub async fn answer(self, exchange: &mut Exchange) -> Result<(), Gone> {
        let Self {
            caller,
            same_wire,
            provider,
            model,
            passing,
            _permit,
        } = self;
        let account = |exchange: &Exchange, usage: &Usage| {
            let accounting = &exchange.gateway.accounting;
            let spender = Spender::caller(&caller);
            accounting.add(&spender, &provider, &model, usage)
        };
        let mut pieces = match passing {
            Passing::Whole(body) => {
                let usage = (same_wire.usage_of_answer)(&body).unwrap_or_default();
                let cost = account(exchange, &usage);
                headers::tell_cost(exchange, cost);
                return exchange.respond_json(StatusCode::OK, body).await;
            }
            Passing::Stream(pieces) => pieces,
        };
        let mut written = exchange.start_stream(&[]).await;
        if written.is_ok() {
            written = stream::write(exchange, &mut *pieces).await;
        }
        let metrics = &exchange.gateway.metrics;
        if written.is_err() {
            metrics.cancelled_calls.inc();
        }
        if let Some(kind) = pieces.failed {
            let errors = &metrics.provider_errors;
            errors.with_label_values(&[&*provider, kind]).inc();
        }
        count_frames(exchange, same_wire.wire, pieces.gate.events());
        account(exchange, &pieces.gate.usage().unwrap_or_default());
        let is_whole = written.is_ok() && pieces.failed.is_none();
        exchange.end_recording(is_whole && !pieces.has_error);
        if is_whole {
            pieces.response.release();
        }
        written
    }
}
