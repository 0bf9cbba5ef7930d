//! What a batch of the journal writes of many runs alike, in statements of many rows.

use std::collections::HashSet;

use crate::store::{EventRow, Op, RunEnd, RunRow, SpanRow, TraceRow, UsageEventRow};

/// Frames of a run whose row says that it may have them.
pub(in crate::store) struct Frames<'a> {
    pub tenant_id: &'a str,
    pub run_id: &'a str,
    pub first: i64,
    pub frames: &'a [u8],
}

/// Frames of a run that may be another node's by now.
pub(in crate::store) struct PartFrames<'a> {
    pub part: Frames<'a>,
    pub node_id: &'a str,
}

/// The place of its entry, a new run, and what it takes to begin it again.
pub(in crate::store) type NewRun<'a> = (usize, &'a RunRow, Option<&'a str>);

/// The place of its entry, and how a run ended.
pub(in crate::store) type EndedRun<'a> = (usize, &'a RunEnd);

/// Rows of a batch that nothing else in it waits for.
#[derive(Default)]
pub(in crate::store) struct PutOff<'a> {
    runs: Vec<NewRun<'a>>,
    ends: Vec<EndedRun<'a>>,
    /// Of both.
    ids: HashSet<&'a str>,
    pub parts: Vec<PartFrames<'a>>,
    pub frames: Vec<Frames<'a>>,
    pub events: Vec<&'a EventRow>,
    pub traces: Vec<&'a TraceRow>,
    pub spans: Vec<&'a SpanRow>,
    pub ledger: Vec<&'a UsageEventRow>,
}

impl<'a> PutOff<'a> {
    /// Puts a new run off; `at` is the place of its entry.
    pub fn create(&mut self, at: usize, run: &'a RunRow, base: Option<&'a str>) {
        self.ids.insert(&run.id);
        self.runs.push((at, run, base));
    }

    /// Puts the end of a run off, which is not itself put off.
    pub fn end(&mut self, at: usize, end: &'a RunEnd) {
        self.ids.insert(&end.id);
        self.ends.push((at, end));
    }

    /// Whether `op` must find in its place a run that was put off, or whose end was.
    pub fn must_come_before(&self, op: &Op) -> bool {
        let id = match op {
            Op::Checkpoint(point) => &point.run_id,
            Op::EndRun(end) => &end.id,
            Op::CreateRun(run, _) => &run.id,
            Op::Frames { .. } | Op::Usage(_) | Op::Event(_) | Op::Barrier => return false,
        };
        self.ids.contains(id.as_str())
    }

    /// Frames, with the number of the first, of a run that was seen to be this node's.
    pub fn add_frames(
        &mut self,
        tenant_id: &'a str,
        run_id: &'a str,
        frames: &'a Option<(i64, Vec<u8>)>,
    ) {
        if let Some((first, frames)) = frames {
            self.frames.push(Frames {
                tenant_id,
                run_id,
                first: *first,
                frames,
            });
        }
    }

    /// What goes with the end of a run.
    pub fn add_end(&mut self, end: &'a RunEnd) {
        self.add_frames(&end.tenant_id, &end.id, &end.frames);
        self.events.extend(&end.event);
        if let Some(record) = &end.trace {
            self.traces.push(&record.trace);
            self.spans.extend(&record.spans);
        }
        self.ledger.extend(&end.ledger);
    }

    /// Takes out the runs that were put off, and the ends.
    pub fn take_runs(&mut self) -> (Vec<NewRun<'a>>, Vec<EndedRun<'a>>) {
        self.ids.clear();
        (
            std::mem::take(&mut self.runs),
            std::mem::take(&mut self.ends),
        )
    }
}

/// The ends of runs; returns the ids of those that were live.
macro_rules! end_runs {
    ($tx:expr, $script:expr, $ends:expr, $ids:expr) => {
        for ends in $script.chunks(&$ends) {
            let query = $script.statement(
                "WITH ends (tenant_id, id, node_id, status, transcript, output, stop_reason, \
                 error_code, error, warnings, token_usage, updated_at) AS (",
            );
            query.push_values(ends, |mut values, (_, end)| {
                values
                    .push_bind(&end.tenant_id)
                    .push_bind(&end.id)
                    .push_bind(&*end.node_id)
                    .push_bind(end.status)
                    .push_bind(&end.transcript)
                    .push_bind(&end.output)
                    .push_bind(end.stop_reason)
                    .push_bind(&end.error_code)
                    .push_bind(&end.error)
                    .push_bind(&end.warnings)
                    .push_bind(&end.token_usage)
                    .push_bind(end.updated_at);
            });
            query.push(
                ") UPDATE runs SET status = ends.status, transcript = ends.transcript, \
                 output = ends.output, stop_reason = ends.stop_reason, \
                 error_code = ends.error_code, error = ends.error, warnings = ends.warnings, \
                 token_usage = ends.token_usage, updated_at = ends.updated_at FROM ends \
                 WHERE runs.tenant_id = ends.tenant_id AND runs.id = ends.id \
                 AND runs.node_id = ends.node_id AND runs.status IN ('queued', 'running') \
                 RETURNING runs.id",
            );
            $crate::store::sql::script::send_for_ids!($tx, $script, false, $ids);
        }
    };
}

/// The rows of new runs; returns the ids of those whose threads were free, and as they were seen.
macro_rules! create_runs {
    ($tx:expr, $script:expr, $runs:expr, $ids:expr) => {
        for runs in $script.chunks(&$runs) {
            let query = $script.statement(
                "INSERT INTO runs (id, tenant_id, smith_id, agent_id, thread_id, channel, \
                 status, exclusive, include_mask, input, warnings, metadata, actor, node_id, \
                 lease_until, created_at, updated_at, previous_run_id, response, turn) ",
            );
            query.push_values(runs, |mut values, (_, run, _)| {
                values
                    .push_bind(&run.id)
                    .push_bind(&run.tenant_id)
                    .push_bind(&run.smith_id)
                    .push_bind(&run.agent_id)
                    .push_bind(&run.thread_id)
                    .push_bind(&run.channel)
                    .push_bind(run.status)
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
                    .push_bind(&run.response)
                    .push_bind(run.turn);
            });
            query.push(" ON CONFLICT DO NOTHING RETURNING id");
            $crate::store::sql::script::send_for_ids!($tx, $script, false, $ids);
        }
    };
}

/// Runs that have ended are not gone on with, and nobody is asked any more.
macro_rules! forget_states {
    ($tx:expr, $script:expr, $ends:expr) => {
        for ends in $script.chunks(&$ends) {
            let query = $script.statement("DELETE FROM run_states WHERE (tenant_id, run_id) IN (");
            query.push_values(ends.clone(), |mut values, end| {
                values.push_bind(&end.tenant_id).push_bind(&end.id);
            });
            query.push(")");
            $crate::store::sql::script::send!($tx, $script, false);
            let query = $script.statement("WITH ends (tenant_id, run_id, ended_at) AS (");
            query.push_values(ends, |mut values, end| {
                values
                    .push_bind(&end.tenant_id)
                    .push_bind(&end.id)
                    .push_bind(end.updated_at);
            });
            query.push(
                ") UPDATE approvals SET status = 'cancelled', resolved_at = ends.ended_at \
                 FROM ends WHERE approvals.tenant_id = ends.tenant_id \
                 AND approvals.run_id = ends.run_id AND approvals.status = 'pending'",
            );
            $crate::store::sql::script::send!($tx, $script, false);
        }
    };
}

/// Writes what was put off of runs; takes `false` where a run was live no more or its thread is held.
/// Ends go first: they free the threads of new runs.
macro_rules! write_runs {
    ($tx:expr, $late:expr, $taken:expr) => {{
        use $crate::store::sql::{batch, script};
        let (runs, ends) = $late.take_runs();
        let mut ids = std::collections::HashSet::<String>::new();
        let mut query = script::Script::default();
        batch::end_runs!($tx, query, ends, ids);
        batch::create_runs!($tx, query, runs, ids);
        script::send_for_ids!($tx, query, true, ids);

        let (mut begun, mut ended, mut of_lanes) = (Vec::new(), Vec::new(), Vec::new());
        for (at, run, base) in runs {
            $taken[at] = ids.contains(&run.id);
            begun.extend(base.filter(|_| $taken[at]).map(|base| (run, base)));
        }
        for (at, end) in ends {
            $taken[at] = ids.contains(&end.id);
            if $taken[at] {
                $late.add_end(end);
                ended.extend(end.has_state.then_some(end));
                of_lanes.extend(
                    end.of_lane
                        .then_some((&end.tenant_id, &end.id, end.updated_at)),
                );
            }
        }
        let mut query = script::Script::default();
        script::insert_many!(
            $tx,
            query,
            begun,
            "run_states (run_id, tenant_id, base, progress)",
            " ON CONFLICT (run_id) DO UPDATE SET progress = excluded.progress",
            |values, row| {
                values
                    .push_bind(&row.0.id)
                    .push_bind(&row.0.tenant_id)
                    .push_bind(row.1)
                    .push_bind("");
            }
        );
        batch::forget_states!($tx, query, ended);
        script::send!($tx, query, true);
        $crate::store::sql::lanes::end_turns_of_runs!($tx, of_lanes);
    }};
}

/// Frames of runs that are this node's still.
macro_rules! write_parts {
    ($tx:expr, $script:expr, $parts:expr) => {
        for parts in $script.chunks(&$parts) {
            let query = $script
                .statement("WITH parts (tenant_id, run_id, first_frame, frames, node_id) AS (");
            query.push_values(parts, |mut values, row| {
                values
                    .push_bind(row.part.tenant_id)
                    .push_bind(row.part.run_id)
                    .push_bind(row.part.first)
                    .push_bind(row.part.frames)
                    .push_bind(row.node_id);
            });
            query.push(
                ") INSERT INTO run_frames (tenant_id, run_id, first_frame, frames) \
                 SELECT tenant_id, run_id, first_frame, frames FROM parts \
                 WHERE EXISTS (SELECT 1 FROM runs WHERE runs.tenant_id = parts.tenant_id \
                 AND runs.id = parts.run_id AND runs.node_id = parts.node_id) \
                 ON CONFLICT DO NOTHING",
            );
            $crate::store::sql::script::send!($tx, $script, false);
        }
    };
}

/// Writes what was put off to the end of the batch.
macro_rules! write_late {
    ($tx:expr, $late:expr, $taken:expr) => {{
        use $crate::store::sql::{batch, events, script, traces, usage};
        let mut late = $late;
        batch::write_runs!($tx, late, $taken);
        let mut query = script::Script::default();
        batch::write_parts!($tx, query, late.parts);
        script::insert_many!(
            $tx,
            query,
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
        events::write_events!($tx, query, late.events);
        traces::write_traces!($tx, query, late.traces, late.spans);
        usage::write_usage_events!($tx, query, late.ledger);
        script::send!($tx, query, true);
    }};
}

pub(in crate::store) use {
    create_runs, end_runs, forget_states, write_late, write_parts, write_runs,
};
