//! Queries: traces and their spans.

/// Writes a trace and its spans into a transaction; what is there already is kept.
macro_rules! add_trace {
    ($tx:expr, $record:expr) => {{
        let trace = &$record.trace;
        sqlx::query(
            "INSERT INTO traces (id, tenant_id, run_id, smith_id, agent_id, name, status, \
             started_at, ended_at, model, input, output, cost, created_at) VALUES ($1, $2, $3, \
             $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING",
        )
        .bind(&trace.id)
        .bind(&trace.tenant_id)
        .bind(&trace.run_id)
        .bind(&trace.smith_id)
        .bind(&trace.agent_id)
        .bind(&trace.name)
        .bind(&trace.status)
        .bind(trace.started_at)
        .bind(trace.ended_at)
        .bind(&trace.model)
        .bind(trace.input)
        .bind(trace.output)
        .bind(trace.cost)
        .bind(trace.created_at)
        .execute(&mut *$tx)
        .await?;
        for span in &$record.spans {
            sqlx::query(
                "INSERT INTO spans (tenant_id, trace_id, id, parent_id, kind, name, status, \
                 started_at, ended_at, model, input, output, cost, attributes) VALUES ($1, $2, \
                 $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING",
            )
            .bind(&span.tenant_id)
            .bind(&span.trace_id)
            .bind(&span.id)
            .bind(&span.parent_id)
            .bind(&span.kind)
            .bind(&span.name)
            .bind(&span.status)
            .bind(span.started_at)
            .bind(span.ended_at)
            .bind(&span.model)
            .bind(span.input)
            .bind(span.output)
            .bind(span.cost)
            .bind(&span.attributes)
            .execute(&mut *$tx)
            .await?;
        }
    }};
}

pub(in crate::store) use add_trace;

macro_rules! impl_traces {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::TraceStore for $store {
            async fn trace(&self, tenant_id: &str, id: &str) -> Result<Option<TraceRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM traces WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn traces(
                &self,
                tenant_id: &str,
                filter: &TraceFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<TraceRow>> {
                let floor =
                    $crate::store::records::since_floor($crate::ids::Kind::Trace, filter.since);
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM traces WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND smith_id = ", &filter.smith_id),
                        (" AND agent_id = ", &filter.agent_id),
                        (" AND status = ", &filter.status),
                        (" AND id >= ", &floor),
                        (" AND created_at >= ", &filter.since),
                    ],
                    before,
                    limit
                ))
            }

            async fn spans(&self, tenant_id: &str, trace_id: &str) -> Result<Vec<SpanRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM spans WHERE tenant_id = $1 AND trace_id = $2 \
                     ORDER BY started_at, id LIMIT 10000",
                )
                .bind(tenant_id)
                .bind(trace_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn ingest_traces(&self, traces: &[TraceRecord]) -> Result<()> {
                let mut tx = self.write.begin().await?;
                for record in traces {
                    $crate::store::sql::traces::add_trace!(tx, record);
                }
                tx.commit().await?;
                Ok(())
            }
        }
    };
}

pub(in crate::store) use impl_traces;
