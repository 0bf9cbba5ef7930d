//! What a request says of the tools to be called and of the form of the answer, in the spellings of
//! all wires: clients are written for one and pointed at another.

use serde_json::Value;

use super::tools::{MAX_NAME, joined_name};
use crate::error::ApiError;
use crate::model::{Effort, ResponseFormat, ToolChoice, ToolDef};

/// The name that a choice, or one of the tools that it allows, has.
fn name_of(choice: &Value) -> Option<String> {
    let name = [
        &choice["name"],
        &choice["function"]["name"],
        &choice["custom"]["name"],
    ]
    .into_iter()
    .find_map(Value::as_str)?;
    Some(match choice["namespace"].as_str() {
        Some(namespace) => joined_name(namespace, name),
        None => name.to_owned(),
    })
}

/// `tool_choice`; `None` when the choice is of what is not there to be chosen. Where it allows some of
/// the tools, the others are left out.
pub fn decode_choice(
    choice: &Value,
    tools: &mut Vec<ToolDef>,
) -> Result<Option<ToolChoice>, ApiError> {
    let bad = |why: String| ApiError::bad_request("invalid_tool_choice", why).param("tool_choice");
    let word = |word: &str| match word {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "required" | "any" => Some(ToolChoice::Required),
        _ => None,
    };
    if choice.is_null() {
        return Ok(None);
    }
    if let Some(text) = choice.as_str() {
        let known = word(text).ok_or_else(|| bad(format!("no tool choice '{text}'")));
        return known.map(Some);
    }
    let kind = choice["type"].as_str();
    if kind == Some("allowed_tools") {
        let allowed = match choice["allowed_tools"].is_object() {
            true => &choice["allowed_tools"],
            false => choice,
        };
        return allow(allowed, tools, bad).map(Some);
    }
    let name = name_of(choice);
    match (kind, name) {
        (None | Some("function" | "custom" | "tool"), Some(name)) => {
            match tools.iter().any(|tool| tool.name == name) {
                true => Ok(Some(ToolChoice::Named(name))),
                false => Err(bad(format!("'{name}' is none of the tools"))),
            }
        }
        (Some("local_shell"), _) if tools.iter().any(|tool| tool.name == "local_shell") => {
            Ok(Some(ToolChoice::Named("local_shell".to_owned())))
        }
        (Some(kind), None) if word(kind).is_some() => Ok(word(kind)),
        // A hosted tool: which is not forced on a model that may not have it.
        (Some(kind), _) if !matches!(kind, "function" | "custom" | "tool") => Ok(None),
        _ => Err(bad("must be a word or name a function".to_owned())),
    }
}

fn allow(
    allowed: &Value,
    tools: &mut Vec<ToolDef>,
    bad: impl Fn(String) -> ApiError,
) -> Result<ToolChoice, ApiError> {
    let list = allowed["tools"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<String> = list.iter().filter_map(name_of).collect();
    if let Some(unknown) = names
        .iter()
        .find(|name| !tools.iter().any(|tool| tool.name == **name))
    {
        return Err(bad(format!("'{unknown}' is none of the tools")));
    }
    // What only a provider could run has no name.
    if !names.is_empty() {
        tools.retain(|tool| names.contains(&tool.name));
    }
    Ok(match allowed["mode"].as_str() {
        Some("required") => ToolChoice::Required,
        _ => ToolChoice::Auto,
    })
}

/// The form of an answer, as Chat Completions, Responses or servers of open models write it;
/// `param`: the member that it stands in.
pub fn decode_format(format: &Value, param: &str) -> Result<Option<ResponseFormat>, ApiError> {
    let bad = |why: &str| {
        ApiError::bad_request("invalid_response_format", why.to_owned()).param(param.to_owned())
    };
    if format.is_null() {
        return Ok(None);
    }
    let inner = match format["json_schema"].is_object() {
        true => &format["json_schema"],
        false => format,
    };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") if !inner["schema"].is_object() => Ok(Some(ResponseFormat::JsonObject)),
        Some("json_object" | "json_schema") if inner["schema"].is_object() => {
            Ok(Some(ResponseFormat::JsonSchema {
                name: schema_name(inner["name"].as_str().unwrap_or_default()),
                description: inner["description"].as_str().map(str::to_owned),
                schema: inner["schema"].clone(),
                strict: inner["strict"].as_bool().unwrap_or(false),
            }))
        }
        Some("json_schema") if param == "response_format" => {
            Err(bad("json_schema.schema must be an object"))
        }
        Some("json_schema") => Err(bad("schema must be an object")),
        _ => Err(bad("type must be text, json_object or json_schema")),
    }
}

/// As providers take it: they refuse a whole request for a blank in it.
fn schema_name(name: &str) -> String {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String = name
        .chars()
        .take(MAX_NAME)
        .map(|c| if is_good(c) { c } else { '_' })
        .collect();
    match name.is_empty() {
        true => "answer".to_owned(),
        false => name,
    }
}

/// How hard to think; `None` where that is left to the model.
pub fn decode_effort(effort: Option<&str>, param: &str) -> Result<Option<Effort>, ApiError> {
    let Some(text) = effort else {
        return Ok(None);
    };
    match text.to_ascii_lowercase().as_str() {
        "" | "default" | "auto" => Ok(None),
        word => word.parse::<Effort>().map(Some).map_err(|()| {
            ApiError::bad_request("invalid_reasoning_effort", format!("no effort '{text}'"))
                .param(param.to_owned())
        }),
    }
}

/// The effort that other members ask for: OpenRouter's `reasoning` and Anthropic's `thinking`, by a
/// word, by the tokens that it may take, or by a switch.
pub fn effort_beside(reasoning: &Value, thinking: &Value) -> Result<Option<Effort>, ApiError> {
    if let Some(effort) = decode_effort(reasoning["effort"].as_str(), "reasoning.effort")? {
        return Ok(Some(effort));
    }
    let tokens = [&reasoning["max_tokens"], &thinking["budget_tokens"]];
    if let Some(tokens) = tokens.into_iter().find_map(Value::as_u64) {
        let within = |effort: &&Effort| u64::from(effort.budget_tokens()) <= tokens;
        let efforts = [Effort::High, Effort::Medium, Effort::Low];
        let most = efforts.iter().find(within).copied();
        return Ok(Some(match tokens {
            0 => Effort::None,
            _ => most.unwrap_or(Effort::Low),
        }));
    }
    let switch = match (thinking["type"].as_str(), reasoning["enabled"].as_bool()) {
        (Some("enabled"), _) => Some(true),
        (Some("disabled"), _) => Some(false),
        (_, switch) => switch,
    };
    Ok(switch.map(|on| match on {
        true => Effort::Medium,
        false => Effort::None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tools() -> Vec<ToolDef> {
        let tool = |name: &str| ToolDef {
            name: name.to_owned(),
            description: None,
            parameters: json!({}),
            strict: None,
        };
        vec![tool("f"), tool("g")]
    }

    #[test]
    fn a_choice_comes_in_the_forms_of_all_wires() {
        let named = || Some(ToolChoice::Named("f".to_owned()));
        for (choice, decoded) in [
            (json!("any"), Some(ToolChoice::Required)),
            (json!({ "type": "any" }), Some(ToolChoice::Required)),
            (json!({ "type": "auto" }), Some(ToolChoice::Auto)),
            (json!({ "type": "none" }), Some(ToolChoice::None)),
            (json!({ "type": "tool", "name": "f" }), named()),
            (json!({ "type": "function", "name": "f" }), named()),
            (
                json!({ "type": "function", "function": { "name": "f" } }),
                named(),
            ),
            (json!({ "function": { "name": "f" } }), named()),
            (json!({ "type": "web_search_preview" }), None),
            (json!(null), None),
        ] {
            let got = decode_choice(&choice, &mut tools()).expect("a choice");
            assert_eq!(got, decoded, "{choice}");
        }
        for bad in [
            json!("x"),
            json!({}),
            json!({ "type": "function" }),
            json!({ "type": "tool", "name": "h" }),
            json!({ "type": "allowed_tools", "tools": [{ "type": "function", "name": "h" }] }),
        ] {
            assert!(decode_choice(&bad, &mut tools()).is_err(), "{bad}");
        }
    }

    #[test]
    fn tools_that_are_not_allowed_are_left_out() {
        let inner = json!({ "mode": "required", "tools": [
            { "type": "function", "function": { "name": "f" } }, { "type": "web_search" }] });
        for choice in [
            json!({ "type": "allowed_tools", "allowed_tools": inner }),
            json!({ "type": "allowed_tools", "mode": "required",
                "tools": [{ "type": "function", "name": "f" }] }),
        ] {
            let mut tools = tools();
            let decoded = decode_choice(&choice, &mut tools).expect("a choice");
            assert_eq!(decoded, Some(ToolChoice::Required), "{choice}");
            assert_eq!(tools.len(), 1, "{choice}");
        }
    }

    #[test]
    fn a_schema_stands_in_several_places() {
        let schema = json!({ "type": "object" });
        for format in [
            json!({ "type": "json_schema", "json_schema": { "name": "a b", "schema": schema } }),
            json!({ "type": "json_schema", "name": "a b", "schema": schema }),
            json!({ "type": "json_object", "name": "a b", "schema": schema }),
        ] {
            let decoded = decode_format(&format, "response_format").expect("a form");
            assert!(
                matches!(&decoded, Some(ResponseFormat::JsonSchema { name, .. }) if name == "a_b"),
                "{format}: {decoded:?}"
            );
        }
        assert!(decode_format(&json!({ "type": "json_schema" }), "text.format").is_err());
    }

    #[test]
    fn thinking_is_asked_for_in_several_ways() {
        let nothing = Value::Null;
        for (reasoning, thinking, effort) in [
            (json!({ "effort": "High" }), &nothing, Some(Effort::High)),
            (
                json!({ "max_tokens": 9000 }),
                &nothing,
                Some(Effort::Medium),
            ),
            (json!({ "max_tokens": 100 }), &nothing, Some(Effort::Low)),
            (json!({ "enabled": false }), &nothing, Some(Effort::None)),
            (json!({ "enabled": true }), &nothing, Some(Effort::Medium)),
            (json!({ "exclude": true }), &nothing, None),
            (
                nothing.clone(),
                &json!({ "type": "enabled", "budget_tokens": 20_000 }),
                Some(Effort::High),
            ),
            (
                nothing.clone(),
                &json!({ "type": "disabled" }),
                Some(Effort::None),
            ),
            (nothing.clone(), &json!({ "type": "adaptive" }), None),
        ] {
            let asked = effort_beside(&reasoning, thinking).expect("understood");
            assert_eq!(asked, effort, "{reasoning} {thinking}");
        }
        assert_eq!(decode_effort(Some("default"), "x").expect("left"), None);
        assert_eq!(
            decode_effort(Some("None"), "x").expect("off"),
            Some(Effort::None)
        );
        assert!(decode_effort(Some("hard"), "x").is_err());
    }
}
