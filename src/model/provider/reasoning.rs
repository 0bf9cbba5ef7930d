//! Reasoning on OpenAI's Chat Completions: providers that think aloud tell it in a member of their
//! own, and those that do want it back in the same one, beside the calls that came of it.
//! Wire facts: `reasoning_content` at DeepSeek, Kimi, GLM, Qwen and vLLM; `reasoning` at Groq,
//! Together and OpenRouter; `reasoning_details` at OpenRouter and MiniMax.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::config::Replay;
use crate::frame::{Escaped, Frame, Signer};
use crate::model::request::{Part, Signature};

/// The member that most providers use.
pub const CONTENT: &str = "reasoning_content";
const REASONING: &str = "reasoning";
const DETAILS: &str = "reasoning_details";
/// More details than this are not kept; their text is.
const MAX_DETAIL_BYTES: usize = 256 * 1024;
const MAX_DETAILS: usize = 1_000;

/// Where reasoning came from: what its [`Signature`] says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// As the configuration names it; empty when a client brought it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    /// The member that it came in.
    pub field: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<Value>>,
}

impl Origin {
    /// What `signature` says, when a provider of this wire made the reasoning.
    pub fn of(signature: &Option<Signature>) -> Option<Self> {
        serde_json::from_str(Signature::of(signature, Signer::Chat)?).ok()
    }

    /// As JSON text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn signature(&self) -> Signature {
        Signature {
            signer: Signer::Chat,
            value: self.to_text(),
        }
    }
}

/// Notes which provider a frame's reasoning is of.
pub fn name_provider(frame: &mut Frame, provider: &str) {
    if let Frame::ReasoningDone {
        signer: Signer::Chat,
        signature,
        ..
    } = frame
        && let Ok(mut origin) = serde_json::from_slice::<Origin>(signature)
        && origin.provider.is_empty()
    {
        provider.clone_into(&mut origin.provider);
        *signature = Bytes::from(origin.to_text());
    }
}

/// The reasoning that a client gives back in a message of its own.
pub fn of_message(content: &Value, reasoning: &Value, details: &Value) -> Option<Part> {
    let details = details.as_array().filter(|list| !list.is_empty());
    let said = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let (field, text) = match (said(content), said(reasoning), details) {
        (Some(text), _, None) => (CONTENT, text),
        (_, Some(text), None) => (REASONING, text),
        (content, reasoning, Some(list)) => {
            let text = content.or(reasoning);
            (DETAILS, text.unwrap_or_else(|| text_of_details(list)))
        }
        (None, None, None) => return None,
    };
    let origin = Origin {
        provider: String::new(),
        field: field.to_owned(),
        details: details.cloned(),
    };
    Some(Part::Reasoning {
        text,
        signature: Some(origin.signature()),
        redacted: false,
    })
}

/// Puts the reasoning of an assistant's `parts` into its message.
pub fn put_back(message: &mut Value, parts: &[Part], replay: Replay) {
    let has_calls = message.get("tool_calls").is_some();
    let goes = match replay {
        Replay::Never => false,
        Replay::WithTools | Replay::Required => has_calls,
        Replay::Always => true,
    };
    if !goes {
        return;
    }
    let (mut text, mut field, mut details) = (String::new(), CONTENT.to_owned(), Vec::new());
    for part in parts {
        if let Part::Reasoning {
            text: piece,
            signature,
            ..
        } = part
        {
            text.push_str(piece);
            if let Some(origin) = Origin::of(signature) {
                if matches!(origin.field.as_str(), CONTENT | REASONING) {
                    field = origin.field;
                }
                details.extend(origin.details.into_iter().flatten());
            }
        }
    }
    if !details.is_empty() {
        message[DETAILS] = Value::Array(details);
    } else if !text.is_empty() || replay == Replay::Required {
        message[field] = json!(text);
    }
}

fn text_of_details(details: &[Value]) -> String {
    let text = |detail: &Value| {
        let text = detail["text"].as_str().or(detail["summary"].as_str());
        text.map(str::to_owned)
    };
    details.iter().filter_map(text).collect()
}

/// What was heard of the reasoning of one answer.
#[derive(Debug, Default)]
pub struct Heard {
    is_open: bool,
    field: Option<&'static str>,
    details: Vec<Value>,
    bytes: usize,
    /// The last event had details, which add up: it is not the same when it comes again.
    adds_up: bool,
}

impl Heard {
    /// Before the next event.
    pub fn next(&mut self) {
        self.adds_up = false;
    }

    /// Whether the last event had details.
    pub fn adds_up(&self) -> bool {
        self.adds_up
    }

    /// Some text came; `in_content`: in `reasoning_content`.
    pub fn text(&mut self, in_content: bool) {
        self.is_open = true;
        self.field = Some(if in_content { CONTENT } else { REASONING });
    }

    /// Details came; gives their text, for where there is no other.
    pub fn details(&mut self, raw: &RawValue) -> Option<Escaped> {
        let pieces: Vec<Value> = serde_json::from_str(raw.get()).ok()?;
        if pieces.is_empty() {
            return None;
        }
        self.is_open = true;
        self.adds_up = true;
        self.bytes += raw.get().len();
        let text = text_of_details(&pieces);
        if self.bytes > MAX_DETAIL_BYTES {
            self.details.clear();
        } else {
            for piece in pieces {
                self.detail(piece);
            }
        }
        (!text.is_empty()).then(|| Escaped::escape(&text))
    }

    /// Pieces of one detail are told by its index, or by nothing.
    fn detail(&mut self, piece: Value) {
        let same =
            |open: &&mut Value| open["index"] == piece["index"] && open["type"] == piece["type"];
        let (Some(open), Some(members)) = (self.details.last_mut().filter(same), piece.as_object())
        else {
            if piece.is_object() && self.details.len() < MAX_DETAILS {
                self.details.push(piece);
            }
            return;
        };
        for (name, value) in members {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("text" | "summary" | "data", Value::String(more)) => {
                    let text = format!("{}{more}", open[name].as_str().unwrap_or_default());
                    open[name] = json!(text);
                }
                _ => open[name] = value.clone(),
            }
        }
    }

    /// Called when something else comes: the end of what was heard, once.
    pub fn end(&mut self) -> Option<Frame> {
        if !std::mem::take(&mut self.is_open) {
            return None;
        }
        let details = std::mem::take(&mut self.details);
        let origin = Origin {
            provider: String::new(),
            field: match details.is_empty() {
                true => self.field.unwrap_or(CONTENT),
                false => DETAILS,
            }
            .to_owned(),
            details: (!details.is_empty()).then_some(details),
        };
        Some(Frame::ReasoningDone {
            signer: Signer::Chat,
            signature: Bytes::from(origin.to_text()),
            redacted: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(value: Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).expect("JSON")
    }

    #[test]
    fn details_are_put_together_and_go_back_whole() {
        let mut heard = Heard::default();
        let piece = |text: &str| json!([{ "type": "reasoning.text", "index": 0, "text": text }]);
        let text = heard.details(&raw(piece("I need ")));
        assert_eq!(
            text.map(|t| t.as_str().into_owned()).as_deref(),
            Some("I need ")
        );
        heard.details(&raw(piece("the weather.")));
        heard.details(&raw(
            json!([{ "type": "reasoning.text", "index": 0, "signature": "s" }]),
        ));
        heard.details(&raw(
            json!([{ "type": "reasoning.encrypted", "index": 1, "data": "x" }]),
        ));
        let mut frame = heard.end().expect("it ended");
        assert!(heard.end().is_none());
        name_provider(&mut frame, "minimax");
        let Frame::ReasoningDone { signature, .. } = frame else {
            panic!("{frame:?}");
        };
        let signature = Some(Signature {
            signer: Signer::Chat,
            value: String::from_utf8(signature.to_vec()).expect("text"),
        });
        assert_eq!(
            Origin::of(&signature).expect("an origin").provider,
            "minimax"
        );
        let mut message = json!({ "tool_calls": [] });
        let part = Part::Reasoning {
            text: "I need the weather.".into(),
            signature,
            redacted: false,
        };
        put_back(&mut message, &[part], Replay::WithTools);
        assert_eq!(
            message["reasoning_details"],
            json!([
                { "type": "reasoning.text", "index": 0, "text": "I need the weather.", "signature": "s" },
                { "type": "reasoning.encrypted", "index": 1, "data": "x" },
            ])
        );
    }

    #[test]
    fn reasoning_goes_back_in_its_member_and_only_where_it_is_taken() {
        let given = |field: &str| {
            let (content, reasoning) = match field {
                CONTENT => (json!("hm"), Value::Null),
                _ => (Value::Null, json!("hm")),
            };
            of_message(&content, &reasoning, &Value::Null).expect("reasoning")
        };
        for field in [CONTENT, REASONING] {
            let parts = [given(field)];
            let mut message = json!({ "tool_calls": [] });
            put_back(&mut message, &parts, Replay::WithTools);
            assert_eq!(message, json!({ "tool_calls": [], field: "hm" }));
            let mut message = json!({ "content": "x" });
            put_back(&mut message, &parts, Replay::WithTools);
            assert_eq!(message, json!({ "content": "x" }));
            put_back(&mut message, &parts, Replay::Always);
            assert_eq!(message[field], "hm");
            let mut message = json!({ "tool_calls": [] });
            put_back(&mut message, &parts, Replay::Never);
            assert_eq!(message, json!({ "tool_calls": [] }));
        }
        let mut message = json!({ "tool_calls": [] });
        put_back(&mut message, &[], Replay::Required);
        assert_eq!(message[CONTENT], "");
        assert!(of_message(&json!(""), &Value::Null, &json!([])).is_none());
    }
}
