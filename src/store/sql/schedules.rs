//! Queries: schedules and their fires.

macro_rules! insert_fire {
    ($tx:expr, $fire:expr) => {
        sqlx::query(
            "INSERT INTO schedule_fires (id, tenant_id, schedule_id, due_at, status, missed, \
             reason, queued_turn_id, run_id, thread_id, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&$fire.id)
        .bind(&$fire.tenant_id)
        .bind(&$fire.schedule_id)
        .bind($fire.due_at)
        .bind(&$fire.status)
        .bind($fire.missed)
        .bind(&$fire.reason)
        .bind(&$fire.queued_turn_id)
        .bind(&$fire.run_id)
        .bind(&$fire.thread_id)
        .bind($fire.created_at)
        .execute(&mut *$tx)
        .await?
    };
}

macro_rules! impl_schedules {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::ScheduleStore for $store {
            async fn insert_schedule(&self, schedule: &ScheduleRow, most: i64) -> Result<bool> {
                let done = sqlx::query(
                    "INSERT INTO schedules (id, tenant_id, smith_id, name, cron, timezone, turns, \
                     input, thread_id, enabled, jitter_seconds, next_fire_at, due_at, \
                     last_fire_at, created_at) \
                     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15 \
                     WHERE (SELECT COUNT(*) FROM schedules WHERE tenant_id = $2 \
                     AND smith_id = $3) < $16",
                )
                .bind(&schedule.id)
                .bind(&schedule.tenant_id)
                .bind(&schedule.smith_id)
                .bind(&schedule.name)
                .bind(&schedule.cron)
                .bind(&schedule.timezone)
                .bind(&schedule.turns)
                .bind(&schedule.input)
                .bind(&schedule.thread_id)
                .bind(schedule.enabled)
                .bind(schedule.jitter_seconds)
                .bind(schedule.next_fire_at)
                .bind(schedule.due_at)
                .bind(schedule.last_fire_at)
                .bind(schedule.created_at)
                .bind(most)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn schedule(
                &self,
                tenant_id: &str,
                smith_id: &str,
                id: &str,
            ) -> Result<Option<ScheduleRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM schedules WHERE tenant_id = $1 AND smith_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(id)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn schedules(
                &self,
                tenant_id: &str,
                smith_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Rows<ScheduleRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM schedules WHERE tenant_id = ",
                    tenant_id,
                    [(" AND smith_id = ", &Some(smith_id))],
                    before,
                    limit,
                    within & ["turns", "input"]
                ))
            }

            async fn update_schedule(&self, schedule: &ScheduleRow) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE schedules SET name = $4, cron = $5, timezone = $6, turns = $7, \
                     input = $8, thread_id = $9, enabled = $10, jitter_seconds = $11, \
                     next_fire_at = $12, due_at = $13 \
                     WHERE tenant_id = $1 AND smith_id = $2 AND id = $3",
                )
                .bind(&schedule.tenant_id)
                .bind(&schedule.smith_id)
                .bind(&schedule.id)
                .bind(&schedule.name)
                .bind(&schedule.cron)
                .bind(&schedule.timezone)
                .bind(&schedule.turns)
                .bind(&schedule.input)
                .bind(&schedule.thread_id)
                .bind(schedule.enabled)
                .bind(schedule.jitter_seconds)
                .bind(schedule.next_fire_at)
                .bind(schedule.due_at)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn delete_schedule(
                &self,
                tenant_id: &str,
                smith_id: &str,
                id: &str,
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let done = sqlx::query(
                    "DELETE FROM schedules WHERE tenant_id = $1 AND smith_id = $2 AND id = $3",
                )
                .bind(tenant_id)
                .bind(smith_id)
                .bind(id)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query(
                    "DELETE FROM schedule_fires WHERE tenant_id = $1 AND schedule_id = $2",
                )
                .bind(tenant_id)
                .bind(id)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(true)
            }

            async fn due_schedules(&self, now: i64, limit: i64) -> Result<Vec<ScheduleRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM schedules WHERE due_at IS NOT NULL AND due_at <= $1 \
                     ORDER BY due_at LIMIT $2",
                )
                .bind(now)
                .bind(limit)
                .fetch_all(&self.read)
                .await?)
            }

            async fn fire(&self, firings: &[Firing]) -> Result<Vec<bool>> {
                let mut first = Vec::with_capacity(firings.len());
                let mut tx = self.write.begin().await?;
                for firing in firings {
                    let fire = &firing.fire;
                    let done = sqlx::query(
                        "UPDATE schedules SET next_fire_at = $4, due_at = $5, \
                         last_fire_at = COALESCE($6, last_fire_at) \
                         WHERE tenant_id = $1 AND id = $2 AND next_fire_at = $3 \
                         AND due_at IS NOT NULL",
                    )
                    .bind(&fire.tenant_id)
                    .bind(&fire.schedule_id)
                    .bind(firing.next_fire_at)
                    .bind(firing.then.map(|(at, _)| at))
                    .bind(firing.then.map(|(_, due)| due))
                    .bind(firing.turn.as_ref().map(|_| fire.due_at))
                    .execute(&mut *tx)
                    .await?;
                    let is_first = done.rows_affected() > 0;
                    first.push(is_first);
                    if !is_first {
                        continue;
                    }
                    $crate::store::sql::schedules::insert_fire!(tx, fire);
                    if let Some(turn) = &firing.turn {
                        let _ = $crate::store::sql::lanes::enqueue_turn!(tx, turn);
                    }
                    if let Some(event) = &firing.event {
                        let events = [event];
                        $crate::store::sql::events::add_events!(tx, events);
                    }
                }
                tx.commit().await?;
                Ok(first)
            }

            async fn fire_now(&self, fire: &FireRow, turn: &QueuedTurnRow) -> Result<()> {
                let mut tx = self.write.begin().await?;
                $crate::store::sql::schedules::insert_fire!(tx, fire);
                let _ = $crate::store::sql::lanes::enqueue_turn!(tx, turn);
                tx.commit().await?;
                Ok(())
            }

            async fn fires(
                &self,
                tenant_id: &str,
                schedule_id: &str,
                before: Option<&str>,
                limit: i64,
            ) -> Result<Vec<FireRow>> {
                Ok($crate::store::sql::select_page!(
                    &self.read,
                    "SELECT * FROM schedule_fires WHERE tenant_id = ",
                    tenant_id,
                    [(" AND schedule_id = ", &Some(schedule_id))],
                    before,
                    limit
                ))
            }
        }
    };
}

pub(in crate::store) use {impl_schedules, insert_fire};
