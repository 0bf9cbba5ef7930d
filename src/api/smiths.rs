//! `/v1/smiths`: upsert, read, list.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::agents::{config_of, new_agent};
use super::page::PageQuery;
use super::{AppState, Caller, idempotency};
use crate::auth::Scope;
use crate::error::ApiError;
use crate::ids;
use crate::run::{Effective, rfc3339};
use crate::store::{AgentConfig, Overrides, SmithFilter, SmithProfile, SmithRow, now_micros};
use crate::wire::parse;

/// The members of an agent's configuration that a smith may override.
const OVERRIDABLE: [&str; 8] = [
    "model",
    "instructions",
    "enabled_hosted_tools",
    "vector_store_ids",
    "mcp_servers",
    "skills",
    "auto_memory",
    "memory_consolidation",
];

#[derive(Debug, Deserialize)]
struct SmithIn {
    #[serde(default)]
    external_id: Option<String>,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    locale: Option<String>,
    #[serde(default)]
    timezone: Option<String>,
    #[serde(default)]
    customer_id: Option<String>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
    #[serde(default)]
    agent_id: Option<String>,
    #[serde(default)]
    pin: Option<i64>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn config_out(config: &AgentConfig) -> Value {
    json!({
        "model": config.model,
        "instructions": config.instructions,
        "enabled_hosted_tools": config.enabled_hosted_tools,
        "vector_store_ids": config.vector_store_ids,
        "mcp_servers": config.mcp_servers,
        "skills": config.skills,
        "auto_memory": config.auto_memory,
        "memory_consolidation": config.memory_consolidation,
    })
}

fn smith_out(effective: &Effective, default_model: Option<&str>) -> Value {
    let smith = &effective.smith;
    let config = &effective.config;
    let model = config
        .model
        .as_deref()
        .or(default_model)
        .unwrap_or_default();
    let source = match smith.overrides.0.is_empty() {
        true => "agent",
        false => "override",
    };
    let mut out = config_out(config);
    let fields = json!({
        "id": smith.id,
        "external_id": smith.external_id,
        "display_name": smith.profile.display_name,
        "locale": smith.profile.locale,
        "timezone": smith.profile.timezone,
        "customer_id": smith.customer_id,
        "metadata": smith.profile.metadata.clone().unwrap_or_default(),
        "model": model,
        "instructions": config.instructions.clone().unwrap_or_default(),
        "rendered_instructions": effective.instructions.as_deref().ok(),
        "config_source": source,
        "agent_id": smith.agent_id,
        "agent_version": effective.version,
        "pin": smith.pin,
        "override_keys": smith.overrides.0.keys().collect::<Vec<_>>(),
        "inherited": config_out(&effective.inherited),
        "created_at": rfc3339(smith.created_at),
    });
    if let (Value::Object(out), Value::Object(fields)) = (&mut out, fields) {
        out.extend(fields);
    }
    out
}

/// `GET /v1/smiths`.
pub async fn list(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    page: PageQuery,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let filter = SmithFilter {
        external_id: page.filter("external_id"),
        external_id_prefix: page.filter("external_id_prefix"),
        customer_id: page.filter("customer_id"),
        agent_id: page.filter("agent_id"),
    };
    let rows = gateway
        .store
        .smiths(
            &caller.tenant_id,
            &filter,
            page.before.as_deref(),
            page.fetch(),
        )
        .await?;
    let default_model = gateway.models.routing.default_model();
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let id = row.id.clone();
        let effective = gateway.smiths.resolve(row).await?;
        out.push((id, smith_out(&effective, default_model)));
    }
    Ok(Json(page.page(
        out,
        |(id, _)| id.clone(),
        |(_, smith)| smith.clone(),
    )))
}

/// `POST /v1/smiths`: 201 when made, 200 with the live smith of the same key.
pub async fn create(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let make = async {
        let input: SmithIn = match body.trim_ascii().is_empty() {
            true => parse(b"{}")?,
            false => parse(&body)?,
        };
        let agent_id = agent_of(&gateway, &caller.tenant_id, &input).await?;
        // Checks the types of what is overridden.
        config_of(&input.rest)?;
        let overrides = input
            .rest
            .into_iter()
            .filter(|(key, value)| OVERRIDABLE.contains(&key.as_str()) && !value.is_null())
            .collect();
        let smith = SmithRow {
            id: ids::mint(ids::Kind::Smith),
            tenant_id: caller.tenant_id.to_string(),
            agent_id,
            external_id: input.external_id.filter(|id| !id.is_empty()),
            profile: SmithProfile {
                display_name: input.display_name,
                locale: input.locale,
                timezone: input.timezone,
                metadata: input.metadata,
            },
            customer_id: input.customer_id.filter(|id| !id.is_empty()),
            pin: input.pin,
            overrides: Overrides(overrides),
            created_at: now_micros(),
        };
        let (smith, made) = gateway.store.upsert_smith(&smith).await?;
        let effective = gateway.smiths.resolve(smith).await?;
        let status = if made {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok((
            status,
            smith_out(&effective, gateway.models.routing.default_model()),
        ))
    };
    idempotency::once(&gateway, &caller, &headers, "smiths", &body, make).await
}

async fn agent_of(gateway: &AppState, tenant: &str, input: &SmithIn) -> Result<String, ApiError> {
    let store = &gateway.store;
    let Some(agent_id) = input.agent_id.as_deref().filter(|id| !id.is_empty()) else {
        let template = new_agent(tenant, "Default agent", None, AgentConfig::default());
        return Ok(store.default_agent(&template).await?.id);
    };
    if store.agent(tenant, agent_id).await?.is_none() {
        return Err(ApiError::not_found("agent", agent_id).param("agent_id"));
    }
    if let Some(pin) = input.pin
        && store.agent_version(tenant, agent_id, pin).await?.is_none()
    {
        return Err(ApiError::not_found("agent version", &pin.to_string()).param("pin"));
    }
    Ok(agent_id.to_owned())
}

/// `GET /v1/smiths/{id}`.
pub async fn one(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require_smith(&id)?;
    caller.require(Scope::RunsRead)?;
    let smith = gateway
        .store
        .smith(&caller.tenant_id, &id)
        .await?
        .ok_or_else(|| ApiError::not_found("smith", &id))?;
    let effective = gateway.smiths.resolve(smith).await?;
    Ok(Json(smith_out(
        &effective,
        gateway.models.routing.default_model(),
    )))
}
