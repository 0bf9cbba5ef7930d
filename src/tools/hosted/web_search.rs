//! `web_search`: through the search endpoint that the operator configures, which answers like
//! SearXNG: `GET <url>?q=…&format=json` → `{results: [{title, url, content}]}`.

use async_trait::async_trait;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::web_fetch::get;
use super::{Answer, Function, Hosted, Parts, ToolUser, cut, object};

const SHOWN: usize = 8;
const MAX_ANSWER: usize = 2 * 1024 * 1024;
const MAX_SNIPPET: usize = 1000;

pub struct WebSearch;

#[async_trait]
impl Hosted for WebSearch {
    fn name(&self) -> &'static str {
        "web_search"
    }

    fn description(&self) -> &'static str {
        "Searches the web."
    }

    fn functions(&self) -> Vec<Function> {
        let query = json!({ "type": "string", "minLength": 1, "maxLength": 400 });
        vec![Function {
            name: "web_search",
            description: "Search the web: titles, addresses and snippets of pages",
            parameters: object(json!({ "query": query }), &["query"]),
        }]
    }

    async fn call(
        &self,
        _function: &str,
        args: &Map<String, Value>,
        _caller: &ToolUser,
        parts: &Parts,
    ) -> Result<Answer, String> {
        let query = super::text(args, "query")?;
        let endpoint = parts.config.web_search_url.as_deref();
        let endpoint = endpoint.ok_or("no search endpoint is configured")?;
        let mut url = url::Url::parse(endpoint).map_err(|e| e.to_string())?;
        url.query_pairs_mut()
            .append_pair("q", query)
            .append_pair("format", "json");
        let mut headers = vec![(header::ACCEPT, HeaderValue::from_static("application/json"))];
        if let Some(key) = &parts.config.web_search_key {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| "the search key is no header's value".to_owned())?;
            bearer.set_sensitive(true);
            headers.push((header::AUTHORIZATION, bearer));
        }
        let mut response = get(&parts.upstream, &url, true, &headers).await?;
        if !response.status.is_success() {
            return Err(format!("the search answered {}", response.status.as_u16()));
        }
        let body = response.body(MAX_ANSWER).await;
        let body = body.map_err(|error| error.about("the search"))?;
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|_| "the search answered what is no JSON".to_owned())?;
        Ok(shown(&answer).into())
    }
}

fn shown(answer: &Value) -> String {
    let results = answer["results"].as_array();
    let lines: Vec<String> = results
        .into_iter()
        .flatten()
        .take(SHOWN)
        .map(|result| {
            let text = |name: &str| result[name].as_str().unwrap_or_default();
            json!({ "title": text("title"), "url": text("url"),
                "snippet": cut(text("content"), MAX_SNIPPET) })
            .to_string()
        })
        .collect();
    match lines.is_empty() {
        true => "Nothing was found.".to_owned(),
        false => lines.join("\n"),
    }
}
