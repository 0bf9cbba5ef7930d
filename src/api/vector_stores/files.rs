//! `/v1/vector_stores/{id}/files` and `…/file_batches`: the files of a store. They are taken in
//! behind the answer; `status` tells how far it is.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::wishes::{
    AttributeValue, Attributes, ChunkSizes, ChunkingStrategy, Counts, FileWish, TextPart,
    VectorFileIn, attributes_text, found, wanted_files,
};
use crate::auth::scope;
use crate::edge::AppState;
use crate::edge::extract::{Input, May};
use crate::edge::page::{Deleted, OaiList, SliceParams, SliceQuery};
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::store::{
    VectorBatchRow, VectorFileCounts, VectorFileFilter, VectorFileRow, VectorFileStatus,
    VectorStoreRow, now_micros,
};

/// The files of a batch: `file_ids` with what they share, or `files` with their own.
#[derive(Debug, Deserialize, ToSchema)]
pub struct VectorBatchIn {
    #[serde(default)]
    #[schema(max_items = 2000)]
    pub file_ids: Option<Vec<String>>,
    #[serde(default)]
    #[schema(max_items = 2000)]
    pub files: Option<Vec<VectorFileIn>>,
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, AttributeValue>>)]
    pub attributes: Option<Attributes>,
    #[serde(default)]
    pub chunking_strategy: Option<ChunkingStrategy>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct VectorFilePatch {
    #[schema(value_type = Option<BTreeMap<String, AttributeValue>>)]
    pub attributes: Option<Attributes>,
}

/// A store's file, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct VectorFileOut {
    /// The file's id.
    pub id: String,
    /// Always `vector_store.file`.
    #[schema(example = "vector_store.file")]
    pub object: &'static str,
    pub usage_bytes: i64,
    /// Unix seconds.
    pub created_at: i64,
    pub vector_store_id: String,
    /// `in_progress`, `completed`, `cancelled` or `failed`.
    pub status: String,
    pub last_error: Option<LastError>,
    pub chunking_strategy: ChunkingOut,
    #[schema(value_type = BTreeMap<String, AttributeValue>)]
    pub attributes: Object,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LastError {
    /// `server_error`, `unsupported_file` or `invalid_file`.
    pub code: String,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChunkingOut {
    /// Always `static`.
    #[serde(rename = "type")]
    #[schema(example = "static")]
    pub kind: &'static str,
    #[serde(rename = "static")]
    pub sizes: ChunkSizes,
}

/// A batch, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct VectorBatchOut {
    pub id: String,
    /// Always `vector_store.files_batch`.
    #[schema(example = "vector_store.files_batch")]
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    pub vector_store_id: String,
    /// `in_progress`, `completed` or `cancelled`.
    pub status: &'static str,
    pub file_counts: Counts,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct VectorFileContent {
    /// Always `vector_store.file_content.page`.
    #[schema(example = "vector_store.file_content.page")]
    pub object: &'static str,
    /// The chunks, in order.
    pub data: Vec<TextPart>,
    /// Always false.
    pub has_more: bool,
    /// Always null.
    pub next_page: Option<String>,
}

/// The query of a list of files, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "read by the derive only")]
struct StatusParams {
    /// Those with this status.
    #[param(pattern = "^(in_progress|completed|failed|cancelled)?$")]
    filter: Option<String>,
}

fn file_out(row: VectorFileRow) -> VectorFileOut {
    VectorFileOut {
        id: row.id,
        object: "vector_store.file",
        usage_bytes: row.usage_bytes,
        created_at: row.created_at / 1_000_000,
        vector_store_id: row.vector_store_id,
        status: row.status.into(),
        last_error: row.error_code.map(|code| LastError {
            code,
            message: row.error.unwrap_or_default(),
        }),
        chunking_strategy: ChunkingOut {
            kind: "static",
            sizes: ChunkSizes {
                max_chunk_size_tokens: row.chunk_tokens,
                chunk_overlap_tokens: row.overlap_tokens,
            },
        },
        attributes: Object::parse_or_empty(&row.attributes),
    }
}

fn batch_out(row: VectorBatchRow, counts: VectorFileCounts) -> VectorBatchOut {
    VectorBatchOut {
        id: row.id,
        object: "vector_store.files_batch",
        created_at: row.created_at / 1_000_000,
        vector_store_id: row.vector_store_id,
        status: match (row.cancelled, counts.in_progress) {
            (true, _) => "cancelled",
            (false, 0) => "completed",
            _ => "in_progress",
        },
        file_counts: counts.into(),
    }
}

fn no_file(id: &str) -> ApiError {
    ApiError::not_found("file of this vector store", id)
}

async fn batch_of(
    gateway: &AppState,
    store: &VectorStoreRow,
    id: &str,
) -> Result<VectorBatchRow, ApiError> {
    let row = gateway.store.vector_batch(&store.tenant_id, &store.id, id);
    row.await?
        .ok_or_else(|| ApiError::not_found("file batch", id))
}

/// Attaches a file.
#[utoipa::path(post, path = "/v1/vector_stores/{id}/files", tag = "vector_stores",
    params(("id" = String, Path)), request_body = VectorFileIn,
    responses((status = 200, body = VectorFileOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresWrite>,
    Path(id): Path<String>,
    Input(input): Input<VectorFileIn>,
) -> Result<Json<VectorFileOut>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    let wishes = vec![FileWish::from(input)];
    let mut rows = wanted_files(&gateway, &caller, &store, None, wishes, (None, None)).await?;
    gateway.store.attach_vector_files(None, &rows).await?;
    gateway.ingestion.wake();
    let row = rows
        .pop()
        .ok_or_else(|| ApiError::internal("no row of the file"))?;
    Ok(Json(file_out(row)))
}

/// Lists a store's files.
#[utoipa::path(get, path = "/v1/vector_stores/{id}/files", tag = "vector_stores",
    params(("id" = String, Path), SliceParams, StatusParams),
    responses((status = 200, body = OaiList<VectorFileOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresRead>,
    Path(id): Path<String>,
    query: SliceQuery,
) -> Result<Json<OaiList<VectorFileOut>>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    files_of(&gateway, &store, None, &query).await
}

async fn files_of(
    gateway: &AppState,
    store: &VectorStoreRow,
    batch_id: Option<String>,
    query: &SliceQuery,
) -> Result<Json<OaiList<VectorFileOut>>, ApiError> {
    let filter = VectorFileFilter {
        batch_id,
        status: query.filters.one_of("filter", VectorFileStatus::WORDS)?,
    };
    let rows = gateway
        .store
        .vector_files(&store.tenant_id, &store.id, &filter, &query.slice)
        .await?;
    Ok(Json(query.list(rows, |row| row.id.clone(), file_out)))
}

/// Reads how a file stands.
#[utoipa::path(get, path = "/v1/vector_stores/{id}/files/{file}", tag = "vector_stores",
    params(("id" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = VectorFileOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresRead>,
    Path((id, file)): Path<(String, String)>,
) -> Result<Json<VectorFileOut>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    let row = gateway.store.vector_file(&store.tenant_id, &id, &file);
    let row = row.await?.ok_or_else(|| no_file(&file))?;
    Ok(Json(file_out(row)))
}

/// Replaces a file's attributes.
#[utoipa::path(post, path = "/v1/vector_stores/{id}/files/{file}", tag = "vector_stores",
    params(("id" = String, Path), ("file" = String, Path)), request_body = VectorFilePatch,
    responses((status = 200, body = VectorFileOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresWrite>,
    Path((id, file)): Path<(String, String)>,
    Input(input): Input<VectorFilePatch>,
) -> Result<Json<VectorFileOut>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    let attributes = attributes_text(input.attributes.as_ref())?;
    let kept = gateway
        .store
        .set_vector_attributes(&store.tenant_id, &id, &file, &attributes)
        .await?;
    let row = gateway.store.vector_file(&store.tenant_id, &id, &file);
    let row = row.await?.filter(|_| kept).ok_or_else(|| no_file(&file))?;
    Ok(Json(file_out(row)))
}

/// Takes a file out of a store; the file itself stays.
#[utoipa::path(delete, path = "/v1/vector_stores/{id}/files/{file}", tag = "vector_stores",
    params(("id" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = Deleted)))]
pub async fn remove(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresWrite>,
    Path((id, file)): Path<(String, String)>,
) -> Result<Json<Deleted>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    let gone = gateway
        .store
        .detach_vector_file(&store.tenant_id, &id, &file);
    if !gone.await? {
        return Err(no_file(&file));
    }
    Ok(Json(Deleted {
        id: file,
        object: "vector_store.file.deleted",
        deleted: true,
    }))
}

/// Reads a file's text as it was taken in.
#[utoipa::path(get, path = "/v1/vector_stores/{id}/files/{file}/content", tag = "vector_stores",
    params(("id" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = VectorFileContent)))]
pub async fn content(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresRead>,
    Path((id, file)): Path<(String, String)>,
) -> Result<Json<VectorFileContent>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    let row = gateway.store.vector_file(&store.tenant_id, &id, &file);
    row.await?.ok_or_else(|| no_file(&file))?;
    let chunks = gateway.store.vector_chunks_of(&store.tenant_id, &id, &file);
    let chunks = chunks.await?.into_iter();
    Ok(Json(VectorFileContent {
        object: "vector_store.file_content.page",
        data: chunks.map(|chunk| TextPart::new(chunk.content)).collect(),
        has_more: false,
        next_page: None,
    }))
}

/// Attaches many files.
#[utoipa::path(post, path = "/v1/vector_stores/{id}/file_batches", tag = "vector_stores",
    params(("id" = String, Path)), request_body = VectorBatchIn,
    responses((status = 200, body = VectorBatchOut)))]
pub async fn create_batch(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresWrite>,
    Path(id): Path<String>,
    Input(input): Input<VectorBatchIn>,
) -> Result<Json<VectorBatchOut>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    let wishes: Vec<FileWish> = match (input.file_ids, input.files) {
        (Some(ids), None) => ids.into_iter().map(FileWish::of).collect(),
        (None, Some(files)) => files.into_iter().map(FileWish::from).collect(),
        _ => {
            return Err(ApiError::invalid(
                "file_ids",
                "give either file_ids or files",
            ));
        }
    };
    if wishes.is_empty() {
        return Err(ApiError::invalid("file_ids", "must not be empty"));
    }
    let batch = VectorBatchRow {
        id: ids::mint(ids::Kind::VectorBatch),
        tenant_id: store.tenant_id.clone(),
        vector_store_id: store.id.clone(),
        cancelled: false,
        created_at: now_micros(),
    };
    let shared = (input.attributes, input.chunking_strategy);
    let rows = wanted_files(&gateway, &caller, &store, Some(&batch.id), wishes, shared).await?;
    gateway
        .store
        .attach_vector_files(Some(&batch), &rows)
        .await?;
    gateway.ingestion.wake();
    let counts = VectorFileCounts {
        in_progress: rows.len() as i64,
        ..VectorFileCounts::default()
    };
    Ok(Json(batch_out(batch, counts)))
}

/// Reads how a batch stands.
#[utoipa::path(get, path = "/v1/vector_stores/{id}/file_batches/{batch}", tag = "vector_stores",
    params(("id" = String, Path), ("batch" = String, Path)),
    responses((status = 200, body = VectorBatchOut)))]
pub async fn one_batch(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresRead>,
    Path((id, batch)): Path<(String, String)>,
) -> Result<Json<VectorBatchOut>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    let row = batch_of(&gateway, &store, &batch).await?;
    let counts = gateway
        .store
        .vector_file_counts(&store.tenant_id, &id, Some(&batch));
    Ok(Json(batch_out(row, counts.await?)))
}

/// Leaves out what a batch has not taken in yet.
#[utoipa::path(post, path = "/v1/vector_stores/{id}/file_batches/{batch}/cancel",
    tag = "vector_stores", params(("id" = String, Path), ("batch" = String, Path)),
    responses((status = 200, body = VectorBatchOut)))]
pub async fn cancel_batch(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresWrite>,
    Path((id, batch)): Path<(String, String)>,
) -> Result<Json<VectorBatchOut>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    batch_of(&gateway, &store, &batch).await?;
    let cancelled = gateway
        .store
        .cancel_vector_batch(&store.tenant_id, &id, &batch);
    cancelled.await?;
    let row = batch_of(&gateway, &store, &batch).await?;
    let counts = gateway
        .store
        .vector_file_counts(&store.tenant_id, &id, Some(&batch));
    Ok(Json(batch_out(row, counts.await?)))
}

/// Lists a batch's files.
#[utoipa::path(get, path = "/v1/vector_stores/{id}/file_batches/{batch}/files",
    tag = "vector_stores",
    params(("id" = String, Path), ("batch" = String, Path), SliceParams, StatusParams),
    responses((status = 200, body = OaiList<VectorFileOut>)))]
pub async fn list_of_batch(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::VectorStoresRead>,
    Path((id, batch)): Path<(String, String)>,
    query: SliceQuery,
) -> Result<Json<OaiList<VectorFileOut>>, ApiError> {
    let store = found(&gateway, &caller, &id).await?;
    batch_of(&gateway, &store, &batch).await?;
    files_of(&gateway, &store, Some(batch), &query).await
}
