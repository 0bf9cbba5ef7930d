//! Queries: conversations.

macro_rules! impl_conversations {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ConversationStore for $store {
            async fn insert_conversation(&self, conversation: &ConversationRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO conversations (id, tenant_id, smith_id, title, metadata, turns, \
                     created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                )
                .bind(&conversation.id)
                .bind(&conversation.tenant_id)
                .bind(&conversation.smith_id)
                .bind(&conversation.title)
                .bind(&conversation.metadata)
                .bind(&conversation.turns)
                .bind(conversation.created_at)
                .bind(conversation.updated_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn conversation(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<ConversationRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM conversations WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn conversations(
                &self,
                tenant_id: &str,
                smith_id: &str,
                slice: &Slice,
            ) -> Result<Rows<ConversationRow>> {
                Ok($crate::store::sql::select_slice!(
                    &self.read,
                    "SELECT * FROM conversations WHERE tenant_id = ",
                    tenant_id,
                    [(" AND smith_id = ", Some(smith_id))],
                    slice,
 within &["turns", "metadata", "title"]
))
            }

            async fn update_conversation(&self, conversation: &ConversationRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE conversations SET title = $3, metadata = $4, updated_at = $5 \
                     WHERE tenant_id = $1 AND id = $2",
                )
                .bind(&conversation.tenant_id)
                .bind(&conversation.id)
                .bind(&conversation.title)
                .bind(&conversation.metadata)
                .bind(conversation.updated_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn title_conversation(
                &self,
                tenant_id: &str,
                id: &str,
                title: &str,
                now: i64,
            ) -> Result<()> {
                sqlx::query(
                    "UPDATE conversations SET title = COALESCE(title, NULLIF($3, '')), updated_at = $4 \
                     WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(title)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn delete_conversation(&self, tenant_id: &str, id: &str) -> Result<bool> {
                let done =
                    sqlx::query("DELETE FROM conversations WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .execute(&self.write)
                        .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn thread_runs(
                &self,
                tenant_id: &str,
                smith_id: &str,
                thread_id: &str,
                slice: &Slice,
            ) -> Result<Rows<RunRow>> {
                Ok($crate::store::sql::select_slice!(
                    &self.read,
                    "SELECT * FROM runs WHERE status = 'completed' AND tenant_id = ",
                    tenant_id,
                    [
                        (" AND smith_id = ", Some(smith_id)),
                        (" AND thread_id = ", Some(thread_id)),
                    ],
                    slice,
 within $crate::store::sql::runs::HEAVY
))
            }
        }
    };
}

pub(in crate::store) use impl_conversations;
