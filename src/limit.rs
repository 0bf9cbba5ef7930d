//! Rate and concurrency limits of tenants, tokens and smiths, on each node.
//!
//! Lives here: [`Admission`]. May import `config`, `auth`'s types, `error`. `governor` because its GCRA
//! needs one word for each key and no clock of its own.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use http::StatusCode;
use parking_lot::Mutex;

use crate::auth::Principal;
use crate::config::{Concurrency, Rates};
use crate::error::ApiError;

type Limiter = RateLimiter<
    Arc<str>,
    DefaultKeyedStateStore<Arc<str>>,
    DefaultClock,
    StateInformationMiddleware,
>;

/// How a caller stands to its tightest limit, for the `x-ratelimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests of a minute.
    pub limit: u32,
    pub remaining: u32,
    /// Seconds until the whole limit is there again.
    pub reset_s: u64,
}

/// What a refused request is told.
#[derive(Debug)]
pub struct Refused {
    pub error: ApiError,
    pub standing: Standing,
}

/// Counts a run until its last clone is dropped.
#[derive(Clone, Default)]
pub struct Permit(#[allow(dead_code, reason = "held for its drop")] Option<Arc<Held>>);

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permit")
    }
}

struct Held {
    counts: Arc<Counts>,
    keys: Vec<Key>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        for key in &self.keys {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
    }
}

type Key = (&'static str, Arc<str>);

#[derive(Default)]
struct Counts(Mutex<HashMap<Key, usize>>);

/// The limits of a node.
pub struct Admission {
    rates: [(&'static str, Option<Limiter>); 3],
    concurrency: Concurrency,
    counts: Arc<Counts>,
    clock: DefaultClock,
}

impl Admission {
    /// From the configuration; 0 means no limit.
    pub fn new(rates: &Rates, concurrency: &Concurrency) -> Self {
        let limiter = |per_minute: u32| {
            NonZeroU32::new(per_minute).map(|n| {
                RateLimiter::keyed(Quota::per_minute(n))
                    .with_middleware::<StateInformationMiddleware>()
            })
        };
        Self {
            rates: [
                ("tenant", limiter(rates.tenant_per_minute)),
                ("token", limiter(rates.token_per_minute)),
                ("smith", limiter(rates.smith_per_minute)),
            ],
            concurrency: concurrency.clone(),
            counts: Arc::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request; tells how its caller stands when there is a limit at all. Refused: 429
    /// `rate_limit_exceeded` with the seconds to wait.
    pub fn admit(
        &self,
        caller: &Principal,
        smith: Option<&str>,
    ) -> Result<Option<Standing>, Box<Refused>> {
        if self.rates.iter().all(|(_, limiter)| limiter.is_none()) {
            return Ok(None);
        }
        let smith = caller.smith_id().cloned().or_else(|| smith.map(Arc::from));
        let keys = [
            Some(&caller.tenant_id),
            Some(&caller.token_id),
            smith.as_ref(),
        ];
        let mut tightest: Option<Standing> = None;
        for ((what, limiter), key) in self.rates.iter().zip(keys) {
            let (Some(limiter), Some(key)) = (limiter, key) else {
                continue;
            };
            let standing = match limiter.check_key(key) {
                Ok(state) => {
                    let limit = state.quota().burst_size().get();
                    let remaining = state.remaining_burst_capacity();
                    let used = u64::from(limit - remaining);
                    let each = state.quota().replenish_interval().as_secs_f64();
                    Standing {
                        limit,
                        remaining,
                        reset_s: (used as f64 * each).ceil() as u64,
                    }
                }
                Err(until) => {
                    let wait = until.wait_time_from(self.clock.now());
                    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
                    let limit = until.quota().burst_size().get();
                    let message = format!("the {what} may make {limit} requests in a minute");
                    let error = ApiError::new(
                        StatusCode::TOO_MANY_REQUESTS,
                        "rate_limit_exceeded",
                        message,
                    )
                    .retry_after(seconds);
                    return Err(Box::new(Refused {
                        error,
                        standing: Standing {
                            limit,
                            remaining: 0,
                            reset_s: 60,
                        },
                    }));
                }
            };
            if tightest.is_none_or(|t| standing.remaining < t.remaining) {
                tightest = Some(standing);
            }
        }
        Ok(tightest)
    }

    /// Counts a run or a routed call until the permit is dropped; 429
    /// `concurrency_limit_exceeded` when there are too many.
    pub fn begin_run(
        &self,
        caller: &Principal,
        smith: Option<&Arc<str>>,
    ) -> Result<Permit, ApiError> {
        let limits = &self.concurrency;
        self.begin([
            ("tenant", limits.tenant_runs, Some(&caller.tenant_id)),
            ("token", limits.token_runs, Some(&caller.token_id)),
            ("smith", limits.smith_runs, smith),
        ])
    }

    fn begin(
        &self,
        limits: [(&'static str, usize, Option<&Arc<str>>); 3],
    ) -> Result<Permit, ApiError> {
        if limits.iter().all(|(_, limit, _)| *limit == 0) {
            return Ok(Permit(None));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(limits.len());
        let mut counts = self.counts.0.lock();
        for (what, limit, key) in limits {
            let Some(key) = key.filter(|_| limit > 0) else {
                continue;
            };
            let key = (what, key.clone());
            if counts.get(&key).copied().unwrap_or(0) >= limit {
                return Err(ApiError::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "concurrency_limit_exceeded",
                    format!("the {what} may have {limit} runs at once"),
                )
                .retry_after(1));
            }
            keys.push(key);
        }
        for key in &keys {
            *counts.entry(key.clone()).or_default() += 1;
        }
        drop(counts);
        Ok(Permit(Some(Arc::new(Held {
            counts: self.counts.clone(),
            keys,
        }))))
    }

    /// Counts a run that no token began, as [`Gate::begin_run`] does.
    pub fn begin_lane_run(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &Arc<str>,
    ) -> Result<Permit, ApiError> {
        let limits = &self.concurrency;
        self.begin([
            ("tenant", limits.tenant_runs, Some(tenant_id)),
            ("token", 0, None),
            ("smith", limits.smith_runs, Some(smith_id)),
        ])
    }

    /// Forgets keys whose limit is whole again.
    pub fn tidy(&self) {
        for (_, limiter) in &self.rates {
            if let Some(limiter) = limiter {
                limiter.retain_recent();
                limiter.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn caller(token: &str) -> Principal {
        Principal {
            tenant_id: "proj_a".into(),
            role: Role::TenantAdmin,
            token_id: token.into(),
            expires_at: None,
        }
    }

    #[test]
    fn the_tightest_limit_counts() {
        let rates = Rates {
            tenant_per_minute: 10,
            token_per_minute: 2,
            smith_per_minute: 0,
        };
        let gate = Admission::new(&rates, &Concurrency::default());
        let first = gate.admit(&caller("a"), None).expect("admitted");
        let first = first.expect("a limit");
        assert_eq!((first.limit, first.remaining), (2, 1));
        gate.admit(&caller("a"), None).expect("admitted");
        let refused = gate.admit(&caller("a"), None).expect_err("refused");
        assert_eq!(refused.error.code, "rate_limit_exceeded");
        assert!(
            refused
                .error
                .retry_after
                .is_some_and(|s| (1..=30).contains(&s))
        );
        assert!(gate.admit(&caller("b"), None).is_ok());
        gate.tidy();
        assert!(gate.admit(&caller("a"), None).is_err());
    }

    #[test]
    fn permits_are_given_back() {
        let concurrency = Concurrency {
            smith_runs: 1,
            ..Concurrency::default()
        };
        let gate = Admission::new(&Rates::default(), &concurrency);
        let smith: Arc<str> = "smt_a".into();
        let other: Arc<str> = "smt_b".into();
        let permit = gate
            .begin_run(&caller("a"), Some(&smith))
            .expect("a permit");
        let copy = permit.clone();
        drop(permit);
        let refused = gate.begin_run(&caller("a"), Some(&smith));
        assert_eq!(
            refused.expect_err("refused").code,
            "concurrency_limit_exceeded"
        );
        assert!(gate.begin_run(&caller("a"), Some(&other)).is_ok());
        drop(copy);
        assert!(gate.begin_run(&caller("a"), Some(&smith)).is_ok());
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let gate = Admission::new(&Rates::default(), &Concurrency::default());
        assert_eq!(gate.admit(&caller("a"), None).expect("admitted"), None);
    }
}
