//! Sheds load before latency collapses: when the workers fall behind and stay so, new model calls and
//! runs are refused, so that those under way keep their pace. May import `error` and `metrics`' crate.
//!
//! How far the workers are behind is told by a timer and by a byte that is sent to ourselves: what
//! the timer rings late by and what the byte needs, everything that is ready waits for, a token's
//! delta as well. The timer alone would not see the sockets that are ready and were not yet looked
//! at, which under load are most.
//!
//! A queue that drains is no overload, however long it was: as in CoDel (RFC 8289), what counts is the
//! *least* delay of half a second. And a delay that requests did not make is no overload by requests:
//! what passes while another process has the cores, or while this one is stopped or throttled, is
//! known by the processor time that we did not get, and counts little or nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{Gauge, IntCounter};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::metrics::Metrics;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(10);
/// It is overload when all looks of so long were behind.
const LASTS: Duration = Duration::from_millis(500);
/// So long is enough for one that comes back at once: it never went away.
const LASTS_AGAIN: Duration = Duration::from_millis(100);
const AT_ONCE: Duration = Duration::from_secs(1);
/// It is over when all looks of so long, and two at least, were in time: one free moment is no end.
const OVER: Duration = Duration::from_millis(100);
/// Of the processor time that there was, what our own work takes at least when it is the cause.
const OWN_WORK: f64 = 0.5;
/// Below it we did not run at all.
const STOPPED: f64 = 0.05;
/// So many times longer a delay must last when others are its cause: whoever waits waits all the
/// same, but they may be gone in a moment.
const OTHERS: u32 = 20;

/// How far this node's workers are behind.
pub struct Overload {
    /// Behind above it; zero: never.
    limit: Duration,
    refuses: AtomicBool,
    shown: Gauge,
    refused: IntCounter,
}

/// What one look saw.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// What was ready waited for so long.
    late: Duration,
    /// Since the look before.
    passed: Duration,
    /// Of the processor time that our workers could have had since then, what they had: 0 to 1.
    share: f64,
    /// Whether our quota ran out since then.
    throttled: bool,
}

impl Look {
    /// For how long it counts as a delay that our own work made.
    fn counts(&self) -> Duration {
        if self.share < STOPPED {
            Duration::ZERO
        } else if self.share < OWN_WORK || self.throttled {
            self.passed / OTHERS
        } else {
            self.passed
        }
    }
}

/// Looks in a row that were of another opinion than what is done.
#[derive(Default)]
struct Against {
    looks: u32,
    took: Duration,
    /// Since it last refused.
    since: Option<Duration>,
}

/// What this process had of the processor.
struct Processor {
    /// At a time, at most.
    cores: f64,
    used: Duration,
    throttles: u64,
}

impl Processor {
    fn new() -> Self {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cores: workers.min(cores).max(1) as f64,
            used: used(),
            throttles: 0,
        }
    }

    /// What it had since it was asked last.
    fn share(&mut self, passed: Duration) -> f64 {
        let used = used();
        let had = used.saturating_sub(self.used);
        self.used = used;
        had.as_secs_f64() / (passed.as_secs_f64() * self.cores).max(1e-6)
    }

    /// Whether its quota ran out since it was asked last.
    fn throttled(&mut self) -> bool {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let told = stat_files(&groups)
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .find_map(|text| throttles(&text));
        told.is_some_and(|told| std::mem::replace(&mut self.throttles, told) != told)
    }
}

/// The processor time of this process.
fn used() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        spent.tv_sec.unsigned_abs(),
        spent.tv_nsec.unsigned_abs() as u32,
    )
}

/// Where the kernel may tell of our quota, by the groups that this process is in: version 2 and 1,
/// and their roots, as which a container sees its own group. Looked up each time, as a process can be
/// moved.
fn stat_files(groups: &str) -> impl Iterator<Item = String> {
    let own = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_end_matches('/');
        match controllers {
            "" => Some(format!("/sys/fs/cgroup{path}/cpu.stat")),
            named if named.split(',').any(|name| name == "cpu") => {
                Some(format!("/sys/fs/cgroup/{named}{path}/cpu.stat"))
            }
            _ => None,
        }
    });
    let roots = ["/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat"].map(str::to_owned);
    own.chain(roots).collect::<Vec<_>>().into_iter()
}

/// How often a quota has run out.
fn throttles(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|l| l.strip_prefix("nr_throttled "))?;
    line.trim().parse().ok()
}

impl Overload {
    /// Refuses above `limit`; never, when that is zero.
    pub fn new(limit: Duration, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            limit,
            refuses: AtomicBool::new(false),
            shown: metrics.worker_lag.clone(),
            refused: metrics.overload_refused.clone(),
        })
    }

    /// Looks for as long as the gateway lives.
    pub async fn watch(self: Arc<Self>) {
        let mut against = Against::default();
        let mut processor = Processor::new();
        let mut probe = UnixStream::pair();
        let mut looked = Instant::now();
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
            let late = due.elapsed();
            let passed = looked.elapsed();
            looked = Instant::now();
            let look = Look {
                late,
                passed,
                share: processor.share(passed),
                throttled: !self.limit.is_zero() && late > self.limit && processor.throttled(),
            };
            self.note(look, &mut against);
        }
    }

    fn note(&self, look: Look, against: &mut Against) {
        self.shown.set(look.late.as_secs_f64());
        if self.limit.is_zero() {
            return;
        }
        let is_behind = look.late > self.limit;
        let refuses = self.refuses.load(Ordering::Relaxed);
        against.since = match refuses {
            true => Some(Duration::ZERO),
            false => against.since.map(|since| since + look.passed),
        };
        if is_behind == refuses {
            (against.looks, against.took) = (0, Duration::ZERO);
            return;
        }
        let came_back = against.since.is_some_and(|since| since < AT_ONCE);
        let (counts, needed) = match (is_behind, came_back) {
            (true, false) => (look.counts(), LASTS),
            (true, true) => (look.counts(), LASTS_AGAIN),
            (false, _) => (look.passed, OVER),
        };
        against.looks += u32::from(!counts.is_zero());
        against.took += counts;
        if against.looks > 1 && against.took >= needed {
            (against.looks, against.took) = (0, Duration::ZERO);
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

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Looks that were late by so much, each with this share of the processor.
    struct Sight {
        overload: Arc<Overload>,
        against: Against,
    }

    impl Sight {
        fn new(limit: u64) -> Self {
            Self {
                overload: Overload::new(ms(limit), &Metrics::new()),
                against: Against::default(),
            }
        }

        fn look(&mut self, late: u64, share: f64, throttled: bool) -> bool {
            let look = Look {
                late: ms(late),
                passed: EVERY + ms(late),
                share,
                throttled,
            };
            self.overload.note(look, &mut self.against);
            self.overload.check().is_err()
        }

        /// Whether any of `count` looks that are alike made it refuse.
        fn looks(&mut self, count: usize, late: u64, share: f64) -> bool {
            (0..count).fold(false, |refused, _| self.look(late, share, false) || refused)
        }
    }

    #[test]
    fn a_delay_that_lasts_is_refused_until_it_is_over() {
        let mut sight = Sight::new(40);
        // Nine looks of 60 ms are 540 ms.
        assert!(!sight.looks(8, 50, 0.9));
        assert!(sight.look(50, 0.9, false));
        let refusal = sight.overload.check().expect_err("behind");
        assert_eq!(
            (refusal.status.as_u16(), refusal.retry_after),
            (503, Some(1))
        );
        // One free moment is no end of it.
        assert!(sight.look(0, 0.9, false) && sight.look(50, 0.9, false));
        let free: Vec<bool> = (0..12).map(|_| sight.look(0, 0.9, false)).collect();
        assert!(free[8] && !free[11], "{free:?}");
        // One that comes back at once has lasted.
        assert!(!sight.look(60, 0.9, false));
        assert!(sight.look(60, 0.9, false));
    }

    #[test]
    fn a_queue_that_drains_is_no_overload() {
        let mut sight = Sight::new(40);
        for _ in 0..20 {
            assert!(!sight.looks(6, 60, 1.0));
            assert!(!sight.look(5, 1.0, false));
        }
        // Nor is one stall, however long.
        assert!(!sight.look(5_000, 1.0, false));
        assert!(!sight.look(10, 1.0, false));
    }

    #[test]
    fn what_others_take_is_not_our_overload() {
        // A neighbour has most of the cores for seconds.
        let mut sight = Sight::new(40);
        assert!(!sight.looks(80, 90, 0.3));
        // Whoever has no pace for ten seconds is overloaded all the same.
        assert!(sight.looks(40, 90, 0.3));
        // The process is stopped in pulses, as by a debugger or a snapshot.
        let mut sight = Sight::new(40);
        for _ in 0..50 {
            assert!(!sight.look(300, 0.01, false));
            assert!(!sight.looks(3, 50, 0.2));
        }
        // A quota runs out in every period.
        let mut sight = Sight::new(40);
        for _ in 0..80 {
            assert!(!sight.look(90, 0.8, true));
        }
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        assert!(!Sight::new(0).looks(100, 1000, 1.0));
    }

    #[test]
    fn the_kernel_tells_of_quotas() {
        let stat = "usage_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 100\n";
        assert_eq!(throttles(stat), Some(2));
        assert_eq!(throttles("usage_usec 5\n"), None);
        assert!(used() > Duration::ZERO);
        let files: Vec<String> = stat_files("5:memory:/a\n3:cpu,cpuacct:/b\n0::/\n").collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/cpu,cpuacct/b/cpu.stat",
                "/sys/fs/cgroup/cpu.stat",
                "/sys/fs/cgroup/cpu.stat",
                "/sys/fs/cgroup/cpu/cpu.stat"
            ]
        );
    }
}
