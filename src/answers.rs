//! Answers that are kept to be given again to the very same call: in this node's memory, and in Redis
//! where there is one, for a time that the call or its alias asks for. Nothing is kept unless that is
//! asked for.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use moka::Expiry;

use crate::bus::Bus;

/// The largest answer that is kept.
pub const MAX_ANSWER: usize = 1024 * 1024;
/// How long one may be kept, in seconds.
pub const MAX_SECONDS: u64 = 30 * 24 * 3600;

/// What a kept answer is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnswerKey(String);

impl AnswerKey {
    /// Of a project's call: the parts that an answer hangs on, in their order.
    pub fn of(tenant_id: &str, parts: &[&[u8]]) -> Self {
        let mut digest = Context::new(&SHA256);
        for part in [tenant_id.as_bytes()].iter().chain(parts) {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(URL_SAFE_NO_PAD.encode(digest.finish()))
    }
}

/// An answer as a client read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    pub is_stream: bool,
    pub content: Bytes,
    /// Microseconds since the Unix epoch.
    pub kept_at: i64,
    /// In seconds.
    pub lasts: u64,
}

impl KeptAnswer {
    /// For Redis: whether it is a stream, when it was kept, how long it lasts, and the answer.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.content.len() + 17);
        out.push(u8::from(self.is_stream));
        out.extend_from_slice(&self.kept_at.to_be_bytes());
        out.extend_from_slice(&self.lasts.to_be_bytes());
        out.extend_from_slice(&self.content);
        out
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        let number = |at: usize| -> Option<[u8; 8]> { bytes.get(at..at + 8)?.try_into().ok() };
        Some(Self {
            is_stream: *bytes.first()? != 0,
            kept_at: i64::from_be_bytes(number(1)?),
            lasts: u64::from_be_bytes(number(9)?),
            content: bytes.slice(17..),
        })
    }
}

/// Each lasts as long as was asked for.
struct AsAsked;

impl Expiry<AnswerKey, Arc<KeptAnswer>> for AsAsked {
    fn expire_after_create(
        &self,
        _: &AnswerKey,
        answer: &Arc<KeptAnswer>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(Duration::from_secs(answer.lasts))
    }

    fn expire_after_update(
        &self,
        _: &AnswerKey,
        answer: &Arc<KeptAnswer>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(Duration::from_secs(answer.lasts))
    }
}

/// The answers of a node.
pub struct Answers {
    memory: moka::sync::Cache<AnswerKey, Arc<KeptAnswer>>,
    bus: Bus,
}

impl Answers {
    /// With room for `bytes` in memory.
    pub fn new(bytes: u64, bus: Bus) -> Self {
        let memory = moka::sync::Cache::builder()
            .weigher(|key: &AnswerKey, answer: &Arc<KeptAnswer>| {
                let size = key.0.len() + answer.content.len() + 256;
                u32::try_from(size).unwrap_or(u32::MAX)
            })
            .max_capacity(bytes)
            .expire_after(AsAsked)
            .build();
        Self { memory, bus }
    }

    /// The answer to the same call.
    pub async fn find(&self, key: &AnswerKey, now: i64) -> Option<Arc<KeptAnswer>> {
        if let Some(found) = self.memory.get(key) {
            return Some(found);
        }
        let kept = Bytes::from(self.bus.kept(&key.0).await?);
        let mut answer = KeptAnswer::decode(&kept)?;
        // The rest of its time, here as there.
        let age = u64::try_from((now - answer.kept_at) / 1_000_000).unwrap_or(0);
        let left = answer.lasts.checked_sub(age).filter(|left| *left > 0)?;
        answer.lasts = left;
        let found = Arc::new(answer);
        self.memory.insert(key.clone(), found.clone());
        Some(found)
    }

    /// Keeps an answer. Never waits.
    pub fn keep(&self, key: AnswerKey, answer: KeptAnswer) {
        if answer.content.len() > MAX_ANSWER {
            return;
        }
        if self.bus.is_on() {
            let (bus, name, kept) = (self.bus.clone(), key.0.clone(), answer.encode());
            let lasts = answer.lasts;
            tokio::spawn(async move { bus.keep(&name, kept, lasts).await });
        }
        self.memory.insert(key, Arc::new(answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_kept_for_its_own_call_alone() {
        let answers = Answers::new(10_000, Bus::default());
        let key = AnswerKey::of("a", &[b"path", b"body"]);
        let answer = |content: &[u8], lasts| KeptAnswer {
            is_stream: true,
            content: Bytes::copy_from_slice(content),
            kept_at: 5,
            lasts,
        };
        answers.keep(key.clone(), answer(b"x", 60));
        assert_eq!(
            answers
                .find(&key, 5)
                .await
                .map(|found| found.content.clone()),
            Some("x".into())
        );
        for other in [
            AnswerKey::of("b", &[b"path", b"body"]),
            AnswerKey::of("a", &[b"pathb", b"ody"]),
            AnswerKey::of("a", &[b"path"]),
            AnswerKey::of("apath", &[b"body"]),
        ] {
            assert_eq!(answers.find(&other, 5).await, None);
        }
        answers.keep(key.clone(), answer(b"y", 0));
        assert_eq!(answers.find(&key, 5).await, None);
        let whole = answer(b"abc", 7);
        assert_eq!(KeptAnswer::decode(&whole.encode().into()), Some(whole));
        assert_eq!(KeptAnswer::decode(&Bytes::from_static(b"short")), None);
        // Larger than all of the room.
        answers.keep(AnswerKey::of("a", &[]), answer(&[0; 20_000], 60));
        answers.memory.run_pending_tasks();
        assert_eq!(answers.find(&AnswerKey::of("a", &[]), 5).await, None);
    }
}
