//! The REST resources (`resources.md`): axum routers behind the edge's bridge, which has verified
//! the caller and put the [`crate::auth::Principal`] into the request's extensions.
//!
//! Lives here: one file for each resource, the list envelopes, idempotency, the OpenAPI document
//! that is made of all of them. May import `store`, `auth`, `run`, `model`,
//! `retrieval`, `tools`, `webhook`, `wire`, `error`.

mod agent_ui;
mod agents;
mod approvals;
mod attach;
mod budgets;
mod catalog;
mod configuration;
mod connections;
mod connector;
mod consent;
mod conversation_items;
mod conversations;
mod customers;
mod delegated;
mod deployments;
mod embeddings;
mod events;
pub mod extract;
mod files;
mod grants;
mod health;
mod html;
pub mod idempotency;
mod mcp;
mod mcp_ask;
mod mcp_own;
mod mcp_servers;
mod mcp_tools;
mod mcp_ui;
mod model_keys;
mod models;
pub mod need;
mod oauth;
mod openapi;
mod organization;
mod out_of_scope;
mod page;
mod reference;
pub mod responses;
mod retention;
mod returns;
mod runs;
mod skill_bundle;
mod skill_manifest;
mod skills;
mod smith_history;
mod smiths;
mod tenant_consent;
mod time;
mod tokens;
mod traces;
mod usage;
mod vector_files;
mod vector_stores;
mod webhooks;

pub use connector::metadata_url;
pub use files::Streamed;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::StatusCode;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::edge::{By, Route};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::model::percent_decoded;

/// The pattern of the route that answered, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct RoutePattern(pub &'static str);

type AppState = Arc<Gateway>;

fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Base::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::jwks))
        .routes(routes!(agents::list, agents::create))
        .routes(routes!(attach::import))
        .routes(routes!(agents::one, agents::update, agents::remove))
        .routes(routes!(agents::versions, agents::publish))
        .routes(routes!(agents::rollout))
        .routes(routes!(attach::attach))
        .routes(routes!(agent_ui::list, agent_ui::put))
        .routes(routes!(agent_ui::one, agent_ui::remove))
        .routes(routes!(agent_ui::content))
        .routes(routes!(smiths::list, smiths::create))
        .routes(routes!(smiths::one, smiths::update, smiths::remove))
        .routes(routes!(smith_history::revisions))
        .routes(routes!(smith_history::restore))
        .routes(routes!(smith_history::memory, smith_history::put_memory))
        .routes(routes!(smith_history::recall))
        .routes(routes!(model_keys::list_of_smith))
        .routes(routes!(
            model_keys::put_of_smith,
            model_keys::remove_of_smith
        ))
        .routes(routes!(connections::list, connections::create))
        .routes(routes!(oauth::authorize))
        .routes(routes!(
            connections::one,
            connections::update,
            connections::remove
        ))
        .routes(routes!(connections::refresh))
        .routes(routes!(oauth::callback))
        .routes(routes!(connector::resource))
        .routes(routes!(connector::server))
        .routes(routes!(connector::register))
        .routes(routes!(connector::token))
        .routes(routes!(connector::revoke))
        .routes(routes!(consent::page, consent::decide))
        .routes(routes!(delegated::one))
        .routes(routes!(delegated::complete))
        .routes(routes!(delegated::decline))
        .routes(routes!(tenant_consent::one, tenant_consent::put))
        .routes(routes!(grants::list))
        .routes(routes!(grants::remove))
        .routes(routes!(grants::list_of_smith))
        .routes(routes!(grants::remove_of_smith))
        .routes(routes!(oauth::list))
        .routes(routes!(oauth::one, oauth::put, oauth::remove))
        .routes(routes!(runs::list_of_smith))
        .routes(routes!(runs::one))
        .routes(routes!(runs::submit))
        .routes(routes!(runs::list))
        .routes(routes!(responses::one, responses::remove))
        .routes(routes!(responses::cancel))
        .routes(routes!(responses::input_items))
        .routes(routes!(traces::of_run))
        .routes(routes!(traces::list))
        .routes(routes!(traces::one))
        .routes(routes!(traces::ingest))
        .routes(routes!(customers::list, customers::create))
        .routes(routes!(
            customers::one,
            customers::update,
            customers::remove
        ))
        .routes(routes!(conversations::list, conversations::create))
        .routes(routes!(
            conversations::one,
            conversations::update,
            conversations::remove
        ))
        .routes(routes!(conversation_items::list))
        .routes(routes!(embeddings::create))
        .routes(routes!(files::list, files::create))
        .routes(routes!(files::one, files::remove))
        .routes(routes!(files::content))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::one))
        .routes(routes!(events::list))
        .routes(routes!(budgets::list, budgets::create))
        .routes(routes!(budgets::one, budgets::update, budgets::remove))
        .routes(routes!(budgets::status))
        .routes(routes!(retention::one, retention::put))
        .routes(routes!(usage::of_tenant))
        .routes(routes!(usage::groups))
        .routes(routes!(usage::events, usage::meter))
        .routes(routes!(tokens::list, tokens::mint))
        .routes(routes!(tokens::revoke))
        .routes(routes!(model_keys::list))
        .routes(routes!(model_keys::put, model_keys::remove))
        .routes(routes!(models::catalogue))
        .routes(routes!(models::list))
        .routes(routes!(
            organization::projects,
            organization::create_project
        ))
        .routes(routes!(organization::project, organization::remove_project))
        .routes(routes!(organization::mint_project_token))
        .routes(routes!(organization::revoke_project_token))
        .routes(routes!(organization::keys, organization::mint_key))
        .routes(routes!(organization::revoke_key))
        .routes(routes!(catalog::list))
        .routes(routes!(catalog::one))
        .routes(routes!(catalog::hosted_tools))
        .routes(routes!(mcp_servers::list))
        .routes(routes!(
            mcp_servers::one,
            mcp_servers::put,
            mcp_servers::remove
        ))
        .routes(routes!(mcp_servers::refresh))
        .routes(routes!(deployments::list, deployments::create))
        .routes(routes!(
            deployments::one,
            deployments::update,
            deployments::remove
        ))
        .routes(routes!(skills::list, skills::create))
        .routes(routes!(skills::one, skills::update, skills::remove))
        .routes(routes!(skills::content))
        .routes(routes!(skills::versions, skills::add_version))
        .routes(routes!(skills::version, skills::remove_version))
        .routes(routes!(skills::version_content))
        .routes(routes!(vector_stores::list, vector_stores::create))
        .routes(routes!(
            vector_stores::one,
            vector_stores::update,
            vector_stores::remove
        ))
        .routes(routes!(vector_stores::search))
        .routes(routes!(vector_files::list, vector_files::create))
        .routes(routes!(
            vector_files::one,
            vector_files::update,
            vector_files::remove
        ))
        .routes(routes!(vector_files::content))
        .routes(routes!(vector_files::create_batch))
        .routes(routes!(vector_files::one_batch))
        .routes(routes!(vector_files::cancel_batch))
        .routes(routes!(vector_files::list_of_batch))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::update, webhooks::remove))
        .routes(routes!(webhooks::rotate_secret))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::redeliver))
}

/// The OpenAPI document, made anew for the few who ask: it would be a tenth of an idle gateway's
/// memory.
pub fn document() -> utoipa::openapi::OpenApi {
    openapi::complete(documented().into_openapi())
}

/// Routes that wires answer come here with other methods only, and are refused with `Allow`.
fn refused_otherwise(router: Router<AppState>, listed: &[Route]) -> Router<AppState> {
    listed.iter().fold(router, |router, route| {
        let method = axum::routing::MethodFilter::try_from(route.method.clone());
        match (route.by, method) {
            (By::Wire(_), Ok(method)) => {
                router.route(route.pattern, axum::routing::on(method, not_found))
            }
            _ => router,
        }
    })
}

/// All REST routes; `listed`: the table that the edge has, with those of the wires.
pub fn router(gateway: AppState, listed: &[Route]) -> Router {
    let (router, _) = documented().split_for_parts();
    refused_otherwise(out_of_scope::routes(router), listed)
        // The id of a model may hold slashes, which a documented path cannot say.
        .route("/v1/models/{*id}", axum::routing::get(models::one))
        .route(
            "/v1/deployments/{id}/mcp",
            axum::routing::any(mcp::serve).layer(Extension(mcp::McpHost::new(gateway.clone()))),
        )
        .route(
            "/openapi.json",
            axum::routing::get(async || openapi::answer(&document())),
        )
        .route(
            "/reference",
            axum::routing::get(async || axum::response::Html(reference::page(&document()))),
        )
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // The edge has its own limits.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(
            gateway.clone(),
            idempotency::layer,
        ))
        .layer(middleware::from_fn(html::guard))
        .route_layer(middleware::from_fn(note_route))
        .with_state(gateway)
}

async fn not_found(request: Request) -> ApiError {
    let path = request.uri().path();
    // Of clients whose base URL ends too early.
    let hint = match path.starts_with("/v1/") {
        true => "",
        false => ": the API is under /v1, which belongs to the base URL",
    };
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("no route {} {path}{hint}", request.method()),
    )
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "invalid_request",
        format!(
            "{} does not take {}",
            request.uri().path(),
            request.method()
        ),
    )
}

/// Passes the matched pattern out to the edge.
async fn note_route(request: Request, next: Next) -> Response {
    let pattern = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| interned(path.as_str()));
    // No id holds a NUL, and PostgreSQL does not take one; nor do the extractors take what is no text.
    if request.uri().path().contains("%00") {
        return ApiError::not_found("resource", "with a NUL in its id").into_response();
    }
    if std::str::from_utf8(&percent_decoded(request.uri().path())).is_err() {
        return ApiError::not_found("resource", "whose id is no text").into_response();
    }
    let mut response = next.run(request).await.into_response();
    if let Some(pattern) = pattern {
        response.extensions_mut().insert(RoutePattern(pattern));
    }
    response
}

/// Patterns are few, so keeping each for ever is cheaper than carrying strings.
fn interned(pattern: &str) -> &'static str {
    use std::collections::HashSet;
    static PATTERNS: parking_lot::RwLock<Option<HashSet<&'static str>>> =
        parking_lot::RwLock::new(None);
    if let Some(found) = PATTERNS
        .read()
        .as_ref()
        .and_then(|set| set.get(pattern).copied())
    {
        return found;
    }
    let mut patterns = PATTERNS.write();
    let set = patterns.get_or_insert_default();
    if let Some(found) = set.get(pattern) {
        return found;
    }
    let kept: &'static str = Box::leak(pattern.to_owned().into_boxed_str());
    set.insert(kept);
    kept
}
