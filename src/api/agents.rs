//! `/v1/agents`: create, read, list, publish.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::page::PageQuery;
use super::{AppState, Caller, idempotency};
use crate::error::ApiError;
use crate::ids;
use crate::run::rfc3339;
use crate::store::{AgentConfig, AgentRow, AgentVersionRow, now_micros};
use crate::wire::parse;

const MAX_SLUG: usize = 63;
const MAX_NAME: usize = 200;

#[derive(Debug, Deserialize)]
struct AgentIn {
    name: String,
    #[serde(default)]
    slug: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
struct PublishIn {
    #[serde(default)]
    note: Option<String>,
}

/// An agent that was just made from `config`.
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
        rollout_percent: 0,
        created_at: now,
        updated_at: now,
    }
}

/// The members of an agent's configuration in `fields`; nulls count as not sent.
pub(super) fn config_of(fields: &Map<String, Value>) -> Result<AgentConfig, ApiError> {
    let present: Map<String, Value> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    parse(Value::Object(present).to_string().as_bytes())
}

async fn agent_out(gateway: &AppState, agent: &AgentRow, count: bool) -> Result<Value, ApiError> {
    let mut out = json!({
        "id": agent.id,
        "slug": agent.slug,
        "name": agent.name,
        "is_default": agent.is_default,
        "draft": agent.draft,
        "active_version": agent.active_version,
        "rollout_version": agent.rollout_version,
        "rollout_percent": agent.rollout_percent,
        "created_at": rfc3339(agent.created_at),
        "updated_at": rfc3339(agent.updated_at),
    });
    if count {
        let smiths = gateway
            .store
            .smith_count(&agent.tenant_id, &agent.id)
            .await?;
        out["smith_count"] = json!(smiths);
    }
    Ok(out)
}

fn version_out(version: &AgentVersionRow) -> Value {
    json!({
        "version": version.version,
        "snapshot": version.snapshot,
        "created_by": version.created_by,
        "note": version.note,
        "created_at": rfc3339(version.created_at),
    })
}

/// `GET /v1/agents`.
pub async fn list(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    page: PageQuery,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .agents(&caller.tenant_id, before, page.fetch())
        .await?;
    let mut out = Vec::with_capacity(rows.len());
    for row in &rows {
        out.push((row.id.clone(), agent_out(&gateway, row, false).await?));
    }
    Ok(Json(page.page(
        out,
        |(id, _)| id.clone(),
        |(_, agent)| agent.clone(),
    )))
}

/// `POST /v1/agents`.
pub async fn create(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let make = async {
        let input: AgentIn = parse(&body)?;
        let name = input.name.trim();
        if name.is_empty() {
            return Err(ApiError::bad_request("name_required", "the name is empty").param("name"));
        }
        if name.chars().count() > MAX_NAME {
            return Err(
                ApiError::bad_request("invalid_name", "the name is too long").param("name"),
            );
        }
        let draft = config_of(&input.rest)?;
        let given = input.slug.filter(|slug| !slug.is_empty());
        if given.as_deref().is_some_and(|slug| !is_slug(slug)) {
            return Err(
                ApiError::bad_request("invalid_slug", "a slug is 1 to 63 of [a-z0-9-]")
                    .param("slug"),
            );
        }
        let derived = given.is_none();
        let mut slug = given.unwrap_or_else(|| slug_of(name));
        loop {
            if derived {
                slug = free_slug(&gateway, &caller.tenant_id, &slug_of(name)).await?;
            }
            let agent = new_agent(&caller.tenant_id, name, Some(slug.clone()), draft.clone());
            if gateway.store.insert_agent(&agent).await? {
                return Ok((
                    StatusCode::CREATED,
                    agent_out(&gateway, &agent, true).await?,
                ));
            }
            if !derived {
                return Err(ApiError::conflict(
                    "agent_exists",
                    format!("an agent has the slug '{slug}' already"),
                )
                .param("slug"));
            }
        }
    };
    idempotency::once(&gateway, &caller, &headers, "agents", &body, make).await
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

/// `GET /v1/agents/{id}`.
pub async fn one(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let agent = gateway
        .store
        .agent(&caller.tenant_id, &id)
        .await?
        .ok_or_else(|| ApiError::not_found("agent", &id))?;
    Ok(Json(agent_out(&gateway, &agent, true).await?))
}

/// `GET /v1/agents/{id}/versions`.
pub async fn versions(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    page: PageQuery,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let store = &gateway.store;
    if store.agent(&caller.tenant_id, &id).await?.is_none() {
        return Err(ApiError::not_found("agent", &id));
    }
    let before = match &page.before {
        None => None,
        Some(text) => Some(text.parse::<i64>().map_err(|_| {
            ApiError::bad_request("invalid_cursor", "this cursor is of another list")
                .param("cursor")
        })?),
    };
    let rows = store
        .agent_versions(&caller.tenant_id, &id, before, page.fetch())
        .await?;
    Ok(Json(page.page(
        rows,
        |v| v.version.to_string(),
        version_out,
    )))
}

/// `POST /v1/agents/{id}/versions`: snapshots the draft; the first one goes live by itself.
pub async fn publish(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    caller.require_admin()?;
    let make = async {
        let input: PublishIn = match body.trim_ascii().is_empty() {
            true => PublishIn::default(),
            false => parse(&body)?,
        };
        let version = gateway
            .store
            .publish_agent(
                &caller.tenant_id,
                &id,
                Some(&caller.token_id),
                input.note.as_deref(),
                now_micros(),
            )
            .await?
            .ok_or_else(|| ApiError::not_found("agent", &id))?;
        gateway.smiths.forget_all();
        Ok((StatusCode::CREATED, version_out(&version)))
    };
    let path = format!("agents/{id}/versions");
    idempotency::once(&gateway, &caller, &headers, &path, &body, make).await
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
