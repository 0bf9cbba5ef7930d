//! A call that is passed on: where it goes, its body on the way there, and the answer on its way back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, header};

use super::answer::Answer;
use super::form;
use super::paths::{About, PATHS, PROVIDER, Relayed};
use crate::auth::{Principal, Rights, Scope, model_not_allowed};
use crate::config::{Passthrough, ProviderWire, cannot_forward};
use crate::edge::{Exchange, Gone, Ids, Route as Listed, readable, takes_body};
use crate::error::ApiError;
use crate::limit::Permit;
use crate::model::{ModelError, Models, RelayCall, Route, percent_decoded, without_secret};
use crate::run::Spender;
use crate::upstream::{SendError, Source, UpstreamResponse};
use crate::wire::caller::Caller;
use crate::wire::headers;
use crate::wire::openai::rewrite::{named_in, rewrite};
use crate::wire::routed::{allowed, check_beside, may_ask};
use crate::wire::turn::while_client_waits;

/// Of an answer that is an error, what is passed on.
const MAX_ERROR_BODY: usize = 1024 * 1024;
/// What a body that is passed on takes of the node's budget, whatever its length.
const HELD: usize = 256 * 1024;
/// Headers of callers that a provider's own paths are told, beside the content's.
const TOLD: [&str; 8] = [
    "openai-organization",
    "openai-project",
    "openai-beta",
    "x-client-request-id",
    "idempotency-key",
    "http-referer",
    "x-title",
    "user-agent",
];
/// What callers or proxies in front say of the way to the gateway, which is nobody else's.
const OF_THE_WAY: [&str; 9] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-request-id",
    "origin",
    "referer",
    "traceparent",
    "tracestate",
    "priority",
];

/// What this wire answers.
pub fn routes() -> Vec<Listed> {
    let mut routes = Vec::new();
    for path in PATHS {
        for method in path.methods {
            let route = Listed::wire(method.clone(), path.pattern, |exchange, ids| {
                Box::pin(serve(exchange, ids))
            });
            let begins = matches!(path.about, About::Model(_));
            routes.push(if begins { route.begins_work() } else { route });
        }
    }
    routes
}

/// Passes a call on.
pub async fn serve(exchange: &mut Exchange, ids: Ids<'_>) -> Result<(), Gone> {
    let named = ids.first().map(|id| (*id).to_owned());
    match Box::pin(begin(exchange, named)).await {
        Ok(Some(answer)) => Box::pin(answer.write(exchange)).await,
        Ok(None) => Err(Gone),
        Err(error) => exchange.respond_error(&error).await,
    }
}

/// A call whose caller may make it.
struct Call {
    relayed: &'static Relayed,
    principal: Arc<Principal>,
    smith: Option<Arc<str>>,
    spender: Spender,
    permit: Permit,
    method: Method,
    /// Behind the provider's base URL.
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The provider, where it is named.
    provider: Option<String>,
}

async fn begin(
    exchange: &mut Exchange,
    in_path: Option<String>,
) -> Result<Option<Answer>, ApiError> {
    let relayed = PATHS
        .iter()
        .find(|path| path.pattern == exchange.route)
        .ok_or_else(|| ApiError::internal("a route that is in no table"))?;
    let caller = match relayed.about {
        About::Model(what) => Caller::using(exchange, what).await?,
        _ => Caller::of(exchange, Scope::RunsWrite).await?,
    };
    let Caller {
        principal, smith, ..
    } = caller;
    let gateway = exchange.gateway.clone();
    if !matches!(relayed.about, About::Model(_)) {
        principal.require_admin()?;
        if gateway.config.models.passthrough == Passthrough::Off {
            let why = "the operator has turned this off (models.passthrough)";
            return Err(ApiError::forbidden("passthrough_off", why));
        }
    }
    let spender = gateway.spender(&principal, smith.as_ref()).await?;
    gateway.budgets.check(&spender).await?;
    let permit = gateway.admission.begin_run(&principal, smith.as_ref())?;
    let provider = match relayed.about {
        About::Anything => in_path,
        _ => exchange.header(PROVIDER).map(str::to_owned),
    };
    let method = exchange.request().method.clone();
    let call = Call {
        path: target(exchange, relayed)?,
        headers: onward(exchange, relayed.about),
        relayed,
        principal,
        smith,
        spender,
        permit,
        method,
        provider,
    };
    let content = exchange.header("content-type").unwrap_or_default();
    let is_json = content.is_empty() || content.to_ascii_lowercase().contains("json");
    if takes_body(&call.method) && !(is_json && relayed.about != About::Anything) {
        return Box::pin(pass_pieces(exchange, call)).await;
    }
    let body = match takes_body(&call.method) {
        true => readable(&exchange.body().await?),
        false => Bytes::new(),
    };
    let model = named_in(&body)?;
    let routes = call.routes(exchange, model.as_deref()).await?;
    if !body.is_empty() {
        check_beside(&call.principal, &routes, &body)?;
    }
    let mut bodies = Vec::with_capacity(routes.len());
    for route in &routes {
        bodies.push(match model {
            Some(_) => rewrite(&body, &route.model, false)?.body,
            None => body.clone(),
        });
    }
    let models = gateway.models.clone();
    let sent = {
        let (models, call, routes, bodies) = (&models, &call, &routes, &bodies);
        let sent = models.try_routes(routes, |at| async move {
            let asked = call.asked();
            let response = models
                .relay(&routes[at], &asked, bodies[at].clone())
                .await?;
            Ok((at, call.looked_at(models, response).await?))
        });
        let sent = std::pin::pin!(sent);
        while_client_waits(exchange, sent).await
    };
    let sent = headers::answered(exchange, sent)?;
    let Some(((at, response), attempts)) = sent else {
        return Ok(None);
    };
    let answer = call.answer(exchange, &routes[at], response, attempts);
    Ok(Some(answer.await))
}

impl Call {
    fn asked(&self) -> RelayCall<'_> {
        RelayCall {
            method: self.method.clone(),
            path: &self.path,
            headers: &self.headers,
        }
    }

    /// An answer; of a path that is known here, one that tells of an error is one.
    async fn looked_at(
        &self,
        models: &Models,
        response: UpstreamResponse,
    ) -> Result<UpstreamResponse, ModelError> {
        match self.relayed.about {
            About::Anything => Ok(response),
            _ => models.relayed(response).await,
        }
    }

    /// Where it may go: to the model's targets, else to the provider that is named, else to OpenAI.
    async fn routes(
        &self,
        exchange: &Exchange,
        model: Option<&str>,
    ) -> Result<Vec<Route>, ApiError> {
        let routing = &exchange.gateway.models.routing;
        let (tenant_id, smith) = (&self.principal.tenant_id, self.smith.as_ref());
        let about = self.relayed.about;
        let model = model.filter(|_| about != About::Anything);
        let (called, found) = match (&self.provider, model) {
            (None, Some(model)) => {
                let found = routing.resolve(tenant_id, smith, model).await;
                (model.to_owned(), found)
            }
            (provider, model) => {
                let provider = provider.as_deref().unwrap_or("openai");
                let prefix = format!("{provider}/");
                let id = model.map(|model| model.strip_prefix(&prefix).unwrap_or(model));
                let id = id.unwrap_or_default();
                let found = routing.provider(tenant_id, smith, provider, id).await;
                (format!("{prefix}{id}"), found.map(|route| vec![route]))
            }
        };
        let mut routes = match found {
            Err(_) if !may_ask(&self.principal, &called) => {
                return Err(model_not_allowed(&called));
            }
            routes => allowed(&self.principal, &called, routes?)?,
        };
        if about == About::Anything {
            return self.own(exchange, routes);
        }
        let speaks = |route: &Route| {
            matches!(
                route.wire,
                ProviderWire::OpenaiChat | ProviderWire::OpenaiResponses
            )
        };
        if !routes.iter().any(speaks) {
            let name = routes.first().map_or("", |route| &route.provider);
            let why =
                format!("the provider '{name}' does not speak OpenAI's API, and has no such path");
            return Err(ApiError::bad_request("unsupported", why).param("model"));
        }
        routes.retain(speaks);
        match about {
            About::Account => self.own(exchange, routes),
            _ => Ok(routes),
        }
    }

    /// Those that the tenant has a key of its own for, unless an account may be shared.
    fn own(&self, exchange: &Exchange, mut routes: Vec<Route>) -> Result<Vec<Route>, ApiError> {
        if exchange.gateway.config.models.passthrough == Passthrough::All {
            return Ok(routes);
        }
        routes.retain(|route| route.is_own_key);
        match routes.is_empty() {
            false => Ok(routes),
            true => Err(ApiError::forbidden(
                "own_key_required",
                "what a provider keeps for an account is reached with the project's own key: set one \
                 with PUT /v1/tenant/model_keys/{provider}",
            )),
        }
    }

    async fn answer(
        self,
        exchange: &mut Exchange,
        route: &Route,
        mut response: UpstreamResponse,
        attempts: u32,
    ) -> Answer {
        let mut beside = crate::model::Beside::of(&response.headers);
        beside.attempts = attempts;
        let model = match route.model.is_empty() {
            true => "*",
            false => &route.model,
        };
        headers::tell(exchange, &route.provider, model, beside);
        let error = match response.status.is_success() {
            true => None,
            // A key that is repeated there goes no further.
            false => {
                let body = response.beginning(MAX_ERROR_BODY).await;
                Some(match std::str::from_utf8(&body) {
                    Ok(text) => without_secret(text.to_owned(), route.secret()).into(),
                    Err(_) => body,
                })
            }
        };
        Answer {
            response,
            error,
            provider: route.provider.clone(),
            model: route.model.clone(),
            spender: self.spender,
            _permit: self.permit,
        }
    }
}

/// The path behind the base URL, with the query.
fn target(exchange: &Exchange, relayed: &Relayed) -> Result<String, ApiError> {
    let uri = &exchange.request().uri;
    // `/v1`, or `/v1/passthrough/{provider}`.
    let before = match relayed.about {
        About::Anything => 4,
        _ => 2,
    };
    let mut pieces = uri.path().splitn(before + 1, '/');
    let path = pieces.nth(before).unwrap_or_default();
    let is_bad = |segment: &str| {
        let plain = percent_decoded(segment);
        matches!(&*plain, b"." | b"..")
            || plain
                .iter()
                .any(|b| matches!(b, b'\\' | b'/' | 0..=31 | 127))
    };
    if path.split('/').any(is_bad) {
        let why = "the path has a segment that leads elsewhere";
        return Err(ApiError::bad_request("invalid_request", why));
    }
    let mut target = format!("/{path}");
    // A caller's own key may stand in the query, as Google's clients send it.
    let query = uri.query().unwrap_or_default();
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("key"))
        .collect();
    if !rest.is_empty() {
        target.push('?');
        target.push_str(&rest.join("&"));
    }
    Ok(target)
}

/// What the provider is told of the caller's headers.
fn onward(exchange: &Exchange, about: About) -> Vec<(HeaderName, HeaderValue)> {
    let mut told = headers::onward(exchange, &TOLD);
    let sent = &exchange.request().headers;
    if about == About::Anything {
        for (name, value) in sent {
            let text = name.as_str();
            let is_ours = cannot_forward(text).is_some()
                || OF_THE_WAY.contains(&text)
                || text.starts_with("x-smithgate-")
                || text.starts_with("x-forwarded-");
            if !is_ours && !told.iter().any(|(other, _)| other == name) {
                told.push((name.clone(), value.clone()));
            }
        }
    }
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = sent.get(&name) {
            told.push((name, value.clone()));
        }
    }
    told
}

/// A body that goes on as it arrives.
struct Arriving<'a> {
    exchange: &'a mut Exchange,
    received: usize,
    limit: usize,
    begun: Instant,
}

impl Source for Arriving<'_> {
    type Error = ApiError;

    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let server = &self.exchange.gateway.config.server;
        let patience = Duration::from_secs(server.body_timeout_s);
        // Slow as a whole is too slow, too.
        let rate = server.min_upload_rate.max(1);
        let due = patience + Duration::from_secs(self.received as u64 / rate);
        let left = due.saturating_sub(self.begun.elapsed());
        let piece = self.exchange.body_piece(patience.min(left)).await?;
        if let Some(piece) = &piece {
            self.received += piece.len();
            if self.received > self.limit {
                return Err(ApiError::too_large(self.limit));
            }
        }
        Ok(piece)
    }
}

/// Passes a call on whose body is not looked at, but for the model in the beginning of a form.
async fn pass_pieces(exchange: &mut Exchange, mut call: Call) -> Result<Option<Answer>, ApiError> {
    let limit = exchange.gateway.config.limits.max_file_bytes;
    exchange.hold(HELD).await?;
    exchange.begin_body(limit).await?;
    let length = exchange.header("content-length");
    let mut length: Option<u64> = length.and_then(|length| length.parse().ok());
    let packed = exchange
        .request()
        .headers
        .get(header::CONTENT_ENCODING)
        .cloned();
    let boundary = exchange.header("content-type").and_then(form::boundary);
    let mut arriving = Arriving {
        exchange,
        received: 0,
        limit,
        begun: Instant::now(),
    };
    let mut begun = BytesMut::new();
    let mut model = None;
    if let Some(boundary) = boundary.filter(|_| packed.is_none())
        && call.relayed.about != About::Anything
    {
        while model.is_none() && begun.len() < form::LOOKED_THROUGH {
            let Some(piece) = arriving.next().await? else {
                break;
            };
            begun.extend_from_slice(&piece);
            model = form::model(&begun, &boundary);
        }
    }
    if call.principal.rights().is_some_and(Rights::is_limited) {
        // Who may ask some models only shows all of the form: a second name might be the one that counts.
        let limit = arriving.exchange.gateway.config.server.max_body_bytes;
        while let Some(piece) = arriving.next().await? {
            begun.extend_from_slice(&piece);
            if begun.len() > limit {
                return Err(ApiError::too_large(limit));
            }
        }
        if model.is_none() || form::parts_about_models(&begun) != 1 {
            let why = "the form must name one model, which this key may use";
            return Err(ApiError::invalid("model", why));
        }
    }
    call.headers
        .extend(packed.map(|packed| (header::CONTENT_ENCODING, packed)));
    let named = model
        .clone()
        .map(|at| String::from_utf8_lossy(&begun[at]).into_owned());
    let routes = call.routes(arriving.exchange, named.as_deref()).await?;
    let route = routes
        .into_iter()
        .next()
        .ok_or_else(|| ApiError::invalid("model", "has no target"))?;
    if let Some(at) = model {
        let before = at.len() as u64;
        let mut other = BytesMut::with_capacity(begun.len() + route.model.len());
        other.extend_from_slice(&begun[..at.start]);
        other.extend_from_slice(route.model.as_bytes());
        other.extend_from_slice(&begun[at.end..]);
        begun = other;
        length = length.map(|length| length - before + route.model.len() as u64);
    }
    let models: Arc<Models> = arriving.exchange.gateway.models.clone();
    let asked = call.asked();
    let sent = models.relay_pieces(&route, &asked, begun.freeze(), length, &mut arriving);
    let sent = match Box::pin(sent).await {
        Ok(sent) => sent,
        Err(SendError::Source(error)) => return Err(error),
        Err(SendError::Upstream(error)) => return Err(ModelError::from(error).into()),
    };
    let exchange = arriving.exchange;
    let answered = async { call.looked_at(&models, sent.answer().await?).await };
    let answered = while_client_waits(exchange, std::pin::pin!(answered)).await;
    let answered = answered.map(|answer| answer.map_err(|error| error.without(route.secret())));
    let Some(response) = headers::answered(exchange, answered)? else {
        return Ok(None);
    };
    let answer = call.answer(exchange, &route, response, 1);
    Ok(Some(answer.await))
}
