//! The frames of a run that is under way: one writer, any number of readers, each at its own
//! place. The lock is the run's own; nothing here is shared between runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::transcript::Collector;
use crate::error::ApiError;
use crate::frame::Frame;

/// Why a run was cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// `submit` with `cancel`, and its reason.
    Asked(Option<String>),
    /// The client that it answers has left.
    ClientGone,
    /// This node is going down.
    Shutdown,
}

#[derive(Default)]
struct State {
    frames: Vec<Frame>,
    closed: bool,
    cancelled: Option<Cancelled>,
}

/// A run under way.
pub struct LiveRun {
    pub run_id: Arc<str>,
    pub tenant_id: Arc<str>,
    pub smith_id: Arc<str>,
    pub thread_id: Arc<str>,
    pub include_mask: i64,
    detached: bool,
    state: Mutex<State>,
    changed: Notify,
    cancel: CancellationToken,
    /// Bytes written that the first client has not yet taken.
    lead: AtomicUsize,
    caught_up: Notify,
    client_here: AtomicBool,
    resumed_at: AtomicUsize,
    /// Why it failed, with the status that its frame cannot carry; set before the last frame.
    pub failure: OnceLock<ApiError>,
}

impl LiveRun {
    /// A run without frames yet. `detached`: it does not end with its client.
    pub fn new(
        run_id: Arc<str>,
        tenant_id: Arc<str>,
        smith_id: Arc<str>,
        thread_id: Arc<str>,
        include_mask: i64,
        detached: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            run_id,
            tenant_id,
            smith_id,
            thread_id,
            include_mask,
            detached,
            state: Mutex::default(),
            changed: Notify::new(),
            cancel: CancellationToken::new(),
            lead: AtomicUsize::new(0),
            caught_up: Notify::new(),
            client_here: AtomicBool::new(false),
            resumed_at: AtomicUsize::new(0),
            failure: OnceLock::new(),
        })
    }

    /// A run that goes on after `frames`.
    pub fn resumed(run: &crate::store::RunRow, detached: bool, frames: Vec<Frame>) -> Arc<Self> {
        let live = Self::new(
            run.id.as_str().into(),
            run.tenant_id.as_str().into(),
            run.smith_id.as_str().into(),
            run.thread_id.as_str().into(),
            run.include_mask,
            detached,
        );
        live.resumed_at.store(frames.len(), Ordering::Release);
        live.state.lock().frames = frames;
        live
    }

    /// Whether it goes on without its client.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// How many frames there were before it went on.
    pub fn resumed_at(&self) -> usize {
        self.resumed_at.load(Ordering::Acquire)
    }

    /// Adds frames, taking them out of `frames`.
    pub fn write(&self, frames: &mut Vec<Frame>) {
        if frames.is_empty() {
            return;
        }
        let weight: usize = frames.iter().map(Frame::weight).sum();
        self.lead.fetch_add(weight, Ordering::Relaxed);
        self.state.lock().frames.append(frames);
        self.changed.notify_waiters();
    }

    /// Puts together what was said since there were `from` frames.
    pub fn said_since(&self, from: usize) -> Collector {
        let state = self.state.lock();
        let mut collector = Collector::default();
        collector.add_all(state.frames.get(from..).unwrap_or_default());
        collector
    }

    /// Whether its last frames are there.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Adds the last frames; readers end after them.
    pub fn close(&self, frames: &mut Vec<Frame>) {
        {
            let mut state = self.state.lock();
            state.frames.append(frames);
            state.closed = true;
        }
        self.changed.notify_waiters();
    }

    /// Waits while a client that the run depends on is more than `limit` bytes behind.
    pub async fn wait_for_client(&self, limit: usize) {
        while !self.detached
            && self.client_here.load(Ordering::Acquire)
            && self.lead.load(Ordering::Acquire) > limit
        {
            let caught_up = self.caught_up.notified();
            if self.lead.load(Ordering::Acquire) > limit && self.client_here.load(Ordering::Acquire)
            {
                caught_up.await;
            }
        }
    }

    /// Cancels the run; the first reason counts.
    pub fn cancel(&self, why: Cancelled) {
        self.state.lock().cancelled.get_or_insert(why);
        self.cancel.cancel();
    }

    /// Ends when the run is cancelled.
    pub async fn cancelled(&self) -> Cancelled {
        self.cancel.cancelled().await;
        self.state
            .lock()
            .cancelled
            .clone()
            .unwrap_or(Cancelled::Asked(None))
    }

    /// A reader for the client that started the run.
    pub fn first_reader(self: &Arc<Self>) -> Reader {
        self.client_here.store(true, Ordering::Release);
        Reader {
            live: self.clone(),
            at: 0,
            is_first: true,
        }
    }

    /// A reader of what comes since it went on.
    pub fn later_reader(self: &Arc<Self>) -> Reader {
        let mut reader = self.reader();
        reader.at = self.resumed_at();
        reader
    }

    /// A reader for anyone else, from the run's first frame on.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader {
            live: self.clone(),
            at: 0,
            is_first: false,
        }
    }
}

/// A place in a live run's frames.
pub struct Reader {
    live: Arc<LiveRun>,
    at: usize,
    is_first: bool,
}

impl Reader {
    /// The run.
    pub fn run(&self) -> &Arc<LiveRun> {
        &self.live
    }

    /// Appends all frames that are there, waiting for at least one; `false` after the last.
    /// May be dropped while waiting without losing frames.
    pub async fn next(&mut self, out: &mut Vec<Frame>) -> bool {
        self.ready(1).await;
        self.take(out)
    }

    /// Waits until there are so many frames to take, or no more will come.
    pub async fn ready(&self, count: usize) {
        loop {
            let changed = self.live.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.live.state.lock();
                if state.closed || state.frames.len() >= self.at + count {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Looks at the frames that are there to take.
    pub fn peek<T>(&self, look: impl FnOnce(&[Frame]) -> T) -> T {
        let state = self.live.state.lock();
        look(&state.frames[self.at..])
    }

    /// Appends the frames that are there without waiting; `false` when there are none.
    pub fn take(&mut self, out: &mut Vec<Frame>) -> bool {
        let taken = {
            let state = self.live.state.lock();
            let new = &state.frames[self.at..];
            out.extend_from_slice(new);
            self.at = state.frames.len();
            new.len()
        };
        if taken > 0 && self.is_first {
            // What was just taken is no lead any more; what came since is found by the next look.
            self.live.lead.store(0, Ordering::Release);
            self.live.caught_up.notify_one();
        }
        taken > 0
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.is_first {
            self.live.client_here.store(false, Ordering::Release);
            self.live.caught_up.notify_one();
            let ended = self.live.state.lock().closed;
            if !ended && !self.live.detached {
                self.live.cancel(Cancelled::ClientGone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Escaped;

    fn live(detached: bool) -> Arc<LiveRun> {
        LiveRun::new(
            "run_1".into(),
            "proj_1".into(),
            "smt_1".into(),
            "thr_1".into(),
            0,
            detached,
        )
    }

    fn text(text: &str) -> Frame {
        Frame::Text(Escaped::escape(text))
    }

    #[tokio::test]
    async fn readers_see_all_frames_in_order_from_the_start() {
        let run = live(true);
        let mut first = run.first_reader();
        let writer = {
            let run = run.clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    run.write(&mut vec![text(&n.to_string())]);
                    tokio::task::yield_now().await;
                }
                run.close(&mut vec![text("end")]);
            })
        };
        let mut seen = Vec::new();
        while first.next(&mut seen).await {}
        writer.await.expect("written");
        assert_eq!(seen.len(), 101);
        let mut late = Vec::new();
        let mut reader = run.reader();
        while reader.next(&mut late).await {}
        assert_eq!(late, seen);
    }

    #[tokio::test]
    async fn a_leaving_client_cancels_unless_detached() {
        let run = live(false);
        drop(run.first_reader());
        assert_eq!(run.cancelled().await, Cancelled::ClientGone);
        let run = live(true);
        drop(run.first_reader());
        assert!(!run.cancel.is_cancelled());
    }

    #[tokio::test]
    async fn the_writer_waits_for_a_slow_client_and_not_for_a_gone_one() {
        let run = live(false);
        let mut reader = run.first_reader();
        run.write(&mut vec![text(&"x".repeat(5000))]);
        let wait = run.wait_for_client(1000);
        tokio::pin!(wait);
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
        assert!(reader.take(&mut Vec::new()));
        wait.await;
        run.write(&mut vec![text(&"x".repeat(5000))]);
        drop(reader);
        run.wait_for_client(1000).await;
    }
}
