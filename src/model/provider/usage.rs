//! What an answer says of tokens, on OpenAI's wires. Servers that speak them count in the names of
//! each other and of other wires, and do not agree on what is within what; what must come out is in
//! [`Usage`]: input with all that a cache read or wrote of it, output with all that was reasoned.

use serde::Deserialize;
use serde_json::Value;

use crate::frame::Usage;
use crate::lenient;

/// The member `usage`.
#[derive(Debug, Default, Deserialize)]
pub struct WireUsage {
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    total_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::details")]
    prompt_tokens_details: Details,
    #[serde(default, deserialize_with = "lenient::details")]
    input_tokens_details: Details,
    #[serde(default, deserialize_with = "lenient::details")]
    completion_tokens_details: Details,
    #[serde(default, deserialize_with = "lenient::details")]
    output_tokens_details: Details,
    /// Moonshot's.
    #[serde(default, deserialize_with = "lenient::count")]
    cached_tokens: Option<u64>,
    /// DeepSeek's.
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_cache_hit_tokens: Option<u64>,
    /// Anthropic's names, of gateways before it.
    #[serde(default, deserialize_with = "lenient::count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    reasoning_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "lenient::count")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_write_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    cache_creation_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    reasoning_tokens: Option<u64>,
}

/// The first that counts something: under names that are not theirs servers say nought.
fn first<const N: usize>(counts: [Option<u64>; N]) -> u64 {
    let mut counts = counts.into_iter().flatten();
    counts.find(|count| *count > 0).unwrap_or(0)
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let (asked, asked_too) = (&wire.prompt_tokens_details, &wire.input_tokens_details);
        let (said, said_too) = (&wire.completion_tokens_details, &wire.output_tokens_details);
        let cache_read = first([
            asked.cached_tokens,
            asked_too.cached_tokens,
            wire.cached_tokens,
            wire.prompt_cache_hit_tokens,
            wire.cache_read_input_tokens,
        ]);
        let cache_write = first([
            asked.cache_write_tokens,
            asked_too.cache_write_tokens,
            asked.cache_creation_tokens,
            asked_too.cache_creation_tokens,
            wire.cache_creation_input_tokens,
        ]);
        let mut reasoning = first([
            said.reasoning_tokens,
            said_too.reasoning_tokens,
            wire.reasoning_tokens,
        ]);
        let mut input = first([wire.prompt_tokens, wire.input_tokens]);
        let mut output = first([wire.completion_tokens, wire.output_tokens]);
        let total = wire.total_tokens.unwrap_or(0);
        let cached = cache_read + cache_write;
        // As Anthropic counts: what went through a cache is beside the rest.
        if cached > input || (cached > 0 && total == input + output + cached) {
            input += cached;
        }
        let beside = total.saturating_sub(input + output);
        if reasoning > 0 && (beside == reasoning || reasoning > output) {
            // As xAI counts: what was reasoned is beside what was said.
            output += reasoning;
        } else if reasoning == 0 && input > 0 && output > 0 {
            // As Google counts on this wire: thoughts are told in the total alone.
            reasoning = beside;
            output += beside;
        }
        Self {
            input,
            output,
            cache_read,
            cache_write,
            reasoning,
        }
    }
}

/// The usage that a chunk of Chat Completions, or a whole answer, tells: in its place, in a choice
/// as Moonshot does, or in a member of Groq's.
pub fn usage_in_chunk(chunk: &Value) -> Option<Usage> {
    let in_choices = chunk["choices"].as_array().into_iter().flatten();
    let places = std::iter::once(&chunk["usage"])
        .chain(in_choices.map(|choice| &choice["usage"]))
        .chain(std::iter::once(&chunk["x_groq"]["usage"]));
    let mut told = places.filter(|usage| usage.is_object());
    WireUsage::deserialize(told.next()?).ok().map(Usage::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Input, output, read from a cache, written to it, reasoned.
    fn counts(usage: Value) -> [u64; 5] {
        let usage = WireUsage::deserialize(usage).expect("read");
        let usage = Usage::from(usage);
        [
            usage.input,
            usage.output,
            usage.cache_read,
            usage.cache_write,
            usage.reasoning,
        ]
    }

    #[test]
    fn everybody_counts_in_names_of_their_own() {
        let base = json!({ "prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105 });
        let with = |more: Value| {
            let mut usage = base.clone();
            let members = usage.as_object_mut().expect("an object");
            members.extend(more.as_object().expect("an object").clone());
            counts(usage)
        };
        assert_eq!(with(json!({})), [100, 5, 0, 0, 0]);
        for cached in [
            json!({ "prompt_tokens_details": { "cached_tokens": 80 } }),
            json!({ "prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20 }),
            json!({ "cached_tokens": 80, "prompt_tokens_details": null }),
            json!({ "cache_read_input_tokens": 80, "prompt_tokens_details": { "cached_tokens": 0 } }),
        ] {
            assert_eq!(with(cached.clone()), [100, 5, 80, 0, 0], "{cached}");
        }
        let written =
            json!({ "prompt_tokens_details": { "cached_tokens": 50, "cache_write_tokens": 30 } });
        assert_eq!(with(written), [100, 5, 50, 30, 0]);
        assert_eq!(
            counts(json!({ "input_tokens": 7, "output_tokens": 3, "prompt_tokens": 0 })),
            [7, 3, 0, 0, 0]
        );
        assert_eq!(
            counts(
                json!({ "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115,
                "cache_read_input_tokens": 80, "cache_creation_input_tokens": 20 })
            ),
            [110, 5, 80, 20, 0]
        );
    }

    #[test]
    fn what_is_reasoned_is_output_once() {
        let counts = |total: u64, reasoned: u64| {
            let usage = counts(json!({ "prompt_tokens": 32, "completion_tokens": 9,
                "total_tokens": total, "completion_tokens_details": { "reasoning_tokens": reasoned } }));
            (usage[1], usage[4])
        };
        assert_eq!(counts(41, 4), (9, 4));
        assert_eq!(counts(0, 4), (9, 4));
        assert_eq!(counts(135, 94), (103, 94));
        assert_eq!(counts(41, 94), (103, 94));
        assert_eq!(counts(135, 0), (103, 94));
        assert_eq!(counts(7, 0), (9, 0));
    }

    #[test]
    fn it_stands_in_several_places() {
        let usage = json!({ "prompt_tokens": 7, "completion_tokens": 3 });
        for chunk in [
            json!({ "usage": usage, "choices": [] }),
            json!({ "usage": null, "choices": [{ "usage": usage }] }),
            json!({ "x_groq": { "id": "r", "usage": usage }, "choices": [{ "delta": {} }] }),
        ] {
            let found = usage_in_chunk(&chunk).map(|usage| (usage.input, usage.output));
            assert_eq!(found, Some((7, 3)), "{chunk}");
        }
        assert_eq!(
            usage_in_chunk(&json!({ "usage": "none", "x_groq": 7 })),
            None
        );
    }
}
