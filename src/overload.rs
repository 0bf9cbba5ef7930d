//! Sheds load before latency collapses: when the workers fall behind, new model calls and runs are
//! refused, so that those under way keep their pace. May import `error` and `metrics`' crate.
//!
//! How far the workers are behind is told by a timer and by a byte that is sent to ourselves: what
//! the timer rings late by and what the byte needs, everything that is ready waits for, a token's
//! delta as well. The timer alone would not see the sockets that are ready and were not yet looked
//! at, which under load are most. That sees all causes alike, be it our own work or another
//! process's on the same cores, and has no number of streams to be tuned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{Gauge, IntCounter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::error::ApiError;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(10);
/// Looks in a row must agree for so long, and be two at least, before it begins or ends to refuse:
/// one hiccup is no overload, and one free moment is no end of it.
const AGREED_FOR: Duration = Duration::from_millis(100);

/// How far this node's workers are behind.
pub struct Overload {
    /// Behind above it; zero: never.
    limit: Duration,
    refuses: AtomicBool,
    shown: Gauge,
    refused: IntCounter,
}

/// Looks in a row that were of another opinion than what is done.
#[derive(Default)]
struct Against {
    looks: u32,
    /// From the first one's begin to the last one's end.
    took: Duration,
}

impl Overload {
    /// Refuses above `limit`; never, when that is zero.
    pub fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            limit,
            refuses: AtomicBool::new(false),
            shown: Gauge::new(
                "smithgate_worker_lag_seconds",
                "How long what is ready waits for a worker",
            )
            .expect("a valid metric"),
            refused: IntCounter::new(
                "smithgate_overload_refused_total",
                "Model calls and runs that were refused because the workers were behind",
            )
            .expect("a valid metric"),
        })
    }

    /// What it tells of itself.
    pub fn metrics(&self) -> [Box<dyn prometheus::core::Collector>; 2] {
        [Box::new(self.shown.clone()), Box::new(self.refused.clone())]
    }

    /// Looks for as long as the gateway lives.
    pub async fn watch(self: Arc<Self>) {
        let mut against = Against::default();
        let mut probe = UnixStream::pair();
        loop {
            let due = Instant::now() + EVERY;
            tokio::time::sleep_until(due).await;
            if let Ok((near, far)) = &mut probe
                && let Err(error) = pass(near, far).await
            {
                probe = Err(error);
            }
            if let Err(error) = &probe {
                tracing::warn!(%error, "cannot send a byte to ourselves");
                probe = UnixStream::pair();
            }
            self.note(due.elapsed(), &mut against);
        }
    }

    fn note(&self, late: Duration, against: &mut Against) {
        self.shown.set(late.as_secs_f64());
        let is_behind = !self.limit.is_zero() && late > self.limit;
        if is_behind == self.refuses.load(Ordering::Relaxed) {
            *against = Against::default();
            return;
        }
        against.looks += 1;
        against.took += EVERY + late;
        if against.looks > 1 && against.took >= AGREED_FOR {
            *against = Against::default();
            self.refuses.store(is_behind, Ordering::Relaxed);
        }
    }

    /// 503 `service_overloaded` when new work would make what is under way late.
    pub fn check(&self) -> Result<(), ApiError> {
        if !self.refuses.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.refused.inc();
        Err(ApiError::unavailable(
            "service_overloaded",
            "this node has as much to do as it can; try again soon",
            1,
        ))
    }
}

/// A byte through the kernel, which is found ready behind all that became so before it.
async fn pass(near: &mut UnixStream, far: &mut UnixStream) -> std::io::Result<()> {
    near.write_all(&[0]).await?;
    // Only a read that could have taken more makes the next one wait until it is told of a byte.
    match far.read(&mut [0; 16]).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_in_a_row_begin_and_end_it() {
        let ms = Duration::from_millis;
        let overload = Overload::new(ms(20));
        let mut against = Against::default();
        let mut look = |late: &[u64]| {
            for late in late {
                overload.note(ms(*late), &mut against);
            }
        };
        look(&[500, 0, 30, 30]);
        assert!(overload.check().is_ok());
        look(&[30]);
        let refusal = overload.check().expect_err("behind");
        assert_eq!(
            (refusal.status.as_u16(), refusal.retry_after),
            (503, Some(1))
        );
        assert_eq!(overload.refused.get(), 1);
        look(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(overload.check().is_err());
        look(&[0]);
        assert!(overload.check().is_ok());
        look(&[500]);
        assert!(overload.check().is_ok());
        look(&[21]);
        assert!(overload.check().is_err());
        let never = Overload::new(ms(0));
        (0..10).for_each(|_| never.note(ms(1000), &mut Against::default()));
        assert!(never.check().is_ok());
    }
}
