//! The queries, written once, a file for each aggregate. Both engines take `$n` parameters,
//! `ON CONFLICT` and `RETURNING`, so one text serves both; what differs is the pool and the schema
//! history. They are macros because sqlx's queries are typed by their database.

pub(super) mod agents;
pub(super) mod customers;
pub(super) mod idempotency;
pub(super) mod model_keys;
pub(super) mod runs;
pub(super) mod smiths;
pub(super) mod tenants;
pub(super) mod tokens;

/// Implements all store traits for `$store`, whose `read` and `write` fields are pools of one
/// database.
macro_rules! impl_store {
    ($store:ty) => {
        $crate::store::sql::tenants::impl_tenants!($store);
        $crate::store::sql::tokens::impl_tokens!($store);
        $crate::store::sql::agents::impl_agents!($store);
        $crate::store::sql::smiths::impl_smiths!($store);
        $crate::store::sql::customers::impl_customers!($store);
        $crate::store::sql::model_keys::impl_model_keys!($store);
        $crate::store::sql::runs::impl_runs!($store);
        $crate::store::sql::idempotency::impl_idempotency!($store);
    };
}

pub(super) use impl_store;

/// A document as JSON text.
pub(super) fn document<T: serde::Serialize>(
    what: &'static str,
    value: &T,
) -> super::Result<String> {
    serde_json::to_string(value).map_err(|e| super::StoreError::Document(what, e))
}
