//! Queries: customers.

macro_rules! impl_customers {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::CustomerStore for $store {
            async fn insert_customer(&self, customer: &CustomerRow) -> Result<()> {
                sqlx::query(
                    "INSERT INTO customers (id, tenant_id, name, external_ids, metadata, \
                     created_at) VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(&customer.id)
                .bind(&customer.tenant_id)
                .bind(&customer.name)
                .bind($crate::store::sql::document(
                    "customer",
                    &customer.external_ids,
                )?)
                .bind($crate::store::sql::document(
                    "customer",
                    &customer.metadata,
                )?)
                .bind(customer.created_at)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn customer(&self, tenant_id: &str, id: &str) -> Result<Option<CustomerRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM customers WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn customers(
                &self,
                tenant_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<CustomerRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM customers WHERE tenant_id = ",
                    tenant_id,
                    [],
                    before,
                    limit,
                    within & ["external_ids", "metadata"]
                ))
            }

            async fn update_customer(&self, customer: &CustomerRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE customers SET name = $3, external_ids = $4, metadata = $5 \
                     WHERE tenant_id = $1 AND id = $2",
                )
                .bind(&customer.tenant_id)
                .bind(&customer.id)
                .bind(&customer.name)
                .bind($crate::store::sql::document(
                    "customer",
                    &customer.external_ids,
                )?)
                .bind($crate::store::sql::document(
                    "customer",
                    &customer.metadata,
                )?)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn delete_customer(&self, tenant_id: &str, id: &str) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query("DELETE FROM customers WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .execute(&mut *tx)
                    .await?;
                sqlx::query(
                    "UPDATE smiths SET customer_id = NULL \
                     WHERE tenant_id = $1 AND customer_id = $2 AND deleted_at IS NULL",
                )
                .bind(tenant_id)
                .bind(id)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(done.rows_affected() > 0)
            }

            async fn customer_smith_count(&self, tenant_id: &str, id: &str) -> Result<i64> {
                Ok($crate::store::sql::smith_count!(&self.read, tenant_id, id))
            }
        }
    };
}

pub(in crate::store) use impl_customers;
