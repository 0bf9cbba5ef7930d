//! Queries: vector stores, their files and chunks.

macro_rules! put_vector_files {
    ($tx:expr, $files:expr) => {
        for file in $files {
            // Its chunks are those of the last time it was taken in.
            sqlx::query(
                "DELETE FROM vector_store_files \
                 WHERE tenant_id = $1 AND vector_store_id = $2 AND id = $3",
            )
            .bind(&file.tenant_id)
            .bind(&file.vector_store_id)
            .bind(&file.id)
            .execute(&mut *$tx)
            .await?;
            sqlx::query(
                "INSERT INTO vector_store_files (id, tenant_id, vector_store_id, batch_id, \
                 status, usage_bytes, attributes, chunk_tokens, overlap_tokens, \
                 attempts, due_at, created_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            )
            .bind(&file.id)
            .bind(&file.tenant_id)
            .bind(&file.vector_store_id)
            .bind(&file.batch_id)
            .bind(file.status)
            .bind(file.usage_bytes)
            .bind(&file.attributes)
            .bind(file.chunk_tokens)
            .bind(file.overlap_tokens)
            .bind(file.attempts)
            .bind(file.due_at)
            .bind(file.created_at)
            .execute(&mut *$tx)
            .await?;
        }
    };
}

/// Says that what a store holds has changed.
macro_rules! revise_vector_store {
    ($tx:expr, $tenant_id:expr, $store_id:expr) => {
        sqlx::query(
            "UPDATE vector_stores SET revision = revision + 1 WHERE tenant_id = $1 AND id = $2",
        )
        .bind($tenant_id)
        .bind($store_id)
        .execute(&mut *$tx)
        .await?
    };
}

macro_rules! impl_vector_stores {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::VectorStoreStore for $store {
            async fn insert_vector_store(
                &self,
                store: &VectorStoreRow,
                files: &[VectorFileRow],
            ) -> Result<()> {
                let mut tx = self.write.begin().await?;
                sqlx::query(
                    "INSERT INTO vector_stores (id, tenant_id, smith_id, name, description, \
                     metadata, embedding_model, revision, last_active_at, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                )
                .bind(&store.id)
                .bind(&store.tenant_id)
                .bind(&store.smith_id)
                .bind(&store.name)
                .bind(&store.description)
                .bind(&store.metadata)
                .bind(&store.embedding_model)
                .bind(store.revision)
                .bind(store.last_active_at)
                .bind(store.created_at)
                .execute(&mut *tx)
                .await?;
                $crate::store::sql::vector_stores::put_vector_files!(tx, files);
                tx.commit().await?;
                Ok(())
            }

            async fn vector_store(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<VectorStoreRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM vector_stores WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn vector_stores(
                &self,
                tenant_id: &str,
                smith_id: Option<&str>,
                slice: &Slice,
            ) -> Result<Rows<VectorStoreRow>> {
                Ok($crate::store::sql::select_slice!(
                    &self.read,
                    "SELECT * FROM vector_stores WHERE tenant_id = ",
                    tenant_id,
                    [(" AND smith_id = ", smith_id)],
                    slice,
                    within & ["description", "metadata"]
                ))
            }

            async fn update_vector_store(&self, store: &VectorStoreRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE vector_stores SET name = $3, description = $4, metadata = $5, \
                     last_active_at = $6 WHERE tenant_id = $1 AND id = $2",
                )
                .bind(&store.tenant_id)
                .bind(&store.id)
                .bind(&store.name)
                .bind(&store.description)
                .bind(&store.metadata)
                .bind(store.last_active_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn delete_vector_store(&self, tenant_id: &str, id: &str) -> Result<bool> {
                let done =
                    sqlx::query("DELETE FROM vector_stores WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .execute(&self.write)
                        .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn touch_vector_store(&self, tenant_id: &str, id: &str, now: i64) -> Result<()> {
                sqlx::query(
                    "UPDATE vector_stores SET last_active_at = $3 \
                     WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn attach_vector_files(
                &self,
                batch: Option<&VectorBatchRow>,
                files: &[VectorFileRow],
            ) -> Result<()> {
                let mut tx = self.write.begin().await?;
                if let Some(batch) = batch {
                    sqlx::query(
                        "INSERT INTO vector_store_batches \
                         (id, tenant_id, vector_store_id, cancelled, created_at) \
                         VALUES ($1, $2, $3, $4, $5)",
                    )
                    .bind(&batch.id)
                    .bind(&batch.tenant_id)
                    .bind(&batch.vector_store_id)
                    .bind(batch.cancelled)
                    .bind(batch.created_at)
                    .execute(&mut *tx)
                    .await?;
                }
                if let Some(first) = files.first() {
                    // Locks the store, so that nobody else attaches the same files meanwhile.
                    $crate::store::sql::vector_stores::revise_vector_store!(
                        tx,
                        &first.tenant_id,
                        &first.vector_store_id
                    );
                }
                $crate::store::sql::vector_stores::put_vector_files!(tx, files);
                tx.commit().await?;
                Ok(())
            }

            async fn vector_batch(
                &self,
                tenant_id: &str,
                store_id: &str,
                id: &str,
            ) -> Result<Option<VectorBatchRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM vector_store_batches \
                     WHERE tenant_id = $1 AND vector_store_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn cancel_vector_batch(
                &self,
                tenant_id: &str,
                store_id: &str,
                id: &str,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                sqlx::query(
                    "UPDATE vector_store_files SET status = 'cancelled' WHERE tenant_id = $1 \
                     AND vector_store_id = $2 AND batch_id = $3 AND status = 'in_progress'",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(id)
                .execute(&mut *tx)
                .await?;
                let done = sqlx::query(
                    "UPDATE vector_store_batches SET cancelled = $4 \
                     WHERE tenant_id = $1 AND vector_store_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(id)
                .bind(true)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(done.rows_affected() > 0)
            }

            async fn vector_file(
                &self,
                tenant_id: &str,
                store_id: &str,
                file_id: &str,
            ) -> Result<Option<VectorFileRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM vector_store_files \
                     WHERE tenant_id = $1 AND vector_store_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(file_id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn vector_files(
                &self,
                tenant_id: &str,
                store_id: &str,
                filter: &VectorFileFilter,
                slice: &Slice,
            ) -> Result<Vec<VectorFileRow>> {
                Ok($crate::store::sql::select_slice!(
                    &self.read,
                    "SELECT * FROM vector_store_files WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND vector_store_id = ", Some(store_id)),
                        (" AND batch_id = ", &filter.batch_id),
                        (" AND status = ", &filter.status),
                    ],
                    slice
                ))
            }

            async fn vector_file_counts(
                &self,
                tenant_id: &str,
                store_id: &str,
                batch_id: Option<&str>,
            ) -> Result<VectorFileCounts> {
                let rows: Vec<(VectorFileStatus, i64, i64)> = sqlx::query_as(
                    "SELECT status, COUNT(*), CAST(SUM(usage_bytes) AS BIGINT) \
                     FROM vector_store_files WHERE tenant_id = $1 AND vector_store_id = $2 \
                     AND ($3 IS NULL OR batch_id = $3) GROUP BY status",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(batch_id)
                .fetch_all(&self.read)
                .await?;
                let mut counts = VectorFileCounts::default();
                for (status, files, bytes) in rows {
                    match status {
                        VectorFileStatus::InProgress => counts.in_progress = files,
                        VectorFileStatus::Completed => counts.completed = files,
                        VectorFileStatus::Cancelled => counts.cancelled = files,
                        VectorFileStatus::Failed => counts.failed = files,
                    }
                    counts.usage_bytes += bytes;
                }
                Ok(counts)
            }

            async fn set_vector_attributes(
                &self,
                tenant_id: &str,
                store_id: &str,
                file_id: &str,
                attributes: &str,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                $crate::store::sql::vector_stores::revise_vector_store!(tx, tenant_id, store_id);
                let done = sqlx::query(
                    "UPDATE vector_store_files SET attributes = $4 \
                     WHERE tenant_id = $1 AND vector_store_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(file_id)
                .bind(attributes)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(done.rows_affected() > 0)
            }

            async fn detach_vector_file(
                &self,
                tenant_id: &str,
                store_id: &str,
                file_id: &str,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                $crate::store::sql::vector_stores::revise_vector_store!(tx, tenant_id, store_id);
                let done = sqlx::query(
                    "DELETE FROM vector_store_files \
                     WHERE tenant_id = $1 AND vector_store_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(file_id)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(done.rows_affected() > 0)
            }

            async fn vector_chunks_of(
                &self,
                tenant_id: &str,
                store_id: &str,
                file_id: &str,
            ) -> Result<Vec<VectorChunkRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM vector_chunks WHERE tenant_id = $1 \
                     AND vector_store_id = $2 AND file_id = $3 ORDER BY number",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(file_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn vector_chunks(
                &self,
                tenant_id: &str,
                store_id: &str,
                after: Option<(&str, i64)>,
                limit: i64,
            ) -> Result<Vec<VectorChunkRow>> {
                let (file_id, number) = after.unwrap_or(("", -1));
                Ok(sqlx::query_as(
                    "SELECT * FROM vector_chunks WHERE tenant_id = $1 AND vector_store_id = $2 \
                     AND (file_id, number) > ($3, $4) ORDER BY file_id, number LIMIT $5",
                )
                .bind(tenant_id)
                .bind(store_id)
                .bind(file_id)
                .bind(number)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn vector_found(
                &self,
                tenant_id: &str,
                store_id: &str,
            ) -> Result<Vec<VectorFound>> {
                Ok(sqlx::query_as(
                    "SELECT v.id, f.filename, v.attributes FROM vector_store_files v \
                     JOIN files f ON f.id = v.id WHERE v.tenant_id = $1 \
                     AND v.vector_store_id = $2 AND v.status = 'completed' ORDER BY v.id",
                )
                .bind(tenant_id)
                .bind(store_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn due_vector_files(
                &self,
                now: i64,
                limit: i64,
            ) -> Result<(Vec<String>, Option<i64>)> {
                let tenants = sqlx::query_scalar(
                    "SELECT tenant_id FROM vector_store_files WHERE status = 'in_progress' \
                     AND due_at <= $1 GROUP BY tenant_id ORDER BY MIN(due_at) LIMIT $2",
                )
                .bind(now)
                .bind(limit)
                .fetch_all(&self.read)
                .await?;
                let next = sqlx::query_scalar(
                    "SELECT due_at FROM vector_store_files WHERE status = 'in_progress' \
                     AND due_at > $1 ORDER BY due_at LIMIT 1",
                )
                .bind(now)
                .fetch_optional(&self.read)
                .await?;
                Ok((tenants, next))
            }

            async fn claim_vector_files(
                &self,
                tenant_id: &str,
                now: i64,
                hold_until: i64,
                limit: i64,
            ) -> Result<Vec<VectorFileRow>> {
                // The second condition holds against another node that claims the same rows.
                Ok(sqlx::query_as(
                    "UPDATE vector_store_files SET due_at = $3, attempts = attempts + 1, \
                     takings = takings + 1 \
                     WHERE (vector_store_id, id) IN (SELECT vector_store_id, id \
                     FROM vector_store_files WHERE tenant_id = $1 AND status = 'in_progress' \
                     AND due_at <= $2 ORDER BY due_at LIMIT $4) \
                     AND status = 'in_progress' AND due_at <= $2 RETURNING *",
                )
                .bind(tenant_id)
                .bind(now)
                .bind(hold_until)
                .bind(limit)
                .fetch_all(&self.write)
                .await?)
            }

            async fn renew_vector_files(
                &self,
                held: &[(&VectorFileRow, i64)],
                until: i64,
            ) -> Result<Vec<bool>> {
                let mut tx = self.write.begin().await?;
                let mut still = Vec::with_capacity(held.len());
                for (file, held_until) in held {
                    let done = sqlx::query(
                        "UPDATE vector_store_files SET due_at = $5 WHERE tenant_id = $1 \
                         AND vector_store_id = $2 AND id = $3 AND status = 'in_progress' \
                         AND due_at = $4",
                    )
                    .bind(&file.tenant_id)
                    .bind(&file.vector_store_id)
                    .bind(&file.id)
                    .bind(held_until)
                    .bind(until)
                    .execute(&mut *tx)
                    .await?;
                    still.push(done.rows_affected() > 0);
                }
                tx.commit().await?;
                Ok(still)
            }

            async fn release_vector_file(
                &self,
                file: &VectorFileRow,
                held_until: i64,
                now: i64,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE vector_store_files SET due_at = $5, takings = 0, \
                     attempts = attempts - 1 WHERE tenant_id = $1 AND vector_store_id = $2 \
                     AND id = $3 AND status = 'in_progress' AND due_at = $4",
                )
                .bind(&file.tenant_id)
                .bind(&file.vector_store_id)
                .bind(&file.id)
                .bind(held_until)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn uncount_vector_file(&self, file: &VectorFileRow) -> Result<()> {
                sqlx::query(
                    "UPDATE vector_store_files SET takings = takings - 1 WHERE tenant_id = $1 \
                     AND vector_store_id = $2 AND id = $3 AND status = 'in_progress' \
                     AND takings > 1",
                )
                .bind(&file.tenant_id)
                .bind(&file.vector_store_id)
                .bind(&file.id)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn put_vector_chunks(
                &self,
                file: &VectorFileRow,
                held_until: i64,
                chunks: &[VectorChunkRow],
                are_first: bool,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                // Holds the row, so that nobody changes whose it is meanwhile.
                let held = sqlx::query(
                    "UPDATE vector_store_files SET due_at = $4 WHERE tenant_id = $1 \
                     AND vector_store_id = $2 AND id = $3 AND status = 'in_progress' \
                     AND due_at = $4",
                )
                .bind(&file.tenant_id)
                .bind(&file.vector_store_id)
                .bind(&file.id)
                .bind(held_until)
                .execute(&mut *tx)
                .await?;
                if held.rows_affected() == 0 {
                    return Ok(false);
                }
                if are_first {
                    sqlx::query(
                        "DELETE FROM vector_chunks WHERE tenant_id = $1 \
                         AND vector_store_id = $2 AND file_id = $3",
                    )
                    .bind(&file.tenant_id)
                    .bind(&file.vector_store_id)
                    .bind(&file.id)
                    .execute(&mut *tx)
                    .await?;
                }
                for chunk in chunks {
                    sqlx::query(
                        "INSERT INTO vector_chunks (tenant_id, vector_store_id, file_id, \
                         number, content, embedding) VALUES ($1, $2, $3, $4, $5, $6)",
                    )
                    .bind(&file.tenant_id)
                    .bind(&file.vector_store_id)
                    .bind(&file.id)
                    .bind(chunk.number)
                    .bind(&chunk.content)
                    .bind(&chunk.embedding)
                    .execute(&mut *tx)
                    .await?;
                }
                tx.commit().await?;
                Ok(true)
            }

            async fn release_all_vector_files(&self, now: i64) -> Result<()> {
                sqlx::query(
                    "UPDATE vector_store_files SET due_at = $1 \
                     WHERE status = 'in_progress' AND takings > 0 AND due_at > $1",
                )
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn finish_vector_file(
                &self,
                file: &VectorFileRow,
                held_until: i64,
                outcome: VectorOutcome<'_>,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let (status, code, message, usage, due_at) = match &outcome {
                    VectorOutcome::Completed { usage_bytes } => {
                        let status = VectorFileStatus::Completed;
                        (status, None, None, *usage_bytes, held_until)
                    }
                    VectorOutcome::Failed { code, message } => {
                        let status = VectorFileStatus::Failed;
                        (status, Some(*code), Some(*message), 0, held_until)
                    }
                    VectorOutcome::Later(at) => (VectorFileStatus::InProgress, None, None, 0, *at),
                };
                // Whoever attached the file again, or holds it now, has the last word.
                let done = sqlx::query(
                    "UPDATE vector_store_files SET status = $5, error_code = $6, error = $7, \
                     usage_bytes = $8, due_at = $9, takings = 0 WHERE tenant_id = $1 \
                     AND vector_store_id = $2 AND id = $3 AND status = 'in_progress' \
                     AND due_at = $4",
                )
                .bind(&file.tenant_id)
                .bind(&file.vector_store_id)
                .bind(&file.id)
                .bind(held_until)
                .bind(status)
                .bind(code)
                .bind(message)
                .bind(usage)
                .bind(due_at)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                if let VectorOutcome::Completed { .. } = outcome {
                    $crate::store::sql::vector_stores::revise_vector_store!(
                        tx,
                        &file.tenant_id,
                        &file.vector_store_id
                    );
                }
                tx.commit().await?;
                Ok(true)
            }
        }
    };
}

pub(in crate::store) use {impl_vector_stores, put_vector_files, revise_vector_store};
