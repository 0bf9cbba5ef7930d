//! Smiths that become agents (`/v1/agents/import`), and smiths that move to one (`…/attach`).

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agents::{AgentOut, counted, found, insert, new_agent};
use super::configuration::differing;
use crate::bus::Notice;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Input, name};
use crate::error::ApiError;
use crate::store::{
    AgentConfig, AgentRow, Change, Overrides, SmithChange, SmithFilter, SmithRow, now_micros,
};

/// Smiths looked at in one step of attaching all.
const ATTACH_STEP: i64 = 500;

#[derive(Debug, Deserialize, ToSchema)]
pub struct ImportIn {
    /// The smith whose effective configuration becomes the draft.
    pub from_smith: String,
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct AttachIn {
    /// All smiths of the default agent.
    #[serde(default)]
    pub all: Option<bool>,
    #[serde(default)]
    pub smith_ids: Option<Vec<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Attached {
    pub smith_id: String,
    pub override_keys: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AttachOut {
    pub attached: Vec<Attached>,
    pub count: usize,
}

/// Makes an agent whose draft is a smith's effective configuration.
#[utoipa::path(post, path = "/v1/agents/import", tag = "agents", request_body = ImportIn,
    responses((status = 201, body = AgentOut)))]
pub async fn import(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<ImportIn>,
) -> Result<(StatusCode, Json<AgentOut>), ApiError> {
    let name = name(&input.name)?;
    let smith = gateway
        .store
        .smith(&caller.tenant_id, &input.from_smith)
        .await?
        .ok_or_else(|| ApiError::not_found("smith", &input.from_smith).param("from_smith"))?;
    let effective = gateway.smiths.resolve(smith).await?;
    let agent = insert(&gateway, &caller.tenant_id, &name, None, effective.config).await?;
    Ok((StatusCode::CREATED, Json(counted(&gateway, &agent).await?)))
}

/// Moves smiths to this agent. Overrides that say what the agent says anyway are dropped.
#[utoipa::path(post, path = "/v1/agents/{id}/attach", tag = "agents",
    params(("id" = String, Path)), request_body = AttachIn,
    responses((status = 200, body = AttachOut)))]
pub async fn attach(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<AttachIn>,
) -> Result<Json<AttachOut>, ApiError> {
    let agent = found(&gateway, &caller.tenant_id, &id).await?;
    let named = input.smith_ids.unwrap_or_default();
    let all = input.all.unwrap_or(false);
    if named.is_empty() && !all {
        return Err(ApiError::bad_request(
            "nothing_to_update",
            "name smiths, or ask for all of the default agent's",
        )
        .param("smith_ids"));
    }
    let mut attached = Vec::new();
    if all {
        let template = new_agent(
            &caller.tenant_id,
            "Default agent",
            None,
            AgentConfig::default(),
        );
        let from = gateway.store.default_agent(&template).await?;
        let filter = SmithFilter {
            agent_id: Some(from.id),
            ..SmithFilter::default()
        };
        let mut before = None;
        loop {
            let rows = gateway
                .store
                .smiths(&caller.tenant_id, &filter, before.as_deref(), ATTACH_STEP)
                .await?;
            let Some(last) = rows.last() else {
                break;
            };
            before = Some(last.id.clone());
            for smith in rows {
                attached.extend(move_smith(&gateway, &caller.token_id, smith, &agent).await?);
            }
        }
    }
    let mut smiths = Vec::with_capacity(named.len());
    for smith_id in &named {
        let smith = gateway.store.smith(&caller.tenant_id, smith_id).await?;
        smiths
            .push(smith.ok_or_else(|| ApiError::not_found("smith", smith_id).param("smith_ids"))?);
    }
    for smith in smiths {
        let (smith_id, taken) = (smith.id.clone(), smith.external_id.clone());
        match move_smith(&gateway, &caller.token_id, smith, &agent).await? {
            Some(moved) => attached.push(moved),
            None => {
                return Err(ApiError::conflict(
                    "smith_exists",
                    format!(
                        "{smith_id}: the agent has a smith with the external_id '{}' already",
                        taken.unwrap_or_default()
                    ),
                )
                .param("smith_ids"));
            }
        }
    }
    gateway.changed(Notice::Smiths).await;
    let count = attached.len();
    Ok(Json(AttachOut { attached, count }))
}

/// `None`: the agent has a smith with its external id already.
async fn move_smith(
    gateway: &AppState,
    token_id: &str,
    mut smith: SmithRow,
    agent: &AgentRow,
) -> Result<Option<Attached>, ApiError> {
    let config = gateway.smiths.resolve(smith.clone()).await?.config;
    let moved_elsewhere = smith.agent_id != agent.id;
    if moved_elsewhere {
        smith.agent_id.clone_from(&agent.id);
        smith.pin = None;
    }
    // What it inherits from now on, and what of its present configuration differs from that.
    let mut bare = smith.clone();
    bare.overrides = Overrides::default();
    let inherited = gateway.smiths.resolve(bare).await?.inherited;
    let mut overrides = differing(&config, &inherited);
    overrides.retain(|key, _| smith.overrides.0.contains_key(key));
    smith.overrides = Overrides(overrides);
    let change = Change {
        by: Some(token_id),
        note: Some("attached to an agent"),
        at: now_micros(),
    };
    match gateway.store.update_smith(&smith, change).await? {
        SmithChange::Done => Ok(Some(Attached {
            smith_id: smith.id,
            override_keys: smith.overrides.0.into_keys().collect(),
        })),
        SmithChange::Missing => Err(ApiError::not_found("smith", &smith.id)),
        SmithChange::Taken => Ok(None),
    }
}
