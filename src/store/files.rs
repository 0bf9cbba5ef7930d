//! Files.

use async_trait::async_trait;

use super::{Result, Slice};

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct FileRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: Option<String>,
    pub filename: String,
    pub purpose: String,
    pub media_type: Option<String>,
    pub bytes: i64,
    pub complete: bool,
    pub created_at: i64,
}

#[derive(Debug, Clone, Default)]
pub struct FileFilter {
    pub smith_id: Option<String>,
    pub purpose: Option<String>,
}

/// Files, in pieces.
#[async_trait]
pub trait FileStore: Send + Sync {
    /// Begins a file, which nobody sees before it is complete.
    async fn begin_file(&self, file: &FileRow) -> Result<()>;
    async fn add_file_piece(
        &self,
        tenant_id: &str,
        file_id: &str,
        number: i64,
        content: &[u8],
    ) -> Result<()>;
    async fn complete_file(&self, file: &FileRow) -> Result<()>;
    async fn file(&self, tenant_id: &str, id: &str) -> Result<Option<FileRow>>;
    async fn files(
        &self,
        tenant_id: &str,
        filter: &FileFilter,
        slice: &Slice,
    ) -> Result<Vec<FileRow>>;
    async fn file_piece(
        &self,
        tenant_id: &str,
        file_id: &str,
        number: i64,
    ) -> Result<Option<Vec<u8>>>;
    async fn delete_file(&self, tenant_id: &str, id: &str) -> Result<bool>;
}
