//! Connections without TLS that wait for their next request, kept without a task that watches over
//! each: spawning one costs as much as a quarter of a short call.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cleartext::CleartextStream;

/// Threads that look in different places first do not wait for each other.
const SHARDS: usize = 16;
/// For which a connection is kept for the next request.
pub(super) const POOL_IDLE: Duration = Duration::from_secs(60);
/// Idle connections to one address in one shard.
const MAX_IDLE: usize = 128;

struct Idle {
    stream: Box<CleartextStream>,
    since: Instant,
}

/// Where a connection leads: an address, and the name by which it is asked. What answers to one
/// name may not speak for another.
pub type Place = (SocketAddr, Arc<str>);

type Shard = Mutex<HashMap<Place, Vec<Idle>>>;

/// Idle connections by place. The one that was used last is used first.
pub struct CleartextPool {
    shards: [Shard; SHARDS],
    keep: Duration,
    is_swept: AtomicBool,
}

/// This thread's shard.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<Option<usize>> = const { Cell::new(None) });
    OWN.with(|own| match own.get() {
        Some(shard) => shard,
        None => {
            let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            own.set(Some(shard));
            shard
        }
    })
}

impl CleartextPool {
    /// An empty pool that keeps a connection for `keep`.
    pub fn new(keep: Duration) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            keep,
            is_swept: AtomicBool::new(false),
        })
    }

    /// A connection to `place` that still stands.
    pub fn take(&self, place: &Place) -> Option<Box<CleartextStream>> {
        let own = own_shard();
        (0..SHARDS).find_map(|n| {
            let mut shard = self.shards[(own + n) % SHARDS].lock();
            let waiting = shard.get_mut(place)?;
            while let Some(idle) = waiting.pop() {
                if idle.since.elapsed() < self.keep && idle.stream.is_quiet() {
                    return Some(idle.stream);
                }
            }
            None
        })
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn put(self: &Arc<Self>, place: Place, stream: Box<CleartextStream>) {
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            self.sweep_now_and_then();
        }
        let idle = Idle {
            stream,
            since: Instant::now(),
        };
        let mut shard = self.shards[own_shard()].lock();
        let waiting = shard.entry(place).or_default();
        if waiting.len() < MAX_IDLE {
            waiting.push(idle);
        }
    }

    fn sweep_now_and_then(self: &Arc<Self>) {
        let (pool, every) = (Arc::downgrade(self), self.keep / 4);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every.max(Duration::from_secs(1))).await;
                match pool.upgrade() {
                    Some(pool) => pool.sweep(),
                    None => return,
                }
            }
        });
    }

    /// Closes what has waited too long, or was closed by the other side.
    fn sweep(&self) {
        for shard in &self.shards {
            let mut closed = Vec::new();
            shard.lock().retain(|_, waiting| {
                let stale =
                    |idle: &mut Idle| idle.since.elapsed() >= self.keep || !idle.stream.is_quiet();
                closed.extend(waiting.extract_if(.., stale));
                !waiting.is_empty()
            });
            // Dropped here, without the lock.
            drop(closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cleartext::tests::pair;
    use super::*;

    #[tokio::test]
    async fn only_standing_connections_are_given_out() {
        let pool = CleartextPool::new(Duration::from_secs(60));
        let (stream, other, place) = pair().await;
        pool.put(place.clone(), stream);
        assert!(pool.take(&(place.0, "another".into())).is_none());
        let stream = pool.take(&place).expect("it stands");
        assert!(pool.take(&place).is_none());
        pool.put(place.clone(), stream);
        drop(other);
        let begun = Instant::now();
        while pool.shards.iter().any(|shard| !shard.lock().is_empty()) {
            assert!(begun.elapsed() < Duration::from_secs(5), "it stays");
            pool.sweep();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(pool.take(&place).is_none());
        let pool = CleartextPool::new(Duration::ZERO);
        let (stream, _other, place) = pair().await;
        pool.put(place.clone(), stream);
        assert!(pool.take(&place).is_none());
    }
}
