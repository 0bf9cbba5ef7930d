//! Turns of one thread begin one after the other: between the look at who holds a thread and the
//! claim on it, its history is read, and a turn that began and ended meanwhile would be missing in it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Tenant, smith and thread.
type Key = (Arc<str>, Arc<str>, String);
type Gates = Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>;

/// The threads that turns are beginning on; a thread that none begins on takes no room.
#[derive(Default)]
pub(super) struct Turnstile {
    gates: Arc<Gates>,
}

/// Held while a turn begins.
pub(super) struct Passing {
    gates: Arc<Gates>,
    key: Key,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turnstile {
    /// Waits until no other turn begins on the thread.
    pub async fn enter(&self, tenant_id: &Arc<str>, smith_id: &Arc<str>, thread: &str) -> Passing {
        let key = (tenant_id.clone(), smith_id.clone(), thread.to_owned());
        let gate = self.gates.lock().entry(key.clone()).or_default().clone();
        // Made first: a wait that is dropped clears up as well.
        let mut passing = Passing {
            gates: self.gates.clone(),
            key,
            held: None,
        };
        passing.held = Some(gate.lock_owned().await);
        passing
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut gates = self.gates.lock();
        self.held = None;
        // Others who wait or hold have one of their own.
        if gates
            .get(&self.key)
            .is_some_and(|gate| Arc::strong_count(gate) == 1)
        {
            gates.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_of_a_thread_pass_one_by_one_and_leave_nothing() {
        let turnstile = Turnstile::default();
        let (tenant, smith): (Arc<str>, Arc<str>) = ("t".into(), "s".into());
        let first = turnstile.enter(&tenant, &smith, "a").await;
        let _other = turnstile.enter(&tenant, &smith, "b").await;
        {
            let second = turnstile.enter(&tenant, &smith, "a");
            let wait = std::time::Duration::from_millis(20);
            assert!(tokio::time::timeout(wait, second).await.is_err());
        }
        drop(first);
        drop(turnstile.enter(&tenant, &smith, "a").await);
        assert_eq!(turnstile.gates.lock().len(), 1);
    }
}
