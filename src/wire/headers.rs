//! Headers of a call without a smith, both ways: what of the client's its provider is told, and what the
//! client is told of who answered.

use http::{HeaderName, HeaderValue};

use crate::edge::{COST, Exchange, cost_value};
use crate::error::ApiError;
use crate::model::{Beside, ModelError};

/// Which provider and model answered.
const ROUTE: HeaderName = HeaderName::from_static("x-smithgate-route");
/// Calls that were made until one was answered.
const ATTEMPTS: HeaderName = HeaderName::from_static("x-smithgate-attempts");
/// The caller's place in its trace (<https://www.w3.org/TR/trace-context/>), which every provider may
/// know.
const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// What the provider is told of the client's headers: the trace, those of the wire, and those that the
/// operator lets through.
pub fn onward(exchange: &Exchange, of_wire: &[&'static str]) -> Vec<(HeaderName, HeaderValue)> {
    let headers = &exchange.request().headers;
    let operators = &exchange.gateway.config.models.forward_headers;
    let names = TRACE.iter().chain(of_wire).copied();
    let names = names.chain(operators.iter().map(String::as_str));
    let mut told: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for name in names {
        let mut values = headers.get_all(name).iter();
        let Some(first) = values.next() else { continue };
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        if told.iter().any(|(other, _)| *other == name) {
            continue;
        }
        // Lists that come in several lines go on in one.
        let value = match values.next() {
            None => first.clone(),
            Some(second) => {
                let lines = [first, second].into_iter().chain(values);
                let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
                match HeaderValue::from_bytes(&lines.join(&b", "[..])) {
                    Ok(joined) => joined,
                    Err(_) => continue,
                }
            }
        };
        told.push((name, value));
    }
    told
}

/// Tells in the answer's header who answered, and what is told beside the answer.
pub fn tell(exchange: &mut Exchange, provider: &str, model: &str, beside: Beside) {
    for (name, value) in beside.headers {
        exchange.tell(name, value);
    }
    if let Ok(route) = HeaderValue::from_str(&format!("{provider}/{model}")) {
        exchange.tell(ROUTE, route);
    }
    exchange.tell(ATTEMPTS, HeaderValue::from(beside.attempts));
}

/// Tells what an answer cost, in nanos, where that is known before it begins.
pub fn tell_cost(exchange: &mut Exchange, nanos: Option<i64>) {
    if let Some(nanos) = nanos {
        exchange.tell(COST, cost_value(nanos));
    }
}

/// The answer of a call, or its failure in the API's words, of which the header tells what its provider
/// told in its own.
pub fn answered<T>(
    exchange: &mut Exchange,
    answer: Option<Result<T, ModelError>>,
) -> Result<Option<T>, ApiError> {
    let error = match answer {
        None => return Ok(None),
        Some(Ok(answer)) => return Ok(Some(answer)),
        Some(Err(error)) => error,
    };
    if let ModelError::Status(fault) = &error {
        for (name, value) in &fault.headers {
            exchange.tell(name.clone(), value.clone());
        }
    }
    Err(error.into())
}
