//! The tools of a request: functions. What only Google runs is refused where another model is asked.

use serde_json::{Value, json};

use super::schema::json_schema;
use super::{member, unsupported};
use crate::error::ApiError;
use crate::model::{ToolChoice, ToolDef};

/// Reads `tools`: a list, or one alone.
pub(super) fn decode_tools(tools: &Value) -> Result<Vec<ToolDef>, ApiError> {
    let mut decoded = Vec::new();
    match tools {
        Value::Null => {}
        Value::Array(list) => {
            for (at, tool) in list.iter().enumerate() {
                decode_tool(tool, &format!("tools[{at}]"), &mut decoded)?;
            }
        }
        one @ Value::Object(_) => decode_tool(one, "tools", &mut decoded)?,
        _ => return Err(ApiError::invalid("tools", "must be a list")),
    }
    Ok(decoded)
}

fn decode_tool(tool: &Value, field: &str, out: &mut Vec<ToolDef>) -> Result<(), ApiError> {
    let Value::Object(members) = tool else {
        return match tool {
            Value::Null => Ok(()),
            _ => Err(ApiError::invalid(field.to_owned(), "must be an object")),
        };
    };
    // What clients send that were written for another wire.
    if members.contains_key("name") {
        out.push(declared(tool, field)?);
        return Ok(());
    }
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let field = format!("{field}.{name}");
        match (name.as_str(), value) {
            ("functionDeclarations" | "function_declarations", Value::Array(list)) => {
                for (at, one) in list.iter().enumerate() {
                    out.push(declared(one, &format!("{field}[{at}]"))?);
                }
            }
            ("functionDeclarations" | "function_declarations" | "function", one) => {
                out.push(declared(one, &field)?);
            }
            ("type", _) => {}
            (name, _) => {
                let why = format!("only models of Google itself have the tool '{name}'");
                return Err(unsupported(field, why));
            }
        }
    }
    Ok(())
}

fn declared(function: &Value, field: &str) -> Result<ToolDef, ApiError> {
    let name = function["name"].as_str().filter(|name| !name.is_empty());
    let missing = || ApiError::invalid(format!("{field}.name"), "is missing");
    let plain = member(function, "parametersJsonSchema", "parameters_json_schema");
    Ok(ToolDef {
        name: name.ok_or_else(missing)?.to_owned(),
        description: function["description"].as_str().map(str::to_owned),
        parameters: match (plain, &function["parameters"]) {
            (schema @ Value::Object(_), _) => schema.clone(),
            (_, schema @ Value::Object(_)) => json_schema(schema),
            (Value::Null, Value::Null) => json!({ "type": "object", "properties": {} }),
            _ => {
                let param = format!("{field}.parameters");
                return Err(ApiError::invalid(param, "must be an object"));
            }
        },
        strict: None,
    })
}

/// Reads `toolConfig`. Where it allows some of the tools, the others are left out.
pub(super) fn decode_choice(
    config: &Value,
    tools: &mut Vec<ToolDef>,
) -> Result<Option<ToolChoice>, ApiError> {
    let calling = member(config, "functionCallingConfig", "function_calling_config");
    let bad = |why: String| {
        let param = "toolConfig.functionCallingConfig";
        ApiError::bad_request("invalid_tool_choice", why).param(param)
    };
    let allowed = member(calling, "allowedFunctionNames", "allowed_function_names");
    let allowed: Vec<&str> = match allowed {
        Value::String(one) => vec![one],
        list => list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
    };
    if let Some(unknown) = allowed
        .iter()
        .find(|name| !tools.iter().any(|tool| tool.name == **name))
    {
        return Err(bad(format!("'{unknown}' is none of the functions")));
    }
    let mode = calling["mode"].as_str().unwrap_or_default();
    let choice = match mode.to_ascii_uppercase().as_str() {
        "" | "MODE_UNSPECIFIED" => None,
        // The calls of this one are only more like their schemas.
        "AUTO" | "VALIDATED" => Some(ToolChoice::Auto),
        "NONE" => Some(ToolChoice::None),
        "ANY" => Some(match allowed[..] {
            [one] => ToolChoice::Named(one.to_owned()),
            _ => ToolChoice::Required,
        }),
        _ => return Err(bad(format!("no mode '{mode}'"))),
    };
    if !allowed.is_empty() {
        tools.retain(|tool| allowed.contains(&tool.name.as_str()));
    }
    match choice {
        // There is nothing to choose from.
        Some(_) if tools.is_empty() => Ok(None),
        choice => Ok(choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_and_chosen() {
        let tools = json!([{ "functionDeclarations": [
            { "name": "f", "description": "d", "parameters": { "type": "OBJECT" } },
            { "name": "g", "parametersJsonSchema": { "type": "object" } }] },
            null, { "function_declarations": { "name": "h" } }]);
        let decoded = || decode_tools(&tools).expect("tools");
        let names: Vec<String> = decoded().into_iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["f", "g", "h"]);
        assert!(
            decoded()
                .iter()
                .all(|tool| tool.parameters["type"] == "object")
        );
        for (config, choice, left) in [
            (json!({ "mode": "ANY" }), Some(ToolChoice::Required), 3),
            (json!({ "mode": "auto" }), Some(ToolChoice::Auto), 3),
            (json!({ "mode": "NONE" }), Some(ToolChoice::None), 3),
            (
                json!({ "mode": "ANY", "allowedFunctionNames": ["g"] }),
                Some(ToolChoice::Named("g".to_owned())),
                1,
            ),
            (
                json!({ "mode": "ANY", "allowed_function_names": ["g", "h"] }),
                Some(ToolChoice::Required),
                2,
            ),
            (json!(null), None, 3),
        ] {
            let mut tools = decoded();
            let config = json!({ "functionCallingConfig": config });
            let decoded = decode_choice(&config, &mut tools).expect("a choice");
            assert_eq!((decoded, tools.len()), (choice, left), "{config}");
        }
        for bad in [
            json!({ "mode": "ALL" }),
            json!({ "allowedFunctionNames": ["x"] }),
        ] {
            let config = json!({ "functionCallingConfig": bad });
            assert!(decode_choice(&config, &mut decoded()).is_err(), "{config}");
        }
    }

    #[test]
    fn what_only_google_runs_is_refused_by_name() {
        let search = decode_tools(&json!([{ "googleSearch": {} }])).expect_err("refused");
        assert_eq!(search.param.as_deref(), Some("tools[0].googleSearch"));
        assert!(decode_tools(&json!([{ "googleSearch": null }])).is_ok());
        let nameless = json!({ "functionDeclarations": [{}] });
        let nameless = decode_tools(&nameless).expect_err("refused");
        assert_eq!(
            nameless.param.as_deref(),
            Some("tools.functionDeclarations[0].name")
        );
    }
}
