//! Calls of tools that a model wrote as text: JSON between tags, as Hermes and Qwen do, or a function
//! with its parameters in tags, as Llama and Qwen Coder do.

use serde_json::{Map, Value};

use crate::model::request::ToolDef;

/// A tool that may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    name: String,
    /// Parameters that are texts, whatever they look like.
    texts: Vec<String>,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    pub name: String,
    /// A JSON object.
    pub arguments: String,
}

impl Known {
    /// What must be known of `tool`.
    pub fn of(tool: &ToolDef) -> Self {
        let members = tool.parameters["properties"].as_object();
        let is_text = |schema: &Value| schema["type"] == "string";
        Self {
            name: tool.name.clone(),
            texts: members
                .into_iter()
                .flatten()
                .filter(|(_, schema)| is_text(schema))
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }
}

/// The calls that `text` is; `None` when it is anything else.
pub fn calls_in(text: &str, tools: &[Known]) -> Option<Vec<Called>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (call, behind) = match rest.strip_prefix("<tool_call>") {
            Some(inner) => {
                let inner = inner.trim_start();
                let (call, behind) = match inner.starts_with("<function=") {
                    true => function(inner, tools)?,
                    false => object(inner, tools)?,
                };
                let behind = behind.trim_start();
                // The last tag is a token of its own with many models, and is left out.
                let closed = behind.strip_prefix("</tool_call>");
                (call, closed.or(behind.is_empty().then_some(behind))?)
            }
            None => function(rest, tools)?,
        };
        calls.push(call);
        rest = behind.trim_start();
    }
    (!calls.is_empty()).then_some(calls)
}

/// The JSON value that a text begins with, and what is behind it.
fn value(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

fn called(name: &str, arguments: Option<Value>, tools: &[Known]) -> Option<Called> {
    tools.iter().find(|tool| tool.name == name)?;
    let arguments = match arguments {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
        Some(_) => return None,
    };
    Some(Called {
        name: name.to_owned(),
        arguments: Value::Object(arguments).to_string(),
    })
}

/// `{"name": …, "arguments": {…}}`.
fn object<'a>(text: &'a str, tools: &[Known]) -> Option<(Called, &'a str)> {
    let (mut call, behind) = value(text)?;
    let members = call.as_object_mut()?;
    let arguments = ["arguments", "parameters"]
        .into_iter()
        .find_map(|name| members.get_mut(name).map(Value::take));
    let name = members.get("name")?.as_str()?;
    Some((called(name, arguments, tools)?, behind))
}

/// `<function=name>` with JSON, or with a tag for each parameter, up to `</function>`.
fn function<'a>(text: &'a str, tools: &[Known]) -> Option<(Called, &'a str)> {
    let (name, body) = text.strip_prefix("<function=")?.split_once('>')?;
    let name = name.trim().trim_matches('"');
    let known = tools.iter().find(|tool| tool.name == name)?;
    let mut rest = body.trim_start();
    if rest.starts_with('{') {
        let (arguments, behind) = value(rest)?;
        let behind = behind.trim_start().strip_prefix("</function>")?;
        return Some((called(name, Some(arguments), tools)?, behind));
    }
    let mut arguments = Map::new();
    loop {
        if let Some(behind) = rest.strip_prefix("</function>") {
            let arguments = Some(Value::Object(arguments));
            return Some((called(name, arguments, tools)?, behind));
        }
        let (parameter, behind) = rest.strip_prefix("<parameter=")?.split_once('>')?;
        let parameter = parameter.trim().trim_matches('"');
        let (said, behind) = behind.split_once("</parameter>")?;
        // A line of its own is how they are written, not a part of them.
        let said = said.strip_prefix('\n').unwrap_or(said);
        let said = said.strip_suffix('\n').unwrap_or(said);
        let is_text = known.texts.iter().any(|text| text == parameter);
        let read = match is_text {
            true => None,
            false => serde_json::from_str(said.trim()).ok(),
        };
        let read = read.unwrap_or_else(|| Value::String(said.to_owned()));
        if arguments.insert(parameter.to_owned(), read).is_some() {
            return None;
        }
        rest = behind.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_read_as_the_tool_says() {
        let tools = [Known::of(&ToolDef {
            name: "f".to_owned(),
            description: None,
            parameters: json!({ "properties": { "code": { "type": "string" },
                "n": { "type": "integer" }, "list": {} } }),
            strict: None,
        })];
        let text = "<tool_call>\n<function=f>\n<parameter=code>\n  1\n<b>\n</parameter>\n\
            <parameter=n>\n12\n</parameter>\n<parameter=list>[1, \"a\"]</parameter>\n\
            <parameter=other>plain</parameter>\n</function>\n</tool_call>\n<function=f></function>";
        let calls = calls_in(text, &tools).expect("calls");
        let arguments: Vec<Value> = calls
            .iter()
            .map(|call| serde_json::from_str(&call.arguments).expect("JSON"))
            .collect();
        let first = json!({ "code": "  1\n<b>", "n": 12, "list": [1, "a"], "other": "plain" });
        assert_eq!(arguments, [first, json!({})]);
        for twice in [
            "<function=f><parameter=n>1</parameter><parameter=n>2</parameter></function>",
            "<function=f><parameter=n>1</parameter></function",
            "",
        ] {
            assert_eq!(calls_in(twice, &tools), None);
        }
    }
}
