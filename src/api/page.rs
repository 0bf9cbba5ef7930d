//! Lists: `limit` and an opaque `cursor` in, `{data, next_cursor, has_more}` out.

use axum::extract::FromRequestParts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use serde_json::{Value, json};

use crate::error::ApiError;

const DEFAULT_LIMIT: i64 = 20;
/// The published IaC client asks for 200.
const MAX_LIMIT: i64 = 200;

/// The query of a list.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    pub limit: i64,
    /// The last id of the page before.
    pub before: Option<String>,
    params: Vec<(String, String)>,
}

impl PageQuery {
    /// A filter of the query; empty values do not filter.
    pub fn filter(&self, name: &str) -> Option<String> {
        self.params
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.clone())
    }

    /// One more than the page holds, to see whether there is another.
    pub fn fetch(&self) -> i64 {
        self.limit + 1
    }

    /// The page of `rows`, of which one more than the limit was fetched.
    pub fn page<T>(
        &self,
        mut rows: Vec<T>,
        id: impl Fn(&T) -> String,
        out: impl FnMut(&T) -> Value,
    ) -> Value {
        let has_more = rows.len() as i64 > self.limit;
        rows.truncate(self.limit as usize);
        let next = match (has_more, rows.last()) {
            (true, Some(last)) => json!(URL_SAFE_NO_PAD.encode(format!("v1:{}", id(last)))),
            _ => Value::Null,
        };
        let data: Vec<Value> = rows.iter().map(out).collect();
        json!({ "data": data, "next_cursor": next, "has_more": has_more })
    }

    fn parse(query: &str) -> Result<Self, ApiError> {
        let params: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let mut page = Self {
            limit: DEFAULT_LIMIT,
            before: None,
            params,
        };
        if let Some(limit) = page.filter("limit") {
            page.limit = limit
                .parse()
                .ok()
                .filter(|n| (1..=MAX_LIMIT).contains(n))
                .ok_or_else(|| {
                    ApiError::bad_request("invalid_limit", format!("must be 1 to {MAX_LIMIT}"))
                        .param("limit")
                })?;
        }
        if let Some(cursor) = page.filter("cursor") {
            let decoded = URL_SAFE_NO_PAD.decode(&cursor).ok();
            let id = decoded
                .as_deref()
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .and_then(|text| text.strip_prefix("v1:"))
                .filter(|id| id.len() <= 64 && id.is_ascii())
                .ok_or_else(|| {
                    ApiError::bad_request("invalid_cursor", "this cursor is none of ours")
                        .param("cursor")
                })?;
            page.before = Some(id.to_owned());
        }
        Ok(page)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_their_cursor() {
        let query = PageQuery::parse("limit=2&agent_id=a").expect("valid");
        assert_eq!(query.filter("agent_id").as_deref(), Some("a"));
        let page = query.page(vec!["c", "b", "a"], |id| (*id).to_owned(), |id| json!(id));
        assert_eq!(page["data"], json!(["c", "b"]));
        assert_eq!(page["has_more"], true);
        let cursor = page["next_cursor"].as_str().expect("a cursor");
        let next = PageQuery::parse(&format!("cursor={cursor}")).expect("valid");
        assert_eq!(next.before.as_deref(), Some("b"));
        for (query, code) in [
            ("limit=0", "invalid_limit"),
            ("limit=201", "invalid_limit"),
            ("limit=x", "invalid_limit"),
            ("cursor=%21", "invalid_cursor"),
            ("cursor=YWJj", "invalid_cursor"),
        ] {
            assert_eq!(PageQuery::parse(query).expect_err("refused").code, code);
        }
    }
}
