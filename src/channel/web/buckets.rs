//! How often something may be done: a bucket of tokens for each key, refilled by the clock. Each key
//! brings its own rate, which the limits of `limit` do not know.

use std::collections::HashMap;
use std::time::Instant;

use http::StatusCode;
use parking_lot::Mutex;

use crate::error::ApiError;

/// Keys that are remembered. Beyond that, those that are as good as new are forgotten.
const MOST: usize = 20_000;

struct Bucket {
    tokens: f64,
    looked: Instant,
    per_second: f64,
    size: f64,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.duration_since(self.looked).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.size);
        self.looked = now;
    }
}

/// Buckets by their keys.
#[derive(Default)]
pub struct Buckets(Mutex<Option<HashMap<String, Bucket>>>);

impl Buckets {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Takes a token; 429 with the seconds to wait when there is none.
    pub fn take(&self, key: &str, per_minute: u32, size: u32) -> Result<(), ApiError> {
        self.take_at(key, 1, [per_minute, size], Instant::now())
    }

    /// The same of several.
    pub fn take_many(
        &self,
        key: &str,
        count: u32,
        per_minute: u32,
        size: u32,
    ) -> Result<(), ApiError> {
        self.take_at(key, count, [per_minute, size], Instant::now())
    }

    fn take_at(
        &self,
        key: &str,
        count: u32,
        [per_minute, size]: [u32; 2],
        now: Instant,
    ) -> Result<(), ApiError> {
        let mut buckets = self.0.lock();
        let buckets = buckets.get_or_insert_default();
        if buckets.len() >= MOST && !buckets.contains_key(key) {
            buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.tokens < bucket.size
            });
            if buckets.len() >= MOST {
                return Err(too_often(1));
            }
        }
        let size = f64::from(size.max(1));
        let bucket = buckets.entry(key.to_owned()).or_insert(Bucket {
            tokens: size,
            looked: now,
            per_second: f64::from(per_minute.max(1)) / 60.0,
            size,
        });
        bucket.refill(now);
        let wanted = f64::from(count).min(size);
        if bucket.tokens < wanted {
            let wait = (wanted - bucket.tokens) / bucket.per_second;
            return Err(too_often(wait.ceil().max(1.0) as u64));
        }
        bucket.tokens -= wanted;
        Ok(())
    }

    /// Gives a token back.
    pub fn give_back(&self, key: &str) {
        if let Some(bucket) = self.0.lock().get_or_insert_default().get_mut(key) {
            bucket.tokens = (bucket.tokens + 1.0).min(bucket.size);
        }
    }
}

fn too_often(seconds: u64) -> ApiError {
    let why = "too many at once: wait a little";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", why).retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tokens_come_back_with_time() {
        let (buckets, now) = (Buckets::new(), Instant::now());
        let take = |key: &str, after: u64| {
            buckets.take_at(key, 1, [60, 2], now + Duration::from_millis(after))
        };
        assert!(take("a", 0).is_ok() && take("a", 0).is_ok());
        let refused = take("a", 0).expect_err("refused");
        assert_eq!(
            (refused.status.as_u16(), refused.retry_after),
            (429, Some(1))
        );
        assert!(take("b", 0).is_ok());
        assert!(take("a", 1_100).is_ok() && take("a", 1_200).is_err());
        buckets.give_back("a");
        assert!(take("a", 1_200).is_ok());
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let (buckets, now) = (Buckets::new(), Instant::now());
        for key in 0..MOST {
            assert!(buckets.take_at(&key.to_string(), 1, [60, 2], now).is_ok());
        }
        assert!(buckets.take_at("new", 1, [60, 2], now).is_err());
        let later = now + Duration::from_secs(5);
        assert!(buckets.take_at("new", 1, [60, 2], later).is_ok());
    }
}
