//! Tools of free text ("custom"), which are functions of one text to every model, and of namespaces.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use crate::model::ToolDef;

/// The longest function name that all providers take.
pub const MAX_NAME: usize = 64;

/// A tool of free text, as a function of one text.
pub fn custom(name: &str, tool: &Value) -> ToolDef {
    let mut description = tool["description"].as_str().unwrap_or_default().to_owned();
    let format = match tool["format"]["grammar"].is_object() {
        true => &tool["format"]["grammar"],
        false => &tool["format"],
    };
    if let Some(grammar) = format["definition"].as_str() {
        let syntax = format["syntax"].as_str().unwrap_or("given");
        if !description.is_empty() {
            description.push_str("\n\n");
        }
        description.push_str(&format!(
            "The input is free text that matches this grammar ({syntax}):\n{grammar}"
        ));
    }
    let input =
        json!({ "type": "string", "description": "The whole input of the tool, as plain text" });
    ToolDef {
        name: name.to_owned(),
        description: (!description.is_empty()).then_some(description),
        parameters: json!({ "type": "object", "properties": { "input": input },
            "required": ["input"], "additionalProperties": false }),
        strict: None,
    }
}

/// The text that a model gave to a custom tool.
pub fn input_of(arguments: &str) -> String {
    match serde_json::from_str(arguments) {
        Ok(Value::Object(mut members)) => match members.shift_remove("input") {
            Some(Value::String(input)) => input,
            Some(other) => other.to_string(),
            None if members.is_empty() => String::new(),
            // A model that names the one member as it likes.
            None if members.len() == 1 => match members.into_iter().next() {
                Some((_, Value::String(input))) => input,
                _ => arguments.to_owned(),
            },
            None => arguments.to_owned(),
        },
        Ok(Value::String(input)) => input,
        _ => arguments.to_owned(),
    }
}

/// The name of a namespace's function, as models know it.
pub fn joined_name(namespace: &str, name: &str) -> String {
    let between = if namespace.ends_with('_') { "" } else { "__" };
    let whole = format!("{namespace}{between}{name}");
    if whole.len() <= MAX_NAME {
        return whole;
    }
    // The end tells apart what has been cut.
    let mut hasher = DefaultHasher::new();
    whole.hash(&mut hasher);
    let mut at = MAX_NAME - 9;
    while !whole.is_char_boundary(at) {
        at -= 1;
    }
    format!("{}_{:08x}", &whole[..at], hasher.finish() as u32)
}
