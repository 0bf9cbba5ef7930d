//! `/v1/conversations`: OpenAI's Conversations API, of the acting smith.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::turns::{push_turn, turn_of};
use crate::auth::{Principal, scope};
use crate::edge::AppState;
use crate::edge::extract::{Acting, Input, May, check_metadata, check_text};
use crate::edge::page::{Deleted, OaiList, SliceParams, SliceQuery};
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::model::Turn;
use crate::store::{ConversationRow, now_micros};

const MAX_TITLE: usize = 1024;
const MAX_ITEMS: usize = 100;

#[derive(Debug, Deserialize, ToSchema)]
pub struct ConversationIn {
    #[serde(default)]
    pub title: Option<String>,
    #[serde(default)]
    pub metadata: Option<Object>,
    /// The conversation so far: items as `GET …/items` shows them.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub items: Option<Vec<Map<String, Value>>>,
}

/// What to change; metadata is merged.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ConversationPatch {
    #[serde(default)]
    pub title: Option<String>,
    #[serde(default)]
    pub metadata: Option<Object>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ConversationOut {
    pub id: String,
    /// Always `conversation`.
    #[schema(example = "conversation")]
    pub object: &'static str,
    /// Unix seconds, as the next.
    pub created_at: i64,
    pub updated_at: i64,
    pub title: Option<String>,
    pub smith_id: String,
    pub metadata: Object,
}

fn missing(id: &str) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "conversation_not_found",
        format!("there is no conversation '{id}' of this smith"),
    )
}

fn conversation_out(row: ConversationRow) -> ConversationOut {
    ConversationOut {
        id: row.id,
        object: "conversation",
        created_at: row.created_at / 1_000_000,
        updated_at: row.updated_at / 1_000_000,
        title: row.title,
        smith_id: row.smith_id,
        metadata: Object::parse_or_empty(&row.metadata),
    }
}

pub(super) async fn found(
    gateway: &AppState,
    caller: &Principal,
    smith: &str,
    id: &str,
) -> Result<ConversationRow, ApiError> {
    let row = gateway.store.conversation(&caller.tenant_id, id).await?;
    row.filter(|row| row.smith_id == smith)
        .ok_or_else(|| missing(id))
}

/// The turns that a conversation's first items stand for.
fn turns_of(items: Vec<Map<String, Value>>) -> Result<Vec<Turn>, ApiError> {
    if items.len() > MAX_ITEMS {
        return Err(ApiError::invalid(
            "items",
            format!("must be at most {MAX_ITEMS}"),
        ));
    }
    let mut turns: Vec<Turn> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let turn = turn_of(item).map_err(|why| ApiError::invalid(format!("items[{at}]"), why))?;
        if let Some(turn) = turn {
            push_turn(&mut turns, turn);
        }
    }
    Ok(turns)
}

/// Makes a conversation.
#[utoipa::path(post, path = "/v1/conversations", tag = "conversations",
    params(("IC-Smith-Id" = Option<String>, Header)), request_body = ConversationIn,
    responses((status = 200, body = ConversationOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::ConversationsWrite>,
    Acting(smith): Acting,
    Input(input): Input<ConversationIn>,
) -> Result<Json<ConversationOut>, ApiError> {
    let found = gateway.store.smith(&caller.tenant_id, &smith).await?;
    found.ok_or_else(|| ApiError::not_found("smith", &smith))?;
    let title = input.title.filter(|title| !title.is_empty());
    check_text("title", title.as_deref().unwrap_or_default(), MAX_TITLE)?;
    let metadata = input.metadata.unwrap_or_default();
    check_metadata(&metadata)?;
    let turns = turns_of(input.items.unwrap_or_default())?;
    let now = now_micros();
    let row = ConversationRow {
        id: ids::mint(ids::Kind::Conversation),
        tenant_id: caller.tenant_id.to_string(),
        smith_id: smith.to_string(),
        title,
        metadata: metadata.to_text(),
        turns: serde_json::to_string(&turns).map_err(ApiError::internal)?,
        created_at: now,
        updated_at: now,
    };
    gateway.store.insert_conversation(&row).await?;
    Ok(Json(conversation_out(row)))
}

/// Lists the smith's conversations.
#[utoipa::path(get, path = "/v1/conversations", tag = "conversations",
    params(("IC-Smith-Id" = Option<String>, Header), SliceParams),
    responses((status = 200, body = OaiList<ConversationOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::ConversationsRead>,
    Acting(smith): Acting,
    query: SliceQuery,
) -> Result<Json<OaiList<ConversationOut>>, ApiError> {
    let rows = gateway
        .store
        .conversations(&caller.tenant_id, &smith, &query.slice)
        .await?;
    Ok(Json(query.list(
        rows,
        |row| row.id.clone(),
        conversation_out,
    )))
}

/// Reads a conversation.
#[utoipa::path(get, path = "/v1/conversations/{id}", tag = "conversations",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    responses((status = 200, body = ConversationOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::ConversationsRead>,
    Acting(smith): Acting,
    Path(id): Path<String>,
) -> Result<Json<ConversationOut>, ApiError> {
    let row = found(&gateway, &caller, &smith, &id).await?;
    Ok(Json(conversation_out(row)))
}

/// Changes a conversation's title and merges its metadata.
#[utoipa::path(post, path = "/v1/conversations/{id}", tag = "conversations",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    request_body = ConversationPatch, responses((status = 200, body = ConversationOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::ConversationsWrite>,
    Acting(smith): Acting,
    Path(id): Path<String>,
    Input(input): Input<ConversationPatch>,
) -> Result<Json<ConversationOut>, ApiError> {
    let mut row = found(&gateway, &caller, &smith, &id).await?;
    if let Some(title) = input.title {
        check_text("title", &title, MAX_TITLE)?;
        row.title = Some(title);
    }
    if let Some(more) = input.metadata {
        let mut metadata = Object::parse_or_empty(&row.metadata);
        metadata.extend(more);
        check_metadata(&metadata)?;
        row.metadata = metadata.to_text();
    }
    row.updated_at = now_micros();
    if !gateway.store.update_conversation(&row).await? {
        return Err(missing(&id));
    }
    Ok(Json(conversation_out(row)))
}

/// Deletes a conversation; its runs stay as records.
#[utoipa::path(delete, path = "/v1/conversations/{id}", tag = "conversations",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    responses((status = 200, body = Deleted)))]
pub async fn remove(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::ConversationsWrite>,
    Acting(smith): Acting,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    found(&gateway, &caller, &smith, &id).await?;
    if !gateway
        .store
        .delete_conversation(&caller.tenant_id, &id)
        .await?
    {
        return Err(missing(&id));
    }
    Ok(Json(Deleted {
        id,
        object: "conversation.deleted",
        deleted: true,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_conversation_begins_with_items_but_no_system_message() {
        let objects = |items: Value| {
            let items = items.as_array().cloned().unwrap_or_default();
            items
                .iter()
                .filter_map(|i| i.as_object().cloned())
                .collect()
        };
        let given = json!([{ "type": "message", "role": "user", "content": "Hi" }]);
        assert_eq!(turns_of(objects(given)).expect("turns").len(), 1);
        let bad = json!([{ "type": "message", "role": "system", "content": "x" }]);
        let refused = turns_of(objects(bad)).expect_err("refused");
        assert_eq!(refused.param.as_deref(), Some("items[0]"));
    }
}
