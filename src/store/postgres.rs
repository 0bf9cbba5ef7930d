//! The engine for many nodes: PostgreSQL.

use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use super::sql::impl_store;
use super::*;

/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

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
        let plain = PgConnectOptions::from_str(url)?;
        // Without the bounds below: a migration, or one of another node, may take its time.
        let mut connection = connect(&plain).await?;
        sqlx::migrate!("src/store/migrations/postgres")
            .run(&mut connection)
            .await?;
        connection.close().await?;
        let options = plain.options([
            // A plan for all values would not use the index that a rare value needs.
            ("plan_cache_mode", "force_custom_plan"),
            // Whoever holds a table (a dump, a person at a console) must not have all connections
            // of the pool wait for it.
            ("lock_timeout", "10s"),
            ("statement_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "60s"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(connections.max(2))
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await?;
        Ok(Self {
            read: pool.clone(),
            write: pool,
        })
    }
}

/// As patient as the pool is.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    let connecting = PgConnection::connect_with(options);
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
    }
}

impl_store!(PostgresStore);
