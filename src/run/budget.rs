//! Budgets: what a month may cost. A run is refused when a blocking budget is spent; thresholds
//! are told in the feed. Spending is summed once a second and looked up with a cache of two, so a
//! budget can be overrun by what is spent in about three seconds.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::spender::{NANOS, Spender, today};
use crate::error::ApiError;
use crate::store::{BudgetSpend, EventRow, Store};

const TTL: Duration = Duration::from_secs(2);
/// Percentages of a budget at which the feed says so.
const THRESHOLDS: [i64; 2] = [100, 80];

/// A tenant, and a smith or a key.
type Key = (Arc<str>, Arc<str>);

/// Looks after budgets.
pub struct Budgets {
    store: Arc<dyn Store>,
    /// Both are empty for model routing with a token.
    cache: moka::future::Cache<Key, Arc<[BudgetSpend]>>,
}

/// The month, `YYYY-MM`, UTC.
pub fn this_period() -> String {
    today().get(..7).unwrap_or_default().to_owned()
}

/// How much of `amount` was spent, in percent.
pub fn percent(spent: i64, amount: i64) -> f64 {
    if amount <= 0 {
        return 100.0;
    }
    spent as f64 / amount as f64 * 100.0
}

impl Budgets {
    /// Over `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            cache: moka::future::Cache::builder()
                .max_capacity(100_000)
                .time_to_live(TTL)
                .build(),
        }
    }

    async fn load(&self, spender: &Spender) -> Result<Arc<[BudgetSpend]>, ApiError> {
        let ids = [
            &spender.smith_id,
            &spender.agent_id,
            &spender.customer_id,
            &spender.key_id,
        ];
        let ids: Vec<&str> = ids
            .into_iter()
            .filter(|id| !id.is_empty())
            .map(|id| &**id)
            .collect();
        let found = self
            .store
            .budget_spends(&spender.tenant_id, &this_period(), &ids)
            .await?;
        Ok(found.into())
    }

    async fn cached(&self, spender: &Spender) -> Result<Arc<[BudgetSpend]>, ApiError> {
        let who = match spender.smith_id.is_empty() {
            true => &spender.key_id,
            false => &spender.smith_id,
        };
        let key = (spender.tenant_id.clone(), who.clone());
        if let Some(found) = self.cache.get(&key).await {
            return Ok(found);
        }
        let found = self.load(spender).await?;
        self.cache.insert(key, found.clone()).await;
        Ok(found)
    }

    /// 402 `budget_exceeded` when a blocking budget of the spender's is used up.
    pub async fn check(&self, spender: &Spender) -> Result<(), ApiError> {
        let budgets = self.cached(spender).await?;
        let exceeded = budgets
            .iter()
            .find(|b| b.budget.action == "block" && b.spent >= b.budget.amount);
        match exceeded {
            None => Ok(()),
            Some(found) => Err(ApiError::new(
                StatusCode::PAYMENT_REQUIRED,
                "budget_exceeded",
                format!(
                    "this month's budget of the {} is used up",
                    found.budget.scope
                ),
            )),
        }
    }

    /// Writes `budget.threshold` for each threshold that was passed and not yet told.
    pub async fn tell(&self, spender: &Spender) -> Result<(), ApiError> {
        if self.cached(spender).await?.is_empty() {
            return Ok(());
        }
        let period = this_period();
        for BudgetSpend { budget, spent } in self.load(spender).await?.iter() {
            let percent = percent(*spent, budget.amount);
            let Some(threshold) = THRESHOLDS.iter().find(|t| percent >= **t as f64) else {
                continue;
            };
            let told = budget.told_period.as_deref() == Some(period.as_str())
                && budget.told_percent >= *threshold;
            if told {
                continue;
            }
            let data = json!({
                "budget_id": budget.id,
                "scope": budget.scope,
                "scope_id": (!budget.scope_id.is_empty()).then_some(&budget.scope_id),
                "period": period,
                "threshold": threshold,
                "percent": percent,
                "spent": *spent as f64 / NANOS,
                "limit": budget.amount as f64 / NANOS,
                "currency": budget.currency.to_ascii_lowercase(),
                "action": budget.action,
            });
            let smith = (budget.scope == "smith").then_some(budget.scope_id.as_str());
            let event = EventRow::new(&budget.tenant_id, "budget.threshold", smith, &data, None);
            self.store
                .tell_budget(budget, &period, *threshold, &event)
                .await?;
        }
        Ok(())
    }

    /// Forgets what is cached, after a change of a budget.
    pub fn forget_all(&self) {
        self.cache.invalidate_all();
    }
}
