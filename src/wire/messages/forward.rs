//! A request that is passed on to a provider of the same wire: bytes stay as they are, but for the
//! model's name and thinking that Anthropic did not sign.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::MessagesGate;
use super::thinking::{self, MARK};
use crate::config::ProviderWire;
use crate::error::ApiError;
use crate::frame::Usage;
use crate::model::Route;
use crate::model::provider::AnthropicCounts;
use crate::wire::forward::SameWire;
use crate::wire::openai::rewrite::rewrite;

/// The wire's name in metrics.
pub(super) const WIRE: &str = "messages";

pub(super) static SAME_WIRE: SameWire = SameWire {
    wire: WIRE,
    provider_wire: ProviderWire::Anthropic,
    path: |_, _| "/messages".into(),
    headers: &["anthropic-version", "anthropic-beta"],
    answer: "content",
    // Behind a tool's result there may be nothing more to say.
    may_be_empty: true,
    instead: None,
    usage_of_answer,
    gate: |limit, _| Box::new(MessagesGate::new(limit)),
};

/// Whether a call may be passed on to `route` as it is.
pub(super) fn is_same(route: &Route) -> bool {
    route.wire == ProviderWire::Anthropic
}

/// The body for `model`.
pub(super) fn prepared(body: &Bytes, model: &str) -> Result<Bytes, ApiError> {
    Ok(rewrite(&without_foreign(body), model, false)?.body)
}

/// Without thinking that another provider's model did earlier in the conversation: Anthropic refuses
/// the whole request for it.
fn without_foreign(body: &Bytes) -> Bytes {
    if memchr::memmem::find(body, MARK.as_bytes()).is_none() {
        return body.clone();
    }
    let Ok(mut request) = serde_json::from_slice::<Value>(body) else {
        return body.clone();
    };
    let mut is_changed = false;
    if let Some(messages) = request.get_mut("messages").and_then(Value::as_array_mut) {
        messages.retain_mut(|message| {
            let content = message.get_mut("content").and_then(Value::as_array_mut);
            let Some(content) = content else {
                return true;
            };
            let before = content.len();
            content.retain(|block| !thinking::is_foreign(block));
            is_changed |= content.len() < before;
            content.len() == before || !content.is_empty()
        });
    }
    match is_changed {
        true => request.to_string().into(),
        false => body.clone(),
    }
}

/// The usage in a whole answer, if it tells.
pub(super) fn usage_of_answer(body: &Bytes) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Probe {
        usage: Value,
    }
    let probe: Probe = serde_json::from_slice(body).ok()?;
    let mut counts = AnthropicCounts::default();
    counts.add(&probe.usage);
    Some(counts.usage())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_model_is_changed() {
        let body = Bytes::from_static(br#"{ "model":"anthropic/a", "x": 1.50, "messages":[] }"#);
        let sent = prepared(&body, "a").expect("an object");
        assert_eq!(sent, &br#"{ "model":"a", "x": 1.50, "messages":[] }"#[..]);
        assert!(prepared(&Bytes::from_static(b"[]"), "a").is_err());
    }

    #[test]
    fn thinking_of_others_stays_here() {
        let body = serde_json::json!({ "model": "x", "messages": [
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "a", "signature": "smithgate:openai:{}" },
                { "type": "text", "text": "smithgate:" }] },
            { "role": "assistant", "content": [
                { "type": "redacted_thinking", "data": "smithgate:openai:{}" }] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "b", "signature": "own" }] },
        ] });
        let sent = prepared(&body.to_string().into(), "a").expect("an object");
        let sent: Value = serde_json::from_slice(&sent).expect("JSON");
        let messages = sent["messages"].as_array().expect("messages");
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0]["content"][0]["text"], "smithgate:");
        assert_eq!(messages[1]["content"][0]["signature"], "own");
    }

    #[test]
    fn usage_counts_cached_tokens_in() {
        let body = Bytes::from_static(
            br#"{"usage":{"input_tokens":3,"cache_read_input_tokens":4,"output_tokens":5}}"#,
        );
        let usage = usage_of_answer(&body).expect("a usage");
        assert_eq!((usage.input, usage.cache_read, usage.output), (7, 4, 5));
    }
}
