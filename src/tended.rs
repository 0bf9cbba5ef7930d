//! Tasks that must last as long as the gateway: one that breaks off by a fault of ours is begun again,
//! since without it leases would lapse, sums be lost or deliveries stand still unseen.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// Before a task that broke off is begun again.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the task that `begin` makes, and again whenever it panics; ends when it ends by itself.
pub fn spawn<F>(name: &'static str, begin: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a task panicked, and is begun again");
            tokio::time::sleep(PAUSE).await;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_begun_again() {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = begun.clone();
        let task = spawn("test", move || {
            let count = count.clone();
            async move {
                let times = count.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                assert!(times >= 2, "a fault of ours");
            }
        });
        task.await.expect("ended by itself");
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }
}
