//! JSON Schemas that callers and servers wrote. A schema is bounded when it is read; what is small
//! is compiled and evaluated here, with the work counted beforehand; what is large, or needs
//! patterns that go back and forth, goes to the sandbox.

mod bounds;
mod checked;
mod cost;
mod walk;

use std::sync::Arc;

use serde_json::Value;

use bounds::Weight;

/// Why a schema is refused, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

/// Why a value does not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not conform, at a JSON pointer.
    #[error("at '{path}': {why}")]
    Mismatch { path: String, why: String },
    /// Whether it conforms cannot be found out within the limits.
    #[error("{0}")]
    Undecided(String),
}

/// Longest message about a value, in bytes; the crate's own repeat the whole value.
const MAX_MESSAGE: usize = 1000;

/// A schema within bounds.
#[derive(Clone)]
pub struct Schema {
    source: Arc<Value>,
    /// Absent: only the sandbox evaluates it.
    validator: Option<Arc<jsonschema::Validator>>,
}

impl Schema {
    /// Holds a schema to its bounds, and compiles it when it is small.
    pub fn read(source: &Value) -> Result<Self, SchemaError> {
        let validator = match bounds::weigh(source)? {
            Weight::Light => Some(Arc::new(compile(source)?)),
            Weight::Heavy => None,
        };
        Ok(Self {
            source: Arc::new(source.clone()),
            validator,
        })
    }
}

/// Only patterns whose time grows with the text alone.
fn compile(source: &Value) -> Result<jsonschema::Validator, SchemaError> {
    let patterns = jsonschema::PatternOptions::regex().size_limit(bounds::PATTERN_BYTES);
    build(jsonschema::options().with_pattern_options(patterns), source)
}

fn build(
    options: jsonschema::ValidationOptions<'_>,
    source: &Value,
) -> Result<jsonschema::Validator, SchemaError> {
    options.offline().build(source).map_err(|error| {
        let at = error.instance_path().to_string();
        let why = shortened(&error);
        SchemaError(match at.is_empty() {
            true => why,
            false => format!("at '{at}': {why}"),
        })
    })
}

fn evaluate(validator: &jsonschema::Validator, value: &Value) -> Result<(), Fault> {
    // Most values conform, and saying so costs less than looking for errors.
    if validator.is_valid(value) {
        return Ok(());
    }
    validator.validate(value).map_err(|error| Fault::Mismatch {
        path: error.instance_path().to_string(),
        why: shortened(&error),
    })
}

/// In the sandbox, whose limits are what ends it.
pub(super) fn in_sandbox(
    source: &Value,
    value: Option<&Value>,
) -> Result<Option<(String, String)>, SchemaError> {
    let validator = build(jsonschema::options(), source)?;
    match value.map(|value| evaluate(&validator, value)) {
        None | Some(Ok(())) => Ok(None),
        Some(Err(Fault::Mismatch { path, why })) => Ok(Some((path, why))),
        Some(Err(Fault::Undecided(why))) => Err(SchemaError(why)),
    }
}

/// An error's text as far as it is worth reading; it never becomes longer in memory.
fn shortened(error: &jsonschema::ValidationError<'_>) -> String {
    struct Short(String);
    impl std::fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let room = MAX_MESSAGE - self.0.len();
            if text.len() <= room {
                self.0.push_str(text);
                return Ok(());
            }
            let end = (0..=room).rev().find(|at| text.is_char_boundary(*at));
            self.0.push_str(&text[..end.unwrap_or(0)]);
            Err(std::fmt::Error)
        }
    }
    let mut short = Short(String::new());
    match std::fmt::Write::write_fmt(&mut short, format_args!("{error}")) {
        Ok(()) => short.0,
        Err(_) => short.0 + "…",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> String {
        let error = Schema::read(schema).err().expect("refused");
        error.to_string()
    }

    fn light(schema: &Value) -> Schema {
        let read = Schema::read(schema).expect("a schema");
        assert!(read.validator.is_some(), "not light: {schema}");
        read
    }

    fn doubling(levels: usize, keyword: &str) -> Value {
        let mut defs = serde_json::Map::new();
        for level in 0..levels {
            let next = json!({ "$ref": format!("#/$defs/l{}", level + 1) });
            let schema = match keyword {
                "if" => json!({ "if": next, "then": next }),
                "not" => json!({ "not": next, "allOf": [next] }),
                "dependentSchemas" => json!({ "dependentSchemas": { "a": next, "b": next } }),
                _ => json!({ keyword: [next, next] }),
            };
            defs.insert(format!("l{level}"), schema);
        }
        defs.insert(format!("l{levels}"), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/l0", "$defs": defs })
    }

    #[test]
    fn what_unfolds_without_measure_is_refused() {
        for keyword in ["oneOf", "anyOf", "allOf", "if", "not", "dependentSchemas"] {
            assert!(
                refused(&doubling(60, keyword)).contains("unfolds"),
                "{keyword}"
            );
            assert!(Schema::read(&doubling(3, keyword)).is_ok(), "{keyword}");
        }
        assert!(refused(&json!({ "$ref": "#" })).contains("itself"));
        let two = json!({ "$ref": "#/$defs/a", "$defs": {
            "a": { "allOf": [{ "$ref": "#/$defs/b" }] }, "b": { "$ref": "#/$defs/a" } } });
        assert!(refused(&two).contains("itself"));
        let mut chain = doubling(0, "anyOf");
        for level in 0..5_000 {
            chain["$defs"][format!("l{level}")] =
                json!({ "$ref": format!("#/$defs/l{}", level + 1) });
        }
        assert!(Schema::read(&chain).is_err());
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let wide: serde_json::Map<String, Value> = (0..60_000)
            .map(|n| (format!("p{n}"), json!({ "type": "string" })))
            .collect();
        assert!(refused(&json!({ "properties": wide })).contains("large"));
        let mut deep = json!({ "type": "string" });
        for _ in 0..100 {
            deep = json!({ "items": deep });
        }
        assert!(refused(&deep).contains("nested"));
        assert!(refused(&json!({ "pattern": "a".repeat(10_000) })).contains("pattern"));
    }

    #[test]
    fn a_recursive_schema_is_no_attack() {
        let tree = json!({ "type": "object", "properties": { "name": { "type": "string" },
            "children": { "type": "array", "items": { "$ref": "#" } } }, "required": ["name"] });
        let schema = light(&tree);
        let value = json!({ "name": "a", "children": [{ "name": "b", "children": [] }] });
        assert!(cost::is_small(&schema.source, &value));
        let validator = schema.validator.expect("light");
        assert_eq!(evaluate(&validator, &value), Ok(()));
        let wrong = evaluate(&validator, &json!({ "name": "a", "children": [{}] }));
        assert!(matches!(wrong, Err(Fault::Mismatch { path, .. }) if path == "/children/0"));
    }

    #[test]
    fn work_that_grows_with_the_value_is_not_done_here() {
        // Two ways into each level: the value's depth doubles the work.
        let next = json!({ "properties": { "a": { "$ref": "#" } } });
        let schema = json!({ "anyOf": [next, next] });
        light(&schema);
        let mut value = json!({});
        for _ in 0..60 {
            value = json!({ "a": value });
        }
        assert!(!cost::is_small(&schema, &value));
        let unevaluated = json!({ "unevaluatedProperties": false,
            "allOf": [{ "properties": { "a": { "$ref": "#" } } }] });
        assert!(!cost::is_small(&unevaluated, &value));
        let many = Value::Array((0..100_000).map(Value::from).collect());
        assert!(!cost::is_small(
            &json!({ "items": { "type": "integer" } }),
            &many
        ));
        let text = Value::String("a".repeat(1_000_000));
        assert!(!cost::is_small(&json!({ "pattern": "(a|b){100}c" }), &text));
        assert!(cost::is_small(
            &json!({ "pattern": "^[a-z]+$" }),
            &json!("abc")
        ));
    }

    #[test]
    fn patterns_that_go_back_are_left_to_the_sandbox() {
        for pattern in [
            "^(?!a)b",
            "(?<=a)b",
            r"(a)\1",
            r"(?<n>a)\k<n>",
            "(a{1000}){1000}",
        ] {
            let read = Schema::read(&json!({ "pattern": pattern })).expect("within bounds");
            assert!(read.validator.is_none(), "{pattern}");
        }
        // Where no schema should be, too: each of them would be compiled.
        let elsewhere = json!({ "allOf": [{ "$ref": "#/examples/0" }],
            "examples": [{ "pattern": "(a{100}){10}" }] });
        let read = Schema::read(&elsewhere).expect("within bounds");
        assert!(read.validator.is_none());
        light(&json!({ "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" }));
        light(&json!({ "pattern": r"^\\1$" }));
    }

    #[test]
    fn no_schema_is_told_in_short_words() {
        assert!(refused(&json!({ "type": "strin" })).len() < 1200);
        let long = "x".repeat(100_000);
        let schema = light(&json!({ "type": "integer" }));
        let fault = evaluate(&schema.validator.expect("light"), &json!(long));
        assert!(matches!(fault, Err(Fault::Mismatch { why, .. }) if why.len() < 1100));
        let remote = json!({ "$ref": "http://127.0.0.1:1/schema.json" });
        let read = Schema::read(&remote).map(|read| read.validator.is_some());
        // Nothing is fetched, wherever it is compiled.
        assert_eq!(read, Ok(false));
        assert!(in_sandbox(&remote, None).is_err());
    }

    /// The largest that is compiled here must leave room on the stack of a worker, which has 2 MiB.
    #[test]
    fn the_deepest_light_schema_fits_on_half_a_stack() {
        let mut defs = serde_json::Map::new();
        for level in 0..12 {
            let mut schema = json!({ "$ref": format!("#/$defs/l{}", (level + 1) % 12) });
            for _ in 0..((bounds::LIGHT_DEPTH - 4) / 2) {
                schema = json!({ "properties": { "a": schema } });
            }
            defs.insert(format!("l{level}"), schema);
        }
        let schema = json!({ "$ref": "#/$defs/l0", "$defs": defs });
        let mut value = json!({});
        for _ in 0..120 {
            value = json!({ "a": value });
        }
        let run = move || {
            let schema = light(&schema);
            if cost::is_small(&schema.source, &value) {
                let _ = evaluate(schema.validator.as_ref().expect("light"), &value);
            }
        };
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run);
        thread.expect("a thread").join().expect("enough stack");
    }
}
