//! Schedules that fire every few seconds. A cron expression knows no less than a minute, so the clock is
//! put forward in the store: a fire becomes due as if its minute had come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use smithgate::store::now_micros;
use sqlx::Connection;

use super::Dice;
use super::channels::{Site, is_given_up, micros};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// Schedules of one smith, each in a thread of its own.
const SCHEDULES: usize = 3;

/// A schedule and when it has to fire, beside each minute.
struct Hand {
    id: String,
    made_at: i64,
    put: Mutex<BTreeSet<i64>>,
}

/// Schedules that are looked after.
pub struct Clock {
    smith: String,
    hands: Vec<Hand>,
}

/// What fired.
#[derive(Debug, Default)]
pub struct Fires {
    pub fired: usize,
    /// Those that nobody was there for, which the next stands for.
    pub missed: usize,
}

impl Clock {
    /// Makes the schedules, over `call`.
    pub async fn make(call: impl Fn(&str, Value) -> reqwest::RequestBuilder) -> Self {
        let made = call("/v1/smiths", json!({ "model": "parrot/quick" }));
        let smith = crate::support::ok(made.send().await).await;
        let smith = smith["id"].as_str().expect("an id").to_owned();
        let mut hands = Vec::new();
        for at in 0..SCHEDULES {
            let body = json!({ "cron": "* * * * *", "thread_id": format!("thr_clock{at}"),
                "input": [{ "role": "user", "content": "It is time." }] });
            let made = call(&format!("/v1/smiths/{smith}/schedules"), body);
            let made = crate::support::ok(made.send().await).await;
            hands.push(Hand {
                id: made["id"].as_str().expect("an id").to_owned(),
                made_at: micros(&made["created_at"]),
                put: Mutex::default(),
            });
        }
        Self { smith, hands }
    }

    /// Puts one of the schedules forward every few seconds until all is over.
    pub async fn put_forward(&self, site: Arc<Site>, seed: u64) {
        let dice = Dice::new(seed);
        while !site.over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(700 + dice.below(1500))).await;
            let hand = &self.hands[dice.below(SCHEDULES as u64) as usize];
            // What the store has is known only while nobody cuts it off.
            let _calm = site.store_is_calm.lock().await;
            let mut store = sqlx::PgConnection::connect(&site.store).await;
            let store = store.as_mut().expect("PostgreSQL is there");
            let at = now_micros() + 200_000;
            // One that is due already is left alone, and so is one that is about to be.
            let put = sqlx::query(
                "UPDATE schedules SET next_fire_at = $1, due_at = $1 \
                 WHERE id = $2 AND next_fire_at > $3",
            );
            let put = put.bind(at).bind(&hand.id).bind(at + SECOND);
            let put = put.execute(store).await.expect("written");
            if put.rows_affected() == 1 {
                hand.put.lock().insert(at);
            }
        }
    }

    /// Whether nothing is overdue.
    pub async fn is_at_rest(&self, site: &Site) -> bool {
        let path = format!("/v1/smiths/{}/schedules", self.smith);
        let all = site.all(&path).await;
        all.iter()
            .all(|one| micros(&one["next_fire_at"]) > now_micros() - SECOND)
    }

    /// Checks that each moment fired once, or is counted by the one that stands for it, and that each
    /// fire became one run, in order, but for those that were given up. `runs`: all of them, read before.
    pub async fn check(&self, site: &Site, runs: &[Value], given_up: usize) -> Fires {
        let mut found = Fires::default();
        let mut known = BTreeSet::new();
        for hand in &self.hands {
            let path = format!("/v1/smiths/{}/schedules/{}/fires", self.smith, hand.id);
            let fires = site.all(&path).await;
            let last = fires.iter().map(|fire| micros(&fire["due_at"])).max();
            let last = last.unwrap_or(0);
            let first_minute = (hand.made_at / MINUTE + 1) * MINUTE;
            let minutes = (0..).map(|n| first_minute + n * MINUTE);
            let mut moments = hand.put.lock().clone();
            let put_last = moments.last().copied().unwrap_or(0);
            assert!(
                put_last <= last,
                "{put_last} never fired, the last is {last}"
            );
            moments.extend(minutes.take_while(|at| *at <= last));
            let mut stood_for = 0;
            let mut times = BTreeSet::new();
            for fire in &fires {
                let at = micros(&fire["due_at"]);
                assert_eq!(fire["status"], "queued", "{fire}");
                assert!(moments.contains(&at), "nothing was due: {fire}");
                assert!(times.insert(at), "it fired twice: {fire}");
                let missed = fire["missed"].as_u64().expect("a number") as usize;
                stood_for += 1 + missed;
                found.missed += missed;
                let run = fire["run_id"].as_str().expect("a run").to_owned();
                assert!(known.insert(run), "two fires are one run: {fire}");
            }
            found.fired += fires.len();
            assert_eq!(
                stood_for,
                moments.len(),
                "{}: {times:?} stand for {moments:?}",
                hand.id
            );
        }
        let ran: Vec<&Value> = runs
            .iter()
            .filter(|run| run["channel"] == "schedule")
            .collect();
        for run in &ran {
            let id = run["id"].as_str().expect("an id");
            assert!(known.contains(id), "of no fire: {run}");
            let is_over = run["status"] == "completed" || is_given_up(&run["error"]);
            assert!(is_over, "{run}");
        }
        // A minute may have come since the runs were read.
        let since = known.len() - ran.len();
        assert!(since <= SCHEDULES + given_up, "{since} fires have no run");
        for at in 0..SCHEDULES {
            let thread = format!("thr_clock{at}");
            let lane = ran.iter().filter(|run| run["thread_id"] == *thread);
            let mut last = (0, 0);
            for run in lane {
                let fired_for = micros(&run["metadata"]["fired_for"]);
                assert!(last.0 < fired_for, "out of order: {run}");
                assert!(last.1 <= micros(&run["created_at"]), "two at once: {run}");
                last = (fired_for, micros(&run["updated_at"]));
            }
        }
        found
    }
}
