//! What goes wrong in the store, and whose fault it is.

use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

use crate::error::ApiError;

/// Why a store call failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or is out of reach.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// A stored document is not what this version wrote.
    #[error("stored document of {0} does not parse: {1}")]
    Document(&'static str, serde_json::Error),
    /// It cannot be opened; the message is for operators.
    #[error("{0}")]
    Unusable(String),
}

/// A fault of the store itself, not of what was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageFault {
    /// No room is left for what should be kept.
    Full,
    /// It may be read only: a standby, or a file that may not be written.
    ReadOnly,
    /// The disk or the database on it is damaged.
    Damaged,
    /// Out of reach, or busy: it may be back soon.
    Away,
}

impl StorageFault {
    /// Whether it goes away by itself, in the time that somebody waits.
    pub fn is_passing(self) -> bool {
        self == Self::Away
    }

    fn message(self) -> &'static str {
        match self {
            Self::Full => "the store is full: this was not kept",
            Self::ReadOnly => "the store takes no writes: this was not kept",
            Self::Damaged => "the store cannot be written or read: this was not kept",
            Self::Away => "the store is out of reach",
        }
    }
}

impl StoreError {
    /// Why the store at `place` cannot be opened, in an operator's words.
    pub(super) fn at(self, place: &str) -> Self {
        use sqlx::migrate::MigrateError;
        let why = match &self {
            Self::Schema(MigrateError::VersionMissing(version)) => format!(
                "it was written by a newer smithgate: this one does not know version {version} of \
                 its schema"
            ),
            Self::Schema(MigrateError::VersionMismatch(version)) => format!(
                "it was written by another smithgate: version {version} of its schema is not the \
                 one that this binary knows"
            ),
            Self::Database(sqlx::Error::PoolTimedOut) => "it does not answer".to_owned(),
            Self::Database(sqlx::Error::Database(error))
                if error.try_downcast_ref::<SqliteError>().is_some() =>
            {
                let code = error.code().and_then(|code| code.parse::<u32>().ok());
                match code.unwrap_or_default() & 0xff {
                    26 => {
                        "it is no database, or it is damaged: put a backup in its place, or move \
                           it away to start anew"
                            .to_owned()
                    }
                    11 => "it is damaged: put a backup in its place, or move it away to start anew"
                        .to_owned(),
                    14 | 8 => format!("it cannot be opened for writing ({})", error.message()),
                    13 => "its disk is full".to_owned(),
                    _ => error.message().to_owned(),
                }
            }
            other => other.to_string(),
        };
        Self::Unusable(format!("{place} cannot be used: {why}"))
    }

    /// The store's own fault, if it is one.
    pub fn fault(&self) -> Option<StorageFault> {
        match self {
            Self::Database(error) => fault_of(error),
            Self::Schema(sqlx::migrate::MigrateError::Execute(error)) => fault_of(error),
            Self::Schema(_) | Self::Document(..) | Self::Unusable(_) => None,
        }
    }
}

fn fault_of(error: &sqlx::Error) -> Option<StorageFault> {
    use sqlx::Error;
    match error {
        Error::Database(error) => {
            let code = error.code()?;
            if error.try_downcast_ref::<SqliteError>().is_some() {
                return sqlite_fault(code.parse().ok()?);
            }
            error.try_downcast_ref::<PgDatabaseError>()?;
            postgres_fault(&code)
        }
        // What a connection says that was cut in the middle of an answer is a breach of protocol.
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::BeginFailed => Some(StorageFault::Away),
        _ => None,
    }
}

/// By the primary result code (<https://www.sqlite.org/rescode.html>).
fn sqlite_fault(code: u32) -> Option<StorageFault> {
    match code & 0xff {
        13 => Some(StorageFault::Full),
        8 => Some(StorageFault::ReadOnly),
        // I/O error, corrupt, cannot open, not a database.
        10 | 11 | 14 | 26 => Some(StorageFault::Damaged),
        // Busy, locked, out of memory, interrupted, locking protocol.
        5 | 6 | 7 | 9 | 15 => Some(StorageFault::Away),
        _ => None,
    }
}

/// By SQLSTATE (appendix A of PostgreSQL's manual).
fn postgres_fault(code: &str) -> Option<StorageFault> {
    match code {
        "53100" => Some(StorageFault::Full),
        "25006" => Some(StorageFault::ReadOnly),
        "58030" | "XX001" | "XX002" => Some(StorageFault::Damaged),
        // Deadlocks and their like: the transaction may be tried again.
        "40001" | "40P01" | "55P03" | "25P03" | "3D000" => Some(StorageFault::Away),
        // Connections, authorization, resources, operators who intervene, the system around it.
        _ => ["08", "28", "53", "57", "58"]
            .iter()
            .any(|class| code.starts_with(class))
            .then_some(StorageFault::Away),
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.fault() {
            Some(fault) => {
                tracing::error!(%error, "storage unavailable");
                Self::unavailable("storage_unavailable", fault.message(), 2)
            }
            None => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_store_are_told_from_those_of_what_it_is_asked() {
        for (code, fault) in [
            (13, Some(StorageFault::Full)),
            (8, Some(StorageFault::ReadOnly)),
            // SQLITE_READONLY_DBMOVED, SQLITE_IOERR_WRITE, SQLITE_BUSY_SNAPSHOT.
            (8 | 4 << 8, Some(StorageFault::ReadOnly)),
            (10 | 3 << 8, Some(StorageFault::Damaged)),
            (5 | 2 << 8, Some(StorageFault::Away)),
            (1, None),
            (19 | 8 << 8, None),
        ] {
            assert_eq!(sqlite_fault(code), fault, "{code}");
        }
        for (code, fault) in [
            ("53100", Some(StorageFault::Full)),
            ("53200", Some(StorageFault::Away)),
            ("53300", Some(StorageFault::Away)),
            ("25006", Some(StorageFault::ReadOnly)),
            ("57P01", Some(StorageFault::Away)),
            ("08006", Some(StorageFault::Away)),
            ("23505", None),
            ("22021", None),
        ] {
            assert_eq!(postgres_fault(code), fault, "{code}");
        }
    }
}
