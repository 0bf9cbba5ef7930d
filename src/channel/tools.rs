//! The tools by which smiths send over channels, once they are bound there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::Hub;
use crate::error::ApiError;
use crate::ids;
use crate::store::{OutboundRow, now_micros};
use crate::tools::{SendFunction, Senders, Sending};

/// Another node's changes are seen after this.
const TTL: Duration = Duration::from_secs(3);
const REMEMBERED: u64 = 10_000;
/// Conversations of a smith that its tools know.
const MOST_KNOWN: i64 = 200;

type Functions = Arc<[Arc<SendFunction>]>;

/// What is remembered of who may send, for as long as other nodes' changes may take.
pub(super) struct Remembered {
    tenants: moka::future::Cache<Arc<str>, bool>,
    smiths: moka::future::Cache<(Arc<str>, String), Functions>,
}

impl Default for Remembered {
    fn default() -> Self {
        let lasting = || moka::future::Cache::builder().max_capacity(REMEMBERED);
        Self {
            tenants: lasting().time_to_live(TTL).build(),
            smiths: moka::future::Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(TTL)
                .build(),
        }
    }
}

impl Hub {
    async fn functions_of(&self, tenant_id: &str, smith_id: &str) -> Result<Functions, ApiError> {
        let reached = self.store.reached(tenant_id, smith_id, MOST_KNOWN).await?;
        let mut functions = Vec::new();
        for channel in &self.kinds {
            let Some(tool) = channel.send_tool() else {
                continue;
            };
            let mut here = reached.iter().filter(|reach| reach.kind == channel.kind());
            let Some(first) = here.clone().next() else {
                continue;
            };
            let mut known: Vec<String> = Vec::new();
            for identity in here.by_ref().filter_map(|reach| reach.identity.as_deref()) {
                if let Some(to) = channel.addressed(identity)
                    && !known.contains(&to)
                {
                    known.push(to);
                }
            }
            functions.push(Arc::new(SendFunction {
                name: tool.name,
                description: tool.description,
                to: tool.to,
                kind: channel.kind(),
                deployment_id: first.deployment_id.clone(),
                known,
            }));
        }
        Ok(functions.into())
    }
}

#[async_trait]
impl Senders for Hub {
    async fn functions(&self, tenant_id: &Arc<str>, smith_id: &str) -> Result<Functions, ApiError> {
        let told = |error: Arc<ApiError>| ApiError::clone(&error);
        let looked = self.sending.tenants.try_get_with(tenant_id.clone(), async {
            Ok::<_, ApiError>(self.store.has_channels(tenant_id).await?)
        });
        if !looked.await.map_err(told)? {
            return Ok(Arc::default());
        }
        let key = (tenant_id.clone(), smith_id.to_owned());
        let found = self
            .sending
            .smiths
            .try_get_with(key, self.functions_of(tenant_id, smith_id));
        found.await.map_err(told)
    }

    async fn send(&self, function: &SendFunction, call: Sending<'_>) -> Result<String, String> {
        let text = crate::tools::hosted::text(call.arguments, "text")?;
        if text.trim().is_empty() {
            return Err("'text' is empty".to_owned());
        }
        let to = function
            .to(call.arguments)
            .ok_or("'to' says whom to write to")?;
        let channel = self
            .channel(function.kind)
            .ok_or("there is no such channel here")?;
        let destination = channel.destination(to)?;
        let now = now_micros();
        let message = OutboundRow {
            id: ids::derived(ids::Kind::Outbound, call.run_id, call.idempotency_key),
            tenant_id: call.tenant_id.to_owned(),
            smith_id: call.smith_id.to_owned(),
            deployment_id: function.deployment_id.clone(),
            channel: function.kind.to_owned(),
            chat: destination.chat,
            run_id: Some(call.run_id.to_owned()),
            kind: "message".to_owned(),
            reply_to: destination.reply_to.to_string(),
            content: Some(text.to_owned()),
            ..OutboundRow::pending(now)
        };
        let kept = self.store.insert_outbound(&message).await;
        kept.map_err(|_| "the message could not be kept; nothing was sent".to_owned())?;
        self.outgoing.notify_one();
        Ok(json!({ "status": "queued", "delivery_id": message.id, "to": to }).to_string())
    }
}
