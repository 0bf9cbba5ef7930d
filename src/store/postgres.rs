//! The engine for many nodes: PostgreSQL.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::sql::impl_store;
use super::*;

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    read: PgPool,
    write: PgPool,
}

impl PostgresStore {
    /// A connection may be cut between a commit and its answer.
    const ANSWERS_MAY_BE_LOST: bool = true;
    const PROBE_BYTES: usize = 8;

    /// Connects to `url`.
    pub async fn open(url: &str, connections: u32) -> Result<Self> {
        // A plan for all values would not use the index that a rare value needs.
        let options =
            PgConnectOptions::from_str(url)?.options([("plan_cache_mode", "force_custom_plan")]);
        let pool = PgPoolOptions::new()
            .max_connections(connections.max(2))
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(options)
            .await?;
        sqlx::migrate!("src/store/migrations/postgres")
            .run(&pool)
            .await?;
        Ok(Self {
            read: pool.clone(),
            write: pool,
        })
    }
}

impl_store!(PostgresStore);
