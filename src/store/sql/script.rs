//! Statements of many rows, and many of them in one query where the engine takes that: each query is
//! a way to the database and back, and under load each end of it waits for a processor.

use sqlx::{Postgres, QueryBuilder, Sqlite};

/// What differs between the engines.
pub(in crate::store) trait Engine: sqlx::Database {
    /// Whether one query may hold many statements. They are prepared each time, as there is no end
    /// to their combinations; that costs less than the ways that they save.
    const TAKES_SCRIPTS: bool;
    /// Rows of one statement.
    const MAX_ROWS: usize;
}

impl Engine for Sqlite {
    const TAKES_SCRIPTS: bool = true;
    const MAX_ROWS: usize = 256;
}

impl Engine for Postgres {
    const TAKES_SCRIPTS: bool = false;
    const MAX_ROWS: usize = 64;
}

/// Statements that wait to be sent.
pub(in crate::store) struct Script<DB: Engine> {
    query: QueryBuilder<DB>,
    is_empty: bool,
}

impl<DB: Engine> Default for Script<DB> {
    fn default() -> Self {
        Self {
            query: QueryBuilder::new(""),
            is_empty: true,
        }
    }
}

impl<DB: Engine> Script<DB> {
    /// Room for another statement.
    pub fn statement(&mut self, begins: &str) -> &mut QueryBuilder<DB> {
        if !self.is_empty {
            self.query.push(";");
        }
        self.is_empty = false;
        self.query.push(begins)
    }

    /// What is to be sent: before the `last` statement, only where one at a time is taken.
    pub fn ready(&mut self, last: bool) -> Option<QueryBuilder<DB>> {
        let is_due = !self.is_empty && (last || !DB::TAKES_SCRIPTS);
        is_due.then(|| std::mem::take(self).query)
    }

    /// Whether the engine should keep a statement prepared.
    pub fn is_kept(&self) -> bool {
        !DB::TAKES_SCRIPTS
    }

    /// Slices of `rows`, for a statement each. Where statements are kept, their lengths are powers of
    /// two, so that there are few to be kept.
    pub fn chunks<'a, T>(&self, rows: &'a [T]) -> impl Iterator<Item = &'a [T]> + use<'a, T, DB> {
        chunks(rows, DB::MAX_ROWS, !DB::TAKES_SCRIPTS)
    }
}

fn chunks<T>(mut rows: &[T], most: usize, by_powers: bool) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let power = 1 << rows.len().checked_ilog2()?;
        let length = if by_powers { power } else { rows.len() };
        let (chunk, rest) = rows.split_at(length.min(most));
        rows = rest;
        Some(chunk)
    })
}

/// Sends the statements of a script, all when it is the last time and else those that cannot wait.
macro_rules! send {
    ($tx:expr, $script:expr, $last:literal) => {
        if let Some(mut query) = $script.ready($last) {
            let query = query.build().persistent($script.is_kept());
            query.execute(&mut *$tx).await?;
        }
    };
}

/// As [`send!`], and gathers the ids that the statements return.
macro_rules! send_for_ids {
    ($tx:expr, $script:expr, $last:literal, $ids:expr) => {
        if let Some(mut query) = $script.ready($last) {
            let query = query.build_query_scalar::<String>();
            let query = query.persistent($script.is_kept());
            $ids.extend(query.fetch_all(&mut *$tx).await?);
        }
    };
}

/// Adds statements that insert rows.
macro_rules! insert_many {
    ($tx:expr, $script:expr, $rows:expr, $into:literal, $unless:literal,
     |$values:ident, $row:ident| $bind:block) => {
        for rows in $script.chunks(&$rows) {
            let query = $script.statement(concat!("INSERT INTO ", $into, " "));
            query.push_values(rows, |mut $values, $row| $bind);
            query.push($unless);
            $crate::store::sql::script::send!($tx, $script, false);
        }
    };
}

pub(in crate::store) use {insert_many, send, send_for_ids};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_all_rows_and_are_powers_of_two_where_they_are_kept() {
        for count in 0..300 {
            let rows: Vec<usize> = (0..count).collect();
            for (most, by_powers) in [(64, true), (256, false)] {
                let chunks: Vec<&[usize]> = chunks(&rows, most, by_powers).collect();
                assert!(chunks.iter().all(|chunk| chunk.len() <= most));
                assert!(!by_powers || chunks.iter().all(|chunk| chunk.len().is_power_of_two()));
                assert_eq!(chunks.concat(), rows);
            }
        }
    }

    #[test]
    fn a_script_is_sent_at_once_or_statement_by_statement() {
        let mut all = Script::<Sqlite>::default();
        all.statement("SELECT 1");
        assert!(all.ready(false).is_none());
        all.statement("SELECT 2");
        assert_eq!(all.ready(true).expect("due").sql(), "SELECT 1;SELECT 2");
        assert!(all.ready(true).is_none());
        let mut each = Script::<Postgres>::default();
        each.statement("SELECT 1");
        assert_eq!(each.ready(false).expect("due").sql(), "SELECT 1");
        each.statement("SELECT 2");
        assert_eq!(each.ready(false).expect("due").sql(), "SELECT 2");
    }
}
