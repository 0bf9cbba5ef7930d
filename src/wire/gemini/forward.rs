//! A request that is passed on to a provider of the same wire: bytes stay as they are, but for thought
//! signatures that Google did not make. The model's name is in the path alone.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::signature::{self, MARK};
use super::{Form, GeminiGate};
use crate::config::ProviderWire;
use crate::edge::check_shape;
use crate::error::ApiError;
use crate::frame::Usage;
use crate::model::Route;
use crate::model::provider::{self, gemini_usage};
use crate::wire::forward::SameWire;
use crate::wire::openai::rewrite::without_ours;

/// The wire's name in metrics.
pub(super) const WIRE: &str = "gemini";

/// What Google documents to stand for a signature that is not known.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

pub(super) static EVENTS: SameWire = SameWire {
    wire: WIRE,
    provider_wire: ProviderWire::Gemini,
    path,
    headers: &[],
    answer: "candidates",
    may_be_empty: false,
    instead: Some("promptFeedback"),
    usage_of_answer,
    gate: |limit, _| Box::new(GeminiGate::new(limit, Form::Events)),
};

/// Where the client reads a stream as a list. The provider is asked for events all the same.
pub(super) static LIST: SameWire = SameWire {
    wire: WIRE,
    provider_wire: ProviderWire::Gemini,
    path,
    headers: &[],
    answer: "candidates",
    may_be_empty: false,
    instead: Some("promptFeedback"),
    usage_of_answer,
    gate: |limit, _| Box::new(GeminiGate::new(limit, Form::List)),
};

fn path(route: &Route, stream: bool) -> Cow<'static, str> {
    let api = provider::api(ProviderWire::Gemini);
    Cow::Owned(api.path(&route.model, stream))
}

/// Whether a call may be passed on to `route` as it is.
pub(super) fn is_same(route: &Route) -> bool {
    route.wire == ProviderWire::Gemini
}

/// The body without signatures of thoughts that another provider's model had earlier in the
/// conversation: Google refuses the whole request for one.
pub(super) fn prepared(body: &Bytes) -> Result<Bytes, ApiError> {
    check_shape(body)?;
    let body = &without_ours(body);
    if memchr::memmem::find(body, MARK.as_bytes()).is_none() {
        return Ok(body.clone());
    }
    let Ok(mut request) = serde_json::from_slice::<Value>(body) else {
        return Ok(body.clone());
    };
    let Some(contents) = request.get_mut("contents").and_then(Value::as_array_mut) else {
        return Ok(body.clone());
    };
    let mut is_changed = false;
    contents.retain_mut(|content| {
        let parts = content.get_mut("parts").and_then(Value::as_array_mut);
        let Some(parts) = parts else {
            return true;
        };
        let before = parts.len();
        parts.retain_mut(|part| !is_foreign_thought(part, &mut is_changed));
        parts.len() == before || !parts.is_empty()
    });
    Ok(match is_changed {
        true => request.to_string().into(),
        false => body.clone(),
    })
}

/// Whether a part is a thought that Google did not sign; takes such a signature off any other.
fn is_foreign_thought(part: &mut Value, is_changed: &mut bool) -> bool {
    let Value::Object(members) = part else {
        return false;
    };
    let names = ["thoughtSignature", "thought_signature"];
    let signed = names.into_iter().find(|name| {
        let signature = members.get(*name).and_then(Value::as_str);
        signature.is_some_and(signature::is_foreign)
    });
    let Some(name) = signed else {
        return false;
    };
    *is_changed = true;
    if members
        .get("thought")
        .is_some_and(|thought| *thought == true)
    {
        return true;
    }
    if members.contains_key("functionCall") || members.contains_key("function_call") {
        members.insert(name.to_owned(), json!(NO_SIGNATURE));
    } else {
        members.shift_remove(name);
    }
    false
}

/// The usage in a whole answer, if it tells.
pub(super) fn usage_of_answer(body: &Bytes) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow, rename = "usageMetadata", alias = "usage_metadata")]
        usage: &'a RawValue,
    }
    let probe: Probe<'_> = serde_json::from_slice(body).ok()?;
    gemini_usage(probe.usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Signer;

    #[test]
    fn a_body_stays_as_it_is() {
        let body = Bytes::from_static(br#"{ "x": 1.50, "contents":[] }"#);
        let sent = prepared(&body).expect("an object");
        assert_eq!(sent, body);
        assert!(prepared(&Bytes::from_static(b"[]")).is_err());
    }

    #[test]
    fn thoughts_of_others_stay_here() {
        let foreign = signature::written(Signer::OpenAi, false, "{}").into_owned();
        let body = json!({ "contents": [
            { "role": "model", "parts": [
                { "text": "a", "thought": true, "thoughtSignature": foreign },
                { "text": "b", "thoughtSignature": foreign },
                { "functionCall": { "name": "f" }, "thoughtSignature": foreign },
                { "text": "c", "thoughtSignature": "c2ln" }] },
            { "role": "model", "parts": [{ "text": "", "thought": true, "thoughtSignature": foreign }] },
        ] });
        let sent = prepared(&body.to_string().into()).expect("an object");
        let sent: Value = serde_json::from_slice(&sent).expect("JSON");
        assert_eq!(
            sent["contents"],
            json!([{ "role": "model", "parts": [
                { "text": "b" },
                { "functionCall": { "name": "f" }, "thoughtSignature": NO_SIGNATURE },
                { "text": "c", "thoughtSignature": "c2ln" }] }])
        );
    }

    #[test]
    fn usage_counts_thoughts_in() {
        let body = Bytes::from_static(
            br#"{"usageMetadata":{"promptTokenCount":7,"cachedContentTokenCount":4,
                "candidatesTokenCount":2,"thoughtsTokenCount":3}}"#,
        );
        let usage = usage_of_answer(&body).expect("a usage");
        assert_eq!((usage.input, usage.cache_read, usage.output), (7, 4, 5));
    }
}
