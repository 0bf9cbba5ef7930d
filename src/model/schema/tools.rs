//! The schema of a tool's arguments: an object, without alternatives at its root, in the current
//! draft's words. `{}`, a missing type, `$ref`, `anyOf`, `oneOf`, `allOf` and truth values at the
//! root are what makes Anthropic and OpenAI refuse the whole request.

use serde_json::{Map, Value, json};

use super::bounds::Budget;
use super::combine::{both, flattened, members_of};
use super::keywords::{OF_NAMED, OF_SCHEMA, OF_SCHEMAS, modernize};
use super::{Fitted, Unfit};

/// A schema that could not be said is shown to the model, up to here.
const MAX_SHOWN: usize = 4_000;

/// What can not stand at the root.
const NOT_AT_ROOT: &[&str] = &["not", "if", "then", "else", "enum", "const"];

/// Any object, with the schema in the description.
pub fn degraded(schema: &Value) -> Fitted {
    Fitted {
        schema: json!({ "type": "object", "properties": {} }),
        note: Some(format!("The arguments, as JSON Schema: {}", shown(schema))),
        strict: false,
    }
}

/// A schema's text, as much as is worth showing. Depth is no matter: it was parsed before.
pub fn shown(schema: &Value) -> String {
    let text = schema.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text,
    }
}

/// The schema with an object at its root, and what is to be said beside it.
pub fn root_of(schema: &Value) -> Result<(Value, Option<String>), Unfit> {
    let mut budget = Budget::default();
    budget.spend_on(schema)?;
    let mut root = match members_of(schema, schema, &mut budget)? {
        Some(members) => flattened(members, schema, 0, &mut budget)?,
        None => Map::new(),
    };
    let mut notes = Vec::new();
    for keyword in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = root.shift_remove(keyword) {
            notes.push(format!("One of: {}", shown(&json!(choices))));
            root = with_choices(root, &choices, schema, &mut budget)?;
        }
    }
    for keyword in NOT_AT_ROOT {
        if let Some(value) = root.shift_remove(*keyword) {
            notes.push(format!("{keyword}: {}", shown(&value)));
        }
    }
    let is_object = match root.get("type") {
        None => true,
        Some(Value::String(kind)) => kind == "object",
        Some(kinds) => kinds
            .as_array()
            .is_some_and(|list| list.contains(&json!("object"))),
    };
    if !is_object {
        // Arguments are an object, whatever is written.
        notes.push(format!("As JSON Schema: {}", shown(schema)));
        root = Map::new();
    }
    root.insert("type".to_owned(), json!("object"));
    root.entry("properties").or_insert_with(|| json!({}));
    for keyword in ["$defs", "definitions"] {
        if let Some(defs) = schema.get(keyword).filter(|defs| defs.is_object()) {
            root.entry(keyword).or_insert_with(|| defs.clone());
        }
    }
    let mut root = Value::Object(root);
    modernized(&mut root, 0, &mut budget)?;
    // Other references would lead elsewhere now, or nowhere.
    inline_pointers(&mut root, schema, &mut budget)?;
    let note = (!notes.is_empty()).then(|| notes.join("\n"));
    Ok((root, note))
}

/// Alternatives as one object: the members of all, of which those are required that all require.
fn with_choices(
    base: Map<String, Value>,
    choices: &[Value],
    schema: &Value,
    budget: &mut Budget,
) -> Result<Map<String, Value>, Unfit> {
    let mut members: Map<String, Value> = Map::new();
    let mut required: Option<Vec<Value>> = None;
    for choice in choices {
        let Some(choice) = members_of(choice, schema, budget)? else {
            continue;
        };
        let choice = flattened(choice, schema, 0, budget)?;
        let own = choice.get("required").and_then(Value::as_array);
        let own = own.cloned().unwrap_or_default();
        required = Some(match required {
            None => own,
            Some(all) => all.into_iter().filter(|name| own.contains(name)).collect(),
        });
        let Some(Value::Object(named)) = choice.get("properties") else {
            continue;
        };
        for (name, said) in named {
            budget.spend_on(said)?;
            match members.get_mut(name) {
                None => {
                    members.insert(name.clone(), said.clone());
                }
                Some(known) if known == said => {}
                Some(known) => {
                    let is_plain = known.as_object().is_some_and(|known| known.len() == 1);
                    match known.get_mut("anyOf").and_then(Value::as_array_mut) {
                        Some(list) if is_plain && list.contains(said) => {}
                        Some(list) if is_plain => list.push(said.clone()),
                        _ => *known = json!({ "anyOf": [known.take(), said] }),
                    }
                }
            }
        }
    }
    let mut extra = Map::new();
    extra.insert("properties".to_owned(), Value::Object(members));
    extra.insert("required".to_owned(), json!(required.unwrap_or_default()));
    let mut all = both(base, extra);
    all.shift_remove("additionalProperties");
    if all.get("required") == Some(&json!([])) {
        all.shift_remove("required");
    }
    Ok(all)
}

/// The current draft's words, at each level.
fn modernized(schema: &mut Value, depth: usize, budget: &mut Budget) -> Result<(), Unfit> {
    budget.step(depth)?;
    let Value::Object(members) = schema else {
        return Ok(());
    };
    modernize(members);
    members.shift_remove("$schema");
    members.shift_remove("$id");
    for (name, value) in members.iter_mut() {
        each_below(name, value, &mut |below| {
            modernized(below, depth + 1, budget)
        })?;
    }
    Ok(())
}

/// Calls `visit` with the schemas that a member of a schema holds.
pub fn each_below(
    name: &str,
    value: &mut Value,
    visit: &mut dyn FnMut(&mut Value) -> Result<(), Unfit>,
) -> Result<(), Unfit> {
    match value {
        Value::Object(named) if OF_NAMED.contains(&name) => named.values_mut().try_for_each(visit),
        Value::Array(list) if OF_SCHEMAS.contains(&name) => list.iter_mut().try_for_each(visit),
        one if OF_SCHEMA.contains(&name) => visit(one),
        _ => Ok(()),
    }
}

/// Keeps references to `$defs` and `definitions`, which stay where they were; what others led to
/// is put there too.
fn inline_pointers(root: &mut Value, schema: &Value, budget: &mut Budget) -> Result<(), Unfit> {
    let mut hoisted: Map<String, Value> = Map::new();
    let mut pointers = Pointers {
        stem: free_stem(&[&*root, schema]),
        known: Vec::new(),
    };
    rewrite(root, schema, &mut pointers, 0, budget)?;
    let mut done = 0;
    while done < pointers.known.len() {
        let pointer = pointers.known[done].clone();
        let mut target = super::keywords::resolve(schema, &pointer)
            .cloned()
            .unwrap_or_else(|| json!({}));
        budget.spend_on(&target)?;
        modernized(&mut target, 0, budget)?;
        rewrite(&mut target, schema, &mut pointers, 0, budget)?;
        hoisted.insert(format!("{}_{done}", pointers.stem), target);
        done += 1;
    }
    if !hoisted.is_empty()
        && let Some(Value::Object(defs)) = root
            .as_object_mut()
            .map(|root| root.entry("$defs").or_insert_with(|| json!({})))
    {
        defs.extend(hoisted);
    }
    Ok(())
}

/// References to other places, and how what they lead to is named: the stem and a number.
struct Pointers {
    stem: String,
    known: Vec<String>,
}

/// A stem that no definition's name begins with.
fn free_stem(schemas: &[&Value]) -> String {
    let mut stem = "at".to_owned();
    let defs = || {
        schemas
            .iter()
            .filter_map(|schema| schema["$defs"].as_object())
    };
    while defs().flatten().any(|(name, _)| {
        let rest = name.strip_prefix(stem.as_str());
        rest.is_some_and(|rest| rest.starts_with('_'))
    }) {
        stem.push('t');
    }
    stem
}

fn rewrite(
    value: &mut Value,
    schema: &Value,
    pointers: &mut Pointers,
    depth: usize,
    budget: &mut Budget,
) -> Result<(), Unfit> {
    budget.step(depth)?;
    let Value::Object(members) = value else {
        return Ok(());
    };
    if let Some(Value::String(pointer)) = members.get_mut("$ref") {
        let stays = ["#/$defs/", "#/definitions/"]
            .iter()
            .any(|home| pointer.starts_with(home));
        if super::keywords::resolve(schema, pointer).is_none() {
            // It leads nowhere: anything may be there.
            members.shift_remove("$ref");
        } else if !stays {
            let at = match pointers.known.iter().position(|known| known == pointer) {
                Some(at) => at,
                None => {
                    pointers.known.push(pointer.clone());
                    pointers.known.len() - 1
                }
            };
            *pointer = format!("#/$defs/{}_{at}", pointers.stem);
        }
    }
    for (name, value) in members.iter_mut() {
        each_below(name, value, &mut |below| {
            rewrite(below, schema, pointers, depth + 1, budget)
        })?;
    }
    Ok(())
}
