//! Tokens used, summed in memory and handed to the journal once a second: a request adds to a
//! shard's sum and writes nothing itself.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::frame::Usage;
use crate::metrics::Metrics;
use crate::store::{Journal, Op, UsageRow};

const SHARDS: usize = 16;
const FLUSH_EVERY: Duration = Duration::from_secs(1);

type Key = (Arc<str>, Arc<str>, Arc<str>);

/// The sums. One for the whole gateway.
pub struct Accounting {
    hasher: RandomState,
    shards: [Mutex<HashMap<Key, (u64, Usage)>>; SHARDS],
    metrics: Metrics,
}

impl Accounting {
    /// Nothing used yet.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            metrics,
        }
    }

    /// Adds one model call.
    pub fn add(&self, tenant_id: &Arc<str>, provider: &Arc<str>, model: &str, usage: &Usage) {
        self.metrics.count_tokens(provider, model, usage);
        let key = (tenant_id.clone(), provider.clone(), Arc::from(model));
        let shard = self.hasher.hash_one(&key) as usize % SHARDS;
        let mut sums = self.shards[shard].lock();
        let (calls, sum) = sums.entry(key).or_default();
        *calls += 1;
        sum.add(usage);
    }

    /// Hands the sums to the journal and starts anew.
    pub fn flush(&self, journal: &Journal) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for shard in &self.shards {
            let sums = std::mem::take(&mut *shard.lock());
            for ((tenant_id, provider, model), (calls, usage)) in sums {
                journal.append(Op::Usage(Box::new(UsageRow {
                    tenant_id: tenant_id.to_string(),
                    day: today(),
                    provider: provider.to_string(),
                    model: model.to_string(),
                    calls: signed(calls),
                    input: signed(usage.input),
                    output: signed(usage.output),
                    cache_read: signed(usage.cache_read),
                    cache_write: signed(usage.cache_write),
                    reasoning: signed(usage.reasoning),
                })));
            }
        }
    }

    /// Flushes every second, for ever.
    pub async fn flush_regularly(self: Arc<Self>, journal: Journal) {
        let mut interval = tokio::time::interval(FLUSH_EVERY);
        loop {
            interval.tick().await;
            self.flush(&journal);
        }
    }
}

fn today() -> String {
    let now = time::OffsetDateTime::now_utc();
    format!(
        "{:04}-{:02}-{:02}",
        now.year(),
        u8::from(now.month()),
        now.day()
    )
}
