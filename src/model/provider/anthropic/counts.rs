//! Anthropic's counts of tokens, which a stream tells in several events: cached tokens stand beside
//! those of the input, not among them.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::frame::Usage;
use crate::lenient::{self, aside};

#[derive(Default, Deserialize)]
struct WireUsage {
    #[serde(default, deserialize_with = "lenient::count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_read_input_tokens: Option<u64>,
    /// By how long it is kept.
    #[serde(default, deserialize_with = "lenient::details")]
    cache_creation: CacheCreation,
    #[serde(default, deserialize_with = "lenient::details")]
    output_tokens_details: OutputDetails,
    /// The names of another wire, of servers that speak both.
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    completion_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "lenient::count")]
    thinking_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct CacheCreation {
    #[serde(default, deserialize_with = "lenient::count")]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    ephemeral_1h_input_tokens: Option<u64>,
}

/// What one answer has told so far.
#[derive(Debug, Default)]
pub struct Counts {
    uncached_input: u64,
    usage: Usage,
}

impl Counts {
    /// Takes in the `usage` of an event, or of a whole message.
    pub fn add(&mut self, usage: &Value) {
        if let Ok(wire) = WireUsage::deserialize(usage) {
            self.count(&wire);
        }
    }

    pub(super) fn add_raw(&mut self, raw: Option<&RawValue>) {
        if let Some(wire) = aside::<WireUsage>(raw) {
            self.count(&wire);
        }
    }

    fn count(&mut self, wire: &WireUsage) {
        // Counts grow; at the end some say nought of what they told at the beginning.
        let counted = |count: Option<u64>| count.filter(|count| *count > 0);
        if let Some(input) = counted(wire.input_tokens).or(counted(wire.prompt_tokens)) {
            self.uncached_input = input;
        }
        if let Some(output) = counted(wire.output_tokens).or(counted(wire.completion_tokens)) {
            self.usage.output = output;
        }
        let kept = &wire.cache_creation;
        let kept = [
            kept.ephemeral_5m_input_tokens,
            kept.ephemeral_1h_input_tokens,
        ];
        let kept = kept.into_iter().flatten().sum();
        let written = counted(wire.cache_creation_input_tokens);
        if let Some(written) = written.or(counted(Some(kept))) {
            self.usage.cache_write = written;
        }
        if let Some(read) = counted(wire.cache_read_input_tokens) {
            self.usage.cache_read = read;
        }
        if let Some(thinking) = counted(wire.output_tokens_details.thinking_tokens) {
            self.usage.reasoning = thinking;
        }
        self.usage.input = self.uncached_input + self.usage.cache_read + self.usage.cache_write;
    }

    /// In our meaning.
    pub fn usage(&self) -> Usage {
        self.usage
    }
}
