//! A hold on a piece of work.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Lane;

/// A piece of work that this node holds.
pub struct Held<I> {
    pub item: I,
    pub lane: Lane,
    hold: Mutex<Hold>,
    let_go: CancellationToken,
    renewing: Arc<RwLock<()>>,
}

/// A hold that is not prolonged as long as this is kept, which should not be long: what is written
/// meanwhile is written if the row still says [`Fence::until`].
pub struct Fence {
    pub until: i64,
    _renewing: OwnedRwLockReadGuard<()>,
}

#[derive(Clone, Copy)]
struct Hold {
    /// As the row says.
    until: i64,
    /// The same by this node's own clock, which no one sets.
    deadline: Instant,
}

impl<I> Held<I> {
    pub(super) fn new(
        item: I,
        lane: Lane,
        until: i64,
        deadline: Instant,
        renewing: Arc<RwLock<()>>,
    ) -> Self {
        Self {
            item,
            lane,
            hold: Mutex::new(Hold { until, deadline }),
            let_go: CancellationToken::new(),
            renewing,
        }
    }

    /// Until when the row says that it is held.
    pub fn until(&self) -> i64 {
        self.hold.lock().until
    }

    /// What a write before the end is compared with.
    pub async fn fence(&self) -> Fence {
        let renewing = self.renewing.clone().read_owned().await;
        Fence {
            until: self.until(),
            _renewing: renewing,
        }
    }

    /// Whether another node may have it by now.
    pub fn is_lost(&self) -> bool {
        self.let_go.is_cancelled() || self.time_left().is_zero()
    }

    pub(super) fn time_left(&self) -> Duration {
        let deadline = self.hold.lock().deadline;
        deadline.saturating_duration_since(Instant::now())
    }

    pub(super) fn prolong(&self, until: i64, deadline: Instant) {
        *self.hold.lock() = Hold { until, deadline };
    }

    /// Lets go of it: the work is dropped.
    pub(super) fn let_go(&self) {
        self.let_go.cancel();
    }

    /// Comes back when it is lost or let go of.
    pub(super) async fn lost(&self) {
        let late = async {
            loop {
                let left = self.time_left();
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left).await;
            }
        };
        tokio::select! {
            () = self.let_go.cancelled() => {}
            () = late => {}
        }
    }
}
