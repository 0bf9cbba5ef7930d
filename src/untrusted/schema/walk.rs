//! What schemas are made of: which members hold schemas, which of them apply to the same value,
//! and where references lead.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Members that hold one schema for the same value.
pub const SAME_ONE: [&str; 4] = ["not", "if", "then", "else"];
/// Members that hold a list of schemas for the same value.
pub const SAME_LIST: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Members that hold schemas by name for the same value.
pub const SAME_MAP: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Members that hold one schema for parts of the value.
pub const PART_ONE: [&str; 9] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "contentSchema",
    "extends",
];
/// Members that hold a list of schemas for parts of the value.
pub const PART_LIST: [&str; 2] = ["prefixItems", "items"];
/// Members that hold schemas by name, for parts of the value or for references.
pub const PART_MAP: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
/// Members that refer to a schema for the same value.
pub const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// The schemas for the same value that are written inside this one.
pub fn same_value(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let one = SAME_ONE.iter().filter_map(|key| schema.get(*key));
    let list = SAME_LIST
        .iter()
        .filter_map(|key| schema.get(*key)?.as_array())
        .flatten();
    let map = SAME_MAP
        .iter()
        .filter_map(|key| schema.get(*key)?.as_object())
        .flat_map(Map::values);
    one.chain(list).chain(map).filter(|s| is_schema(s))
}

/// The schemas for parts of the value, and those that only references reach.
pub fn parts(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let one = PART_ONE.iter().filter_map(|key| schema.get(*key));
    let list = PART_LIST
        .iter()
        .filter_map(|key| schema.get(*key)?.as_array())
        .flatten();
    let map = PART_MAP
        .iter()
        .filter_map(|key| schema.get(*key)?.as_object())
        .flat_map(Map::values);
    one.chain(list).chain(map).filter(|s| is_schema(s))
}

fn is_schema(value: &Value) -> bool {
    value.is_object() || value.is_boolean()
}

/// Where a document's references lead.
pub struct References<'a> {
    root: &'a Value,
    base: &'a str,
    anchors: HashMap<&'a str, &'a Value>,
}

impl<'a> References<'a> {
    /// Of a document whose anchors are still to be told.
    pub fn new(root: &'a Value) -> Self {
        let base = root["$id"].as_str().or_else(|| root["id"].as_str());
        Self {
            root,
            base: base.unwrap_or_default().trim_end_matches('#'),
            anchors: HashMap::new(),
        }
    }

    /// Takes in the anchors of a schema.
    pub fn note(&mut self, schema: &'a Value) {
        for key in ["$anchor", "$dynamicAnchor"] {
            if let Some(name) = schema[key].as_str() {
                self.anchors.insert(name, schema);
            }
        }
    }

    /// The schema that a reference names, when it is one of this document.
    pub fn find(&self, reference: &str) -> Option<&'a Value> {
        let inside = match reference.strip_prefix('#') {
            Some(inside) => inside,
            None if !self.base.is_empty() => {
                let rest = reference.strip_prefix(self.base)?;
                rest.strip_prefix('#').or(rest.is_empty().then_some(""))?
            }
            None => return None,
        };
        let inside = decoded(inside);
        if inside.is_empty() {
            return Some(self.root);
        }
        match inside.starts_with('/') {
            true => self.root.pointer(&inside),
            false => self.anchors.get(inside.as_str()).copied(),
        }
    }
}

/// A fragment without its percent signs.
fn decoded(fragment: &str) -> String {
    if !fragment.contains('%') {
        return fragment.to_owned();
    }
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => &tail[2..],
            None => tail,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
