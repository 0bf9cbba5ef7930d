//! Calls to platforms.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::{Fault, Hub};
use crate::upstream::{Endpoint, Timeouts, UpstreamError, UpstreamRequest};

const PATIENCE: Duration = Duration::from_secs(20);
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// A platform that says to wait longer is tried sooner all the same, in seconds.
pub const LONGEST_WAIT: u64 = 3600;

/// Who is called, and where; the operator has named that.
#[derive(Debug, Clone, Copy)]
pub struct Platform<'a> {
    pub name: &'a str,
    pub base: &'a str,
}

/// What a platform answered.
#[derive(Debug)]
pub struct Called {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer; the words hold no address, which may hold a token.
#[derive(Debug, thiserror::Error)]
pub enum CallFault {
    /// It was not sent.
    #[error("{0}")]
    NotSent(String),
    /// It may have been.
    #[error("{0}")]
    Unknown(String),
}

impl From<CallFault> for Fault {
    fn from(fault: CallFault) -> Self {
        match fault {
            CallFault::NotSent(why) => Self::later(why),
            CallFault::Unknown(why) => Self::Unknown(why),
        }
    }
}

impl Called {
    /// The body, as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// How long the platform says to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        let said = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        let seconds: u64 = said.trim().parse().ok()?;
        Some(Duration::from_secs(seconds.min(LONGEST_WAIT)))
    }
}

impl Hub {
    /// Sends a request to a platform, and reads at most `limit` bytes of its answer.
    pub async fn call(
        &self,
        platform: Platform<'_>,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        limit: usize,
    ) -> Result<Called, CallFault> {
        let Platform { name, base } = platform;
        let not_sent = |why: String| CallFault::NotSent(why);
        let endpoint = Endpoint::parse(base, true).map_err(not_sent)?;
        let request = UpstreamRequest {
            repeatable: method == Method::GET,
            method,
            path,
            headers,
            body,
        };
        let timeouts = Timeouts {
            connect: PATIENCE / 2,
            first_byte: PATIENCE,
            idle: PATIENCE,
        };
        let told = |error: UpstreamError| {
            let why = error.about(name);
            match error {
                UpstreamError::Forbidden(_) | UpstreamError::Connect(_) => CallFault::NotSent(why),
                _ => CallFault::Unknown(why),
            }
        };
        let answered = async {
            let sent = self.upstream.send(&endpoint, &request, timeouts).await;
            let mut response = sent.map_err(told)?;
            let (status, headers) = (response.status, response.headers.clone());
            let body = response.body(limit).await.map_err(told)?;
            Ok(Called {
                status,
                headers,
                body,
            })
        };
        let late = || Err(CallFault::Unknown(format!("{name} did not answer in time")));
        tokio::time::timeout(PATIENCE, answered)
            .await
            .unwrap_or_else(|_| late())
    }

    /// Posts JSON.
    pub async fn post_json(
        &self,
        platform: Platform<'_>,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: &Value,
    ) -> Result<Called, CallFault> {
        let json = HeaderValue::from_static("application/json");
        let mut all = vec![(header::CONTENT_TYPE, json)];
        all.extend_from_slice(headers);
        let body = Bytes::from(body.to_string());
        self.call(platform, Method::POST, path, &all, body, MAX_ANSWER)
            .await
    }
}
