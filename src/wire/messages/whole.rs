//! A whole answer as one message.

use serde_json::{Value, json};

use super::citations::text_blocks;
use super::thinking::{self, Display};
use super::{begun, stop_details, stop_reason, usage_out};
use crate::frame::Signer;
use crate::model::{Part, arguments_object};
use crate::run::Collected;

/// `message`.
pub fn message(id: &str, model: &str, answer: &Collected, display: Display) -> Value {
    let mut content = Vec::with_capacity(answer.parts.len());
    let mut refusal = String::new();
    let mut parts = answer.parts.iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Text { text } => {
                let mut cited = Vec::new();
                while let Some(Part::Citation { of }) = parts.peek() {
                    cited.push(of);
                    parts.next();
                }
                content.extend(text_blocks(text, &cited));
            }
            Part::Reasoning {
                text,
                signature,
                redacted,
            } if display != Display::Hidden => {
                let signature = match signature {
                    Some(signature) => thinking::written(signature.signer, &signature.value),
                    None => thinking::written(Signer::Chat, ""),
                };
                content.push(match (redacted, display) {
                    (true, _) => json!({ "type": "redacted_thinking", "data": signature }),
                    (false, Display::Shown) => {
                        json!({ "type": "thinking", "thinking": text, "signature": signature })
                    }
                    (false, _) => {
                        json!({ "type": "thinking", "thinking": "", "signature": signature })
                    }
                });
            }
            Part::ToolCall {
                id,
                name,
                arguments,
                ..
            } => content.push(json!({ "type": "tool_use", "id": id, "name": name,
                "input": arguments_object(arguments) })),
            Part::Refusal { text } => refusal.push_str(text),
            _ => {}
        }
    }
    let reason = stop_reason(answer.stop, !refusal.is_empty());
    let mut message = begun(id, model);
    message["content"] = Value::Array(content);
    message["stop_reason"] = json!(reason);
    message["stop_details"] = stop_details(reason, &refusal);
    message["usage"] = usage_out(&answer.usage);
    message
}
