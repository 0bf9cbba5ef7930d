//! `/v1/deployments`: who answers where: MCP hosts (`kind: "mcp"`), and the kinds of channels.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::auth::{Principal, scope};
use crate::channel::{Channel, Setup, token_hash};
use crate::connection::random_text;
use crate::edge::AppState;
use crate::edge::extract::{Input, May, check_text, name, sent};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::ids;
use crate::json::{Json as Tree, Object};
use crate::store::{DeploymentFilter, DeploymentRow, LaneRule, now_micros};

const MAX_METADATA: usize = 16 * 1024;
const MAX_EMAIL: usize = 320;

/// Who answers: one smith, or an agent, of which each caller has a smith.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// `smith` or `agent`.
    #[serde(rename = "type")]
    #[schema(pattern = "^(smith|agent)$")]
    pub kind: String,
    pub id: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct DeploymentIn {
    pub target: Target,
    /// `mcp`, `slack`, `telegram`, `whatsapp`, `email`, `discord` or `web`.
    pub kind: String,
    /// Who is answered by a fixed smith: a sender or a conversation, as the channel names them; of
    /// e-mail, the address that is the smith's.
    #[serde(default)]
    pub address: Option<String>,
    /// For channels: `while_running` says what becomes of a message that comes while another is
    /// answered: `queue` (the default), `merge` or `interrupt`.
    #[serde(default)]
    pub provider_metadata: Option<Object>,
    /// What is never shown again. A web page takes a `password`, which visitors are asked for.
    #[serde(default)]
    pub secrets: Option<Object>,
    /// How a channel is bound to: `{"mode": "start_token"}` makes a token by which a conversation binds
    /// itself to a smith; `{"mode": "provision"}` makes an address of e-mail. `mcp` has nothing to set up.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub setup: Option<Tree>,
    #[serde(default)]
    pub display_name: Option<String>,
    #[serde(default)]
    pub owner_email: Option<String>,
}

/// What to change; a null clears.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DeploymentPatch {
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub display_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub owner_email: Option<Option<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DeploymentOut {
    pub id: String,
    pub target: Target,
    pub kind: String,
    pub address: Option<String>,
    pub provider: Option<String>,
    pub provider_metadata: Object,
    pub display_name: Option<String>,
    pub owner_email: Option<String>,
    /// Where an MCP host connects to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub mcp_url: Option<String>,
    /// The page that visitors open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub page_url: Option<String>,
    /// The names of the secrets that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub secret_keys: Option<Vec<String>>,
    /// Always `active`.
    pub status: String,
    pub created_at: Time,
}

/// A new deployment, with what is shown once.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeploymentMade {
    #[serde(flatten)]
    pub deployment: DeploymentOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub start_token: Option<String>,
    /// Opens the conversation that is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub deep_link: Option<String>,
    /// What a person sends first to be bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub prefilled_message: Option<String>,
    /// Where the app is installed on a workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub install_url: Option<String>,
    /// What the installation is known by.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub state: Option<String>,
}

fn deployment_out(gateway: &Gateway, row: DeploymentRow) -> DeploymentOut {
    let mcp_url = format!("{}/v1/deployments/{}/mcp", gateway.public_url(), row.id);
    let channel = gateway.hub.channel(&row.kind);
    let secrets = gateway.hub.secrets_of(&row).unwrap_or_else(|error| {
        tracing::warn!(%error, deployment = %row.id, "the secrets do not open");
        serde_json::Map::new()
    });
    DeploymentOut {
        page_url: channel.and_then(|channel| channel.page_url(&gateway.hub, &row.id)),
        secret_keys: (!secrets.is_empty()).then(|| secrets.keys().cloned().collect()),
        mcp_url: (row.kind == "mcp").then_some(mcp_url),
        id: row.id,
        target: Target {
            kind: row.target_type,
            id: row.target_id,
        },
        kind: row.kind,
        address: row.address,
        provider: row.provider,
        provider_metadata: Object::parse_or_empty(&row.provider_metadata),
        display_name: row.display_name,
        owner_email: row.owner_email,
        status: row.status,
        created_at: Time(row.created_at),
    }
}

/// The deployment, when the caller may see it.
pub(super) async fn found(
    gateway: &Gateway,
    caller: &Principal,
    id: &str,
) -> Result<DeploymentRow, ApiError> {
    let row = gateway.store.deployment(&caller.tenant_id, id).await?;
    let row = row.ok_or_else(|| ApiError::not_found("deployment", id))?;
    let is_own =
        |smith: &std::sync::Arc<str>| row.target_type == "smith" && row.target_id == **smith;
    match caller.smith_id() {
        Some(smith) if !is_own(&smith.clone()) => Err(forbidden_target()),
        _ => Ok(row),
    }
}

fn forbidden_target() -> ApiError {
    ApiError::forbidden("forbidden_target", "this token's smith is not the target")
}

fn checked_name(text: Option<String>) -> Result<Option<String>, ApiError> {
    text.map(|text| name(&text)).transpose()
}

fn checked_email(email: Option<String>) -> Result<Option<String>, ApiError> {
    if let Some(email) = &email {
        check_text("owner_email", email, MAX_EMAIL)?;
        if !email.contains('@') {
            return Err(ApiError::invalid("owner_email", "is no address"));
        }
    }
    Ok(email)
}

/// Puts a smith or an agent behind an endpoint.
#[utoipa::path(post, path = "/v1/deployments", tag = "deployments", request_body = DeploymentIn,
    responses((status = 201, body = DeploymentMade)))]
pub async fn create(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsWrite>,
    Input(input): Input<DeploymentIn>,
) -> Result<(StatusCode, Json<DeploymentMade>), ApiError> {
    let channel = gateway.hub.channel(&input.kind).cloned();
    if input.kind != "mcp" && channel.is_none() {
        let message = format!("deployments of kind '{}' are not built yet", input.kind);
        return Err(ApiError::bad_request("invalid_kind", message).param("kind"));
    }
    if input.kind == "mcp" && input.setup.is_some() {
        let message = "an MCP deployment is ready as it is made: leave 'setup' out";
        return Err(ApiError::bad_request("mcp_no_setup", message).param("setup"));
    }
    let setup = match &channel {
        Some(channel) => setup_of(input.setup.as_ref(), channel.as_ref(), &input.target)?,
        None => None,
    };
    let target = input.target;
    if let Some(smith) = caller.smith_id()
        && (target.kind != "smith" || target.id != **smith)
    {
        return Err(forbidden_target());
    }
    let known = match target.kind.as_str() {
        "smith" => gateway
            .store
            .smith(&caller.tenant_id, &target.id)
            .await?
            .is_some(),
        "agent" => gateway
            .store
            .agent(&caller.tenant_id, &target.id)
            .await?
            .is_some(),
        _ => return Err(ApiError::invalid("target.type", "must be smith or agent")),
    };
    if !known {
        return Err(ApiError::not_found(&target.kind, &target.id));
    }
    let metadata = input.provider_metadata.unwrap_or_default().to_text();
    check_text("provider_metadata", &metadata, MAX_METADATA)?;
    let mut secrets = serde_json::Map::new();
    if let Some(channel) = &channel {
        let settings: Value = serde_json::from_str(&metadata).unwrap_or_default();
        check_rule(&settings)?;
        channel.check_settings(&settings)?;
        if let Some(given) = &input.secrets {
            let given: Value = serde_json::to_value(given).unwrap_or_default();
            secrets = channel.kept_secrets(&given).await?;
        }
    }
    let address = input.address.filter(|address| !address.is_empty());
    check_text("address", address.as_deref().unwrap_or_default(), MAX_EMAIL)?;
    let settings = match &channel {
        Some(channel) if channel.needs_account() => {
            account_of(&gateway, &caller, channel.as_ref()).await?
        }
        _ => Value::Null,
    };
    let id = ids::mint(ids::Kind::Deployment);
    let address = match &channel {
        Some(channel) => {
            let (hub, tenant_id) = (&gateway.hub, &caller.tenant_id);
            let is_made = setup == Some(Setup::Provision);
            channel.address(hub, tenant_id, address, is_made).await?
        }
        None => address,
    };
    let row = DeploymentRow {
        sealed: gateway.hub.seal_secrets(&caller.tenant_id, &id, &secrets)?,
        id,
        tenant_id: caller.tenant_id.to_string(),
        target_type: target.kind,
        target_id: target.id,
        kind: input.kind,
        address,
        provider: None,
        provider_metadata: metadata,
        display_name: checked_name(input.display_name)?,
        owner_email: checked_email(input.owner_email)?,
        status: "active".to_owned(),
        created_at: now_micros(),
    };
    if !gateway.store.insert_deployment(&row).await? {
        return Err(ApiError::conflict(
            "catch_all_exists",
            "an agent answers everybody on this kind already",
        ));
    }
    let start_token = match setup {
        Some(Setup::StartToken) => Some(random_text()?),
        _ => None,
    };
    if let Some(token) = &start_token {
        let hash = token_hash(token);
        let (tenant_id, id) = (&row.tenant_id, &row.id);
        gateway.store.set_start_token(tenant_id, id, &hash).await?;
    }
    let shown = match &channel {
        Some(channel) => {
            let made = channel.made(&gateway.hub, &row, start_token.as_deref());
            made.await?
        }
        None => Map::new(),
    };
    let once = |name: &str| shown.get(name).and_then(Value::as_str).map(str::to_owned);
    let made = DeploymentMade {
        deep_link: start_token
            .as_ref()
            .zip(channel)
            .and_then(|(token, channel)| channel.deep_link(&settings, token)),
        prefilled_message: once("prefilled_message"),
        install_url: once("install_url"),
        state: once("state"),
        start_token,
        deployment: deployment_out(&gateway, row),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// How a channel's deployment is to be set up, if that is asked for.
fn setup_of(
    asked: Option<&Tree>,
    channel: &dyn Channel,
    target: &Target,
) -> Result<Option<Setup>, ApiError> {
    let Some(asked) = asked else {
        return Ok(None);
    };
    let asked: Value = serde_json::to_value(asked).unwrap_or_default();
    let mode = asked["mode"].as_str().unwrap_or_default();
    let setup = channel.setup(mode).ok_or_else(|| {
        let why = format!("must be {}", Setup::START_TOKEN);
        ApiError::invalid("setup.mode", why)
    })?;
    if setup == Setup::StartToken && target.kind != "smith" {
        let why = "a start token binds to a smith; an agent answers everybody";
        return Err(ApiError::invalid("setup.mode", why));
    }
    Ok(Some(setup))
}

fn check_rule(metadata: &Value) -> Result<(), ApiError> {
    let rule = &metadata["while_running"];
    let is_known = rule.is_null() || rule.as_str().and_then(LaneRule::parse).is_some();
    match is_known {
        true => Ok(()),
        false => Err(ApiError::invalid(
            "provider_metadata.while_running",
            "must be queue, merge or interrupt",
        )),
    }
}

/// What the tenant's account on a platform shows; 400 when there is none.
async fn account_of(
    gateway: &Gateway,
    caller: &Principal,
    channel: &dyn Channel,
) -> Result<Value, ApiError> {
    let kind = channel.kind();
    let found = gateway.store.integration(&caller.tenant_id, kind).await?;
    let found = found.ok_or_else(|| {
        let why = format!("set the account first: PUT /v1/tenant/{kind}");
        ApiError::bad_request(channel.unconfigured(), why).param("kind")
    })?;
    Ok(serde_json::from_str(&found.settings).unwrap_or_default())
}

/// Lists the deployments; with a smith token, that smith's.
#[utoipa::path(get, path = "/v1/deployments", tag = "deployments",
    params(PageParams, ("target_type" = Option<String>, Query),
        ("target_id" = Option<String>, Query)),
    responses((status = 200, body = Page<DeploymentOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsRead>,
    page: PageQuery,
) -> Result<Json<Page<DeploymentOut>>, ApiError> {
    let mut filter = DeploymentFilter {
        target_type: page.filters.one_of("target_type", &["smith", "agent"])?,
        target_id: page.filter("target_id"),
        kind: None,
    };
    if let Some(own) = caller.smith_id() {
        filter = DeploymentFilter {
            target_type: Some("smith".to_owned()),
            target_id: Some(own.to_string()),
            kind: None,
        };
    }
    let rows = gateway
        .store
        .deployments(
            &caller.tenant_id,
            &filter,
            page.before.as_deref(),
            page.fetch(),
        )
        .await?;
    Ok(Json(page.page(
        rows,
        |row| row.id.clone(),
        |row| deployment_out(&gateway, row),
    )))
}

/// Reads a deployment.
#[utoipa::path(get, path = "/v1/deployments/{id}", tag = "deployments",
    params(("id" = String, Path)), responses((status = 200, body = DeploymentOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsRead>,
    Path(id): Path<String>,
) -> Result<Json<DeploymentOut>, ApiError> {
    let row = found(&gateway, &caller, &id).await?;
    Ok(Json(deployment_out(&gateway, row)))
}

/// Changes a deployment's name and owner.
#[utoipa::path(patch, path = "/v1/deployments/{id}", tag = "deployments",
    params(("id" = String, Path)), request_body = DeploymentPatch,
    responses((status = 200, body = DeploymentOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsWrite>,
    Path(id): Path<String>,
    Input(input): Input<DeploymentPatch>,
) -> Result<Json<DeploymentOut>, ApiError> {
    let mut row = found(&gateway, &caller, &id).await?;
    if let Some(text) = input.display_name {
        row.display_name = checked_name(text)?;
    }
    if let Some(email) = input.owner_email {
        row.owner_email = checked_email(email)?;
    }
    if !gateway.store.update_deployment(&row).await? {
        return Err(ApiError::not_found("deployment", &id));
    }
    Ok(Json(deployment_out(&gateway, row)))
}

/// Deletes a deployment: nobody answers there any more.
#[utoipa::path(delete, path = "/v1/deployments/{id}", tag = "deployments",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::DeploymentsWrite>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    found(&gateway, &caller, &id).await?;
    match gateway
        .store
        .delete_deployment(&caller.tenant_id, &id, now_micros())
        .await?
    {
        Some(tokens) => {
            gateway.auth.forget(tokens);
            Ok(StatusCode::NO_CONTENT)
        }
        None => Err(ApiError::not_found("deployment", &id)),
    }
}
