//! The tools of a request: functions with an `input_schema`. What only Anthropic knows, or runs, has
//! a type of its own and is refused where another model is asked.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::lenient::given;
use crate::model::{Caching, ToolDef};

/// One of `tools`.
#[derive(Debug, Deserialize)]
pub(super) struct Tool {
    #[serde(default, rename = "type", deserialize_with = "given::text")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    description: Option<String>,
    #[serde(default, deserialize_with = "given::flag")]
    strict: Option<bool>,
    #[serde(default)]
    input_schema: Value,
    #[serde(default)]
    cache_control: Value,
    /// What clients send that were written for another wire.
    #[serde(default)]
    parameters: Value,
    #[serde(default)]
    function: Value,
}

impl Tool {
    fn with_function(mut self) -> Self {
        let function = self.function.take();
        let text = |name: &str| function[name].as_str().map(str::to_owned);
        self.name = self.name.or_else(|| text("name"));
        self.description = self.description.or_else(|| text("description"));
        self.strict = self.strict.or_else(|| function["strict"].as_bool());
        let schemas = [
            &self.input_schema,
            &self.parameters,
            &function["parameters"],
        ];
        let schema = schemas.into_iter().find(|schema| schema.is_object());
        self.input_schema = schema.cloned().unwrap_or_default();
        self
    }
}

/// Reads `tools`.
pub(super) fn decode_tools(
    tools: Vec<Tool>,
    caching: &mut Caching,
) -> Result<Vec<ToolDef>, ApiError> {
    let mut decoded = Vec::with_capacity(tools.len());
    for (at, tool) in tools.into_iter().enumerate() {
        let mut tool = tool.with_function();
        match tool.kind.as_deref() {
            None | Some("custom" | "function") => {}
            Some(_) if tool.input_schema.is_object() => {}
            Some(kind) => {
                let why = format!("only models of Anthropic itself have the tool '{kind}'");
                let param = format!("tools[{at}].type");
                return Err(ApiError::bad_request("unsupported", why).param(param));
            }
        }
        let name = tool.name.filter(|name| !name.is_empty());
        let missing = || ApiError::invalid(format!("tools[{at}].name"), "is missing");
        let name = name.ok_or_else(missing)?;
        let mark = Caching::mark(&tool.cache_control);
        caching.tools.extend(mark.map(|ttl| (name.clone(), ttl)));
        decoded.push(ToolDef {
            name,
            description: tool.description,
            parameters: match tool.input_schema.take() {
                Value::Null => json!({ "type": "object", "properties": {} }),
                schema => schema,
            },
            strict: tool.strict,
        });
    }
    Ok(decoded)
}
