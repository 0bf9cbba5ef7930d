//! `/v1/tenant/mcp`: MCP servers whose tools smiths may use (`tools.md`, "MCP tools").

use axum::Json;
use axum::extract::{Path, State};
use globset::Glob;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::agent_ui::is_name;
use crate::bus::Notice;
use crate::config::is_provider_name;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Input, MAX_URL, check_text};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::store::{ApprovalRule, McpAuth, McpServerRow, McpSettings, McpTools, now_micros};
use crate::tools::{catalog, is_allowed, requires_approval, secret_owner};

const MAX_SECRET: usize = 8192;
const MAX_RULES: usize = 200;
const MAX_NAME: usize = 256;

/// How calls prove who is calling.
#[derive(Deserialize, ToSchema)]
pub struct McpAuthIn {
    /// `none`, `bearer` or `oauth`; absent only where a preset says it.
    #[serde(default)]
    #[schema(pattern = "^(none|bearer|oauth)?$")]
    pub kind: Option<String>,
    /// Whose grants are used, with `oauth`.
    #[serde(default)]
    pub provider: Option<String>,
    /// Write-only.
    #[serde(default)]
    pub secret: Option<String>,
    #[serde(default)]
    #[schema(pattern = "^(tenant|platform)?$")]
    pub client_mode: Option<String>,
}

/// A server; what is left out is not kept from before.
#[derive(Deserialize, ToSchema)]
pub struct McpServerIn {
    #[serde(default)]
    #[schema(format = "uri", max_length = 2048)]
    pub url: Option<String>,
    /// The slug of a preset.
    #[serde(default)]
    pub catalog: Option<String>,
    #[serde(default)]
    pub auth: Option<McpAuthIn>,
    /// Null: all tools; a list denies the rest.
    #[serde(default)]
    #[schema(max_items = 200)]
    pub tool_allowlist: Option<Vec<String>>,
    /// `[{match, require?}]`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<PolicyRule>>, max_items = 200)]
    pub approval_policy: Option<Vec<Map<String, Value>>>,
}

/// Which tools wait for an approval.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicyRule {
    /// A glob over tool names.
    #[serde(rename = "match")]
    pub pattern: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^approval$", nullable = false)]
    pub require: Option<String>,
}

impl From<&ApprovalRule> for PolicyRule {
    fn from(rule: &ApprovalRule) -> Self {
        Self {
            pattern: rule.pattern.clone(),
            require: rule.require.clone(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct McpAuthOut {
    #[schema(value_type = String)]
    pub kind: McpAuth,
    #[schema(required)]
    pub provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_mode: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct McpToolOut {
    pub name: String,
    #[schema(required)]
    pub description: Option<String>,
    /// By the server's `destructiveHint` or by the approval policy.
    pub requires_approval: bool,
    /// Whether the allow-list lets it through.
    pub enabled: bool,
}

/// A server, without its secret.
#[derive(Serialize, ToSchema)]
pub struct McpServerOut {
    pub id: String,
    pub name: String,
    pub url: String,
    pub auth: McpAuthOut,
    /// `tenant_registered` or `catalog`.
    pub origin: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub catalog_slug: Option<String>,
    pub tool_allowlist: Option<Vec<String>>,
    pub approval_policy: Vec<PolicyRule>,
    pub tools: Vec<McpToolOut>,
    pub tools_discovered: i64,
    pub tools_refreshed_at: Option<Time>,
    /// `active` or `degraded`.
    pub status: &'static str,
    pub discovery_error: Option<String>,
    pub last_call_error: Option<String>,
    pub last_call_error_at: Option<Time>,
    pub created_at: Time,
}

fn server_out(row: McpServerRow) -> McpServerOut {
    let settings = &row.settings;
    let tools: Vec<McpToolOut> = row
        .tools
        .0
        .iter()
        .map(|tool| McpToolOut {
            requires_approval: requires_approval(settings, tool),
            enabled: is_allowed(settings, &tool.name),
            name: tool.name.clone(),
            description: tool.description.clone(),
        })
        .collect();
    McpServerOut {
        tools_discovered: tools.len() as i64,
        tools,
        auth: McpAuthOut {
            kind: settings.auth,
            provider: settings.provider.clone(),
            client_mode: settings.client_mode.clone(),
        },
        origin: match settings.catalog_slug {
            Some(_) => "catalog",
            None => "tenant_registered",
        },
        catalog_slug: settings.catalog_slug.clone(),
        tool_allowlist: settings.tool_allowlist.clone(),
        approval_policy: settings.approval_policy.iter().map(Into::into).collect(),
        status: match row.discovery_error {
            Some(_) => "degraded",
            None => "active",
        },
        id: row.id,
        name: row.name,
        url: row.url,
        tools_refreshed_at: row.tools_refreshed_at.map(Time),
        discovery_error: row.discovery_error,
        last_call_error: row.last_call_error,
        last_call_error_at: row.last_call_error_at.map(Time),
        created_at: Time(row.created_at),
    }
}

fn policy(rules: Vec<Map<String, Value>>) -> Result<Vec<ApprovalRule>, ApiError> {
    if rules.len() > MAX_RULES {
        return Err(ApiError::invalid(
            "approval_policy",
            format!("must have at most {MAX_RULES} rules"),
        ));
    }
    let rule = |(at, rule): (usize, Map<String, Value>)| {
        let bad = |why: &str| {
            ApiError::bad_request("invalid_approval_policy", why.to_owned())
                .param(format!("approval_policy[{at}]"))
        };
        if let Some(other) = rule.keys().find(|k| *k != "match" && *k != "require") {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unsupported_policy_rule",
                format!("a rule has no clause '{other}'"),
            )
            .param(format!("approval_policy[{at}]")));
        }
        let pattern = rule.get("match").and_then(Value::as_str);
        let pattern = pattern.ok_or_else(|| bad("'match' must be a glob"))?;
        check_text("approval_policy", pattern, MAX_NAME)?;
        Glob::new(pattern).map_err(|_| bad("'match' must be a glob"))?;
        let require = match rule.get("require") {
            None | Some(Value::Null) => None,
            Some(Value::String(word)) if word == "approval" => Some(word.clone()),
            Some(_) => return Err(bad("'require' can only be \"approval\"")),
        };
        Ok(ApprovalRule {
            pattern: pattern.to_owned(),
            require,
        })
    };
    rules.into_iter().enumerate().map(rule).collect()
}

fn invalid_auth(why: &str) -> ApiError {
    ApiError::bad_request("invalid_auth_kind", why.to_owned()).param("auth.kind")
}

/// The settings and the secret of what a tenant registers.
fn settings(
    input: McpServerIn,
    preset: Option<&catalog::CatalogEntry>,
) -> Result<(McpSettings, Option<String>), ApiError> {
    let kind = input.auth.as_ref().and_then(|auth| auth.kind.as_deref());
    let kind = match (kind.filter(|kind| !kind.is_empty()), preset) {
        (Some("none"), _) => McpAuth::None,
        (Some("bearer"), _) => McpAuth::Bearer,
        (Some("oauth"), _) => McpAuth::Oauth,
        (Some(_), _) => return Err(invalid_auth("must be none, bearer or oauth")),
        (None, Some(preset)) => preset.auth,
        (None, None) => return Err(invalid_auth("is required: none, bearer or oauth")),
    };
    let (mut provider, mut secret, mut client_mode) = (None, None, None);
    if let Some(auth) = input.auth {
        (provider, secret, client_mode) = (auth.provider, auth.secret, auth.client_mode);
    }
    let provider = provider
        .filter(|name| !name.is_empty())
        .or_else(|| preset.and_then(|p| p.provider).map(str::to_owned));
    if let Some(name) = &provider
        && !is_provider_name(name)
    {
        return Err(ApiError::invalid(
            "auth.provider",
            "a provider's name is [a-z0-9][a-z0-9_-]*",
        ));
    }
    if kind == McpAuth::Oauth && provider.is_none() {
        return Err(ApiError::invalid(
            "auth.provider",
            "is required with oauth: whose grants are used",
        ));
    }
    let client_mode = client_mode.filter(|mode| !mode.is_empty());
    if client_mode
        .as_deref()
        .is_some_and(|m| m != "tenant" && m != "platform")
    {
        return Err(ApiError::invalid(
            "auth.client_mode",
            "must be tenant or platform",
        ));
    }
    let secret = secret
        .map(|s| s.trim().to_owned())
        .filter(|s| !s.is_empty());
    let printable = |text: &String| text.bytes().all(|b| (0x21..0x7f).contains(&b));
    if secret
        .as_ref()
        .is_some_and(|s| s.len() > MAX_SECRET || !printable(s))
    {
        return Err(ApiError::invalid(
            "auth.secret",
            "is no token: too long, or not printable",
        ));
    }
    if kind == McpAuth::Bearer && secret.is_none() {
        return Err(
            ApiError::bad_request("secret_required", "bearer needs a secret").param("auth.secret"),
        );
    }
    if let Some(list) = &input.tool_allowlist {
        if list.len() > MAX_RULES {
            return Err(ApiError::invalid(
                "tool_allowlist",
                format!("must have at most {MAX_RULES} entries"),
            ));
        }
        for name in list {
            check_text("tool_allowlist", name, MAX_NAME)?;
        }
    }
    let approval_policy = match (input.approval_policy, preset) {
        (Some(rules), _) => policy(rules)?,
        (None, Some(preset)) => preset.approval_policy(),
        (None, None) => Vec::new(),
    };
    let settings = McpSettings {
        auth: kind,
        provider,
        client_mode,
        catalog_slug: preset.map(|p| p.slug.to_owned()),
        tool_allowlist: input.tool_allowlist,
        approval_policy,
    };
    Ok((settings, secret.filter(|_| kind == McpAuth::Bearer)))
}

async fn found(gateway: &AppState, tenant: &str, name: &str) -> Result<McpServerRow, ApiError> {
    let server = gateway.store.mcp_server(tenant, name).await?;
    server.ok_or_else(|| ApiError::not_found("MCP server", name))
}

/// Asks a server for its tools and notes what it says.
async fn discover(gateway: &AppState, server: &mut McpServerRow, secret: Option<String>) {
    match gateway.tools.discover(server, secret).await {
        Ok(tools) => {
            server.tools = McpTools(tools);
            server.tools_refreshed_at = Some(now_micros());
            server.discovery_error = None;
        }
        Err(why) => server.discovery_error = Some(why),
    }
}

/// Lists the registered MCP servers.
#[utoipa::path(get, path = "/v1/tenant/mcp", tag = "mcp servers", params(PageParams),
    responses((status = 200, body = Page<McpServerOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<McpServerOut>>, ApiError> {
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .mcp_servers(&caller.tenant_id, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), server_out)))
}

/// Reads a server.
#[utoipa::path(get, path = "/v1/tenant/mcp/{name}", tag = "mcp servers",
    params(("name" = String, Path)), responses((status = 200, body = McpServerOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(name): Path<String>,
) -> Result<Json<McpServerOut>, ApiError> {
    Ok(Json(server_out(
        found(&gateway, &caller.tenant_id, &name).await?,
    )))
}

/// Registers a server, or replaces the one of that name, and asks it for its tools. One that does
/// not answer is kept as `degraded`.
#[utoipa::path(put, path = "/v1/tenant/mcp/{name}", tag = "mcp servers",
    params(("name" = String, Path)), request_body = McpServerIn,
    responses((status = 200, body = McpServerOut)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(name): Path<String>,
    Input(input): Input<McpServerIn>,
) -> Result<Json<McpServerOut>, ApiError> {
    if !is_name(&name) {
        return Err(ApiError::bad_request(
            "invalid_name",
            "a server's name is [a-z0-9][a-z0-9_-]*, of at most 63",
        )
        .param("name"));
    }
    let preset = match input.catalog.as_deref().filter(|slug| !slug.is_empty()) {
        Some(slug) => Some(catalog::entry(slug).ok_or_else(|| {
            ApiError::bad_request("unknown_catalog_entry", format!("no preset '{slug}'"))
                .param("catalog")
        })?),
        None => None,
    };
    let given = input.url.clone().filter(|url| !url.trim().is_empty());
    let url = given
        .or_else(|| preset.map(|p| p.mcp_url.to_owned()))
        .ok_or_else(|| {
            ApiError::bad_request("url_required", "give a url or a catalog slug").param("url")
        })?;
    check_text("url", &url, MAX_URL)?;
    let (settings, secret) = settings(input, preset)?;
    let without_query = url.split_once('?').map_or(url.as_str(), |(base, _)| base);
    gateway.connections.check_url("url", without_query).await?;
    let tenant = &caller.tenant_id;
    let sealed = match &secret {
        Some(secret) => Some(
            gateway
                .vault
                .seal(&secret_owner(tenant, &name), secret.as_bytes())
                .map_err(ApiError::internal)?,
        ),
        None => None,
    };
    let now = now_micros();
    let mut server = McpServerRow {
        id: ids::mint(ids::Kind::McpServer),
        tenant_id: tenant.to_string(),
        name,
        url,
        settings,
        sealed,
        tools: McpTools::default(),
        tools_refreshed_at: None,
        discovery_error: None,
        last_call_error: None,
        last_call_error_at: None,
        created_at: now,
        updated_at: now,
    };
    discover(&gateway, &mut server, secret).await;
    let kept = gateway.store.put_mcp_server(&server).await?;
    gateway
        .changed(Notice::mcp_server(&kept.tenant_id, &kept.name))
        .await;
    Ok(Json(server_out(kept)))
}

/// Asks a server for its tools again; 502 `discovery_failed` when it gives none.
#[utoipa::path(post, path = "/v1/tenant/mcp/{name}/refresh", tag = "mcp servers",
    params(("name" = String, Path)), responses((status = 200, body = McpServerOut)))]
pub async fn refresh(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(name): Path<String>,
) -> Result<Json<McpServerOut>, ApiError> {
    let mut server = found(&gateway, &caller.tenant_id, &name).await?;
    let secret = gateway.tools.secret(&server)?;
    discover(&gateway, &mut server, secret).await;
    if !gateway.store.put_mcp_tools(&server).await? {
        return Err(ApiError::not_found("MCP server", &name));
    }
    gateway
        .changed(Notice::mcp_server(&caller.tenant_id, &name))
        .await;
    match &server.discovery_error {
        None => Ok(Json(server_out(server))),
        Some(why) => Err(ApiError::new(
            StatusCode::BAD_GATEWAY,
            "discovery_failed",
            why.clone(),
        )),
    }
}

/// Forgets a server.
#[utoipa::path(delete, path = "/v1/tenant/mcp/{name}", tag = "mcp servers",
    params(("name" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    match gateway
        .store
        .delete_mcp_server(&caller.tenant_id, &name)
        .await?
    {
        true => {
            gateway
                .changed(Notice::mcp_server(&caller.tenant_id, &name))
                .await;
            Ok(StatusCode::NO_CONTENT)
        }
        false => Err(ApiError::not_found("MCP server", &name)),
    }
}
