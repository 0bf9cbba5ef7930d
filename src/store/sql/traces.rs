//! Queries: traces and their spans.

/// Adds traces and spans to a script; what is there already is kept.
macro_rules! write_traces {
    ($tx:expr, $script:expr, $traces:expr, $spans:expr) => {{
        $crate::store::sql::script::insert_many!(
            $tx,
            $script,
            $traces,
            "traces (id, tenant_id, run_id, smith_id, agent_id, name, status, started_at, \
             ended_at, model, input, output, cost, created_at, root_kind, attributes)",
            " ON CONFLICT DO NOTHING",
            |values, trace| {
                values
                    .push_bind(&trace.id)
                    .push_bind(&trace.tenant_id)
                    .push_bind(&trace.run_id)
                    .push_bind(&trace.smith_id)
                    .push_bind(&trace.agent_id)
                    .push_bind(&trace.name)
                    .push_bind(&trace.status)
                    .push_bind(trace.started_at)
                    .push_bind(trace.ended_at)
                    .push_bind(&trace.model)
                    .push_bind(trace.input)
                    .push_bind(trace.output)
                    .push_bind(trace.cost)
                    .push_bind(trace.created_at)
                    .push_bind(&trace.root_kind)
                    .push_bind(&trace.attributes);
            }
        );
        $crate::store::sql::script::insert_many!(
            $tx,
            $script,
            $spans,
            "spans (tenant_id, trace_id, id, parent_id, kind, name, status, started_at, \
             ended_at, model, input, output, cost, attributes)",
            " ON CONFLICT DO NOTHING",
            |values, span| {
                values
                    .push_bind(&span.tenant_id)
                    .push_bind(&span.trace_id)
                    .push_bind(&span.id)
                    .push_bind(&span.parent_id)
                    .push_bind(&span.kind)
                    .push_bind(&span.name)
                    .push_bind(&span.status)
                    .push_bind(span.started_at)
                    .push_bind(span.ended_at)
                    .push_bind(&span.model)
                    .push_bind(span.input)
                    .push_bind(span.output)
                    .push_bind(span.cost)
                    .push_bind(&span.attributes);
            }
        );
    }};
}

pub(in crate::store) use write_traces;

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
                let floor = $crate::store::sql::since_floor!(
                    &self.read,
                    "traces",
                    $crate::ids::Kind::Trace,
                    tenant_id,
                    filter.since
                );
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM traces WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND run_id = ", &filter.run_id),
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

            async fn trace_size(&self, tenant_id: &str, trace_id: &str) -> Result<(i64, i64)> {
                Ok(sqlx::query_as(
                    "SELECT COUNT(*), CAST(COALESCE(SUM(OCTET_LENGTH(attributes)), 0) AS BIGINT) \
                     FROM spans WHERE tenant_id = $1 AND trace_id = $2",
                )
                .bind(tenant_id)
                .bind(trace_id)
                .fetch_one(&self.read)
                .await?)
            }

            async fn ingest_traces(&self, traces: &[TraceRecord]) -> Result<()> {
                let mut tx = self.write.begin().await?;
                let rows: Vec<_> = traces.iter().map(|record| &record.trace).collect();
                let spans: Vec<_> = traces.iter().flat_map(|record| &record.spans).collect();
                let mut script = $crate::store::sql::script::Script::default();
                $crate::store::sql::traces::write_traces!(tx, script, rows, spans);
                $crate::store::sql::script::send!(tx, script, true);
                tx.commit().await?;
                Ok(())
            }
        }
    };
}

pub(in crate::store) use impl_traces;
