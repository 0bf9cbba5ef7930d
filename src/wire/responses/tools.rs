//! Tools of a request and the items of their calls.
//!
//! The rule, for whoever is asked through a model of another wire (a provider of this wire gets the
//! request as it is): what the *client* runs is a function to every model, and comes back as the
//! client's own kind of item: `function`, `custom` (a function of one text), `local_shell`, and the
//! functions of a `namespace`. `mcp` and `file_search` are run here, for a smith. `web_search` is run here where
//! the smith has it. What only the provider could run (`image_generation`, `code_interpreter`,
//! `computer_use_preview`, `tool_search` and whatever comes next) is left out, which the response
//! says in `warnings`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::mounts;
use crate::error::ApiError;
use crate::model::ToolDef;
use crate::tools::Mounts;
use crate::wire::openai::tools::{custom, input_of, joined_name};

const LOCAL_SHELL: &str = "local_shell";

/// What a request's tools mean.
#[derive(Debug, Default)]
pub struct Tools {
    /// What the client runs.
    pub defs: Vec<ToolDef>,
    /// Types that nobody here can run.
    pub left_out: Vec<String>,
    /// What is run here for this call alone.
    pub mounts: Mounts,
}

/// How a call of a client's tool looks on this wire, when it is no plain `function_call`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Custom,
    LocalShell,
    Namespaced { namespace: String, name: String },
}

/// The shapes of a request's tools, by the names that models know.
#[derive(Debug, Clone, Default)]
pub struct Shapes(HashMap<String, Shape>);

/// Whether `kind` is one of the types of a web search.
pub fn is_web_search(kind: &str) -> bool {
    kind == "web_search" || kind.starts_with("web_search_")
}

fn named<'a>(tool: &'a Value, field: &str) -> Result<&'a str, ApiError> {
    let name = tool["name"].as_str().filter(|name| !name.is_empty());
    name.ok_or_else(|| ApiError::invalid(format!("{field}.name"), "is missing"))
}

/// A function without the object that Chat Completions puts around it.
fn bare(tool: &Value) -> &Value {
    match &tool["function"] {
        function @ Value::Object(_) => function,
        _ => tool,
    }
}

fn function(name: String, tool: &Value) -> ToolDef {
    ToolDef {
        name,
        description: tool["description"].as_str().map(str::to_owned),
        parameters: match (&tool["parameters"], &tool["input_schema"]) {
            (Value::Null, Value::Null) => json!({ "type": "object", "properties": {} }),
            (Value::Null, schema) => schema.clone(),
            (parameters, _) => parameters.clone(),
        },
        strict: tool["strict"].as_bool(),
    }
}

fn local_shell() -> ToolDef {
    let text = json!({ "type": "string" });
    ToolDef {
        name: LOCAL_SHELL.to_owned(),
        description: Some("Runs a command on the user's machine.".to_owned()),
        parameters: json!({ "type": "object", "required": ["command"], "properties": {
            "command": { "type": "array", "items": text },
            "working_directory": text,
            "timeout_ms": { "type": "integer" },
            "env": { "type": "object", "additionalProperties": text },
            "user": text,
        } }),
        strict: None,
    }
}

/// Reads a request's tools.
pub fn decode_tools(tools: &[Value]) -> Result<Tools, ApiError> {
    let mut decoded = Tools::default();
    for (at, tool) in tools.iter().enumerate() {
        let field = format!("tools[{at}]");
        match tool["type"].as_str().unwrap_or_default() {
            "function" => {
                let tool = bare(tool);
                let name = named(tool, &field)?.to_owned();
                decoded.defs.push(function(name, tool));
            }
            // Anthropic's, which has no type, or calls what has a schema custom.
            "" | "custom" if tool["input_schema"].is_object() => {
                let name = named(tool, &field)?.to_owned();
                decoded.defs.push(function(name, tool));
            }
            "custom" => decoded.defs.push(custom(named(tool, &field)?, tool)),
            LOCAL_SHELL => decoded.defs.push(local_shell()),
            "namespace" => {
                let namespace = named(tool, &field)?;
                let inner = tool["tools"].as_array();
                for (place, tool) in inner.into_iter().flatten().enumerate() {
                    let field = format!("{field}.tools[{place}]");
                    let name = joined_name(namespace, named(tool, &field)?);
                    match tool["type"].as_str().unwrap_or("function") {
                        "function" => decoded.defs.push(function(name, tool)),
                        "custom" => decoded.defs.push(custom(&name, tool)),
                        other => decoded.left_out.push(other.to_owned()),
                    }
                }
            }
            "mcp" => mounts::server(tool, &field, &mut decoded.mounts)?,
            "file_search" => mounts::stores(tool, &field, &mut decoded.mounts)?,
            "" => return Err(ApiError::invalid(format!("{field}.type"), "is missing")),
            other => decoded.left_out.push(other.to_owned()),
        }
    }
    Ok(decoded)
}

/// What the response says of tools that nobody runs.
pub fn warnings(left_out: &[String]) -> Vec<Value> {
    let kinds: std::collections::BTreeSet<&String> = left_out.iter().collect();
    let told = |kind: &&String| {
        json!({ "code": "unsupported_tools",
            "message": format!("tools of type '{kind}' cannot be run here and were left out") })
    };
    kinds.iter().map(told).collect()
}

impl Shapes {
    /// Of the tools as the request gave them.
    pub fn of(tools: Option<&Value>) -> Self {
        let mut shapes = HashMap::new();
        for tool in tools.and_then(Value::as_array).into_iter().flatten() {
            let name = tool["name"].as_str().unwrap_or_default();
            match tool["type"].as_str() {
                Some("custom") if !tool["input_schema"].is_object() => {
                    shapes.insert(name.to_owned(), Shape::Custom);
                }
                Some(LOCAL_SHELL) => {
                    shapes.insert(LOCAL_SHELL.to_owned(), Shape::LocalShell);
                }
                Some("namespace") => {
                    for inner in tool["tools"].as_array().into_iter().flatten() {
                        let inner = inner["name"].as_str().unwrap_or_default();
                        let shape = Shape::Namespaced {
                            namespace: name.to_owned(),
                            name: inner.to_owned(),
                        };
                        shapes.insert(joined_name(name, inner), shape);
                    }
                }
                _ => {}
            }
        }
        Self(shapes)
    }

    /// The kind and the members of a call's item. Without `arguments` it is under way.
    pub fn call(
        &self,
        call_id: &str,
        name: &str,
        arguments: Option<&str>,
    ) -> (&'static str, Value) {
        let status = match arguments {
            Some(_) => "completed",
            None => "in_progress",
        };
        let text = arguments.unwrap_or_default();
        match self.0.get(name) {
            None => {
                let mut members = call_members(call_id, name, text);
                members["status"] = json!(status);
                ("function_call", members)
            }
            Some(Shape::Namespaced { namespace, name }) => {
                let mut members = call_members(call_id, name, text);
                members["status"] = json!(status);
                members["namespace"] = json!(namespace);
                ("function_call", members)
            }
            Some(Shape::Custom) => (
                "custom_tool_call",
                json!({ "call_id": call_id, "name": name, "input": input_of(text),
                    "status": status }),
            ),
            Some(Shape::LocalShell) => (
                "local_shell_call",
                json!({ "call_id": call_id, "action": action_of(text), "status": status }),
            ),
        }
    }

    /// Whether pieces of a call's arguments can be told as they come.
    pub fn is_function(&self, name: &str) -> bool {
        matches!(self.0.get(name), None | Some(Shape::Namespaced { .. }))
    }

    /// The kind of the item that answers a call.
    pub fn result(&self, name: &str) -> &'static str {
        match self.0.get(name) {
            None | Some(Shape::Namespaced { .. }) => "function_call_output",
            Some(Shape::Custom) => "custom_tool_call_output",
            Some(Shape::LocalShell) => "local_shell_call_output",
        }
    }
}

/// The members of a `function_call` that is complete.
fn call_members(call_id: &str, name: &str, arguments: &str) -> Value {
    json!({ "call_id": call_id, "name": name, "arguments": arguments, "status": "completed" })
}

fn action_of(arguments: &str) -> Value {
    let mut action: Map<String, Value> = serde_json::from_str(arguments).unwrap_or_default();
    if let Some(Value::String(line)) = action.get("command") {
        let command = json!(["sh", "-c", line]);
        action.insert("command".to_owned(), command);
    }
    action.entry("command").or_insert_with(|| json!([]));
    action.entry("env").or_insert_with(|| json!({}));
    action.insert("type".to_owned(), json!("exec"));
    Value::Object(action)
}

/// The arguments of a call that a client gives back as an item of its own kind: the name that
/// models know, and their text.
pub fn arguments_of(item: &Map<String, Value>) -> Option<(String, String)> {
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    match text("type")? {
        "custom_tool_call" => {
            let input = text("input").unwrap_or_default();
            Some((
                text("name")?.to_owned(),
                json!({ "input": input }).to_string(),
            ))
        }
        "local_shell_call" => {
            let mut action = item.get("action").cloned().unwrap_or_default();
            if let Value::Object(action) = &mut action {
                action.shift_remove("type");
            }
            Some((LOCAL_SHELL.to_owned(), action.to_string()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::openai::tools::MAX_NAME;

    #[test]
    fn clients_tools_are_functions_to_models() {
        let given = json!([
            { "type": "custom", "name": "apply_patch", "description": "Patches.",
              "format": { "type": "grammar", "syntax": "lark", "definition": "start: \"x\"" } },
            { "type": "namespace", "name": "mcp__fs", "tools": [{ "type": "function", "name": "read" }] },
            { "type": "local_shell" }, { "type": "web_search" }, { "type": "image_generation" },
            { "type": "function", "name": "plain", "parameters": null },
        ]);
        let tools = decode_tools(given.as_array().expect("a list")).expect("tools");
        let names: Vec<&str> = tools.defs.iter().map(|def| def.name.as_str()).collect();
        assert_eq!(
            names,
            ["apply_patch", "mcp__fs__read", "local_shell", "plain"]
        );
        let patch = tools.defs[0].description.as_deref().unwrap_or_default();
        assert!(
            patch.contains("lark") && patch.contains("start:"),
            "{patch}"
        );
        assert_eq!(tools.left_out, ["web_search", "image_generation"]);
        let shapes = Shapes::of(Some(&given));
        let (kind, call) = shapes.call("c", "apply_patch", Some("{\"input\":\"*** Begin\"}"));
        assert_eq!(
            (kind, &call["input"]),
            ("custom_tool_call", &json!("*** Begin"))
        );
        let (kind, call) = shapes.call("c", "mcp__fs__read", Some("{}"));
        assert_eq!(kind, "function_call");
        assert_eq!(
            (&call["namespace"], &call["name"]),
            (&json!("mcp__fs"), &json!("read"))
        );
        let (kind, call) = shapes.call("c", "local_shell", Some("{\"command\":[\"ls\"]}"));
        assert_eq!(
            (kind, &call["action"]["type"]),
            ("local_shell_call", &json!("exec"))
        );
        let back = arguments_of(
            json!({ "type": kind, "action": call["action"] })
                .as_object()
                .expect("one"),
        );
        assert_eq!(back.map(|(name, _)| name).as_deref(), Some("local_shell"));
    }

    #[test]
    fn a_custom_tools_input_is_found_in_whatever_the_model_wrote() {
        for (arguments, input) in [
            ("{\"input\":\"a\"}", "a"),
            ("{\"patch\":\"a\"}", "a"),
            ("\"a\"", "a"),
            ("a {", "a {"),
            ("{\"input\":{\"b\":1}}", "{\"b\":1}"),
            ("", ""),
            ("{}", ""),
        ] {
            assert_eq!(input_of(arguments), input, "{arguments}");
        }
    }

    #[test]
    fn long_names_stay_apart() {
        let namespace = "n".repeat(70);
        let (one, two) = (joined_name(&namespace, "a"), joined_name(&namespace, "b"));
        assert!(one.len() <= MAX_NAME && two.len() <= MAX_NAME && one != two);
    }
}
