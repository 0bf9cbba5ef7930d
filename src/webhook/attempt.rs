//! One attempt to deliver an event.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use super::signature::headers;
use crate::error::ApiError;
use crate::secrets::Vault;
use crate::store::{
    DeliveryOutcome, DeliveryRow, DeliveryStatus, EventRow, Store, WebhookRow, now_micros, rfc3339,
};
use crate::upstream::{Endpoint, Timeouts, Upstream, UpstreamError, UpstreamRequest};

/// A 2xx within this time counts.
const PATIENCE: Duration = Duration::from_secs(10);
/// About how long after a failed attempt the next one is due; after the last the delivery is dead.
const PAUSES_S: [i64; 7] = [5, 30, 120, 900, 3_600, 21_600, 86_400];
/// Longest reason that is kept of a failure, in characters.
const MAX_ERROR: usize = 500;

/// What is delivered (`events.md`).
#[derive(Serialize)]
struct Envelope<'a> {
    v: u8,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    created_at: String,
    tenant_id: &'a str,
    smith_id: Option<&'a str>,
    data: &'a RawValue,
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub delivered: bool,
    /// The endpoint's answer, when it gave one.
    pub status: Option<u16>,
    pub error: Option<String>,
}

/// Makes attempts.
pub struct Sender {
    pub(super) store: Arc<dyn Store>,
    vault: Arc<Vault>,
    upstream: Arc<Upstream>,
}

/// The owner that a webhook's secret is sealed for.
fn owner(webhook: &WebhookRow) -> String {
    format!("webhook/{}/{}", webhook.tenant_id, webhook.id)
}

/// A URL as the client needs it: where to connect, and what to ask for there.
fn target(url: &str) -> Result<(Endpoint, String), String> {
    let parsed = url::Url::parse(url).map_err(|e| e.to_string())?;
    if parsed.fragment().is_some() {
        return Err("must hold no fragment".to_owned());
    }
    let mut origin = parsed.clone();
    origin.set_path("");
    origin.set_query(None);
    let endpoint = Endpoint::parse(origin.as_str(), false)?;
    let path = match parsed.query() {
        Some(query) => format!("{}?{query}", parsed.path()),
        None => parsed.path().to_owned(),
    };
    Ok((endpoint, path))
}

impl Sender {
    /// Puts the parts together.
    pub fn new(store: Arc<dyn Store>, vault: Arc<Vault>, upstream: Arc<Upstream>) -> Self {
        Self {
            store,
            vault,
            upstream,
        }
    }

    /// Refuses a URL that is none, or that leads to an address which tenants may not reach. A name
    /// that does not resolve yet is taken: it is looked up again at every attempt.
    pub async fn check_url(&self, url: &str) -> Result<(), ApiError> {
        let bad = |why: String| ApiError::bad_request("invalid_url", why).param("url");
        let (endpoint, _) = target(url).map_err(bad)?;
        match self.upstream.check(&endpoint).await {
            Err(UpstreamError::Forbidden(why)) => Err(bad(why)),
            _ => Ok(()),
        }
    }

    /// Seals a webhook's secret.
    pub fn seal(&self, webhook: &WebhookRow, secret: &str) -> Result<Vec<u8>, ApiError> {
        self.vault
            .seal(&owner(webhook), secret.as_bytes())
            .map_err(ApiError::internal)
    }

    fn secrets(&self, webhook: &WebhookRow, now: i64) -> Result<Vec<String>, String> {
        let open = |sealed: &[u8]| {
            let opened = self.vault.open(&owner(webhook), sealed);
            opened
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(|e| e.to_string())
        };
        let mut secrets = vec![open(&webhook.sealed)?];
        if let (Some(previous), Some(until)) = (&webhook.previous_sealed, webhook.previous_until)
            && until > now
        {
            secrets.push(open(previous)?);
        }
        Ok(secrets)
    }

    async fn send(&self, webhook: &WebhookRow, event: &EventRow) -> Result<u16, String> {
        let (endpoint, path) = target(&webhook.url)?;
        let data: &RawValue = serde_json::from_str(&event.data).map_err(|e| e.to_string())?;
        let envelope = Envelope {
            v: 1,
            id: &event.id,
            kind: &event.kind,
            created_at: rfc3339(event.created_at),
            tenant_id: &event.tenant_id,
            smith_id: event.smith_id.as_deref(),
            data,
        };
        let body = serde_json::to_vec(&envelope).map_err(|e| e.to_string())?;
        let now = now_micros();
        let secrets = self.secrets(webhook, now)?;
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let headers = headers(&event.id, now / 1_000_000, &body, &secrets);
        let request = UpstreamRequest {
            method: Method::POST,
            path: &path,
            headers: &headers,
            body: body.into(),
            repeatable: true,
        };
        let timeouts = Timeouts {
            connect: PATIENCE / 2,
            first_byte: PATIENCE,
            idle: PATIENCE,
        };
        let sent = self.upstream.send(&endpoint, &request, timeouts);
        match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(response)) => Ok(response.status.as_u16()),
            Ok(Err(error)) => Err(error.about("the webhook's server")),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Tries once by hand and records how it went.
    pub async fn attempt(
        &self,
        webhook: &WebhookRow,
        delivery: &DeliveryRow,
    ) -> Result<Attempt, ApiError> {
        let (attempt, outcome) = self.try_once(webhook, delivery).await?;
        self.store
            .record_attempt(&delivery.tenant_id, &delivery.id, &outcome)
            .await?;
        Ok(attempt)
    }

    /// Tries once; answers how it went, and what is to be recorded. A dead delivery that fails again
    /// stays dead.
    pub(super) async fn try_once(
        &self,
        webhook: &WebhookRow,
        delivery: &DeliveryRow,
    ) -> Result<(Attempt, DeliveryOutcome), ApiError> {
        let event = self
            .store
            .event(&delivery.tenant_id, &delivery.event_id)
            .await?;
        let sent = match event {
            Some(event) => self.send(webhook, &event).await,
            None => Err("the event is no longer kept".to_owned()),
        };
        let now = now_micros();
        let attempt = match sent {
            Ok(status) => Attempt {
                delivered: (200..300).contains(&status),
                status: Some(status),
                error: (!(200..300).contains(&status)).then(|| format!("answered {status}")),
            },
            Err(why) => Attempt {
                delivered: false,
                status: None,
                error: Some(why.chars().take(MAX_ERROR).collect()),
            },
        };
        let tried = usize::try_from(delivery.attempts).unwrap_or(usize::MAX);
        let pause = PAUSES_S
            .get(tried)
            .filter(|_| delivery.status != DeliveryStatus::Dead);
        let (status, next_attempt_at) = match (attempt.delivered, pause) {
            (true, _) => (DeliveryStatus::Succeeded, now),
            (false, Some(pause)) => {
                let at = now + jittered(*pause * 1_000_000);
                (DeliveryStatus::Pending, at)
            }
            (false, None) => (DeliveryStatus::Dead, now),
        };
        let outcome = DeliveryOutcome {
            status,
            last_status: attempt.status.map(i64::from),
            last_error: attempt.error.clone(),
            next_attempt_at,
            delivered_at: attempt.delivered.then_some(now),
        };
        Ok((attempt, outcome))
    }
}

/// A pause of 90 to 110 percent, so that what failed together is not repeated together.
fn jittered(pause: i64) -> i64 {
    let mut bytes = [0u8; 2];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    let share = i64::from(u16::from_be_bytes(bytes)) * 20 / i64::from(u16::MAX);
    pause / 100 * (90 + share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let (_, path) = target("https://example.com/hooks/a?key=1").expect("a target");
        assert_eq!(path, "/hooks/a?key=1");
        assert!(target("ftp://example.com").is_err());
        assert!(target("https://user:pass@example.com/").is_err());
        assert!(target("https://example.com/#x").is_err());
        assert!(target("nonsense").is_err());
    }

    #[test]
    fn pauses_are_spread() {
        for _ in 0..100 {
            let pause = jittered(1_000_000);
            assert!((900_000..=1_100_000).contains(&pause), "{pause}");
        }
    }
}
