//! Custom tools, whose input is free text: to models they are functions of one text, and to the
//! client their calls come back as they were asked for.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::wire::openai::tools::input_of;

/// The names of a request's custom tools.
#[derive(Debug, Clone, Default)]
pub struct CustomTools(Option<Arc<HashSet<String>>>);

impl CustomTools {
    /// Of a request as it was sent.
    pub fn of(body: &[u8]) -> Self {
        // Most requests have none.
        if memchr::memmem::find(body, b"\"custom\"").is_none() {
            return Self::default();
        }
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        let tools = request["tools"].as_array().into_iter().flatten();
        let names: HashSet<String> = tools
            .filter(|tool| tool["type"] == "custom")
            .filter_map(|tool| tool["custom"]["name"].as_str().map(str::to_owned))
            .collect();
        Self((!names.is_empty()).then(|| Arc::new(names)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `name` is one of them.
    pub fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|names| names.contains(name))
    }

    /// Gives calls of custom tools in a whole answer their own shape.
    pub fn restore(&self, answer: &mut Value) {
        let calls = answer.pointer_mut("/choices/0/message/tool_calls");
        let Some(Value::Array(calls)) = calls.filter(|_| !self.is_empty()) else {
            return;
        };
        for call in calls {
            let name = call["function"]["name"].as_str().unwrap_or_default();
            if self.has(name) {
                let input = input_of(call["function"]["arguments"].as_str().unwrap_or_default());
                *call = json!({ "id": call["id"], "type": "custom",
                    "custom": { "name": name, "input": input } });
            }
        }
    }
}
