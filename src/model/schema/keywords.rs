//! The keywords of JSON Schema, and what holds schemas below them.

use serde_json::{Map, Value};

/// A schema.
pub const OF_SCHEMA: &[&str] = &[
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
    "contentSchema",
];
/// A list of schemas.
pub const OF_SCHEMAS: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Schemas by name.
pub const OF_NAMED: &[&str] = &[
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];
/// They say nothing about instances, and are not worth a word to the model.
pub const SILENT: &[&str] = &[
    "$schema",
    "$id",
    "id",
    "$comment",
    "$anchor",
    "$dynamicAnchor",
    "$vocabulary",
    "examples",
    "example",
    "readOnly",
    "writeOnly",
    "deprecated",
    "nullable",
    "contentMediaType",
    "contentEncoding",
    "$defs",
    "definitions",
    "strict",
];
pub const TYPES: &[&str] = &[
    "object", "array", "string", "integer", "number", "boolean", "null",
];

/// What `pointer`, a reference within `root`, leads to.
pub fn resolve<'s>(root: &'s Value, pointer: &str) -> Option<&'s Value> {
    let path = pointer.strip_prefix('#')?;
    if path.is_empty() {
        return Some(root);
    }
    let path = match path.contains('%') {
        true => percent_decoded(path)?,
        false => path.to_owned(),
    };
    root.pointer(&path)
}

fn percent_decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
    }
    String::from_utf8(bytes).ok()
}

/// Puts what older drafts and careless writers write into the current draft's words. Members of the
/// wrong type, which make a schema invalid, are left out.
pub fn modernize(schema: &mut Map<String, Value>) {
    schema.retain(|name, value| {
        let is = |fits: bool| fits || value.is_null() && name == "default";
        match name.as_str() {
            "default" | "const" | "examples" | "example" => true,
            "$ref" | "description" | "title" | "pattern" | "format" => is(value.is_string()),
            "enum" => is(value.as_array().is_some_and(|list| !list.is_empty())),
            "type" => match value {
                Value::String(kind) => TYPES.contains(&kind.as_str()),
                Value::Array(kinds) => kinds.iter().any(is_type),
                _ => false,
            },
            "required" => is(value.is_array()),
            "minimum" | "maximum" | "multipleOf" => is(value.is_number()),
            "exclusiveMinimum" | "exclusiveMaximum" => is(value.is_number() || value.is_boolean()),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" | "minContains" | "maxContains" => {
                is(value.as_f64().is_some_and(|n| n >= 0.0 && n.fract() == 0.0))
            }
            name if OF_NAMED.contains(&name) => is(value.is_object()),
            name if OF_SCHEMAS.contains(&name) => {
                is(value.as_array().is_some_and(|list| !list.is_empty()))
            }
            "items" => is(value.is_object() || value.is_boolean() || value.is_array()),
            name if OF_SCHEMA.contains(&name) => is(value.is_object() || value.is_boolean()),
            _ => !value.is_null(),
        }
    });
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(is_type);
    }
    if let Some(Value::Array(names)) = schema.get_mut("required") {
        names.retain(Value::is_string);
    }
    for (flag, limit) in [
        ("exclusiveMinimum", "minimum"),
        ("exclusiveMaximum", "maximum"),
    ] {
        if let Some(Value::Bool(is_exclusive)) = schema.get(flag) {
            let is_exclusive = *is_exclusive;
            schema.shift_remove(flag);
            if is_exclusive && let Some(bound) = schema.shift_remove(limit) {
                schema.insert(flag.to_owned(), bound);
            }
        }
    }
    if schema.get("items").is_some_and(Value::is_array)
        && let Some(tuple) = schema.shift_remove("items")
    {
        if tuple.as_array().is_some_and(|list| !list.is_empty()) {
            schema.insert("prefixItems".to_owned(), tuple);
        }
        if let Some(rest) = schema.shift_remove("additionalItems") {
            schema.insert("items".to_owned(), rest);
        }
    }
}

fn is_type(kind: &Value) -> bool {
    kind.as_str().is_some_and(|kind| TYPES.contains(&kind))
}
