//! An alarm after a silence. Putting it off is a reading of the clock, so that a stream can do it
//! with every piece; the runtime's timers, whose lock all streams share, are touched once a
//! silence, not once a piece. Imports nothing of ours.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings once nothing was heard for a while.
#[derive(Debug)]
pub struct Silence {
    allowed: Duration,
    since: Instant,
    /// Made when it is first waited for; may ring before its time, and is then set again.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// Begins now; rings after `allowed`.
    pub fn new(allowed: Duration) -> Self {
        Self {
            allowed,
            since: Instant::now(),
            alarm: None,
        }
    }

    /// Something was heard: it begins again.
    pub fn broken(&mut self) {
        self.since = Instant::now();
    }

    /// Waits until it has lasted. May be dropped while waiting.
    pub async fn lasts(&mut self) {
        loop {
            let due = self.since + self.allowed;
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
            alarm.as_mut().await;
            if Instant::now() >= due {
                return;
            }
            alarm.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_only_after_a_whole_silence() {
        let allowed = Duration::from_millis(100);
        let mut silence = Silence::new(allowed);
        // The alarm is set for the first silence.
        let _ = futures_util::poll!(std::pin::pin!(silence.lasts()));
        tokio::time::sleep(allowed / 2).await;
        silence.broken();
        let broken = Instant::now();
        silence.lasts().await;
        assert!(broken.elapsed() >= allowed);
        // Over until something is heard.
        silence.lasts().await;
        silence.broken();
        let broken = Instant::now();
        silence.lasts().await;
        assert!(broken.elapsed() >= allowed);
    }
}
