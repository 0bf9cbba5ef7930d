//! What nodes tell each other: frames of runs that are under way, and what was changed. In one
//! process there is nothing to tell; between nodes it goes over Redis.
//!
//! Lives here: the messages (`message`), the connection to Redis (`redis`), and what others use of
//! it ([`Bus`]). The store stays the truth: without the bus, nodes see all of it a little later. May
//! import `frame`.

mod message;
mod redis;

use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::sync::mpsc;

pub use message::Notice;
use message::Told;
pub use redis::{Follower, RedisError};

use crate::frame::Frame;

/// The way to other nodes, if there is one.
#[derive(Clone, Default)]
pub struct Bus(Option<Arc<redis::Link>>);

impl Bus {
    /// Connects to the Redis at `url`. Changes that other nodes tell are handed to `changes`.
    pub async fn connect(
        url: &str,
        node_id: Arc<str>,
        changes: mpsc::UnboundedSender<Notice>,
        lost: IntCounter,
    ) -> Result<Self, RedisError> {
        let link = redis::Link::open(url, node_id, changes, lost).await?;
        Ok(Self(Some(link)))
    }

    /// Whether there are other nodes to tell.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells frames of a run, from number `first` on, encoded. Never waits.
    pub fn frames(&self, run_id: &Arc<str>, first: usize, count: usize, frames: Bytes) {
        if let Some(link) = &self.0 {
            link.send(redis::Outgoing::Frames {
                run_id: run_id.clone(),
                first,
                count,
                frames,
            });
        }
    }

    /// Tells a change. Never waits.
    pub fn change(&self, change: Notice) {
        if let Some(link) = &self.0 {
            link.send(redis::Outgoing::Notice(change));
        }
    }

    /// Tells that a run is this node's from now on, and answers the frames from number `from` on
    /// that its node had told before; they may be more than the store has.
    pub async fn claim(&self, run_id: &str, from: usize) -> Vec<Frame> {
        let Some(link) = &self.0 else {
            return Vec::new();
        };
        link.tell(run_id, Told::Claim).await;
        let frames = link.tail(run_id, from).await;
        let first = from + frames.len();
        link.tell(run_id, Told::From { first }).await;
        frames
    }

    /// The frames of a run from number `from` on that were told so far.
    pub async fn tail(&self, run_id: &str, from: usize) -> Vec<Frame> {
        match &self.0 {
            Some(link) => link.tail(run_id, from).await,
            None => Vec::new(),
        }
    }

    /// What is kept under a name; nothing without Redis.
    pub async fn kept(&self, name: &str) -> Option<Vec<u8>> {
        self.0.as_ref()?.kept(name).await
    }

    /// Keeps something for some seconds, where there is Redis.
    pub async fn keep(&self, name: &str, bytes: Vec<u8>, seconds: u64) {
        if let Some(link) = &self.0 {
            link.keep(name, bytes, seconds).await;
        }
    }

    /// What is told of a run from now on; `None` without other nodes.
    pub fn follow(&self, run_id: &str) -> Option<Follower> {
        self.0.as_ref().map(|link| link.follow(run_id))
    }
}
