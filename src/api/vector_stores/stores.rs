//! `/v1/vector_stores`: OpenAI's Vector Stores API, and `smith_id` and `embedding_model` beside it.
//! Stores do not expire, and queries are searched as they are.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::wishes::{
    ChunkingStrategy, Counts, FileWish, TextPart, check_pairs, found, wanted_files,
};
use crate::auth::scope;
use crate::edge::AppState;
use crate::edge::extract::{Input, May, check_text, sent};
use crate::edge::page::{Deleted, OaiList, SliceParams, SliceQuery};
use crate::error::ApiError;
use crate::ids;
use crate::json::{Json as Tree, Object};
use crate::model::{ModelError, Route};
use crate::retrieval::{Filter, Hit, Hybrid, Query};
use crate::store::{Rows, VectorFileCounts, VectorStoreRow, now_micros};

const MAX_NAME: usize = 512;
const MAX_DESCRIPTION: usize = 4096;
const MAX_QUERIES: usize = 16;
const MAX_QUERY: usize = 16 * 1024;
const DEFAULT_RESULTS: usize = 10;
const MAX_RESULTS: usize = 50;
/// A search is noted as activity once in this time, in microseconds.
const ACTIVE_EVERY: i64 = 60 * 1_000_000;

#[derive(Debug, Deserialize, ToSchema)]
pub struct VectorStoreIn {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    /// At most 16 members.
    #[serde(default)]
    pub metadata: Option<Object>,
    /// Files to take in at once.
    #[serde(default)]
    #[schema(max_items = 500)]
    pub file_ids: Option<Vec<String>>,
    #[serde(default)]
    pub chunking_strategy: Option<ChunkingStrategy>,
    /// Stores do not expire: only null is taken.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub expires_after: Option<Value>,
    /// The smith that it belongs to; absent: the tenant.
    #[serde(default)]
    pub smith_id: Option<String>,
    /// Absent: the configured one, when there is a key for it; null: searched by words alone.
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub embedding_model: Option<Option<String>>,
}

/// What to change.
#[derive(Debug, Deserialize, ToSchema)]
pub struct VectorStorePatch {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// Replaces the metadata; null clears it.
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Option<Object>>,
    /// Stores do not expire: only null is taken.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub expires_after: Option<Value>,
}

/// A vector store, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct VectorStoreOut {
    pub id: String,
    /// Always `vector_store`.
    #[schema(example = "vector_store")]
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    pub name: String,
    pub description: Option<String>,
    /// Of text and vectors.
    pub usage_bytes: i64,
    pub file_counts: Counts,
    /// `in_progress` while files are taken in, else `completed`.
    pub status: &'static str,
    /// Always null.
    #[schema(value_type = Option<Object>)]
    pub expires_after: Option<Value>,
    /// Always null.
    pub expires_at: Option<i64>,
    /// Unix seconds.
    pub last_active_at: i64,
    pub metadata: Object,
    /// Empty: the tenant's.
    pub smith_id: String,
    /// Empty: searched by words alone.
    pub embedding_model: String,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct VectorSearchIn {
    pub query: QueryTexts,
    #[serde(default)]
    #[schema(minimum = 1, maximum = 50, default = 10)]
    pub max_num_results: Option<usize>,
    /// A comparison `{type, key, value}` of an attribute, or `{type: and|or, filters}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub filters: Option<Value>,
    #[serde(default)]
    pub ranking_options: Option<RankingOptions>,
    /// Taken and left alone.
    #[serde(default)]
    #[allow(dead_code, reason = "documented for clients that send it")]
    pub rewrite_query: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum QueryTexts {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct RankingOptions {
    /// Taken and left alone.
    #[serde(default)]
    #[allow(dead_code, reason = "documented for clients that send it")]
    pub ranker: Option<String>,
    /// Least score of a result.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub score_threshold: Option<f32>,
    /// Ranks by vectors and by words together.
    #[serde(default)]
    pub hybrid_search: Option<HybridSearch>,
}

/// At least one weight is above 0.
#[derive(Debug, Deserialize, ToSchema)]
pub struct HybridSearch {
    #[schema(minimum = 0)]
    pub embedding_weight: f32,
    #[schema(minimum = 0)]
    pub text_weight: f32,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct VectorSearchOut {
    /// Always `vector_store.search_results.page`.
    #[schema(example = "vector_store.search_results.page")]
    pub object: &'static str,
    pub search_query: Vec<String>,
    /// Best first.
    pub data: Vec<VectorHit>,
    /// Always false.
    pub has_more: bool,
    /// Always null.
    pub next_page: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct VectorHit {
    pub file_id: String,
    pub filename: String,
    /// 0 to 1.
    pub score: f32,
    pub attributes: Map<String, Value>,
    pub content: Vec<TextPart>,
}

pub(super) fn store_out(row: VectorStoreRow, counts: VectorFileCounts) -> VectorStoreOut {
    VectorStoreOut {
        id: row.id,
        object: "vector_store",
        created_at: row.created_at / 1_000_000,
        name: row.name,
        description: row.description,
        usage_bytes: counts.usage_bytes,
        status: match counts.in_progress {
            0 => "completed",
            _ => "in_progress",
        },
        file_counts: counts.into(),
        expires_after: None,
        expires_at: None,
        last_active_at: row.last_active_at / 1_000_000,
        metadata: Object::parse_or_empty(&row.metadata),
        smith_id: row.smith_id.unwrap_or_default(),
        embedding_model: row.embedding_model.unwrap_or_default(),
    }
}

fn metadata_text(metadata: &Object) -> Result<String, ApiError> {
    let length = |value: &Tree| value.to_plain_text().chars().count();
    check_pairs("metadata", metadata.iter().map(|(k, v)| (k, length(v))))?;
    Ok(metadata.to_text())
}

fn checked_name(name: Option<String>) -> Result<String, ApiError> {
    let name = name.unwrap_or_default();
    check_text("name", &name, MAX_NAME)?;
    Ok(name)
}

fn checked_description(text: Option<String>) -> Result<Option<String>, ApiError> {
    check_text(
        "description",
        text.as_deref().unwrap_or_default(),
        MAX_DESCRIPTION,
    )?;
    Ok(text)
}

fn refuse_expiry(expires_after: Option<&Value>) -> Result<(), ApiError> {
    match expires_after {
        None | Some(Value::Null) => Ok(()),
        Some(_) => Err(ApiError::invalid(
            "expires_after",
            "stores do not expire here",
        )),
    }
}

/// The model of a new store's vectors.
async fn embedding_model(
    gateway: &AppState,
    tenant_id: &Arc<str>,
    smith: Option<&Arc<str>>,
    asked: Option<Option<String>>,
) -> Result<Option<String>, ApiError> {
    let routing = &gateway.models.routing;
    let embeds = |routes: &Vec<Route>| routes.iter().any(Route::embeds);
    match asked {
        Some(None) => Ok(None),
        // As a store without one is shown.
        Some(Some(model)) if model.is_empty() => Ok(None),
        Some(Some(model)) => {
            check_text("embedding_model", &model, MAX_NAME)?;
            let routes = routing.resolve(tenant_id, smith, &model).await;
            let routes = routes.map_err(|error| match error {
                ModelError::UnknownModel(why) => ApiError::invalid("embedding_model", why),
                other => other.into(),
            })?;
            match embeds(&routes) {
                true => Ok(Some(model)),
                false => Err(ApiError::invalid(
                    "embedding_model",
                    format!("the provider of '{model}' has no embeddings"),
                )),
            }
        }
        None => {
            let Some(model) = routing.embedding_model() else {
                return Ok(None);
            };
            let routes = routing.resolve(tenant_id, smith, model).await;
            Ok(routes.is_ok_and(|r| embeds(&r)).then(|| model.to_owned()))
        }
    }
}

/// Makes a store, and takes files in.
#[utoipa::path(post, path = "/v1/vector_stores", tag = "vector_stores",
    request_body = VectorStoreIn, responses((status = 200, body = VectorStoreOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresWrite>,
    Input(input): Input<VectorStoreIn>,
) -> Result<Json<VectorStoreOut>, ApiError> {
    refuse_expiry(input.expires_after.as_ref())?;
    let named = input.smith_id.filter(|id| !id.is_empty());
    let smith = caller.acting_smith(named.as_deref())?;
    if let Some(smith) = &smith {
        let known = gateway.store.smith(&caller.tenant_id, smith).await?;
        known.ok_or_else(|| ApiError::not_found("smith", smith))?;
    }
    let now = now_micros();
    let model = input.embedding_model;
    let row = VectorStoreRow {
        id: ids::mint(ids::Kind::VectorStore),
        tenant_id: caller.tenant_id.to_string(),
        name: checked_name(input.name)?,
        description: checked_description(input.description)?,
        metadata: metadata_text(&input.metadata.unwrap_or_default())?,
        embedding_model: embedding_model(&gateway, &caller.tenant_id, smith.as_ref(), model)
            .await?,
        smith_id: smith.map(|id| id.to_string()),
        revision: 1,
        last_active_at: now,
        created_at: now,
    };
    let wishes = input.file_ids.unwrap_or_default().into_iter();
    let wishes = wishes.map(FileWish::of).collect();
    let shared = (None, input.chunking_strategy);
    let files = wanted_files(&gateway, &caller, &row, None, wishes, shared).await?;
    gateway.store.insert_vector_store(&row, &files).await?;
    gateway.ingestion.wake();
    let counts = VectorFileCounts {
        in_progress: files.len() as i64,
        ..VectorFileCounts::default()
    };
    Ok(Json(store_out(row, counts)))
}

/// Lists the stores; with a smith token, that smith's.
#[utoipa::path(get, path = "/v1/vector_stores", tag = "vector_stores",
    params(SliceParams, ("smith_id" = Option<String>, Query)),
    responses((status = 200, body = OaiList<VectorStoreOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresRead>,
    query: SliceQuery,
) -> Result<Json<OaiList<VectorStoreOut>>, ApiError> {
    let smith = caller.acting_smith(query.filters.get("smith_id").as_deref())?;
    let rows = gateway
        .store
        .vector_stores(&caller.tenant_id, smith.as_deref(), &query.slice)
        .await?;
    let mut counted = Vec::with_capacity(rows.len());
    let is_cut = rows.is_cut();
    for row in rows {
        let counts = gateway
            .store
            .vector_file_counts(&row.tenant_id, &row.id, None);
        let counts = counts.await?;
        counted.push(store_out(row, counts));
    }
    let counted = Rows::new(counted, is_cut);
    Ok(Json(query.list(counted, |s| s.id.clone(), |s| s)))
}

/// Reads a store.
#[utoipa::path(get, path = "/v1/vector_stores/{id}", tag = "vector_stores",
    params(("id" = String, Path)), responses((status = 200, body = VectorStoreOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresRead>,
    Path(id): Path<String>,
) -> Result<Json<VectorStoreOut>, ApiError> {
    let row = found(&gateway, &caller, &id).await?;
    let counts = gateway.store.vector_file_counts(&row.tenant_id, &id, None);
    let counts = counts.await?;
    Ok(Json(store_out(row, counts)))
}

/// Changes a store's name, description and metadata.
#[utoipa::path(post, path = "/v1/vector_stores/{id}", tag = "vector_stores",
    params(("id" = String, Path)), request_body = VectorStorePatch,
    responses((status = 200, body = VectorStoreOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresWrite>,
    Path(id): Path<String>,
    Input(input): Input<VectorStorePatch>,
) -> Result<Json<VectorStoreOut>, ApiError> {
    let mut row = found(&gateway, &caller, &id).await?;
    refuse_expiry(input.expires_after.as_ref())?;
    if input.name.is_some() {
        row.name = checked_name(input.name)?;
    }
    if let Some(description) = input.description {
        row.description = checked_description(description)?;
    }
    if let Some(metadata) = input.metadata {
        row.metadata = metadata_text(&metadata.unwrap_or_default())?;
    }
    row.last_active_at = now_micros();
    if !gateway.store.update_vector_store(&row).await? {
        return Err(ApiError::not_found("vector store", &id));
    }
    let counts = gateway.store.vector_file_counts(&row.tenant_id, &id, None);
    let counts = counts.await?;
    Ok(Json(store_out(row, counts)))
}

/// Deletes a store; the files themselves stay.
#[utoipa::path(delete, path = "/v1/vector_stores/{id}", tag = "vector_stores",
    params(("id" = String, Path)), responses((status = 200, body = Deleted)))]
pub async fn remove(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresWrite>,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    found(&gateway, &caller, &id).await?;
    let store = &gateway.store;
    if !store.delete_vector_store(&caller.tenant_id, &id).await? {
        return Err(ApiError::not_found("vector store", &id));
    }
    Ok(Json(Deleted {
        id,
        object: "vector_store.deleted",
        deleted: true,
    }))
}

fn query_of(input: VectorSearchIn) -> Result<Query, ApiError> {
    let texts = match input.query {
        QueryTexts::One(text) => vec![text],
        QueryTexts::Many(texts) => texts,
    };
    if texts.is_empty() || texts.len() > MAX_QUERIES || texts.iter().any(|t| t.trim().is_empty()) {
        let message = format!("must be 1 to {MAX_QUERIES} texts, none of them empty");
        return Err(ApiError::invalid("query", message));
    }
    for text in &texts {
        check_text("query", text, MAX_QUERY)?;
    }
    let limit = input.max_num_results.unwrap_or(DEFAULT_RESULTS);
    if !(1..=MAX_RESULTS).contains(&limit) {
        let message = format!("must be 1 to {MAX_RESULTS}");
        return Err(ApiError::invalid("max_num_results", message));
    }
    let filter = match input.filters.filter(|filter| !filter.is_null()) {
        None => None,
        Some(filter) => {
            Some(Filter::parse(&filter).map_err(|e| ApiError::invalid("filters", e.to_string()))?)
        }
    };
    let (mut threshold, mut hybrid) = (0.0, None);
    if let Some(ranking) = input.ranking_options {
        threshold = ranking.score_threshold.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&threshold) {
            let param = "ranking_options.score_threshold";
            return Err(ApiError::invalid(param, "must be 0 to 1"));
        }
        if let Some(weights) = ranking.hybrid_search {
            let (vectors, words) = (weights.embedding_weight, weights.text_weight);
            let sum = vectors + words;
            if vectors < 0.0 || words < 0.0 || sum <= 0.0 || !sum.is_finite() {
                let param = "ranking_options.hybrid_search";
                let message = "weights must not be below 0, and one must be above it";
                return Err(ApiError::invalid(param, message));
            }
            hybrid = Some(Hybrid { vectors, words });
        }
    }
    Ok(Query {
        texts,
        filter,
        limit,
        threshold,
        hybrid,
    })
}

fn hit_out(hit: Hit) -> VectorHit {
    VectorHit {
        file_id: hit.file_id,
        filename: hit.filename,
        score: hit.score,
        attributes: hit.attributes,
        content: vec![TextPart::new(hit.text)],
    }
}

/// Searches a store.
#[utoipa::path(post, path = "/v1/vector_stores/{id}/search", tag = "vector_stores",
    params(("id" = String, Path)), request_body = VectorSearchIn,
    responses((status = 200, body = VectorSearchOut)))]
pub async fn search(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresRead>,
    Path(id): Path<String>,
    Input(input): Input<VectorSearchIn>,
) -> Result<Json<VectorSearchOut>, ApiError> {
    let row = found(&gateway, &caller, &id).await?;
    let query = query_of(input)?;
    let now = now_micros();
    if now - row.last_active_at > ACTIVE_EVERY {
        let touched = gateway.store.touch_vector_store(&row.tenant_id, &id, now);
        touched.await?;
    }
    let search_query = query.texts.clone();
    let hits = gateway.retrieval.search(&row, query).await?;
    Ok(Json(VectorSearchOut {
        object: "vector_store.search_results.page",
        search_query,
        data: hits.into_iter().map(hit_out).collect(),
        has_more: false,
        next_page: None,
    }))
}
