//! What the document says of the paths that are passed on.

use http::Method;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::{
    Content, ObjectBuilder, OpenApi, OpenApiBuilder, Required, ResponseBuilder, ResponsesBuilder,
    Type,
};
use utoipa_axum::router::OpenApiRouter;

use super::paths::{About, PATHS, PROVIDER, TAG};
use crate::edge::AppState;

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
                let name = PROVIDER;
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
