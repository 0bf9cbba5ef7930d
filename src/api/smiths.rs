//! `/v1/smiths`: upsert, read, list, change, delete.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::agents::new_agent;
use super::configuration::{ConfigPatch, Inherited, SkillRef, SmithInherited, with_configuration};
use crate::auth::{Principal, Scope};
use crate::bus::Notice;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Anyone, Input, check_metadata, check_text, permitted, sent};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::run::Effective;
use crate::store::{
    AgentConfig, Change, Overrides, Rows, SmithChange, SmithFilter, SmithProfile, SmithRow,
    now_micros,
};

const MAX_FIELD: usize = 512;

with_configuration! {
    /// A new smith; config members become overrides.
    #[derive(Debug, Deserialize, ToSchema)]
    pub struct SmithCreate {
        /// The caller's own id of the person; with the agent it is the smith's natural key.
        #[serde(default)]
        #[schema(max_length = 512)]
        pub external_id: Option<String>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<String>, max_length = 512)]
        pub display_name: Option<Option<String>>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<String>, max_length = 512)]
        pub locale: Option<Option<String>>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<String>, max_length = 512)]
        pub timezone: Option<Option<String>>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<String>)]
        pub customer_id: Option<Option<String>>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<Object>)]
        pub metadata: Option<Option<Object>>,
        /// Absent: the default agent.
        #[serde(default)]
        pub agent_id: Option<String>,
        /// A version to stay on.
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<i64>)]
        pub pin: Option<Option<i64>>,
    }
}

with_configuration! {
    /// What to change; a null clears an override, an empty `customer_id` the assignment.
    #[derive(Debug, Deserialize, ToSchema)]
    pub struct SmithPatch {
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<String>, max_length = 512)]
        pub display_name: Option<Option<String>>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<String>, max_length = 512)]
        pub locale: Option<Option<String>>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<String>, max_length = 512)]
        pub timezone: Option<Option<String>>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<String>)]
        pub customer_id: Option<Option<String>>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<Object>)]
        pub metadata: Option<Option<Object>>,
        #[serde(default)]
        pub agent_id: Option<String>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<i64>)]
        pub pin: Option<Option<i64>>,
    }
}

/// Where a smith's configuration comes from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConfigSource {
    Agent,
    Override,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SmithOut {
    pub id: String,
    pub external_id: Option<String>,
    pub display_name: Option<String>,
    pub locale: Option<String>,
    pub timezone: Option<String>,
    pub customer_id: Option<String>,
    pub metadata: Object,
    /// The effective model, as the members after it are the effective ones.
    pub model: String,
    pub instructions: String,
    /// With the variables bound; null when a required one is not.
    pub rendered_instructions: Option<String>,
    pub enabled_hosted_tools: Vec<String>,
    pub vector_store_ids: Vec<String>,
    pub mcp_servers: Option<Vec<String>>,
    pub skills: Vec<SkillRef>,
    pub auto_memory: bool,
    pub memory_consolidation: bool,
    pub config_source: ConfigSource,
    pub agent_id: String,
    pub agent_version: Option<i64>,
    pub pin: Option<i64>,
    pub override_keys: Vec<String>,
    pub inherited: Option<SmithInherited>,
    pub created_at: Time,
}

fn smith_out(effective: Effective, default_model: Option<&str>) -> SmithOut {
    let config = Inherited::from(&effective.config).effective(default_model);
    let inherited = Inherited::from(&effective.inherited).effective(default_model);
    let smith = effective.smith;
    SmithOut {
        id: smith.id,
        external_id: smith.external_id,
        display_name: smith.profile.display_name,
        locale: smith.profile.locale,
        timezone: smith.profile.timezone,
        customer_id: smith.customer_id,
        metadata: smith.profile.metadata.unwrap_or_default(),
        model: config.model,
        instructions: config.instructions.unwrap_or_default(),
        rendered_instructions: effective.instructions.ok(),
        enabled_hosted_tools: config.enabled_hosted_tools,
        vector_store_ids: config.vector_store_ids,
        mcp_servers: config.mcp_servers,
        skills: config.skills,
        auto_memory: config.auto_memory,
        memory_consolidation: config.memory_consolidation,
        config_source: match smith.overrides.0.is_empty() {
            true => ConfigSource::Agent,
            false => ConfigSource::Override,
        },
        agent_id: smith.agent_id,
        agent_version: effective.version,
        pin: smith.pin,
        override_keys: smith.overrides.0.into_keys().collect(),
        inherited: Some(inherited),
        created_at: Time(smith.created_at),
    }
}

async fn shown(gateway: &AppState, smith: SmithRow) -> Result<SmithOut, ApiError> {
    let effective = gateway.smiths.resolve(smith).await?;
    Ok(smith_out(effective, gateway.models.routing.default_model()))
}

/// The members of a smith's profile and their assignment, as sent.
struct Fields {
    display_name: Option<Option<String>>,
    locale: Option<Option<String>>,
    timezone: Option<Option<String>>,
    customer_id: Option<Option<String>>,
    metadata: Option<Option<Object>>,
    pin: Option<Option<i64>>,
}

macro_rules! fields {
    ($input:ident) => {
        Fields {
            display_name: $input.display_name.clone(),
            locale: $input.locale.clone(),
            timezone: $input.timezone.clone(),
            customer_id: $input.customer_id.clone(),
            metadata: $input.metadata.clone(),
            pin: $input.pin,
        }
    };
}

impl Fields {
    fn is_empty(&self) -> bool {
        self.display_name.is_none()
            && self.locale.is_none()
            && self.timezone.is_none()
            && self.customer_id.is_none()
            && self.metadata.is_none()
            && self.pin.is_none()
    }

    async fn apply(self, gateway: &AppState, smith: &mut SmithRow) -> Result<(), ApiError> {
        let SmithProfile {
            display_name,
            locale,
            timezone,
            metadata,
        } = &mut smith.profile;
        for (param, sent, kept) in [
            ("display_name", self.display_name, display_name),
            ("locale", self.locale, locale),
            ("timezone", self.timezone, timezone),
        ] {
            if let Some(value) = sent {
                check_text(param, value.as_deref().unwrap_or_default(), MAX_FIELD)?;
                *kept = value;
            }
        }
        if let Some(sent) = self.metadata {
            check_metadata(sent.as_ref().unwrap_or(&Object::default()))?;
            *metadata = sent;
        }
        if let Some(sent) = self.customer_id {
            smith.customer_id = sent.filter(|id| !id.is_empty());
            if let Some(id) = &smith.customer_id
                && gateway
                    .store
                    .customer(&smith.tenant_id, id)
                    .await?
                    .is_none()
            {
                return Err(ApiError::not_found("customer", id).param("customer_id"));
            }
        }
        if let Some(sent) = self.pin {
            smith.pin = sent;
        }
        if let Some(pin) = smith.pin {
            let store = &gateway.store;
            let version = store.agent_version(&smith.tenant_id, &smith.agent_id, pin);
            if version.await?.is_none() {
                return Err(ApiError::not_found("agent version", &pin.to_string()).param("pin"));
            }
        }
        Ok(())
    }
}

/// Sets and clears overrides.
fn override_with(overrides: &mut Overrides, patch: ConfigPatch) {
    for (name, value) in patch.0 {
        match value {
            Value::Null => overrides.0.remove(name),
            value => overrides.0.insert(name.to_owned(), value),
        };
    }
}

/// Lists the smiths.
#[utoipa::path(get, path = "/v1/smiths", tag = "smiths",
    params(PageParams, ("external_id" = Option<String>, Query),
        ("external_id_prefix" = Option<String>, Query),
        ("customer_id" = Option<String>, Query), ("agent_id" = Option<String>, Query)),
    responses((status = 200, body = Page<SmithOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<SmithOut>>, ApiError> {
    let filter = SmithFilter {
        external_id: page.filter("external_id"),
        external_id_prefix: page.filter("external_id_prefix"),
        customer_id: page.filter("customer_id"),
        agent_id: page.filter("agent_id"),
    };
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .smiths(&caller.tenant_id, &filter, before, page.fetch())
        .await?;
    let default_model = gateway.models.routing.default_model();
    let is_cut = rows.is_cut();
    let rows = gateway.smiths.resolve_all(rows.into_vec()).await?;
    Ok(Json(page.page(
        Rows::new(rows, is_cut),
        |row| row.smith.id.clone(),
        |row| smith_out(row, default_model),
    )))
}

/// Makes a smith, or answers the live one of the same `(external_id, agent_id)` with 200.
#[utoipa::path(post, path = "/v1/smiths", tag = "smiths", request_body = SmithCreate,
    responses((status = 201, body = SmithOut), (status = 200, body = SmithOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<SmithCreate>,
) -> Result<(StatusCode, Json<SmithOut>), ApiError> {
    let patch = input.common()?;
    let fields = fields!(input);
    let external_id = input.external_id.filter(|id| !id.is_empty());
    let external = external_id.as_deref().unwrap_or_default();
    check_text("external_id", external, MAX_FIELD)?;
    let agent_id = agent_of(&gateway, &caller.tenant_id, input.agent_id.as_deref()).await?;
    let mut smith = SmithRow {
        id: ids::mint(ids::Kind::Smith),
        tenant_id: caller.tenant_id.to_string(),
        agent_id,
        external_id,
        profile: SmithProfile::default(),
        customer_id: None,
        pin: None,
        overrides: Overrides::default(),
        created_at: now_micros(),
    };
    fields.apply(&gateway, &mut smith).await?;
    override_with(&mut smith.overrides, patch);
    let (smith, made) = gateway.store.upsert_smith(&smith).await?;
    let status = match made {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(shown(&gateway, smith).await?)))
}

async fn agent_of(
    gateway: &AppState,
    tenant: &str,
    agent_id: Option<&str>,
) -> Result<String, ApiError> {
    let Some(agent_id) = agent_id.filter(|id| !id.is_empty()) else {
        let template = new_agent(tenant, "Default agent", None, AgentConfig::default());
        return Ok(gateway.store.default_agent(&template).await?.id);
    };
    match gateway.store.agent(tenant, agent_id).await? {
        Some(agent) => Ok(agent.id),
        None => Err(ApiError::not_found("agent", agent_id).param("agent_id")),
    }
}

/// Reads a smith.
#[utoipa::path(get, path = "/v1/smiths/{id}", tag = "smiths", params(("id" = String, Path)),
    responses((status = 200, body = SmithOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
) -> Result<Json<SmithOut>, ApiError> {
    let smith = permitted(&gateway, &caller, &id, Scope::RunsRead).await?;
    Ok(Json(shown(&gateway, smith).await?))
}

/// Changes a smith. Each change is a revision.
#[utoipa::path(patch, path = "/v1/smiths/{id}", tag = "smiths", params(("id" = String, Path)),
    request_body = SmithPatch, responses((status = 200, body = SmithOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<SmithPatch>,
) -> Result<Json<SmithOut>, ApiError> {
    let patch = input.common()?;
    let fields = fields!(input);
    let agent_id = input.agent_id.filter(|id| !id.is_empty());
    if patch.0.is_empty() && fields.is_empty() && agent_id.is_none() {
        return Err(ApiError::bad_request(
            "empty_patch",
            "the patch changes nothing",
        ));
    }
    let mut smith = permitted(&gateway, &caller, &id, Scope::RunsRead).await?;
    if let Some(agent_id) = agent_id
        && agent_id != smith.agent_id
    {
        smith.agent_id = agent_of(&gateway, &caller.tenant_id, Some(&agent_id)).await?;
        // A version of the agent before says nothing of this one's.
        smith.pin = None;
    }
    fields.apply(&gateway, &mut smith).await?;
    override_with(&mut smith.overrides, patch);
    written(&gateway, &caller, &smith, None).await?;
    Ok(Json(shown(&gateway, smith).await?))
}

/// Writes a change of a smith and its revision.
pub(super) async fn written(
    gateway: &AppState,
    caller: &Principal,
    smith: &SmithRow,
    note: Option<&str>,
) -> Result<(), ApiError> {
    let change = Change {
        by: Some(&caller.token_id),
        note,
        at: now_micros(),
    };
    match gateway.store.update_smith(smith, change).await? {
        SmithChange::Done => {
            gateway
                .changed(Notice::smith(&smith.tenant_id, &smith.id))
                .await;
            Ok(())
        }
        SmithChange::Missing => Err(ApiError::not_found("smith", &smith.id)),
        SmithChange::Taken => Err(ApiError::conflict(
            "smith_exists",
            "the agent has a smith with this external_id already",
        )
        .param("agent_id")),
    }
}

/// Deletes a smith with its tokens, the hosts that were let in to it, its connections, keys and
/// deployments; its runs stay as records.
#[utoipa::path(delete, path = "/v1/smiths/{id}", tag = "smiths", params(("id" = String, Path)),
    responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let store = &gateway.store;
    let found = store
        .delete_smith(&caller.tenant_id, &id, now_micros())
        .await?;
    gateway.changed(Notice::smith(&caller.tenant_id, &id)).await;
    match found {
        Some(tokens) => {
            gateway.auth.forget(tokens);
            gateway.changed(Notice::ModelKeys).await;
            Ok(StatusCode::NO_CONTENT)
        }
        None => Err(ApiError::not_found("smith", &id)),
    }
}
