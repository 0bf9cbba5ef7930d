//! Virtual keys: opaque secrets for plain use of models. What a secret stands for is asked of the
//! store once and remembered under the secret's hash; expiry is looked at on every call, and a change
//! of a key, on whatever node, lets what is remembered of it lapse.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::sync::Semaphore;

use super::{Principal, Rights, Role, VIRTUAL_KEY_PREFIX};
use crate::bus::{Bus, Notice};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, VirtualKeyFound, now_micros};

/// How often nodes look for changes made elsewhere: a key is to be dead everywhere within a second,
/// also where no bus tells.
const POLL: Duration = Duration::from_millis(400);
/// Clocks of nodes differ a little; looking back each time costs nothing.
const LOOK_BACK: i64 = 60 * 1_000_000;
/// For how long a key is remembered, and so for how long a change must be.
const REMEMBERED: Duration = Duration::from_secs(600);
/// For how long a text is remembered to be no key. A secret is random: none becomes one later.
const UNKNOWN_REMEMBERED: Duration = Duration::from_secs(10);
const UNKNOWN_ENTRIES: u64 = 10_000;
/// Look-ups at a time, so that made-up keys leave the store to others.
const LOOK_UPS: usize = 8;
/// Letters of a secret: 32 bytes in base64url.
const SECRET_LENGTH: usize = 43;

/// The hash of a secret with its handle.
pub type Digest = [u8; 32];

/// What a secret is looked up by.
pub fn digest_of(token: &[u8]) -> Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
    let mut key = [0; 32];
    key.copy_from_slice(digest.as_ref());
    key
}

/// What is known of a secret.
struct Known {
    principal: Arc<Principal>,
    /// The row's time of change.
    version: i64,
    /// The key's end or the secret's, whichever is first, in microseconds.
    ends_at: Option<i64>,
    refused: Option<Refused>,
}

/// Why a key that is known does not count.
#[derive(Debug, Clone, Copy)]
enum Refused {
    Revoked,
    Disabled,
    Expired,
}

impl Refused {
    fn error(self) -> ApiError {
        let (code, message) = match self {
            Self::Revoked => ("key_revoked", "this key has been revoked"),
            Self::Disabled => ("key_disabled", "this key is disabled"),
            Self::Expired => ("key_expired", "this key has expired"),
        };
        ApiError::new(StatusCode::UNAUTHORIZED, code, message)
    }
}

impl Known {
    fn of(found: VirtualKeyFound) -> Result<Self, ApiError> {
        let key = found.key;
        let list = |text: &Option<String>| -> Result<Option<Vec<String>>, ApiError> {
            let list = text.as_deref().map(serde_json::from_str);
            list.transpose().map_err(ApiError::internal)
        };
        let (uses, models) = (list(&key.routes)?, list(&key.models)?);
        let rights = Rights::parse(uses.as_deref(), models.as_deref());
        let rights = rights.map_err(ApiError::internal)?;
        let ends = [key.expires_at, found.secret_expires_at];
        Ok(Self {
            version: key.updated_at,
            ends_at: ends.into_iter().flatten().min(),
            refused: match (key.revoked_at, key.disabled) {
                (Some(_), _) => Some(Refused::Revoked),
                (None, true) => Some(Refused::Disabled),
                (None, false) => None,
            },
            principal: Arc::new(Principal {
                tenant_id: key.tenant_id.into(),
                role: Role::VirtualKey(rights),
                token_id: key.id.into(),
                expires_at: key.expires_at.map(|at| at / 1_000_000),
            }),
        })
    }

    fn caller(&self) -> Result<Arc<Principal>, ApiError> {
        if let Some(refused) = self.refused {
            return Err(refused.error());
        }
        if self.ends_at.is_some_and(|at| at <= now_micros()) {
            return Err(Refused::Expired.error());
        }
        Ok(self.principal.clone())
    }
}

fn unknown() -> ApiError {
    ApiError::unauthenticated("this is no valid key of this gateway")
}

/// Verifies virtual keys.
pub struct VirtualKeys {
    store: Arc<dyn Store>,
    bus: Bus,
    known: moka::sync::Cache<Digest, Arc<Known>>,
    unknown: moka::sync::Cache<Digest, ()>,
    /// The versions of keys that were changed while something may be remembered of them.
    changes: ArcSwap<HashMap<Box<str>, i64>>,
    look_ups: Semaphore,
    metrics: Metrics,
}

impl VirtualKeys {
    /// Over `store`; remembers `entries` secrets.
    pub fn new(store: Arc<dyn Store>, bus: Bus, entries: u64, metrics: Metrics) -> Self {
        Self {
            store,
            bus,
            known: moka::sync::Cache::builder()
                .max_capacity(entries)
                .time_to_live(REMEMBERED)
                .build(),
            unknown: moka::sync::Cache::builder()
                .max_capacity(UNKNOWN_ENTRIES)
                .time_to_live(UNKNOWN_REMEMBERED)
                .build(),
            changes: ArcSwap::default(),
            look_ups: Semaphore::new(LOOK_UPS),
            metrics,
        }
    }

    /// Whether `token` has the handle of a virtual key.
    pub fn is_one(token: &[u8]) -> bool {
        token.starts_with(VIRTUAL_KEY_PREFIX.as_bytes())
    }

    /// Who calls with `token`; 401 `key_revoked`, `key_disabled`, `key_expired`.
    pub async fn verify(&self, token: &[u8]) -> Result<Arc<Principal>, ApiError> {
        if token.len() != VIRTUAL_KEY_PREFIX.len() + SECRET_LENGTH {
            return Err(unknown());
        }
        let digest = digest_of(token);
        if let Some(known) = self.remembered(&digest) {
            self.metrics.token_cache_hits.inc();
            return known.caller();
        }
        self.metrics.token_cache_misses.inc();
        // Boxed: seldom, and what serves a call would hold room for it.
        Box::pin(self.look_up(digest)).await?.caller()
    }

    fn remembered(&self, digest: &Digest) -> Option<Arc<Known>> {
        let known = self.known.get(digest)?;
        let changes = self.changes.load();
        let is_stale = !changes.is_empty()
            && changes
                .get(&*known.principal.token_id)
                .is_some_and(|version| *version > known.version);
        (!is_stale).then_some(known)
    }

    async fn look_up(&self, digest: Digest) -> Result<Arc<Known>, ApiError> {
        if self.unknown.contains_key(&digest) {
            return Err(unknown());
        }
        let turn = self.look_ups.acquire().await;
        let _turn = turn.map_err(ApiError::internal)?;
        // Of many calls that came at once, one asks.
        if let Some(known) = self.remembered(&digest) {
            return Ok(known);
        }
        let found = self.store.virtual_key_of(&hex::encode(digest)).await?;
        let Some(found) = found else {
            self.unknown.insert(digest, ());
            return Err(unknown());
        };
        let known = Arc::new(Known::of(found)?);
        self.known.insert(digest, known.clone());
        Ok(known)
    }

    /// Notes keys that the store has changed: at once here and where the bus tells, within
    /// [`POLL`] elsewhere.
    pub fn changed(&self, keys: Vec<(String, i64)>) {
        self.heard_of(&keys);
        self.bus.change(Notice::VirtualKeys { keys });
    }

    /// Notes what another node has changed.
    pub fn heard_of(&self, keys: &[(String, i64)]) {
        let noted = self.changes.load();
        let is_new = |(id, version): &(String, i64)| {
            noted.get(id.as_str()).is_none_or(|known| known < version)
        };
        if !keys.iter().any(is_new) {
            return;
        }
        // What was changed before all that is remembered was read needs no note any more.
        let forgotten = now_micros() - REMEMBERED.as_micros() as i64 - 2 * LOOK_BACK;
        self.changes.rcu(|noted| {
            let mut noted = HashMap::clone(noted);
            noted.retain(|_, version| *version > forgotten);
            for (id, version) in keys {
                let kept = noted.entry(id.as_str().into()).or_insert(*version);
                *kept = (*kept).max(*version);
            }
            noted
        });
    }

    /// Follows changes made on other nodes, for ever.
    pub async fn follow(&self) {
        let mut seen_until = now_micros();
        let mut interval = tokio::time::interval(POLL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let asked_at = now_micros();
            match self.changes_since(seen_until - LOOK_BACK).await {
                Ok(found) => {
                    seen_until = asked_at;
                    self.heard_of(&found);
                }
                Err(error) => tracing::warn!(%error, "cannot look for changed keys"),
            }
        }
    }

    async fn changes_since(&self, since: i64) -> Result<Vec<(String, i64)>, StoreError> {
        self.store.virtual_keys_changed_since(since).await
    }
}
