//! The answer: its header, and how it begins and is written.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_http::ResponseHeader;

use super::body::{SMALL_BODY, UNKNOWN_CODING};
use super::{Exchange, Extra, Gone};
use crate::coding;
use crate::edge::dialect::EVENTS;
use crate::edge::idempotency::REPLAYED;
use crate::error::ApiError;

/// Response headers that scripts of other origins may read.
const EXPOSED: &str = "X-Request-Id, Retry-After, Idempotent-Replayed, X-RateLimit-Limit-Requests, \
    X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, X-Smithgate-Route, \
    X-Smithgate-Attempts, X-Smithgate-Cache, X-Smithgate-Cost, Age, X-Smithgate-Unsupported, X-Smithgate-Provider-Request-Id";

/// What is written at once of an answer, so that the time for one write fits all lengths.
const ANSWER_PIECE: usize = 256 * 1024;
/// How callers authenticate.
pub const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// What an answer cost, in units of the currency of prices.
pub const COST: HeaderName = HeaderName::from_static("x-smithgate-cost");

/// Nanos as a plain decimal number.
pub fn cost_value(nanos: i64) -> HeaderValue {
    const NANOS: i64 = 1_000_000_000;
    let text = format!("{}.{:09}", nanos / NANOS, (nanos % NANOS).abs());
    let text = text.trim_end_matches('0').trim_end_matches('.');
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("0"))
}

impl Exchange {
    fn head(&self, status: StatusCode, extra: &[Extra]) -> Box<ResponseHeader> {
        // Without a map of how names are spelled: in lower case, as on HTTP/2.
        let mut head = ResponseHeader::build_no_case(status, Some(6))
            .unwrap_or_else(|_| unreachable!("a StatusCode is a valid status"));
        // Inserting checked names and values cannot fail.
        let mut set = |name: HeaderName, value: HeaderValue| {
            let _ = head.insert_header(name, value);
        };
        set(
            HeaderName::from_static("x-request-id"),
            self.request_id.clone(),
        );
        if let Some(dialect) = self.dialect {
            let name = HeaderName::from_static(dialect.request_id_header);
            set(name, self.request_id.clone());
        }
        if self.has_origin {
            set(
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                HeaderValue::from_static("*"),
            );
            set(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(EXPOSED),
            );
        }
        for (name, value) in &self.told {
            set(name.clone(), value.clone());
        }
        // The caller's limits here come before those of the provider.
        if let Some(standing) = &self.standing {
            for (name, value) in [
                ("x-ratelimit-limit-requests", u64::from(standing.limit)),
                (
                    "x-ratelimit-remaining-requests",
                    u64::from(standing.remaining),
                ),
            ] {
                set(HeaderName::from_static(name), HeaderValue::from(value));
            }
            // OpenAI's clients read a duration here.
            if let Ok(reset) = HeaderValue::from_str(&format!("{}s", standing.reset_s)) {
                set(HeaderName::from_static("x-ratelimit-reset-requests"), reset);
            }
        }
        if self.is_replay {
            set(REPLAYED, HeaderValue::from_static("true"));
        }
        for (name, value) in extra {
            set(name.clone(), value.clone());
        }
        Box::new(head)
    }

    async fn write_head(&mut self, head: Box<ResponseHeader>) -> Result<(), Gone> {
        self.held = None;
        // A stream would hold it for as long as it lasts.
        self.told = Vec::new();
        let write_time = Duration::from_secs(self.gateway.config.server.write_timeout_s);
        self.session.set_write_timeout(Some(write_time));
        let unread = !self.session.is_body_done();
        if unread
            && self.reusable
            && !self.expects_continue()
            && self
                .declared_length()
                .is_some_and(|length| length <= SMALL_BODY)
        {
            self.drain().await;
        }
        self.status = Some(head.status);
        self.gateway
            .metrics
            .time_to_first_byte
            .with_label_values(&[self.route])
            .observe(self.started.elapsed().as_secs_f64());
        if !self.reusable || self.gateway.is_draining() {
            self.session.set_keepalive(None);
        }
        self.session
            .write_response_header(head)
            .await
            .map_err(|_| self.gone())
    }

    /// Drops what the request's headers take (2 KiB), which a stream would hold for as long as it
    /// lasts and nobody looks at any more.
    fn forget_headers(&mut self) {
        if !self.session.is_body_done() {
            return;
        }
        let asked = self.session.req_header_mut();
        let (mut kept, ()) = http::Request::new(()).into_parts();
        kept.method.clone_from(&asked.method);
        kept.uri.clone_from(&asked.uri);
        kept.version = asked.version;
        *asked = kept.into();
    }

    pub(super) fn gone(&mut self) -> Gone {
        self.broken = true;
        Gone
    }

    /// Answers in one piece.
    pub async fn respond(
        &mut self,
        status: StatusCode,
        extra: &[Extra],
        body: Bytes,
    ) -> Result<(), Gone> {
        if let Some(once) = self.once.take() {
            // Before the client has its answer, so that it gets no other one from then on.
            Box::pin(once.settle(status, &body)).await;
        }
        self.note_whole(status, &body);
        let mut head = self.head(status, extra);
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        if !bodiless {
            let _ = head.insert_header(header::CONTENT_LENGTH, body.len());
        }
        let is_head = self.request().method == http::Method::HEAD;
        self.write_head(head).await?;
        if bodiless || is_head {
            return Ok(());
        }
        let mut rest = body;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(ANSWER_PIECE));
            self.session
                .write_response_body(piece, rest.is_empty())
                .await
                .map_err(|_| self.gone())?;
        }
        Ok(())
    }

    /// Answers with JSON.
    pub async fn respond_json(&mut self, status: StatusCode, body: Bytes) -> Result<(), Gone> {
        let json = (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.respond(status, &[json], body).await
    }

    /// Answers with the error envelope.
    pub async fn respond_error(&mut self, error: &ApiError) -> Result<(), Gone> {
        self.respond_challenge(error, BEARER).await
    }

    /// The same; `challenge` says how to authenticate, where that is what is missing.
    pub async fn respond_challenge(
        &mut self,
        error: &ApiError,
        challenge: HeaderValue,
    ) -> Result<(), Gone> {
        let mut extra = vec![(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        if let Some(seconds) = error.retry_after {
            extra.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if error.code == "insufficient_quota" {
            // The clients of OpenAI and Anthropic try a 429 again unless they are told not to.
            let name = HeaderName::from_static("x-should-retry");
            extra.push((name, HeaderValue::from_static("false")));
        }
        if error.code == UNKNOWN_CODING {
            let known = HeaderValue::from_static(coding::KNOWN);
            extra.push((header::ACCEPT_ENCODING, known));
        }
        if error.status == StatusCode::UNAUTHORIZED {
            extra.push((header::WWW_AUTHENTICATE, challenge));
        }
        // Whoever may have to answer with an error holds no room for that meanwhile.
        let (status, body) = self.told(error);
        Box::pin(self.respond(status, &extra, body)).await
    }

    /// The status and the body of an answer that is an error, as the path's clients read them.
    pub(in crate::edge) fn told(&self, error: &ApiError) -> (StatusCode, Bytes) {
        match self.dialect {
            None => (error.status, error.body()),
            Some(dialect) => {
                let id = self.request_id.to_str().unwrap_or_default();
                ((dialect.status)(error), (dialect.error_body)(error, id))
            }
        }
    }

    /// Tells of an error: as the answer, or by `write` inside of a stream that has begun meanwhile.
    pub async fn fail(
        &mut self,
        error: &ApiError,
        write: fn(&ApiError, &mut BytesMut),
    ) -> Result<(), Gone> {
        if !self.streaming {
            return self.respond_error(error).await;
        }
        let mut buf = BytesMut::new();
        write(error, &mut buf);
        self.write(buf.freeze()).await
    }

    /// Begins an answer whose body follows in pieces; `extra` tells its length. `false`: only the
    /// header was asked for.
    pub async fn start_body(&mut self, status: StatusCode, extra: &[Extra]) -> Result<bool, Gone> {
        let head = self.head(status, extra);
        let wants_body = self.request().method != http::Method::HEAD;
        self.write_head(head).await?;
        Ok(wants_body)
    }

    /// The same for one whose length is `length`, or is not known.
    pub async fn start_pieces(
        &mut self,
        status: StatusCode,
        extra: &[Extra],
        length: Option<HeaderValue>,
    ) -> Result<bool, Gone> {
        let mut head = self.head(status, extra);
        match length {
            Some(length) => {
                let _ = head.insert_header(header::CONTENT_LENGTH, length);
            }
            None => self.frame(&mut head),
        }
        let wants_body = self.request().method != http::Method::HEAD;
        self.write_head(head).await?;
        self.forget_headers();
        Ok(wants_body)
    }

    /// Says how a body of unknown length ends.
    fn frame(&mut self, head: &mut ResponseHeader) {
        if self.session.is_http2() {
            return;
        }
        if self.request().version == Version::HTTP_11 {
            let _ = head.insert_header(
                header::TRANSFER_ENCODING,
                HeaderValue::from_static("chunked"),
            );
        } else {
            self.reusable = false;
        }
    }

    /// Begins a stream, unless it has begun while its first event was waited for.
    pub async fn start_stream(&mut self, extra: &[Extra]) -> Result<(), Gone> {
        if self.streaming {
            return Ok(());
        }
        let mut head = self.head(StatusCode::OK, extra);
        let media_type = self.dialect.map_or(EVENTS, |dialect| dialect.stream_type);
        let set = [
            (header::CONTENT_TYPE, media_type),
            (header::CACHE_CONTROL, "no-cache"),
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        for (name, value) in set {
            let _ = head.insert_header(name, HeaderValue::from_static(value));
        }
        self.frame(&mut head);
        self.write_head(head).await?;
        self.forget_headers();
        self.streaming = true;
        self.gateway.metrics.streams_open.inc();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_plain_numbers() {
        for (nanos, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (1_500_000_000, "1.5"),
            (20_000_000_000, "20"),
            (123_456_780, "0.12345678"),
        ] {
            assert_eq!(cost_value(nanos), text);
        }
    }
}
