//! Queries: approvals.

macro_rules! impl_approvals {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ApprovalStore for $store {
            async fn insert_approval(&self, approval: &ApprovalRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO approvals (id, tenant_id, run_id, smith_id, tool_call_id, tool, \
                     args, elicitation, status, actor, reason, created_at, resolved_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
                )
                .bind(&approval.id)
                .bind(&approval.tenant_id)
                .bind(&approval.run_id)
                .bind(&approval.smith_id)
                .bind(&approval.tool_call_id)
                .bind(&approval.tool)
                .bind(&approval.args)
                .bind(&approval.elicitation)
                .bind(&approval.status)
                .bind(&approval.actor)
                .bind(&approval.reason)
                .bind(approval.created_at)
                .bind(approval.resolved_at)
                .execute(&self.write)
                .await?;
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
            ) -> Result<Vec<ApprovalRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM approvals WHERE tenant_id = ",
                    tenant_id,
                    [(" AND smith_id = ", smith_id), (" AND status = ", status)],
                    before,
                    limit
                ))
            }
        }
    };
}

pub(in crate::store) use impl_approvals;
