//! The loop with a store in memory and a clock of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{AtShutdown, Claim, Due, Held, Lane, Room, Rules, Work, Worker};
use crate::error::ApiError;
use crate::metrics::Metrics;

/// Microseconds on tokio's clock, which tests move.
fn clock() -> i64 {
    thread_local! {
        static BEGAN: Instant = Instant::now();
    }
    BEGAN.with(|began| 1_000_000 + began.elapsed().as_micros() as i64)
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Row {
    id: u32,
    lane: String,
    due: i64,
    takings: i64,
    done: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Does {
    Ends(Duration),
    Panics,
}

#[derive(Default)]
struct Table {
    rows: Mutex<BTreeMap<u32, Row>>,
    /// In the order of beginning.
    begun: Mutex<Vec<(u32, &'static str)>>,
    looks: AtomicUsize,
    is_away: Mutex<bool>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Table {
    fn add(&self, id: u32, lane: &str, due: i64) {
        let row = Row {
            id,
            lane: lane.to_owned(),
            due,
            ..Row::default()
        };
        self.rows.lock().insert(id, row);
    }

    fn row(&self, id: u32) -> Row {
        self.rows.lock()[&id].clone()
    }

    fn done(&self) -> usize {
        self.rows
            .lock()
            .values()
            .filter(|row| row.done.is_some())
            .count()
    }

    fn check(&self) -> Result<(), ApiError> {
        match *self.is_away.lock() {
            true => Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "away",
                "the store is away",
            )),
            false => Ok(()),
        }
    }

    /// Changes a row that is held until `until`.
    fn change(&self, id: u32, until: i64, change: impl FnOnce(&mut Row)) -> Result<bool, ApiError> {
        self.check()?;
        let mut rows = self.rows.lock();
        let held = rows
            .get_mut(&id)
            .filter(|row| row.done.is_none() && row.due == until);
        Ok(held.map(change).is_some())
    }
}

struct Scripted {
    table: Arc<Table>,
    node: &'static str,
    does: Does,
    rules: Rules,
}

fn lane_of(row: &Row) -> Lane {
    let (tenant, key) = row.lane.split_once('/').unwrap_or((&row.lane, ""));
    Lane::new(tenant, key)
}

#[async_trait]
impl Work for Scripted {
    type Item = Row;
    type Outcome = String;

    fn rules(&self) -> Rules {
        self.rules
    }

    async fn due(&self, now: i64, limit: i64) -> Result<Due, ApiError> {
        self.table.check()?;
        self.table.looks.fetch_add(1, Ordering::Relaxed);
        let rows = self.table.rows.lock();
        let open = rows.values().filter(|row| row.done.is_none());
        let (due, later): (Vec<_>, Vec<_>) = open.partition(|row| row.due <= now);
        let mut lanes: Vec<_> = due.into_iter().map(lane_of).collect();
        lanes.dedup();
        lanes.truncate(limit as usize);
        Ok(Due {
            lanes,
            next: later.iter().map(|row| row.due).min(),
        })
    }

    async fn claim(&self, lane: &Lane, claim: Claim) -> Result<Vec<Row>, ApiError> {
        self.table.check()?;
        let mut rows = self.table.rows.lock();
        let due = rows
            .values_mut()
            .filter(|row| row.done.is_none() && row.due <= claim.now && lane_of(row) == *lane);
        let take = |row: &mut Row| {
            row.due = claim.until;
            row.takings += 1;
            row.clone()
        };
        Ok(due.take(claim.limit as usize).map(take).collect())
    }

    fn ended_nodes(&self, row: &Row) -> i64 {
        row.takings - 1
    }

    fn name(&self, row: &Row) -> String {
        row.id.to_string()
    }

    async fn renew(&self, held: &[Arc<Held<Row>>], until: i64) -> Result<Vec<bool>, ApiError> {
        self.table.check()?;
        held.iter()
            .map(|held| {
                self.table
                    .change(held.item.id, held.until(), |row| row.due = until)
            })
            .collect()
    }

    async fn perform(&self, held: &Held<Row>) -> String {
        self.table.begun.lock().push((held.item.id, self.node));
        let now = self.table.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.table.most_at_once.fetch_max(now, Ordering::Relaxed);
        match self.does {
            Does::Ends(after) => sleep(after).await,
            Does::Panics => panic!("as the test wants"),
        }
        self.table.at_once.fetch_sub(1, Ordering::Relaxed);
        format!("by {}", self.node)
    }

    fn given_up(&self, _row: &Row, times: i64) -> String {
        format!("given up after {times}")
    }

    async fn settle(&self, row: &Row, until: i64, outcome: &String) -> Result<bool, ApiError> {
        self.table.change(row.id, until, |row| {
            row.done = Some(outcome.clone());
            row.takings = 0;
        })
    }

    async fn release(&self, row: &Row, until: i64, now: i64) -> Result<bool, ApiError> {
        self.table.change(row.id, until, |row| {
            row.due = now;
            row.takings = 0;
        })
    }

    async fn uncount(&self, row: &Row) -> Result<(), ApiError> {
        let mut rows = self.table.rows.lock();
        if let Some(row) = rows.get_mut(&row.id).filter(|row| row.takings > 1) {
            row.takings -= 1;
        }
        Ok(())
    }
}

const RULES: Rules = Rules {
    name: "scripted",
    hold: Duration::from_secs(30),
    look_every: Duration::from_secs(5),
    at_once: 4,
    per_tenant: 3,
    per_lane: 3,
    give_up_after: 2,
    at_shutdown: AtShutdown::Finish,
};

fn node(
    table: &Arc<Table>,
    node: &'static str,
    does: Does,
    rules: Rules,
) -> (Arc<Worker<Scripted>>, Arc<AtomicUsize>) {
    let told = Arc::new(AtomicUsize::new(0));
    let counts = told.clone();
    let tell = Arc::new(move |_| {
        counts.fetch_add(1, Ordering::Relaxed);
    });
    let work = Scripted {
        table: table.clone(),
        node,
        does,
        rules,
    };
    (Worker::with_clock(work, Metrics::new(), tell, clock), told)
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn what_is_due_is_done_once_by_two_nodes() {
    let table = Arc::new(Table::default());
    for id in 0..40 {
        table.add(id, ["a", "b"][id as usize % 2], 0);
    }
    let (first, _) = node(&table, "first", Does::Ends(SECOND), RULES);
    let (second, _) = node(&table, "second", Does::Ends(SECOND), RULES);
    tokio::spawn(first.run());
    tokio::spawn(second.run());
    sleep(Duration::from_millis(5_500)).await;
    assert_eq!(table.done(), 40, "{:?}", table.rows.lock());
    assert_eq!(table.begun.lock().len(), 40);
    assert!(table.most_at_once.load(Ordering::Relaxed) <= 8);
    let by: Vec<_> = table.begun.lock().iter().map(|(_, node)| *node).collect();
    assert!(by.contains(&"first") && by.contains(&"second"));
}

#[tokio::test(start_paused = true)]
async fn work_outlasts_its_hold_while_its_node_lives() {
    let table = Arc::new(Table::default());
    table.add(1, "a", 0);
    let long = Does::Ends(RULES.hold * 10);
    let (first, _) = node(&table, "first", long, RULES);
    let (second, _) = node(&table, "second", long, RULES);
    tokio::spawn(first.run());
    sleep(SECOND).await;
    tokio::spawn(second.run());
    sleep(RULES.hold * 11).await;
    assert_eq!(*table.begun.lock(), [(1, "first")]);
    assert_eq!(table.row(1).done.as_deref(), Some("by first"));
}

#[tokio::test(start_paused = true)]
async fn the_work_of_a_dead_node_is_anothers_and_ends_when_it_kills_each() {
    let table = Arc::new(Table::default());
    table.add(1, "a", 0);
    for dead in ["first", "second"] {
        let (worker, _) = node(&table, dead, Does::Ends(RULES.hold * 10), RULES);
        let running = tokio::spawn(worker.clone().run());
        sleep(RULES.hold + SECOND * 6).await;
        // As a kill would: nothing is given back.
        running.abort();
        worker.tasks.lock().abort_all();
    }
    assert_eq!(*table.begun.lock(), [(1, "first"), (1, "second")]);
    let (third, _) = node(&table, "third", Does::Ends(SECOND), RULES);
    tokio::spawn(third.run());
    sleep(RULES.hold + SECOND * 6).await;
    assert_eq!(table.begun.lock().len(), 2, "it is not begun a third time");
    assert_eq!(table.row(1).done.as_deref(), Some("given up after 2"));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_late_drops_its_work_and_writes_nothing() {
    let table = Arc::new(Table::default());
    table.add(1, "a", 0);
    let (first, _) = node(&table, "first", Does::Ends(RULES.hold * 3), RULES);
    tokio::spawn(first.clone().run());
    sleep(SECOND).await;
    assert_eq!(first.held(), 1);
    // Another has taken it meanwhile.
    {
        let mut rows = table.rows.lock();
        let row = rows.get_mut(&1).expect("a row");
        row.due += 7;
        row.takings += 1;
    }
    sleep(RULES.hold / 2).await;
    assert_eq!(first.held(), 0, "the renewal finds that it is lost");
    let row = table.row(1);
    assert_eq!((row.done, row.takings), (None, 1), "its node lives");
}

#[tokio::test(start_paused = true)]
async fn work_is_dropped_when_its_hold_cannot_be_prolonged() {
    let table = Arc::new(Table::default());
    table.add(1, "a", 0);
    let (first, _) = node(&table, "first", Does::Ends(RULES.hold * 3), RULES);
    tokio::spawn(first.clone().run());
    sleep(SECOND).await;
    *table.is_away.lock() = true;
    sleep(RULES.hold + SECOND).await;
    assert_eq!(first.held(), 0, "others may have it by now");
    *table.is_away.lock() = false;
    sleep(RULES.hold * 5).await;
    assert_eq!(table.row(1).done.as_deref(), Some("by first"));
    assert_eq!(table.begun.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_came_of_it_is_written_when_the_store_is_back() {
    let table = Arc::new(Table::default());
    table.add(1, "a", 0);
    let (first, _) = node(&table, "first", Does::Ends(SECOND * 2), RULES);
    tokio::spawn(first.clone().run());
    sleep(SECOND).await;
    *table.is_away.lock() = true;
    sleep(SECOND * 6).await;
    *table.is_away.lock() = false;
    sleep(SECOND * 6).await;
    assert_eq!(table.row(1).done.as_deref(), Some("by first"));
    assert_eq!(table.begun.lock().len(), 1, "it is done once");
}

#[tokio::test(start_paused = true)]
async fn a_panic_counts_as_a_dead_node() {
    let table = Arc::new(Table::default());
    table.add(1, "a", 0);
    table.add(2, "b", 0);
    let (first, _) = node(&table, "first", Does::Panics, RULES);
    tokio::spawn(first.clone().run());
    sleep(RULES.hold * 4).await;
    for id in [1, 2] {
        assert_eq!(table.row(id).done.as_deref(), Some("given up after 2"));
    }
    assert_eq!(table.begun.lock().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn lanes_are_in_order_and_stalled_ones_delay_nobody() {
    let table = Arc::new(Table::default());
    let rules = Rules {
        per_lane: 1,
        ..RULES
    };
    for id in 0..4 {
        table.add(id, "a/slow", 0);
    }
    for id in 10..14 {
        table.add(id, "a/other", 0);
    }
    let (first, _) = node(&table, "first", Does::Ends(SECOND), rules);
    tokio::spawn(first.run());
    sleep(Duration::from_millis(4_500)).await;
    assert_eq!(table.done(), 8);
    let begun = table.begun.lock().clone();
    let of = |lane: std::ops::Range<u32>| {
        let begun = begun.iter().map(|(id, _)| *id);
        begun.filter(|id| lane.contains(id)).collect::<Vec<_>>()
    };
    assert_eq!(of(0..4), [0, 1, 2, 3]);
    assert_eq!(of(10..14), [10, 11, 12, 13]);
    assert_eq!(table.most_at_once.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_much_to_do_leaves_room_for_others() {
    let table = Arc::new(Table::default());
    for id in 0..100 {
        table.add(id, "a", 0);
    }
    let (first, _) = node(&table, "first", Does::Ends(SECOND * 10), RULES);
    tokio::spawn(first.clone().run());
    sleep(SECOND).await;
    assert_eq!(first.held(), 3);
    table.add(200, "b", 0);
    first.wake();
    sleep(SECOND).await;
    assert_eq!(table.begun.lock().last(), Some(&(200, "first")));
}

#[tokio::test(start_paused = true)]
async fn what_is_due_at_a_time_is_begun_then_and_a_wake_is_at_once() {
    let table = Arc::new(Table::default());
    let rules = Rules {
        look_every: Duration::from_secs(3600),
        ..RULES
    };
    let (first, told) = node(&table, "first", Does::Ends(SECOND), rules);
    tokio::spawn(first.clone().run());
    table.add(1, "a", clock() + 90_000_000);
    first.wake();
    sleep(Duration::from_millis(89_990)).await;
    assert_eq!(table.begun.lock().len(), 0);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(table.begun.lock().len(), 1);
    sleep(SECOND * 2).await;
    table.add(2, "a", 0);
    first.wake();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(table.begun.lock().len(), 2);
    let looks = table.looks.load(Ordering::Relaxed);
    assert!(looks < 12, "{looks} looks");
    assert_eq!(told.load(Ordering::Relaxed), 0, "it had room itself");
}

#[tokio::test(start_paused = true)]
async fn others_are_told_when_there_is_no_room() {
    let table = Arc::new(Table::default());
    for id in 0..8 {
        table.add(id, ["a", "b"][id as usize % 2], 0);
    }
    let (first, told) = node(&table, "first", Does::Ends(SECOND * 60), RULES);
    tokio::spawn(first.clone().run());
    sleep(SECOND).await;
    assert_eq!(first.held(), 4);
    first.wake();
    first.wake();
    assert_eq!(told.load(Ordering::Relaxed), 1, "but not for each piece");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_must_end_and_gives_the_rest_back() {
    for (at_shutdown, takes, finished) in [
        (AtShutdown::Finish, 3, true),
        (AtShutdown::Finish, 60, false),
        (AtShutdown::GiveBack, 3, false),
    ] {
        let table = Arc::new(Table::default());
        table.add(1, "a", 0);
        table.add(2, "a", clock() + 2_000_000);
        let rules = Rules {
            at_shutdown,
            ..RULES
        };
        let (first, told) = node(&table, "first", Does::Ends(SECOND * takes), rules);
        tokio::spawn(first.clone().run());
        sleep(SECOND).await;
        let began = Instant::now();
        first.drain(SECOND * 10, SECOND).await;
        assert!(began.elapsed() <= SECOND * 11, "{:?}", began.elapsed());
        assert_eq!(first.held(), 0);
        let row = table.row(1);
        assert_eq!(row.done.is_some(), finished);
        assert_eq!(told.load(Ordering::Relaxed), usize::from(!finished));
        if !finished {
            assert!(row.due <= clock() && row.takings == 0, "{row:?}");
        }
        sleep(SECOND * 60).await;
        assert_eq!(table.row(2).takings, 0, "nothing is taken up any more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_does_first_what_was_left() {
    let table = Arc::new(Table::default());
    for id in 0..10 {
        table.add(id, "a", 0);
    }
    let (first, _) = node(&table, "first", Does::Ends(SECOND), RULES);
    first.catch_up().await;
    assert_eq!(table.done(), 10);
}
