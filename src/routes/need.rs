//! What a caller must be for a route whose requests have a body, told from the route alone: the edge
//! asks here before it reads the body of somebody who may not even send it. What each handler checks
//! itself stays what counts.

use http::Method;

use crate::auth::{Principal, Scope};
use crate::error::ApiError;

/// Who may send a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    Admin,
    Organization,
    Scope(Scope),
    /// For this smith.
    SmithScope(&'a str, Scope),
}

impl<'a> Need<'a> {
    /// `None` for routes whose bodies are small, and for those that do not exist.
    pub fn of(method: &Method, path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix("/v1/")?.split('/');
        let (first, id, third) = (parts.next()?, parts.next(), parts.next());
        let rest = parts.next();
        Some(match first {
            "organization" => Self::Organization,
            "tenant" | "agents" | "budgets" | "customers" => Self::Admin,
            "oauth" => Self::Admin,
            "smiths" => Self::of_smith(method, id, third, rest)?,
            "deployments" if third == Some("mcp") => Self::Scope(Scope::RunsWrite),
            "deployments" => Self::Scope(Scope::DeploymentsWrite),
            "conversations" => Self::Scope(Scope::ConversationsWrite),
            "embeddings" => Self::Scope(Scope::EmbeddingsWrite),
            "files" | "uploads" => Self::Scope(Scope::FilesWrite),
            "responses" => Self::Scope(Scope::RunsWrite),
            "skills" => Self::Scope(Scope::SkillsWrite),
            "traces:ingest" => Self::Scope(Scope::TracesWrite),
            "usage" => Self::Scope(Scope::UsageWrite),
            "vector_stores" if third == Some("search") => Self::Scope(Scope::VectorStoresRead),
            "vector_stores" => Self::Scope(Scope::VectorStoresWrite),
            _ => return None,
        })
    }

    fn of_smith(
        method: &Method,
        id: Option<&'a str>,
        what: Option<&str>,
        how: Option<&str>,
    ) -> Option<Self> {
        let (Some(id), Some(what)) = (id, what) else {
            return Some(Self::Admin);
        };
        let scope = match (what, how) {
            ("revisions", _) => return Some(Self::Admin),
            ("connections", _) => Scope::ConnectionsWrite,
            ("model_keys", _) => Scope::ModelKeysWrite,
            ("memory", Some("recall")) => Scope::MemoriesRead,
            ("memory", None) if *method == Method::PUT => Scope::MemoriesWrite,
            ("runs", _) => Scope::RunsWrite,
            ("schedules", _) => Scope::SchedulesWrite,
            _ => return None,
        };
        Some(Self::SmithScope(id, scope))
    }

    /// Refuses who is not what it needs, as the route's handler would.
    pub fn check(self, caller: &Principal) -> Result<(), ApiError> {
        match self {
            Self::Admin => caller.require_admin(),
            Self::Organization => caller.require_organization().map(|_| ()),
            Self::Scope(scope) => caller.require(scope),
            Self::SmithScope(smith, scope) => {
                caller.require_smith(smith)?;
                caller.require(scope)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_with_a_body_needs_something() {
        let document = serde_json::to_value(super::super::document()).expect("JSON");
        let mut open = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (name, operation) in item.as_object().expect("operations") {
                let method: Method = name.to_uppercase().parse().expect("a method");
                let takes_body = matches!(method, Method::POST | Method::PUT | Method::PATCH);
                let is_open = operation["security"].as_array().is_some_and(|all| {
                    all.iter()
                        .any(|one| one.as_object().is_some_and(|o| o.is_empty()))
                });
                if takes_body && !is_open && Need::of(&method, path).is_none() {
                    open.push(format!("{method} {path}"));
                }
            }
        }
        // The edge serves these itself and checks before it reads.
        open.retain(|route| !route.ends_with("/chat/completions") && !route.ends_with("/ui/chat"));
        assert_eq!(open, Vec::<String>::new());
    }

    #[test]
    fn needs_are_told_by_the_path() {
        let of = |method, path| Need::of(&method, path);
        assert_eq!(of(Method::POST, "/v1/smiths"), Some(Need::Admin));
        assert_eq!(of(Method::PATCH, "/v1/smiths/s"), Some(Need::Admin));
        assert_eq!(
            of(Method::PUT, "/v1/smiths/s/memory"),
            Some(Need::SmithScope("s", Scope::MemoriesWrite))
        );
        assert_eq!(
            of(Method::POST, "/v1/smiths/s/runs/r/submit"),
            Some(Need::SmithScope("s", Scope::RunsWrite))
        );
        assert_eq!(of(Method::POST, "/v1/nothing"), None);
        assert_eq!(of(Method::POST, "/oauth/token"), None);
    }
}
