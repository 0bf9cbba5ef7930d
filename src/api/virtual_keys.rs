//! `/v1/tenant/keys`: virtual keys, with which models are used without a smith and without a token.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::auth::{Rights, VIRTUAL_KEY_PREFIX, digest_of};
use crate::connection::random_text;
use crate::edge::AppState;
use crate::edge::extract::{Admin, Input, MAX_NAME, check_metadata, check_text, sent};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::{Time, parse_micros};
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::store::{EventRow, NewSecret, VirtualKeyFilter, VirtualKeyRow, now_micros};

/// Most tags of a key.
const MAX_TAGS: usize = 50;
/// The longest time for which a secret outlives the one in its place, in seconds.
const MAX_OVERLAP: i64 = 30 * 86_400;

/// A new key; what is absent is not limited.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct VirtualKeyIn {
    #[serde(default)]
    #[schema(max_length = 200)]
    pub name: Option<String>,
    /// Whose it is, in the caller's own words.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub owner: Option<String>,
    #[serde(default)]
    #[schema(max_length = 200)]
    pub team: Option<String>,
    #[serde(default)]
    pub metadata: Option<Object>,
    #[serde(default)]
    #[schema(max_items = 50)]
    pub tags: Option<Vec<String>>,
    /// `<provider>/<model>`, `<provider>/*`, an alias or a bare id. An alias that is named may be used
    /// with all its targets; one that is not, with those that are.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 200)]
    pub models: Option<Vec<String>>,
    /// Of `chat.completions`, `responses`, `messages`, `embeddings`, `models`.
    #[serde(default)]
    #[schema(min_items = 1)]
    pub routes: Option<Vec<String>>,
    /// From when on it does not count.
    #[serde(default)]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    #[serde(default)]
    pub disabled: Option<bool>,
}

/// What is changed of a key; null takes a member away.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct VirtualKeyPatch {
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Option<String>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub owner: Option<Option<String>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub team: Option<Option<String>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Option<Object>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<Vec<String>>)]
    pub tags: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<Vec<String>>)]
    pub models: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<Vec<String>>)]
    pub routes: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Option<String>>,
    #[serde(default)]
    pub disabled: Option<bool>,
}

/// How a key gets another secret.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RotateIn {
    /// For how long the secret before counts, too. The default is not at all.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2592000)]
    pub overlap_seconds: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct VirtualKeyOut {
    pub id: String,
    pub name: Option<String>,
    pub owner: Option<String>,
    pub team: Option<String>,
    pub metadata: Object,
    pub tags: Vec<String>,
    /// Null: all.
    #[schema(required)]
    pub models: Option<Vec<String>>,
    /// Null: all.
    #[schema(required)]
    pub routes: Option<Vec<String>>,
    pub disabled: bool,
    /// What the secret begins with.
    #[schema(example = "sk-sg-")]
    pub prefix: &'static str,
    /// What the newest secret ends with.
    pub last_four: String,
    pub created_at: Time,
    pub updated_at: Time,
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
}

/// A key with its new secret, which is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct VirtualKeyMade {
    #[serde(flatten)]
    pub key: VirtualKeyOut,
    pub token: String,
}

fn list_of(text: Option<&str>) -> Option<Vec<String>> {
    serde_json::from_str(text?).ok()
}

fn key_out(row: VirtualKeyRow) -> VirtualKeyOut {
    VirtualKeyOut {
        metadata: Object::parse_or_empty(&row.metadata),
        tags: list_of(Some(&row.tags)).unwrap_or_default(),
        models: list_of(row.models.as_deref()),
        routes: list_of(row.routes.as_deref()),
        id: row.id,
        name: row.name,
        owner: row.owner,
        team: row.team,
        disabled: row.disabled,
        prefix: VIRTUAL_KEY_PREFIX,
        last_four: row.last_four,
        created_at: Time(row.created_at),
        updated_at: Time(row.updated_at),
        expires_at: row.expires_at.map(Time),
        revoked_at: row.revoked_at.map(Time),
    }
}

/// A new secret and what is kept of it.
fn new_secret() -> Result<(String, NewSecret), ApiError> {
    let token = format!("{VIRTUAL_KEY_PREFIX}{}", random_text()?);
    let secret = NewSecret {
        hash: hex::encode(digest_of(token.as_bytes())),
        last_four: token[token.len() - 4..].to_owned(),
    };
    Ok((token, secret))
}

fn text_list(list: &[String]) -> Result<String, ApiError> {
    serde_json::to_string(list).map_err(ApiError::internal)
}

fn word(param: &'static str, text: Option<String>) -> Result<Option<String>, ApiError> {
    let text = text.filter(|text| !text.is_empty());
    check_text(param, text.as_deref().unwrap_or_default(), MAX_NAME)?;
    Ok(text)
}

fn tags(list: &[String]) -> Result<String, ApiError> {
    if list.len() > MAX_TAGS {
        return Err(ApiError::invalid("tags", format!("at most {MAX_TAGS}")));
    }
    for (at, tag) in list.iter().enumerate() {
        check_text(&format!("tags[{at}]"), tag, MAX_NAME)?;
    }
    text_list(list)
}

fn end(text: &str) -> Result<i64, ApiError> {
    let invalid = |why| ApiError::invalid("expires_at", why);
    let at = parse_micros(text).ok_or_else(|| invalid("must be a time (RFC 3339)"))?;
    match at > now_micros() {
        true => Ok(at),
        false => Err(invalid("must be in the future")),
    }
}

/// Puts into `row` what `patch` says.
fn change(row: &mut VirtualKeyRow, patch: VirtualKeyPatch) -> Result<(), ApiError> {
    if let Some(name) = patch.name {
        row.name = word("name", name)?;
    }
    if let Some(owner) = patch.owner {
        row.owner = word("owner", owner)?;
    }
    if let Some(team) = patch.team {
        row.team = word("team", team)?;
    }
    if let Some(metadata) = patch.metadata {
        let metadata = metadata.unwrap_or_default();
        check_metadata(&metadata)?;
        row.metadata = metadata.to_text();
    }
    if let Some(list) = patch.tags {
        row.tags = tags(&list.unwrap_or_default())?;
    }
    if patch.models.is_some() || patch.routes.is_some() {
        let models = patch
            .models
            .unwrap_or_else(|| list_of(row.models.as_deref()));
        let routes = patch
            .routes
            .unwrap_or_else(|| list_of(row.routes.as_deref()));
        Rights::parse(routes.as_deref(), models.as_deref())?;
        row.models = models.as_deref().map(text_list).transpose()?;
        row.routes = routes.as_deref().map(text_list).transpose()?;
    }
    if let Some(at) = patch.expires_at {
        row.expires_at = at.as_deref().map(end).transpose()?;
    }
    if let Some(disabled) = patch.disabled {
        row.disabled = disabled;
    }
    Ok(())
}

/// What is told of a change of a key.
fn event(actor: &Value, kind: &str, row: &VirtualKeyRow) -> EventRow {
    let data = json!({
        "key_id": row.id,
        "name": row.name,
        "owner": row.owner,
        "team": row.team,
        "models": list_of(row.models.as_deref()),
        "routes": list_of(row.routes.as_deref()),
        "disabled": row.disabled,
        "expires_at": row.expires_at.map(Time),
    });
    EventRow::new(&row.tenant_id, kind, None, &data, Some(actor))
}

async fn found(gateway: &AppState, tenant: &str, id: &str) -> Result<VirtualKeyRow, ApiError> {
    let key = gateway.store.virtual_key(tenant, id).await?;
    key.ok_or_else(|| no_key(id))
}

/// The same of one that can be changed.
async fn live(gateway: &AppState, tenant: &str, id: &str) -> Result<VirtualKeyRow, ApiError> {
    let key = found(gateway, tenant, id).await?;
    match key.revoked_at {
        Some(_) => Err(revoked()),
        None => Ok(key),
    }
}

fn no_key(id: &str) -> ApiError {
    ApiError::not_found("key", id)
}

fn revoked() -> ApiError {
    ApiError::conflict("key_revoked", "a key that was revoked stays so")
}

/// Lists the tenant's virtual keys.
#[utoipa::path(get, path = "/v1/tenant/keys", tag = "virtual keys",
    params(PageParams, ("owner" = Option<String>, Query), ("team" = Option<String>, Query)),
    responses((status = 200, body = Page<VirtualKeyOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<VirtualKeyOut>>, ApiError> {
    let filter = VirtualKeyFilter {
        owner: page.filter("owner"),
        team: page.filter("team"),
    };
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .virtual_keys(&caller.tenant_id, &filter, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), key_out)))
}

/// Makes a virtual key: its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tenant/keys", tag = "virtual keys", request_body = VirtualKeyIn,
    responses((status = 201, body = VirtualKeyMade)))]
pub async fn create(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<VirtualKeyIn>,
) -> Result<(StatusCode, Json<VirtualKeyMade>), ApiError> {
    let (token, secret) = new_secret()?;
    let now = now_micros();
    let mut row = VirtualKeyRow {
        id: ids::mint(ids::Kind::Key),
        tenant_id: caller.tenant_id.to_string(),
        name: None,
        owner: None,
        team: None,
        metadata: "{}".to_owned(),
        tags: "[]".to_owned(),
        models: None,
        routes: None,
        disabled: false,
        last_four: secret.last_four,
        created_at: now,
        updated_at: now,
        expires_at: None,
        revoked_at: None,
    };
    let patch = VirtualKeyPatch {
        name: Some(input.name),
        owner: Some(input.owner),
        team: Some(input.team),
        metadata: Some(input.metadata),
        tags: Some(input.tags),
        models: Some(input.models),
        routes: Some(input.routes),
        expires_at: Some(input.expires_at),
        disabled: input.disabled,
    };
    change(&mut row, patch)?;
    let event = event(&caller.actor(), "key.created", &row);
    let made = gateway.store.insert_virtual_key(&row, &secret.hash, &event);
    if !made.await? {
        return Err(ApiError::unauthenticated("this project was deleted"));
    }
    let key = key_out(row);
    Ok((StatusCode::CREATED, Json(VirtualKeyMade { key, token })))
}

/// Reads a virtual key.
#[utoipa::path(get, path = "/v1/tenant/keys/{id}", tag = "virtual keys",
    params(("id" = String, Path)), responses((status = 200, body = VirtualKeyOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<VirtualKeyOut>, ApiError> {
    let key = found(&gateway, &caller.tenant_id, &id).await?;
    Ok(Json(key_out(key)))
}

/// Changes a virtual key, on every node within a second.
#[utoipa::path(patch, path = "/v1/tenant/keys/{id}", tag = "virtual keys",
    params(("id" = String, Path)), request_body = VirtualKeyPatch,
    responses((status = 200, body = VirtualKeyOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(patch): Input<VirtualKeyPatch>,
) -> Result<Json<VirtualKeyOut>, ApiError> {
    let mut row = live(&gateway, &caller.tenant_id, &id).await?;
    change(&mut row, patch)?;
    let event = event(&caller.actor(), "key.updated", &row);
    let updated = gateway.store.update_virtual_key(&row, now_micros(), &event);
    let Some(version) = updated.await? else {
        live(&gateway, &caller.tenant_id, &id).await?;
        return Err(ApiError::conflict(
            "key_changed",
            "the key was changed meanwhile: read it, and try again",
        ));
    };
    gateway.auth.virtual_keys.changed(vec![(id, version)]);
    row.updated_at = version;
    Ok(Json(key_out(row)))
}

/// Gives a virtual key another secret, which is in this answer and nowhere else. The ones before
/// count for `overlap_seconds` more.
#[utoipa::path(post, path = "/v1/tenant/keys/{id}/rotate", tag = "virtual keys",
    params(("id" = String, Path)), request_body = RotateIn,
    responses((status = 200, body = VirtualKeyMade)))]
pub async fn rotate(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<RotateIn>,
) -> Result<Json<VirtualKeyMade>, ApiError> {
    let overlap = input.overlap_seconds.unwrap_or(0);
    if !(0..=MAX_OVERLAP).contains(&overlap) {
        let message = format!("must be 0 to {MAX_OVERLAP}");
        return Err(ApiError::invalid("overlap_seconds", message));
    }
    let row = live(&gateway, &caller.tenant_id, &id).await?;
    let (token, secret) = new_secret()?;
    let now = now_micros();
    let until = now + overlap * 1_000_000;
    let event = event(&caller.actor(), "key.rotated", &row);
    let (tenant, store) = (&caller.tenant_id, &gateway.store);
    let rotated = store.rotate_virtual_key(tenant, &id, &secret, now, until, &event);
    let version = rotated.await?.ok_or_else(revoked)?;
    let key = found(&gateway, tenant, &id).await?;
    gateway.auth.virtual_keys.changed(vec![(id, version)]);
    let key = key_out(key);
    Ok(Json(VirtualKeyMade { key, token }))
}

/// Revokes a virtual key, on every node within a second.
#[utoipa::path(delete, path = "/v1/tenant/keys/{id}", tag = "virtual keys",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn revoke(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let row = found(&gateway, &caller.tenant_id, &id).await?;
    let event = event(&caller.actor(), "key.revoked", &row);
    let (tenant, store) = (&caller.tenant_id, &gateway.store);
    let revoked = store.revoke_virtual_key(tenant, &id, now_micros(), &event);
    let version = revoked.await?.ok_or_else(|| no_key(&id))?;
    gateway.auth.virtual_keys.changed(vec![(id, version)]);
    Ok(StatusCode::NO_CONTENT)
}
