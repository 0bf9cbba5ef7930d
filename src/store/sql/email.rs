//! Queries: e-mail.

macro_rules! impl_email {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::EmailStore for $store {
            async fn claim_email_domain(
                &self,
                domain: &str,
                tenant_id: &str,
                now: i64,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "INSERT INTO email_domains (domain, tenant_id, created_at) \
                     VALUES ($1, $2, $3) ON CONFLICT (domain) DO UPDATE \
                     SET tenant_id = excluded.tenant_id \
                     WHERE email_domains.tenant_id = excluded.tenant_id",
                )
                .bind(domain)
                .bind(tenant_id)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query("DELETE FROM email_domains WHERE tenant_id = $1 AND domain <> $2")
                    .bind(tenant_id)
                    .bind(domain)
                    .execute(&mut *tx)
                    .await?;
                tx.commit().await?;
                Ok(true)
            }

            async fn release_email_domains(&self, tenant_id: &str) -> Result<()> {
                sqlx::query("DELETE FROM email_domains WHERE tenant_id = $1")
                    .bind(tenant_id)
                    .execute(&self.write)
                    .await?;
                Ok(())
            }

            async fn tenant_of_email_domain(&self, domain: &str) -> Result<Option<String>> {
                Ok(
                    sqlx::query_scalar("SELECT tenant_id FROM email_domains WHERE domain = $1")
                        .bind(domain)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn put_email_content(
                &self,
                tenant_id: &str,
                id: &str,
                content: &[u8],
                now: i64,
            ) -> Result<()> {
                const PIECE: usize = 1024 * 1024;
                let mut tx = self.write.begin().await?;
                for (number, piece) in content.chunks(PIECE).enumerate() {
                    // What is kept again is wanted for as long again.
                    sqlx::query(
                        "INSERT INTO email_pieces (tenant_id, id, number, content, created_at) \
                         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant_id, id, number) \
                         DO UPDATE SET created_at = excluded.created_at",
                    )
                    .bind(tenant_id)
                    .bind(id)
                    .bind(number as i64)
                    .bind(piece)
                    .bind(now)
                    .execute(&mut *tx)
                    .await?;
                }
                tx.commit().await?;
                Ok(())
            }

            async fn email_content(&self, tenant_id: &str, id: &str) -> Result<Option<Vec<u8>>> {
                let pieces: Vec<Vec<u8>> = sqlx::query_scalar(
                    "SELECT content FROM email_pieces WHERE tenant_id = $1 AND id = $2 \
                     ORDER BY number",
                )
                .bind(tenant_id)
                .bind(id)
                .fetch_all(&self.read)
                .await?;
                Ok((!pieces.is_empty()).then(|| pieces.concat()))
            }

            async fn note_email(&self, message: &EmailMessageRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO email_messages (tenant_id, id, chat, sender, people, \
                     outbound_id, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
                     ON CONFLICT DO NOTHING",
                )
                .bind(&message.tenant_id)
                .bind(&message.id)
                .bind(&message.chat)
                .bind(&message.sender)
                .bind(&message.people)
                .bind(&message.outbound_id)
                .bind(message.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn email_message(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<EmailMessageRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM email_messages WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn emails_of(
                &self,
                tenant_id: &str,
                sender: &str,
                since: i64,
                until: i64,
                limit: i64,
            ) -> Result<i64> {
                Ok(sqlx::query_scalar(
                    "SELECT COUNT(*) FROM (SELECT 1 FROM email_messages WHERE tenant_id = $1 \
                     AND sender = $2 AND created_at BETWEEN $3 AND $4 LIMIT $5) AS recent",
                )
                .bind(tenant_id)
                .bind(sender)
                .bind(since)
                .bind(until)
                .bind(limit)
                .fetch_one(&self.read)
                .await?)
            }

            async fn put_suppression(&self, suppression: &SuppressionRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO email_suppressions (tenant_id, address, reason, detail, \
                     created_at) VALUES ($1, $2, $3, $4, $5) \
                     ON CONFLICT (tenant_id, address) DO UPDATE SET reason = excluded.reason, \
                     detail = excluded.detail",
                )
                .bind(&suppression.tenant_id)
                .bind(&suppression.address)
                .bind(&suppression.reason)
                .bind(&suppression.detail)
                .bind(suppression.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn suppression(
                &self,
                tenant_id: &str,
                address: &str,
            ) -> Result<Option<SuppressionRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM email_suppressions WHERE tenant_id = $1 AND address = $2",
                )
                .bind(tenant_id)
                .bind(address)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn suppressions(
                &self,
                tenant_id: &str,
                after: Option<&str>,
                limit: i64,
            ) -> Result<Rows<SuppressionRow>> {
                let rows: Vec<SuppressionRow> = sqlx::query_as(
                    "SELECT * FROM email_suppressions WHERE tenant_id = $1 AND address > $2 \
                     ORDER BY address LIMIT $3",
                )
                .bind(tenant_id)
                .bind(after.unwrap_or_default())
                .bind(limit)
                .fetch_all(&self.read)
                .await?;
                Ok(rows.into())
            }

            async fn delete_suppression(&self, tenant_id: &str, address: &str) -> Result<bool> {
                let done = sqlx::query(
                    "DELETE FROM email_suppressions WHERE tenant_id = $1 AND address = $2",
                )
                .bind(tenant_id)
                .bind(address)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }
        }
    };
}
pub(in crate::store) use impl_email;
