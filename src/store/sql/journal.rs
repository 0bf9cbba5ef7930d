//! Writes of the journal: one entry into the transaction of its batch.

pub(in crate::store) const INSERT_FRAMES: &str = "INSERT INTO run_frames (tenant_id, run_id, \
     first_frame, frames) SELECT $1, $2, $3, $4 WHERE EXISTS (SELECT 1 FROM runs \
     WHERE tenant_id = $1 AND id = $2 AND node_id = $5) ON CONFLICT DO NOTHING";

/// The row of a new run; affects none when its thread is held.
macro_rules! create_run {
    ($tx:expr, $run:expr) => {
        sqlx::query(
            "INSERT INTO runs (id, tenant_id, smith_id, agent_id, thread_id, channel, status, \
             exclusive, include_mask, input, warnings, metadata, actor, node_id, lease_until, \
             created_at, updated_at, previous_run_id, response) VALUES ($1, $2, $3, $4, $5, $6, \
             $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
             ON CONFLICT DO NOTHING",
        )
        .bind(&$run.id)
        .bind(&$run.tenant_id)
        .bind(&$run.smith_id)
        .bind(&$run.agent_id)
        .bind(&$run.thread_id)
        .bind(&$run.channel)
        .bind(&$run.status)
        .bind($run.exclusive)
        .bind($run.include_mask)
        .bind(&$run.input)
        .bind(&$run.warnings)
        .bind(&$run.metadata)
        .bind(&$run.actor)
        .bind(&$run.node_id)
        .bind($run.lease_until)
        .bind($run.created_at)
        .bind($run.updated_at)
        .bind(&$run.previous_run_id)
        .bind(&$run.response)
        .execute(&mut *$tx)
        .await?
    };
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
    ($tx:expr, $end:expr) => {{
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
                $crate::store::sql::journal::insert_frames!(
                    $tx,
                    &$end.tenant_id,
                    &$end.id,
                    &*$end.node_id,
                    first,
                    frames
                );
            }
            if let Some(event) = &$end.event {
                $crate::store::sql::events::add_event!(&mut *$tx, event);
            }
            if let Some(record) = &$end.trace {
                $crate::store::sql::traces::add_trace!($tx, record);
            }
            if let Some(entry) = &$end.ledger {
                $crate::store::sql::usage::insert_usage_event!(&mut *$tx, entry);
            }
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
            for event in &$point.events {
                $crate::store::sql::events::add_event!(&mut *$tx, event);
            }
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

/// Applies one entry; tells whether it took.
macro_rules! apply_op {
    ($tx:expr, $op:expr) => {{
        use $crate::store::sql::{events, journal};
        let done = match $op {
            Op::Barrier => None,
            Op::CreateRun(run, base) => {
                let created = journal::create_run!($tx, run);
                if let Some(base) = base
                    && created.rows_affected() > 0
                {
                    journal::put_state!($tx, &run.id, &run.tenant_id, base, "");
                }
                Some(created)
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
            Op::EndRun(end) => Some(journal::end_run!($tx, end)),
            Op::Usage(usage) => Some(journal::add_usage!($tx, usage)),
            Op::Event(event) => {
                events::add_event!(&mut *$tx, event);
                None
            }
        };
        done.is_none_or(|done| done.rows_affected() > 0)
    }};
}

pub(in crate::store) use {
    add_usage, apply_op, checkpoint, create_run, end_run, forget_state, insert_frames, put_state,
};
