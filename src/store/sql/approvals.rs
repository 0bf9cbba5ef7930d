//! Queries: approvals.

/// Writes a new approval.
macro_rules! add_approval {
    ($tx:expr, $approval:expr) => {
        sqlx::query(
            "INSERT INTO approvals (id, tenant_id, run_id, smith_id, tool_call_id, tool, args, \
             elicitation, status, actor, reason, created_at, resolved_at, answer, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(&$approval.id)
        .bind(&$approval.tenant_id)
        .bind(&$approval.run_id)
        .bind(&$approval.smith_id)
        .bind(&$approval.tool_call_id)
        .bind(&$approval.tool)
        .bind(&$approval.args)
        .bind(&$approval.elicitation)
        .bind($approval.status)
        .bind(&$approval.actor)
        .bind(&$approval.reason)
        .bind($approval.created_at)
        .bind($approval.resolved_at)
        .bind(&$approval.answer)
        .bind($approval.expires_at)
        .execute($tx)
        .await?
    };
}

macro_rules! impl_approvals {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ApprovalStore for $store {
            async fn insert_approval(&self, approval: &ApprovalRow) -> Result<()> {
                let mut connection = self.write.acquire().await?;
                $crate::store::sql::approvals::add_approval!(&mut *connection, approval);
                Ok(())
            }

            async fn approval(&self, tenant_id: &str, id: &str) -> Result<Option<ApprovalRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM approvals WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn approvals(
                &self,
                tenant_id: &str,
                smith_id: Option<&str>,
                status: Option<&str>,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<ApprovalRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM approvals WHERE tenant_id = ",
                    tenant_id,
                    [(" AND smith_id = ", smith_id), (" AND status = ", status)],
                    before,
                    limit,
 within &["args", "elicitation", "answer", "reason", "actor"]
))
            }

            async fn run_approvals(
                &self,
                tenant_id: &str,
                run_id: &str,
            ) -> Result<Vec<ApprovalRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM approvals WHERE tenant_id = $1 AND run_id = $2 ORDER BY id",
                )
                .bind(tenant_id)
                .bind(run_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn decide_approvals(&self, decisions: &[Decision]) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                for decision in decisions {
                    let done = sqlx::query(
                        "UPDATE approvals SET status = $3, actor = $4, reason = $5, answer = $6, \
                         resolved_at = $7 WHERE tenant_id = $1 AND id = $2 AND status = 'pending'",
                    )
                    .bind(&decision.tenant_id)
                    .bind(&decision.approval_id)
                    .bind(decision.status)
                    .bind(&decision.actor)
                    .bind(&decision.reason)
                    .bind(&decision.answer)
                    .bind(decision.at)
                    .execute(&mut *tx)
                    .await?;
                    if done.rows_affected() == 0 {
                        return Ok(false);
                    }
                }
                let events: Vec<&$crate::store::EventRow> = decisions.iter().map(|d| &d.event).collect();
                $crate::store::sql::events::add_events!(tx, events);
                tx.commit().await?;
                Ok(true)
            }

            async fn expired_approvals(&self, now: i64, limit: i64) -> Result<Vec<ApprovalRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM approvals WHERE status = 'pending' AND expires_at < $1 \
                     ORDER BY expires_at LIMIT $2",
                )
                .bind(now)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }
        }
    };
}

pub(in crate::store) use {add_approval, impl_approvals};
