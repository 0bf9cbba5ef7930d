//! The queries, written once, a file for each aggregate. Both engines take `$n` parameters,
//! `ON CONFLICT` and `RETURNING`, so one text serves both; what differs is the pool and the schema
//! history. They are macros because sqlx's queries are typed by their database.

pub(super) mod agents;
pub(super) mod approvals;
pub(super) mod batch;
pub(super) mod channels;
pub(super) mod connections;
pub(super) mod connectors;
pub(super) mod continuity;
pub(super) mod conversations;
pub(super) mod customers;
pub(super) mod deployments;
pub(super) mod email;
pub(super) mod events;
pub(super) mod files;
pub(super) mod idempotency;
pub(super) mod journal;
pub(super) mod lanes;
pub(super) mod mcp_servers;
pub(super) mod model_keys;
pub(super) mod organizations;
pub(super) mod retention;
pub(super) mod runs;
pub(super) mod schedules;
pub(super) mod script;
pub(super) mod skills;
pub(super) mod smiths;
pub(super) mod tenants;
pub(super) mod tokens;
pub(super) mod traces;
pub(super) mod usage;
pub(super) mod vector_stores;
pub(super) mod virtual_keys;

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
        $crate::store::sql::events::impl_events!($store);
        $crate::store::sql::conversations::impl_conversations!($store);
        $crate::store::sql::approvals::impl_approvals!($store);
        $crate::store::sql::connections::impl_connections!($store);
        $crate::store::sql::usage::impl_usage!($store);
        $crate::store::sql::traces::impl_traces!($store);
        $crate::store::sql::files::impl_files!($store);
        $crate::store::sql::organizations::impl_organizations!($store);
        $crate::store::sql::mcp_servers::impl_mcp_servers!($store);
        $crate::store::sql::skills::impl_skills!($store);
        $crate::store::sql::vector_stores::impl_vector_stores!($store);
        $crate::store::sql::connectors::impl_connectors!($store);
        $crate::store::sql::continuity::impl_continuity!($store);
        $crate::store::sql::deployments::impl_deployments!($store);
        $crate::store::sql::retention::impl_retention!($store);
        $crate::store::sql::lanes::impl_lanes!($store);
        $crate::store::sql::schedules::impl_schedules!($store);
        $crate::store::sql::channels::impl_channels!($store);
        $crate::store::sql::email::impl_email!($store);
        $crate::store::sql::virtual_keys::impl_virtual_keys!($store);
    };
}

/// A page of a tenant's rows, newest first, with only those conditions that are given: a condition
/// on an absent value would keep the planner from the index of a present one. With `within`, its rows
/// are weighed by those columns first, and no more are read than a page may weigh.
macro_rules! select_page {
    ($pool:expr, $select:literal, $owner:expr, [$(($sql:literal, $value:expr)),* $(,)?],
     $before:expr, $limit:expr, within $heavy:expr) => {{
        let build = |columns: &str, limit: i64| {
            let mut query = sqlx::QueryBuilder::new($select.replacen('*', columns, 1));
            query.push_bind($owner.to_owned());
            $(if let Some(value) = $value {
                query.push($sql);
                query.push_bind(value.to_owned());
            })*
            if let Some(before) = $before {
                query.push(" AND id < ");
                query.push_bind(before.to_owned());
            }
            query.push(" ORDER BY id DESC LIMIT ");
            query.push_bind(limit);
            query
        };
        $crate::store::sql::select_within!($pool, build, $limit, $heavy)
    }};
    ($pool:expr, $select:literal, $owner:expr, [$(($sql:literal, $value:expr)),* $(,)?],
     $before:expr, $limit:expr) => {{
        let mut query = sqlx::QueryBuilder::new($select);
        query.push_bind($owner.to_owned());
        $(if let Some(value) = $value {
            query.push($sql);
            query.push_bind(value.to_owned());
        })*
        if let Some(before) = $before {
            query.push(" AND id < ");
            query.push_bind(before.to_owned());
        }
        query.push(" ORDER BY id DESC LIMIT ");
        query.push_bind($limit);
        query.build_query_as().fetch_all($pool).await?
    }};
}

/// A page of an OpenAI-shaped list: `after`, `before`, `order`. With `within`, its rows are weighed by
/// those columns first, as in [`select_page!`].
macro_rules! select_slice {
    ($pool:expr, $select:literal, $owner:expr, [$(($sql:literal, $value:expr)),* $(,)?],
     $slice:expr, within $heavy:expr) => {{
        let build = |columns: &str, limit: i64| {
            let mut query = sqlx::QueryBuilder::new($select.replacen('*', columns, 1));
            query.push_bind($owner.to_owned());
            $(if let Some(value) = $value {
                query.push($sql);
                query.push_bind(value.to_owned());
            })*
            $crate::store::sql::push_slice!(query, $slice, limit);
            query
        };
        $crate::store::sql::select_within!($pool, build, $slice.limit, $heavy)
    }};
    ($pool:expr, $select:literal, $owner:expr, [$(($sql:literal, $value:expr)),* $(,)?],
     $slice:expr) => {{
        let mut query = sqlx::QueryBuilder::new($select);
        query.push_bind($owner.to_owned());
        $(if let Some(value) = $value {
            query.push($sql);
            query.push_bind(value.to_owned());
        })*
        $crate::store::sql::push_slice!(query, $slice, $slice.limit);
        query.build_query_as().fetch_all($pool).await?
    }};
}

/// The place and the order of a slice.
macro_rules! push_slice {
    ($query:expr, $slice:expr, $limit:expr) => {
        let (beyond, short_of) = if $slice.ascending {
            (" AND id > ", " AND id < ")
        } else {
            (" AND id < ", " AND id > ")
        };
        if let Some(after) = &$slice.after {
            $query.push(beyond);
            $query.push_bind(after.to_owned());
        }
        if let Some(before) = &$slice.before {
            $query.push(short_of);
            $query.push_bind(before.to_owned());
        }
        $query.push(if $slice.ascending {
            " ORDER BY id LIMIT "
        } else {
            " ORDER BY id DESC LIMIT "
        });
        $query.push_bind($limit);
    };
}

/// The rows of a query, as many of the first ones as a page may weigh: they are weighed first, then
/// those are read. `$build` makes the query for some columns and a limit.
macro_rules! select_within {
    ($pool:expr, $build:expr, $limit:expr, $heavy:expr) => {{
        let mut query = $build(&$crate::store::rows::weight_of($heavy), $limit);
        let sizes: Vec<i64> = query.build_query_scalar().fetch_all($pool).await?;
        let fit = $crate::store::rows::that_fit(&sizes, $crate::store::PAGE_BYTES);
        let mut query = $build("*", fit as i64);
        let rows = query.build_query_as().fetch_all($pool).await?;
        $crate::store::Rows::new(rows, fit < sizes.len())
    }};
}

/// Where a range of a tenant's ids begins that holds all rows since `$since`: ids of the old form lie
/// before all others, so the range begins among them only while some are young enough.
macro_rules! since_floor {
    ($pool:expr, $table:literal, $kind:expr, $tenant_id:expr, $since:expr) => {
        match $since {
            None => None,
            Some(since) => {
                let floor = $crate::store::events::since_floor($kind, since);
                let young: Option<String> = sqlx::query_scalar(concat!(
                    "SELECT id FROM ",
                    $table,
                    " WHERE tenant_id = $1 AND id >= $2 AND id < $3 LIMIT 1"
                ))
                .bind($tenant_id)
                .bind(&floor.old)
                .bind($crate::ids::end_of_old($kind))
                .fetch_optional($pool)
                .await?;
                Some(match young {
                    Some(_) => floor.old,
                    None => floor.new,
                })
            }
        }
    };
}

/// The live smiths of an agent or a customer, from the counts that triggers keep.
macro_rules! smith_count {
    ($pool:expr, $tenant_id:expr, $owner_id:expr) => {
        sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(smiths), 0) AS BIGINT) FROM smith_counts \
             WHERE tenant_id = $1 AND owner_id = $2",
        )
        .bind($tenant_id)
        .bind($owner_id)
        .fetch_one($pool)
        .await?
    };
}

pub(super) use {
    impl_store, push_slice, select_page, select_slice, select_within, since_floor, smith_count,
};

/// A document as JSON text.
pub(super) fn document<T: serde::Serialize>(
    what: &'static str,
    value: &T,
) -> super::Result<String> {
    serde_json::to_string(value).map_err(|e| super::StoreError::Document(what, e))
}

/// The least text above all that begin with `prefix`, in byte order; `None`: there is none.
pub(super) fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = ((last as u32 + 1)..=char::MAX as u32).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}
