//! Models and their providers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model_rules::ModelRule;

/// Which models exist under which names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// The model of smiths whose configuration names none.
    pub default: Option<String>,
    /// The model of embeddings that name none, and of new vector stores.
    pub embedding: Option<String>,
    /// Whether a call without a smith may name a model by its bare id, as providers do; else it is
    /// refused with `smith_required`, as the hosted service does.
    pub bare_ids: bool,
    /// Headers of callers that providers are told beside those of their wire, in small letters.
    pub forward_headers: Vec<String>,
    /// Whether what providers keep for an account (batches, uploads, all that is passed through) can be
    /// reached.
    pub passthrough: Passthrough,
    /// Room in memory for answers that are kept, in bytes.
    pub cache_bytes: u64,
    pub aliases: BTreeMap<String, Alias>,
}

/// Who reaches what providers keep for an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passthrough {
    Off,
    /// Projects, with a key of their own.
    #[default]
    OwnKeys,
    /// All, with the operator's keys too: what one keeps there, all others see.
    All,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            default: None,
            embedding: Some("openai/text-embedding-3-small".to_owned()),
            bare_ids: true,
            forward_headers: Vec::new(),
            passthrough: Passthrough::default(),
            cache_bytes: 64 * 1024 * 1024,
            aliases: BTreeMap::new(),
        }
    }
}

/// Headers that are never told on: what proves who somebody is, what the gateway writes itself, and what
/// is of one connection (RFC 9110, section 7.6.1).
const NEVER_FORWARDED: [&str; 20] = [
    "accept",
    "accept-encoding",
    "api-key",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-goog-api-key",
];

/// Why a header cannot be told on; `None`: it can.
pub fn cannot_forward(name: &str) -> Option<&'static str> {
    let is_name = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
    match name {
        _ if !is_name || name.chars().any(|letter| letter.is_ascii_uppercase()) => {
            Some("is no header's name in small letters")
        }
        _ if NEVER_FORWARDED.contains(&name) || name.starts_with("ic-") => {
            Some("is a header that is never told on")
        }
        _ => None,
    }
}

/// A name for an ordered list of targets; the next is tried when one fails before the first piece of
/// its content.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    pub targets: Vec<Target>,
    /// For how long an answer to a call without a smith is kept, and given again to the very same call of
    /// the same project, in seconds. 0: not at all, unless a call asks for it.
    #[serde(default)]
    pub cache_seconds: u64,
}

/// One target of an alias.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `<provider>/<model>`.
    pub model: String,
    /// Repeats on this target before the next one is tried.
    #[serde(default)]
    pub retries: u32,
    /// Time until the first byte, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// A provider that the operator defines for all tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    pub wire: ProviderWire,
    /// Up to and with the version segment, for example `https://api.openai.com/v1`.
    pub base_url: String,
    /// A key for all tenants ("hosted"); tenants' own keys come first.
    #[serde(default)]
    pub api_key: Option<String>,
    /// Whether calls need a key at all.
    #[serde(default = "yes")]
    pub needs_key: bool,
    /// Model ids to list in `GET /v1/models`.
    #[serde(default)]
    pub models: Vec<String>,
    /// Whether `stream_options.include_usage` may be sent to it.
    #[serde(default = "yes")]
    pub stream_usage: bool,
    /// Whether it speaks OpenAI's Responses too, beside Chat Completions and under the same base
    /// URL, so that calls on that wire are passed on.
    #[serde(default)]
    pub responses: bool,
    /// Another provider's name whose keys serve this one too.
    #[serde(default)]
    pub keys_of: Option<String>,
    /// The header that carries the key as it is, for example `api-key` at Azure; else the wire's
    /// own.
    #[serde(default)]
    pub auth_header: Option<String>,
    /// What its models take, where that is not what is known of them.
    #[serde(default)]
    pub rules: Vec<ModelRule>,
}

/// The wire that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderWire {
    OpenaiChat,
    OpenaiResponses,
    Anthropic,
    Gemini,
}

fn yes() -> bool {
    true
}
