//! What request bodies take of this node's memory. Lives here: [`Bodies`], one budget for all that
//! is on its way in, so that many bodies at once are refused before they are held. May import
//! `error` and `metrics`' crate.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use crate::error::ApiError;
use crate::metrics::Metrics;

/// Bodies up to here are not counted for their owner, only for the node: most are smaller, and the
/// owners' counts are behind a lock.
const SMALL: usize = 64 * 1024;
/// How long a body waits for others to be done with theirs.
const PATIENCE: Duration = Duration::from_secs(2);

/// The budget of a node.
pub struct Bodies {
    most: usize,
    /// What one owner may hold of it, so that no tenant takes all.
    share: usize,
    used: AtomicUsize,
    owners: Mutex<HashMap<Arc<str>, usize>>,
    freed: Notify,
    shown: IntGauge,
    refused: IntCounter,
}

/// A part of the budget, until it is dropped.
pub struct Held {
    bodies: Arc<Bodies>,
    owner: Arc<str>,
    bytes: usize,
    /// Of them, what is counted for the owner.
    counted: usize,
}

impl Bodies {
    /// Of `most` bytes, of which one owner may hold half, and `largest` at least.
    pub fn new(most: usize, largest: usize, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            most,
            share: (most / 2).max(largest),
            used: AtomicUsize::new(0),
            owners: Mutex::default(),
            freed: Notify::new(),
            shown: metrics.body_bytes.clone(),
            refused: metrics.bodies_refused.clone(),
        })
    }

    /// Bytes that are held.
    pub fn in_flight(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Nothing yet, for a body of `owner`.
    pub fn begin(self: &Arc<Self>, owner: Arc<str>) -> Held {
        Held {
            bodies: self.clone(),
            owner,
            bytes: 0,
            counted: 0,
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.most);
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        if let Ok(before) = taken {
            self.shown.set((before + bytes) as i64);
        }
        taken.is_ok()
    }

    fn take_share(&self, owner: &Arc<str>, bytes: usize) -> bool {
        let mut owners = self.owners.lock();
        let held = owners.get(owner).copied().unwrap_or(0);
        if held + bytes > self.share {
            return false;
        }
        owners.insert(owner.clone(), held + bytes);
        true
    }

    fn give_share(&self, owner: &Arc<str>, bytes: usize) {
        let mut owners = self.owners.lock();
        if let Some(held) = owners.get_mut(owner) {
            *held -= bytes.min(*held);
            if *held == 0 {
                owners.remove(owner);
            }
        }
    }
}

impl Held {
    fn try_grow(&mut self, bytes: usize) -> bool {
        let counts = self.bytes + bytes > SMALL;
        let share = match counts {
            true => self.bytes + bytes - self.counted,
            false => 0,
        };
        if share > 0 && !self.bodies.take_share(&self.owner, share) {
            return false;
        }
        if !self.bodies.take(bytes) {
            if share > 0 {
                self.bodies.give_share(&self.owner, share);
            }
            return false;
        }
        self.counted += share;
        self.bytes += bytes;
        true
    }

    /// Takes `bytes` more, waiting a little for others; 503 `service_overloaded` when they do not
    /// come free.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        if self.try_grow(bytes) {
            return Ok(());
        }
        let bodies = self.bodies.clone();
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let freed = bodies.freed.notified();
                if self.try_grow(bytes) {
                    return;
                }
                freed.await;
            }
        });
        match waited.await {
            Ok(()) => Ok(()),
            Err(_) => {
                bodies.refused.inc();
                Err(ApiError::unavailable(
                    "service_overloaded",
                    "this node holds as many request bodies as it can; try again soon",
                    2,
                ))
            }
        }
    }

    /// Gives `bytes` back.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let share = self.counted.saturating_sub(self.bytes);
        if share > 0 {
            self.counted -= share;
            self.bodies.give_share(&self.owner, share);
        }
        let before = self.bodies.used.fetch_sub(bytes, Ordering::AcqRel);
        self.bodies.shown.set((before - bytes) as i64);
        self.bodies.freed.notify_waiters();
    }

    /// Takes `bytes` more, or what its owner may hold if that is less: alone there is always room.
    pub async fn grow_within_share(&mut self, bytes: usize) -> Result<(), ApiError> {
        let room = self.bodies.share.saturating_sub(self.bytes);
        self.grow(bytes.min(room)).await
    }

    /// The same beside a body that the owner holds meanwhile: half a share is for that.
    pub async fn grow_beside_body(&mut self, bytes: usize) -> Result<(), ApiError> {
        let room = (self.bodies.share / 2).saturating_sub(self.bytes);
        self.grow(bytes.min(room)).await
    }

    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shrink(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[tokio::test]
    async fn a_node_holds_no_more_than_its_budget() {
        let bodies = Bodies::new(8 * MIB, MIB, &Metrics::new());
        let mut first = bodies.begin("a".into());
        let mut second = bodies.begin("b".into());
        first.grow(4 * MIB).await.expect("room");
        second.grow(4 * MIB).await.expect("room");
        let mut third = bodies.begin("c".into());
        let refused = third.grow(1).await.expect_err("no room");
        assert_eq!(
            (refused.status.as_u16(), refused.retry_after),
            (503, Some(2))
        );
        assert_eq!(bodies.refused.get(), 1);
        // Who waits gets what others give back.
        let (grown, ()) = tokio::join!(third.grow(2 * MIB), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            drop(first);
        });
        grown.expect("room");
        drop((second, third));
        assert_eq!(bodies.used.load(Ordering::Relaxed), 0);
        assert!(bodies.owners.lock().is_empty());
    }

    #[tokio::test]
    async fn what_is_alone_always_has_room() {
        let bodies = Bodies::new(8 * MIB, MIB, &Metrics::new());
        let mut body = bodies.begin("a".into());
        body.grow(MIB).await.expect("room");
        let mut beside = bodies.begin("a".into());
        beside.grow_beside_body(64 * MIB).await.expect("room");
        assert_eq!(beside.bytes(), 2 * MIB);
        drop(beside);
        body.grow_within_share(64 * MIB).await.expect("room");
        assert_eq!(body.bytes(), 4 * MIB);
    }

    #[tokio::test]
    async fn no_owner_takes_all() {
        let bodies = Bodies::new(8 * MIB, MIB, &Metrics::new());
        let mut greedy = bodies.begin("a".into());
        greedy.grow(4 * MIB).await.expect("its share");
        assert!(greedy.grow(1).await.is_err());
        // A small body of the same owner gets through, and others' do.
        bodies.begin("a".into()).grow(SMALL).await.expect("room");
        bodies.begin("b".into()).grow(3 * MIB).await.expect("room");
        // What grows in small steps is counted from its first byte on.
        let mut slow = bodies.begin("b".into());
        for _ in 0..64 {
            slow.grow(32 * 1024).await.expect("room");
        }
        assert_eq!((slow.counted, slow.bytes()), (2 * MIB, 2 * MIB));
        slow.shrink(MIB);
        assert_eq!((slow.counted, slow.bytes()), (MIB, MIB));
    }
}
