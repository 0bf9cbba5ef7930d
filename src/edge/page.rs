//! Lists. Native: `limit` and an opaque `cursor` in, `{data, next_cursor, has_more}` out. OpenAI's:
//! `limit`, `after`, `before`, `order` in, `{object: "list", data, first_id, last_id, has_more}`
//! out.

use axum::extract::FromRequestParts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::error::ApiError;
use crate::store::{Rows, Slice};

const DEFAULT_LIMIT: i64 = 20;
/// The published IaC client asks for 200.
const MAX_LIMIT: i64 = 200;
/// Filters are ids, names and types: none is longer.
const MAX_FILTER: usize = 512;

/// A page of a native list, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Give it as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
    pub has_more: bool,
}

/// A whole list without pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    pub data: Vec<T>,
}

/// A page of an OpenAI-shaped list.
#[derive(Debug, Serialize, ToSchema)]
pub struct OaiList<T> {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    pub data: Vec<T>,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    pub has_more: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    pub id: String,
    /// The object's kind and `.deleted`, or the kind alone for files.
    pub object: &'static str,
    pub deleted: bool,
}

/// The query of a native list, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "read by the derive only")]
pub struct PageParams {
    /// Rows of a page.
    #[param(minimum = 1, maximum = 200, default = 20)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The query of an OpenAI-shaped list, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "read by the derive only")]
pub struct SliceParams {
    /// Rows of a page.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<i64>,
    /// The last id of the page before.
    after: Option<String>,
    /// The first id of the page behind.
    before: Option<String>,
    /// By creation; the default is newest first.
    #[param(pattern = "^(asc|desc)?$")]
    order: Option<String>,
}

/// The query parameters of a request.
#[derive(Debug, Clone, Default)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let params: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        for (name, value) in &params {
            super::extract::check_text(name, value, MAX_FILTER)?;
        }
        Ok(Self(params))
    }

    /// A parameter; empty values do not filter.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.clone())
    }

    /// One of a closed list of words.
    pub fn one_of(&self, name: &str, words: &[&str]) -> Result<Option<String>, ApiError> {
        match self.get(name) {
            Some(word) if !words.contains(&word.as_str()) => Err(ApiError::invalid(
                name.to_owned(),
                format!("must be one of {}", words.join(", ")),
            )),
            other => Ok(other),
        }
    }

    /// An RFC 3339 time, in microseconds.
    pub fn time(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        super::time::parse_micros(&text)
            .map(Some)
            .ok_or_else(|| ApiError::invalid(name.to_owned(), "must be a time (RFC 3339)"))
    }

    fn limit(&self, max: i64) -> Result<i64, ApiError> {
        let Some((_, limit)) = self.0.iter().find(|(key, _)| key == "limit") else {
            return Ok(DEFAULT_LIMIT);
        };
        limit
            .parse()
            .ok()
            .filter(|n| (1..=max).contains(n))
            .ok_or_else(|| {
                ApiError::bad_request("invalid_limit", format!("must be 1 to {max}")).param("limit")
            })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Filters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// The query of a native list.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    pub limit: i64,
    /// The last id of the page before.
    pub before: Option<String>,
    pub filters: Filters,
}

impl PageQuery {
    /// A filter of the query; empty values do not filter.
    pub fn filter(&self, name: &str) -> Option<String> {
        self.filters.get(name)
    }

    /// One more than the page holds, to see whether there is another.
    pub fn fetch(&self) -> i64 {
        self.limit + 1
    }

    /// The place in a list that is numbered by version.
    pub fn before_version(&self) -> Result<Option<i64>, ApiError> {
        self.before
            .as_deref()
            .map(|text| text.parse::<i64>().map_err(|_| bad_cursor()))
            .transpose()
    }

    /// The page of `rows`, of which one more than the limit was fetched.
    pub fn page<T, O>(
        &self,
        rows: impl Into<Rows<T>>,
        id: impl Fn(&T) -> String,
        out: impl FnMut(T) -> O,
    ) -> Page<O> {
        let rows = rows.into();
        let has_more = rows.is_cut() || rows.len() as i64 > self.limit;
        let mut rows = rows.into_vec();
        rows.truncate(self.limit as usize);
        let next_cursor = match (has_more, rows.last()) {
            (true, Some(last)) => Some(URL_SAFE_NO_PAD.encode(format!("v1:{}", id(last)))),
            _ => None,
        };
        Page {
            data: rows.into_iter().map(out).collect(),
            next_cursor,
            has_more,
        }
    }

    fn parse(query: &str) -> Result<Self, ApiError> {
        let filters = Filters::parse(query)?;
        let limit = filters.limit(MAX_LIMIT)?;
        let before = match filters.get("cursor") {
            None => None,
            Some(cursor) => {
                let decoded = URL_SAFE_NO_PAD.decode(&cursor).ok();
                let id = decoded
                    .as_deref()
                    .and_then(|bytes| std::str::from_utf8(bytes).ok())
                    .and_then(|text| text.strip_prefix("v1:"))
                    .filter(|id| id.len() <= 64 && id.bytes().all(|b| b.is_ascii_graphic()))
                    .ok_or_else(bad_cursor)?;
                Some(id.to_owned())
            }
        };
        Ok(Self {
            limit,
            before,
            filters,
        })
    }
}

fn bad_cursor() -> ApiError {
    ApiError::bad_request("invalid_cursor", "this cursor is none of this list").param("cursor")
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// The query of an OpenAI-shaped list.
#[derive(Debug, Clone, Default)]
pub struct SliceQuery {
    pub slice: Slice,
    pub filters: Filters,
    limit: i64,
}

impl SliceQuery {
    /// From a query whose `limit` may be up to `max`.
    pub fn parse(query: &str, max: i64) -> Result<Self, ApiError> {
        let filters = Filters::parse(query)?;
        let limit = filters.limit(max)?;
        let order = filters.one_of("order", &["asc", "desc"])?;
        let slice = Slice {
            after: filters.get("after"),
            before: filters.get("before"),
            ascending: order.as_deref() == Some("asc"),
            limit: limit + 1,
        };
        Ok(Self {
            slice,
            filters,
            limit,
        })
    }

    /// The list of `rows`, of which one more than the limit was fetched.
    pub fn list<T, O>(
        &self,
        rows: impl Into<Rows<T>>,
        id: impl Fn(&T) -> String,
        out: impl FnMut(T) -> O,
    ) -> OaiList<O> {
        let rows = rows.into();
        let has_more = rows.is_cut() || rows.len() as i64 > self.limit;
        let mut rows = rows.into_vec();
        rows.truncate(self.limit as usize);
        OaiList {
            object: "list",
            first_id: rows.first().map(&id),
            last_id: rows.last().map(&id),
            data: rows.into_iter().map(out).collect(),
            has_more,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SliceQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default(), 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_their_cursor() {
        let query = PageQuery::parse("limit=2&agent_id=a").expect("valid");
        assert_eq!(query.filter("agent_id").as_deref(), Some("a"));
        let page = query.page(vec!["c", "b", "a"], |id| (*id).to_owned(), |id| id);
        assert_eq!(page.data, ["c", "b"]);
        assert!(page.has_more);
        let cursor = page.next_cursor.expect("a cursor");
        let next = PageQuery::parse(&format!("cursor={cursor}")).expect("valid");
        assert_eq!(next.before.as_deref(), Some("b"));
        for (query, code) in [
            ("limit=0", "invalid_limit"),
            ("limit=201", "invalid_limit"),
            ("limit=x", "invalid_limit"),
            ("limit=", "invalid_limit"),
            ("cursor=%21", "invalid_cursor"),
            ("cursor=YWJj", "invalid_cursor"),
            ("agent_id=%00", "invalid_request"),
        ] {
            assert_eq!(PageQuery::parse(query).expect_err("refused").code, code);
        }
    }

    #[test]
    fn openai_lists_name_their_ends() {
        let query = SliceQuery::parse("limit=2&order=asc&after=a", 100).expect("valid");
        assert!(query.slice.ascending);
        assert_eq!(query.slice.limit, 3);
        let list = query.list(vec!["b", "c"], |id| (*id).to_owned(), |id| id);
        assert_eq!(list.first_id.as_deref(), Some("b"));
        assert_eq!(list.last_id.as_deref(), Some("c"));
        assert!(!list.has_more);
        assert!(SliceQuery::parse("order=up", 100).is_err());
    }
}
