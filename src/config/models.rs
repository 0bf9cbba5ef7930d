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
    pub aliases: BTreeMap<String, Alias>,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            default: None,
            embedding: Some("openai/text-embedding-3-small".to_owned()),
            bare_ids: true,
            aliases: BTreeMap::new(),
        }
    }
}

/// A name for an ordered list of targets; the next is tried when one fails before the first piece of
/// its content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    pub targets: Vec<Target>,
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
