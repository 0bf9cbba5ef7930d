//! `suggest_replies`: short replies that a client shows for the person to choose from.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};

const MOST: usize = 10;
const LONGEST: usize = 200;

pub struct SuggestReplies;

#[async_trait]
impl Hosted for SuggestReplies {
    fn name(&self) -> &'static str {
        "suggest_replies"
    }

    fn description(&self) -> &'static str {
        "Offers the person short replies to choose from."
    }

    fn functions(&self) -> Vec<Function> {
        let replies = json!({ "type": "array", "minItems": 1, "maxItems": MOST,
            "items": { "type": "string", "minLength": 1, "maxLength": LONGEST } });
        vec![Function {
            name: "suggest_replies",
            description: "Offer the person short replies to your message. Call it once, then \
                          write the message itself.",
            parameters: object(json!({ "replies": replies }), &["replies"]),
        }]
    }

    async fn call(
        &self,
        _function: &str,
        args: &Map<String, Value>,
        _caller: &ToolUser,
        _parts: &Parts,
    ) -> Result<Answer, String> {
        let given = args.get("replies").and_then(Value::as_array);
        let replies: Vec<String> = given
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|reply| reply.trim().to_owned())
            .filter(|reply| !reply.is_empty())
            .collect();
        if replies.is_empty() {
            return Err("'replies' must hold a text".to_owned());
        }
        Ok(Answer {
            text: "The replies are shown below your message.".to_owned(),
            suggested_replies: Some(replies),
        })
    }
}
