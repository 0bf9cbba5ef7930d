//! The OpenAPI 3.1 document: made from the handlers, completed with what all of them share. `utoipa` because it derives schemas from the types that
//! are really parsed and written.

use axum::response::{IntoResponse, Response};
use http::header;
use serde::Serialize;
use utoipa::openapi::path::{HttpMethod, Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Content, ObjectBuilder, OpenApi as Document, Ref, RefOr, Required, ResponseBuilder, Schema,
    Type,
};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::edge::AppState;
use crate::{api, channel, wire};

/// What the document says of itself.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Smithgate",
        description = "A self-hosted gateway for AI agents. API version 2026-05-01.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("bearerAuth" = [])),
    components(schemas(ErrorOut, ErrorBody))
)]
struct Shared;

/// The envelope of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorOut {
    pub error: ErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `ApiError` writes")]
pub struct ErrorBody {
    pub message: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// The field at fault.
    #[schema(required)]
    pub param: Option<String>,
    /// A stable slug.
    pub code: String,
}

/// All operations, and the routes of those that no wire answers natively.
pub fn documented() -> OpenApiRouter<AppState> {
    [
        api::documented(),
        wire::chat::documented(),
        wire::responses::documented(),
        wire::messages::documented(),
        wire::gemini::documented(),
        wire::embeddings::documented(),
        wire::relay::documented(),
        wire::ui::documented(),
        wire::native::documented(),
        wire::mcp::documented(),
        channel::documented(),
    ]
    .into_iter()
    .fold(
        OpenApiRouter::with_openapi(Shared::openapi()),
        OpenApiRouter::merge,
    )
}

/// The OpenAPI document, made anew for the few who ask: it would be a tenth of an idle gateway's
/// memory.
pub fn document() -> Document {
    complete(documented().into_openapi())
}

/// Every operation of a path.
fn operations(item: &mut PathItem) -> Vec<(HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, item.get.as_mut()),
        (HttpMethod::Put, item.put.as_mut()),
        (HttpMethod::Post, item.post.as_mut()),
        (HttpMethod::Patch, item.patch.as_mut()),
        (HttpMethod::Delete, item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.map(|operation| (method, operation)))
    .collect()
}

/// Whether an empty object is an instance.
fn needs_nothing(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.required.is_empty())
}

/// Adds what every operation shares: the token, the error envelope, the idempotency key.
fn complete(mut document: Document) -> Document {
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let components = document.components.get_or_insert_default();
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("`tha_live_…`, `thp_live_…` or `tho_live_…`"))
        .build();
    components.add_security_scheme("bearerAuth", SecurityScheme::Http(scheme));
    let error = ResponseBuilder::new()
        .description("An error, in OpenAI's envelope")
        .content(
            "application/json",
            Content::new(Some(RefOr::Ref(Ref::from_schema_name("ErrorOut")))),
        )
        .build();
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("A replay within 24 hours returns the first answer."))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255)),
        ))
        .build();
    let optional: Vec<String> = components
        .schemas
        .iter()
        .filter(|(_, schema)| needs_nothing(schema))
        .map(|(name, _)| format!("#/components/schemas/{name}"))
        .collect();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let tags = operation.tags.as_deref().unwrap_or_default();
            operation.operation_id = Some(match tags.iter().any(|tag| tag == wire::relay::TAG) {
                true => relayed(&method, path),
                false => named(&method, path),
            });
            // No body counts as an empty object.
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && let Some(RefOr::T(content)) = body.content.get("application/json")
                && let Some(RefOr::Ref(target)) = &content.schema
                && optional.contains(&target.ref_location)
            {
                body.required = Some(Required::False);
            }
            operation
                .responses
                .responses
                .entry("default".to_owned())
                .or_insert_with(|| RefOr::T(error.clone()));
            let is_api = path.starts_with("/v1/") || path.starts_with("/v1beta/");
            let is_kept = is_api && !UNKEYED.contains(&path.as_str());
            // A key belongs to a caller, whom open routes do not know.
            let is_kept = is_kept && operation.security.is_none();
            if matches!(method, HttpMethod::Post) && is_kept {
                operation
                    .parameters
                    .get_or_insert_default()
                    .push(RefOr::T(key.clone()));
            }
        }
    }
    document
}

/// Beyond the contract's list of what takes a key; and a count, which is the same each time.
const UNKEYED: [&str; 4] = [
    "/v1/chat/completions",
    "/v1/messages/count_tokens",
    "/v1/models/{model}:countTokens",
    "/v1beta/models/{model}:countTokens",
];

/// Operations whose ids are not made of their paths alone.
const NAMES: [(&str, &str, &str); 26] = [
    ("GET", "/hosted/{id}", "hosted.page"),
    ("POST", "/v1/chat/completions", "completions.create"),
    ("POST", "/v1/files", "files.upload"),
    ("POST", "/v1/messages/count_tokens", "messages.countTokens"),
    ("POST", "/v1/agents/{id}/ui", "agents.ui.put"),
    (
        "POST",
        "/v1/agents/{id}/versions",
        "agents.versions.publish",
    ),
    ("GET", "/v1/smiths/{id}/memory", "smiths.memory.get"),
    ("PUT", "/v1/smiths/{id}/memory", "smiths.memory.set"),
    (
        "GET",
        "/v1/smiths/{id}/model_keys",
        "smiths.models.keys.list",
    ),
    (
        "PUT",
        "/v1/smiths/{id}/model_keys/{provider}",
        "smiths.models.keys.put",
    ),
    (
        "DELETE",
        "/v1/smiths/{id}/model_keys/{provider}",
        "smiths.models.keys.delete",
    ),
    (
        "GET",
        "/v1/smiths/{id}/runs/{run}/events",
        "smiths.runs.events",
    ),
    ("GET", "/v1/tenant/hosted_tools", "tenant.tools.list"),
    ("GET", "/v1/tenant/model_keys", "tenant.models.keys.list"),
    (
        "PUT",
        "/v1/tenant/model_keys/{provider}",
        "tenant.models.keys.put",
    ),
    (
        "DELETE",
        "/v1/tenant/model_keys/{provider}",
        "tenant.models.keys.delete",
    ),
    ("DELETE", "/v1/tenant/tokens/{id}", "tenant.tokens.revoke"),
    ("GET", "/v1/tenant/usage", "tenant.usage"),
    ("GET", "/v1/usage", "usage.breakdown"),
    (
        "GET",
        "/v1/vector_stores/{id}/file_batches/{batch}/files",
        "vectorStores.fileBatches.files",
    ),
    ("GET", "/oauth/authorize", "oauth.authorize.page"),
    ("POST", "/oauth/authorize", "oauth.authorize.decide"),
    ("GET", "/health", "health.get"),
    ("GET", "/ready", "ready.get"),
    ("GET", "/.well-known/jwks.json", "jwks.get"),
    (
        "GET",
        "/.well-known/oauth-authorization-server",
        "oauth.metadata.get",
    ),
];

/// Last parts of paths that are something to do, not something to have.
const ACTIONS: [&str; 24] = [
    "attach",
    "authorize",
    "callback",
    "cancel",
    "complete",
    "content",
    "decline",
    "import",
    "ingest",
    "recall",
    "redeliver",
    "refresh",
    "register",
    "replay",
    "restore",
    "revoke",
    "rollout",
    "rotate_secret",
    "search",
    "status",
    "stream",
    "submit",
    "test",
    "token",
];

/// An operation's id, as the reference has them: what its path names, with dots, and what is done
/// with it. It is unique in the document, and none is the beginning of another.
fn named(method: &HttpMethod, path: &str) -> String {
    let method = match method {
        HttpMethod::Get => "GET",
        HttpMethod::Put => "PUT",
        HttpMethod::Post => "POST",
        HttpMethod::Patch => "PATCH",
        _ => "DELETE",
    };
    let known = NAMES.iter().find(|(m, p, _)| *m == method && *p == path);
    if let Some((_, _, name)) = known {
        return (*name).to_owned();
    }
    let ends_in_id = path.ends_with('}');
    let parts = path.split(['/', ':']).filter(|part| {
        !part.is_empty() && *part != "v1" && *part != ".well-known" && !part.starts_with('{')
    });
    let mut names: Vec<String> = parts.clone().map(camel_case).collect();
    let last = parts.clone().next_back().unwrap_or_default();
    let is_action = !ends_in_id && (ACTIONS.contains(&last) || path == "/v1/runs/{id}/trace");
    if !is_action {
        let verb = match (method, ends_in_id) {
            ("GET", true) => "get",
            ("GET", false) => "list",
            ("PUT", _) => "put",
            ("DELETE", _) => "delete",
            ("POST", false) => "create",
            _ => "update",
        };
        names.push(verb.to_owned());
    }
    names.join(".")
}

/// The same for what is passed on, of which nobody knows here what is done with it.
fn relayed(method: &HttpMethod, path: &str) -> String {
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != "v1");
    let mut names = vec!["relay".to_owned()];
    names.extend(parts.map(|part| camel_case(part.trim_matches(['{', '}']))));
    names.push(match method {
        HttpMethod::Get => "get".to_owned(),
        HttpMethod::Put => "put".to_owned(),
        HttpMethod::Post => "post".to_owned(),
        HttpMethod::Patch => "patch".to_owned(),
        _ => "delete".to_owned(),
    });
    names.join(".")
}

fn camel_case(part: &str) -> String {
    let mut words = part.split(['_', '-', '.']).filter(|word| !word.is_empty());
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        name.push_str(&first.to_ascii_uppercase());
        name.push_str(rest);
    }
    name
}

/// `GET /openapi.json`.
pub fn answer(document: &Document) -> Response {
    match document.to_json() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => crate::error::ApiError::internal(error).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn operations_have_names_of_their_own() {
        for (method, path, name) in [
            (HttpMethod::Get, "/v1/smiths", "smiths.list"),
            (HttpMethod::Post, "/v1/smiths", "smiths.create"),
            (HttpMethod::Patch, "/v1/smiths/{id}", "smiths.update"),
            (
                HttpMethod::Post,
                "/v1/smiths/{id}/connections/authorize",
                "smiths.connections.authorize",
            ),
            (
                HttpMethod::Post,
                "/v1/smiths/{id}/runs/{run}/submit",
                "smiths.runs.submit",
            ),
            (
                HttpMethod::Get,
                "/v1/conversations/{id}/items",
                "conversations.items.list",
            ),
            (
                HttpMethod::Post,
                "/v1/conversations/{id}",
                "conversations.update",
            ),
            (
                HttpMethod::Get,
                "/v1/skills/{id}/versions/{version}/content",
                "skills.versions.content",
            ),
            (HttpMethod::Post, "/v1/traces:ingest", "traces.ingest"),
            (HttpMethod::Get, "/v1/runs/{id}/trace", "runs.trace"),
            (
                HttpMethod::Delete,
                "/v1/tenant/webhooks/{id}",
                "tenant.webhooks.delete",
            ),
            (HttpMethod::Get, "/v1/vector_stores", "vectorStores.list"),
        ] {
            assert_eq!(named(&method, path), name);
        }
        let mut document = super::document();
        let mut seen = HashSet::new();
        for (path, item) in &mut document.paths.paths {
            for (_, operation) in operations(item) {
                let id = operation.operation_id.clone().expect("an id");
                assert!(id.contains('.'), "{path}: {id}");
                assert!(seen.insert(id.clone()), "{path}: {id}");
            }
        }
        assert!(seen.len() > 100);
        // A name is of a thing to do, or of things that have some.
        for id in &seen {
            let group = format!("{id}.");
            let below = seen.iter().find(|other| other.starts_with(&group));
            assert!(below.is_none(), "{id} and {below:?}");
        }
    }
}
