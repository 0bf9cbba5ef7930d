//! Calls that are no model's turn: passed on to a provider as they are, answered as it answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};

use super::call::{Models, failure_of, headers_of};
use super::error::ModelError;
use super::routing::Route;
use crate::upstream::{SendError, Source, Timeouts, Unanswered, UpstreamRequest, UpstreamResponse};

/// A call that is passed on.
pub struct RelayCall<'a> {
    pub method: Method,
    /// Behind the provider's base URL, with its query.
    pub path: &'a str,
    /// Besides those that carry the key.
    pub headers: &'a [(HeaderName, HeaderValue)],
}

impl RelayCall<'_> {
    fn request<'a>(
        &'a self,
        headers: &'a [(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> UpstreamRequest<'a> {
        UpstreamRequest {
            method: self.method.clone(),
            path: self.path,
            headers,
            body,
            repeatable: self.method == Method::GET,
        }
    }
}

impl Models {
    fn relay_timeouts(&self) -> Timeouts {
        Timeouts {
            connect: Duration::from_millis(self.limits.connect_timeout_ms),
            first_byte: self.patience(),
            idle: Duration::from_millis(self.limits.idle_timeout_ms),
        }
    }

    /// Passes a call with a whole body on; an answer with any status.
    pub async fn relay(
        &self,
        route: &Route,
        call: &RelayCall<'_>,
        body: Bytes,
    ) -> Result<UpstreamResponse, ModelError> {
        let headers = headers_to(route, call);
        let request = call.request(&headers, body);
        let sent = self
            .upstream
            .send(&route.endpoint, &request, self.relay_timeouts());
        Ok(sent.await?)
    }

    /// The same, but for the answer, with a body that begins with `begun` and goes on as `source` has it, `length` bytes
    /// together where that is known.
    pub async fn relay_pieces<S: Source>(
        &self,
        route: &Route,
        call: &RelayCall<'_>,
        begun: Bytes,
        length: Option<u64>,
        source: &mut S,
    ) -> Result<Unanswered, SendError<S::Error>> {
        let headers = headers_to(route, call);
        let request = call.request(&headers, begun);
        let (endpoint, timeouts) = (&route.endpoint, self.relay_timeouts());
        let sent = self
            .upstream
            .send_pieces(endpoint, &request, length, source, timeouts);
        sent.await
    }

    /// What a provider answered; an error for a status that is one.
    pub async fn relayed(
        &self,
        response: UpstreamResponse,
    ) -> Result<UpstreamResponse, ModelError> {
        match response.status.is_success() {
            true => Ok(response),
            false => Err(failure_of(response).await),
        }
    }
}

fn headers_to(route: &Route, call: &RelayCall<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = headers_of(route);
    // What the caller says goes before what a wire has by default, but for the key.
    headers.retain(|(name, _)| {
        *name != header::CONTENT_TYPE && !call.headers.iter().any(|(other, _)| other == name)
    });
    headers.extend_from_slice(call.headers);
    headers.push((
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    ));
    headers
}
