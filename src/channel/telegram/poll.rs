//! Long polling, for gateways that no platform can reach. Of all nodes one asks for a bot at a time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::receive::{KINDS, arrival};
use super::{KIND, Secrets, account, api};
use crate::channel::tenants::for_each;
use crate::channel::{Fault, Hub};

/// How long Telegram holds a request open; less than any call may take.
const HELD_S: u64 = 10;
/// For how long a node has a bot.
const LEASE: Duration = Duration::from_secs(60);
const AFTER_FAULT: Duration = Duration::from_secs(5);
/// A Bot API that holds no request open is asked no more often than this.
const LEAST: Duration = Duration::from_millis(500);

/// Asks for what has arrived, of all bots without a webhook, for ever.
pub async fn poll(hub: Arc<Hub>) {
    for_each(hub, KIND, |hub, tenant| {
        Box::pin(async move { ask(&hub, &tenant).await })
    })
    .await;
}

/// Asks for one bot, while it is this node's.
async fn ask(hub: &Hub, tenant_id: &str) {
    let mut offset = 0;
    loop {
        let Ok(account) = account(hub, tenant_id).await else {
            return;
        };
        // Nothing is written for a bot that Telegram calls itself.
        if account.settings["webhook_url"].is_string() {
            return;
        }
        if !hub.is_ours(KIND, tenant_id, LEASE).await {
            return;
        }
        let asked_at = tokio::time::Instant::now();
        match updates(hub, &account.secrets, tenant_id, offset).await {
            Ok(next) if next == offset => tokio::time::sleep_until(asked_at + LEAST).await,
            Ok(next) => offset = next,
            Err(fault) => {
                tracing::warn!(%fault, tenant_id, "Telegram gives no updates");
                let wait = match fault {
                    Fault::Later { after, .. } => after.unwrap_or(AFTER_FAULT),
                    _ => AFTER_FAULT,
                };
                tokio::time::sleep(wait.min(LEASE)).await;
            }
        }
    }
}

/// Keeps what has arrived; answers from where on to ask next, which tells Telegram that all before is
/// kept.
async fn updates(hub: &Hub, secrets: &Secrets, tenant_id: &str, offset: i64) -> Result<i64, Fault> {
    let body = json!({ "offset": offset, "timeout": HELD_S, "limit": 100,
        "allowed_updates": KINDS });
    let found = api::call(hub, secrets, "getUpdates", &body).await?;
    let mut next = offset;
    for update in found.as_array().into_iter().flatten() {
        let id = update["update_id"].as_i64().unwrap_or(offset);
        if let Some(arrival) = arrival(update.clone()) {
            hub.accept(tenant_id, KIND, arrival).await?;
        }
        next = next.max(id + 1);
    }
    Ok(next)
}

/// What the settings of an account say when it is polled.
pub fn is_reachable(public_url: &str) -> bool {
    // Telegram calls servers with TLS alone.
    public_url.starts_with("https://")
}

/// Tells Telegram where to deliver, or that it is asked.
pub async fn subscribe(hub: &Hub, secrets: &Secrets, url: Option<&str>) -> Result<(), Fault> {
    let (method, body) = match url {
        Some(url) => (
            "setWebhook",
            json!({ "url": url, "secret_token": secrets.webhook_secret,
                "allowed_updates": KINDS, "max_connections": 40 }),
        ),
        None => ("deleteWebhook", json!({})),
    };
    let _: Value = api::call(hub, secrets, method, &body).await?;
    Ok(())
}
