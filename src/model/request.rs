//! The neutral model request, which every client wire decodes to and every provider wire encodes.
//! Turns are also the form in which a thread's transcript is kept.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::frame::Signer;

/// Who says a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    Assistant,
    /// Results of tool calls.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub role: Role,
    pub parts: Vec<Part>,
}

impl Turn {
    /// A turn of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            parts: vec![Part::Text { text: text.into() }],
        }
    }
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    Text {
        text: String,
    },
    Image {
        source: Source,
        /// OpenAI's `detail`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    File {
        source: Source,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Sound: base64 and a format such as `wav`.
    Audio {
        data: String,
        format: String,
    },
    ToolCall {
        id: String,
        name: String,
        /// JSON text, as the model wrote it.
        arguments: String,
        /// Google's thought signature, which its models want back with the call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
        /// Who ran it on this side: an MCP server's name, or `hosted`. `None`: the caller's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<String>,
        /// Whether a human approved it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        approved: bool,
    },
    ToolResult {
        tool_call_id: String,
        content: Vec<Part>,
        #[serde(default)]
        is_error: bool,
    },
    Reasoning {
        text: String,
        /// What its signer wants back with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<Signature>,
        #[serde(default)]
        redacted: bool,
    },
    Refusal {
        text: String,
    },
}

/// What a provider wants back with its own reasoning, unread by anybody else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signature {
    pub signer: Signer,
    /// Anthropic's signature or redacted thinking, Google's thought signature, the JSON text of
    /// OpenAI's reasoning item with its encrypted content.
    pub value: String,
}

impl Signature {
    /// The value, if `signer` made it.
    pub fn of(signature: &Option<Self>, signer: Signer) -> Option<&str> {
        let signature = signature.as_ref().filter(|s| s.signer == signer)?;
        Some(&signature.value)
    }
}

/// Where the bytes of an image or file are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    Url {
        url: String,
    },
    /// Base64.
    Data {
        media_type: String,
        data: String,
    },
    /// A file id at the provider.
    FileId {
        id: String,
    },
}

impl Source {
    /// From a URL; `data:` URLs with base64 become [`Source::Data`], and what is a file's id and no
    /// URL is that.
    pub fn from_url(url: &str) -> Self {
        if (url.starts_with("file-") || url.starts_with("file_")) && !url.contains(':') {
            return Self::FileId { id: url.to_owned() };
        }
        if let Some(rest) = url.strip_prefix("data:")
            && let Some((head, data)) = rest.split_once(',')
            && let Some(media_type) = head.strip_suffix(";base64")
        {
            return Self::Data {
                media_type: media_type.to_owned(),
                data: data.to_owned(),
            };
        }
        Self::Url {
            url: url.to_owned(),
        }
    }

    /// As a URL, `data:` for inline bytes; `None` for a file id.
    pub fn to_url(&self) -> Option<String> {
        match self {
            Self::Url { url } => Some(url.clone()),
            Self::Data { media_type, data } => Some(format!("data:{media_type};base64,{data}")),
            Self::FileId { .. } => None,
        }
    }
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolDef {
    pub name: String,
    pub description: Option<String>,
    /// JSON Schema.
    pub parameters: Value,
    pub strict: Option<bool>,
}

/// Which tools the model may or must call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    Auto,
    None,
    Required,
    Named(String),
}

/// Which form the answer must have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ResponseFormat {
    JsonObject,
    JsonSchema {
        name: String,
        description: Option<String>,
        schema: Value,
        strict: bool,
    },
}

pub use crate::config::Effort;

/// Sampling and limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Params {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub seed: Option<i64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub effort: Option<Effort>,
    /// An id of the end-user, for the provider's abuse handling.
    pub user: Option<String>,
    /// OpenAI's `verbosity`: how long answers are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verbosity: Option<String>,
    /// OpenAI's `service_tier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// OpenAI's `prompt_cache_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
    /// What the caller wants kept beside the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<crate::json::Object>,
    /// Token ids and how much likelier they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<serde_json::Map<String, Value>>,
}

/// One model call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// Set for each target when the call is made.
    pub model: String,
    pub system: Option<String>,
    pub turns: Vec<Turn>,
    pub tools: Vec<ToolDef>,
    pub tool_choice: Option<ToolChoice>,
    pub parallel_tool_calls: Option<bool>,
    pub response_format: Option<ResponseFormat>,
    pub params: Params,
}

impl ModelRequest {
    /// The name of the tool that a call id belongs to, for wires that answer by name.
    pub fn tool_name_of(&self, call_id: &str) -> Option<&str> {
        self.turns
            .iter()
            .flat_map(|t| &t.parts)
            .find_map(|part| match part {
                Part::ToolCall { id, name, .. } if id == call_id => Some(name.as_str()),
                _ => None,
            })
    }
}

/// The texts of `parts`, joined.
pub fn joined_text(parts: &[Part]) -> Cow<'_, str> {
    let mut pieces = parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.as_str()),
        _ => None,
    });
    let mut text = Cow::Borrowed(pieces.next().unwrap_or_default());
    for piece in pieces {
        text.to_mut().push_str(piece);
    }
    text
}

/// A tool call's arguments as a JSON object; text that does not parse comes as `{"_raw": text}`,
/// so that wires that need an object can carry what the model wrote.
pub fn arguments_object(arguments: &str) -> Value {
    if arguments.trim().is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    match serde_json::from_str::<Value>(arguments) {
        Ok(value @ Value::Object(_)) => value,
        Ok(other) => serde_json::json!({ "_raw": other }),
        Err(_) => serde_json::json!({ "_raw": arguments }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_round_trip() {
        let url = "data:image/png;base64,aGk=";
        let source = Source::from_url(url);
        assert!(matches!(&source, Source::Data { media_type, .. } if media_type == "image/png"));
        assert_eq!(source.to_url().as_deref(), Some(url));
        assert!(matches!(
            Source::from_url("https://x/y.png"),
            Source::Url { .. }
        ));
    }

    #[test]
    fn arguments_always_are_an_object() {
        assert_eq!(arguments_object(""), serde_json::json!({}));
        assert_eq!(arguments_object("{\"a\":1}")["a"], 1);
        assert_eq!(arguments_object("{\"a\":")["_raw"], "{\"a\":");
    }
}
