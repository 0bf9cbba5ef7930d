//! The members of a Responses request, and what they mean to a provider of another wire
//! (<https://platform.openai.com/docs/api-reference/responses/create>).

use crate::model::Param;
use crate::wire::fields::{Fields, Means};

pub const FIELDS: Fields = &[
    ("model", Means::Understood),
    ("input", Means::Understood),
    ("instructions", Means::Understood),
    ("stream", Means::Understood),
    ("stream_options", Means::Understood),
    ("tools", Means::Understood),
    ("tool_choice", Means::Understood),
    ("text", Means::Understood),
    ("include", Means::Understood),
    // Without a smith nothing is kept, which the answer says, and these are refused.
    ("store", Means::Understood),
    ("background", Means::Understood),
    ("conversation", Means::Understood),
    ("previous_response_id", Means::Understood),
    ("prompt", Means::Understood),
    // A hint where the provider places breakpoints.
    ("cache_control", Means::Understood),
    // What is too long is refused by the provider, as `disabled` says.
    ("truncation", Means::Understood),
    (
        "parallel_tool_calls",
        Means::Param(Param::ParallelToolCalls),
    ),
    ("temperature", Means::Param(Param::Temperature)),
    ("top_p", Means::Param(Param::TopP)),
    ("max_output_tokens", Means::Param(Param::MaxTokens)),
    ("reasoning", Means::Param(Param::Effort)),
    ("safety_identifier", Means::Param(Param::User)),
    ("user", Means::Param(Param::User)),
    ("service_tier", Means::Param(Param::ServiceTier)),
    ("prompt_cache_key", Means::Param(Param::PromptCacheKey)),
    ("metadata", Means::Param(Param::Metadata)),
    ("top_logprobs", Means::Nothing),
    ("max_tool_calls", Means::Nothing),
    ("prompt_cache_retention", Means::Nothing),
    ("context_management", Means::Nothing),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::fields::tests::walk;
    use crate::wire::responses::{ResponsesRequest, decode};

    #[test]
    fn each_member_becomes_what_the_table_says() {
        let tools =
            json!([{ "type": "function", "name": "f", "parameters": { "type": "object" } }]);
        let basic = json!({ "model": "a-model", "input": "hi" });
        let samples = [
            (
                "parallel_tool_calls",
                json!({ "parallel_tool_calls": false, "tools": tools }),
            ),
            ("temperature", json!(0.5)),
            ("top_p", json!(0.5)),
            ("max_output_tokens", json!(77)),
            ("reasoning", json!({ "reasoning": { "effort": "high" } })),
            ("safety_identifier", json!("u")),
            ("user", json!("u")),
            ("service_tier", json!("default")),
            ("prompt_cache_key", json!("k")),
            ("metadata", json!({ "metadata": { "a": "b" } })),
            ("top_logprobs", json!(3)),
            ("max_tool_calls", json!(3)),
            ("prompt_cache_retention", json!("24h")),
            ("context_management", json!([{ "type": "compaction" }])),
        ];
        let read = |body: &Value| {
            let request = crate::edge::parse::<ResponsesRequest>(body.to_string().as_bytes());
            let decoded = request.and_then(decode).expect("decoded");
            decoded.into_request().expect("a request")
        };
        walk(FIELDS, &basic, &samples, &read);
    }
}
