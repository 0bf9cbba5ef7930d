//! The members of a Messages request, and what they mean to a provider of another wire
//! (<https://docs.anthropic.com/en/api/messages>).

use crate::model::Param;
use crate::wire::fields::{Fields, Means};

pub const FIELDS: Fields = &[
    ("model", Means::Understood),
    ("messages", Means::Understood),
    ("system", Means::Understood),
    ("stream", Means::Understood),
    ("tools", Means::Understood),
    // With `disable_parallel_tool_use`, which is told by its own name.
    ("tool_choice", Means::Understood),
    ("output_format", Means::Understood),
    // A hint where the provider places breakpoints.
    ("cache_control", Means::Understood),
    // These are refused.
    ("thread", Means::Understood),
    ("compaction", Means::Understood),
    ("mcp_servers", Means::Understood),
    ("max_tokens", Means::Param(Param::MaxTokens)),
    ("temperature", Means::Param(Param::Temperature)),
    ("top_p", Means::Param(Param::TopP)),
    ("top_k", Means::Param(Param::TopK)),
    ("stop_sequences", Means::Param(Param::Stop)),
    ("thinking", Means::Param(Param::Effort)),
    ("output_config", Means::Param(Param::Effort)),
    ("metadata", Means::Param(Param::User)),
    ("service_tier", Means::Param(Param::ServiceTier)),
    ("container", Means::Nothing),
    ("context_management", Means::Nothing),
    ("inference_geo", Means::Nothing),
    ("speed", Means::Nothing),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::fields::tests::walk;
    use crate::wire::messages::{MessagesRequest, decode};

    #[test]
    fn each_member_becomes_what_the_table_says() {
        let basic =
            json!({ "model": "a-model", "messages": [{ "role": "user", "content": "hi" }] });
        let samples = [
            ("max_tokens", json!(77)),
            ("temperature", json!(0.5)),
            ("top_p", json!(0.5)),
            ("top_k", json!(5)),
            ("stop_sequences", json!(["x"])),
            (
                "thinking",
                json!({ "thinking": { "type": "enabled", "budget_tokens": 9000 } }),
            ),
            (
                "output_config",
                json!({ "output_config": { "effort": "high" } }),
            ),
            ("metadata", json!({ "metadata": { "user_id": "u" } })),
            ("service_tier", json!("standard_only")),
            ("container", json!("c")),
            (
                "context_management",
                json!({ "context_management": { "edits": [{}] } }),
            ),
            ("inference_geo", json!("us")),
            ("speed", json!("fast")),
        ];
        let read = |body: &Value| {
            let request = crate::edge::parse::<MessagesRequest>(body.to_string().as_bytes());
            request.and_then(decode).expect("decoded").into_request()
        };
        walk(FIELDS, &basic, &samples, &read);
    }
}
