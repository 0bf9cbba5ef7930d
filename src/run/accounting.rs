//! Tokens and money, summed in memory and handed to the journal once a second: a request adds to a
//! shard's sum and writes nothing itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::budget::Budgets;
use super::spender::{NANOS, Spender, today};
use crate::config::{Price, Prices};
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

/// The price book: exact names first, then the longest name that a model's id begins with.
pub struct PriceBook {
    exact: HashMap<String, Price>,
    /// Longest first.
    prefixes: Vec<(String, Price)>,
}

impl PriceBook {
    /// From the configuration.
    pub fn new(prices: &Prices) -> Self {
        let mut prefixes: Vec<(String, Price)> = prices
            .models
            .iter()
            .map(|(name, price)| (name.clone(), *price))
            .collect();
        prefixes.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self {
            exact: prefixes.iter().cloned().collect(),
            prefixes,
        }
    }

    fn price(&self, provider: &str, model: &str) -> Option<Price> {
        if self.exact.is_empty() {
            return None;
        }
        let qualified = format!("{provider}/{model}");
        let begins = |name: &str| model.starts_with(name) || qualified.starts_with(name);
        self.exact
            .get(&qualified)
            .or_else(|| self.exact.get(model))
            .or_else(|| {
                let found = self.prefixes.iter().find(|(name, _)| begins(name));
                found.map(|(_, price)| price)
            })
            .copied()
    }

    /// What `usage` costs, in nanos; `None` when the model has no price.
    pub fn cost(&self, provider: &str, model: &str, usage: &Usage) -> Option<i64> {
        const TOKENS: f64 = 1e6;
        let price = self.price(provider, model)?;
        let fresh = usage
            .input
            .saturating_sub(usage.cache_read + usage.cache_write);
        let sum = fresh as f64 * price.input
            + usage.cache_read as f64 * price.cache_read.unwrap_or(price.input)
            + usage.cache_write as f64 * price.cache_write.unwrap_or(price.input)
            + usage.output as f64 * price.output;
        Some((sum / TOKENS * NANOS).round() as i64)
    }
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
    pub fn new(prices: &Prices, metrics: Metrics) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            prices: PriceBook::new(prices),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_found_by_the_longest_name() {
        let price = |input, output| Price {
            input,
            output,
            cache_read: Some(0.1),
            cache_write: None,
        };
        let prices = Prices {
            currency: "EUR".to_owned(),
            models: BTreeMap::from([
                ("gpt-5.5".to_owned(), price(1.0, 2.0)),
                ("gpt-5.5-mini".to_owned(), price(0.5, 1.0)),
                ("local/gpt-5.5".to_owned(), price(0.0, 0.0)),
            ]),
        };
        let book = PriceBook::new(&prices);
        let usage = Usage {
            input: 1_000_000,
            output: 500_000,
            cache_read: 400_000,
            ..Usage::default()
        };
        // 0.6 fresh + 0.04 cached + 1.0 out
        assert_eq!(
            book.cost("openai", "gpt-5.5-2026-01-01", &usage),
            Some(1_640_000_000)
        );
        assert_eq!(
            book.cost("openai", "gpt-5.5-mini", &usage),
            Some(840_000_000)
        );
        assert_eq!(book.cost("local", "gpt-5.5", &usage), Some(40_000_000));
        assert_eq!(book.cost("openai", "other", &usage), None);
    }
}
