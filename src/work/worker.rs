//! The loop that takes work up, and each piece's way from its claim to its end.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fair::Rota;
use super::{AtShutdown, Claim, Held, Lane, Rules, Work};
use crate::metrics::Metrics;
use crate::store::now_micros;

/// Lanes that a look takes into account, beside those that are busy.
const WINDOW: usize = 256;
/// Lanes whose work is claimed at once.
const CLAIMS_AT_ONCE: usize = 4;
/// A hold is prolonged so often while it lasts.
const RENEWALS: u32 = 3;
/// Between attempts to write what came of a piece of work.
const SETTLE_AGAIN: Duration = Duration::from_millis(100);
const SETTLE_AGAIN_AT_MOST: Duration = Duration::from_secs(5);
/// Others are told so often at most that there is work.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Between the end of a piece of work and the look for the next.
const BREATH: Duration = Duration::from_millis(2);
/// While the end of what is under way is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Tells other nodes that there is work of some name.
pub type Tell = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Wakes a room whenever it is said that there may be something to do in it, for ever.
pub async fn wake_on(said: Arc<Notify>, room: Arc<dyn Room>) {
    loop {
        said.notified().await;
        room.wake();
    }
}

/// One kind of work on this node.
pub struct Worker<W: Work> {
    /// What is done.
    pub work: W,
    rules: Rules,
    metrics: Metrics,
    tell: Tell,
    clock: fn() -> i64,
    state: Mutex<State<W::Item>>,
    pub(super) tasks: Mutex<JoinSet<()>>,
    woken: Notify,
    ended: Notify,
    closed: AtomicBool,
    told: Mutex<Option<Instant>>,
    /// Held alone while holds are prolonged, shared while what came of the work is written: what is
    /// written is compared with the hold.
    renewing: Arc<RwLock<()>>,
}

struct State<I> {
    rota: Rota,
    held: HashMap<u64, Arc<Held<I>>>,
    last: u64,
}

/// What a look came to.
struct Looked {
    took: usize,
    /// There is more than was taken.
    more: bool,
    next: Option<i64>,
}

/// Workers of any kind, as the gateway keeps them.
#[async_trait]
pub trait Room: Send + Sync {
    /// Its work's name.
    fn name(&self) -> &'static str;
    /// Says that there is something to do, here or elsewhere.
    fn wake(&self);
    /// Looks at once for what is due; another node said so.
    fn wake_here(&self);
    /// Takes nothing up any more.
    fn close(&self);
    /// Works until it is closed.
    async fn run(self: Arc<Self>);
    /// Closes, lets end what is under way where its rules say so, for `patience` at most, and gives
    /// the rest back, within `rest`.
    async fn drain(&self, patience: Duration, rest: Duration);
}

impl<W: Work> Worker<W> {
    /// A worker that holds nothing yet.
    pub fn new(work: W, metrics: Metrics, tell: Tell) -> Arc<Self> {
        Self::with_clock(work, metrics, tell, now_micros)
    }

    pub(super) fn with_clock(
        work: W,
        metrics: Metrics,
        tell: Tell,
        clock: fn() -> i64,
    ) -> Arc<Self> {
        Arc::new(Self {
            rules: work.rules(),
            work,
            metrics,
            tell,
            clock,
            state: Mutex::new(State {
                rota: Rota::default(),
                held: HashMap::new(),
                last: 0,
            }),
            tasks: Mutex::default(),
            woken: Notify::new(),
            ended: Notify::new(),
            closed: AtomicBool::new(false),
            told: Mutex::default(),
            renewing: Arc::default(),
        })
    }

    /// Says that there is something to do: it is looked for at once, here or, when this node is busy
    /// or takes nothing up, elsewhere too.
    pub fn wake(&self) {
        self.woken.notify_one();
        let is_full = self.state.lock().rota.busy() >= self.rules.at_once;
        if is_full || self.is_closed() {
            self.tell_others();
        }
    }

    /// Pieces of work under way.
    pub fn held(&self) -> usize {
        self.state.lock().held.len()
    }

    /// Takes up all that is due now, and waits until it is done.
    pub async fn catch_up(self: &Arc<Self>) {
        let rounds = async {
            while self.look().await.took > 0 {
                self.idle().await;
            }
        };
        tokio::select! {
            () = rounds => {}
            () = self.keep() => {}
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn tell_others(&self) {
        let now = Instant::now();
        {
            let mut told = self.told.lock();
            if told.is_some_and(|at| now.duration_since(at) < TELL_EVERY) {
                return;
            }
            *told = Some(now);
        }
        (self.tell)(self.rules.name);
    }

    fn count(&self, what: &str) {
        let labels = [self.rules.name, what];
        self.metrics.work.with_label_values(&labels).inc();
    }

    async fn take_up(self: &Arc<Self>) {
        while !self.is_closed() {
            let looked = self.look().await;
            let is_full = self.state.lock().rota.busy() >= self.rules.at_once;
            if looked.took > 0 && looked.more && !is_full {
                continue;
            }
            let mut pause = self.rules.look_every;
            if let Some(next) = looked.next {
                let left = u64::try_from(next - (self.clock)()).unwrap_or(0);
                let left = Duration::from_micros(left).max(Duration::from_millis(1));
                pause = pause.min(left);
            }
            tokio::select! {
                () = self.woken.notified() => {}
                // What ends in the same moment is made up for by one look.
                () = self.ended.notified(), if looked.more => tokio::time::sleep(BREATH).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks for what is due, and takes up as much as there is room for.
    async fn look(self: &Arc<Self>) -> Looked {
        let mut looked = Looked {
            took: 0,
            more: false,
            next: None,
        };
        // Their results are in the store.
        while self.tasks.lock().try_join_next().is_some() {}
        let busy = self.state.lock().rota.busy();
        if busy >= self.rules.at_once {
            looked.more = true;
            return looked;
        }
        let now = (self.clock)();
        let due = match self.work.due(now, (WINDOW + busy) as i64).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, work = self.rules.name, "cannot look for work");
                return looked;
            }
        };
        looked.next = due.next;
        let (granted, stood_back) = self.state.lock().rota.grant(due.lanes, &self.rules);
        looked.more = stood_back;
        let granted: Vec<_> = granted
            .into_iter()
            .map(|(lane, slots)| Granted {
                worker: self.clone(),
                lane,
                slots,
            })
            .collect();
        let mut claims = stream::iter(granted)
            .map(|granted| self.claim(granted))
            .buffer_unordered(CLAIMS_AT_ONCE);
        while let Some((took, slots)) = claims.next().await {
            looked.took += took;
            looked.more |= took == slots;
        }
        looked
    }

    /// Claims what is due of a lane and begins with it. Answers how much it took, and how much it
    /// might have.
    async fn claim(self: &Arc<Self>, mut granted: Granted<W>) -> (usize, usize) {
        let slots = granted.slots;
        if self.is_closed() {
            return (0, slots);
        }
        let lane = granted.lane.clone();
        // The row's time begins no earlier than this node's own.
        let deadline = Instant::now() + self.rules.hold;
        let now = (self.clock)();
        let claim = Claim {
            now,
            until: now + self.rules.hold.as_micros() as i64,
            limit: slots as i64,
        };
        let items = match self.work.claim(&lane, claim).await {
            Ok(items) => items,
            Err(error) => {
                tracing::warn!(%error, work = self.rules.name, "cannot take work up");
                Vec::new()
            }
        };
        let took = items.len().min(slots);
        for (place, item) in items.into_iter().enumerate() {
            let renewing = self.renewing.clone();
            let held = Held::new(item, lane.clone(), claim.until, deadline, renewing);
            let held = Arc::new(held);
            if place >= slots {
                // More than was asked for: its hold passes.
                tracing::error!(
                    work = self.rules.name,
                    "more was taken up than there is room"
                );
                break;
            }
            // The slot is the piece's from here on.
            granted.slots -= 1;
            let number = {
                let mut state = self.state.lock();
                state.last += 1;
                let number = state.last;
                state.held.insert(number, held.clone());
                number
            };
            self.count("taken");
            let worker = self.clone();
            self.tasks.lock().spawn(async move {
                let piece = AssertUnwindSafe(worker.piece(&held)).catch_unwind();
                if piece.await.is_err() {
                    // As if its node had ended: it is counted, and taken again when its hold has passed.
                    tracing::error!(work = worker.rules.name, lane = ?held.lane, "work panicked");
                    worker.count("panicked");
                }
                worker.let_go(number, &held.lane);
            });
        }
        (took, slots)
    }

    fn let_go(&self, number: u64, lane: &Lane) {
        let mut state = self.state.lock();
        state.held.remove(&number);
        state.rota.free(lane, 1);
        drop(state);
        self.ended.notify_one();
    }

    /// One piece of work, from its claim to its end.
    async fn piece(&self, held: &Arc<Held<W::Item>>) {
        if self.is_closed() {
            return self.give_back(held).await;
        }
        let times = self.work.ended_nodes(&held.item);
        let outcome = if times >= self.rules.give_up_after {
            self.count("given_up");
            self.work.given_up(&held.item, times)
        } else {
            tokio::select! {
                biased;
                () = held.lost() => return self.give_back(held).await,
                outcome = self.work.perform(held) => outcome,
            }
        };
        let mut pause = SETTLE_AGAIN;
        loop {
            let settled = {
                let fence = held.fence().await;
                let written = self.work.settle(&held.item, fence.until, &outcome);
                written.await
            };
            match settled {
                Ok(true) => return self.count("done"),
                Ok(false) => return self.lost(held).await,
                Err(error) => {
                    let name = self.work.name(&held.item);
                    tracing::warn!(%error, work = self.rules.name, name, "cannot record work");
                }
            }
            tokio::select! {
                biased;
                () = held.lost() => return self.give_back(held).await,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(SETTLE_AGAIN_AT_MOST);
        }
    }

    /// Work that is not gone on with here: it is due for anybody, if it is still this node's.
    async fn give_back(&self, held: &Held<W::Item>) {
        let released = {
            let fence = held.fence().await;
            let released = self.work.release(&held.item, fence.until, (self.clock)());
            released.await
        };
        match released {
            Ok(true) => self.count("given_back"),
            Ok(false) => self.lost(held).await,
            Err(error) => {
                let name = self.work.name(&held.item);
                tracing::warn!(%error, work = self.rules.name, name, "cannot give work back");
            }
        }
    }

    /// Another node has it, although this one lives: it may only have been late.
    async fn lost(&self, held: &Held<W::Item>) {
        let name = self.work.name(&held.item);
        tracing::warn!(
            work = self.rules.name,
            name,
            "work of this node is another's"
        );
        self.count("lost");
        if let Err(error) = self.work.uncount(&held.item).await {
            tracing::warn!(%error, work = self.rules.name, name, "cannot say that this node lives");
        }
    }

    /// Prolongs what is held, for ever.
    async fn keep(&self) {
        let every = self.rules.hold / RENEWALS;
        loop {
            tokio::time::sleep(every).await;
            self.renew().await;
        }
    }

    async fn renew(&self) {
        let _alone = self.renewing.write().await;
        let held: Vec<_> = self.state.lock().held.values().cloned().collect();
        let held: Vec<_> = held.into_iter().filter(|held| !held.is_lost()).collect();
        if held.is_empty() {
            return;
        }
        let deadline = Instant::now() + self.rules.hold;
        let until = (self.clock)() + self.rules.hold.as_micros() as i64;
        match self.work.renew(&held, until).await {
            Ok(still) => {
                for (place, held) in held.iter().enumerate() {
                    match still.get(place) {
                        Some(true) => held.prolong(until, deadline),
                        _ => held.let_go(),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, work = self.rules.name, "cannot prolong what is held");
            }
        }
    }

    /// Comes back when nothing is under way or about to be.
    async fn idle(&self) {
        while self.state.lock().rota.busy() > 0 {
            let _ = tokio::time::timeout(LOOK_AGAIN, self.ended.notified()).await;
        }
    }
}

/// Slots of a lane that are free again when nothing is taken up for them, whatever the reason.
struct Granted<W: Work> {
    worker: Arc<Worker<W>>,
    lane: Lane,
    slots: usize,
}

impl<W: Work> Drop for Granted<W> {
    fn drop(&mut self) {
        self.worker.state.lock().rota.free(&self.lane, self.slots);
    }
}

#[async_trait]
impl<W: Work> Room for Worker<W> {
    fn name(&self) -> &'static str {
        self.rules.name
    }

    fn wake(&self) {
        Self::wake(self);
    }

    fn wake_here(&self) {
        self.woken.notify_one();
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.woken.notify_one();
    }

    async fn run(self: Arc<Self>) {
        tokio::join!(self.take_up(), self.keep());
    }

    async fn drain(&self, patience: Duration, rest: Duration) {
        self.close();
        if self.rules.at_shutdown == AtShutdown::Finish {
            let _ = tokio::time::timeout(patience, self.idle()).await;
        }
        let left: Vec<_> = self.state.lock().held.values().cloned().collect();
        for held in &left {
            held.let_go();
        }
        if tokio::time::timeout(rest, self.idle()).await.is_err() {
            tracing::warn!(
                work = self.rules.name,
                "work that could not be given back is another's once its hold has passed"
            );
        }
        self.tasks.lock().abort_all();
        if !left.is_empty() {
            self.tell_others();
        }
    }
}
