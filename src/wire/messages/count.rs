//! How many tokens a request has: Anthropic is asked, all others are an estimate.

use std::borrow::Cow;

use bytes::Bytes;

use super::errors::MessagesErrorOut;
use super::forward::{SAME_WIRE, is_same, prepared};
use super::{MessagesRequest, decode};
use crate::auth::Use;
use crate::edge::{Exchange, Gone, parse, readable};
use crate::error::ApiError;
use crate::model::Route;
use crate::wire::caller::Caller;
use crate::wire::count::{self, Counted, estimate};
use crate::wire::files;
use crate::wire::openai::rewrite::named_model;
use crate::wire::routed::Routed;

const PATH: &str = "/messages/count_tokens";

/// Tells how many input tokens a request has. Anthropic's models are asked. For all others, and for a
/// smith, whose own instructions and tools are not in it, it is an estimate; then the answer has the
/// header `IC-Token-Count: estimate`.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header)),
    request_body = Object,
    responses((status = 200, body = Object),
        (status = "default", description = "An error, in Anthropic's envelope",
            body = MessagesErrorOut)))]
pub async fn count_tokens(exchange: &mut Exchange) -> Result<(), Gone> {
    let counted = Box::pin(counted(exchange)).await;
    count::answer(exchange, counted, "input_tokens").await
}

async fn counted(exchange: &mut Exchange) -> Result<Counted, ApiError> {
    let Caller {
        principal,
        smith,
        thread,
    } = Caller::using(exchange, Use::Messages).await?;
    let body = exchange.body().await?;
    if smith.is_none() {
        let (model, _) = named_model::<MessagesRequest>(&body)?;
        let gateway = exchange.gateway.clone();
        let Routed {
            routes,
            permit: _held,
            ..
        } = Routed::begin(&gateway, &principal, &model, thread.is_some()).await?;
        if routes.iter().all(is_same) {
            let body = files::forwarded(exchange, &principal, body.clone()).await?;
            let asked = |route: &Route| Ok((Cow::Borrowed(PATH), prepared(&body, &route.model)?));
            let asked = routes.iter().map(asked);
            let asked: Vec<(_, Bytes)> = asked.collect::<Result<_, ApiError>>()?;
            let told = count::ask(exchange, &SAME_WIRE, &routes, &asked, "input_tokens");
            if let Some(counted) = told.await? {
                return Ok(counted);
            }
        }
    }
    let body = readable(&body);
    let decoded = decode(parse::<MessagesRequest>(&body)?)?;
    Ok(Counted::Estimated(estimate(&decoded.into_request())))
}
