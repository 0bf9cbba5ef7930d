//! The OpenAPI 3.1 document: made from the handlers, completed with what all of them share and with
//! the wires that the edge serves natively. `utoipa` because it derives schemas from the types that
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

use super::runs::{InputMessage, RunOut};

/// What the document says of itself.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Smithgate",
        description = "A self-hosted gateway for AI agents. API version 2026-05-01.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("token" = [])),
    paths(chat_completions, create_response, ui_chat, ui_stream, create_run, replay_run, run_events),
    components(schemas(ErrorOut, ErrorBody))
)]
pub struct Base;

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

/// What a native run is given.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `wire::native` parses")]
struct RunIn {
    input: Option<Vec<InputMessage>>,
    thread_id: Option<String>,
    stream: Option<bool>,
    channel: Option<String>,
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
    response_format: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Answers with OpenAI's Chat Completions, streamed or not. With a smith (its token, or
/// `IC-Smith-Id`) it is the smith's turn; without one, `model` names a provider's.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header), ("IC-Thread-Id" = Option<String>, Header)),
    request_body = Object,
    responses((status = 200, content(
        (Object = "application/json"), (String = "text/event-stream")))))]
#[allow(dead_code, reason = "served by the edge; documented here")]
fn chat_completions() {}

/// Answers with OpenAI's Responses, streamed or not, of a smith or of a provider's model.
#[utoipa::path(post, path = "/v1/responses", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header), ("IC-Thread-Id" = Option<String>, Header)),
    request_body = Object,
    responses((status = 200, content(
        (Object = "application/json"), (String = "text/event-stream")))))]
#[allow(dead_code, reason = "served by the edge; documented here")]
fn create_response() {}

/// What the AI SDK's `DefaultChatTransport` posts.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what `wire::ui` parses")]
struct UiChatIn {
    /// The chat's id.
    id: String,
    /// The whole conversation: `UIMessage`s.
    messages: Vec<serde_json::Map<String, serde_json::Value>>,
    trigger: Option<String>,
    /// Overrides the smith's model.
    model: Option<String>,
}

/// Answers a chat of the AI SDK's `useChat` with its UI message stream.
#[utoipa::path(post, path = "/v1/ui/chat", tag = "wires",
    params(("IC-Smith-Id" = Option<String>, Header), ("IC-Thread-Id" = Option<String>, Header)),
    request_body = UiChatIn,
    responses((status = 200, content_type = "text/event-stream", body = String)))]
#[allow(dead_code, reason = "served by the edge; documented here")]
fn ui_chat() {}

/// Goes on with the answer to a chat, from its first part; 204 when none is under way.
#[utoipa::path(get, path = "/v1/ui/chat/{id}/stream", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 204, description = "Nothing is under way")))]
#[allow(dead_code, reason = "served by the edge; documented here")]
fn ui_stream() {}

/// Runs a turn of a smith: its record when it has ended, or the stream of its frames.
#[utoipa::path(post, path = "/v1/smiths/{id}/runs", tag = "runs",
    params(("id" = String, Path)), request_body = RunIn,
    responses((status = 200, content(
        (RunOut = "application/json"), (String = "text/event-stream")))))]
#[allow(dead_code, reason = "served by the edge; documented here")]
fn create_run() {}

/// How a run is run again.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "documents what the edge parses")]
struct ReplayIn {
    stream: Option<bool>,
}

/// Runs the same input again, as a fresh run on a fresh thread.
#[utoipa::path(post, path = "/v1/smiths/{id}/runs/{run}/replay", tag = "runs",
    params(("id" = String, Path), ("run" = String, Path)), request_body = ReplayIn,
    responses((status = 200, content(
        (RunOut = "application/json"), (String = "text/event-stream")))))]
#[allow(dead_code, reason = "served by the edge; documented here")]
fn replay_run() {}

/// Streams a run's frames: what is recorded, then live ones.
#[utoipa::path(get, path = "/v1/smiths/{id}/runs/{run}/events", tag = "runs",
    params(("id" = String, Path), ("run" = String, Path),
        ("follow" = Option<bool>, Query), ("after" = Option<i64>, Query, minimum = 0),
        ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
#[allow(dead_code, reason = "served by the edge; documented here")]
fn run_events() {}

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
pub fn complete(mut document: Document) -> Document {
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let components = document.components.get_or_insert_default();
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("`tha_live_…`, `thp_live_…` or `tho_live_…`"))
        .build();
    components.add_security_scheme("token", SecurityScheme::Http(scheme));
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
            operation.operation_id = operation.operation_id.take().map(|id| named(&id, path));
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
            let is_kept = path.starts_with("/v1/") && path != "/v1/chat/completions";
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

/// An operation's id, unique in the document and a fit name for a function of a client: what its
/// handler does, and with what.
fn named(handler: &str, path: &str) -> String {
    let verb = match handler {
        "one" => "get",
        "remove" => "delete",
        other => other,
    };
    let fixed = path.split('/').filter(|part| {
        !part.is_empty() && *part != "v1" && !part.starts_with('{') && *part != handler
    });
    let name = [verb]
        .into_iter()
        .chain(fixed)
        .collect::<Vec<_>>()
        .join("_");
    name.replace([':', '.', '-'], "_")
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
        assert_eq!(named("list", "/v1/agents/{id}/ui"), "list_agents_ui");
        assert_eq!(named("attach", "/v1/agents/{id}/attach"), "attach_agents");
        let mut document = super::super::document();
        let mut seen = HashSet::new();
        for (path, item) in &mut document.paths.paths {
            for (_, operation) in operations(item) {
                let id = operation.operation_id.clone().expect("an id");
                assert!(seen.insert(id.clone()), "{path}: {id}");
            }
        }
        assert!(seen.len() > 100);
    }
}
