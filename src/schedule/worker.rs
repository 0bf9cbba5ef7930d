//! The worker that fires what is due.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cron::Clock;
use crate::error::ApiError;
use crate::ids;
use crate::lane::Lanes;
use crate::metrics::Metrics;
use crate::model::{Part, Role, Turn};
use crate::store::{
    EventRow, FireRow, Firing, LaneRule, QueuedTurnRow, ScheduleRow, Store, now_micros,
};

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Fires of one transaction; more that are due are fired at once behind them.
const AT_ONCE: i64 = 200;
/// A fire that was missed is made up for when it is no later.
const LATEST_MICROS: i64 = 3600 * 1_000_000;

/// Fires schedules.
pub struct Schedules {
    store: Arc<dyn Store>,
    lanes: Arc<Lanes>,
    metrics: Metrics,
}

impl Schedules {
    /// Over `store`; turns go into `lanes`.
    pub fn new(store: Arc<dyn Store>, lanes: Arc<Lanes>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            store,
            lanes,
            metrics,
        })
    }

    /// Fires what is due, for ever.
    pub async fn work(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            loop {
                match self.fire_due(now_micros()).await {
                    Ok(fired) if fired >= AT_ONCE as usize => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "cannot fire what is due");
                        break;
                    }
                }
            }
        }
    }

    /// Fires what is due at `now`, and answers how many there were.
    async fn fire_due(&self, now: i64) -> Result<usize, ApiError> {
        let due = self.store.due_schedules(now, AT_ONCE).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let firings: Vec<Firing> = due.iter().map(|row| firing(row, now)).collect();
        let first = match self.store.fire(&firings).await {
            Ok(first) => first,
            // One that the store cannot take holds up no other.
            Err(error) if error.fault().is_none() && firings.len() > 1 => {
                let mut first = Vec::with_capacity(firings.len());
                for firing in &firings {
                    first.push(self.fire_alone(firing).await);
                }
                first
            }
            Err(error) => return Err(error.into()),
        };
        for (firing, _) in firings.iter().zip(first).filter(|(_, first)| *first) {
            let late = (now - firing.fire.due_at).max(0);
            self.metrics
                .schedule_fires
                .with_label_values(&[firing.fire.status.as_str()])
                .inc();
            if firing.turn.is_some() {
                self.metrics.schedule_lateness.observe(late as f64 / 1e6);
            }
        }
        self.lanes.wake();
        Ok(due.len())
    }

    async fn fire_alone(&self, firing: &Firing) -> bool {
        match self.store.fire(std::slice::from_ref(firing)).await {
            Ok(first) => first.first().copied().unwrap_or(false),
            Err(error) => {
                let schedule_id = &firing.fire.schedule_id;
                tracing::error!(%error, schedule_id, "a schedule cannot fire");
                false
            }
        }
    }

    /// Puts a turn of a schedule into its lane beside the clock; answers its id in the queue.
    pub async fn run_now(&self, schedule: &ScheduleRow, actor: Value) -> Result<String, ApiError> {
        let now = now_micros();
        let mut turn = turn_of(schedule, now, now);
        turn.actor = actor.to_string();
        let fire = fire_of(schedule, now, now, Some(&turn));
        self.store.fire_now(&fire, &turn).await?;
        self.lanes.wake();
        Ok(turn.id)
    }
}

fn firing(schedule: &ScheduleRow, now: i64) -> Firing {
    let planned = schedule.next_fire_at.unwrap_or(now);
    let clock = match Clock::new(&schedule.cron, &schedule.timezone) {
        Ok(clock) => clock,
        // A zone that this machine does not have, or an expression of another version.
        Err(error) => return skipped(schedule, planned, 0, &error.to_string(), None, now),
    };
    let (last, missed) = clock.last_until(planned, now);
    let then = clock.next_of(schedule, now.max(last));
    if now - last > LATEST_MICROS + schedule.jitter_seconds * 1_000_000 {
        let why = "nobody was there to fire it, and it is more than an hour late";
        return skipped(schedule, last, missed, why, then, now);
    }
    let turn = turn_of(schedule, last, now);
    let mut fire = fire_of(schedule, last, now, Some(&turn));
    fire.missed = missed;
    Firing {
        fire,
        next_fire_at: planned,
        then,
        turn: Some(turn),
        event: None,
    }
}

fn skipped(
    schedule: &ScheduleRow,
    due_at: i64,
    missed: i64,
    why: &str,
    then: Option<(i64, i64)>,
    now: i64,
) -> Firing {
    let mut fire = fire_of(schedule, due_at, now, None);
    fire.missed = missed;
    fire.reason = Some(why.to_owned());
    let data = json!({
        "schedule_id": schedule.id,
        "fire_id": fire.id,
        "due_at": crate::store::rfc3339(due_at),
        "missed": missed,
        "reason": why,
    });
    Firing {
        event: Some(EventRow::new(
            &schedule.tenant_id,
            "schedule.skipped",
            Some(&schedule.smith_id),
            &data,
            None,
        )),
        fire,
        next_fire_at: schedule.next_fire_at.unwrap_or(due_at),
        then,
        turn: None,
    }
}

fn fire_of(schedule: &ScheduleRow, due_at: i64, now: i64, turn: Option<&QueuedTurnRow>) -> FireRow {
    FireRow {
        id: ids::mint(ids::Kind::Fire),
        tenant_id: schedule.tenant_id.clone(),
        schedule_id: schedule.id.clone(),
        due_at,
        status: match turn {
            Some(_) => "queued".to_owned(),
            None => "skipped".to_owned(),
        },
        missed: 0,
        reason: None,
        queued_turn_id: turn.map(|turn| turn.id.clone()),
        run_id: turn.map(|turn| turn.run_id.clone()),
        thread_id: turn.map(|turn| turn.thread_id.clone()),
        created_at: now,
    }
}

/// What the smith is told: as turns, and as messages.
fn said(schedule: &ScheduleRow, due_at: i64) -> (String, String) {
    if schedule.input != "[]" {
        return (schedule.turns.clone(), schedule.input.clone());
    }
    let name = schedule.name.as_deref().unwrap_or(&schedule.id);
    let at = crate::store::rfc3339(due_at);
    let text = format!("Your schedule '{name}' fired at {at}.");
    let turns = [Turn {
        role: Role::User,
        parts: vec![Part::Text { text: text.clone() }],
    }];
    let input = json!([{ "role": "user", "content": text }]);
    (
        serde_json::to_string(&turns).unwrap_or_default(),
        input.to_string(),
    )
}

fn turn_of(schedule: &ScheduleRow, due_at: i64, now: i64) -> QueuedTurnRow {
    let metadata = json!({
        "schedule_id": schedule.id,
        "schedule_name": schedule.name,
        "fired_for": crate::store::rfc3339(due_at),
    });
    let (turns, input) = said(schedule, due_at);
    QueuedTurnRow {
        id: ids::mint(ids::Kind::QueuedTurn),
        tenant_id: schedule.tenant_id.clone(),
        smith_id: schedule.smith_id.clone(),
        thread_id: match &schedule.thread_id {
            Some(thread) => thread.clone(),
            None => ids::mint(ids::Kind::Thread),
        },
        place: 0,
        channel: "schedule".to_owned(),
        source_id: schedule.id.clone(),
        turns,
        input,
        context: None,
        metadata: Some(metadata.to_string()),
        actor: json!({ "kind": "schedule", "id": schedule.id, "token_id": "", "email": "" })
            .to_string(),
        reply_to: None,
        chat: None,
        message: None,
        rule: LaneRule::Queue.as_str().to_owned(),
        run_id: ids::mint(ids::Kind::Run),
        status: "queued".to_owned(),
        reason: None,
        draft: None,
        created_at: now,
        updated_at: now,
    }
}
