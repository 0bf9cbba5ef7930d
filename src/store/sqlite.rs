//! The embedded engine: SQLite with a write-ahead log and full sync. One connection writes, so
//! that writers queue here instead of failing as busy; several read; one takes the log over into
//! the database while the writer goes on.

use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::Connection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use super::sql::impl_store;
use super::*;

/// A store in one SQLite file.
pub struct SqliteStore {
    read: SqlitePool,
    write: SqlitePool,
    checkpoints: tokio::task::JoinHandle<()>,
}

/// Between two takings over of the log, under load and at rest.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
const CHECKPOINT_AT_REST: Duration = Duration::from_secs(2);
/// Pages of the log at which the writer itself takes the rest over, which lets the log begin again:
/// under steady load nobody else finds its end.
const LOG_PAGES: &str = "8192";
/// What a log that has begun again may keep of the disk, in bytes.
const LOG_BYTES: &str = "67108864";

impl SqliteStore {
    /// A commit is over when it answers.
    const ANSWERS_MAY_BE_LOST: bool = false;
    /// Some pages: a disk with less room than that keeps nothing worth the name.
    const PROBE_BYTES: usize = 64 * 1024;

    /// Opens or makes `file`, readable by its owner only.
    pub async fn open(file: &Path, readers: u32) -> Result<Self> {
        check_whole(file)?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .pragma("cache_size", "-16384")
            // Statements of many rows keep what undoes them; in files, they make one each.
            .pragma("temp_store", "MEMORY")
            .pragma("wal_autocheckpoint", LOG_PAGES)
            .pragma("journal_size_limit", LOG_BYTES)
            .statement_cache_capacity(200);
        let write = SqlitePoolOptions::new()
            // A file does not hang up, and each look would be a way to the connection's thread.
            .test_before_acquire(false)
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_release(|connection, _| is_at_rest(connection).boxed())
            .connect_with(options.clone())
            .await?;
        sqlx::migrate!("src/store/migrations/sqlite")
            .run(&write)
            .await?;
        owner_only(file)?;
        let read = SqlitePoolOptions::new()
            .test_before_acquire(false)
            .max_connections(readers.max(1))
            .connect_with(options.clone().read_only(true).create_if_missing(false))
            .await?;
        let checkpoints = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        Ok(Self {
            read,
            write,
            checkpoints: tokio::spawn(take_over(checkpoints)),
        })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.checkpoints.abort();
    }
}

/// Refuses a file that was cut short, which SQLite would find out later, or take for a new one. What a
/// log beside it holds is not judged.
fn check_whole(file: &Path) -> Result<()> {
    use std::io::Read;
    let size = |path: &Path| std::fs::metadata(path).map(|found| found.len());
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    let (Ok(bytes), true) = (size(file), size(Path::new(&log)).unwrap_or(0) == 0) else {
        return Ok(());
    };
    let cut = || {
        Err(StoreError::Unusable(
            "it was cut short: put a backup in its place, or move it away to start anew".to_owned(),
        ))
    };
    if bytes == 0 {
        // The key is made once the database is.
        return match file.with_file_name("master.key").exists() {
            true => cut(),
            false => Ok(()),
        };
    }
    let mut head = [0; 100];
    let read = std::fs::File::open(file).and_then(|mut opened| opened.read_exact(&mut head));
    if read.is_err() {
        return cut();
    }
    // <https://www.sqlite.org/fileformat2.html#the_database_header>
    let page = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let pages = u32::from_be_bytes([head[28], head[29], head[30], head[31]]);
    let is_sqlite = head.starts_with(b"SQLite format 3\0");
    match is_sqlite && bytes < page * u64::from(pages) {
        true => cut(),
        false => Ok(()),
    }
}

/// Whether a connection that is given back may be used again. SQLite rolls a transaction back by
/// itself when the disk is full or fails; the driver takes the rollback that then fails for one that
/// is still to come, and what is written later would stay within that transaction, unkept.
async fn is_at_rest(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    if !connection.is_in_transaction() {
        return Ok(true);
    }
    // The rollback may still be on its way.
    connection.ping().await?;
    let is_stuck = connection.is_in_transaction();
    if is_stuck {
        tracing::warn!("a failed transaction gives its connection up");
    }
    Ok(!is_stuck)
}

/// Takes the log over into the database, again and again: a commit that has to do it by itself makes
/// all runs wait for it.
async fn take_over(pool: SqlitePool) {
    let mut pause = CHECKPOINT_EVERY;
    let mut last = (0, 0);
    loop {
        tokio::time::sleep(pause).await;
        let taken: sqlx::Result<(i64, i64, i64)> = sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)")
            .fetch_one(&pool)
            .await;
        match taken {
            Ok((_, log, taken)) => {
                pause = match (log, taken) == last {
                    true => CHECKPOINT_AT_REST,
                    false => CHECKPOINT_EVERY,
                };
                last = (log, taken);
            }
            Err(error) => {
                tracing::warn!(%error, "the log was not taken over into the database");
                pause = CHECKPOINT_AT_REST;
            }
        }
    }
}

#[cfg(unix)]
fn owner_only(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, mode)
        .map_err(|error| StoreError::Unusable(format!("cannot keep others from it: {error}")))
}

#[cfg(not(unix))]
fn owner_only(_file: &Path) -> Result<()> {
    Ok(())
}

impl_store!(SqliteStore);
