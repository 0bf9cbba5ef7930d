//! Which paths are passed on, and what is known of each.

use http::Method;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::{
    Content, ObjectBuilder, OpenApi, OpenApiBuilder, Required, ResponseBuilder, ResponsesBuilder,
    Type,
};
use utoipa_axum::router::OpenApiRouter;

use super::serve::serve;
use crate::auth::Use;
use crate::edge::{AppState, Route};

/// What a path is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// An answer of a model, of which the provider keeps nothing: a use of models.
    Model(Use),
    /// What the provider keeps for its account.
    Account,
    /// Anything, at the provider that the path names.
    Anything,
}

/// A path that is passed on.
#[derive(Debug)]
pub struct Relayed {
    pub pattern: &'static str,
    pub methods: &'static [Method],
    pub about: About,
    summary: &'static str,
}

const POST: &[Method] = &[Method::POST];
const READ_WRITE: &[Method] = &[Method::GET, Method::POST];
const ALL: &[Method] = &[
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

const fn of(
    pattern: &'static str,
    methods: &'static [Method],
    about: About,
    summary: &'static str,
) -> Relayed {
    Relayed {
        pattern,
        methods,
        about,
        summary,
    }
}

/// Its operations in the document.
pub const TAG: &str = "relay";

/// All of them (<https://platform.openai.com/docs/api-reference>).
pub const PATHS: &[Relayed] = &[
    of(
        "/v1/completions",
        POST,
        About::Model(Use::Completions),
        "Completes a text.",
    ),
    of(
        "/v1/moderations",
        POST,
        About::Model(Use::Moderations),
        "Classifies texts and images.",
    ),
    of(
        "/v1/images/generations",
        POST,
        About::Model(Use::Images),
        "Makes images.",
    ),
    of(
        "/v1/images/edits",
        POST,
        About::Model(Use::Images),
        "Changes images.",
    ),
    of(
        "/v1/images/variations",
        POST,
        About::Model(Use::Images),
        "Makes variations of an image.",
    ),
    of(
        "/v1/audio/speech",
        POST,
        About::Model(Use::Audio),
        "Speaks a text.",
    ),
    of(
        "/v1/audio/transcriptions",
        POST,
        About::Model(Use::Audio),
        "Writes down what is said.",
    ),
    of(
        "/v1/audio/translations",
        POST,
        About::Model(Use::Audio),
        "Writes down what is said, in English.",
    ),
    of(
        "/v1/rerank",
        POST,
        About::Model(Use::Rerank),
        "Orders documents by a query.",
    ),
    of(
        "/v1/responses/input_tokens",
        POST,
        About::Model(Use::Responses),
        "Counts the tokens of a request.",
    ),
    of(
        "/v1/batches",
        READ_WRITE,
        About::Account,
        "Batches at the provider.",
    ),
    of(
        "/v1/batches/{*path}",
        READ_WRITE,
        About::Account,
        "A batch at the provider.",
    ),
    of(
        "/v1/uploads",
        POST,
        About::Account,
        "Begins an upload to the provider.",
    ),
    of(
        "/v1/uploads/{*path}",
        POST,
        About::Account,
        "An upload to the provider.",
    ),
    of(
        "/v1/fine_tuning/{*path}",
        ALL,
        About::Account,
        "Fine-tuning at the provider.",
    ),
    of(
        "/v1/passthrough/{provider}/{*path}",
        ALL,
        About::Anything,
        "Any path of a provider, behind its base URL.",
    ),
];

/// What this wire answers.
pub fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    for path in PATHS {
        for method in path.methods {
            let route = Route::wire(method.clone(), path.pattern, |exchange, ids| {
                Box::pin(serve(exchange, ids))
            });
            let begins = matches!(path.about, About::Model(_));
            routes.push(if begins { route.begins_work() } else { route });
        }
    }
    routes
}

fn http_method(method: &Method) -> HttpMethod {
    match method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

/// Their operations in the document; their routes are served natively.
pub fn documented() -> OpenApiRouter<AppState> {
    let text = || Some(ObjectBuilder::new().schema_type(Type::String).build());
    let parameter = |name: &str, place: ParameterIn, required: Required| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(required)
            .schema(text())
    };
    let mut paths = PathsBuilder::new();
    for path in PATHS {
        for method in path.methods {
            let answer = ResponseBuilder::new()
                .description("As the provider answers")
                .content("*/*", Content::default());
            let mut operation = OperationBuilder::new()
                .tag(TAG)
                .summary(Some(path.summary))
                .responses(ResponsesBuilder::new().response("200", answer).build());
            for id in ["provider", "path"] {
                if path.pattern.contains(&format!("{{{id}}}"))
                    || path.pattern.contains(&format!("{{*{id}}}"))
                {
                    operation =
                        operation.parameter(parameter(id, ParameterIn::Path, Required::True));
                }
            }
            if path.about != About::Anything {
                let name = super::serve::PROVIDER;
                operation =
                    operation.parameter(parameter(name, ParameterIn::Header, Required::False));
            }
            let item = PathItem::new(http_method(method), operation);
            paths = paths.path(path.pattern.replace("{*", "{"), item);
        }
    }
    let document: OpenApi = OpenApiBuilder::new().paths(paths).build();
    OpenApiRouter::with_openapi(document)
}
