//! Vector stores: their rows and the trait. A store's files are `files` rows that were attached to
//! it; a worker takes them in and writes their chunks.

use async_trait::async_trait;

use super::{Result, Rows, Slice, VectorFileStatus};

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VectorStoreRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: Option<String>,
    pub name: String,
    pub description: Option<String>,
    /// JSON object of texts.
    pub metadata: String,
    /// Absent: searched by words alone.
    pub embedding_model: Option<String>,
    /// Grows with each change of what can be found.
    pub revision: i64,
    pub last_active_at: i64,
    pub created_at: i64,
}

/// A file's place in a store.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VectorFileRow {
    /// The file's id.
    pub id: String,
    pub tenant_id: String,
    pub vector_store_id: String,
    pub batch_id: Option<String>,
    pub status: VectorFileStatus,
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub usage_bytes: i64,
    /// JSON object of texts, numbers and booleans.
    pub attributes: String,
    pub chunk_tokens: i64,
    pub overlap_tokens: i64,
    pub attempts: i64,
    pub due_at: i64,
    pub created_at: i64,
    /// How often it was taken up since something was last heard of it.
    pub takings: i64,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VectorBatchRow {
    pub id: String,
    pub tenant_id: String,
    pub vector_store_id: String,
    pub cancelled: bool,
    pub created_at: i64,
}

/// Files of a store or a batch, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VectorFileCounts {
    pub in_progress: i64,
    pub completed: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub usage_bytes: i64,
}

/// A piece of a file's text.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VectorChunkRow {
    pub file_id: String,
    pub number: i64,
    pub content: String,
    /// Little-endian 32-bit floats of length 1.
    pub embedding: Option<Vec<u8>>,
}

/// A file that a search may find.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VectorFound {
    pub id: String,
    pub filename: String,
    pub attributes: String,
}

/// How taking a file in ended.
#[derive(Debug, Clone)]
pub enum VectorOutcome<'a> {
    /// All its chunks were put.
    Completed {
        usage_bytes: i64,
    },
    Failed {
        code: &'a str,
        message: &'a str,
    },
    /// Tried again at this time.
    Later(i64),
}

/// Which files of a store are listed.
#[derive(Debug, Clone, Default)]
pub struct VectorFileFilter {
    pub batch_id: Option<String>,
    pub status: Option<String>,
}

/// Vector stores.
#[async_trait]
pub trait VectorStoreStore: Send + Sync {
    async fn insert_vector_store(
        &self,
        store: &VectorStoreRow,
        files: &[VectorFileRow],
    ) -> Result<()>;
    async fn vector_store(&self, tenant_id: &str, id: &str) -> Result<Option<VectorStoreRow>>;
    /// With `smith_id`, those of that smith.
    async fn vector_stores(
        &self,
        tenant_id: &str,
        smith_id: Option<&str>,
        slice: &Slice,
    ) -> Result<Rows<VectorStoreRow>>;
    /// Writes name, description and metadata; `false` when there is no such store.
    async fn update_vector_store(&self, store: &VectorStoreRow) -> Result<bool>;
    async fn delete_vector_store(&self, tenant_id: &str, id: &str) -> Result<bool>;
    async fn touch_vector_store(&self, tenant_id: &str, id: &str, now: i64) -> Result<()>;
    /// Attaches files, and notes the batch that they come as. A file that is there already is
    /// taken in anew.
    async fn attach_vector_files(
        &self,
        batch: Option<&VectorBatchRow>,
        files: &[VectorFileRow],
    ) -> Result<()>;
    async fn vector_batch(
        &self,
        tenant_id: &str,
        store_id: &str,
        id: &str,
    ) -> Result<Option<VectorBatchRow>>;
    /// Cancels what a batch has not taken in yet; `false` when there is no such batch.
    async fn cancel_vector_batch(&self, tenant_id: &str, store_id: &str, id: &str) -> Result<bool>;
    async fn vector_file(
        &self,
        tenant_id: &str,
        store_id: &str,
        file_id: &str,
    ) -> Result<Option<VectorFileRow>>;
    async fn vector_files(
        &self,
        tenant_id: &str,
        store_id: &str,
        filter: &VectorFileFilter,
        slice: &Slice,
    ) -> Result<Vec<VectorFileRow>>;
    /// Of a store, or of one batch of it.
    async fn vector_file_counts(
        &self,
        tenant_id: &str,
        store_id: &str,
        batch_id: Option<&str>,
    ) -> Result<VectorFileCounts>;
    /// `false` when the file is not attached.
    async fn set_vector_attributes(
        &self,
        tenant_id: &str,
        store_id: &str,
        file_id: &str,
        attributes: &str,
    ) -> Result<bool>;
    async fn detach_vector_file(
        &self,
        tenant_id: &str,
        store_id: &str,
        file_id: &str,
    ) -> Result<bool>;
    /// A file's chunks, in order.
    async fn vector_chunks_of(
        &self,
        tenant_id: &str,
        store_id: &str,
        file_id: &str,
    ) -> Result<Vec<VectorChunkRow>>;
    /// All chunks of a store, by file and number; those behind `after`.
    async fn vector_chunks(
        &self,
        tenant_id: &str,
        store_id: &str,
        after: Option<(&str, i64)>,
        limit: i64,
    ) -> Result<Vec<VectorChunkRow>>;
    /// The files that are taken in.
    async fn vector_found(&self, tenant_id: &str, store_id: &str) -> Result<Vec<VectorFound>>;
    /// Tenants with files that are due to be taken in, those first that wait longest; and when the
    /// next file is due after `now`.
    async fn due_vector_files(&self, now: i64, limit: i64) -> Result<(Vec<String>, Option<i64>)>;
    /// Takes up to `limit` due files of a tenant; nobody else takes them before `hold_until`.
    async fn claim_vector_files(
        &self,
        tenant_id: &str,
        now: i64,
        hold_until: i64,
        limit: i64,
    ) -> Result<Vec<VectorFileRow>>;
    /// Prolongs holds, of files and as their rows say until when they are held; answers of each
    /// whether it is one still.
    async fn renew_vector_files(
        &self,
        held: &[(&VectorFileRow, i64)],
        until: i64,
    ) -> Result<Vec<bool>>;
    /// Gives a file back that is not taken in, and counts no attempt; `false`: it is held no more.
    async fn release_vector_file(
        &self,
        file: &VectorFileRow,
        held_until: i64,
        now: i64,
    ) -> Result<bool>;
    /// The node that a file was taken from lives: that taking is not counted.
    async fn uncount_vector_file(&self, file: &VectorFileRow) -> Result<()>;
    /// Puts some of the chunks of a file that is taken in, where they are not found before it is
    /// completed; the first come in place of what an attempt that broke off left. `false` when the file
    /// was detached or cancelled meanwhile, or is held no more.
    async fn put_vector_chunks(
        &self,
        file: &VectorFileRow,
        held_until: i64,
        chunks: &[VectorChunkRow],
        are_first: bool,
    ) -> Result<bool>;
    /// Makes all files due that nobody can be taking in any more: of a store that one process has for
    /// itself.
    async fn release_all_vector_files(&self, now: i64) -> Result<()>;
    /// Records how it ended; `false` when the file was detached or cancelled meanwhile, or is held
    /// no more.
    async fn finish_vector_file(
        &self,
        file: &VectorFileRow,
        held_until: i64,
        outcome: VectorOutcome<'_>,
    ) -> Result<bool>;
}
