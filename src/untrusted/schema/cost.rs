//! How much work it is to hold a value to a schema, at most: the evaluation is walked through
//! without its shortcuts, until a limit is reached.

use serde_json::{Map, Value};

use super::bounds::pattern_weight;
use super::walk::{REFERENCES, References, SAME_LIST, SAME_MAP, SAME_ONE};

/// Steps that a worker takes; each is some ten to hundred nanoseconds.
const MAX_STEPS: u64 = 40_000;
/// Schemas inside each other, references followed; each takes some of the stack.
const MAX_DEPTH: usize = 120;

/// Whether a worker may hold `value` to `schema`.
pub fn is_small(schema: &Value, value: &Value) -> bool {
    let mut references = References::new(schema);
    note_anchors(schema, &mut references);
    let mut walk = Walk {
        references,
        left: MAX_STEPS,
    };
    walk.apply(schema, value, 0, 0).is_some()
}

fn note_anchors<'a>(schema: &'a Value, references: &mut References<'a>) {
    let mut open = vec![schema];
    while let Some(schema) = open.pop() {
        if let Value::Object(map) = schema {
            references.note(schema);
            open.extend(super::walk::same_value(map).chain(super::walk::parts(map)));
        }
    }
}

struct Walk<'a> {
    references: References<'a>,
    left: u64,
}

/// `None`: it is too much.
type Small = Option<()>;

impl<'a> Walk<'a> {
    fn spend(&mut self, steps: u64) -> Small {
        self.left = self.left.checked_sub(steps)?;
        Some(())
    }

    /// `choices`: how many schemas around this one are looked at twice, to choose and to explain.
    fn apply(&mut self, schema: &'a Value, value: &Value, depth: usize, choices: u64) -> Small {
        self.spend(1 + choices)?;
        if depth > MAX_DEPTH {
            return None;
        }
        let Value::Object(map) = schema else {
            return Some(());
        };
        self.same(map, value, depth, choices)?;
        // What is left over is found by going through all of it again.
        for key in ["unevaluatedProperties", "unevaluatedItems"] {
            if map.contains_key(key) {
                self.same(map, value, depth, choices)?;
            }
        }
        match value {
            Value::Object(object) => self.object(map, object, depth + 1, choices),
            Value::Array(list) => self.list(map, list, depth + 1, choices),
            Value::String(text) => self.text(map, text),
            _ => self.compared(map, 1),
        }
    }

    fn same(
        &mut self,
        map: &'a Map<String, Value>,
        value: &Value,
        depth: usize,
        choices: u64,
    ) -> Small {
        for reference in REFERENCES.iter().filter_map(|key| map.get(*key)?.as_str()) {
            let target = self.references.find(reference)?;
            self.apply(target, value, depth + 1, choices)?;
        }
        for inner in SAME_ONE.iter().filter_map(|key| map.get(*key)) {
            self.apply(inner, value, depth + 1, choices + 1)?;
        }
        for key in SAME_LIST {
            let choices = choices + u64::from(key != "allOf");
            for inner in map.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.apply(inner, value, depth + 1, choices)?;
            }
        }
        for inner in SAME_MAP
            .iter()
            .filter_map(|key| map.get(*key)?.as_object())
            .flat_map(Map::values)
        {
            self.apply(inner, value, depth + 1, choices)?;
        }
        Some(())
    }

    fn object(
        &mut self,
        map: &'a Map<String, Value>,
        object: &Map<String, Value>,
        depth: usize,
        choices: u64,
    ) -> Small {
        let named = map.get("properties").and_then(Value::as_object);
        if let Some(named) = named {
            self.spend(named.len() as u64 / 8)?;
            for (name, value) in object {
                if let Some(inner) = named.get(name) {
                    self.apply(inner, value, depth, choices)?;
                }
            }
        }
        if let Some(required) = map.get("required").and_then(Value::as_array) {
            self.spend(required.len() as u64 / 4)?;
        }
        let by_pattern = map.get("patternProperties").and_then(Value::as_object);
        for (pattern, inner) in by_pattern.into_iter().flatten() {
            for (name, value) in object {
                self.pattern(pattern, name)?;
                self.apply(inner, value, depth, choices)?;
            }
        }
        for key in ["additionalProperties", "unevaluatedProperties"] {
            if let Some(inner) = map.get(key) {
                self.spend(object.len() as u64 / 4)?;
                for (name, value) in object {
                    if named.is_none_or(|named| !named.contains_key(name)) {
                        self.apply(inner, value, depth, choices)?;
                    }
                }
            }
        }
        if let Some(inner) = map.get("propertyNames") {
            for name in object.keys() {
                self.apply(inner, &Value::String(name.clone()), depth, choices)?;
            }
        }
        self.compared(map, object.len() as u64 + 1)
    }

    fn list(
        &mut self,
        map: &'a Map<String, Value>,
        list: &[Value],
        depth: usize,
        choices: u64,
    ) -> Small {
        for key in ["items", "prefixItems"] {
            for (inner, value) in map
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .zip(list)
            {
                self.apply(inner, value, depth, choices)?;
            }
        }
        for key in ["items", "additionalItems", "unevaluatedItems", "contains"] {
            if let Some(inner) = map.get(key).filter(|inner| !inner.is_array()) {
                for value in list {
                    self.apply(inner, value, depth, choices)?;
                }
            }
        }
        if map.get("uniqueItems") == Some(&Value::Bool(true)) {
            let size: u64 = list.iter().map(|value| self.size(value)).sum();
            self.spend(size.saturating_mul(16))?;
        }
        self.compared(map, list.len() as u64 + 1)
    }

    fn text(&mut self, map: &'a Map<String, Value>, text: &str) -> Small {
        if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
            self.pattern(pattern, text)?;
        }
        if map.contains_key("format") || map.contains_key("contentMediaType") {
            self.spend(text.len() as u64 / 8)?;
        }
        self.compared(map, 1 + text.len() as u64 / 64)
    }

    /// The engine follows, in the worst case, all of a pattern for each letter.
    fn pattern(&mut self, pattern: &str, text: &str) -> Small {
        let weight = pattern_weight(pattern);
        self.spend(1 + (text.len() as u64).saturating_mul(weight) / 64)
    }

    /// What it takes to compare a value with those of `enum` and `const`.
    fn compared(&mut self, map: &Map<String, Value>, size: u64) -> Small {
        if let Some(allowed) = map.get("enum").and_then(Value::as_array) {
            self.spend((allowed.len() as u64).saturating_mul(size) / 8)?;
        }
        if map.contains_key("const") {
            self.spend(size / 8)?;
        }
        Some(())
    }

    /// Values inside a value, as far as they matter.
    fn size(&self, value: &Value) -> u64 {
        let mut open = vec![value];
        let mut size = 0;
        while let Some(value) = open.pop() {
            size += 1;
            if size > MAX_STEPS {
                break;
            }
            match value {
                Value::Array(list) => open.extend(list),
                Value::Object(map) => open.extend(map.values()),
                Value::String(text) => size += text.len() as u64 / 64,
                _ => {}
            }
        }
        size
    }
}
