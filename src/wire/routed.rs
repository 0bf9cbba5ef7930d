//! Calls that name a provider's model instead of a smith: passed on where client and provider speak
//! the same wire, translated otherwise. What differs between wires is a [`ModelWire`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::fields::{Fields, Given, OnUnsupported};
use super::forward::{Begun, Forward, Prepared, SameWire};
use super::keyed::first_answer;
use super::turn::{Answer, translate_stream, whole_answer};
use super::{AnswerEncoder, cached, files};
use crate::answers::KeptAnswer;
use crate::auth::{Principal, Rights, model_not_allowed};
use crate::edge::{Exchange, Gone, readable};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::limit::Permit;
use crate::model::{ModelError, ModelRequest, Route, split_model};
use crate::run::{Collected, Spender};

/// How a wire's calls are read, passed on and answered.
pub trait ModelWire: 'static {
    /// What of a call its answer repeats, or hangs on.
    type Asked: Send + Sync;
    type Encoder: AnswerEncoder + Send;
    /// How an answer in the same wire is passed on.
    const SAME_WIRE: &'static SameWire;
    /// What its members become when a call is translated.
    const FIELDS: Fields;

    /// Whether a call may be passed on to `route` as it is.
    fn is_same(route: &Route) -> bool;
    /// A body for one route of the same wire.
    fn prepare(body: &Bytes, route: &Route, stream: bool) -> Result<Prepared, ApiError>;
    /// Of a call that was passed on and whose answer cannot be. What is passed on need not be
    /// understood here.
    fn passed_on(body: &Bytes) -> Self::Asked;
    /// A call that is translated.
    fn read(body: &Bytes) -> Result<(ModelRequest, Self::Asked), ApiError>;
    /// What writes a streamed answer, which says that it is `model`'s.
    fn encoder(asked: Self::Asked, model: &str) -> Self::Encoder;
    /// The same in one piece.
    fn whole(asked: Self::Asked, model: &str, answer: Collected) -> Bytes;
}

/// What a call turned out to be, with its provider's answer begun where there is one.
pub enum Plan<W: ModelWire> {
    Forward(Box<Forward>),
    Translate(Box<Translate<W>>),
    /// The answer to the first call with its key.
    Again(Box<(StatusCode, Bytes)>),
    /// The answer to the very same call.
    Kept(Box<KeptAnswer>),
    ClientLeft,
}

/// A call that is asked for.
pub struct Call {
    pub model: String,
    pub stream: bool,
    /// It names a thread, which only a smith has.
    pub has_thread: bool,
    pub body: Bytes,
}

impl<W: ModelWire> Plan<W> {
    /// Asks the first route that answers.
    pub async fn begin(
        exchange: &mut Exchange,
        principal: &Arc<Principal>,
        call: Call,
    ) -> Result<Self, ApiError> {
        let Call {
            model,
            stream,
            has_thread,
            body,
        } = call;
        if let Some(first) = first_answer(exchange, principal, &body).await? {
            return Ok(Self::Again(Box::new(first)));
        }
        let gateway = exchange.gateway.clone();
        let Routed {
            tenant_id,
            routes,
            permit,
        } = Routed::begin(&gateway, principal, &model, has_thread).await?;
        check_beside(principal, &routes, &body)?;
        let of_alias = gateway.models.routing.kept_seconds(&model);
        let found = cached::find(
            exchange,
            &tenant_id,
            (&model, &body),
            W::SAME_WIRE.headers,
            of_alias,
        );
        if let Some(kept) = found.await? {
            return Ok(Self::Kept(kept));
        }
        if routes.iter().all(W::is_same) {
            let body = files::forwarded(exchange, principal, body).await?;
            let prepare = |route: &Route| W::prepare(&body, route, stream);
            let (caller, same) = (principal.clone(), W::SAME_WIRE);
            let begun = Forward::begin(exchange, caller, same, routes, stream, permit, prepare);
            return Ok(match Box::pin(begun).await? {
                Begun::Forward(forward) => Self::Forward(forward),
                Begun::Translated(answer, permit) => Self::Translate(Box::new(Translate {
                    caller: principal.clone(),
                    model,
                    asked: W::passed_on(&body),
                    answer,
                    _permit: permit,
                })),
                Begun::ClientLeft => Self::ClientLeft,
            });
        }
        let body = readable(&body);
        let (mut request, asked) = W::read(&body)?;
        let given = Given::of(exchange, &body, W::FIELDS)?;
        request.loses_nothing = given.on_unsupported == OnUnsupported::Error;
        files::check(&gateway, principal, &request.turns, &body).await?;
        let routes = files::inline(exchange, &tenant_id, routes, &mut request, &body).await?;
        let begun = Answer::begin(exchange, &tenant_id, routes, &request, stream);
        let begun = Box::pin(begun).await;
        let Some(mut answer) = begun.map_err(|error| given.in_callers_words(error))? else {
            return Ok(Self::ClientLeft);
        };
        answer.tell(exchange);
        given.tell(exchange, answer.lost());
        Ok(Self::Translate(Box::new(Translate {
            caller: principal.clone(),
            model,
            asked,
            answer,
            _permit: permit,
        })))
    }

    /// Writes the answer.
    pub async fn answer(self, exchange: &mut Exchange) -> Result<(), Gone> {
        match self {
            Self::Forward(forward) => Box::pin(forward.answer(exchange)).await,
            Self::Translate(translate) => Box::pin(translate.answer(exchange)).await,
            Self::Again(first) => Box::pin(exchange.respond_json(first.0, first.1)).await,
            Self::Kept(kept) => Box::pin(cached::answer(exchange, *kept)).await,
            Self::ClientLeft => Err(Gone),
        }
    }
}

/// An answer that is translated.
pub struct Translate<W: ModelWire> {
    caller: Arc<Principal>,
    /// As the client named it.
    model: String,
    asked: W::Asked,
    answer: Answer,
    _permit: Permit,
}

impl<W: ModelWire> Translate<W> {
    async fn answer(self, exchange: &mut Exchange) -> Result<(), Gone> {
        match self.answer {
            Answer::Whole(completed) => {
                let answer = match whole_answer(exchange, &self.caller, &completed).await {
                    Ok(answer) => answer,
                    Err(error) => return exchange.respond_error(&error).await,
                };
                let body = W::whole(self.asked, &self.model, answer);
                exchange.respond_json(StatusCode::OK, body).await
            }
            Answer::Stream(mut call) => {
                let mut encoder = W::encoder(self.asked, &self.model);
                let wire = W::SAME_WIRE.wire;
                translate_stream(exchange, &self.caller, &mut call, &mut encoder, wire).await
            }
        }
    }
}

/// A call that names a provider's model instead of a smith.
pub struct Routed {
    pub tenant_id: Arc<str>,
    pub routes: Vec<Route>,
    pub permit: Permit,
}

impl Routed {
    /// 400 `smith_required` when nobody is known to have `model`, or a thread is named.
    pub async fn begin(
        gateway: &Gateway,
        principal: &Principal,
        model: &str,
        has_thread: bool,
    ) -> Result<Self, ApiError> {
        let routing = &gateway.models.routing;
        if has_thread || !routing.is_routable(model) {
            return Err(smith_required(
                "name a smith with IC-Smith-Id, or a model as <provider>/<model>",
            ));
        }
        let tenant_id = principal.tenant_id.clone();
        gateway.budgets.check(&Spender::caller(principal)).await?;
        let permit = gateway.admission.begin_run(principal, None)?;
        let routes = match routing.resolve(&tenant_id, None, model).await {
            Err(ModelError::UnknownModel(why)) => {
                let why = format!("{why}, or name a smith with IC-Smith-Id");
                return Err(smith_required(why).param("model"));
            }
            // Whether there is a provider's key for a model is nothing to one who may not ask it.
            Err(_) if !may_ask(principal, model) => return Err(model_not_allowed(model)),
            routes => allowed(principal, model, routes?)?,
        };
        Ok(Self {
            tenant_id,
            routes,
            permit,
        })
    }
}

/// Whether the caller may ask `model`, as it stands there.
pub fn may_ask(principal: &Principal, model: &str) -> bool {
    let named = |rights: &Rights| match split_model(model) {
        Some((provider, model)) => rights.takes(provider, model),
        None => false,
    };
    let rights = principal.rights();
    rights.is_none_or(|rights| rights.names(model) || named(rights))
}

/// Those of `routes` that the caller may ask, where it has called them `model`: a virtual key's list
/// may name an alias, or what the alias leads to.
///
/// # Errors
/// 403 `model_not_allowed`.
pub fn allowed(
    principal: &Principal,
    model: &str,
    mut routes: Vec<Route>,
) -> Result<Vec<Route>, ApiError> {
    let Some(rights) = principal.rights().filter(|rights| !rights.names(model)) else {
        return Ok(routes);
    };
    routes.retain(|route| rights.takes(&route.provider, &route.model));
    match routes.is_empty() {
        true => Err(model_not_allowed(model)),
        false => Ok(routes),
    }
}

/// What of a body can name other models than its own, where it is passed on: OpenRouter's fallbacks and
/// plugins, tools that ask a model of their own, and what is added to APIs tomorrow. What people and
/// models said, and what they may say, names none.
#[derive(Deserialize)]
struct Beside {
    #[serde(default, rename = "model")]
    _model: IgnoredAny,
    #[serde(default, rename = "messages")]
    _messages: IgnoredAny,
    #[serde(default, rename = "input")]
    _input: IgnoredAny,
    #[serde(default, rename = "system")]
    _system: IgnoredAny,
    #[serde(default, rename = "instructions")]
    _instructions: IgnoredAny,
    #[serde(default, rename = "metadata")]
    _metadata: IgnoredAny,
    #[serde(default, rename = "response_format")]
    _response_format: IgnoredAny,
    #[serde(default, rename = "text")]
    _text: IgnoredAny,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Beside {
    /// Finds the models that are named.
    fn each(&self, found: &mut impl FnMut(&str)) {
        for (name, value) in &self.rest {
            // Servers that do not mind the case of names would take it for the model.
            if name.eq_ignore_ascii_case("model") {
                found(value.as_str().unwrap_or_default());
            }
            match value {
                Value::Array(items) if name.eq_ignore_ascii_case("tools") => {
                    for tool in items {
                        named_in(tool, found);
                    }
                }
                value => named_by(name, value, found),
            }
        }
    }
}

/// Models that an object names, whatever lies deeper than its schemas.
fn named_in(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| named_in(item, found)),
        Value::Object(members) => {
            for (name, value) in members {
                match name.as_str() {
                    "function" | "parameters" | "input_schema" | "schema" => {}
                    name => named_by(name, value, found),
                }
            }
        }
        _ => {}
    }
}

/// Models that a member names.
fn named_by(name: &str, value: &Value, found: &mut impl FnMut(&str)) {
    let names_models = ["model", "models", "fallbacks", "fallback_models"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known));
    match value {
        Value::String(model) if names_models => found(model),
        Value::Array(items) if names_models => {
            for item in items {
                match item {
                    Value::String(model) => found(model),
                    other => named_in(other, found),
                }
            }
        }
        other => named_in(other, found),
    }
}

/// Refuses models that a body names beside its own, where the caller is for some models only.
pub fn check_beside(principal: &Principal, routes: &[Route], body: &[u8]) -> Result<(), ApiError> {
    let Some(rights) = principal.rights().filter(|rights| rights.is_limited()) else {
        return Ok(());
    };
    let beside: Beside = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request("invalid_request", error.to_string()))?;
    let mut refused = None;
    beside.each(&mut |model| {
        let takes = |route: &Route| rights.takes(&route.provider, model);
        if !routes.iter().all(takes) {
            refused.get_or_insert_with(|| model_not_allowed(model));
        }
    });
    refused.map_or(Ok(()), Err)
}

fn smith_required(why: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::bad_request("smith_required", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_beside_the_own_one_are_found() {
        let found = |body: &str| {
            let beside: Beside = serde_json::from_str(body).expect("an object");
            let mut models = Vec::new();
            beside.each(&mut |model| models.push(model.to_owned()));
            models
        };
        for (body, expected) in [
            (
                r#"{"model":"a","messages":[{"model":"x","models":["y"]}],"metadata":{"model":"z"}}"#,
                &[][..],
            ),
            (r#"{"model":"a","models":["b","c"]}"#, &["b", "c"]),
            (r#"{"model":"a","Model":"b"}"#, &["b", "b"]),
            (
                r#"{"fallbacks":[{"model":"b"},"c"],"plugins":[{"id":"f","models":["d"]}]}"#,
                &["b", "c", "d"],
            ),
            (
                r#"{"tools":[{"type":"advisor","model":"b"},
                {"type":"function","function":{"parameters":{"properties":{"model":"x"}}}},
                {"name":"t","input_schema":{"model":"x"}}]}"#,
                &["b"],
            ),
            (r#"{"extra_body":{"deep":{"model":"b"}}}"#, &["b"]),
        ] {
            assert_eq!(found(body), expected, "{body}");
        }
    }
}
