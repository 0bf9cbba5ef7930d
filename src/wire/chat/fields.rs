//! The members of a Chat Completions request, and what they mean to a provider of another wire
//! (<https://platform.openai.com/docs/api-reference/chat/create>).

use crate::model::Param;
use crate::wire::fields::{Fields, Means};

pub const FIELDS: Fields = &[
    ("model", Means::Understood),
    ("messages", Means::Understood),
    ("stream", Means::Understood),
    ("stream_options", Means::Understood),
    ("tools", Means::Understood),
    ("tool_choice", Means::Understood),
    ("functions", Means::Understood),
    ("function_call", Means::Understood),
    ("response_format", Means::Understood),
    // A hint where the provider places breakpoints.
    ("cache_control", Means::Understood),
    // Any other number is refused.
    ("n", Means::Understood),
    (
        "parallel_tool_calls",
        Means::Param(Param::ParallelToolCalls),
    ),
    ("temperature", Means::Param(Param::Temperature)),
    ("top_p", Means::Param(Param::TopP)),
    ("top_k", Means::Param(Param::TopK)),
    ("max_completion_tokens", Means::Param(Param::MaxTokens)),
    ("max_tokens", Means::Param(Param::MaxTokens)),
    ("stop", Means::Param(Param::Stop)),
    ("seed", Means::Param(Param::Seed)),
    ("presence_penalty", Means::Param(Param::PresencePenalty)),
    ("frequency_penalty", Means::Param(Param::FrequencyPenalty)),
    ("reasoning_effort", Means::Param(Param::Effort)),
    ("reasoning", Means::Param(Param::Effort)),
    ("thinking", Means::Param(Param::Effort)),
    ("safety_identifier", Means::Param(Param::User)),
    ("user", Means::Param(Param::User)),
    ("verbosity", Means::Param(Param::Verbosity)),
    ("service_tier", Means::Param(Param::ServiceTier)),
    ("prompt_cache_key", Means::Param(Param::PromptCacheKey)),
    ("metadata", Means::Param(Param::Metadata)),
    ("logit_bias", Means::Param(Param::LogitBias)),
    ("logprobs", Means::Nothing),
    ("top_logprobs", Means::Nothing),
    ("modalities", Means::Nothing),
    ("audio", Means::Nothing),
    ("prediction", Means::Nothing),
    ("store", Means::Nothing),
    ("web_search_options", Means::Nothing),
    ("prompt_cache_retention", Means::Nothing),
    ("moderation", Means::Nothing),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::chat::{ChatRequest, decode};
    use crate::wire::fields::tests::walk;

    #[test]
    fn each_member_becomes_what_the_table_says() {
        let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]);
        let basic =
            json!({ "model": "a-model", "messages": [{ "role": "user", "content": "hi" }] });
        let samples = [
            (
                "parallel_tool_calls",
                json!({ "parallel_tool_calls": false, "tools": tools }),
            ),
            ("temperature", json!(0.5)),
            ("top_p", json!(0.5)),
            ("top_k", json!(5)),
            ("max_completion_tokens", json!(77)),
            ("max_tokens", json!(77)),
            ("stop", json!("x")),
            ("seed", json!(7)),
            ("presence_penalty", json!(0.5)),
            ("frequency_penalty", json!(0.5)),
            ("reasoning_effort", json!("high")),
            ("reasoning", json!({ "reasoning": { "effort": "high" } })),
            (
                "thinking",
                json!({ "thinking": { "type": "enabled", "budget_tokens": 9000 } }),
            ),
            ("safety_identifier", json!("u")),
            ("user", json!("u")),
            ("verbosity", json!("low")),
            ("service_tier", json!("default")),
            ("prompt_cache_key", json!("k")),
            ("metadata", json!({ "metadata": { "a": "b" } })),
            ("logit_bias", json!({ "logit_bias": { "50256": -100 } })),
            ("logprobs", json!(true)),
            ("top_logprobs", json!(3)),
            ("modalities", json!(["text"])),
            (
                "audio",
                json!({ "audio": { "voice": "alloy", "format": "wav" } }),
            ),
            (
                "prediction",
                json!({ "prediction": { "type": "content", "content": "x" } }),
            ),
            ("store", json!(true)),
            (
                "web_search_options",
                json!({ "web_search_options": { "search_context_size": "low" } }),
            ),
            ("prompt_cache_retention", json!("24h")),
            ("moderation", json!({ "moderation": { "model": "x" } })),
        ];
        let read = |body: &Value| {
            let request = crate::edge::parse::<ChatRequest>(body.to_string().as_bytes());
            request.and_then(decode).expect("decoded").into_request()
        };
        walk(FIELDS, &basic, &samples, &read);
    }
}
