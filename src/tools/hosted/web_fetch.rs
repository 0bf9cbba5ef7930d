//! `web_fetch`: a page as text. The URL is a model's, so it goes through the address guard at each
//! step; the readable part of a page is found in the sandbox.

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method, header};
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};
use crate::untrusted::shown_page;
use crate::upstream::{Endpoint, Timeouts, Upstream, UpstreamRequest};

const MAX_BODY: usize = 4 * 1024 * 1024;
const MAX_REDIRECTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(20);

pub struct WebFetch;

#[async_trait]
impl Hosted for WebFetch {
    fn name(&self) -> &'static str {
        "web_fetch"
    }

    fn description(&self) -> &'static str {
        "Reads a web page as text."
    }

    fn functions(&self) -> Vec<Function> {
        let url = json!({ "type": "string", "maxLength": 2048,
            "description": "http:// or https://" });
        vec![Function {
            name: "web_fetch",
            description: "Read a web page as text",
            parameters: object(json!({ "url": url }), &["url"]),
        }]
    }

    async fn call(
        &self,
        _function: &str,
        args: &Map<String, Value>,
        caller: &ToolUser,
        parts: &Parts,
    ) -> Result<Answer, String> {
        let url = super::text(args, "url")?;
        let fetched = tokio::time::timeout(PATIENCE, fetch(&parts.upstream, url)).await;
        let late = || format!("no answer within {} s", PATIENCE.as_secs());
        let page = fetched.unwrap_or_else(|_| Err(late()))?;
        if !page.is_html {
            return Ok(shown_page(&String::from_utf8_lossy(&page.body)).into());
        }
        let (sandbox, tenant) = (&parts.sandbox, &caller.tenant_id);
        let text = sandbox.page(tenant, page.url, page.body.to_vec()).await;
        let text = text.map_err(|error| error.told("reading the page"))?;
        Ok(text.into())
    }
}

struct Page {
    url: String,
    is_html: bool,
    body: bytes::Bytes,
}

/// Asks for `url` on whatever server it names; `trusted` URLs may lead to private addresses.
pub(super) async fn get(
    upstream: &Upstream,
    url: &url::Url,
    trusted: bool,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<crate::upstream::UpstreamResponse, String> {
    let mut base = url.clone();
    base.set_query(None);
    base.set_fragment(None);
    let endpoint = Endpoint::parse(base.as_str(), trusted)?;
    let slash = if base.path().ends_with('/') { "/" } else { "" };
    let query = url.query().map(|query| format!("?{query}"));
    let request = UpstreamRequest {
        method: Method::GET,
        path: &format!("{slash}{}", query.unwrap_or_default()),
        headers,
        body: bytes::Bytes::new(),
        repeatable: true,
    };
    let timeouts = Timeouts {
        connect: PATIENCE / 4,
        first_byte: PATIENCE,
        idle: PATIENCE,
    };
    let sent = upstream.send(&endpoint, &request, timeouts).await;
    sent.map_err(|error| error.about("the server"))
}

async fn fetch(upstream: &Upstream, url: &str) -> Result<Page, String> {
    let mut at = url::Url::parse(url).map_err(|e| format!("no URL: {e}"))?;
    let headers = [
        (
            header::ACCEPT,
            HeaderValue::from_static("text/html, text/plain, application/json;q=0.9, */*;q=0.1"),
        ),
        (
            header::USER_AGENT,
            HeaderValue::from_static(concat!("smithgate/", env!("CARGO_PKG_VERSION"))),
        ),
    ];
    for _ in 0..=MAX_REDIRECTS {
        if !matches!(at.scheme(), "http" | "https") {
            return Err("only http:// and https:// can be read".to_owned());
        }
        let mut response = get(upstream, &at, false, &headers).await?;
        let told = |name: HeaderName| {
            let value = response.headers.get(name).and_then(|v| v.to_str().ok());
            value.map(str::to_owned)
        };
        if response.status.is_redirection()
            && let Some(to) = told(header::LOCATION)
        {
            response.release();
            at = at
                .join(&to)
                .map_err(|_| "a redirect to nowhere".to_owned())?;
            continue;
        }
        if !response.status.is_success() {
            return Err(format!("the server answered {}", response.status.as_u16()));
        }
        let kind = told(header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let is_html = kind.is_empty() || kind.contains("html");
        let is_text = kind.starts_with("text/") || kind.contains("json") || kind.contains("xml");
        if !is_html && !is_text {
            return Err(format!("the page is {kind}, no text"));
        }
        let body = response.body(MAX_BODY).await;
        let body = body.map_err(|_| format!("the page is larger than {MAX_BYTES_SHOWN}"))?;
        return Ok(Page {
            url: at.into(),
            is_html,
            body,
        });
    }
    Err(format!("more than {MAX_REDIRECTS} redirects"))
}

const MAX_BYTES_SHOWN: &str = "4 MiB";
