//! What a caller must be for a route whose requests have a body, told from the route alone: the edge
//! asks here before it reads the body of somebody who may not even send it. What each handler checks
//! itself stays what counts.

use http::Method;

use crate::auth::{Scope, Use};
use crate::edge::Need;

/// `None` for routes whose bodies are small, and for those that do not exist.
pub fn of<'a>(method: &Method, path: &'a str) -> Option<Need<'a>> {
    let mut parts = path.strip_prefix("/v1/")?.split('/');
    let (first, id, third) = (parts.next()?, parts.next(), parts.next());
    let rest = parts.next();
    Some(match first {
        "organization" => Need::Organization,
        "tenant" | "agents" | "budgets" | "customers" => Need::Admin,
        "oauth" => Need::Admin,
        "smiths" => of_smith(method, id, third, rest)?,
        "deployments" if third == Some("mcp") => Need::Scope(Scope::RunsWrite),
        "deployments" => Need::Scope(Scope::DeploymentsWrite),
        "conversations" => Need::Scope(Scope::ConversationsWrite),
        "embeddings" => Need::Use(Use::Embeddings),
        "files" | "uploads" => Need::Scope(Scope::FilesWrite),
        "responses" => Need::Scope(Scope::RunsWrite),
        "skills" => Need::Scope(Scope::SkillsWrite),
        "traces:ingest" => Need::Scope(Scope::TracesWrite),
        "usage" => Need::Scope(Scope::UsageWrite),
        "vector_stores" if third == Some("search") => Need::Scope(Scope::VectorStoresRead),
        "vector_stores" => Need::Scope(Scope::VectorStoresWrite),
        _ => return None,
    })
}

fn of_smith<'a>(
    method: &Method,
    id: Option<&'a str>,
    what: Option<&str>,
    how: Option<&str>,
) -> Option<Need<'a>> {
    let (Some(id), Some(what)) = (id, what) else {
        return Some(Need::Admin);
    };
    let scope = match (what, how) {
        ("revisions", _) => return Some(Need::Admin),
        ("connections", _) => Scope::ConnectionsWrite,
        ("model_keys", _) => Scope::ModelKeysWrite,
        ("memory", Some("recall")) => Scope::MemoriesRead,
        ("memory", None) if *method == Method::PUT => Scope::MemoriesWrite,
        ("runs", _) => Scope::RunsWrite,
        ("schedules", _) => Scope::SchedulesWrite,
        _ => return None,
    };
    Some(Need::SmithScope(id, scope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_with_a_body_needs_something() {
        let document = serde_json::to_value(crate::routes::document::document()).expect("JSON");
        let mut open = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (name, operation) in item.as_object().expect("operations") {
                let method: Method = name.to_uppercase().parse().expect("a method");
                let takes_body = matches!(method, Method::POST | Method::PUT | Method::PATCH);
                let is_open = operation["security"].as_array().is_some_and(|all| {
                    all.iter()
                        .any(|one| one.as_object().is_some_and(|o| o.is_empty()))
                });
                let is_relayed = operation["tags"][0] == crate::wire::relay::TAG;
                if takes_body && !is_open && !is_relayed && of(&method, path).is_none() {
                    open.push(format!("{method} {path}"));
                }
            }
        }
        // The edge serves these itself and checks before it reads.
        let own = [
            "/chat/completions",
            "/messages",
            "/messages/count_tokens",
            ":generateContent",
            ":streamGenerateContent",
            ":countTokens",
            "/ui/chat",
        ];
        open.retain(|route| !own.iter().any(|path| route.ends_with(path)));
        assert_eq!(open, Vec::<String>::new());
    }

    #[test]
    fn needs_are_told_by_the_path() {
        let of = |method, path| super::of(&method, path);
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
