//! `/v1/files`: OpenAI's Files API. Content is kept in pieces in the store, and passes through in
//! pieces both ways.

use axum::Json;
use axum::body::Body;
use axum::extract::multipart::{Field, Multipart};
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Principal, scope};
use crate::edge::extract::{May, bad_form, check_text};
use crate::edge::page::Deleted;
use crate::edge::page::{OaiList, SliceQuery};
use crate::edge::{AppState, Streamed};
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
    May(caller, _): May<scope::FilesWrite>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Json<FileOut>, ApiError> {
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
    May(caller, _): May<scope::FilesRead>,
    FileQuery(query): FileQuery,
) -> Result<Json<OaiList<FileOut>>, ApiError> {
    let filter = FileFilter {
        smith_id: caller.smith_id().map(|id| id.to_string()),
        purpose: query.filters.one_of("purpose", &PURPOSES)?,
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
    May(caller, _): May<scope::FilesRead>,
    Path(id): Path<String>,
) -> Result<Json<FileOut>, ApiError> {
    Ok(Json(file_out(found(&gateway, &caller, &id).await?)))
}

/// What goes with bytes that somebody uploaded: a browser shall save them, under their name.
pub(super) fn download_headers(
    media_type: &'static str,
    filename: &str,
) -> [(HeaderName, HeaderValue); 3] {
    let disposition = HeaderValue::from_str(&disposition(filename));
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (
            header::CONTENT_DISPOSITION,
            disposition.unwrap_or(HeaderValue::from_static("attachment")),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ]
}

/// `Content-Disposition` of a file to save (RFC 6266). The name is its last part alone, without what
/// a system could take for more than a name; one that is not ASCII comes in its encoded form too.
fn disposition(filename: &str) -> String {
    const MAX: usize = 200;
    let last = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    // Marks that turn the direction of writing can make an ending look like another.
    let turns = |c: char| {
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
    };
    let kept = last.chars().filter(|c| !c.is_control() && !turns(*c));
    let name: String = kept.take(MAX).collect();
    let name = match name.trim().trim_matches('.').is_empty() {
        true => "file",
        false => name.trim(),
    };
    let plain = |c: char| match c {
        ' '..='~' if !r#""\%;<>:|?*"#.contains(c) => c,
        _ => '_',
    };
    let ascii: String = name.chars().map(plain).collect();
    if ascii == name {
        return format!("attachment; filename=\"{ascii}\"");
    }
    let mut encoded = String::with_capacity(name.len() * 3);
    for byte in name.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

/// Reads a file's content.
#[utoipa::path(get, path = "/v1/files/{id}/content", tag = "files",
    params(("id" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
pub async fn content(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::FilesRead>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let file = found(&gateway, &caller, &id).await?;
    let (length, filename) = (file.bytes, file.filename.clone());
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
    let headers = download_headers("application/octet-stream", &filename);
    let length = [(header::CONTENT_LENGTH, HeaderValue::from(length))];
    let mut response = (headers, length, Body::from_stream(stream)).into_response();
    response.extensions_mut().insert(Streamed);
    Ok(response)
}

/// Deletes a file.
#[utoipa::path(delete, path = "/v1/files/{id}", tag = "files", params(("id" = String, Path)),
    responses((status = 200, body = Deleted)))]
pub async fn remove(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::FilesWrite>,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
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

#[cfg(test)]
mod tests {
    use super::disposition;

    #[test]
    fn names_of_files_are_safe_to_save() {
        for (given, told) in [
            ("a b.txt", "filename=\"a b.txt\""),
            ("../../etc/passwd", "filename=\"passwd\""),
            ("C:\\x\\y.exe", "filename=\"y.exe\""),
            ("a\"; filename=\"b.exe", "filename=\"a__ filename=_b.exe\""),
            ("a\r\nSet-Cookie: x", "filename=\"aSet-Cookie_ x\""),
            ("", "filename=\"file\""),
            ("..", "filename=\"file\""),
            ("\u{202e}txt.exe", "filename=\"txt.exe\""),
        ] {
            let header = disposition(given);
            let begins = header.starts_with(&format!("attachment; {told}"));
            assert!(begins, "{given:?}: {header}");
        }
        assert_eq!(
            disposition("Zoë 😀.pdf"),
            "attachment; filename=\"Zo_ _.pdf\"; \
             filename*=UTF-8''Zo%C3%AB%20%F0%9F%98%80.pdf"
        );
        assert!(disposition(&"ü".repeat(1000)).len() < 2000);
    }
}
