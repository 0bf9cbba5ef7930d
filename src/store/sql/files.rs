//! Queries: files and their pieces.

macro_rules! impl_files {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::FileStore for $store {
            async fn begin_file(&self, file: &FileRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO files (id, tenant_id, smith_id, filename, purpose, media_type, \
                     bytes, complete, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                )
                .bind(&file.id)
                .bind(&file.tenant_id)
                .bind(&file.smith_id)
                .bind(&file.filename)
                .bind(&file.purpose)
                .bind(&file.media_type)
                .bind(file.bytes)
                .bind(false)
                .bind(file.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn add_file_piece(
                &self,
                tenant_id: &str,
                file_id: &str,
                number: i64,
                content: &[u8],
            ) -> Result<()> {
                sqlx::query(
                    "INSERT INTO file_pieces (tenant_id, file_id, number, content) \
                     VALUES ($1, $2, $3, $4)",
                )
                .bind(tenant_id)
                .bind(file_id)
                .bind(number)
                .bind(content)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn complete_file(&self, file: &FileRow) -> Result<()> {
                sqlx::query(
                    "UPDATE files SET filename = $3, purpose = $4, media_type = $5, bytes = $6, \
                     complete = $7 WHERE tenant_id = $1 AND id = $2",
                )
                .bind(&file.tenant_id)
                .bind(&file.id)
                .bind(&file.filename)
                .bind(&file.purpose)
                .bind(&file.media_type)
                .bind(file.bytes)
                .bind(true)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn file(&self, tenant_id: &str, id: &str) -> Result<Option<FileRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM files WHERE tenant_id = $1 AND id = $2 AND complete",
                )
                .bind(tenant_id)
                .bind(id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn files(
                &self,
                tenant_id: &str,
                filter: &FileFilter,
                slice: &Slice,
            ) -> Result<Vec<FileRow>> {
                Ok($crate::store::sql::select_slice!(
                    &self.read,
                    "SELECT * FROM files WHERE complete AND tenant_id = ",
                    tenant_id,
                    [
                        (" AND smith_id = ", &filter.smith_id),
                        (" AND purpose = ", &filter.purpose),
                    ],
                    slice
                ))
            }

            async fn file_piece(
                &self,
                tenant_id: &str,
                file_id: &str,
                number: i64,
            ) -> Result<Option<Vec<u8>>> {
                Ok(sqlx::query_scalar(
                    "SELECT content FROM file_pieces \
                     WHERE tenant_id = $1 AND file_id = $2 AND number = $3",
                )
                .bind(tenant_id)
                .bind(file_id)
                .bind(number)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn delete_file(&self, tenant_id: &str, id: &str) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                // It is found no more where it was attached.
                sqlx::query(
                    "UPDATE vector_stores SET revision = revision + 1 WHERE tenant_id = $1 \
                     AND id IN (SELECT vector_store_id FROM vector_store_files WHERE id = $2)",
                )
                .bind(tenant_id)
                .bind(id)
                .execute(&mut *tx)
                .await?;
                let done = sqlx::query("DELETE FROM files WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .execute(&mut *tx)
                    .await?;
                tx.commit().await?;
                Ok(done.rows_affected() > 0)
            }
        }
    };
}

pub(in crate::store) use impl_files;
