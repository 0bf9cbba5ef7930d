//! Schemas that are made of others: `allOf` as one schema, alternatives with what they share.

use serde_json::{Map, Value, json};

use super::Unfit;
use super::bounds::Budget;
use super::keywords::{modernize, resolve};

/// A schema and what it is made of.
type Members = Map<String, Value>;

/// References that lead to references are followed this far.
const MAX_HOPS: usize = 16;

/// The members of `schema`, or of what it refers to; `None` for what is no schema of members, or
/// leads nowhere.
pub fn members_of(
    schema: &Value,
    root: &Value,
    budget: &mut Budget,
) -> Result<Option<Members>, Unfit> {
    let mut members = match schema {
        Value::Object(members) => members.clone(),
        Value::Bool(true) => Members::new(),
        _ => return Ok(None),
    };
    budget.spend_on_map(&members)?;
    for _ in 0..MAX_HOPS {
        let Some(Value::String(pointer)) = members.shift_remove("$ref") else {
            modernize(&mut members);
            return Ok(Some(members));
        };
        let Some(Value::Object(target)) = resolve(root, &pointer) else {
            return Ok(None);
        };
        budget.spend_on_map(target)?;
        members = both(target.clone(), members);
    }
    Ok(None)
}

/// `schema` without its `allOf`: all of it at once. What two parts say differently of the same
/// thing is said as the first does, but for members of objects, which must be both.
pub fn flattened(
    mut schema: Members,
    root: &Value,
    depth: usize,
    budget: &mut Budget,
) -> Result<Members, Unfit> {
    let Some(Value::Array(parts)) = schema.shift_remove("allOf") else {
        return Ok(schema);
    };
    for part in &parts {
        budget.step(depth)?;
        match members_of(part, root, budget)? {
            Some(members) => {
                let part = flattened(members, root, depth + 1, budget)?;
                budget.spend_on_map(&schema)?;
                schema = both(schema, part);
            }
            // It leads nowhere, or nothing fulfills it.
            None => return Err(Unfit::TooFree),
        }
    }
    Ok(schema)
}

/// What is `first` and `second` at once, or a little more.
pub fn both(mut first: Members, second: Members) -> Members {
    // Each alone would refuse the members that the other names.
    let opened = match (first.get("properties"), second.get("properties")) {
        (Some(ours), Some(theirs)) => ours != theirs,
        _ => false,
    };
    if opened {
        first.shift_remove("additionalProperties");
    }
    for (name, value) in second {
        match (name.as_str(), first.get_mut(&name)) {
            ("additionalProperties", None) if opened => {}
            (_, None) => {
                first.insert(name, value);
            }
            ("properties", Some(Value::Object(ours))) => {
                let Value::Object(theirs) = value else {
                    continue;
                };
                for (name, theirs) in theirs {
                    match ours.get_mut(&name) {
                        None => {
                            ours.insert(name, theirs);
                        }
                        Some(ours) if *ours == theirs => {}
                        Some(ours) => *ours = json!({ "allOf": [ours.take(), theirs] }),
                    }
                }
            }
            ("required", Some(Value::Array(ours))) => {
                if let Value::Array(theirs) = value {
                    for name in theirs {
                        if !ours.contains(&name) {
                            ours.push(name);
                        }
                    }
                }
            }
            ("allOf", Some(Value::Array(ours))) => {
                if let Value::Array(theirs) = value {
                    ours.extend(theirs);
                }
            }
            ("type", Some(ours)) => *ours = common_type(ours, &value),
            ("enum", Some(Value::Array(ours))) => {
                if let Value::Array(theirs) = &value {
                    let common: Vec<Value> = ours
                        .iter()
                        .filter(|v| theirs.contains(v))
                        .cloned()
                        .collect();
                    if !common.is_empty() {
                        *ours = common;
                    }
                }
            }
            (_, Some(_)) => {}
        }
    }
    first
}

/// The types that both name; of an integer and a number, the integer.
fn common_type(ours: &Value, theirs: &Value) -> Value {
    let list = |kind: &Value| match kind {
        Value::Array(kinds) => kinds.clone(),
        one => vec![one.clone()],
    };
    let (first, second) = (list(ours), list(theirs));
    let has = |kinds: &[Value], kind: &Value| {
        kinds.contains(kind) || kind == "integer" && kinds.contains(&json!("number"))
    };
    let mut common: Vec<Value> = first.iter().filter(|k| has(&second, k)).cloned().collect();
    for kind in second.iter().filter(|k| has(&first, k)) {
        if !common.contains(kind) {
            common.push(kind.clone());
        }
    }
    match common.len() {
        0 => ours.clone(),
        1 => common.remove(0),
        _ => Value::Array(common),
    }
}
