//! What the edge knows of a route before its handler does.

use std::sync::Arc;

use axum::Router;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use smallvec::SmallVec;

use super::dialect::Dialect;
use super::exchange::{Exchange, Gone};
use super::need::Need;
use crate::gateway::Gateway;

/// The segments of a path that stand for `{…}` in its pattern, in their order.
pub type Ids<'a> = SmallVec<[&'a str; 2]>;

/// Answers an exchange.
pub type Serve = for<'a> fn(&'a mut Exchange, Ids<'a>) -> BoxFuture<'a, Result<(), Gone>>;

/// Who answers.
#[derive(Clone, Copy)]
pub enum By {
    /// A wire, natively: the bridge is too slow for tokens.
    Wire(Serve),
    /// The same where the query says so; else the router behind the bridge.
    WireIf(fn(query: &str) -> bool, Serve),
    /// The router behind the bridge.
    Router,
}

impl By {
    /// The wire that answers a request with `query`.
    pub fn wire(self, query: &str) -> Option<Serve> {
        match self {
            Self::Wire(serve) => Some(serve),
            Self::WireIf(says, serve) => says(query).then_some(serve),
            Self::Router => None,
        }
    }
}

/// A route, and what is so of it before its handler is asked. Those of the router that are as all
/// others are (they need a token, their bodies are gathered, no model is asked) are not listed.
#[derive(Clone)]
pub struct Route {
    pub method: Method,
    /// As the document has it; a last segment `{*…}` stands for the rest, up to what follows it here.
    pub pattern: &'static str,
    /// Needs no token.
    pub open: bool,
    /// Asks a model for something: refused while the workers are behind.
    pub begins_work: bool,
    /// The body is passed on as it arrives.
    pub upload: bool,
    /// How its clients are spoken to, where not as all others.
    pub dialect: Option<&'static Dialect>,
    pub by: By,
}

impl Route {
    fn plain(method: Method, pattern: &'static str, by: By) -> Self {
        Self {
            method,
            pattern,
            open: false,
            begins_work: false,
            upload: false,
            dialect: None,
            by,
        }
    }

    /// Answered by a wire.
    pub fn wire(method: Method, pattern: &'static str, serve: Serve) -> Self {
        Self::plain(method, pattern, By::Wire(serve))
    }

    /// Answered by a wire where the query says so.
    pub fn wire_if(
        method: Method,
        pattern: &'static str,
        says: fn(&str) -> bool,
        serve: Serve,
    ) -> Self {
        Self::plain(method, pattern, By::WireIf(says, serve))
    }

    /// Answered by the router.
    pub fn rest(method: Method, pattern: &'static str) -> Self {
        Self::plain(method, pattern, By::Router)
    }

    pub fn open(self) -> Self {
        Self { open: true, ..self }
    }

    pub fn begins_work(self) -> Self {
        Self {
            begins_work: true,
            ..self
        }
    }

    pub fn upload(self) -> Self {
        Self {
            upload: true,
            ..self
        }
    }

    pub fn speaks(self, dialect: &'static Dialect) -> Self {
        Self {
            dialect: Some(dialect),
            ..self
        }
    }

    /// The pattern as a router has it, which knows nothing behind a rest.
    pub fn routed(&self) -> &'static str {
        match self.pattern.split_once("{*") {
            Some((before, rest)) => {
                let end = rest.find('}').map_or(rest.len(), |end| end + 1);
                &self.pattern[..before.len() + "{*".len() + end]
            }
            None => self.pattern,
        }
    }

    /// The ids in `path`, when it is of this route.
    pub fn ids<'a>(&self, path: &'a str) -> Option<Ids<'a>> {
        let mut ids = Ids::new();
        let (mut wanted, mut given) = (self.pattern.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some(ids),
                (Some(rest), Some(given)) if rest.starts_with("{*") => {
                    let end = rest.split_once('}').map_or("", |(_, end)| end);
                    let begin = given.as_ptr().addr() - path.as_ptr().addr();
                    ids.push(path[begin..].strip_suffix(end)?);
                    return Some(ids);
                }
                (Some(id), Some(given)) if id.starts_with('{') => ids.push(given),
                (Some(word), Some(given)) if word == given => {}
                _ => return None,
            }
        }
    }
}

/// All routes, and the router of those that no wire answers.
#[derive(Clone)]
pub struct Routes {
    pub listed: Arc<[Route]>,
    pub router: Router,
    /// What a caller must be for the router to be asked, where a body is sent.
    pub need: for<'a> fn(&Method, path: &'a str) -> Option<Need<'a>>,
    /// Where the metadata of a path that wants a token is (RFC 9728), if it has any.
    pub metadata: fn(&Gateway, path: &str, &HeaderMap) -> Option<String>,
}

impl Routes {
    /// Whether what is at `path` needs no token, whatever the method.
    pub fn is_open(&self, path: &str) -> bool {
        let mut open = self.listed.iter().filter(|route| route.open);
        open.any(|route| route.ids(path).is_some())
    }

    /// How clients are spoken to at `path`, whatever the method.
    pub fn dialect(&self, path: &str) -> Option<&'static Dialect> {
        let spoken = self.listed.iter().filter(|route| route.dialect.is_some());
        let mut of_path = spoken.filter(|route| route.ids(path).is_some());
        of_path.next()?.dialect
    }

    /// The listed route of a request.
    pub fn find(&self, method: &Method, path: &str) -> Option<&Route> {
        self.listed
            .iter()
            .find(|route| route.method == *method && route.ids(path).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_stands_for_braces() {
        let route = Route::rest(Method::GET, "/v1/smiths/{id}/runs/{run}/events");
        let ids = route.ids("/v1/smiths/smt_a/runs/run_b/events");
        assert_eq!(ids.as_deref(), Some(["smt_a", "run_b"].as_slice()));
        for other in [
            "/v1/smiths/smt_a/runs/run_b",
            "/v1/smiths/smt_a/runs/run_b/events/",
            "/v1/smiths/smt_a/runs/run_b/events/x",
            "/v2/smiths/smt_a/runs/run_b/events",
            "",
        ] {
            assert_eq!(route.ids(other), None, "{other}");
        }
        let below = Route::rest(Method::GET, "/.well-known/x/{*path}");
        assert!(below.ids("/.well-known/x/a/b").is_some());
        assert!(below.ids("/.well-known/x/").is_some());
        assert!(below.ids("/.well-known/x").is_none());
        let verb = Route::rest(Method::POST, "/v1/models/{*id}:ask");
        let ids = verb.ids("/v1/models/a/b:c:ask");
        assert_eq!(ids.as_deref(), Some(["a/b:c"].as_slice()));
        assert!(verb.ids("/v1/models/a/b").is_none());
        assert_eq!(verb.routed(), "/v1/models/{*id}");
        assert_eq!(below.routed(), below.pattern);
    }
}
