//! Arrivals on their way into the store. What comes while some are written is written together, in one
//! transaction: under load a commit each would be what everybody waits for.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::ApiError;
use crate::store::{InboundRow, Store};

/// Arrivals of one transaction.
const AT_ONCE: usize = 128;
/// Bytes of one transaction; a larger arrival is alone in its own.
const MAX_BYTES: usize = 1024 * 1024;

type Told = oneshot::Sender<Result<bool, ApiError>>;

/// What waits to be written; one for a gateway.
#[derive(Default)]
pub struct Accepting {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(InboundRow, Told)>,
    is_writing: bool,
}

impl Accepting {
    /// Keeps an arrival; `false`: it was there already. It is written whether or not its sender waits.
    pub async fn accept(
        self: &Arc<Self>,
        store: &Arc<dyn Store>,
        arrival: InboundRow,
    ) -> Result<bool, ApiError> {
        let (tell, told) = oneshot::channel();
        let begins = {
            let mut state = self.state.lock();
            state.waiting.push_back((arrival, tell));
            !std::mem::replace(&mut state.is_writing, true)
        };
        if begins {
            let writing = Writing(self.clone());
            let store = store.clone();
            tokio::spawn(async move {
                while let Some((rows, told)) = writing.next() {
                    for (told, kept) in told.into_iter().zip(write(&store, rows).await) {
                        // Nobody may wait any more.
                        let _ = told.send(kept);
                    }
                }
            });
        }
        let lost = |_| Err(ApiError::internal("what arrived was not written"));
        told.await.unwrap_or_else(lost)
    }
}

/// The one that writes. When it ends, by a panic too, the next arrival begins another.
struct Writing(Arc<Accepting>);

impl Writing {
    /// What is written next; `None`: nothing waits, and nobody writes any more.
    fn next(&self) -> Option<(Vec<InboundRow>, Vec<Told>)> {
        let mut state = self.0.state.lock();
        let (mut count, mut bytes) = (0, 0);
        for (arrival, _) in state.waiting.iter().take(AT_ONCE) {
            bytes += arrival.data.len();
            if count > 0 && bytes > MAX_BYTES {
                break;
            }
            count += 1;
        }
        state.is_writing = count > 0;
        (count > 0).then(|| state.waiting.drain(..count).unzip())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Those that wait are told so, and their platforms deliver again.
            *self.0.state.lock() = State::default();
        }
    }
}

/// Whether each was new.
async fn write(store: &Arc<dyn Store>, rows: Vec<InboundRow>) -> Vec<Result<bool, ApiError>> {
    match store.accept(&rows).await {
        Ok(new) => new.into_iter().map(Ok).collect(),
        // One that the store cannot take refuses no other.
        Err(error) if error.fault().is_none() && rows.len() > 1 => {
            let mut kept = Vec::with_capacity(rows.len());
            for row in &rows {
                let alone = store.accept(std::slice::from_ref(row)).await;
                kept.push(match alone {
                    Ok(new) => Ok(new.first().copied().unwrap_or(false)),
                    Err(error) => Err(error.into()),
                });
            }
            kept
        }
        Err(error) => {
            let error = ApiError::from(error);
            rows.iter().map(|_| Err(error.clone())).collect()
        }
    }
}
