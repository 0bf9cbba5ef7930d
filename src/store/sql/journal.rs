//! Writes of the journal: a batch of entries in one transaction. What many runs do alike is written
//! in statements of many rows, as each statement is a way to the database and back.

use std::collections::HashSet;

use crate::store::{EventRow, Op, RunRow, SpanRow, TraceRow, UsageEventRow};

/// Rows of one statement; as powers of two, so that there are few statements to be prepared.
const MAX_ROWS: usize = 64;

/// Slices of `rows` whose lengths are powers of two.
pub(in crate::store) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = 1 << rows.len().checked_ilog2()?;
        let (chunk, rest) = rows.split_at(length.min(MAX_ROWS));
        rows = rest;
        Some(chunk)
    })
}

/// The last frames of a run.
pub(in crate::store) struct LastFrames<'a> {
    pub tenant_id: &'a str,
    pub run_id: &'a str,
    pub first: i64,
    pub frames: &'a [u8],
}

/// The place of its entry, a new run, and what it takes to begin it again.
pub(in crate::store) type NewRun<'a> = (usize, &'a RunRow, Option<&'a str>);

/// Rows of a batch that nothing else in it waits for.
#[derive(Default)]
pub(in crate::store) struct Late<'a> {
    runs: Vec<NewRun<'a>>,
    ids: HashSet<&'a str>,
    pub frames: Vec<LastFrames<'a>>,
    pub events: Vec<&'a EventRow>,
    pub traces: Vec<&'a TraceRow>,
    pub spans: Vec<&'a SpanRow>,
    pub ledger: Vec<&'a UsageEventRow>,
}

impl<'a> Late<'a> {
    /// Puts a new run off; `at` is the place of its entry.
    pub fn create(&mut self, at: usize, run: &'a RunRow, base: Option<&'a str>) {
        self.ids.insert(&run.id);
        self.runs.push((at, run, base));
    }

    /// Whether `op` is about a run that was put off.
    pub fn has_run_of(&self, op: &Op) -> bool {
        let id = match op {
            Op::Frames { run_id, .. } => &**run_id,
            Op::Checkpoint(point) => &point.run_id,
            Op::EndRun(end) => &end.id,
            Op::CreateRun(run, _) => &run.id,
            Op::Usage(_) | Op::Event(_) | Op::Barrier => return false,
        };
        self.ids.contains(id)
    }

    /// Takes out the runs that were put off.
    pub fn take_runs(&mut self) -> Vec<NewRun<'a>> {
        self.ids.clear();
        std::mem::take(&mut self.runs)
    }
}

/// Inserts rows in statements of many.
macro_rules! insert_many {
    ($tx:expr, $rows:expr, $into:literal, $unless:literal, |$values:ident, $row:ident| $bind:block) => {
        for rows in $crate::store::sql::journal::chunks(&$rows) {
            let mut query = sqlx::QueryBuilder::new(concat!("INSERT INTO ", $into, " "));
            query.push_values(rows, |mut $values, $row| $bind);
            query.push($unless);
            query.build().execute(&mut *$tx).await?;
        }
    };
}

pub(in crate::store) const INSERT_FRAMES: &str = "INSERT INTO run_frames (tenant_id, run_id, \
     first_frame, frames) SELECT $1, $2, $3, $4 WHERE EXISTS (SELECT 1 FROM runs \
     WHERE tenant_id = $1 AND id = $2 AND node_id = $5) ON CONFLICT DO NOTHING";

/// The rows of new runs; takes `false` where its thread is held.
macro_rules! create_runs {
    ($tx:expr, $runs:expr, $taken:expr) => {
        for runs in $crate::store::sql::journal::chunks(&$runs) {
            let mut query = sqlx::QueryBuilder::new(
                "INSERT INTO runs (id, tenant_id, smith_id, agent_id, thread_id, channel, \
                 status, exclusive, include_mask, input, warnings, metadata, actor, node_id, \
                 lease_until, created_at, updated_at, previous_run_id, response) ",
            );
            query.push_values(runs, |mut values, (_, run, _)| {
                values
                    .push_bind(&run.id)
                    .push_bind(&run.tenant_id)
                    .push_bind(&run.smith_id)
                    .push_bind(&run.agent_id)
                    .push_bind(&run.thread_id)
                    .push_bind(&run.channel)
                    .push_bind(&run.status)
                    .push_bind(run.exclusive)
                    .push_bind(run.include_mask)
                    .push_bind(&run.input)
                    .push_bind(&run.warnings)
                    .push_bind(&run.metadata)
                    .push_bind(&run.actor)
                    .push_bind(&run.node_id)
                    .push_bind(run.lease_until)
                    .push_bind(run.created_at)
                    .push_bind(run.updated_at)
                    .push_bind(&run.previous_run_id)
                    .push_bind(&run.response);
            });
            query.push(" ON CONFLICT DO NOTHING RETURNING id");
            let created = query
                .build_query_scalar::<String>()
                .fetch_all(&mut *$tx)
                .await?;
            for (at, run, base) in runs {
                $taken[*at] = created.contains(&run.id);
                if let Some(base) = base
                    && $taken[*at]
                {
                    $crate::store::sql::journal::put_state!(
                        $tx,
                        &run.id,
                        &run.tenant_id,
                        *base,
                        ""
                    );
                }
            }
        }
    };
}

/// Writes what was put off to the end of the batch.
macro_rules! write_late {
    ($tx:expr, $late:expr, $taken:expr) => {{
        use $crate::store::sql::{events, journal, traces, usage};
        let mut late = $late;
        let runs = late.take_runs();
        journal::create_runs!($tx, runs, $taken);
        journal::insert_many!(
            $tx,
            late.frames,
            "run_frames (tenant_id, run_id, first_frame, frames)",
            " ON CONFLICT DO NOTHING",
            |values, row| {
                values
                    .push_bind(row.tenant_id)
                    .push_bind(row.run_id)
                    .push_bind(row.first)
                    .push_bind(row.frames);
            }
        );
        events::add_events!($tx, late.events);
        traces::add_traces!($tx, late.traces, late.spans);
        usage::insert_usage_events!($tx, late.ledger);
    }};
}

macro_rules! insert_frames {
    ($tx:expr, $tenant:expr, $run:expr, $node:expr, $first:expr, $frames:expr) => {
        sqlx::query($crate::store::sql::journal::INSERT_FRAMES)
            .bind($tenant)
            .bind($run)
            .bind($first)
            .bind($frames)
            .bind($node)
            .execute(&mut *$tx)
            .await?
    };
}

/// The end of a run, with all that it causes: its last frames, its event and the deliveries of
/// it, its trace, its entry in the ledger.
macro_rules! end_run {
    ($tx:expr, $late:expr, $end:expr) => {{
        let ended = sqlx::query(
            "UPDATE runs SET status = $3, transcript = $4, output = $5, stop_reason = $6, \
             error_code = $7, error = $8, warnings = $9, token_usage = $10, updated_at = $11 \
             WHERE tenant_id = $1 AND id = $2 AND status IN ('queued', 'running') \
             AND node_id = $12",
        )
        .bind(&$end.tenant_id)
        .bind(&$end.id)
        .bind($end.status)
        .bind(&$end.transcript)
        .bind(&$end.output)
        .bind($end.stop_reason)
        .bind(&$end.error_code)
        .bind(&$end.error)
        .bind(&$end.warnings)
        .bind(&$end.token_usage)
        .bind($end.updated_at)
        .bind(&*$end.node_id)
        .execute(&mut *$tx)
        .await?;
        if ended.rows_affected() > 0 {
            if $end.has_state {
                $crate::store::sql::journal::forget_state!($tx, $end);
            }
            if let Some((first, frames)) = &$end.frames {
                $late.frames.push($crate::store::sql::journal::LastFrames {
                    tenant_id: &$end.tenant_id,
                    run_id: &$end.id,
                    first: *first,
                    frames,
                });
            }
            $late.events.extend(&$end.event);
            if let Some(record) = &$end.trace {
                $late.traces.push(&record.trace);
                $late.spans.extend(&record.spans);
            }
            $late.ledger.extend(&$end.ledger);
        }
        ended
    }};
}

/// A run that has ended is not gone on with, and nobody is asked any more.
macro_rules! forget_state {
    ($tx:expr, $end:expr) => {
        sqlx::query("DELETE FROM run_states WHERE tenant_id = $1 AND run_id = $2")
            .bind(&$end.tenant_id)
            .bind(&$end.id)
            .execute(&mut *$tx)
            .await?;
        sqlx::query(
            "UPDATE approvals SET status = 'cancelled', resolved_at = $3 \
             WHERE tenant_id = $1 AND run_id = $2 AND status = 'pending'",
        )
        .bind(&$end.tenant_id)
        .bind(&$end.id)
        .bind($end.updated_at)
        .execute(&mut *$tx)
        .await?;
    };
}

macro_rules! put_state {
    ($tx:expr, $run:expr, $tenant:expr, $base:expr, $progress:expr) => {
        sqlx::query(
            "INSERT INTO run_states (run_id, tenant_id, base, progress) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (run_id) DO UPDATE SET progress = excluded.progress",
        )
        .bind($run)
        .bind($tenant)
        .bind($base)
        .bind($progress)
        .execute(&mut *$tx)
        .await?
    };
}

/// How far a run is, with all that goes with it; affects nothing when the run is another node's.
macro_rules! checkpoint {
    ($tx:expr, $point:expr) => {{
        let touched =
            match &$point.pause {
                None => {
                    sqlx::query(
                        "UPDATE runs SET updated_at = $4 WHERE tenant_id = $1 AND id = $2 \
                 AND node_id = $3 AND status = 'running'",
                    )
                    .bind(&$point.tenant_id)
                    .bind(&$point.run_id)
                    .bind(&*$point.node_id)
                    .bind($point.updated_at)
                    .execute(&mut *$tx)
                    .await?
                }
                Some(pause) => sqlx::query(
                    "UPDATE runs SET updated_at = $4, status = $5, transcript = $6, output = $7, \
                 warnings = $8, token_usage = $9 WHERE tenant_id = $1 AND id = $2 \
                 AND node_id = $3 AND status = 'running'",
                )
                .bind(&$point.tenant_id)
                .bind(&$point.run_id)
                .bind(&*$point.node_id)
                .bind($point.updated_at)
                .bind(pause.status)
                .bind(&pause.transcript)
                .bind(&pause.output)
                .bind(&pause.warnings)
                .bind(&pause.token_usage)
                .execute(&mut *$tx)
                .await?,
            };
        if touched.rows_affected() > 0 {
            match &$point.base {
                Some(base) => {
                    $crate::store::sql::journal::put_state!(
                        $tx,
                        &$point.run_id,
                        &$point.tenant_id,
                        base,
                        &$point.progress
                    );
                }
                None => {
                    sqlx::query(
                        "UPDATE run_states SET progress = $3 WHERE tenant_id = $1 AND run_id = $2",
                    )
                    .bind(&$point.tenant_id)
                    .bind(&$point.run_id)
                    .bind(&$point.progress)
                    .execute(&mut *$tx)
                    .await?;
                }
            }
            if let Some((first, frames)) = &$point.frames {
                $crate::store::sql::journal::insert_frames!(
                    $tx,
                    &$point.tenant_id,
                    &$point.run_id,
                    &*$point.node_id,
                    first,
                    frames
                );
            }
            $crate::store::sql::events::add_events!($tx, $point.events);
            for approval in $point.pause.iter().flat_map(|pause| &pause.approvals) {
                $crate::store::sql::approvals::add_approval!(&mut *$tx, approval);
            }
        }
        touched
    }};
}

/// Adds tokens and money to the sums of a day and of a month.
macro_rules! add_usage {
    ($tx:expr, $usage:expr) => {{
        sqlx::query(
            "INSERT INTO usage_daily (tenant_id, day, provider, model, calls, input, output, \
             cache_read, cache_write, reasoning) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (tenant_id, day, provider, model) DO UPDATE SET \
             calls = usage_daily.calls + excluded.calls, \
             input = usage_daily.input + excluded.input, \
             output = usage_daily.output + excluded.output, \
             cache_read = usage_daily.cache_read + excluded.cache_read, \
             cache_write = usage_daily.cache_write + excluded.cache_write, \
             reasoning = usage_daily.reasoning + excluded.reasoning",
        )
        .bind(&$usage.tenant_id)
        .bind(&$usage.day)
        .bind(&$usage.provider)
        .bind(&$usage.model)
        .bind($usage.calls)
        .bind($usage.input)
        .bind($usage.output)
        .bind($usage.cache_read)
        .bind($usage.cache_write)
        .bind($usage.reasoning)
        .execute(&mut *$tx)
        .await?;
        for (scope, scope_id) in [
            ("tenant", ""),
            ("agent", $usage.agent_id.as_str()),
            ("smith", $usage.smith_id.as_str()),
            ("customer", $usage.customer_id.as_str()),
        ] {
            if $usage.cost == 0 || (scope_id.is_empty() && scope != "tenant") {
                continue;
            }
            sqlx::query(
                "INSERT INTO spend (tenant_id, period, scope, scope_id, cost) \
                 VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (tenant_id, period, scope, scope_id) DO UPDATE SET \
                 cost = spend.cost + excluded.cost",
            )
            .bind(&$usage.tenant_id)
            .bind($usage.period())
            .bind(scope)
            .bind(scope_id)
            .bind($usage.cost)
            .execute(&mut *$tx)
            .await?;
        }
        sqlx::query(
            "INSERT INTO usage_by_smith (tenant_id, day, smith_id, agent_id, customer_id, \
             provider, model, calls, input, output, cache_read, cache_write, reasoning, cost) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
             ON CONFLICT (tenant_id, day, smith_id, agent_id, customer_id, provider, model) \
             DO UPDATE SET calls = usage_by_smith.calls + excluded.calls, \
             input = usage_by_smith.input + excluded.input, \
             output = usage_by_smith.output + excluded.output, \
             cache_read = usage_by_smith.cache_read + excluded.cache_read, \
             cache_write = usage_by_smith.cache_write + excluded.cache_write, \
             reasoning = usage_by_smith.reasoning + excluded.reasoning, \
             cost = usage_by_smith.cost + excluded.cost",
        )
        .bind(&$usage.tenant_id)
        .bind(&$usage.day)
        .bind(&$usage.smith_id)
        .bind(&$usage.agent_id)
        .bind(&$usage.customer_id)
        .bind(&$usage.provider)
        .bind(&$usage.model)
        .bind($usage.calls)
        .bind($usage.input)
        .bind($usage.output)
        .bind($usage.cache_read)
        .bind($usage.cache_write)
        .bind($usage.reasoning)
        .bind($usage.cost)
        .execute(&mut *$tx)
        .await?
    }};
}

/// Applies one entry; tells whether it took. New runs are put off until the end of the batch, or
/// until another entry is about one of them.
macro_rules! apply_op {
    ($tx:expr, $late:expr, $taken:expr, $op:expr) => {{
        use $crate::store::sql::journal;
        if $late.has_run_of($op) {
            let runs = $late.take_runs();
            journal::create_runs!($tx, runs, $taken);
        }
        let done = match $op {
            Op::Barrier => None,
            Op::CreateRun(run, base) => {
                $late.create($taken.len(), run, base.as_deref());
                None
            }
            Op::Checkpoint(point) => Some(journal::checkpoint!($tx, point)),
            Op::Frames {
                tenant_id,
                run_id,
                node_id,
                first,
                frames,
            } => Some(journal::insert_frames!(
                $tx,
                &**tenant_id,
                &**run_id,
                &**node_id,
                first,
                frames
            )),
            Op::EndRun(end) => Some(journal::end_run!($tx, $late, end)),
            Op::Usage(usage) => Some(journal::add_usage!($tx, usage)),
            Op::Event(event) => {
                $late.events.push(&**event);
                None
            }
        };
        done.is_none_or(|done| done.rows_affected() > 0)
    }};
}

pub(in crate::store) use {
    add_usage, apply_op, checkpoint, create_runs, end_run, forget_state, insert_frames,
    insert_many, put_state, write_late,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_powers_of_two_and_hold_all() {
        for count in 0..300 {
            let rows: Vec<usize> = (0..count).collect();
            let lengths: Vec<usize> = chunks(&rows).map(<[usize]>::len).collect();
            assert!(
                lengths
                    .iter()
                    .all(|n| n.is_power_of_two() && *n <= MAX_ROWS)
            );
            assert_eq!(chunks(&rows).flatten().copied().collect::<Vec<_>>(), rows);
        }
    }
}
