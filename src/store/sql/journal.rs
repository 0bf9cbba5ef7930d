//! Entries of the journal, a batch of them in one transaction. What many runs do alike is in `batch`.

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
    ($tx:expr, $late:expr, $point:expr) => {{
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
            $late.add_frames(&$point.tenant_id, &$point.run_id, &$point.frames);
            $late.events.extend(&$point.events);
            for approval in $point.pause.iter().flat_map(|pause| &pause.approvals) {
                $crate::store::sql::approvals::add_approval!(&mut *$tx, approval);
                if $point.of_lane {
                    let id = $crate::ids::beside(
                        $crate::ids::Kind::Outbound,
                        $crate::ids::Kind::Approval,
                        &approval.id,
                    );
                    $crate::store::sql::lanes::answer_turn!(
                        $tx,
                        id,
                        &$point.tenant_id,
                        &$point.run_id,
                        "approval",
                        &approval.id,
                        $point.updated_at
                    );
                }
            }
            if let (true, Some(provider)) = ($point.of_lane, &$point.wants) {
                // Once in a run, however often its tools say so.
                let seed = format!("{}:connection:{provider}", $point.run_id);
                let kind = $crate::ids::Kind::Outbound;
                let id = $crate::ids::derived(kind, &$point.run_id, &seed);
                $crate::store::sql::lanes::answer_turn!(
                    $tx,
                    id,
                    &$point.tenant_id,
                    &$point.run_id,
                    "connection",
                    provider,
                    $point.updated_at
                );
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
            ("key", $usage.key_id.as_str()),
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
        if !$usage.key_id.is_empty() {
            sqlx::query(
                "INSERT INTO usage_by_key (tenant_id, day, key_id, provider, model, calls, input, \
                 output, cache_read, cache_write, reasoning, cost) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
                 ON CONFLICT (tenant_id, day, key_id, provider, model) \
                 DO UPDATE SET calls = usage_by_key.calls + excluded.calls, \
                 input = usage_by_key.input + excluded.input, \
                 output = usage_by_key.output + excluded.output, \
                 cache_read = usage_by_key.cache_read + excluded.cache_read, \
                 cache_write = usage_by_key.cache_write + excluded.cache_write, \
                 reasoning = usage_by_key.reasoning + excluded.reasoning, \
                 cost = usage_by_key.cost + excluded.cost",
            )
            .bind(&$usage.tenant_id)
            .bind(&$usage.day)
            .bind(&$usage.key_id)
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

/// Applies one entry; tells whether it took. What many runs do alike is put off until the end of the
/// batch, or until another entry is about one of them.
macro_rules! apply_op {
    ($tx:expr, $late:expr, $taken:expr, $op:expr) => {{
        use $crate::store::sql::{batch, journal};
        if $late.must_come_before($op) {
            batch::write_runs!($tx, $late, $taken);
        }
        let done = match $op {
            Op::Barrier => None,
            Op::CreateRun(run, base) => {
                $late.create($taken.len(), run, base.as_deref());
                None
            }
            Op::Checkpoint(point) => Some(journal::checkpoint!($tx, $late, point)),
            Op::Frames {
                tenant_id,
                run_id,
                node_id,
                first,
                frames,
            } => {
                let part = batch::Frames {
                    tenant_id,
                    run_id,
                    first: *first,
                    frames,
                };
                $late.parts.push(batch::PartFrames { part, node_id });
                None
            }
            Op::EndRun(end) => {
                $late.end($taken.len(), end);
                None
            }
            Op::Usage(usage) => Some(journal::add_usage!($tx, usage)),
            Op::Event(event) => {
                $late.events.push(&**event);
                None
            }
        };
        done.is_none_or(|done| done.rows_affected() > 0)
    }};
}

/// Notes that a batch is in; `false` when it was before.
macro_rules! put_mark {
    ($tx:expr, $mark:expr, $taken:expr) => {
        sqlx::query(
            "INSERT INTO journal_marks (journal_id, batch, taken, noted_at) \
             VALUES ($1, $2, $3, $4) ON CONFLICT (journal_id) DO UPDATE SET \
             batch = excluded.batch, taken = excluded.taken, noted_at = excluded.noted_at \
             WHERE journal_marks.batch < excluded.batch",
        )
        .bind($mark.journal_id)
        .bind($mark.batch)
        .bind(
            $taken
                .iter()
                .map(|took| if *took { '1' } else { '0' })
                .collect::<String>(),
        )
        .bind($crate::store::now_micros())
        .execute(&mut *$tx)
        .await?
        .rows_affected()
            > 0
    };
}

/// What a batch answered that was in already.
macro_rules! taken_before {
    ($pool:expr, $mark:expr) => {{
        let taken: String = sqlx::query_scalar(
            "SELECT taken FROM journal_marks WHERE journal_id = $1 AND batch = $2",
        )
        .bind($mark.journal_id)
        .bind($mark.batch)
        .fetch_one($pool)
        .await?;
        Ok(taken.bytes().map(|took| took == b'1').collect())
    }};
}

pub(in crate::store) use {add_usage, apply_op, checkpoint, put_mark, put_state, taken_before};
