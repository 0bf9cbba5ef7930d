//! Statements of many rows, and many of them in one query where the engine takes that: each query is
//! a way to the database and back, and under load each end of it waits for a processor. All are
//! kept prepared: to parse them costs as much as to run them. So that there are few, their numbers of
//! rows are powers of two.

use std::iter::{Chain, RepeatN, repeat_n};
use std::slice::Iter;

use sqlx::{Postgres, QueryBuilder, Sqlite};

/// What differs between the engines.
pub(in crate::store) trait Engine: sqlx::Database {
    /// Whether one query may hold many statements. Then rows of a statement are repeated up to a power
    /// of two, or its combinations with others would be too many to keep: each row must do no more
    /// when it comes twice.
    const TAKES_SCRIPTS: bool;
    /// Rows of one statement: a power of two.
    const MAX_ROWS: usize;
}

impl Engine for Sqlite {
    const TAKES_SCRIPTS: bool = true;
    const MAX_ROWS: usize = 32;
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

    /// `rows` in pieces, for a statement each.
    pub fn chunks<'a, T>(
        &self,
        rows: &'a [T],
    ) -> impl Iterator<Item = Rows<'a, T>> + use<'a, T, DB> {
        chunks(rows, DB::MAX_ROWS, DB::TAKES_SCRIPTS)
    }
}

/// `rows` in pieces of powers of two, so that there are few statements; at most
/// [`Engine::MAX_ROWS`] of the engine that takes fewest.
pub(in crate::store) fn powers_of_two<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rows = rows;
    std::iter::from_fn(move || {
        let length = 1 << rows.len().checked_ilog2()?;
        let (piece, rest) = rows.split_at(length.min(Sqlite::MAX_ROWS));
        rows = rest;
        Some(piece)
    })
}

/// A power of two of rows, of which the last may come several times.
pub(in crate::store) type Rows<'a, T> = Chain<Iter<'a, T>, RepeatN<&'a T>>;

fn chunks<T>(mut rows: &[T], most: usize, repeats: bool) -> impl Iterator<Item = Rows<'_, T>> {
    std::iter::from_fn(move || {
        let last = rows.last()?;
        let length = match repeats {
            true => rows.len(),
            false => 1 << rows.len().ilog2(),
        };
        let (chunk, rest) = rows.split_at(length.min(most));
        rows = rest;
        let missing = chunk.len().next_power_of_two() - chunk.len();
        Some(chunk.iter().chain(repeat_n(last, missing)))
    })
}

/// Sends the statements of a script, all when it is the last time and else those that cannot wait.
macro_rules! send {
    ($tx:expr, $script:expr, $last:literal) => {
        if let Some(mut query) = $script.ready($last) {
            query.build().execute(&mut *$tx).await?;
        }
    };
}

/// As [`send!`], and gathers the ids that the statements return.
macro_rules! send_for_ids {
    ($tx:expr, $script:expr, $last:literal, $ids:expr) => {
        if let Some(mut query) = $script.ready($last) {
            let query = query.build_query_scalar::<String>();
            $ids.extend(query.fetch_all(&mut *$tx).await?);
        }
    };
}

/// Adds statements that insert rows; `$unless` says what becomes of those that are there already.
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
    fn chunks_hold_all_rows_and_are_powers_of_two() {
        for count in 0..300 {
            let rows: Vec<usize> = (0..count).collect();
            for (most, repeats) in [(64, false), (32, true)] {
                let mut all = Vec::new();
                for chunk in chunks(&rows, most, repeats) {
                    let chunk: Vec<usize> = chunk.copied().collect();
                    assert!(chunk.len() <= most && chunk.len().is_power_of_two());
                    all.extend(chunk);
                }
                assert!(repeats || all == rows);
                all.dedup();
                assert_eq!(all, rows);
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
