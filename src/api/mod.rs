//! The REST resources (`resources.md`): axum routers behind the edge's bridge, which has verified
//! the caller and put the [`crate::auth::Principal`] into the request's extensions.
//!
//! Lives here: one file for each resource. What handlers share is in `edge`; resources that are a part
//! of a wire (responses, conversations, runs, the MCP server) are in its folder.

mod agent_ui;
mod agents;
mod approvals;
mod attach;
mod budgets;
mod catalog;
mod configuration;
mod connections;
mod customers;
mod deliveries;
mod deployments;
mod events;
mod files;
mod grants;
mod health;
mod inbound_events;
mod mcp_servers;
mod model_keys;
mod models;
mod oauth;
mod organization;
mod out_of_scope;
mod retention;
mod returns;
mod skill_bundle;
mod skill_manifest;
mod skills;
mod smith_history;
mod smiths;
mod tenant_consent;
mod tokens;
mod traces;
mod usage;
mod vector_stores;
mod virtual_keys;
mod webhooks;

pub use models::one as model;
pub use out_of_scope::routes as out_of_scope;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::edge::AppState;

/// Their operations and routes.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
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
        .routes(routes!(tenant_consent::one, tenant_consent::put))
        .routes(routes!(grants::list))
        .routes(routes!(grants::remove))
        .routes(routes!(grants::list_of_smith))
        .routes(routes!(grants::remove_of_smith))
        .routes(routes!(oauth::list))
        .routes(routes!(oauth::one, oauth::put, oauth::remove))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::redeliver))
        .routes(routes!(inbound_events::list))
        .routes(routes!(inbound_events::one))
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
        .routes(routes!(virtual_keys::list, virtual_keys::create))
        .routes(routes!(
            virtual_keys::one,
            virtual_keys::update,
            virtual_keys::revoke
        ))
        .routes(routes!(virtual_keys::rotate))
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
        .routes(routes!(
            vector_stores::stores::list,
            vector_stores::stores::create
        ))
        .routes(routes!(
            vector_stores::stores::one,
            vector_stores::stores::update,
            vector_stores::stores::remove
        ))
        .routes(routes!(vector_stores::stores::search))
        .routes(routes!(
            vector_stores::files::list,
            vector_stores::files::create
        ))
        .routes(routes!(
            vector_stores::files::one,
            vector_stores::files::update,
            vector_stores::files::remove
        ))
        .routes(routes!(vector_stores::files::content))
        .routes(routes!(vector_stores::files::create_batch))
        .routes(routes!(vector_stores::files::one_batch))
        .routes(routes!(vector_stores::files::cancel_batch))
        .routes(routes!(vector_stores::files::list_of_batch))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::update, webhooks::remove))
        .routes(routes!(webhooks::rotate_secret))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::redeliver))
}
