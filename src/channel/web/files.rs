//! Files that visitors send: kept as uploads are, and named to the page by a sealed word, so that a
//! visitor can add to a message only what they have sent themselves.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Json, http::HeaderMap};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BytesMut;
use futures_util::StreamExt;
use http::header;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::buckets::Buckets;
use super::visitor::Visit;
use crate::channel::Hub;
use crate::channel::files::part_of;
use crate::edge::AppState;
use crate::error::ApiError;
use crate::model::{Part, kind_of_bytes};

const MAX_NAME: usize = 200;
const MAX_WORD: usize = 4096;
const MIB: usize = 1024 * 1024;
/// What one visitor may send in a minute, and at once, in MiB begun; and all visitors of a page. They
/// are strangers, and what they send is kept.
const OWN: [u32; 2] = [20, 100];
const ALL: [u32; 2] = [40, 400];
/// Files that are taken at once: each is held until it is whole.
const AT_ONCE: usize = 8;

static SENT: Buckets = Buckets::new();
static TAKING: Semaphore = Semaphore::const_new(AT_ONCE);

/// What a sealed word says.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    file_id: String,
    name: String,
    is_image: bool,
}

#[derive(Debug, Deserialize)]
pub struct Named {
    #[serde(default)]
    name: Option<String>,
}

/// A file that was taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileTaken {
    /// What a message names it by.
    pub file: String,
    pub name: String,
    pub is_image: bool,
}

fn owner(visit: &Visit) -> String {
    let deployment = &visit.deployment;
    format!(
        "web_file/{}/{}/{}",
        deployment.tenant_id, deployment.id, visit.visitor.id
    )
}

/// Takes a file of a visitor: the body as it is, its name in the query.
#[utoipa::path(post, path = "/hosted/{id}/files", tag = "web page", security(()),
    params(("id" = String, Path), ("name" = Option<String>, Query)),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = FileTaken)))]
pub async fn take(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    Query(named): Query<Named>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<FileTaken>, ApiError> {
    let hub = &gateway.hub;
    let visit = Visit::of(hub, &id, &headers).await?;
    if !visit.settings.takes_files {
        return Err(ApiError::forbidden("no_files", "this page takes no files"));
    }
    let _taking = TAKING.acquire().await.map_err(ApiError::internal)?;
    let most = hub.config.max_file_bytes;
    let (mut content, mut pieces) = (BytesMut::new(), body.into_data_stream());
    while let Some(piece) = pieces.next().await {
        let piece =
            piece.map_err(|error| ApiError::bad_request("invalid_request", error.to_string()))?;
        if content.len() + piece.len() > most {
            return Err(ApiError::too_large(most));
        }
        content.extend_from_slice(&piece);
    }
    if content.is_empty() {
        return Err(ApiError::invalid("file", "is empty"));
    }
    let size = u32::try_from(content.len().div_ceil(MIB)).unwrap_or(u32::MAX);
    for (key, [per_minute, at_once]) in [(&visit.visitor.id, OWN), (&visit.deployment.id, ALL)] {
        SENT.take_many(key, size, per_minute, at_once)?;
    }
    let name = named.name.unwrap_or_default();
    let name: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME)
        .collect();
    let name = if name.trim().is_empty() {
        "file".to_owned()
    } else {
        name
    };
    let by_bytes = kind_of_bytes(&content);
    let said = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let said = said.filter(|said| said.len() <= MAX_NAME && !said.starts_with("image/"));
    let is_image = by_bytes.is_some_and(|kind| kind.starts_with("image/"));
    let tenant_id = &visit.deployment.tenant_id;
    let file_id = hub
        .keep_file(tenant_id, &name, by_bytes.or(said), content.freeze())
        .await?;
    let kept = Kept {
        file_id,
        name,
        is_image,
    };
    let text = serde_json::to_vec(&kept).map_err(ApiError::internal)?;
    let sealed = hub.vault.seal(&owner(&visit), &text);
    Ok(Json(FileTaken {
        file: URL_SAFE_NO_PAD.encode(sealed.map_err(ApiError::internal)?),
        name: kept.name,
        is_image,
    }))
}

/// The part that a sealed word stands for.
pub fn part(hub: &Hub, visit: &Visit, word: &str) -> Option<Part> {
    if word.len() > MAX_WORD {
        return None;
    }
    let sealed = URL_SAFE_NO_PAD.decode(word).ok()?;
    let opened = hub.vault.open(&owner(visit), &sealed).ok()?;
    let kept: Kept = serde_json::from_slice(&opened).ok()?;
    Some(part_of(kept.file_id, &kept.name, kept.is_image))
}
