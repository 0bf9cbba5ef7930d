//! `/v1/files`: OpenAI's Files API. Content is kept in pieces in the store, and passes through in
//! pieces both ways.

use axum::Json;
use axum::body::Body;
use axum::extract::multipart::{Field, Multipart};
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::conversations::Deleted;
use super::extract::{Caller, bad_form, check_text};
use super::page::{OaiList, SliceQuery};
use crate::auth::{Principal, Scope};
use crate::error::ApiError;
use crate::ids;
use crate::store::{FileFilter, FileRow, Store, now_micros};

/// Content is kept in pieces of this size.
const PIECE: usize = 1024 * 1024;
const MAX_LIMIT: i64 = 10_000;
const MAX_NAME: usize = 512;
const PURPOSES: [&str; 6] = [
    "assistants",
    "batch",
    "fine-tune",
    "vision",
    "user_data",
    "evals",
];

/// A file, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileOut {
    pub id: String,
    /// Always `file`.
    #[schema(example = "file")]
    pub object: &'static str,
    pub bytes: i64,
    /// Unix seconds.
    pub created_at: i64,
    pub filename: String,
    pub purpose: String,
    /// Always `processed`.
    #[schema(example = "processed")]
    pub status: &'static str,
    pub status_details: Option<String>,
}

/// A file to keep.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents the multipart form")]
pub struct FileIn {
    #[schema(format = Binary)]
    file: String,
    /// `assistants`, `batch`, `fine-tune`, `vision`, `user_data` or `evals`.
    #[schema(pattern = "^(assistants|batch|fine-tune|vision|user_data|evals)$")]
    purpose: String,
}

/// Says to the edge that the answer's body is to be passed on piece by piece.
#[derive(Debug, Clone, Copy)]
pub struct Streamed;

/// The query of the files' list, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "read by the derive only")]
struct FileParams {
    /// Rows of a page.
    #[param(minimum = 1, maximum = 10000, default = 20)]
    limit: Option<i64>,
    /// The last id of the page before.
    after: Option<String>,
    /// By creation; the default is newest first.
    #[param(pattern = "^(asc|desc)?$")]
    order: Option<String>,
    purpose: Option<String>,
}

/// The query of the files' list, whose pages may be larger.
pub struct FileQuery(SliceQuery);

impl<S: Send + Sync> FromRequestParts<S> for FileQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        SliceQuery::parse(parts.uri.query().unwrap_or_default(), MAX_LIMIT).map(Self)
    }
}

fn file_out(row: FileRow) -> FileOut {
    FileOut {
        id: row.id,
        object: "file",
        bytes: row.bytes,
        created_at: row.created_at / 1_000_000,
        filename: row.filename,
        purpose: row.purpose,
        status: "processed",
        status_details: None,
    }
}

async fn found(gateway: &AppState, caller: &Principal, id: &str) -> Result<FileRow, ApiError> {
    let row = gateway.store.file(&caller.tenant_id, id).await?;
    let row = row.ok_or_else(|| ApiError::not_found("file", id))?;
    if caller.smith_id().is_some() {
        caller.require_smith(row.smith_id.as_deref().unwrap_or_default())?;
    }
    Ok(row)
}

/// Keeps a file.
#[utoipa::path(post, path = "/v1/files", tag = "files",
    request_body(content = FileIn, content_type = "multipart/form-data"),
    responses((status = 200, body = FileOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Json<FileOut>, ApiError> {
    caller.require(Scope::FilesWrite)?;
    let mut form = form.map_err(|e| ApiError::bad_request("invalid_request", e.body_text()))?;
    let mut file = FileRow {
        id: ids::mint(ids::Kind::File),
        tenant_id: caller.tenant_id.to_string(),
        smith_id: caller.smith_id().map(|id| id.to_string()),
        filename: String::new(),
        purpose: String::new(),
        media_type: None,
        bytes: 0,
        complete: false,
        created_at: now_micros(),
    };
    let mut begun = false;
    let mut purpose = None;
    while let Some(field) = form.next_field().await.map_err(|e| bad_form(&e))? {
        match field.name() {
            Some("purpose") => {
                let text = field.text().await.map_err(|e| bad_form(&e))?;
                purpose = Some(text);
            }
            Some("file") if begun => {
                return Err(ApiError::invalid("file", "is there twice"));
            }
            Some("file") => {
                let filename = field.file_name().unwrap_or("file").to_owned();
                check_text("file", &filename, MAX_NAME)?;
                file.filename = filename;
                file.media_type = field
                    .content_type()
                    .filter(|text| text.len() <= MAX_NAME)
                    .map(str::to_owned);
                gateway.store.begin_file(&file).await?;
                begun = true;
                keep(gateway.store.as_ref(), &mut file, field).await?;
            }
            _ => {}
        }
    }
    if !begun {
        return Err(ApiError::invalid("file", "is missing"));
    }
    let purpose = purpose.ok_or_else(|| ApiError::invalid("purpose", "is missing"))?;
    if !PURPOSES.contains(&purpose.as_str()) {
        return Err(ApiError::invalid(
            "purpose",
            format!("must be one of {}", PURPOSES.join(", ")),
        ));
    }
    file.purpose = purpose;
    gateway.store.complete_file(&file).await?;
    Ok(Json(file_out(file)))
}

/// Writes a field's content in pieces.
async fn keep(store: &dyn Store, file: &mut FileRow, mut field: Field<'_>) -> Result<(), ApiError> {
    let mut piece = BytesMut::with_capacity(PIECE);
    let mut number = 0;
    while let Some(chunk) = field.chunk().await.map_err(|e| bad_form(&e))? {
        file.bytes += chunk.len() as i64;
        piece.extend_from_slice(&chunk);
        while piece.len() >= PIECE {
            let full = piece.split_to(PIECE);
            store
                .add_file_piece(&file.tenant_id, &file.id, number, &full)
                .await?;
            number += 1;
        }
    }
    if !piece.is_empty() {
        store
            .add_file_piece(&file.tenant_id, &file.id, number, &piece)
            .await?;
    }
    Ok(())
}

/// Lists the files; with a smith token, that smith's.
#[utoipa::path(get, path = "/v1/files", tag = "files",
    params(FileParams),
    responses((status = 200, body = OaiList<FileOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    FileQuery(query): FileQuery,
) -> Result<Json<OaiList<FileOut>>, ApiError> {
    caller.require(Scope::FilesRead)?;
    let filter = FileFilter {
        smith_id: caller.smith_id().map(|id| id.to_string()),
        purpose: query.filters.get("purpose"),
    };
    let rows = gateway
        .store
        .files(&caller.tenant_id, &filter, &query.slice)
        .await?;
    Ok(Json(query.list(rows, |row| row.id.clone(), file_out)))
}

/// Reads what is known of a file.
#[utoipa::path(get, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path)),
    responses((status = 200, body = FileOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<FileOut>, ApiError> {
    caller.require(Scope::FilesRead)?;
    Ok(Json(file_out(found(&gateway, &caller, &id).await?)))
}

/// Reads a file's content.
#[utoipa::path(get, path = "/v1/files/{id}/content", tag = "files",
    params(("id" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
pub async fn content(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    caller.require(Scope::FilesRead)?;
    let file = found(&gateway, &caller, &id).await?;
    let length = file.bytes;
    let pieces = (length as u64).div_ceil(PIECE as u64) as i64;
    let state = (gateway.store.clone(), Arc::new(file), 0i64);
    let stream = futures_util::stream::try_unfold(state, move |(store, file, number)| async move {
        if number >= pieces {
            return Ok(None);
        }
        let piece = store
            .file_piece(&file.tenant_id, &file.id, number)
            .await
            .map_err(std::io::Error::other)?
            .ok_or_else(|| std::io::Error::other("a piece of the file is gone"))?;
        Ok::<_, std::io::Error>(Some((piece, (store, file, number + 1))))
    });
    // The type that the uploader named is not given back: nobody shall run it from here.
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    let mut response = (StatusCode::OK, headers, Body::from_stream(stream)).into_response();
    response.extensions_mut().insert(Streamed);
    Ok(response)
}

/// Deletes a file.
#[utoipa::path(delete, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path)),
    responses((status = 200, body = Deleted)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    caller.require(Scope::FilesWrite)?;
    let file = found(&gateway, &caller, &id).await?;
    if !gateway.store.delete_file(&file.tenant_id, &file.id).await? {
        return Err(ApiError::not_found("file", &id));
    }
    Ok(Json(Deleted {
        id,
        object: "file",
        deleted: true,
    }))
}
