//! The key of a call that is being answered: held, and renewed, until there is an answer to keep.

use std::sync::Arc;

use http::StatusCode;
use tokio::task::AbortHandle;

use super::idempotency::Mine;

/// A claimed key. One that is dropped lapses by itself.
pub struct Once {
    mine: Arc<Mine>,
    renewal: AbortHandle,
}

impl Once {
    /// Holds `mine`.
    pub fn new(mine: Mine) -> Self {
        let mine = Arc::new(mine);
        let held = mine.clone();
        let renewal = tokio::spawn(async move { held.renew().await }).abort_handle();
        Self { mine, renewal }
    }

    /// Keeps the answer, where it is one that can be given again; else gives the key back.
    pub async fn settle(self, status: StatusCode, body: &[u8]) {
        self.mine.settle(status, body).await;
    }

    /// Gives the key back.
    pub async fn give_back(self) {
        self.mine.abandon().await;
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}
