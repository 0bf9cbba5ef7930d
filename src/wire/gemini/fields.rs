//! The members of a `generateContent` request, and what they mean to a provider of another wire
//! (<https://ai.google.dev/api/generate-content>). Both spellings of protobuf's JSON are taken.

use crate::model::Param;
use crate::wire::fields::{Fields, Means};

pub const FIELDS: Fields = &[
    ("contents", Means::Understood),
    ("systemInstruction", Means::Understood),
    ("system_instruction", Means::Understood),
    ("tools", Means::Understood),
    ("toolConfig", Means::Understood),
    ("tool_config", Means::Understood),
    // Its own members are told by the names that they have on other wires.
    ("generationConfig", Means::Understood),
    ("generation_config", Means::Understood),
    ("generateContentRequest", Means::Understood),
    ("generate_content_request", Means::Understood),
    // Refused.
    ("cachedContent", Means::Understood),
    ("cached_content", Means::Understood),
    ("model", Means::Understood),
    ("serviceTier", Means::Param(Param::ServiceTier)),
    ("service_tier", Means::Param(Param::ServiceTier)),
    ("safetySettings", Means::Nothing),
    ("safety_settings", Means::Nothing),
    ("labels", Means::Nothing),
    ("store", Means::Nothing),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::fields::tests::walk;
    use crate::wire::gemini::{GeminiRequest, decode};

    #[test]
    fn each_member_becomes_what_the_table_says() {
        let basic = json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }] });
        let safety = json!([{ "category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE" }]);
        let samples = [
            ("serviceTier", json!("default")),
            ("service_tier", json!("default")),
            ("safetySettings", safety.clone()),
            ("safety_settings", safety),
            ("labels", json!({ "labels": { "a": "b" } })),
            ("store", json!(true)),
        ];
        let read = |body: &Value| {
            let request = crate::edge::parse::<GeminiRequest>(body.to_string().as_bytes());
            request.and_then(decode).expect("decoded").request
        };
        walk(FIELDS, &basic, &samples, &read);
    }
}
