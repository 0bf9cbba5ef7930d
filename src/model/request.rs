//! The neutral model request, which every client wire decodes to and every provider wire encodes.
//! Turns are also the form in which a thread's transcript is kept.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::media_type;
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
        /// OpenAI's `detail`: how closely it is looked at. Anthropic and Gemini have no place for it
        /// in an image, and are not told.
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
    /// What the text before it rests on, see [`crate::frame::citation`]; its places count characters
    /// of that text. It goes to clients, not back to models.
    Citation {
        of: Value,
    },
    /// Who of several people (or agents) says the turn.
    Name {
        name: String,
    },
    /// The caller wants what stands before this to be kept by the provider, see [`Caching`].
    CacheHere {
        /// How long, as Anthropic spells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl: Option<String>,
    },
}

impl Part {
    /// Whether it is an image, a file or a sound.
    pub fn is_media(&self) -> bool {
        matches!(
            self,
            Self::Image { .. } | Self::File { .. } | Self::Audio { .. }
        )
    }
}

/// What a provider should keep of a request for the next one that begins alike. Only Anthropic has
/// to be told; [`Part::CacheHere`] says so among the parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Caching {
    /// The places are chosen here.
    pub is_automatic: bool,
    /// Behind so many bytes of the system text, and for how long.
    pub system: Vec<(usize, Option<String>)>,
    /// Behind the tools of these names, and for how long.
    pub tools: Vec<(String, Option<String>)>,
}

impl Caching {
    /// The mark of a `cache_control` member.
    pub fn mark(control: &Value) -> Option<Option<String>> {
        control
            .is_object()
            .then(|| control["ttl"].as_str().map(str::to_owned))
    }
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
    /// From a URL; `data:` URLs become [`Source::Data`], and what is a file's id and no URL is that.
    pub fn from_url(url: &str) -> Self {
        if (url.starts_with("file-") || url.starts_with("file_")) && !url.contains(':') {
            return Self::FileId { id: url.to_owned() };
        }
        let bare = || media_type::bare_image(url);
        match media_type::data_url(url).or_else(bare) {
            Some((media_type, data)) => Self::Data { media_type, data },
            None => Self::Url {
                url: url.to_owned(),
            },
        }
    }

    /// From what should be a `data:` URL and is often bare base64 of a file of this name.
    pub fn from_file_data(data: &str, name: Option<&str>) -> Self {
        match data.contains(':') {
            true => Self::from_url(data),
            false => {
                let named = name.and_then(media_type::type_of);
                Self::from_data(named.unwrap_or("application/octet-stream"), data.to_owned())
            }
        }
    }

    /// From base64 and what it is said to be; of images their first bytes tell what they are, as
    /// labels are often wrong, and providers refuse what does not match.
    pub fn from_data(media_type: &str, data: String) -> Self {
        let (media_type, data) = media_type::data(media_type, data);
        Self::Data { media_type, data }
    }

    /// What it is, as far as that is told.
    pub fn media_type(&self) -> Option<&str> {
        match self {
            Self::Data { media_type, .. } => Some(media_type),
            Self::Url { url } => media_type::type_of(url),
            Self::FileId { .. } => None,
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
    /// How many of the likeliest tokens are chosen from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
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
    #[serde(default)]
    pub caching: Caching,
    /// A target that has no place for a parameter is not asked.
    #[serde(skip)]
    pub loses_nothing: bool,
}

/// Takes the marks of [`Part::CacheHere`] away, where turns are kept: for what is kept, the places are
/// chosen here.
pub fn unmark(turns: &mut [Turn]) {
    let is_mark = |part: &Part| matches!(part, Part::CacheHere { .. });
    for turn in turns {
        turn.parts.retain(|part| !is_mark(part));
        for part in &mut turn.parts {
            if let Part::ToolResult { content, .. } = part {
                content.retain(|part| !is_mark(part));
            }
        }
    }
}

/// The texts of `parts`, joined.
pub fn joined_text(parts: &[Part]) -> Cow<'_, str> {
    joined(parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.as_str()),
        _ => None,
    }))
}

/// What a person reads of an answer, where a refusal has no place of its own.
pub fn said_text(parts: &[Part]) -> Cow<'_, str> {
    joined(parts.iter().filter_map(|part| match part {
        Part::Text { text } | Part::Refusal { text } => Some(text.as_str()),
        _ => None,
    }))
}

fn joined<'a>(mut pieces: impl Iterator<Item = &'a str>) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(pieces.next().unwrap_or_default());
    for piece in pieces {
        text.to_mut().push_str(piece);
    }
    text
}

/// The same, for those who see text alone: what is none is named in its place.
pub fn shown_text(parts: &[Part]) -> Cow<'_, str> {
    if !parts.iter().any(Part::is_media) {
        return joined_text(parts);
    }
    let shown = parts.iter().map(|part| match part {
        Part::Text { text } => text.clone(),
        Part::Image { source, .. } => match source {
            Source::Url { url } => format!("![image]({url})"),
            _ => "[image]".to_owned(),
        },
        Part::File { source, name } => match (source, name) {
            (Source::Url { url }, _) => format!("[file]({url})"),
            (_, Some(name)) => format!("[file: {name}]"),
            _ => "[file]".to_owned(),
        },
        Part::Audio { .. } => "[audio]".to_owned(),
        _ => String::new(),
    });
    Cow::Owned(
        shown
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

/// A tool call's arguments as a JSON object; text that does not parse comes as `{"_raw": text}`,
/// so that wires that need an object can carry what the model wrote.
pub fn arguments_object(arguments: &str) -> Value {
    if crate::untrusted::is_too_deep(arguments.as_bytes()) {
        return serde_json::json!({ "_raw": arguments });
    }
    if arguments.trim().is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    match serde_json::from_str::<Value>(arguments) {
        Ok(value @ Value::Object(_)) => value,
        // An object whose text was put into a text once more.
        Ok(Value::String(text)) if text.trim_start().starts_with('{') => {
            match serde_json::from_str::<Value>(&text) {
                Ok(value @ Value::Object(_)) => value,
                _ => serde_json::json!({ "_raw": text }),
            }
        }
        Ok(other) => serde_json::json!({ "_raw": other }),
        Err(_) => serde_json::json!({ "_raw": arguments }),
    }
}

/// Arguments as a text that is JSON: those of a call that was cut are none, and many servers refuse
/// the whole conversation for that.
pub fn arguments_text(arguments: &str) -> Cow<'_, str> {
    match serde_json::from_str::<serde::de::IgnoredAny>(arguments) {
        Ok(_) => Cow::Borrowed(arguments),
        Err(_) => Cow::Owned(arguments_object(arguments).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_are_cut_are_still_json() {
        for (arguments, sent) in [
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("[1]", "[1]"),
            ("", "{}"),
            ("{\"a\":\"x", "{\"_raw\":\"{\\\"a\\\":\\\"x\"}"),
        ] {
            assert_eq!(arguments_text(arguments), sent);
        }
    }

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
