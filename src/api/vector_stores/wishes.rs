//! What is wished of a store: files to take in, how they are cut, what they are filtered by; and what
//! stores and their files have in common.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Principal;
use crate::edge::AppState;
use crate::edge::extract::check_text;
use crate::error::ApiError;
use crate::json::Entries;
use crate::retrieval::{DEFAULT_CHUNK_TOKENS, DEFAULT_OVERLAP_TOKENS};
use crate::store::{VectorFileCounts, VectorFileRow, VectorFileStatus, VectorStoreRow, now_micros};

const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 512;
/// Files of one batch (<https://platform.openai.com/docs/api-reference/vector-stores-file-batches>).
const MAX_FILES: usize = 2000;
const CHUNK_TOKENS: std::ops::RangeInclusive<i64> = 100..=4096;

/// Texts, numbers and booleans that searches filter by; at most 16.
pub type Attributes = Entries<AttributeValue>;

#[derive(Debug, Serialize, ToSchema)]
pub struct TextPart {
    /// Always `text`.
    #[serde(rename = "type")]
    #[schema(example = "text")]
    pub kind: &'static str,
    pub text: String,
}

impl TextPart {
    pub(super) fn new(text: String) -> Self {
        Self { kind: "text", text }
    }
}

/// The store, when the caller may use it.
pub(super) async fn found(
    gateway: &AppState,
    caller: &Principal,
    id: &str,
) -> Result<VectorStoreRow, ApiError> {
    let row = gateway.store.vector_store(&caller.tenant_id, id).await?;
    let row = row.ok_or_else(|| ApiError::not_found("vector store", id))?;
    if caller.smith_id().is_some() {
        caller.require_smith(row.smith_id.as_deref().unwrap_or_default())?;
    }
    Ok(row)
}

/// Refuses more pairs, or longer ones, than OpenAI takes.
pub(super) fn check_pairs<'a>(
    param: &'static str,
    pairs: impl ExactSizeIterator<Item = (&'a str, usize)>,
) -> Result<(), ApiError> {
    if pairs.len() > MAX_PAIRS {
        return Err(ApiError::invalid(
            param,
            format!("has more than {MAX_PAIRS} entries"),
        ));
    }
    for (key, length) in pairs {
        check_text(param, key, usize::MAX)?;
        if key.chars().count() > MAX_KEY || length > MAX_VALUE {
            let message =
                format!("keys have at most {MAX_KEY} characters, values at most {MAX_VALUE}");
            return Err(ApiError::invalid(param, message));
        }
    }
    Ok(())
}

/// How a file is cut: `auto`, or `static` with its sizes.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ChunkingStrategy {
    Auto,
    Static {
        #[serde(rename = "static")]
        sizes: ChunkSizes,
    },
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub struct ChunkSizes {
    #[schema(minimum = 100, maximum = 4096)]
    pub max_chunk_size_tokens: i64,
    /// At most half of the chunk's size.
    #[schema(minimum = 0, maximum = 2048)]
    pub chunk_overlap_tokens: i64,
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub enum AttributeValue {
    Text(String),
    #[schema(value_type = f64)]
    Number(serde_json::Number),
    Boolean(bool),
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct VectorFileIn {
    pub file_id: String,
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, AttributeValue>>)]
    pub attributes: Option<Attributes>,
    #[serde(default)]
    pub chunking_strategy: Option<ChunkingStrategy>,
}

/// Files by what became of them.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Counts {
    pub in_progress: i64,
    pub completed: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub total: i64,
}

impl From<VectorFileCounts> for Counts {
    fn from(counts: VectorFileCounts) -> Self {
        Self {
            in_progress: counts.in_progress,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            total: counts.in_progress + counts.completed + counts.failed + counts.cancelled,
        }
    }
}

/// A file that a caller wants to be taken in.
pub(super) struct FileWish {
    file_id: String,
    attributes: Option<Attributes>,
    chunking: Option<ChunkingStrategy>,
}

impl FileWish {
    /// With what its batch shares.
    pub(super) fn of(file_id: String) -> Self {
        Self {
            file_id,
            attributes: None,
            chunking: None,
        }
    }
}

impl From<VectorFileIn> for FileWish {
    fn from(input: VectorFileIn) -> Self {
        Self {
            file_id: input.file_id,
            attributes: input.attributes,
            chunking: input.chunking_strategy,
        }
    }
}

fn sizes_of(strategy: Option<&ChunkingStrategy>) -> Result<(i64, i64), ApiError> {
    let Some(ChunkingStrategy::Static { sizes }) = strategy else {
        return Ok((DEFAULT_CHUNK_TOKENS, DEFAULT_OVERLAP_TOKENS));
    };
    let (size, overlap) = (sizes.max_chunk_size_tokens, sizes.chunk_overlap_tokens);
    if !CHUNK_TOKENS.contains(&size) || !(0..=size / 2).contains(&overlap) {
        return Err(ApiError::invalid(
            "chunking_strategy",
            "a chunk has 100 to 4096 tokens, of which at most half overlap",
        ));
    }
    Ok((size, overlap))
}

/// As they are kept.
pub(super) fn attributes_text(attributes: Option<&Attributes>) -> Result<String, ApiError> {
    let Some(attributes) = attributes else {
        return Ok("{}".to_owned());
    };
    let length = |value: &AttributeValue| match value {
        AttributeValue::Text(text) => text.chars().count(),
        _ => 0,
    };
    let pairs = attributes.iter().map(|(key, value)| (key, length(value)));
    check_pairs("attributes", pairs)?;
    serde_json::to_string(attributes).map_err(ApiError::internal)
}

/// The rows of files that are to be attached; each must be the caller's, and the store's smith's
/// where it has one.
pub(super) async fn wanted_files(
    gateway: &AppState,
    caller: &Principal,
    store: &VectorStoreRow,
    batch_id: Option<&str>,
    wishes: Vec<FileWish>,
    shared: (Option<Attributes>, Option<ChunkingStrategy>),
) -> Result<Vec<VectorFileRow>, ApiError> {
    if wishes.len() > MAX_FILES {
        let message = format!("at most {MAX_FILES} files are attached at once");
        return Err(ApiError::invalid("file_ids", message));
    }
    let now = now_micros();
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(wishes.len());
    for wish in wishes {
        if !seen.insert(wish.file_id.clone()) {
            continue;
        }
        let file = gateway.store.file(&caller.tenant_id, &wish.file_id).await?;
        let file = file.ok_or_else(|| ApiError::not_found("file", &wish.file_id))?;
        if caller.smith_id().is_some() {
            caller.require_smith(file.smith_id.as_deref().unwrap_or_default())?;
        }
        let others = |smith: &String| file.smith_id.as_ref().is_some_and(|of| of != smith);
        if store.smith_id.as_ref().is_some_and(others) {
            let message = format!("the file '{}' is another smith's", file.id);
            return Err(ApiError::invalid("file_id", message));
        }
        let chunking = wish.chunking.as_ref().or(shared.1.as_ref());
        let (chunk_tokens, overlap_tokens) = sizes_of(chunking)?;
        rows.push(VectorFileRow {
            id: file.id,
            tenant_id: store.tenant_id.clone(),
            vector_store_id: store.id.clone(),
            batch_id: batch_id.map(str::to_owned),
            status: VectorFileStatus::InProgress,
            error_code: None,
            error: None,
            usage_bytes: 0,
            attributes: attributes_text(wish.attributes.as_ref().or(shared.0.as_ref()))?,
            chunk_tokens,
            overlap_tokens,
            attempts: 0,
            due_at: now,
            created_at: now,
            takings: 0,
        });
    }
    Ok(rows)
}
