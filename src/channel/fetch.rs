//! Files at addresses that a platform names, fetched through the address guard.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use url::{Position, Url};

use super::{Fault, Hub};
use crate::upstream::{Endpoint, Timeouts, UpstreamError, UpstreamRequest};

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_URL: usize = 4096;

/// What became of a file.
#[derive(Debug)]
pub enum Fetched {
    Content(Bytes),
    /// It is larger than was allowed.
    TooLarge,
    /// The platform has it no more.
    Gone,
}

impl Hub {
    /// Fetches at most `limit` bytes from an address that `name` gave. Redirects are not followed.
    pub async fn fetch(
        &self,
        name: &str,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        limit: usize,
    ) -> Result<Fetched, Fault> {
        if url.len() > MAX_URL {
            let why = format!("{name} gave an address of more than {MAX_URL} bytes");
            return Err(Fault::Never(why));
        }
        let none =
            |why: String| Fault::Never(format!("{name} gave an address that is none: {why}"));
        let url = Url::parse(url).map_err(|error| none(error.to_string()))?;
        // The slash before a query stays.
        let endpoint = Endpoint::parse(&url[..Position::BeforePath], false).map_err(none)?;
        let request = UpstreamRequest {
            method: Method::GET,
            path: &url[Position::BeforePath..Position::AfterQuery],
            headers,
            body: Bytes::new(),
            repeatable: true,
        };
        let timeouts = Timeouts {
            connect: PATIENCE / 3,
            first_byte: PATIENCE,
            idle: PATIENCE,
        };
        let told = |error: UpstreamError| match error {
            UpstreamError::Forbidden(_) => Fault::Never(error.about(name)),
            _ => Fault::later(error.about(name)),
        };
        let answered = async {
            let sent = self.upstream.send(&endpoint, &request, timeouts).await;
            let mut response = sent.map_err(told)?;
            match response.status.as_u16() {
                200..=299 => {}
                400 | 403 | 404 | 410 => return Ok(Fetched::Gone),
                status => {
                    return Err(Fault::later(format!("{name} gave no file ({status})")));
                }
            }
            match response.body(limit).await {
                Ok(content) => Ok(Fetched::Content(content)),
                Err(UpstreamError::TooLarge(_)) => Ok(Fetched::TooLarge),
                Err(error) => Err(told(error)),
            }
        };
        let late = |_| Err(Fault::later(format!("{name} did not answer in time")));
        tokio::time::timeout(PATIENCE, answered)
            .await
            .unwrap_or_else(late)
    }
}
