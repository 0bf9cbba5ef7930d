//! Tokens and money, summed in memory and handed to the journal once a second: a request adds to a
//! shard's sum and writes nothing itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::budget::Budgets;
use super::prices::PriceBook;
use super::spender::{Spender, today};
use crate::frame::Usage;
use crate::metrics::Metrics;
use crate::store::{Journal, Op, SmithUsage};

const SHARDS: usize = 16;
const FLUSH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    spender: Spender,
    provider: Arc<str>,
    model: Arc<str>,
}

#[derive(Default)]
struct Sum {
    calls: u64,
    usage: Usage,
    cost: i64,
}

/// The sums. One for the whole gateway.
pub struct Accounting {
    hasher: RandomState,
    shards: [Mutex<HashMap<Key, Sum>>; SHARDS],
    prices: PriceBook,
    metrics: Metrics,
}

impl Accounting {
    /// Nothing used yet.
    pub fn new(prices: PriceBook, metrics: Metrics) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            prices,
            metrics,
        }
    }

    /// Adds one model call; answers what it cost, in nanos.
    pub fn add(
        &self,
        spender: &Spender,
        provider: &Arc<str>,
        model: &str,
        usage: &Usage,
    ) -> Option<i64> {
        self.metrics.count_tokens(provider, model, usage);
        if !spender.key_id.is_empty() {
            self.metrics.count_key(&spender.key_id, usage);
        }
        let cost = self.prices.cost(provider, model, usage);
        if let Some(cost) = cost.and_then(|cost| u64::try_from(cost).ok()) {
            self.metrics
                .count_cost(provider, model, &spender.key_id, cost);
        }
        let key = Key {
            spender: spender.clone(),
            provider: provider.clone(),
            model: Arc::from(model),
        };
        let shard = self.hasher.hash_one(&key) as usize % SHARDS;
        let mut sums = self.shards[shard].lock();
        let sum = sums.entry(key).or_default();
        sum.calls += 1;
        sum.usage.add(usage);
        sum.cost = sum.cost.saturating_add(cost.unwrap_or(0));
        cost
    }

    /// Hands the sums to the journal and starts anew; answers who has spent money.
    pub fn flush(&self, journal: &Journal) -> HashSet<Spender> {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        // In one order on all nodes, so that their transactions cannot lock each other out.
        let mut sums = BTreeMap::new();
        for shard in &self.shards {
            sums.extend(std::mem::take(&mut *shard.lock()));
        }
        let day = today();
        let mut spenders = HashSet::new();
        for (key, sum) in sums {
            let spender = &key.spender;
            journal.append(Op::Usage(Box::new(SmithUsage {
                tenant_id: spender.tenant_id.to_string(),
                day: day.clone(),
                smith_id: spender.smith_id.to_string(),
                agent_id: spender.agent_id.to_string(),
                customer_id: spender.customer_id.to_string(),
                key_id: spender.key_id.to_string(),
                provider: key.provider.to_string(),
                model: key.model.to_string(),
                calls: signed(sum.calls),
                input: signed(sum.usage.input),
                output: signed(sum.usage.output),
                cache_read: signed(sum.usage.cache_read),
                cache_write: signed(sum.usage.cache_write),
                reasoning: signed(sum.usage.reasoning),
                cost: sum.cost,
            })));
            if sum.cost > 0 {
                spenders.insert(key.spender);
            }
        }
        spenders
    }

    /// Flushes every second, and looks whether a budget's threshold was passed, for ever.
    pub async fn flush_regularly(self: Arc<Self>, journal: Journal, budgets: Arc<Budgets>) {
        let mut interval = tokio::time::interval(FLUSH_EVERY);
        loop {
            interval.tick().await;
            let spenders = self.flush(&journal);
            if spenders.is_empty() || journal.flush().await.is_err() {
                continue;
            }
            for spender in spenders {
                if let Err(error) = budgets.tell(&spender).await {
                    tracing::warn!(%error, "cannot look after budgets");
                }
            }
        }
    }
}
