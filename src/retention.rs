//! What is old is deleted: runs, frames, events and the like, after the time that the operator, or
//! a tenant for itself, lets them be kept.
//!
//! Lives here: how long things are kept, and the task that prunes them, on one node at a time and in
//! batches so small that nobody waits for them. May import `config`, `store`, `error`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config;
use crate::store::{Aging, Store, StoreError, now_micros};

/// How often is looked for what is old.
const EVERY: Duration = Duration::from_secs(600);
/// A node that prunes is the only one for so long.
const LEASE: Duration = Duration::from_secs(1800);
/// A batch that holds the writer for longer than this is made smaller.
const LONG: Duration = Duration::from_millis(25);
/// One that is quicker than this is made larger.
const SHORT: Duration = Duration::from_millis(8);
const LARGEST: i64 = 500;
/// The writer is everybody else's for so many times as long as a batch took.
const REST: u32 = 3;
const TENANTS: i64 = 100;
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// How many days a tenant keeps things; what is absent is kept as long as the operator says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Days {
    /// Runs with their frames, approvals and traces; threads and conversations forget them too.
    #[schema(minimum = 1)]
    pub runs_days: Option<u32>,
    /// The frames of runs, from which streams are shown again.
    #[schema(minimum = 1)]
    pub frames_days: Option<u32>,
    #[schema(minimum = 1)]
    pub events_days: Option<u32>,
    #[schema(minimum = 1)]
    pub deliveries_days: Option<u32>,
    #[schema(minimum = 1)]
    pub traces_days: Option<u32>,
    /// Entries of the usage ledger; sums stay.
    #[schema(minimum = 1)]
    pub usage_events_days: Option<u32>,
}

impl Days {
    /// The operator's: nought keeps for ever.
    pub fn of(config: &config::Retention) -> Self {
        let days = |days: u32| (days > 0).then_some(days);
        Self {
            runs_days: days(config.runs_days),
            frames_days: days(config.frames_days),
            events_days: days(config.events_days),
            deliveries_days: days(config.deliveries_days),
            traces_days: days(config.traces_days),
            usage_events_days: days(config.usage_events_days),
        }
    }

    /// By name, for messages.
    pub fn named(&self) -> [(&'static str, Option<u32>); 6] {
        [
            ("runs_days", self.runs_days),
            ("frames_days", self.frames_days),
            ("events_days", self.events_days),
            ("deliveries_days", self.deliveries_days),
            ("traces_days", self.traces_days),
            ("usage_events_days", self.usage_events_days),
        ]
    }

    /// The shorter of both.
    pub fn and(&self, other: &Self) -> Self {
        let shorter = |a: Option<u32>, b: Option<u32>| a.into_iter().chain(b).min();
        Self {
            runs_days: shorter(self.runs_days, other.runs_days),
            frames_days: shorter(self.frames_days, other.frames_days),
            events_days: shorter(self.events_days, other.events_days),
            deliveries_days: shorter(self.deliveries_days, other.deliveries_days),
            traces_days: shorter(self.traces_days, other.traces_days),
            usage_events_days: shorter(self.usage_events_days, other.usage_events_days),
        }
    }

    fn for_what(&self, what: Aging) -> Option<u32> {
        match what {
            Aging::Runs => self.runs_days,
            Aging::Frames => self.frames_days,
            Aging::Events => self.events_days,
            Aging::Deliveries => self.deliveries_days,
            Aging::Traces => self.traces_days,
            Aging::UsageEvents => self.usage_events_days,
        }
    }
}

/// What prunes.
#[derive(Clone)]
pub struct Retention {
    store: Arc<dyn Store>,
    days: Days,
    node_id: String,
}

/// How large the next batch is, so that none holds the writer for long.
struct Pace {
    batch: i64,
    longest: Duration,
}

impl Pace {
    fn new() -> Self {
        Self {
            batch: 1,
            longest: Duration::ZERO,
        }
    }

    /// For rows of another kind, which may be much larger.
    fn begin_anew(&mut self) {
        self.batch = 1;
    }

    fn took(&mut self, time: Duration) {
        self.longest = self.longest.max(time);
        if time > LONG {
            self.batch = (self.batch / 2).max(1);
        } else if time < SHORT {
            self.batch = (self.batch * 3 / 2 + 1).min(LARGEST);
        }
    }
}

/// Of rows, and of those that belong to them.
struct Paces {
    rows: Pace,
    parts: Pace,
}

/// What one round did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    pub deleted: u64,
    /// The longest that a batch took.
    pub longest: Duration,
}

impl Retention {
    /// With the operator's times.
    pub fn new(store: Arc<dyn Store>, config: &config::Retention, node_id: &str) -> Self {
        Self {
            store,
            days: Days::of(config),
            node_id: node_id.to_owned(),
        }
    }

    /// Prunes, for ever.
    pub async fn work(self) {
        let mut interval = tokio::time::interval(EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            match self.round(now_micros()).await {
                Ok(Some(round)) if round.deleted > 0 => {
                    tracing::info!(
                        rows = round.deleted,
                        longest = ?round.longest,
                        "deleted what was old"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot delete what is old"),
            }
        }
    }

    async fn is_mine(&self) -> Result<bool, StoreError> {
        let now = now_micros();
        let until = now + LEASE.as_micros() as i64;
        self.store
            .take_lease("retention", &self.node_id, now, until)
            .await
    }

    /// Deletes all that is old at `now`; `None` when another node does that.
    pub async fn round(&self, now: i64) -> Result<Option<Round>, StoreError> {
        if !self.is_mine().await? {
            return Ok(None);
        }
        let mut paces = Paces {
            rows: Pace::new(),
            parts: Pace::new(),
        };
        let mut deleted = 0;
        for kind in 0..self.store.sweeps() {
            paces.rows.begin_anew();
            loop {
                let began = Instant::now();
                let gone = self.store.sweep(kind, now, paces.rows.batch).await?;
                if gone == 0 {
                    break;
                }
                deleted += gone;
                rest(&mut paces.rows, began).await;
            }
        }
        let mut after = String::new();
        loop {
            let tenants = self.store.retained(&after, TENANTS).await?;
            let Some((last, _)) = tenants.last() else {
                break;
            };
            after.clone_from(last);
            for (tenant, document) in &tenants {
                let own = document.as_deref().map(serde_json::from_str::<Days>);
                let own = own.transpose().unwrap_or_default().unwrap_or_default();
                deleted += self
                    .prune(tenant, &self.days.and(&own), now, &mut paces)
                    .await?;
            }
            if !self.is_mine().await? {
                break;
            }
        }
        Ok(Some(Round {
            deleted,
            longest: paces.rows.longest.max(paces.parts.longest),
        }))
    }

    async fn prune(
        &self,
        tenant: &str,
        days: &Days,
        now: i64,
        paces: &mut Paces,
    ) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for what in Aging::ALL {
            let Some(days) = days.for_what(what) else {
                continue;
            };
            let before = before(now, days);
            let mut renewed = Instant::now();
            let mut was_any = false;
            paces.rows.begin_anew();
            paces.parts.begin_anew();
            loop {
                let batch = paces.rows.batch;
                let ids = self.store.aged(what, tenant, before, batch).await?;
                if ids.is_empty() {
                    break;
                }
                was_any = true;
                // One run may have more frames than a batch has rows.
                loop {
                    let began = Instant::now();
                    let parts = &mut paces.parts;
                    let gone = self.store.thin(what, tenant, &ids, parts.batch).await?;
                    deleted += gone;
                    if gone == 0 {
                        break;
                    }
                    rest(parts, began).await;
                    if !self.stays_mine(&mut renewed).await? {
                        return Ok(deleted);
                    }
                }
                let began = Instant::now();
                self.store.prune(what, tenant, &ids).await?;
                deleted += ids.len() as u64;
                rest(&mut paces.rows, began).await;
                if !self.stays_mine(&mut renewed).await? {
                    return Ok(deleted);
                }
            }
            if was_any && what == Aging::Frames {
                self.store.frames_are_pruned(tenant, before).await?;
            }
        }
        Ok(deleted)
    }

    /// Prolongs the lease in time; `false` when another node has it.
    async fn stays_mine(&self, renewed: &mut Instant) -> Result<bool, StoreError> {
        if renewed.elapsed() > LEASE / 4 {
            *renewed = Instant::now();
            return self.is_mine().await;
        }
        Ok(true)
    }
}

/// What is older than this is older than `days`. A tenant may say any number of days, also one that
/// reaches back to before there is time; it must not come out in the future.
fn before(now: i64, days: u32) -> i64 {
    now.saturating_sub(i64::from(days).saturating_mul(DAY_MICROS))
}

/// Lets others write for a while.
async fn rest(pace: &mut Pace, began: Instant) {
    let took = began.elapsed();
    pace.took(took);
    tokio::time::sleep(took * REST).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_time_counts() {
        let operator = Days::of(&config::Retention {
            runs_days: 365,
            frames_days: 0,
            ..config::Retention::default()
        });
        let own = Days {
            runs_days: Some(30),
            frames_days: Some(7),
            ..Days::default()
        };
        let both = operator.and(&own);
        assert_eq!((both.runs_days, both.frames_days), (Some(30), Some(7)));
        assert_eq!(both.events_days, operator.events_days);
        let longer = Days {
            runs_days: Some(1000),
            ..Days::default()
        };
        assert_eq!(operator.and(&longer).runs_days, Some(365));
    }

    #[test]
    fn however_many_days_are_kept_nothing_new_is_old() {
        let now = 1_800_000_000_000_000;
        assert_eq!(before(now, 1), now - DAY_MICROS);
        for days in [20_000, 106_751_991, 106_751_992, 200_000_000, u32::MAX] {
            let before = before(now, days);
            assert!(before <= now - 20_000 * DAY_MICROS, "{days}: {before}");
        }
    }

    #[test]
    fn batches_grow_while_they_are_quick_and_shrink_when_they_are_not() {
        let mut pace = Pace::new();
        for _ in 0..20 {
            pace.took(Duration::from_millis(1));
        }
        assert_eq!(pace.batch, LARGEST);
        for _ in 0..20 {
            pace.took(Duration::from_millis(100));
        }
        assert_eq!(pace.batch, 1);
    }
}
