//! The connection to Redis. What is told of a run is a stream, for those who come later, and a
//! channel, for those who are there; changes are a channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use parking_lot::Mutex;
use prometheus::IntCounter;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSubSink, PubSubStream};
use redis::streams::StreamRangeReply;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::message::{Notice, Piece, Told, frames_of};
use crate::frame::Frame;

pub use redis::RedisError;

const CHANGES: &str = "smithgate:changes";
/// Before the names of what is kept.
const KEPT_UNDER: &str = "smithgate:kept:";
/// Pieces that may be on their way; more are lost, and others see the store instead.
const AHEAD: usize = 16 * 1024;
/// Pieces that go in one round trip.
const AT_ONCE: usize = 512;
/// Pieces of a run that are kept, roughly.
const KEPT: usize = 8192;
/// A run of which nothing is told for so long is forgotten there, in seconds; the store has it.
const KEPT_SECONDS: i64 = 900;
const PATIENCE: Duration = Duration::from_secs(1);
const RECONNECT_EVERY: Duration = Duration::from_millis(500);
/// Pieces that a follower may be behind; then it looks at the store.
const BEHIND: usize = 1024;

/// What goes out.
pub enum Outgoing {
    /// Frames of a run, `count` of them from number `first` on, encoded.
    Frames {
        run_id: Arc<str>,
        first: usize,
        count: usize,
        frames: Bytes,
    },
    Notice(Notice),
}

#[derive(Serialize, Deserialize)]
struct Changed {
    node_id: String,
    change: Notice,
}

type Followers = Mutex<HashMap<String, Vec<(u64, mpsc::Sender<Option<Piece>>)>>>;

enum Want {
    Hear(String),
    Leave(String),
}

/// The connections of a node.
pub struct Link {
    node_id: Arc<str>,
    manager: ConnectionManager,
    outgoing: mpsc::Sender<Outgoing>,
    lost: IntCounter,
    followers: Arc<Followers>,
    next_follower: AtomicU64,
    wants: mpsc::UnboundedSender<Want>,
}

/// Hears what is told of one run. Dropped, it leaves.
pub struct Follower {
    run_id: String,
    id: u64,
    pieces: mpsc::Receiver<Option<Piece>>,
    /// Who claimed the run: what others tell after that does not count.
    owner: Option<Arc<str>>,
    followers: Arc<Followers>,
    wants: mpsc::UnboundedSender<Want>,
}

impl Follower {
    /// The next piece; `None` when some may have been missed.
    pub async fn next(&mut self) -> Option<Piece> {
        loop {
            let piece = match self.pieces.recv().await {
                Some(piece) => piece?,
                // Its connection fell behind and was cut off: the store is looked at instead.
                None => std::future::pending().await,
            };
            match (&piece.told, &self.owner) {
                (Told::Claim, _) => self.owner = Some(piece.node_id.clone()),
                (_, Some(owner)) if *owner != piece.node_id => continue,
                _ => {}
            }
            return Some(piece);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followers = self.followers.lock();
        if let Some(others) = followers.get_mut(&self.run_id) {
            others.retain(|(id, _)| *id != self.id);
            if others.is_empty() {
                followers.remove(&self.run_id);
                // The task that listens ends with the process.
                let _ = self.wants.send(Want::Leave(channel(&self.run_id)));
            }
        }
    }
}

fn channel(run_id: &str) -> String {
    format!("smithgate:frames:{run_id}")
}

fn stream(run_id: &str) -> String {
    format!("smithgate:run:{run_id}")
}

impl Link {
    /// Connects, and starts the tasks that write and listen.
    pub async fn open(
        url: &str,
        node_id: Arc<str>,
        changes: mpsc::UnboundedSender<Notice>,
        lost: IntCounter,
    ) -> Result<Arc<Self>, RedisError> {
        let client = redis::Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(PATIENCE))
            .set_max_delay(PATIENCE);
        let manager = ConnectionManager::new_with_config(client.clone(), config).await?;
        let (outgoing, inbox) = mpsc::channel(AHEAD);
        let (wants, wanted) = mpsc::unbounded_channel();
        let link = Arc::new(Self {
            node_id: node_id.clone(),
            manager: manager.clone(),
            outgoing,
            lost,
            followers: Arc::default(),
            next_follower: AtomicU64::new(0),
            wants,
        });
        tokio::spawn(write(manager, node_id.clone(), inbox, link.lost.clone()));
        let listener = Listener {
            client,
            node_id,
            followers: link.followers.clone(),
            changes,
        };
        tokio::spawn(listener.listen(wanted));
        Ok(link)
    }

    pub fn send(&self, outgoing: Outgoing) {
        if self.outgoing.try_send(outgoing).is_err() {
            self.lost.inc();
        }
    }

    /// Tells something of a run, and waits until it is told.
    pub async fn tell(&self, run_id: &str, told: Told) {
        let piece = Piece {
            node_id: self.node_id.clone(),
            told,
        };
        let mut batch = redis::pipe();
        add(&mut batch, run_id, &piece);
        let sent: Result<(), RedisError> = batch.query_async(&mut self.manager.clone()).await;
        if let Err(error) = sent {
            tracing::warn!(%error, run_id, "cannot tell other nodes of a run");
            self.lost.inc();
        }
    }

    pub async fn kept(&self, name: &str) -> Option<Vec<u8>> {
        let mut command = redis::cmd("GET");
        command.arg(format!("{KEPT_UNDER}{name}"));
        let mut manager = self.manager.clone();
        let read: Result<Option<Vec<u8>>, RedisError> = command.query_async(&mut manager).await;
        read.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for an answer in Redis");
            None
        })
    }

    pub async fn keep(&self, name: &str, bytes: Vec<u8>, seconds: u64) {
        let mut command = redis::cmd("SET");
        let name = format!("{KEPT_UNDER}{name}");
        command.arg(name).arg(bytes).arg("EX").arg(seconds.max(1));
        let kept: Result<(), RedisError> = command.query_async(&mut self.manager.clone()).await;
        if let Err(error) = kept {
            tracing::warn!(%error, "cannot keep an answer in Redis");
        }
    }

    pub async fn tail(&self, run_id: &str, from: usize) -> Vec<Frame> {
        let mut command = redis::cmd("XRANGE");
        command.arg(stream(run_id)).arg("-").arg("+");
        let read: Result<StreamRangeReply, RedisError> =
            command.query_async(&mut self.manager.clone()).await;
        match read {
            Ok(reply) => {
                let pieces = reply.ids.into_iter().filter_map(|entry| {
                    let bytes: Vec<u8> = entry.get("p")?;
                    Piece::decode(bytes.into())
                });
                frames_of(pieces, from)
            }
            Err(error) => {
                tracing::warn!(%error, run_id, "cannot read what nodes told of a run");
                Vec::new()
            }
        }
    }

    pub fn follow(&self, run_id: &str) -> Follower {
        let (sender, pieces) = mpsc::channel(BEHIND);
        let id = self.next_follower.fetch_add(1, Ordering::Relaxed);
        let mut followers = self.followers.lock();
        let others = followers.entry(run_id.to_owned()).or_default();
        if others.is_empty() {
            let _ = self.wants.send(Want::Hear(channel(run_id)));
        }
        others.push((id, sender));
        Follower {
            run_id: run_id.to_owned(),
            id,
            pieces,
            owner: None,
            followers: self.followers.clone(),
            wants: self.wants.clone(),
        }
    }
}

fn add(batch: &mut redis::Pipeline, run_id: &str, piece: &Piece) {
    let bytes = piece.encode();
    let stream = stream(run_id);
    batch
        .cmd("XADD")
        .arg(&stream)
        .arg("MAXLEN")
        .arg("~")
        .arg(KEPT)
        .arg("*")
        .arg("p")
        .arg(&bytes[..])
        .ignore()
        .expire(&stream, KEPT_SECONDS)
        .ignore()
        .publish(channel(run_id), &bytes[..])
        .ignore();
}

/// Writes what goes out, as much as there is in one round trip.
async fn write(
    mut manager: ConnectionManager,
    node_id: Arc<str>,
    mut inbox: mpsc::Receiver<Outgoing>,
    lost: IntCounter,
) {
    let mut gathered = Vec::with_capacity(AT_ONCE);
    while inbox.recv_many(&mut gathered, AT_ONCE).await > 0 {
        let mut batch = redis::pipe();
        let pieces = gathered.len() as u64;
        for told in joined(gathered.drain(..)) {
            match told {
                Outgoing::Frames {
                    run_id,
                    first,
                    frames,
                    ..
                } => {
                    let node_id = node_id.clone();
                    let told = Told::Frames { first, frames };
                    add(&mut batch, &run_id, &Piece { node_id, told });
                }
                Outgoing::Notice(change) => {
                    let node_id = node_id.to_string();
                    if let Ok(text) = serde_json::to_string(&Changed { node_id, change }) {
                        batch.publish(CHANGES, text).ignore();
                    }
                }
            }
        }
        let sent: Result<(), RedisError> = batch.query_async(&mut manager).await;
        if let Err(error) = sent {
            tracing::warn!(%error, pieces, "cannot tell other nodes of runs");
            lost.inc_by(pieces);
        }
    }
}

/// Joins the frames of each run that follow each other.
fn joined(gathered: impl Iterator<Item = Outgoing>) -> Vec<Outgoing> {
    let mut newest: HashMap<Arc<str>, usize> = HashMap::new();
    let mut joined: Vec<Outgoing> = Vec::new();
    for outgoing in gathered {
        if let Outgoing::Frames {
            run_id,
            first,
            count,
            frames,
        } = &outgoing
        {
            let known = newest.get(run_id).map(|at| &mut joined[*at]);
            if let Some(Outgoing::Frames {
                first: begun,
                count: held,
                frames: bytes,
                ..
            }) = known
                && *begun + *held == *first
            {
                let mut both = BytesMut::from(std::mem::take(bytes));
                both.extend_from_slice(frames);
                *bytes = both.freeze();
                *held += count;
                continue;
            }
            newest.insert(run_id.clone(), joined.len());
        }
        joined.push(outgoing);
    }
    joined
}

struct Listener {
    client: redis::Client,
    node_id: Arc<str>,
    followers: Arc<Followers>,
    changes: mpsc::UnboundedSender<Notice>,
}

impl Listener {
    /// Listens for ever, over any number of connections.
    async fn listen(self, mut wanted: mpsc::UnboundedReceiver<Want>) {
        loop {
            match self.connect().await {
                Ok((sink, messages)) => {
                    // What was told meanwhile is missed.
                    self.tell_all_of_a_gap();
                    if self.hear(sink, messages, &mut wanted).await {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot listen to other nodes"),
            }
            tokio::time::sleep(RECONNECT_EVERY).await;
        }
    }

    async fn connect(&self) -> Result<(PubSubSink, PubSubStream), RedisError> {
        let opened = tokio::time::timeout(PATIENCE, self.client.get_async_pubsub());
        let late = || RedisError::from((redis::ErrorKind::Io, "Redis takes too long"));
        let (mut sink, messages) = opened.await.map_err(|_| late())??.split();
        sink.subscribe(CHANGES).await?;
        let followed: Vec<String> = self.followers.lock().keys().map(|id| channel(id)).collect();
        for name in followed {
            sink.subscribe(name).await?;
        }
        Ok((sink, messages))
    }

    /// `true` when this node ends, `false` when the connection does.
    async fn hear(
        &self,
        mut sink: PubSubSink,
        mut messages: PubSubStream,
        wanted: &mut mpsc::UnboundedReceiver<Want>,
    ) -> bool {
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.take(&message),
                    None => return false,
                },
                want = wanted.recv() => {
                    let done = match want {
                        Some(Want::Hear(name)) => sink.subscribe(name).await,
                        Some(Want::Leave(name)) => sink.unsubscribe(name).await,
                        None => return true,
                    };
                    if let Err(error) = done {
                        tracing::warn!(%error, "cannot listen to a run");
                        return false;
                    }
                }
            }
        }
    }

    fn take(&self, message: &redis::Msg) {
        let name = message.get_channel_name();
        if name == CHANGES {
            let changed = serde_json::from_slice::<Changed>(message.get_payload_bytes());
            if let Ok(changed) = changed
                && changed.node_id != *self.node_id
            {
                // The task that takes them ends with the process.
                let _ = self.changes.send(changed.change);
            }
            return;
        }
        let Some(run_id) = name.strip_prefix("smithgate:frames:") else {
            return;
        };
        let Some(piece) = Piece::decode(Bytes::copy_from_slice(message.get_payload_bytes())) else {
            return;
        };
        if let Some(followers) = self.followers.lock().get_mut(run_id) {
            // Who is too far behind is cut off, and sees the store.
            followers.retain(|(_, sender)| sender.try_send(Some(piece.clone())).is_ok());
        }
    }

    fn tell_all_of_a_gap(&self) {
        for followers in self.followers.lock().values_mut() {
            followers.retain(|(_, sender)| sender.try_send(None).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(run: &str, first: usize, bytes: &'static [u8]) -> Outgoing {
        Outgoing::Frames {
            run_id: run.into(),
            first,
            count: bytes.len(),
            frames: Bytes::from_static(bytes),
        }
    }

    #[test]
    fn frames_of_a_run_that_follow_each_other_go_together() {
        let gathered = vec![
            frames("a", 0, b"01"),
            frames("b", 7, b"7"),
            frames("a", 2, b"2"),
            Outgoing::Notice(Notice::Smiths),
            frames("a", 9, b"9"),
            frames("a", 10, b"x"),
        ];
        let told: Vec<String> = joined(gathered.into_iter())
            .iter()
            .map(|outgoing| match outgoing {
                Outgoing::Frames {
                    run_id,
                    first,
                    count,
                    frames,
                } => format!(
                    "{run_id} {first} {count} {}",
                    String::from_utf8_lossy(frames)
                ),
                Outgoing::Notice(notice) => format!("{notice:?}"),
            })
            .collect();
        assert_eq!(told, ["a 0 3 012", "b 7 1 7", "Smiths", "a 9 2 9x"]);
    }
}
