//! Answers to the very same call: found and given again where a call or its alias asks for that, and kept
//! while they are written.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::headers;
use crate::answers::{AnswerKey, KeptAnswer, MAX_SECONDS};
use crate::edge::{Exchange, Gone, Recording};
use crate::error::ApiError;
use crate::store::now_micros;

/// In a request: for how many seconds its answer may be kept and given again; `0` asks for a new one,
/// whatever its alias says. In an answer: whether it was (`hit`, `miss`).
const CACHE: HeaderName = HeaderName::from_static("x-smithgate-cache");

/// How long an answer may be kept; `None`: it is not, and no other is given.
fn seconds(exchange: &Exchange, of_alias: Option<u64>) -> Result<Option<u64>, ApiError> {
    let Some(asked) = exchange.header(CACHE.as_str()) else {
        return Ok(of_alias.filter(|seconds| *seconds > 0));
    };
    match asked.trim().parse::<u64>() {
        Ok(seconds) if seconds <= MAX_SECONDS => Ok((seconds > 0).then_some(seconds)),
        _ => Err(ApiError::invalid(
            "X-Smithgate-Cache",
            format!("must be a number of seconds, 0 to {MAX_SECONDS}"),
        )),
    }
}

/// The answer to the same call, where it may be given again; where it is not there, this call's is kept.
pub async fn find(
    exchange: &mut Exchange,
    tenant_id: &str,
    (model, body): (&str, &Bytes),
    of_wire: &[&'static str],
    of_alias: Option<u64>,
) -> Result<Option<Box<KeptAnswer>>, ApiError> {
    let Some(lasts) = seconds(exchange, of_alias)? else {
        return Ok(None);
    };
    let told = headers::onward(exchange, of_wire);
    // Forms of one path's streams differ in it.
    let alive = exchange.sign_of_life();
    let mut parts: Vec<&[u8]> = vec![exchange.route.as_bytes(), &alive, model.as_bytes(), body];
    for (name, value) in &told {
        // Where a caller stands in its trace changes no answer.
        if !name.as_str().starts_with("trace") {
            parts.extend([name.as_str().as_bytes(), value.as_bytes()]);
        }
    }
    let key = AnswerKey::of(tenant_id, &parts);
    let now = now_micros();
    if let Some(found) = exchange.gateway.answers.clone().find(&key, now).await {
        let hits = &exchange.gateway.metrics.cache_hits;
        hits.with_label_values(&["answers"]).inc();
        exchange.tell(CACHE, HeaderValue::from_static("hit"));
        let age = u64::try_from((now - found.kept_at) / 1_000_000).unwrap_or(0);
        exchange.tell(header::AGE, HeaderValue::from(age));
        return Ok(Some(Box::new(KeptAnswer::clone(&found))));
    }
    let misses = &exchange.gateway.metrics.cache_misses;
    misses.with_label_values(&["answers"]).inc();
    exchange.tell(CACHE, HeaderValue::from_static("miss"));
    exchange.record(Recording::new(key, lasts));
    Ok(None)
}

/// Gives an answer again.
pub async fn answer(exchange: &mut Exchange, kept: KeptAnswer) -> Result<(), Gone> {
    if !kept.is_stream {
        return exchange.respond_json(StatusCode::OK, kept.content).await;
    }
    exchange.start_stream(&[]).await?;
    exchange.write(kept.content).await
}
