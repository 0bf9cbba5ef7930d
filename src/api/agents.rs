//! `/v1/agents`: drafts, versions, rollout.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::configuration::{
    AgentDraft, Variable, check_hosted_tools, checked_variables, with_configuration,
};
use crate::bus::Notice;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Input, check_text, name, sent};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::store::{
    AgentConfig, AgentRemoval, AgentRow, AgentVersionRow, Publication, Rollout, now_micros,
};

const MAX_SLUG: usize = 63;
const MAX_NOTE: usize = 4096;

with_configuration! {
    /// A new agent; config members are its draft.
    #[derive(Debug, Deserialize, ToSchema)]
    pub struct AgentIn {
        #[schema(min_length = 1, max_length = 200)]
        pub name: String,
        /// Immutable; derived from the name when absent.
        #[serde(default)]
        #[schema(pattern = "^([a-z0-9-]{1,63})?$")]
        pub slug: Option<String>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<Vec<Variable>>)]
        pub variables: Option<Option<Vec<Object>>>,
    }
}

with_configuration! {
    /// What to change; an explicit null clears.
    #[derive(Debug, Deserialize, ToSchema)]
    pub struct AgentPatch {
        #[serde(default)]
        #[schema(min_length = 1, max_length = 200)]
        pub name: Option<String>,
        #[serde(default, deserialize_with = "sent")]
        #[schema(value_type = Option<Vec<Variable>>)]
        pub variables: Option<Option<Vec<Object>>>,
    }
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct PublishIn {
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct RolloutIn {
    pub version: i64,
    /// Below 100, the choice for a smith is sticky.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100, default = 100)]
    pub percent: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AgentOut {
    pub id: String,
    /// Null only for the default agent.
    pub slug: Option<String>,
    pub name: String,
    pub is_default: bool,
    pub draft: AgentDraft,
    pub active_version: Option<i64>,
    pub rollout_version: Option<i64>,
    pub rollout_percent: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub smith_count: Option<i64>,
    pub last_activity_at: Option<Time>,
    pub created_at: Time,
    pub updated_at: Time,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AgentVersionOut {
    pub version: i64,
    pub snapshot: AgentDraft,
    pub created_by: Option<String>,
    pub note: Option<String>,
    pub created_at: Time,
}

/// A new agent without versions; without a slug it is the default one.
pub(super) fn new_agent(
    tenant_id: &str,
    name: &str,
    slug: Option<String>,
    draft: AgentConfig,
) -> AgentRow {
    let now = now_micros();
    AgentRow {
        id: ids::mint(ids::Kind::Agent),
        tenant_id: tenant_id.to_owned(),
        is_default: slug.is_none(),
        slug,
        name: name.to_owned(),
        draft,
        active_version: None,
        rollout_version: None,
        rollout_percent: 100,
        created_at: now,
        updated_at: now,
    }
}

/// Sets a draft's variables, when they were sent.
fn set_variables(
    draft: &mut AgentConfig,
    sent: Option<Option<Vec<Object>>>,
) -> Result<(), ApiError> {
    if let Some(variables) = sent {
        draft.variables = checked_variables(variables.unwrap_or_default())?;
    }
    Ok(())
}

fn agent_out(agent: &AgentRow) -> AgentOut {
    AgentOut {
        id: agent.id.clone(),
        slug: agent.slug.clone(),
        name: agent.name.clone(),
        is_default: agent.is_default,
        draft: (&agent.draft).into(),
        active_version: agent.active_version,
        rollout_version: agent.rollout_version,
        rollout_percent: agent.rollout_percent,
        smith_count: None,
        last_activity_at: None,
        created_at: Time(agent.created_at),
        updated_at: Time(agent.updated_at),
    }
}

pub(super) async fn counted(gateway: &AppState, agent: &AgentRow) -> Result<AgentOut, ApiError> {
    let (tenant, id) = (&agent.tenant_id, &agent.id);
    let mut out = agent_out(agent);
    out.smith_count = Some(gateway.store.smith_count(tenant, id).await?);
    out.last_activity_at = gateway.store.agent_activity(tenant, id).await?.map(Time);
    Ok(out)
}

fn version_out(version: AgentVersionRow) -> AgentVersionOut {
    AgentVersionOut {
        version: version.version,
        snapshot: (&version.snapshot).into(),
        created_by: version.created_by,
        note: version.note,
        created_at: Time(version.created_at),
    }
}

pub(super) async fn found(
    gateway: &AppState,
    tenant: &str,
    id: &str,
) -> Result<AgentRow, ApiError> {
    let agent = gateway.store.agent(tenant, id).await?;
    agent.ok_or_else(|| ApiError::not_found("agent", id))
}

/// Lists the agents.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", params(PageParams),
    responses((status = 200, body = Page<AgentOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<AgentOut>>, ApiError> {
    let rows = gateway
        .store
        .agents(&caller.tenant_id, page.before.as_deref(), page.fetch())
        .await?;
    let mut out = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut shown = agent_out(row);
        let last = gateway.store.agent_activity(&row.tenant_id, &row.id);
        shown.last_activity_at = last.await?.map(Time);
        out.push(shown);
    }
    Ok(Json(page.page(
        rows.with(out),
        |agent| agent.id.clone(),
        |agent| agent,
    )))
}

/// Makes an agent.
#[utoipa::path(post, path = "/v1/agents", tag = "agents", request_body = AgentIn,
    responses((status = 201, body = AgentOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<AgentIn>,
) -> Result<(StatusCode, Json<AgentOut>), ApiError> {
    let mut draft = input.common()?.applied(&AgentConfig::default())?;
    set_variables(&mut draft, input.variables)?;
    let slug = input.slug.filter(|slug| !slug.is_empty());
    let agent = insert(
        &gateway,
        &caller.tenant_id,
        &name(&input.name)?,
        slug,
        draft,
    )
    .await?;
    Ok((StatusCode::CREATED, Json(counted(&gateway, &agent).await?)))
}

/// Inserts an agent under the slug that was given, or under a free one derived from its name.
pub(super) async fn insert(
    gateway: &AppState,
    tenant: &str,
    name: &str,
    given: Option<String>,
    draft: AgentConfig,
) -> Result<AgentRow, ApiError> {
    if given.as_deref().is_some_and(|slug| !is_slug(slug)) {
        return Err(
            ApiError::bad_request("invalid_slug", "a slug is 1 to 63 of [a-z0-9-]").param("slug"),
        );
    }
    loop {
        let slug = match &given {
            Some(slug) => slug.clone(),
            None => free_slug(gateway, tenant, &slug_of(name)).await?,
        };
        let agent = new_agent(tenant, name, Some(slug.clone()), draft.clone());
        if gateway.store.insert_agent(&agent).await? {
            return Ok(agent);
        }
        if given.is_some() {
            let message = format!("an agent has the slug '{slug}' already");
            return Err(ApiError::conflict("agent_exists", message).param("slug"));
        }
    }
}

fn is_slug(slug: &str) -> bool {
    (1..=MAX_SLUG).contains(&slug.len())
        && slug
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Lower-case, every run of other characters a dash, trimmed, cut to 63, else `agent`.
fn slug_of(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for ch in name.to_lowercase().chars() {
        if ch.is_ascii_lowercase() || ch.is_ascii_digit() {
            slug.push(ch);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(MAX_SLUG);
    let slug = slug.trim_matches('-');
    if slug.is_empty() {
        "agent".to_owned()
    } else {
        slug.to_owned()
    }
}

async fn free_slug(gateway: &AppState, tenant_id: &str, wanted: &str) -> Result<String, ApiError> {
    let taken = gateway.store.agent_slugs(tenant_id, wanted).await?;
    if !taken.iter().any(|slug| slug == wanted) {
        return Ok(wanted.to_owned());
    }
    let numbered = (2..).map(|n| {
        let suffix = format!("-{n}");
        let keep = wanted.len().min(MAX_SLUG - suffix.len());
        format!("{}{suffix}", &wanted[..keep])
    });
    let mut free = numbered.filter(|slug| !taken.contains(slug));
    free.next()
        .ok_or_else(|| ApiError::internal("no free slug"))
}

/// Reads an agent.
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 200, body = AgentOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<AgentOut>, ApiError> {
    let agent = found(&gateway, &caller.tenant_id, &id).await?;
    Ok(Json(counted(&gateway, &agent).await?))
}

/// Changes an agent's name and draft; smiths see the draft only once it is published.
#[utoipa::path(patch, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path)),
    request_body = AgentPatch, responses((status = 200, body = AgentOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<AgentPatch>,
) -> Result<Json<AgentOut>, ApiError> {
    let patch = input.common()?;
    let mut agent = found(&gateway, &caller.tenant_id, &id).await?;
    if let Some(given) = &input.name {
        agent.name = name(given)?;
    }
    agent.draft = patch.applied(&agent.draft)?;
    set_variables(&mut agent.draft, input.variables)?;
    agent.updated_at = now_micros();
    if !gateway.store.update_agent(&agent).await? {
        return Err(ApiError::not_found("agent", &id));
    }
    Ok(Json(counted(&gateway, &agent).await?))
}

/// Deletes an agent that no smith runs.
#[utoipa::path(delete, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let agent = found(&gateway, &caller.tenant_id, &id).await?;
    if agent.is_default {
        return Err(ApiError::conflict(
            "default_agent",
            "the default agent can't be deleted",
        ));
    }
    let removal = gateway
        .store
        .delete_agent(&caller.tenant_id, &id, now_micros())
        .await?;
    match removal {
        AgentRemoval::Done(tokens) => {
            gateway.auth.forget(tokens);
            Ok(StatusCode::NO_CONTENT)
        }
        AgentRemoval::Missing => Err(ApiError::not_found("agent", &id)),
        AgentRemoval::InUse(count) => Err(ApiError::conflict(
            "agent_in_use",
            format!("{count} smiths run this agent"),
        )),
    }
}

/// Lists the versions, newest first.
#[utoipa::path(get, path = "/v1/agents/{id}/versions", tag = "agents",
    params(("id" = String, Path), PageParams),
    responses((status = 200, body = Page<AgentVersionOut>)))]
pub async fn versions(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<AgentVersionOut>>, ApiError> {
    found(&gateway, &caller.tenant_id, &id).await?;
    let rows = gateway
        .store
        .agent_versions(&caller.tenant_id, &id, page.before_version()?, page.fetch())
        .await?;
    Ok(Json(page.page(
        rows,
        |v| v.version.to_string(),
        version_out,
    )))
}

/// Snapshots the draft as the next version; the first one goes live by itself.
#[utoipa::path(post, path = "/v1/agents/{id}/versions", tag = "agents",
    params(("id" = String, Path)), request_body = PublishIn,
    responses((status = 201, body = AgentVersionOut)))]
pub async fn publish(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<PublishIn>,
) -> Result<(StatusCode, Json<AgentVersionOut>), ApiError> {
    check_text("note", input.note.as_deref().unwrap_or_default(), MAX_NOTE)?;
    let agent = found(&gateway, &caller.tenant_id, &id).await?;
    let tools = agent.draft.enabled_hosted_tools.iter();
    check_hosted_tools(tools.map(String::as_str))?;
    let published = gateway
        .store
        .publish_agent(
            &caller.tenant_id,
            &id,
            Some(&caller.token_id),
            input.note.as_deref(),
            now_micros(),
        )
        .await?;
    let version = match published {
        Publication::Done(version) => version,
        Publication::Missing => return Err(ApiError::not_found("agent", &id)),
        Publication::NoSkill(skill) => {
            return Err(ApiError::invalid(
                "skills",
                format!("the draft refers to the skill '{skill}', which is not there"),
            ));
        }
    };
    gateway.changed(Notice::Smiths).await;
    Ok((StatusCode::CREATED, Json(version_out(*version))))
}

/// Makes a version live, for all smiths or for some percent of them.
#[utoipa::path(post, path = "/v1/agents/{id}/rollout", tag = "agents",
    params(("id" = String, Path)), request_body = RolloutIn,
    responses((status = 200, body = AgentOut)))]
pub async fn rollout(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<RolloutIn>,
) -> Result<Json<AgentOut>, ApiError> {
    let percent = input.percent.unwrap_or(100);
    if !(0..=100).contains(&percent) {
        return Err(ApiError::bad_request("invalid_percent", "must be 0 to 100").param("percent"));
    }
    let store = &gateway.store;
    let mut agent = found(&gateway, &caller.tenant_id, &id).await?;
    let version = store.agent_version(&caller.tenant_id, &id, input.version);
    if version.await?.is_none() {
        let number = input.version.to_string();
        return Err(ApiError::not_found("agent version", &number).param("version"));
    }
    let rollout = match percent {
        100 => Rollout {
            active_version: Some(input.version),
            rollout_version: None,
            percent: 100,
        },
        percent => Rollout {
            active_version: agent.active_version,
            rollout_version: Some(input.version),
            percent,
        },
    };
    let now = now_micros();
    if !store
        .set_rollout(&caller.tenant_id, &id, &rollout, now)
        .await?
    {
        return Err(ApiError::not_found("agent", &id));
    }
    gateway.changed(Notice::Smiths).await;
    agent.active_version = rollout.active_version;
    agent.rollout_version = rollout.rollout_version;
    agent.rollout_percent = rollout.percent;
    agent.updated_at = now;
    Ok(Json(counted(&gateway, &agent).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_derived_as_published() {
        assert_eq!(slug_of("Support Agent (EU)!"), "support-agent-eu");
        assert_eq!(slug_of("  ---  "), "agent");
        assert_eq!(slug_of(&"a".repeat(80)).len(), 63);
        assert!(is_slug("a-1") && !is_slug("A") && !is_slug(""));
    }
}
