//! How many tokens a request has: Google is asked, all others are an estimate.

use std::borrow::Cow;

use bytes::Bytes;

use super::errors::GeminiErrorOut;
use super::forward::{EVENTS, is_same, prepared};
use super::{GeminiRequest, OWN, decode};
use crate::auth::Use;
use crate::config::ProviderWire;
use crate::edge::{Exchange, Gone, parse, readable};
use crate::error::ApiError;
use crate::model::{Route, provider};
use crate::wire::caller::Caller;
use crate::wire::count::{self, Counted, estimate};
use crate::wire::files;
use crate::wire::routed::Routed;

/// Where Google counts.
fn path(route: &Route) -> Cow<'static, str> {
    let path = provider::api(ProviderWire::Gemini).path(&route.model, false);
    let model = path.trim_end_matches(":generateContent");
    Cow::Owned(format!("{model}:countTokens"))
}

/// Tells how many input tokens a request has. Google's models are asked. For all others, and for a
/// smith, whose own instructions and tools are not in it, it is an estimate; then the answer has the
/// header `IC-Token-Count: estimate`.
#[utoipa::path(post, path = "/v1beta/models/{model}:countTokens", tag = "wires",
    params(("model" = String, Path), ("IC-Smith-Id" = Option<String>, Header),
        ("key" = Option<String>, Query)),
    request_body = Object,
    responses((status = 200, body = Object),
        (status = "default", description = "An error, in Google's envelope",
            body = GeminiErrorOut)))]
pub async fn count_content_tokens(exchange: &mut Exchange, model: String) -> Result<(), Gone> {
    let counted = Box::pin(counted(exchange, &model)).await;
    count::answer(exchange, counted, "totalTokens").await
}

async fn counted(exchange: &mut Exchange, model: &str) -> Result<Counted, ApiError> {
    let Caller {
        principal,
        smith,
        thread,
    } = Caller::using(exchange, Use::GenerateContent).await?;
    let body = exchange.body().await?;
    if smith.is_none() && model != OWN {
        let gateway = exchange.gateway.clone();
        let Routed {
            routes,
            permit: _held,
            ..
        } = Routed::begin(&gateway, &principal, model, thread.is_some()).await?;
        if routes.iter().all(is_same) {
            let body = prepared(&files::forwarded(exchange, &principal, body.clone()).await?)?;
            let asked = routes.iter().map(|route| (path(route), body.clone()));
            let asked: Vec<(_, Bytes)> = asked.collect();
            let told = count::ask(exchange, &EVENTS, &routes, &asked, "totalTokens");
            if let Some(counted) = told.await? {
                return Ok(counted);
            }
        }
    }
    let body = readable(&body);
    let decoded = decode(parse::<GeminiRequest>(&body)?)?;
    Ok(Counted::Estimated(estimate(&decoded.request)))
}
