//! Whether the store takes writes: what the journal sees, and what a small write shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{StorageFault, Store, now_micros};

/// A look holds for this long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What two writers do to each other is over by then.
const MOMENT: Duration = Duration::from_millis(300);
/// A write that takes longer than this is none.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of the store. One for a gateway.
pub struct Health {
    store: Arc<dyn Store>,
    seen: Mutex<Seen>,
    looked: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

#[derive(Default)]
struct Seen {
    failing_since: Option<Instant>,
    /// It answers, and takes nothing.
    refuses: bool,
    took_at: Option<Instant>,
    /// When something was not kept.
    lost_at: Option<Instant>,
}

impl Health {
    /// Nothing seen yet.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            seen: Mutex::default(),
            looked: tokio::sync::Mutex::default(),
        })
    }

    /// The store took a write.
    pub(super) fn took(&self) {
        let mut seen = self.seen.lock();
        seen.took_at = Some(Instant::now());
        seen.refuses = false;
        if seen.failing_since.take().is_some() {
            tracing::info!("the store takes writes again");
        }
    }

    /// The store did not take a write; answers since when it is so.
    pub(super) fn failed(&self, fault: StorageFault) -> Instant {
        let mut seen = self.seen.lock();
        seen.refuses |= !fault.is_passing();
        *seen.failing_since.get_or_insert_with(Instant::now)
    }

    /// Something was not kept.
    pub(super) fn lost(&self) {
        self.seen.lock().lost_at = Some(Instant::now());
    }

    /// Whether something was not kept within the last `time`.
    pub fn has_lost_within(&self, time: Duration) -> bool {
        self.seen
            .lock()
            .lost_at
            .is_some_and(|at| at.elapsed() < time)
    }

    /// Whether the last write of the journal failed, and more than for a moment.
    pub fn is_failing(&self) -> bool {
        let seen = self.seen.lock();
        seen.failing_since
            .is_some_and(|since| seen.refuses || since.elapsed() >= MOMENT)
    }

    /// Whether the store took something a moment ago and nothing failed since.
    pub fn took_lately(&self) -> bool {
        let seen = self.seen.lock();
        seen.failing_since.is_none() && seen.took_at.is_some_and(|at| at.elapsed() < LOOK_EVERY)
    }

    /// Whether the store takes writes, seen by one that is made now, or was a moment ago.
    pub async fn takes_writes(&self) -> bool {
        let mut looked = self.looked.lock().await;
        if let Some((at, takes)) = *looked
            && at.elapsed() < LOOK_EVERY
        {
            return takes && !self.is_failing();
        }
        let takes = self.probe().await;
        *looked = Some((Instant::now(), takes));
        takes && !self.is_failing()
    }

    /// Makes a small write.
    pub(super) async fn probe(&self) -> bool {
        match tokio::time::timeout(PATIENCE, self.store.probe(now_micros())).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the store takes no writes");
                false
            }
            Err(_) => {
                tracing::warn!("the store does not answer a write");
                false
            }
        }
    }
}
