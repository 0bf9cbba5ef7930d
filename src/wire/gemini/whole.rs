//! A whole answer as one response.

use serde_json::{Value, json};

use super::grounding::Grounds;
use super::{blocked, finish_reason, signature, usage_out};
use crate::frame::{Escaped, Signer, StopReason};
use crate::model::provider::Ruler;
use crate::model::{Part, Source, arguments_object, pictures_apart};
use crate::run::Collected;

/// The parts of a text: its words, and the pictures that it shows.
pub(super) fn said(text: &str) -> Vec<Value> {
    let Some(apart) = pictures_apart(text) else {
        return vec![json!({ "text": text })];
    };
    let apart = apart.into_iter().filter_map(|part| match part {
        Part::Text { text } => Some(json!({ "text": text })),
        Part::Image {
            source: Source::Data { media_type, data },
            ..
        } => Some(json!({ "inlineData": { "mimeType": media_type, "data": data } })),
        _ => None,
    });
    apart.collect()
}

/// A call of a function.
pub(super) fn called(id: &str, name: &str, arguments: &str, signature: Option<&str>) -> Value {
    let call = json!({ "id": id, "name": name, "args": arguments_object(arguments) });
    let mut part = json!({ "functionCall": call });
    if let Some(signature) = signature {
        part["thoughtSignature"] = json!(signature);
    }
    part
}

/// `GenerateContentResponse`.
pub fn response(id: &str, model: &str, answer: &Collected, shows_thoughts: bool) -> Value {
    let mut parts: Vec<Value> = Vec::with_capacity(answer.parts.len());
    let mut refusal = String::new();
    let mut grounds = Grounds::default();
    let mut ruler = Ruler::default();
    let mut text_at = 0;
    for part in &answer.parts {
        match part {
            Part::Text { text } => {
                text_at = parts.len();
                ruler = Ruler::default();
                ruler.add(&Escaped::escape(text), false);
                parts.extend(said(text));
            }
            Part::Citation { of } => grounds.add(of, &ruler, text_at),
            Part::Reasoning {
                text,
                signature,
                redacted,
            } => {
                if shows_thoughts && !text.is_empty() {
                    parts.push(json!({ "text": text, "thought": true }));
                }
                let Some(of) = signature else {
                    continue;
                };
                let written = signature::written(of.signer, *redacted, &of.value);
                match parts.last_mut() {
                    // What Google signs is the part itself.
                    Some(last)
                        if of.signer == Signer::Google
                            && last["text"].is_string()
                            && last["thought"].is_null() =>
                    {
                        last["thoughtSignature"] = json!(written);
                    }
                    _ if of.signer == Signer::Google => {
                        parts.push(json!({ "text": "", "thoughtSignature": written }));
                    }
                    _ if shows_thoughts => parts.push(json!({ "text": "", "thought": true,
                        "thoughtSignature": written })),
                    _ => {}
                }
            }
            Part::ToolCall {
                id,
                name,
                arguments,
                signature,
                ..
            } => parts.push(called(id, name, arguments, signature.as_deref())),
            Part::Refusal { text } => refusal.push_str(text),
            _ => {}
        }
    }
    let is_blocked = !refusal.is_empty() || answer.stop == StopReason::ContentFilter;
    let mut response = json!({});
    if parts.is_empty() && is_blocked {
        response["promptFeedback"] = blocked(answer.stop, &refusal);
    } else {
        let mut candidate = json!({
            "content": { "parts": parts, "role": "model" },
            "finishReason": finish_reason(answer.stop, !refusal.is_empty()),
            "index": 0,
        });
        if !refusal.is_empty() {
            candidate["finishMessage"] = json!(refusal);
        }
        if let Some(metadata) = grounds.metadata() {
            candidate["groundingMetadata"] = metadata;
        }
        response["candidates"] = json!([candidate]);
    }
    response["usageMetadata"] = usage_out(&answer.usage);
    response["modelVersion"] = json!(model);
    response["responseId"] = json!(id);
    response
}
