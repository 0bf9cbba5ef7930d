//! Gemini's `Schema`, which is OpenAPI's with types in upper case, as JSON Schema.

use serde_json::{Map, Value, json};

/// The keyword as it is in camel case, if it is one.
fn keyword(name: &str) -> &str {
    match name {
        "any_of" => "anyOf",
        "min_items" => "minItems",
        "max_items" => "maxItems",
        "min_length" => "minLength",
        "max_length" => "maxLength",
        "min_properties" => "minProperties",
        "max_properties" => "maxProperties",
        "property_ordering" => "propertyOrdering",
        "prefix_items" => "prefixItems",
        "additional_properties" => "additionalProperties",
        "defs" => "$defs",
        "ref" => "$ref",
        other => other,
    }
}

/// Numbers of 64 bits are texts in protobuf's JSON.
fn number(value: &Value) -> Value {
    let text = value.as_str().and_then(|text| text.parse::<i64>().ok());
    text.map_or_else(|| value.clone(), Value::from)
}

fn of_each(schemas: &Value) -> Value {
    match schemas {
        Value::Array(list) => list.iter().map(json_schema).collect(),
        Value::Object(named) => {
            let named = named.iter();
            named
                .map(|(name, schema)| (name.clone(), json_schema(schema)))
                .collect()
        }
        other => other.clone(),
    }
}

/// Named schemas, in the order that is asked for.
fn properties(named: &Value, order: &Value) -> Value {
    let Value::Object(mut left) = of_each(named) else {
        return named.clone();
    };
    let mut ordered = Map::with_capacity(left.len());
    for name in order.as_array().into_iter().flatten() {
        if let Some((name, schema)) = name.as_str().and_then(|name| left.remove_entry(name)) {
            ordered.insert(name, schema);
        }
    }
    ordered.extend(left);
    Value::Object(ordered)
}

/// `schema` as JSON Schema; one that is that already stays so.
pub(super) fn json_schema(schema: &Value) -> Value {
    let Value::Object(members) = schema else {
        return schema.clone();
    };
    let mut out = Map::with_capacity(members.len());
    let mut is_nullable = false;
    let order = super::member(schema, "propertyOrdering", "property_ordering");
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let name = keyword(name);
        let value = match name {
            "type" => match value.as_str() {
                Some("TYPE_UNSPECIFIED") => continue,
                Some(kind) => json!(kind.to_ascii_lowercase()),
                None => value.clone(),
            },
            "nullable" => {
                is_nullable = value == true;
                continue;
            }
            // It says that there is an `enum`.
            "format" if value == "enum" => continue,
            "propertyOrdering" => continue,
            "example" => {
                out.insert("examples".to_owned(), json!([value]));
                continue;
            }
            "properties" => properties(value, order),
            "items"
            | "anyOf"
            | "allOf"
            | "oneOf"
            | "prefixItems"
            | "additionalProperties"
            | "$defs"
            | "not" => match (name, value) {
                ("items" | "additionalProperties" | "not", one) => json_schema(one),
                (_, several) => of_each(several),
            },
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties"
            | "maxProperties" => number(value),
            _ => value.clone(),
        };
        out.insert(name.to_owned(), value);
    }
    if is_nullable {
        allow_null(&mut out);
    }
    Value::Object(out)
}

fn allow_null(schema: &mut Map<String, Value>) {
    if let Some(choices) = schema.get_mut("enum").and_then(Value::as_array_mut)
        && !choices.contains(&Value::Null)
    {
        choices.push(Value::Null);
    }
    if let Some(kind) = schema.get_mut("type").filter(|kind| kind.is_string()) {
        *kind = json!([kind.take(), "null"]);
    } else if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.push(json!({ "type": "null" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_of_gemini_is_one_of_json() {
        let schema = json!({
            "type": "OBJECT", "property_ordering": ["b", "a"], "required": ["a"],
            "properties": {
                "a": { "type": "STRING", "format": "enum", "enum": ["x"], "nullable": true },
                "type": { "type": "INTEGER", "format": "int64", "example": 3 },
                "b": { "type": "ARRAY", "min_items": "1", "items": { "anyOf": [
                    { "type": "NUMBER" }, { "type": "TYPE_UNSPECIFIED", "title": "t" }] } }
            }
        });
        let expected = json!({
            "type": "object", "required": ["a"],
            "properties": {
                "b": { "type": "array", "minItems": 1, "items": { "anyOf": [
                    { "type": "number" }, { "title": "t" }] } },
                "a": { "type": ["string", "null"], "enum": ["x", null] },
                "type": { "type": "integer", "format": "int64", "examples": [3] }
            }
        });
        let converted = json_schema(&schema);
        assert_eq!(converted, expected);
        let names: Vec<&String> = converted["properties"]
            .as_object()
            .expect("properties")
            .keys()
            .collect();
        assert_eq!(names[0], "b");
        // What is one of JSON stays as it is.
        assert_eq!(json_schema(&converted), converted);
    }
}
