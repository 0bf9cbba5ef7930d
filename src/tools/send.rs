//! Tools by which a smith speaks over channels by itself. Where to, and how, is the channels' to know.

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// Longest text that is sent, in bytes.
const MAX_TEXT: usize = 64 * 1024;
const MAX_TO: usize = 320;

/// What a smith sends with, over one channel.
#[derive(Debug)]
pub struct SendFunction {
    pub name: &'static str,
    pub description: &'static str,
    /// What the argument `to` is.
    pub to: &'static str,
    /// The channel.
    pub kind: &'static str,
    pub deployment_id: String,
    /// Those that the smith talks to already, the latest first: others are written to when a human has
    /// approved it.
    pub known: Vec<String>,
}

impl SendFunction {
    /// Where a call sends to: whom it names, else the latest that the smith talks to.
    pub fn to<'a>(&'a self, arguments: &'a Map<String, Value>) -> Option<&'a str> {
        let named = arguments.get("to").and_then(Value::as_str).map(str::trim);
        let named = named.filter(|to| !to.is_empty());
        named.or_else(|| self.known.first().map(String::as_str))
    }

    /// Whether a call sends to somebody whom the smith talks to already.
    pub fn is_known(&self, arguments: &Map<String, Value>) -> bool {
        let to = self.to(arguments);
        to.is_some_and(|to| {
            self.known
                .iter()
                .any(|known| known.eq_ignore_ascii_case(to))
        })
    }

    pub(super) fn parameters(&self) -> Value {
        let known = match self.known.is_empty() {
            true => String::new(),
            false => format!(
                " Left out: {}. A human approves messages to anybody else than: {}.",
                self.known[0],
                self.known
                    .iter()
                    .take(20)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        let required: &[&str] = match self.known.is_empty() {
            true => &["to", "text"],
            false => &["text"],
        };
        json!({ "type": "object", "required": required, "additionalProperties": false,
            "properties": {
                "text": { "type": "string", "minLength": 1, "maxLength": MAX_TEXT,
                    "description": "What is sent, in Markdown" },
                "to": { "type": "string", "maxLength": MAX_TO,
                    "description": format!("{}.{known}", self.to) },
            } })
    }
}

/// A call that sends.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    pub tenant_id: &'a str,
    pub smith_id: &'a str,
    pub run_id: &'a str,
    /// The same for each attempt of this call, and for no other call.
    pub idempotency_key: &'a str,
    pub arguments: &'a Map<String, Value>,
}

/// Channels, which live above this module.
#[async_trait]
pub trait Senders: Send + Sync {
    /// What a smith sends with.
    async fn functions(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &str,
    ) -> Result<Arc<[Arc<SendFunction>]>, ApiError>;

    /// Puts a message into the outbox, once for a call's idempotency key; the error is told to the model.
    async fn send(&self, function: &SendFunction, sending: Sending<'_>) -> Result<String, String>;
}

/// Where channels are found once they are there.
#[derive(Clone, Default)]
pub struct SendersSlot(Arc<OnceLock<Weak<dyn Senders>>>);

impl SendersSlot {
    /// Puts them there; the first counts.
    pub fn set(&self, senders: Weak<dyn Senders>) {
        let _ = self.0.set(senders);
    }

    /// They, while they are there.
    pub(super) fn get(&self) -> Option<Arc<dyn Senders>> {
        self.0.get().and_then(Weak::upgrade)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn whoever_is_known_is_written_to_without_asking() {
        let function = SendFunction {
            name: "telegram_send_message",
            description: "",
            to: "A chat",
            kind: "telegram",
            deployment_id: String::new(),
            known: vec!["5".to_owned(), "7".to_owned()],
        };
        let is_known = |value: Value| function.is_known(&arguments(value));
        assert!(
            is_known(json!({})) && is_known(json!({ "to": "7" })) && is_known(json!({ "to": " " }))
        );
        assert!(!is_known(json!({ "to": "8" })));
        assert_eq!(function.to(&arguments(json!({}))), Some("5"));
        assert_eq!(function.parameters()["required"], json!(["text"]));
    }
}
