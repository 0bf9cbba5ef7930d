//! What a provider wants back with the next turn (thinking blocks and their signatures, thought
//! signatures of tool calls, reasoning beside calls), kept for clients that send history without it.
//!
//! Chat Completions has no place for these; clients that keep unknown fields send them back, the
//! others are helped by what is kept here, by tenant, smith and tool call. It is in the store, so
//! that a restart or another node knows it too; a cache in memory stands before it. Nothing waits
//! for the store but the first call of a history that this node does not know.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::request::{ModelRequest, Part, Role, arguments_object};
use crate::frame::Signer;
use crate::store::{KeptCall, Store, now_micros};

/// Tenant, smith (empty: none), and the call.
type Key = (Arc<str>, Arc<str>, String);

/// What is kept in memory, in bytes.
const MAX_CACHED_BYTES: u64 = 128 * 1024 * 1024;
const CACHED_FOR: Duration = Duration::from_secs(6 * 3600);
/// A call that the store does not know may have been made at another node just now.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// More reasoning than this is not kept for one turn.
const MAX_KEPT_BYTES: usize = 256 * 1024;
/// The latest calls of a history that are looked for.
const MAX_LOOKED_FOR: usize = 64;
/// For which the store is waited for; the call goes on without.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Turns that wait to be written; what comes beyond stays in memory alone.
const MAX_WAITING: usize = 4_096;
const MAX_BATCH: usize = 64;
const KEPT_FOR_MICROS: i64 = 30 * 24 * 3600 * 1_000_000;
const MAX_PER_TENANT: i64 = 100_000;
const PURGE_EVERY: Duration = Duration::from_secs(600);
const PURGE_BATCH: i64 = 500;

/// What belongs to one tool call.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    /// The reasoning parts before the first call of the turn.
    #[serde(default)]
    reasoning: Arc<Vec<Part>>,
}

impl Kept {
    fn bytes(&self) -> usize {
        let signature = self.signature.as_ref().map_or(0, String::len);
        signature + bytes_of(&self.reasoning)
    }
}

fn bytes_of(parts: &[Part]) -> usize {
    let bytes = |part: &Part| match part {
        Part::Reasoning {
            text, signature, ..
        } => text.len() + signature.as_ref().map_or(0, |s| s.value.len()),
        _ => 0,
    };
    parts.iter().map(bytes).sum()
}

enum Entry {
    Keep(Vec<KeptCall>),
    Flush(oneshot::Sender<()>),
}

/// The memory. One for the whole gateway, bounded.
pub struct Continuity {
    cache: moka::sync::Cache<Key, Arc<Kept>>,
    unknown: moka::sync::Cache<Key, ()>,
    store: Arc<dyn Store>,
    writes: mpsc::Sender<Entry>,
}

impl Continuity {
    /// Before `store`; starts the task that writes to it, which ends with this.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let (writes, inbox) = mpsc::channel(MAX_WAITING);
        tokio::spawn(write_all(store.clone(), inbox));
        let weight = |key: &Key, kept: &Arc<Kept>| {
            u32::try_from(kept.bytes() + key.2.len() + 200).unwrap_or(u32::MAX)
        };
        Self {
            cache: moka::sync::Cache::builder()
                .max_capacity(MAX_CACHED_BYTES)
                .weigher(weight)
                .time_to_live(CACHED_FOR)
                .build(),
            unknown: moka::sync::Cache::builder()
                .max_capacity(100_000)
                .time_to_live(UNKNOWN_FOR)
                .build(),
            store,
            writes,
        }
    }

    /// Remembers what came with the tool calls of an assistant turn.
    pub fn remember(&self, tenant_id: &Arc<str>, smith_id: &Arc<str>, parts: &[Part]) {
        let is_signed = |part: &&Part| {
            matches!(
                part,
                Part::Reasoning {
                    signature: Some(_),
                    ..
                }
            )
        };
        let reasoning: Vec<Part> = parts.iter().filter(is_signed).cloned().collect();
        let mut reasoning = match bytes_of(&reasoning) <= MAX_KEPT_BYTES {
            true => Arc::new(reasoning),
            false => Arc::default(),
        };
        let mut rows = Vec::new();
        for part in parts {
            let Some(call) = call_key(part) else {
                continue;
            };
            let Part::ToolCall { signature, .. } = part else {
                continue;
            };
            // With the first call of a turn; the others have their own signatures alone.
            let kept = Arc::new(Kept {
                signature: signature.clone(),
                reasoning: std::mem::take(&mut reasoning),
            });
            if kept.bytes() > 0
                && let Ok(text) = serde_json::to_string(&*kept)
            {
                rows.push(KeptCall {
                    tenant_id: tenant_id.to_string(),
                    smith_id: smith_id.to_string(),
                    call: call.clone(),
                    kept: text,
                    created_at: now_micros(),
                });
            }
            self.cache
                .insert((tenant_id.clone(), smith_id.clone(), call), kept);
        }
        if !rows.is_empty() && self.writes.try_send(Entry::Keep(rows)).is_err() {
            tracing::warn!("too many turns wait to be written: one is in memory alone");
        }
    }

    /// Waits until what was remembered so far is in the store.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.writes.send(Entry::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// `request` with what its assistant turns lack.
    pub async fn restored<'r>(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &Arc<str>,
        request: &'r ModelRequest,
    ) -> Cow<'r, ModelRequest> {
        let key = |call: String| (tenant_id.clone(), smith_id.clone(), call);
        let mut missing: Vec<String> = Vec::new();
        for turn in request.turns.iter().rev().filter(|t| lacks(t)) {
            for call in turn.parts.iter().filter_map(call_key) {
                let key = key(call);
                let is_known = self.cache.contains_key(&key) || self.unknown.contains_key(&key);
                if !is_known && missing.len() < MAX_LOOKED_FOR && !missing.contains(&key.2) {
                    missing.push(key.2);
                }
            }
        }
        if !missing.is_empty() {
            self.look_up(tenant_id, smith_id, missing).await;
        }
        let mut restored = Cow::Borrowed(request);
        for (at, turn) in request.turns.iter().enumerate() {
            if !lacks(turn) {
                continue;
            }
            let kept = |part: &Part| self.cache.get(&key(call_key(part)?));
            let found: Vec<Option<Arc<Kept>>> = turn.parts.iter().map(kept).collect();
            if found.iter().flatten().any(|kept| kept.bytes() > 0) {
                put_back(&mut restored.to_mut().turns[at].parts, &found);
            }
        }
        restored
    }

    async fn look_up(&self, tenant_id: &Arc<str>, smith_id: &Arc<str>, calls: Vec<String>) {
        let asked = self.store.kept_calls(tenant_id, smith_id, &calls);
        let rows = match tokio::time::timeout(MAX_WAIT, asked).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                return tracing::warn!(%error, "cannot look for what calls came with");
            }
            Err(_) => return tracing::warn!("what calls came with was not found in time"),
        };
        let key = |call: String| (tenant_id.clone(), smith_id.clone(), call);
        for row in &rows {
            match serde_json::from_str::<Kept>(&row.kept) {
                Ok(kept) => self.cache.insert(key(row.call.clone()), Arc::new(kept)),
                Err(error) => tracing::warn!(%error, "what a call came with does not parse"),
            }
        }
        for call in calls {
            if !rows.iter().any(|row| row.call == call) {
                self.unknown.insert(key(call), ());
            }
        }
    }
}

/// Whether something may be missing in a turn: it has calls, and no reasoning that a provider
/// signed.
fn lacks(turn: &super::request::Turn) -> bool {
    let mut has_calls = false;
    for part in &turn.parts {
        match part {
            Part::ToolCall { .. } => has_calls = true,
            Part::Reasoning {
                signature: Some(signature),
                ..
            } if signature.signer != Signer::Chat => return false,
            _ => {}
        }
    }
    has_calls && turn.role == Role::Assistant
}

/// Puts back what was found for the calls among `parts`. Reasoning that the client sent back
/// without its signature is the same, and gives way.
fn put_back(parts: &mut Vec<Part>, found: &[Option<Arc<Kept>>]) {
    let mut reasoning = None;
    for (part, kept) in parts.iter_mut().zip(found) {
        if let (Part::ToolCall { signature, .. }, Some(kept)) = (part, kept) {
            if signature.is_none() {
                signature.clone_from(&kept.signature);
            }
            if reasoning.is_none() && !kept.reasoning.is_empty() {
                reasoning = Some(kept.reasoning.clone());
            }
        }
    }
    if let Some(reasoning) = reasoning {
        parts.retain(|part| !matches!(part, Part::Reasoning { .. }));
        parts.splice(0..0, reasoning.iter().cloned());
    }
}

/// By what a call is known: its id, and where that is not one of its own, what is called with it.
fn call_key(part: &Part) -> Option<String> {
    let Part::ToolCall {
        id,
        name,
        arguments,
        ..
    } = part
    else {
        return None;
    };
    // Some makers count: `call_0` is in every conversation.
    let longest = id
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .map(str::len)
        .max();
    if longest >= Some(16) {
        return Some(id.clone());
    }
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(name.as_bytes());
    context.update(&[0]);
    // A client may write them in another order.
    let mut arguments = arguments_object(arguments);
    arguments.sort_all_objects();
    context.update(arguments.to_string().as_bytes());
    let digest = context.finish();
    Some(format!("{id}#{}", hex::encode(&digest.as_ref()[..12])))
}

/// Writes what comes, as much at once as there is, and deletes what is old or too much.
async fn write_all(store: Arc<dyn Store>, mut inbox: mpsc::Receiver<Entry>) {
    let mut purge =
        tokio::time::interval_at(tokio::time::Instant::now() + PURGE_EVERY, PURGE_EVERY);
    purge.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            count = inbox.recv_many(&mut batch, MAX_BATCH) => {
                if count == 0 {
                    return;
                }
            }
            _ = purge.tick() => {
                clean(store.as_ref()).await;
                continue;
            }
        }
        let (mut rows, mut waiting) = (Vec::new(), Vec::new());
        for entry in batch.drain(..) {
            match entry {
                Entry::Keep(more) => rows.extend(more),
                Entry::Flush(done) => waiting.push(done),
            }
        }
        if !rows.is_empty()
            && let Err(error) = store.keep_calls(&rows).await
        {
            tracing::warn!(%error, "what calls came with is in memory alone");
        }
        for done in waiting {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
    }
}

/// In small steps: others write too.
async fn clean(store: &dyn Store) {
    loop {
        let oldest = now_micros() - KEPT_FOR_MICROS;
        let gone = store
            .forget_calls(oldest, MAX_PER_TENANT, PURGE_BATCH)
            .await;
        match gone {
            Ok(0) => return,
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return tracing::warn!(%error, "cannot delete what calls came with"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Signature, Turn};
    use crate::store::SqliteStore;

    fn call(id: &str, signature: Option<&str>) -> Part {
        Part::ToolCall {
            id: id.into(),
            name: "f".into(),
            arguments: "{}".into(),
            signature: signature.map(str::to_owned),
            server: None,
            approved: false,
        }
    }

    fn thought(text: &str, signer: Option<Signer>) -> Part {
        Part::Reasoning {
            text: text.into(),
            signature: signer.map(|signer| Signature {
                signer,
                value: "s".into(),
            }),
            redacted: false,
        }
    }

    fn asked(parts: Vec<Part>) -> ModelRequest {
        ModelRequest {
            turns: vec![Turn {
                role: Role::Assistant,
                parts,
            }],
            ..ModelRequest::default()
        }
    }

    async fn store(dir: &tempfile::TempDir) -> Arc<dyn Store> {
        let file = dir.path().join("s.db");
        Arc::new(SqliteStore::open(&file, 1).await.expect("a store"))
    }

    #[tokio::test]
    async fn signatures_come_back_to_their_owner_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let continuity = Continuity::new(store(&dir).await);
        let (here, there): (Arc<str>, Arc<str>) = ("proj_a".into(), "proj_b".into());
        let (smith, none): (Arc<str>, Arc<str>) = ("smt_1".into(), "".into());
        let signed = thought("hm", Some(Signer::Anthropic));
        let said = [
            signed.clone(),
            call("call_1", Some("g")),
            call("call_2", None),
        ];
        continuity.remember(&here, &none, &said);
        continuity.remember(&here, &smith, &[signed.clone(), call("call_9", None)]);
        continuity.flush().await;
        let bare = asked(vec![call("call_1", None), call("call_2", None)]);
        let echoed = asked(vec![
            thought("hm", None),
            call("call_1", None),
            call("call_2", None),
        ]);
        let fresh = Continuity::new(continuity.store.clone());
        for continuity in [&continuity, &fresh] {
            for asked in [&bare, &echoed] {
                let restored = continuity.restored(&here, &none, asked).await;
                assert_eq!(restored.turns[0].parts, said);
            }
            for (tenant, smith) in [(&there, &none), (&here, &smith)] {
                let restored = continuity.restored(tenant, smith, &bare).await;
                assert!(matches!(restored, Cow::Borrowed(_)));
            }
        }
        // A deleted smith leaves nothing behind.
        let asked = asked(vec![call("call_9", None)]);
        assert_eq!(
            fresh.restored(&here, &smith, &asked).await.turns[0]
                .parts
                .len(),
            2
        );
        continuity
            .store
            .forget_smiths_calls(&here, &smith)
            .await
            .expect("forgotten");
        let fresh = Continuity::new(continuity.store.clone());
        assert_eq!(
            fresh.restored(&here, &smith, &asked).await.turns[0]
                .parts
                .len(),
            1
        );
    }

    #[tokio::test]
    async fn what_is_old_or_too_much_is_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir).await;
        let row = |tenant: &str, at: i64| KeptCall {
            tenant_id: tenant.to_owned(),
            smith_id: String::new(),
            call: format!("call_{at}"),
            kept: "{}".to_owned(),
            created_at: at,
        };
        let rows: Vec<KeptCall> = (1..=6)
            .map(|at| row("a", at))
            .chain([row("b", 9)])
            .collect();
        store.keep_calls(&rows).await.expect("kept");
        store.keep_calls(&rows).await.expect("kept once more");
        assert_eq!(store.forget_calls(3, 100, 1).await.expect("old"), 1);
        assert_eq!(store.forget_calls(3, 100, 10).await.expect("old"), 1);
        assert_eq!(store.forget_calls(3, 3, 10).await.expect("too many"), 1);
        assert_eq!(store.forget_calls(3, 3, 10).await.expect("none"), 0);
        let calls: Vec<String> = rows.iter().map(|row| row.call.clone()).collect();
        let left = store.kept_calls("a", "", &calls).await.expect("read");
        assert_eq!(left.len(), 3);
        assert!(left.iter().all(|row| row.created_at > 3));
    }

    #[test]
    fn ids_that_anybody_may_count_to_are_known_by_what_is_called() {
        let key = |id: &str, arguments: &str| {
            let mut part = call(id, None);
            if let Part::ToolCall { arguments: a, .. } = &mut part {
                arguments.clone_into(a);
            }
            call_key(&part).expect("a call")
        };
        assert_eq!(key("call_AbCdEfGh12345678", "{}"), "call_AbCdEfGh12345678");
        assert_ne!(key("call_0", "{\"a\":1}"), key("call_0", "{\"a\":2}"));
        assert_eq!(key("call_0", "{\"a\":1}"), key("call_0", "{ \"a\": 1 }"));
    }
}
