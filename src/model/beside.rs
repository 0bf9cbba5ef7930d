//! What is told beside an answer: how often was asked for it, and what its provider says of limits and
//! of the call in its headers.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Most headers of a provider's answer that are told on, and the most bytes of one.
const MOST: usize = 32;
const LONGEST: usize = 512;
/// Under which a provider's own id of a call is told on: `x-request-id` is the gateway's.
const PROVIDER_REQUEST_ID: HeaderName = HeaderName::from_static("x-smithgate-provider-request-id");

/// Beside an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// Calls that were made until one was answered.
    pub attempts: u32,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Beside {
    /// Of an answer with these headers: its limits as OpenAI
    /// (<https://platform.openai.com/docs/guides/rate-limits>), Anthropic
    /// (<https://docs.anthropic.com/en/api/rate-limits>) and others tell them, and the call's id.
    pub fn of(headers: &HeaderMap) -> Self {
        let told = headers.iter().filter_map(|(name, value)| {
            let text = name.as_str();
            let is_limit = ["x-ratelimit-", "anthropic-ratelimit-", "ratelimit"]
                .iter()
                .any(|prefix| text.starts_with(prefix));
            let name = match text {
                "x-request-id" | "request-id" => PROVIDER_REQUEST_ID,
                "openai-processing-ms" | "openai-version" => name.clone(),
                _ if is_limit => name.clone(),
                _ => return None,
            };
            (value.len() <= LONGEST).then(|| (name, value.clone()))
        });
        Self {
            attempts: 1,
            headers: told.take(MOST).collect(),
        }
    }
}
