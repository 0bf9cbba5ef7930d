//! The password of a page: kept as a hash, asked for rarely.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{PBKDF2_HMAC_SHA256, derive, verify};
use http::StatusCode;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::buckets::Buckets;
use crate::error::ApiError;

/// What OWASP recommends for PBKDF2 with HMAC-SHA-256
/// (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(599_999);
const LENGTH: usize = 32;
const MIN: usize = 8;
const MAX: usize = 200;
/// Wrong guesses of all visitors of a page: so many at once, and so many in a minute.
const GUESSES: u32 = 10;
/// Hashes that are made at once: each takes a core for a while.
const AT_ONCE: usize = 2;

static TRIED: Buckets = Buckets::new();
static WORKING: Semaphore = Semaphore::const_new(AT_ONCE);

/// What is kept of the secrets that a deployment is made with.
pub async fn kept(secrets: &Value) -> Result<Map<String, Value>, ApiError> {
    let password = match &secrets["password"] {
        Value::Null => return Ok(Map::new()),
        Value::String(text) if text.is_empty() => return Ok(Map::new()),
        Value::String(text) => text.clone(),
        _ => return Err(ApiError::invalid("secrets.password", "must be a text")),
    };
    if !(MIN..=MAX).contains(&password.chars().count()) {
        let why = "must have 8 to 200 characters";
        return Err(ApiError::invalid("secrets.password", why));
    }
    let mut salt = [0u8; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| ApiError::internal("no randomness"))?;
    let hash = tokio::task::spawn_blocking(move || {
        let mut hash = [0u8; LENGTH];
        derive(
            PBKDF2_HMAC_SHA256,
            ROUNDS,
            &salt,
            password.as_bytes(),
            &mut hash,
        );
        format!("{}${}${}", ROUNDS, hex::encode(salt), hex::encode(hash))
    });
    let hash = hash.await.map_err(ApiError::internal)?;
    Ok(Map::from_iter([(
        "password".to_owned(),
        Value::String(hash),
    )]))
}

/// The refusal of a guess.
pub fn wrong() -> ApiError {
    let (status, why) = (StatusCode::UNAUTHORIZED, "this is not the password");
    ApiError::new(status, "wrong_password", why).param("password")
}

/// Whether a guess is the password; 429 after too many that were not.
pub async fn is_right(deployment_id: &str, kept: &str, guess: String) -> Result<bool, ApiError> {
    if guess.chars().count() > MAX {
        return Ok(false);
    }
    TRIED.take(deployment_id, GUESSES, GUESSES)?;
    let _working = WORKING.acquire().await.map_err(ApiError::internal)?;
    let kept = kept.to_owned();
    let found = tokio::task::spawn_blocking(move || matches(&kept, &guess));
    let is_right = found.await.map_err(ApiError::internal)?;
    if is_right {
        TRIED.give_back(deployment_id);
    }
    Ok(is_right)
}

fn matches(kept: &str, guess: &str) -> bool {
    let mut parts = kept.split('$');
    let mut bytes = || parts.next().map(str::to_owned);
    let (Some(rounds), Some(salt), Some(hash)) = (bytes(), bytes(), bytes()) else {
        return false;
    };
    let (Ok(rounds), Ok(salt), Ok(hash)) = (rounds.parse(), hex::decode(salt), hex::decode(hash))
    else {
        return false;
    };
    verify(PBKDF2_HMAC_SHA256, rounds, &salt, guess.as_bytes(), &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_password_is_found_by_its_hash_alone() {
        let made = kept(&json!({ "password": "open sesame" }))
            .await
            .expect("kept");
        let hash = made["password"].as_str().expect("a hash");
        assert!(!hash.contains("sesame"));
        assert!(
            is_right("dep_1", hash, "open sesame".to_owned())
                .await
                .expect("told")
        );
        assert!(
            !is_right("dep_1", hash, "open sesam".to_owned())
                .await
                .expect("told")
        );
        assert!(!matches("", "") && !matches("1$zz$", "x"));
        for bad in [
            json!({ "password": "short" }),
            json!({ "password": 12345678 }),
        ] {
            let error = kept(&bad).await.expect_err("refused");
            assert_eq!(error.param.as_deref(), Some("secrets.password"));
        }
        assert!(kept(&json!({})).await.expect("none").is_empty());
    }
}
