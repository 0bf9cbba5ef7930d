//! Writes of live runs, behind the stream: one task gathers what all runs hand in and commits it
//! in groups, so that a token delta never waits for the disk and a thousand runs share one sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{
    Checkpoint, EventRow, Health, Mark, RunEnd, RunRow, SmithUsage, StorageFault, Store, StoreError,
};
use crate::error::ApiError;
use crate::ids;
use crate::metrics::Metrics;

/// One journal entry.
#[derive(Debug, Clone)]
pub enum Op {
    /// A new run, and what it takes to begin it again after a crash; takes `false` when its thread
    /// is held by another, or its turn in it was taken.
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
            Self::EndRun(end) => {
                let texts = [&end.transcript, &end.output];
                let texts = texts.into_iter().flatten().map(String::len);
                let frames = end.frames.as_ref().map_or(0, |(_, frames)| frames.len());
                texts.sum::<usize>() + frames + 512
            }
            Self::Event(event) => event.data.len() + 256,
            Self::Usage(_) | Self::Barrier => 128,
        }
    }
}

/// Why an entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the store is behind; try again soon")]
    Full,
    #[error("the store takes no writes: this was not kept")]
    Unavailable,
    #[error("the store cannot keep this entry")]
    Refused,
}

impl From<JournalError> for ApiError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Full => Self::unavailable("storage_unavailable", error.to_string(), 5),
            JournalError::Unavailable => {
                Self::unavailable("storage_unavailable", error.to_string(), 2)
            }
            JournalError::Refused => Self::internal(error),
        }
    }
}

/// What became of an entry; one that was not taken comes back.
type Done = Result<bool, (JournalError, Op)>;

struct Entry {
    op: Op,
    done: Option<oneshot::Sender<Done>>,
}

/// The way into the journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    entries: mpsc::UnboundedSender<Entry>,
    backlog: Arc<AtomicUsize>,
    health: Arc<Health>,
}

/// New runs are refused above this backlog (bytes), so that a dead disk cannot eat the memory.
const MAX_BACKLOG: usize = 256 * 1024 * 1024;
/// Of entries that nobody waits for, so much (bytes) is kept for a store that takes none.
const MAX_KEPT: usize = 64 * 1024 * 1024;
const MAX_BATCH: usize = 4096;
/// How long entries are held for a store that does not answer. Once it was so long, they are tried
/// once and given back.
const HOLD_WHILE_AWAY: Duration = Duration::from_secs(60);
/// The same for one that answers that it is full, or may only be read.
const HOLD_WHILE_REFUSED: Duration = Duration::from_secs(2);
/// How soon a store that failed is tried again.
const TRY_EVERY: Duration = Duration::from_millis(500);

impl Journal {
    /// Starts the task. It ends when the last clone is gone and all is written.
    pub fn start(store: Arc<dyn Store>, metrics: Metrics) -> (Self, tokio::task::JoinHandle<()>) {
        let (entries, inbox) = mpsc::unbounded_channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let health = Health::new(store.clone());
        let writer = Writer {
            store,
            health: health.clone(),
            backlog: backlog.clone(),
            metrics,
            id: ids::mint(ids::Kind::Node),
            batch: 0,
            kept: Vec::new(),
        };
        let task = tokio::spawn(writer.write_all(inbox));
        let journal = Self {
            entries,
            backlog,
            health,
        };
        (journal, task)
    }

    /// What is known of the store.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Refuses what could not be written, before anything is done for it.
    pub fn check(&self) -> Result<(), JournalError> {
        if self.backlog.load(Ordering::Relaxed) > MAX_BACKLOG {
            return Err(JournalError::Full);
        }
        match self.health.is_failing() {
            true => Err(JournalError::Unavailable),
            false => Ok(()),
        }
    }

    fn push(&self, op: Op, done: Option<oneshot::Sender<Done>>) {
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
        self.try_commit(op).await.map_err(|(error, _)| error)
    }

    /// As [`Journal::commit`]; gives the entry back that was not taken.
    pub async fn try_commit(&self, op: Op) -> Done {
        let (done, wait) = oneshot::channel();
        self.push(op, Some(done));
        let gone = |_| Err((JournalError::Unavailable, Op::Barrier));
        wait.await.unwrap_or_else(gone)
    }
}

/// What writes the entries.
struct Writer {
    store: Arc<dyn Store>,
    health: Arc<Health>,
    backlog: Arc<AtomicUsize>,
    metrics: Metrics,
    /// Of this journal in the store.
    id: String,
    batch: i64,
    /// Entries that nobody waits for and the store did not take, in order.
    kept: Vec<Op>,
}

impl Writer {
    async fn write_all(mut self, mut inbox: mpsc::UnboundedReceiver<Entry>) {
        let mut batch = Vec::new();
        loop {
            let more = inbox.recv_many(&mut batch, MAX_BATCH);
            let count = match self.health.is_failing() {
                false => more.await,
                true => match tokio::time::timeout(TRY_EVERY, more).await {
                    Ok(count) => count,
                    Err(_) => {
                        self.try_again().await;
                        continue;
                    }
                },
            };
            if count == 0 {
                break;
            }
            self.write(&mut batch).await;
        }
        if !self.kept.is_empty() {
            self.write(&mut batch).await;
        }
        if !self.kept.is_empty() {
            tracing::error!(entries = self.kept.len(), "journal entries lost");
        }
    }

    /// Looks whether the store is back, with what waits for it.
    async fn try_again(&mut self) {
        if !self.kept.is_empty() {
            self.write(&mut Vec::new()).await;
        } else if self.health.probe().await {
            self.health.took();
        }
    }

    async fn write(&mut self, batch: &mut Vec<Entry>) {
        let mut ops = std::mem::take(&mut self.kept);
        let mut waiters: Vec<_> = ops.iter().map(|_| None).collect();
        for entry in batch.drain(..) {
            ops.push(entry.op);
            waiters.push(entry.done);
        }
        let timer = self.metrics.journal_commit.start_timer();
        let results = self.apply(&ops).await;
        timer.observe_duration();
        self.metrics.journal_entries.inc_by(ops.len() as u64);
        let (mut done, mut kept) = (0, 0);
        for ((op, waiter), result) in ops.into_iter().zip(waiters).zip(results) {
            let weight = op.weight();
            let result = match (result, waiter.is_some()) {
                (Err(JournalError::Unavailable), false) if kept + weight <= MAX_KEPT => {
                    kept += weight;
                    self.kept.push(op);
                    continue;
                }
                // Whoever waits may then change what they share with it.
                (Ok(took), _) => {
                    drop(op);
                    Ok(took)
                }
                (Err(error), true) => Err((error, op)),
                (Err(error), false) => {
                    tracing::error!(%error, "a journal entry was lost");
                    Err((error, op))
                }
            };
            done += weight;
            if let Some(waiter) = waiter {
                // The caller may have gone; its entry is written all the same.
                let _ = waiter.send(result);
            }
        }
        self.backlog.fetch_sub(done, Ordering::Relaxed);
    }

    /// Applies entries, in order; one that the store cannot keep takes no other with it.
    async fn apply(&mut self, ops: &[Op]) -> Vec<Result<bool, JournalError>> {
        let mut results = Vec::with_capacity(ops.len());
        let mut parts = vec![ops];
        while let Some(part) = parts.pop() {
            match self.apply_patiently(part).await {
                Ok(taken) => results.extend(taken.into_iter().map(Ok)),
                Err(error) if error.fault().is_some() => {
                    tracing::error!(%error, entries = part.len(), "the store took no entries");
                    self.health.lost();
                    results.extend(part.iter().map(|_| Err(JournalError::Unavailable)));
                }
                Err(_) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) => {
                    tracing::error!(%error, "the store cannot keep an entry");
                    self.health.lost();
                    results.push(Err(JournalError::Refused));
                }
            }
        }
        results
    }

    async fn apply_patiently(&mut self, ops: &[Op]) -> Result<Vec<bool>, StoreError> {
        self.batch += 1;
        let mut pause = Duration::from_millis(20);
        loop {
            let mark = Mark {
                journal_id: &self.id,
                batch: self.batch,
            };
            let error = match self.store.apply_once(ops, Some(mark)).await {
                Ok(taken) => {
                    self.health.took();
                    return Ok(taken);
                }
                Err(error) => error,
            };
            let Some(fault) = error.fault() else {
                return Err(error);
            };
            if self.health.failed(fault).elapsed() >= hold_for(fault) {
                return Err(error);
            }
            tracing::warn!(%error, entries = ops.len(), "journal write failed, trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(TRY_EVERY);
        }
    }
}

fn hold_for(fault: StorageFault) -> Duration {
    match fault.is_passing() {
        true => HOLD_WHILE_AWAY,
        false => HOLD_WHILE_REFUSED,
    }
}
