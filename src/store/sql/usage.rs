//! Queries: budgets, spending, usage groups and the ledger.

macro_rules! write_usage_events {
    ($tx:expr, $script:expr, $entries:expr) => {
        $crate::store::sql::script::insert_many!(
            $tx,
            $script,
            $entries,
            "usage_events (id, tenant_id, kind, run_id, smith_id, agent_id, customer_id, \
             provider, model, input, output, cache_read, cache_write, reasoning, cost, meter, \
             quantity, metadata, created_at)",
            " ON CONFLICT DO NOTHING",
            |values, entry| {
                values
                    .push_bind(&entry.id)
                    .push_bind(&entry.tenant_id)
                    .push_bind(&entry.kind)
                    .push_bind(&entry.run_id)
                    .push_bind(&entry.smith_id)
                    .push_bind(&entry.agent_id)
                    .push_bind(&entry.customer_id)
                    .push_bind(&entry.provider)
                    .push_bind(&entry.model)
                    .push_bind(entry.input)
                    .push_bind(entry.output)
                    .push_bind(entry.cache_read)
                    .push_bind(entry.cache_write)
                    .push_bind(entry.reasoning)
                    .push_bind(entry.cost)
                    .push_bind(&entry.meter)
                    .push_bind(entry.quantity)
                    .push_bind(&entry.metadata)
                    .push_bind(entry.created_at);
            }
        );
    };
}

pub(in crate::store) use write_usage_events;

macro_rules! impl_usage {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::UsageStore for $store {
            async fn insert_budget(&self, budget: &BudgetRow) -> Result<bool> {
                let done = sqlx::query(
                    "INSERT INTO budgets (id, tenant_id, scope, scope_id, amount, currency, \
                     action, told_period, told_percent, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
                )
                .bind(&budget.id)
                .bind(&budget.tenant_id)
                .bind(&budget.scope)
                .bind(&budget.scope_id)
                .bind(budget.amount)
                .bind(&budget.currency)
                .bind(&budget.action)
                .bind(&budget.told_period)
                .bind(budget.told_percent)
                .bind(budget.created_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn budget(&self, tenant_id: &str, id: &str) -> Result<Option<BudgetRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM budgets WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn budgets(
                &self,
                tenant_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<BudgetRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM budgets WHERE tenant_id = ",
                    tenant_id,
                    [],
                    before,
                    limit
                ))
            }

            async fn update_budget(&self, budget: &BudgetRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE budgets SET amount = $3, action = $4, told_period = $5, \
                     told_percent = $6 WHERE tenant_id = $1 AND id = $2",
                )
                .bind(&budget.tenant_id)
                .bind(&budget.id)
                .bind(budget.amount)
                .bind(&budget.action)
                .bind(&budget.told_period)
                .bind(budget.told_percent)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn delete_budget(&self, tenant_id: &str, id: &str) -> Result<bool> {
                let done = sqlx::query("DELETE FROM budgets WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .execute(&self.write)
                    .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn budget_spends(
                &self,
                tenant_id: &str,
                period: &str,
                scope_ids: &[&str],
            ) -> Result<Vec<BudgetSpend>> {
                let mut query = sqlx::QueryBuilder::new(
                    "SELECT b.*, COALESCE(s.cost, 0) AS spent FROM budgets b LEFT JOIN spend s \
                     ON s.tenant_id = b.tenant_id AND s.scope = b.scope \
                     AND s.scope_id = b.scope_id AND s.period = ",
                );
                query.push_bind(period.to_owned());
                query.push(" WHERE b.tenant_id = ");
                query.push_bind(tenant_id.to_owned());
                query.push(" AND b.scope_id IN (''");
                for id in scope_ids {
                    query.push(", ");
                    query.push_bind((*id).to_owned());
                }
                query.push(")");
                Ok(query.build_query_as().fetch_all(&self.read).await?)
            }

            async fn spent(
                &self,
                tenant_id: &str,
                period: &str,
                scope: &str,
                scope_id: &str,
            ) -> Result<i64> {
                let found: Option<i64> = sqlx::query_scalar(
                    "SELECT cost FROM spend WHERE tenant_id = $1 AND period = $2 AND scope = $3 \
                     AND scope_id = $4",
                )
                .bind(tenant_id)
                .bind(period)
                .bind(scope)
                .bind(scope_id)
                .fetch_optional(&self.read)
                .await?;
                Ok(found.unwrap_or(0))
            }

            async fn tell_budget(
                &self,
                budget: &BudgetRow,
                period: &str,
                percent: i64,
                event: &EventRow,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE budgets SET told_period = $3, told_percent = $4 \
                     WHERE tenant_id = $1 AND id = $2 AND (told_period IS NULL \
                     OR told_period <> $3 OR told_percent < $4)",
                )
                .bind(&budget.tenant_id)
                .bind(&budget.id)
                .bind(period)
                .bind(percent)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                $crate::store::sql::events::add_events!(tx, [event]);
                tx.commit().await?;
                Ok(true)
            }

            async fn usage_groups(
                &self,
                tenant_id: &str,
                filter: &UsageFilter,
                group: UsageGroup,
            ) -> Result<Vec<UsageGroupRow>> {
                let of_keys = group == UsageGroup::Key || filter.key_id.is_some();
                let column = match group {
                    UsageGroup::Model => "model",
                    UsageGroup::Key => "key_id",
                    _ if of_keys => "''",
                    UsageGroup::App => "agent_id",
                    UsageGroup::Smith => "smith_id",
                    // A smith without a customer is a party of its own.
                    UsageGroup::Customer => {
                        "CASE WHEN customer_id <> '' THEN customer_id \
                         WHEN smith_id <> '' THEN 'principal:' || smith_id ELSE '' END"
                    }
                };
                let mut query = sqlx::QueryBuilder::new("SELECT ");
                query.push(column);
                query.push(
                    " AS name, CAST(SUM(calls) AS BIGINT) AS calls, \
                     CAST(SUM(input) AS BIGINT) AS input, CAST(SUM(output) AS BIGINT) AS output, \
                     CAST(SUM(cache_read) AS BIGINT) AS cache_read, \
                     CAST(SUM(cache_write) AS BIGINT) AS cache_write, \
                     CAST(SUM(cost) AS BIGINT) AS cost FROM ",
                );
                query.push(match of_keys {
                    true => "usage_by_key",
                    false => "usage_by_smith",
                });
                query.push(" WHERE tenant_id = ");
                query.push_bind(tenant_id.to_owned());
                query.push(" AND day >= ");
                query.push_bind(filter.from.clone());
                query.push(" AND day <= ");
                query.push_bind(filter.to.clone());
                if let Some(key) = &filter.key_id {
                    query.push(" AND key_id = ");
                    query.push_bind(key.clone());
                }
                if let Some(smith) = &filter.smith_id {
                    query.push(" AND smith_id = ");
                    query.push_bind(smith.clone());
                }
                if let Some(customer) = &filter.customer_id {
                    query.push(" AND customer_id = ");
                    query.push_bind(customer.clone());
                }
                query.push(" GROUP BY 1 ORDER BY 7 DESC, 1 LIMIT 10000");
                Ok(query.build_query_as().fetch_all(&self.read).await?)
            }

            async fn meters(
                &self,
                tenant_id: &str,
                from: i64,
                to: i64,
                smith_id: Option<&str>,
                customer_id: Option<&str>,
            ) -> Result<Vec<MeterRow>> {
                let mut query = sqlx::QueryBuilder::new(
                    "SELECT meter, CASE WHEN customer_id IS NOT NULL THEN customer_id \
                     WHEN smith_id IS NOT NULL THEN 'principal:' || smith_id ELSE '' END \
                     AS customer, SUM(quantity) AS quantity, COUNT(*) AS events \
                     FROM usage_events WHERE meter IS NOT NULL AND tenant_id = ",
                );
                query.push_bind(tenant_id.to_owned());
                query.push(" AND created_at >= ");
                query.push_bind(from);
                query.push(" AND created_at < ");
                query.push_bind(to);
                if let Some(smith) = smith_id {
                    query.push(" AND smith_id = ");
                    query.push_bind(smith.to_owned());
                }
                if let Some(customer) = customer_id {
                    query.push(" AND customer_id = ");
                    query.push_bind(customer.to_owned());
                }
                query.push(" GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 10000");
                Ok(query.build_query_as().fetch_all(&self.read).await?)
            }

            async fn insert_usage_event(&self, event: &UsageEventRow) -> Result<()> {
                let mut tx = self.write.begin().await?;
                let mut script = $crate::store::sql::script::Script::default();
                $crate::store::sql::usage::write_usage_events!(tx, script, [event]);
                $crate::store::sql::script::send!(tx, script, true);
                tx.commit().await?;
                Ok(())
            }

            async fn usage_events(
                &self,
                tenant_id: &str,
                filter: &UsageEventFilter,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<UsageEventRow>> {
                let floor = $crate::store::sql::since_floor!(
                    &self.read,
                    "usage_events",
                    $crate::ids::Kind::UsageEvent,
                    tenant_id,
                    filter.from
                );
                // What runs used has no meter of its own.
                let is_tokens = filter.meter.as_deref() == Some($crate::store::TOKENS_METER);
                let (tokens, custom) = match is_tokens {
                    true => (&filter.meter, &None),
                    false => (&None, &filter.meter),
                };
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM usage_events WHERE tenant_id = ",
                    tenant_id,
                    [
                        (" AND smith_id = ", &filter.smith_id),
                        (" AND customer_id = ", &filter.customer_id),
                        (" AND meter = ", custom),
                        (" AND COALESCE(meter, 'tokens') = ", tokens),
                        (" AND id >= ", &floor),
                        (" AND created_at >= ", &filter.from),
                        (" AND created_at < ", &filter.until),
                    ],
                    before,
                    limit
                ))
            }
        }
    };
}

pub(in crate::store) use impl_usage;
