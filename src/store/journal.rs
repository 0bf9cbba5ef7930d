//! Writes of live runs, behind the stream: one task gathers what all runs hand in and commits it
//! in groups, so that a token delta never waits for the disk and a thousand runs share one sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Checkpoint, EventRow, RunEnd, RunRow, SmithUsage, Store};
use crate::metrics::Metrics;

/// One journal entry.
#[derive(Debug, Clone)]
pub enum Op {
    /// A new run, and what it takes to begin it again after a crash; takes `false` when its thread
    /// is held by another.
    CreateRun(Arc<RunRow>, Option<String>),
    /// Encoded frames of a run, from frame number `first` on.
    Frames {
        tenant_id: Arc<str>,
        run_id: Arc<str>,
        node_id: Arc<str>,
        first: i64,
        frames: Vec<u8>,
    },
    /// How far a run is; takes `false` when it is this node's no more.
    Checkpoint(Box<Checkpoint>),
    /// The run ended; takes `false` when it was no longer live.
    EndRun(Box<RunEnd>),
    /// Tokens to add.
    Usage(Box<SmithUsage>),
    /// An event of the feed, with its deliveries.
    Event(Box<EventRow>),
    /// Nothing; taken when all before it is.
    Barrier,
}

impl Op {
    fn weight(&self) -> usize {
        match self {
            Self::CreateRun(run, base) => {
                run.input.len() + base.as_ref().map_or(0, String::len) + 512
            }
            Self::Checkpoint(point) => {
                let frames = point.frames.as_ref().map_or(0, |(_, frames)| frames.len());
                point.progress.len() + frames + 512
            }
            Self::Frames { frames, .. } => frames.len() + 128,
            Self::EndRun(end) => end.transcript.as_ref().map_or(0, String::len) + 512,
            Self::Event(event) => event.data.len() + 256,
            Self::Usage(_) | Self::Barrier => 128,
        }
    }
}

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the journal's backlog is full")]
    Full,
    #[error("the store did not take the entry")]
    Unavailable,
}

impl From<JournalError> for crate::error::ApiError {
    fn from(error: JournalError) -> Self {
        Self::unavailable("storage_unavailable", error.to_string(), 2)
    }
}

struct Entry {
    op: Op,
    done: Option<oneshot::Sender<Result<bool, JournalError>>>,
}

/// The way into the journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    entries: mpsc::UnboundedSender<Entry>,
    backlog: Arc<AtomicUsize>,
}

/// New runs are refused above this backlog (bytes), so that a dead disk cannot eat the memory.
const MAX_BACKLOG: usize = 256 * 1024 * 1024;
const MAX_BATCH: usize = 4096;
/// How long entries are kept for a store that does not answer.
const RETRY_FOR: Duration = Duration::from_secs(60);

impl Journal {
    /// Starts the task. It ends when the last clone is gone and all is written.
    pub fn start(store: Arc<dyn Store>, metrics: Metrics) -> (Self, tokio::task::JoinHandle<()>) {
        let (entries, inbox) = mpsc::unbounded_channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(write_all(store, inbox, backlog.clone(), metrics));
        (Self { entries, backlog }, task)
    }

    /// Whether new runs should be refused for now.
    pub fn is_full(&self) -> bool {
        self.backlog.load(Ordering::Relaxed) > MAX_BACKLOG
    }

    fn push(&self, op: Op, done: Option<oneshot::Sender<Result<bool, JournalError>>>) {
        let weight = op.weight();
        self.backlog.fetch_add(weight, Ordering::Relaxed);
        if self.entries.send(Entry { op, done }).is_err() {
            self.backlog.fetch_sub(weight, Ordering::Relaxed);
        }
    }

    /// Hands in an entry and does not wait.
    pub fn append(&self, op: Op) {
        self.push(op, None);
    }

    /// Waits until all that was handed in so far is durable.
    pub async fn flush(&self) -> Result<(), JournalError> {
        self.commit(Op::Barrier).await.map(|_| ())
    }

    /// Hands in an entry and waits until it is durable; tells whether it took.
    pub async fn commit(&self, op: Op) -> Result<bool, JournalError> {
        let (done, wait) = oneshot::channel();
        self.push(op, Some(done));
        wait.await.unwrap_or(Err(JournalError::Unavailable))
    }
}

async fn write_all(
    store: Arc<dyn Store>,
    mut inbox: mpsc::UnboundedReceiver<Entry>,
    backlog: Arc<AtomicUsize>,
    metrics: Metrics,
) {
    let mut batch = Vec::new();
    while inbox.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let weight: usize = batch.iter().map(|entry| entry.op.weight()).sum();
        let (ops, waiters): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|entry| (entry.op, entry.done)).unzip();
        let timer = metrics.journal_commit.start_timer();
        let results = apply_patiently(store.as_ref(), &ops).await;
        timer.observe_duration();
        metrics.journal_entries.inc_by(ops.len() as u64);
        backlog.fetch_sub(weight, Ordering::Relaxed);
        for (at, (op, waiter)) in ops.into_iter().zip(waiters).enumerate() {
            // Whoever waits may then change what they share with it.
            drop(op);
            if let Some(waiter) = waiter {
                let result = results
                    .as_ref()
                    .map(|taken| taken.get(at).copied().unwrap_or(false));
                // The caller may have gone; its entry is written all the same.
                let _ = waiter.send(result.map_err(|e| *e));
            }
        }
    }
}

async fn apply_patiently(store: &dyn Store, ops: &[Op]) -> Result<Vec<bool>, JournalError> {
    let started = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        match store.apply(ops).await {
            Ok(taken) => return Ok(taken),
            Err(error) if started.elapsed() < RETRY_FOR => {
                tracing::warn!(%error, entries = ops.len(), "journal write failed, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Err(error) => {
                tracing::error!(%error, entries = ops.len(), "journal entries lost");
                return Err(JournalError::Unavailable);
            }
        }
    }
}
