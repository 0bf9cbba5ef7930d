//! `reasoning`: a scratchpad. What is written goes back to the model as it is.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};

pub struct Reasoning;

#[async_trait]
impl Hosted for Reasoning {
    fn name(&self) -> &'static str {
        "reasoning"
    }

    fn description(&self) -> &'static str {
        "A scratchpad for thinking a task through and analyzing results."
    }

    fn functions(&self) -> Vec<Function> {
        let text = json!({ "type": "string" });
        vec![
            Function {
                name: "think",
                description: "Think a step through before acting. Nobody else sees it.",
                parameters: object(json!({ "thought": text, "title": text }), &["thought"]),
            },
            Function {
                name: "analyze",
                description: "Judge a result and decide what comes next. Nobody else sees it.",
                parameters: object(
                    json!({ "result": text, "analysis": text, "next_action":
                        { "type": "string", "enum": ["continue", "validate", "final_answer"] } }),
                    &["result", "analysis"],
                ),
            },
        ]
    }

    async fn call(
        &self,
        function: &str,
        args: &Map<String, Value>,
        _caller: &ToolUser,
        _parts: &Parts,
    ) -> Result<Answer, String> {
        let noted = match function {
            "think" => super::text(args, "thought")?.to_owned(),
            _ => format!(
                "Result: {}\nAnalysis: {}\nNext: {}",
                super::text(args, "result")?,
                super::text(args, "analysis")?,
                args.get("next_action")
                    .and_then(Value::as_str)
                    .unwrap_or("continue"),
            ),
        };
        Ok(noted.into())
    }
}
