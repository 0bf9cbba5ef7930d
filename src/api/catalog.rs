//! `/v1/catalog`: presets of known MCP servers; `/v1/tenant/hosted_tools`: the tools in this
//! process.

use axum::Json;
use axum::extract::Path;
use serde::Serialize;
use utoipa::ToSchema;

use super::mcp_servers::PolicyRule;
use crate::edge::extract::Admin;
use crate::edge::page::List;
use crate::error::ApiError;
use crate::store::McpAuth;
use crate::tools::catalog::{CATALOG, CatalogEntry, entry};
use crate::tools::hosted::HOSTED;

/// How one signs in to a known server.
#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogAuth {
    #[schema(value_type = String, pattern = "^(none|bearer|oauth)$")]
    pub kind: McpAuth,
    #[schema(required)]
    pub provider: Option<&'static str>,
    /// Whose OAuth client asks for grants.
    pub client_mode: &'static str,
}

/// A preset.
#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogOut {
    pub slug: &'static str,
    pub display_name: &'static str,
    pub description: &'static str,
    pub mcp_url: &'static str,
    pub auth: CatalogAuth,
    pub scopes: Vec<&'static str>,
    #[schema(required)]
    pub default_allowlist: Option<Vec<String>>,
    pub default_approval_policy: Vec<PolicyRule>,
    #[schema(required)]
    pub logo_url: Option<String>,
    #[schema(required)]
    pub docs_url: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct HostedToolOut {
    pub name: &'static str,
    pub description: &'static str,
}

fn catalog_out(entry: &CatalogEntry) -> CatalogOut {
    CatalogOut {
        slug: entry.slug,
        display_name: entry.display_name,
        description: entry.description,
        mcp_url: entry.mcp_url,
        auth: CatalogAuth {
            kind: entry.auth,
            provider: entry.provider,
            client_mode: "tenant",
        },
        scopes: entry.scopes.to_vec(),
        default_allowlist: None,
        default_approval_policy: entry.approval_policy().iter().map(Into::into).collect(),
        logo_url: None,
        docs_url: Some(entry.docs_url),
    }
}

/// Lists the presets of known MCP servers.
#[utoipa::path(get, path = "/v1/catalog", tag = "mcp servers",
    responses((status = 200, body = List<CatalogOut>)))]
pub async fn list(Admin(_): Admin) -> Result<Json<List<CatalogOut>>, ApiError> {
    let data = CATALOG.iter().map(catalog_out).collect();
    Ok(Json(List { data }))
}

/// Reads a preset.
#[utoipa::path(get, path = "/v1/catalog/{slug}", tag = "mcp servers",
    params(("slug" = String, Path)), responses((status = 200, body = CatalogOut)))]
pub async fn one(Admin(_): Admin, Path(slug): Path<String>) -> Result<Json<CatalogOut>, ApiError> {
    let entry = entry(&slug).ok_or_else(|| ApiError::not_found("catalog entry", &slug))?;
    Ok(Json(catalog_out(entry)))
}

/// Lists the tools that an agent can enable by name.
#[utoipa::path(get, path = "/v1/tenant/hosted_tools", tag = "mcp servers",
    responses((status = 200, body = List<HostedToolOut>)))]
pub async fn hosted_tools(Admin(_): Admin) -> Result<Json<List<HostedToolOut>>, ApiError> {
    let listed = HOSTED.iter().filter(|tool| tool.is_listed());
    let shown = listed.map(|tool| HostedToolOut {
        name: tool.name(),
        description: tool.description(),
    });
    let data = shown.collect();
    Ok(Json(List { data }))
}
