//! Queries: lanes and the turns in them.

/// Tenants above `$after` that have rows of a table to work on, each found by one look at an index.
macro_rules! tenants_with {
    ($pool:expr, $table:literal, $when:literal, $after:expr, $limit:expr) => {
        sqlx::query_scalar(concat!(
            "WITH RECURSIVE found (tenant_id) AS (SELECT (SELECT tenant_id FROM ",
            $table,
            " WHERE tenant_id > $1",
            $when,
            " ORDER BY tenant_id LIMIT 1) UNION ALL SELECT (SELECT t.tenant_id FROM ",
            $table,
            " t WHERE t.tenant_id > found.tenant_id",
            $when,
            " ORDER BY t.tenant_id LIMIT 1) FROM found WHERE found.tenant_id IS NOT NULL) \
             SELECT tenant_id FROM found WHERE tenant_id IS NOT NULL LIMIT $2"
        ))
        .bind($after)
        .bind($limit)
        .fetch_all($pool)
        .await?
    };
}

/// Puts a turn at the end of its lane in a transaction; `false` when one with its id is there.
macro_rules! enqueue_turn {
    ($tx:expr, $turn:expr) => {{
        // The lane's row is locked first, so that places are given in order.
        let place: i64 = sqlx::query_scalar(
            "INSERT INTO lanes (tenant_id, smith_id, thread_id, due_at, arrived) \
             VALUES ($1, $2, $3, $4, 1) ON CONFLICT (tenant_id, smith_id, thread_id) \
             DO UPDATE SET arrived = lanes.arrived + 1, due_at = CASE \
             WHEN lanes.node_id = '' AND excluded.due_at < lanes.due_at THEN excluded.due_at \
             ELSE lanes.due_at END RETURNING arrived",
        )
        .bind(&$turn.tenant_id)
        .bind(&$turn.smith_id)
        .bind(&$turn.thread_id)
        .bind($turn.created_at)
        .fetch_one(&mut *$tx)
        .await?;
        sqlx::query(
            "INSERT INTO queued_turns (id, tenant_id, smith_id, thread_id, place, channel, \
             source_id, turns, input, context, metadata, actor, reply_to, chat, message, rule, \
             run_id, status, reason, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, \
             $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) \
             ON CONFLICT DO NOTHING",
        )
        .bind(&$turn.id)
        .bind(&$turn.tenant_id)
        .bind(&$turn.smith_id)
        .bind(&$turn.thread_id)
        .bind(place)
        .bind(&$turn.channel)
        .bind(&$turn.source_id)
        .bind(&$turn.turns)
        .bind(&$turn.input)
        .bind(&$turn.context)
        .bind(&$turn.metadata)
        .bind(&$turn.actor)
        .bind(&$turn.reply_to)
        .bind(&$turn.chat)
        .bind(&$turn.message)
        .bind(&$turn.rule)
        .bind(&$turn.run_id)
        .bind(&$turn.status)
        .bind(&$turn.reason)
        .bind($turn.created_at)
        .bind($turn.updated_at)
        .execute(&mut *$tx)
        .await?
        .rows_affected()
            > 0
    }};
}

/// Puts a message into the outbox for the turn that a run answers, where that came from a channel;
/// within the transaction that ends or pauses the run. The last of several turns is answered.
macro_rules! answer_turn {
    ($tx:expr, $id:expr, $tenant_id:expr, $run_id:expr, $kind:literal, $content:expr, $now:expr) => {
        sqlx::query(concat!(
            "INSERT INTO outbound_messages (id, tenant_id, smith_id, deployment_id, channel, \
             chat, run_id, kind, reply_to, content, status, due_at, created_at, updated_at) \
             SELECT $3, tenant_id, smith_id, source_id, channel, chat, run_id, '",
            $kind,
            "', reply_to, $4, 'pending', $5, $5, $5 FROM queued_turns \
             WHERE tenant_id = $1 AND run_id = $2 AND reply_to IS NOT NULL \
             AND chat IS NOT NULL ORDER BY place DESC LIMIT 1 ON CONFLICT DO NOTHING"
        ))
        .bind($tenant_id)
        .bind($run_id)
        .bind($id)
        .bind($content)
        .bind($now)
        .execute(&mut *$tx)
        .await?
    };
}

/// Marks the turns of runs that have ended, and has their lanes looked at; within the transaction that
/// ends the runs. `$ends`: tenant, run and time.
macro_rules! end_turns_of_runs {
    ($tx:expr, $ends:expr) => {
        for (tenant_id, run_id, now) in $ends {
            let lanes: Vec<(String, String)> = sqlx::query_as(
                "UPDATE queued_turns SET status = 'done', updated_at = $3 \
                 WHERE tenant_id = $1 AND run_id = $2 AND status IN ('queued', 'running') \
                 RETURNING smith_id, thread_id",
            )
            .bind(tenant_id)
            .bind(run_id)
            .bind(now)
            .fetch_all(&mut *$tx)
            .await?;
            if let Some((smith_id, thread_id)) = lanes.first() {
                // Whoever holds the lane now has looked before this.
                let id = $crate::ids::beside(
                    $crate::ids::Kind::Outbound,
                    $crate::ids::Kind::Run,
                    run_id,
                );
                let none = None::<&str>;
                $crate::store::sql::lanes::answer_turn!(
                    $tx, id, tenant_id, run_id, "answer", none, now
                );
                sqlx::query(
                    "UPDATE lanes SET arrived = arrived + 1, due_at = CASE WHEN node_id = '' \
                     AND due_at > $4 THEN $4 ELSE due_at END WHERE tenant_id = $1 \
                     AND smith_id = $2 AND thread_id = $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(thread_id)
                .bind(now)
                .execute(&mut *$tx)
                .await?;
            }
        }
    };
}

/// Writes a status of turns whose lane is this node's; `false` when it is not.
macro_rules! mark_turns {
    ($store:expr, $lane:expr, $node_id:expr, $turns:expr, $sql:literal, $run_id:expr, $now:expr) => {{
        let mut tx = $store.write.begin().await?;
        let held = sqlx::query(
            "UPDATE lanes SET node_id = node_id WHERE tenant_id = $1 AND smith_id = $2 \
             AND thread_id = $3 AND node_id = $4",
        )
        .bind(&$lane.tenant_id)
        .bind(&$lane.smith_id)
        .bind(&$lane.thread_id)
        .bind($node_id)
        .execute(&mut *tx)
        .await?;
        if held.rows_affected() == 0 {
            return Ok(false);
        }
        for id in $turns {
            let mut query = sqlx::query($sql).bind(&$lane.tenant_id).bind(id).bind($now);
            let run_id: Option<&str> = $run_id;
            if let Some(run_id) = run_id {
                query = query.bind(run_id);
            }
            query.execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }};
}

macro_rules! impl_lanes {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::LaneStore for $store {
            async fn enqueue_turn(&self, turn: &QueuedTurnRow) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let is_new = $crate::store::sql::lanes::enqueue_turn!(tx, turn);
                if is_new {
                    tx.commit().await?;
                }
                Ok(is_new)
            }

            async fn tenants_with_lanes(&self, after: &str, limit: i64) -> Result<Vec<String>> {
                Ok($crate::store::sql::lanes::tenants_with!(
                    &self.read, "lanes", "", after, limit
                ))
            }

            async fn claim_lanes(
                &self,
                tenant_id: &str,
                node_id: &str,
                now: i64,
                hold_until: i64,
                limit: i64,
            ) -> Result<Vec<LaneRow>> {
                let due: Vec<(String, String, i64)> = sqlx::query_as(
                    "SELECT smith_id, thread_id, due_at FROM lanes \
                     WHERE tenant_id = $1 AND due_at <= $2 ORDER BY due_at LIMIT $3",
                )
                .bind(tenant_id)
                .bind(now)
                .bind(limit)
                .fetch_all(&self.read)
                .await?;
                if due.is_empty() {
                    return Ok(Vec::new());
                }
                let mut taken = Vec::with_capacity(due.len());
                let mut tx = self.write.begin().await?;
                for (smith_id, thread_id, due_at) in due {
                    // Of two nodes that saw it, one finds it as it was.
                    let lane: Option<LaneRow> = sqlx::query_as(
                        "UPDATE lanes SET node_id = $5, due_at = $6, takings = takings + 1 \
                         WHERE tenant_id = $1 AND smith_id = $2 AND thread_id = $3 \
                         AND due_at = $4 RETURNING tenant_id, smith_id, thread_id, takings, \
                         arrived",
                    )
                    .bind(tenant_id)
                    .bind(smith_id)
                    .bind(thread_id)
                    .bind(due_at)
                    .bind(node_id)
                    .bind(hold_until)
                    .fetch_optional(&mut *tx)
                    .await?;
                    taken.extend(lane);
                }
                tx.commit().await?;
                Ok(taken)
            }

            async fn lane_turns(&self, lane: &LaneRow, limit: i64) -> Result<Vec<QueuedTurnRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM queued_turns WHERE tenant_id = $1 AND smith_id = $2 \
                     AND thread_id = $3 AND status IN ('queued', 'running') \
                     ORDER BY place LIMIT $4",
                )
                .bind(&lane.tenant_id)
                .bind(&lane.smith_id)
                .bind(&lane.thread_id)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn begin_turns(
                &self,
                lane: &LaneRow,
                node_id: &str,
                turns: &[String],
                run_id: &str,
                now: i64,
            ) -> Result<bool> {
                $crate::store::sql::lanes::mark_turns!(
                    self,
                    lane,
                    node_id,
                    turns,
                    "UPDATE queued_turns SET status = 'running', run_id = $4, updated_at = $3 \
                     WHERE tenant_id = $1 AND id = $2 AND status = 'queued'",
                    Some(run_id),
                    now
                )
            }

            async fn requeue_turns(
                &self,
                lane: &LaneRow,
                node_id: &str,
                turns: &[String],
                now: i64,
            ) -> Result<bool> {
                $crate::store::sql::lanes::mark_turns!(
                    self,
                    lane,
                    node_id,
                    turns,
                    "UPDATE queued_turns SET status = 'queued', updated_at = $3 \
                     WHERE tenant_id = $1 AND id = $2 AND status = 'running'",
                    None,
                    now
                )
            }

            async fn end_turn(
                &self,
                tenant_id: &str,
                id: &str,
                end: TurnEnd,
                reason: Option<&str>,
                told: Option<(&EventRow, &str)>,
                now: i64,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "UPDATE queued_turns SET status = $3, reason = $4, updated_at = $5 \
                     WHERE tenant_id = $1 AND id = $2 AND status IN ('queued', 'running')",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(end.as_str())
                .bind(reason)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                if let Some((event, notice)) = told {
                    let events = [event];
                    $crate::store::sql::events::add_events!(tx, events);
                    let message = $crate::ids::beside(
                        $crate::ids::Kind::Outbound,
                        $crate::ids::Kind::QueuedTurn,
                        id,
                    );
                    sqlx::query(
                        "INSERT INTO outbound_messages (id, tenant_id, smith_id, deployment_id, \
                         channel, chat, kind, reply_to, content, status, due_at, created_at, \
                         updated_at) SELECT $3, tenant_id, smith_id, source_id, channel, chat, \
                         'notice', reply_to, $4, 'pending', $5, $5, $5 FROM queued_turns \
                         WHERE tenant_id = $1 AND id = $2 AND reply_to IS NOT NULL \
                         AND chat IS NOT NULL ON CONFLICT DO NOTHING",
                    )
                    .bind(tenant_id)
                    .bind(id)
                    .bind(message)
                    .bind(notice)
                    .bind(now)
                    .execute(&mut *tx)
                    .await?;
                }
                tx.commit().await?;
                Ok(true)
            }

            async fn release_lane(
                &self,
                lane: &LaneRow,
                node_id: &str,
                due_at: i64,
                now: i64,
            ) -> Result<()> {
                let mut tx = self.write.begin().await?;
                sqlx::query(
                    "UPDATE lanes SET node_id = '', takings = 0, due_at = CASE \
                     WHEN arrived > $5 THEN $7 ELSE $6 END WHERE tenant_id = $1 \
                     AND smith_id = $2 AND thread_id = $3 AND node_id = $4",
                )
                .bind(&lane.tenant_id)
                .bind(&lane.smith_id)
                .bind(&lane.thread_id)
                .bind(node_id)
                .bind(lane.arrived)
                .bind(due_at)
                .bind(now)
                .execute(&mut *tx)
                .await?;
                sqlx::query(
                    "DELETE FROM lanes WHERE tenant_id = $1 AND smith_id = $2 \
                     AND thread_id = $3 AND node_id = '' AND arrived = $4 AND NOT EXISTS (SELECT 1 \
                     FROM queued_turns t WHERE t.tenant_id = $1 AND t.smith_id = $2 \
                     AND t.thread_id = $3 AND t.status IN ('queued', 'running'))",
                )
                .bind(&lane.tenant_id)
                .bind(&lane.smith_id)
                .bind(&lane.thread_id)
                // One that comes meanwhile is not seen by the subquery, but counted.
                .bind(lane.arrived)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(())
            }

            async fn hold_lane(
                &self,
                lane: &LaneRow,
                node_id: &str,
                until: i64,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE lanes SET due_at = $5 WHERE tenant_id = $1 AND smith_id = $2 \
                     AND thread_id = $3 AND node_id = $4",
                )
                .bind(&lane.tenant_id)
                .bind(&lane.smith_id)
                .bind(&lane.thread_id)
                .bind(node_id)
                .bind(until)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn release_all_held(&self, now: i64) -> Result<()> {
                for query in [
                    "UPDATE lanes SET node_id = '', due_at = $1 WHERE node_id <> ''",
                    "UPDATE inbound_events SET due_at = $1 \
                     WHERE due_at IS NOT NULL AND due_at > $1 AND takings > 0",
                    "UPDATE outbound_messages SET due_at = $1 \
                     WHERE due_at IS NOT NULL AND due_at > $1 AND takings > 0",
                ] {
                    sqlx::query(query).bind(now).execute(&self.write).await?;
                }
                Ok(())
            }

            async fn release_lanes_of(&self, node_id: &str, now: i64) -> Result<()> {
                sqlx::query("UPDATE lanes SET node_id = '', takings = 0, due_at = $2 WHERE node_id = $1")
                    .bind(node_id)
                    .bind(now)
                    .execute(&self.write)
                    .await?;
                Ok(())
            }

            async fn turns_of_run(
                &self,
                tenant_id: &str,
                run_id: &str,
            ) -> Result<Vec<QueuedTurnRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM queued_turns WHERE tenant_id = $1 AND run_id = $2 \
                     ORDER BY place LIMIT 100",
                )
                .bind(tenant_id)
                .bind(run_id)
                .fetch_all(&self.read)
                .await?)
            }

            async fn running_turn(
                &self,
                tenant_id: &str,
                smith_id: &str,
                thread_id: &str,
            ) -> Result<Option<QueuedTurnRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM queued_turns WHERE tenant_id = $1 AND smith_id = $2 \
                     AND thread_id = $3 AND status IN ('queued', 'running') \
                     AND status = 'running' ORDER BY place LIMIT 1",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(thread_id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn note_draft(
                &self,
                tenant_id: &str,
                id: &str,
                draft: &str,
                now: i64,
            ) -> Result<()> {
                sqlx::query(
                    "UPDATE queued_turns SET draft = $3, updated_at = $4 \
                     WHERE tenant_id = $1 AND id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .bind(draft)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(())
            }

            async fn waits_in_lane(
                &self,
                tenant_id: &str,
                smith_id: &str,
                thread_id: &str,
                message: &str,
            ) -> Result<bool> {
                let found: Option<i64> = sqlx::query_scalar(
                    "SELECT place FROM queued_turns WHERE tenant_id = $1 AND smith_id = $2 \
                     AND thread_id = $3 AND status IN ('queued', 'running') \
                     AND status = 'queued' AND message = $4 LIMIT 1",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(thread_id)
                .bind(message)
                .fetch_optional(&self.read)
                .await?;
                Ok(found.is_some())
            }

            async fn queued_turn(
                &self,
                tenant_id: &str,
                id: &str,
            ) -> Result<Option<QueuedTurnRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM queued_turns WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }
        }
    };
}

pub(in crate::store) use {
    answer_turn, end_turns_of_runs, enqueue_turn, impl_lanes, mark_turns, tenants_with,
};
