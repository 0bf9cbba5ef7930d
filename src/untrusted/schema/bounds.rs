//! What a schema may be: its size, its depth, and how far it unfolds for one value.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::SchemaError;
use super::walk::{REFERENCES, References, parts, same_value};

/// Values in a schema, and bytes of its texts; more is refused.
const MAX_NODES: usize = 50_000;
const MAX_TEXT: usize = 1024 * 1024;
/// Levels of lists and objects; more are refused.
const MAX_DEPTH: usize = 96;
/// Schemas that apply to one value, each as often as it is reached; more are refused.
const MAX_UNFOLDED: u64 = 100_000;
/// References in a row; more are refused.
const MAX_CHAIN: usize = 200;
/// Of one pattern, in bytes.
const MAX_PATTERN: usize = 4096;

/// Up to here a schema is compiled and evaluated on a worker.
const LIGHT_NODES: usize = 2_000;
pub const LIGHT_DEPTH: usize = 32;
const LIGHT_UNFOLDED: u64 = 5_000;
/// Of all patterns together, with their repetitions written out.
const LIGHT_PATTERNS: u64 = 20_000;
/// What a compiled pattern may take.
pub const PATTERN_BYTES: usize = 4 * 1024 * 1024;

/// Where a schema is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Light,
    /// In the sandbox.
    Heavy,
}

fn refuse<T>(why: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError(why.into()))
}

/// How much a schema is; what is beyond all measure is refused.
pub fn weigh(schema: &Value) -> Result<Weight, SchemaError> {
    let size = size_of(schema)?;
    let mut survey = Survey::default();
    survey.collect(schema)?;
    let mut references = References::new(schema);
    for found in &survey.schemas {
        references.note(found);
    }
    let mut unfolding = Unfolding {
        references,
        known: HashMap::new(),
        surveyed: survey.schemas.iter().copied().map(address).collect(),
        leaves: false,
    };
    let mut unfolded = 0;
    for found in &survey.schemas {
        unfolded = unfolded.max(unfolding.of(found, 0)?);
    }
    if unfolded > MAX_UNFOLDED {
        return refuse(format!(
            "the schema unfolds to more than {MAX_UNFOLDED} schemas for one value"
        ));
    }
    let is_light = size.nodes <= LIGHT_NODES
        && size.depth <= LIGHT_DEPTH
        && unfolded <= LIGHT_UNFOLDED
        && !unfolding.leaves
        && !survey.has_inner_ids
        && survey.patterns <= LIGHT_PATTERNS;
    Ok(match is_light {
        true => Weight::Light,
        false => Weight::Heavy,
    })
}

#[derive(Default)]
struct Size {
    nodes: usize,
    text: usize,
    depth: usize,
}

fn size_of(schema: &Value) -> Result<Size, SchemaError> {
    let mut size = Size::default();
    let mut open = vec![(schema, 1)];
    while let Some((value, depth)) = open.pop() {
        size.nodes += 1;
        size.depth = size.depth.max(depth);
        match value {
            Value::String(text) => size.text += text.len(),
            Value::Array(list) => open.extend(list.iter().map(|one| (one, depth + 1))),
            Value::Object(map) => {
                size.text += map.keys().map(String::len).sum::<usize>();
                open.extend(map.values().map(|one| (one, depth + 1)));
            }
            _ => {}
        }
        if size.nodes + open.len() > MAX_NODES || size.text > MAX_TEXT {
            return refuse(format!(
                "the schema is too large: it may have {MAX_NODES} values and {MAX_TEXT} bytes"
            ));
        }
        if size.depth > MAX_DEPTH {
            return refuse(format!(
                "the schema is nested too deeply: {MAX_DEPTH} levels are allowed"
            ));
        }
    }
    Ok(size)
}

/// All schemas inside a schema.
#[derive(Default)]
struct Survey<'a> {
    schemas: Vec<&'a Value>,
    /// The sum of [`pattern_weight`].
    patterns: u64,
    /// References from there have another base.
    has_inner_ids: bool,
}

impl<'a> Survey<'a> {
    fn collect(&mut self, root: &'a Value) -> Result<(), SchemaError> {
        let mut open = vec![root];
        while let Some(schema) = open.pop() {
            self.schemas.push(schema);
            let Value::Object(map) = schema else { continue };
            let is_root = std::ptr::eq(schema, root);
            self.has_inner_ids |= !is_root && (map.contains_key("$id") || map.contains_key("id"));
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
                self.pattern(pattern)?;
            }
            if let Some(by_pattern) = map.get("patternProperties").and_then(Value::as_object) {
                for pattern in by_pattern.keys() {
                    self.pattern(pattern)?;
                }
            }
            // Texts that are held against it are patterns themselves.
            if map.get("format").and_then(Value::as_str) == Some("regex") {
                self.patterns = u64::MAX;
            }
            open.extend(same_value(map).chain(parts(map)));
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), SchemaError> {
        if pattern.len() > MAX_PATTERN {
            return refuse(format!(
                "a pattern of the schema is longer than {MAX_PATTERN} bytes"
            ));
        }
        self.patterns = self.patterns.saturating_add(pattern_weight(pattern));
        Ok(())
    }
}

/// A pattern's length with all repetitions written out, at most; endless when it looks back or
/// around, for which there is no engine whose time is linear.
pub fn pattern_weight(pattern: &str) -> u64 {
    let mut weight = pattern.len().max(1) as u64;
    let bytes = pattern.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => {
                match bytes.get(at + 1) {
                    Some(b'1'..=b'9' | b'k') => return u64::MAX,
                    // A class of Unicode is a large table.
                    Some(b'p' | b'P') => weight = weight.saturating_add(500),
                    _ => {}
                }
                at += 1;
            }
            b'(' if bytes[at..].starts_with(b"(?") => {
                let rest = &bytes[at + 2..];
                let around = [&b"="[..], b"!", b"<=", b"<!", b">"];
                if around.iter().any(|begin| rest.starts_with(begin)) {
                    return u64::MAX;
                }
            }
            b'{' => {
                let digits = |byte: &u8| byte.is_ascii_digit() || *byte == b',';
                let inside: String = bytes[at + 1..]
                    .iter()
                    .take_while(|byte| digits(byte))
                    .map(|byte| char::from(*byte))
                    .collect();
                let times = inside
                    .split(',')
                    .filter_map(|n| n.parse::<u64>().ok())
                    .max();
                weight = weight.saturating_mul(times.unwrap_or(1).max(1));
            }
            _ => {}
        }
        at += 1;
    }
    weight
}

/// How many schemas apply to one value, references followed.
struct Unfolding<'a> {
    references: References<'a>,
    /// By address; 0 while it is being counted.
    known: HashMap<usize, u64>,
    /// By address, the schemas whose patterns were weighed.
    surveyed: HashSet<usize>,
    /// Whether a reference leads where this cannot follow, or to a place where no schema should be
    /// and nobody looked for patterns.
    leaves: bool,
}

fn address(schema: &Value) -> usize {
    std::ptr::from_ref(schema) as usize
}

impl<'a> Unfolding<'a> {
    fn of(&mut self, schema: &'a Value, chain: usize) -> Result<u64, SchemaError> {
        let Value::Object(map) = schema else {
            return Ok(1);
        };
        let key = address(schema);
        match self.known.get(&key) {
            Some(0) => return refuse("the schema refers to itself without end"),
            Some(count) => return Ok(*count),
            None => {}
        }
        if chain > MAX_CHAIN {
            return refuse(format!(
                "the schema is nested too deeply: {MAX_CHAIN} references in a row are allowed"
            ));
        }
        self.known.insert(key, 0);
        let mut count: u64 = 1;
        for reference in REFERENCES.iter().filter_map(|key| map.get(*key)?.as_str()) {
            match self.references.find(reference) {
                Some(target) => {
                    self.leaves |= !self.surveyed.contains(&address(target));
                    count = count.saturating_add(self.of(target, chain + 1)?);
                }
                None => self.leaves = true,
            }
        }
        for inner in same_value(map) {
            count = count.saturating_add(self.of(inner, chain + 1)?);
        }
        self.known.insert(key, count);
        Ok(count)
    }
}
