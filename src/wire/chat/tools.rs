//! The tools of a request: functions in the object that the wire puts around them, without it as
//! Responses has them, or in Anthropic's form, as clients send them that were written for that wire.

use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::lenient::given;
use crate::model::{Caching, ToolDef};
use crate::wire::openai::tools::custom;

/// One of `tools`.
#[derive(Debug, Deserialize)]
pub(super) struct Tool {
    #[serde(default, rename = "type", deserialize_with = "given::text")]
    kind: Option<String>,
    #[serde(default)]
    function: Option<FunctionDef>,
    #[serde(default)]
    cache_control: Value,
    #[serde(default)]
    custom: Value,
    /// A function without the object around it.
    #[serde(default, deserialize_with = "given::text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Value>,
    #[serde(default)]
    input_schema: Option<Value>,
    #[serde(default, deserialize_with = "given::flag")]
    strict: Option<bool>,
}

/// A function, as it is told to models.
#[derive(Debug, Deserialize)]
pub(super) struct FunctionDef {
    #[serde(default, deserialize_with = "given::text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given::text")]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Value>,
    #[serde(default, deserialize_with = "given::flag")]
    strict: Option<bool>,
    #[serde(default)]
    cache_control: Value,
}

impl Tool {
    /// The function that it is, with or without an object around it.
    fn into_function(self) -> Option<FunctionDef> {
        let schema = self.parameters.or(self.input_schema);
        self.function.or_else(|| {
            Some(FunctionDef {
                name: Some(self.name?),
                description: self.description,
                parameters: schema,
                strict: self.strict,
                cache_control: Value::Null,
            })
        })
    }
}

/// Reads `tools`.
pub(super) fn decode_tools(
    tools: Vec<Tool>,
    caching: &mut Caching,
) -> Result<Vec<ToolDef>, ApiError> {
    tools
        .into_iter()
        .enumerate()
        // What only a provider could run is not used, as the wire's other members are not.
        .filter(|(_, tool)| matches!(tool.kind.as_deref(), None | Some("function" | "custom")))
        .map(|(at, mut tool)| {
            // Anthropic calls what has a schema custom.
            if tool.kind.as_deref() == Some("custom") && tool.input_schema.is_none() {
                let name = tool.custom["name"].as_str().filter(|name| !name.is_empty());
                let missing =
                    || ApiError::invalid(format!("tools[{at}].custom.name"), "is missing");
                return Ok(custom(name.ok_or_else(missing)?, &tool.custom));
            }
            let mark = Caching::mark(&std::mem::take(&mut tool.cache_control));
            let function = tool
                .into_function()
                .ok_or_else(|| ApiError::invalid(format!("tools[{at}].function"), "is missing"))?;
            let mark = mark.or_else(|| Caching::mark(&function.cache_control));
            let tool = decode_function(function, &format!("tools[{at}].function"))?;
            caching
                .tools
                .extend(mark.map(|ttl| (tool.name.clone(), ttl)));
            Ok(tool)
        })
        .collect()
}

/// Reads `functions`, of before there were tools.
pub(super) fn decode_functions(functions: Vec<FunctionDef>) -> Result<Vec<ToolDef>, ApiError> {
    let functions = functions.into_iter().enumerate();
    functions
        .map(|(at, function)| decode_function(function, &format!("functions[{at}]")))
        .collect()
}

fn decode_function(function: FunctionDef, field: &str) -> Result<ToolDef, ApiError> {
    let name = function.name.filter(|name| !name.is_empty());
    Ok(ToolDef {
        name: name.ok_or_else(|| ApiError::invalid(format!("{field}.name"), "is missing"))?,
        description: function.description,
        parameters: function
            .parameters
            .filter(|parameters| !parameters.is_null())
            .unwrap_or_else(|| serde_json::json!({ "type": "object", "properties": {} })),
        strict: function.strict,
    })
}
