//! A schema in a target's words. References stay references: what they lead to is translated once
//! and put into `$defs`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::Unfit;
use super::bounds::Budget;
use super::combine::{both, flattened, members_of};
use super::keywords::{SILENT, TYPES, modernize, resolve};
use super::target::Target;

/// What is said in the description of a schema's keywords, at most.
const MAX_NOTE: usize = 1_000;
/// Alternatives are copied with what they share, up to here.
const MAX_CHOICES: usize = 256;

/// Translates the whole of `schema`.
pub fn translate(schema: &Value, target: &Target) -> Result<Value, Unfit> {
    let mut translator = Translator {
        root: schema,
        target,
        budget: Budget::default(),
        names: HashMap::new(),
        taken: HashSet::new(),
        under_way: Vec::new(),
        defs: Map::new(),
    };
    let mut begin = schema.clone();
    if target.object_root || begin.get("$ref").is_some() {
        // The root itself is no reference.
        begin = match members_of(schema, schema, &mut translator.budget)? {
            Some(members) => Value::Object(members),
            None => return Err(Unfit::TooFree),
        };
    }
    let mut whole = translator.schema(&begin, 0)?;
    if target.object_root && whole["type"] != "object" {
        return Err(Unfit::TooFree);
    }
    if !translator.defs.is_empty()
        && let Value::Object(members) = &mut whole
    {
        members.insert("$defs".to_owned(), Value::Object(translator.defs));
    }
    Ok(whole)
}

struct Translator<'s> {
    root: &'s Value,
    target: &'s Target,
    budget: Budget,
    /// References and the names of what they lead to.
    names: HashMap<String, String>,
    taken: HashSet<String>,
    /// What is being translated.
    under_way: Vec<String>,
    defs: Map<String, Value>,
}

/// A translated schema, as it comes about.
#[derive(Default)]
struct Out {
    members: Map<String, Value>,
    /// Keywords that the target does not have.
    unsaid: Map<String, Value>,
}

impl Out {
    fn say(&mut self, name: &str, value: Value) {
        self.members.insert(name.to_owned(), value);
    }

    fn leave_unsaid(&mut self, name: &str, value: &Value) {
        self.unsaid.insert(name.to_owned(), value.clone());
    }

    /// With what was left unsaid in the description.
    fn finish(mut self) -> Value {
        if !self.unsaid.is_empty() {
            let mut note = format!("Must also hold: {}", Value::Object(self.unsaid));
            if let Some((at, _)) = note.char_indices().nth(MAX_NOTE) {
                note.truncate(at);
                note.push('…');
            }
            let said = self.members.get("description").and_then(Value::as_str);
            let text = match said {
                Some(said) if !said.is_empty() => format!("{said}\n\n{note}"),
                _ => note,
            };
            self.members.insert("description".to_owned(), json!(text));
        }
        Value::Object(self.members)
    }
}

impl Translator<'_> {
    fn schema(&mut self, schema: &Value, depth: usize) -> Result<Value, Unfit> {
        self.budget.step(depth)?;
        match schema {
            Value::Object(members) => {
                let mut members = members.clone();
                self.budget.spend_on_map(&members)?;
                modernize(&mut members);
                self.members(members, depth)
            }
            Value::Bool(false) if !self.target.closed => {
                Ok(json!({ "description": "Nothing fits here." }))
            }
            Value::Bool(false) => Err(Unfit::TooFree),
            _ => self.any(Out::default()),
        }
    }

    /// A value that may be anything.
    fn any(&self, out: Out) -> Result<Value, Unfit> {
        match self.target.open_values {
            true => Ok(out.finish()),
            false => Err(Unfit::TooFree),
        }
    }

    fn members(&mut self, members: Map<String, Value>, depth: usize) -> Result<Value, Unfit> {
        if members.contains_key("$ref") {
            return self.reference(members, depth);
        }
        let members = flattened(members, self.root, depth, &mut self.budget)?;
        for keyword in ["anyOf", "oneOf"] {
            if members.contains_key(keyword) {
                return self.choice(members, keyword, depth);
            }
        }
        if members.contains_key("$ref") {
            return self.reference(members, depth);
        }
        let kinds = kinds_of(&members);
        if kinds.len() > 1 && !self.target.type_lists {
            return self.by_kind(&members, &kinds, depth);
        }
        self.plain(members, &kinds, depth)
    }

    /// One schema for each of several types.
    fn by_kind(
        &mut self,
        members: &Map<String, Value>,
        kinds: &[String],
        depth: usize,
    ) -> Result<Value, Unfit> {
        let mut out = Out::default();
        let mut choices = Vec::with_capacity(kinds.len());
        for kind in kinds {
            self.budget.spend_on_map(members)?;
            let mut one = members.clone();
            one.insert("type".to_owned(), json!(kind));
            for note in ["title", "description", "default"] {
                if let Some(said) = one.shift_remove(note)
                    && (note != "default" || self.target.keywords.contains(&note))
                {
                    out.say(note, said);
                }
            }
            if let Some(Value::Array(values)) = one.get_mut("enum") {
                values.retain(|value| is_of(value, kind));
                if values.is_empty() {
                    continue;
                }
            }
            choices.push(self.plain(one, std::slice::from_ref(kind), depth + 1)?);
        }
        out.say("anyOf", Value::Array(choices));
        Ok(out.finish())
    }

    /// A reference, with what stands beside it.
    fn reference(&mut self, mut members: Map<String, Value>, depth: usize) -> Result<Value, Unfit> {
        let Some(Value::String(pointer)) = members.shift_remove("$ref") else {
            return self.members(members, depth);
        };
        let mut out = Out::default();
        for (name, value) in &members {
            match name.as_str() {
                "title" | "description" => out.say(name, value.clone()),
                name if SILENT.contains(&name) || name == "default" => {}
                name => out.leave_unsaid(name, value),
            }
        }
        let Some(name) = self.definition(&pointer, depth)? else {
            return self.any(out);
        };
        let reference = json!(format!("#/$defs/{name}"));
        if self.target.described_refs || out.members.is_empty() && out.unsaid.is_empty() {
            out.say("$ref", reference);
        } else {
            out.say("anyOf", json!([{ "$ref": reference }]));
        }
        Ok(out.finish())
    }

    /// The name under which what `pointer` leads to is in `$defs`; `None`: nowhere.
    fn definition(&mut self, pointer: &str, depth: usize) -> Result<Option<String>, Unfit> {
        if let Some(name) = self.names.get(pointer) {
            let is_within = self.under_way.contains(name);
            return match is_within && !self.target.recursive {
                true => Err(Unfit::TooFree),
                false => Ok(Some(name.clone())),
            };
        }
        let Some(schema) = resolve(self.root, pointer) else {
            return Ok(None);
        };
        let name = self.name(pointer);
        self.names.insert(pointer.to_owned(), name.clone());
        self.under_way.push(name.clone());
        let translated = self.schema(schema, depth + 1)?;
        self.under_way.pop();
        self.defs.insert(name.clone(), translated);
        Ok(Some(name))
    }

    fn name(&mut self, pointer: &str) -> String {
        let last = pointer.rsplit('/').next().unwrap_or_default();
        let mut name: String = last
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .take(40)
            .collect();
        if name.is_empty() {
            name.push_str("root");
        }
        while !self.taken.insert(name.clone()) {
            name = format!("{name}_{}", self.taken.len());
        }
        name
    }

    /// Alternatives; what they share goes into each.
    fn choice(
        &mut self,
        mut members: Map<String, Value>,
        keyword: &str,
        depth: usize,
    ) -> Result<Value, Unfit> {
        let Some(Value::Array(choices)) = members.shift_remove(keyword) else {
            return self.members(members, depth);
        };
        if choices.len() > MAX_CHOICES {
            return Err(Unfit::TooLarge);
        }
        let mut out = Out::default();
        // Further alternatives would multiply.
        if let Some(others) = members.shift_remove("oneOf") {
            out.leave_unsaid("oneOf", &others);
        }
        for note in ["title", "description"] {
            if let Some(said) = members.shift_remove(note) {
                out.say(note, said);
            }
        }
        members.retain(|name, _| !SILENT.contains(&name.as_str()) && name != "default");
        let mut translated = Vec::with_capacity(choices.len());
        for choice in &choices {
            if choice == &Value::Bool(false) {
                continue;
            }
            let said = match members.is_empty() {
                true => self.schema(choice, depth + 1)?,
                false => {
                    let Some(own) = members_of(choice, self.root, &mut self.budget)? else {
                        return Err(Unfit::TooFree);
                    };
                    self.budget.spend_on_map(&members)?;
                    self.members(both(own, members.clone()), depth + 1)?
                }
            };
            if !translated.contains(&said) {
                translated.push(said);
            }
        }
        if translated.is_empty() {
            return Err(Unfit::TooFree);
        }
        out.say("anyOf", Value::Array(translated));
        Ok(out.finish())
    }

    /// A schema without others at its own place.
    fn plain(
        &mut self,
        members: Map<String, Value>,
        kinds: &[String],
        depth: usize,
    ) -> Result<Value, Unfit> {
        let mut out = Out::default();
        let has = |kind: &str| kinds.iter().any(|k| k == kind);
        match kinds {
            [] => {}
            [kind] => out.say("type", json!(kind)),
            kinds => out.say("type", json!(kinds)),
        }
        let is_fixed = members.contains_key("enum") || members.contains_key("const");
        if kinds.is_empty() && !is_fixed {
            for (name, value) in &members {
                self.keyword(name, value, &mut out);
            }
            return self.any(out);
        }
        if has("object") {
            self.object(&members, &mut out, depth)?;
        }
        if has("array") {
            self.array(&members, &mut out, depth)?;
        }
        for (name, value) in &members {
            match name.as_str() {
                "properties" | "required" | "additionalProperties" | "patternProperties"
                    if has("object") => {}
                "items" | "prefixItems" if has("array") => {}
                "enum" | "const" => self.values(name, value, &mut out)?,
                _ => self.keyword(name, value, &mut out),
            }
        }
        Ok(out.finish())
    }

    /// A keyword that holds no schema that is looked into.
    fn keyword(&self, name: &str, value: &Value, out: &mut Out) {
        match name {
            "type" => {}
            "title" | "description" => out.say(name, value.clone()),
            "format" => match (self.target.formats, value.as_str()) {
                (None, _) => out.say(name, value.clone()),
                (Some(known), Some(format)) if known.contains(&format) => {
                    out.say(name, value.clone());
                }
                _ => out.leave_unsaid(name, value),
            },
            "minItems" if self.target.most_min_items.is_some() => {
                let most = self.target.most_min_items;
                let asked = value.as_f64().map(|n| n as u64);
                out.say(name, json!(asked.min(most)));
                if asked > most {
                    out.leave_unsaid(name, value);
                }
            }
            "exclusiveMinimum" | "exclusiveMaximum"
                if !self.target.keywords.contains(&name)
                    && self.target.keywords.contains(&"minimum") =>
            {
                let limit = match name {
                    "exclusiveMinimum" => "minimum",
                    _ => "maximum",
                };
                if !out.members.contains_key(limit) {
                    out.say(limit, value.clone());
                }
                out.leave_unsaid(name, value);
            }
            name if self.target.keywords.contains(&name) => out.say(name, value.clone()),
            name if SILENT.contains(&name) => {}
            "default" => {}
            _ => out.leave_unsaid(name, value),
        }
    }

    fn values(&self, name: &str, value: &Value, out: &mut Out) -> Result<(), Unfit> {
        let one = std::slice::from_ref(value);
        let listed = match (name, value) {
            ("enum", Value::Array(values)) => values.as_slice(),
            _ => one,
        };
        let is_scalar = |v: &Value| !v.is_object() && !v.is_array();
        let is_taken =
            |v: &Value| is_scalar(v) && (self.target.any_enum || v.is_string() || v.is_number());
        if listed.iter().all(is_taken) {
            match name == "const" && !self.target.consts {
                true => out.say("enum", json!(listed)),
                false => out.say(name, value.clone()),
            }
            return Ok(());
        }
        if self.target.closed && !listed.iter().all(is_scalar) {
            return Err(Unfit::TooFree);
        }
        out.leave_unsaid(name, value);
        Ok(())
    }

    fn object(
        &mut self,
        members: &Map<String, Value>,
        out: &mut Out,
        depth: usize,
    ) -> Result<(), Unfit> {
        let none = Map::new();
        let named = members.get("properties").and_then(Value::as_object);
        let named = named.unwrap_or(&none);
        let required = members.get("required").and_then(Value::as_array);
        let required: Vec<&str> = required
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let others = members.get("additionalProperties");
        let patterns = members.get("patternProperties");
        if self.target.closed {
            let is_open = match others {
                Some(Value::Bool(false)) => false,
                Some(Value::Object(_)) => true,
                _ => named.is_empty(),
            };
            if is_open || patterns.is_some() || required.iter().any(|r| !named.contains_key(*r)) {
                return Err(Unfit::TooFree);
            }
        }
        if self.target.all_required && named.keys().any(|name| !required.contains(&name.as_str())) {
            return Err(Unfit::TooFree);
        }
        let mut properties = Map::new();
        for (name, schema) in named {
            properties.insert(name.clone(), self.schema(schema, depth + 1)?);
        }
        let is_named = members.contains_key("properties") || self.target.closed;
        if is_named {
            out.say("properties", Value::Object(properties));
        }
        let mut kept: Vec<&str> = Vec::with_capacity(required.len());
        for name in required {
            if named.contains_key(name) && !kept.contains(&name) {
                kept.push(name);
            }
        }
        if !kept.is_empty() || members.contains_key("required") && is_named {
            out.say("required", json!(kept));
        }
        if self.target.closed {
            out.say("additionalProperties", json!(false));
            return Ok(());
        }
        match (others, patterns) {
            (_, Some(patterns)) => out.leave_unsaid("patternProperties", patterns),
            (Some(schema @ Value::Object(_)), None) => {
                let schema = self.schema(schema, depth + 1)?;
                out.say("additionalProperties", schema);
            }
            (Some(others), None) => out.say("additionalProperties", others.clone()),
            (None, None) => {}
        }
        Ok(())
    }

    fn array(
        &mut self,
        members: &Map<String, Value>,
        out: &mut Out,
        depth: usize,
    ) -> Result<(), Unfit> {
        let tuple = members.get("prefixItems").and_then(Value::as_array);
        let rest = members.get("items");
        if self.target.tuples || tuple.is_none() {
            if let Some(tuple) = tuple {
                let mut places = Vec::with_capacity(tuple.len());
                for schema in tuple {
                    places.push(self.schema(schema, depth + 1)?);
                }
                out.say("prefixItems", Value::Array(places));
            }
            match rest {
                Some(Value::Bool(false)) if tuple.is_some() => {
                    out.leave_unsaid("items", &json!(false));
                }
                Some(rest) => {
                    let rest = self.schema(rest, depth + 1)?;
                    out.say("items", rest);
                }
                None if self.target.open_values => {}
                None => return Err(Unfit::TooFree),
            }
            return Ok(());
        }
        // Each item is one of those that may be at some place.
        let tuple = tuple.map(Vec::as_slice).unwrap_or_default();
        let rest = rest.filter(|rest| *rest != &json!(false));
        let is_open = members.get("items").is_none();
        if is_open && !self.target.open_values {
            return Err(Unfit::TooFree);
        }
        let mut places: Vec<Value> = Vec::with_capacity(tuple.len() + 1);
        for schema in tuple.iter().chain(rest) {
            let place = self.schema(schema, depth + 1)?;
            if !places.contains(&place) {
                places.push(place);
            }
        }
        out.leave_unsaid("prefixItems", &json!(tuple));
        let items = match places.len() {
            1 => places.remove(0),
            _ => json!({ "anyOf": places }),
        };
        out.say("items", items);
        Ok(())
    }
}

/// The types of what a schema describes: as it says, or as its keywords and values tell.
fn kinds_of(members: &Map<String, Value>) -> Vec<String> {
    match members.get("type") {
        Some(Value::String(kind)) => return vec![kind.clone()],
        Some(Value::Array(kinds)) => {
            let mut distinct: Vec<String> = Vec::with_capacity(kinds.len());
            for kind in kinds.iter().filter_map(Value::as_str) {
                if !distinct.iter().any(|known| known == kind) {
                    distinct.push(kind.to_owned());
                }
            }
            return distinct;
        }
        _ => {}
    }
    let one = members.get("const").map(std::slice::from_ref);
    let listed = members.get("enum").and_then(Value::as_array);
    if let Some(values) = one.or(listed.map(Vec::as_slice)) {
        let is_uniform = |kind: &&&str| values.iter().all(|value| is_of(value, kind));
        return TYPES
            .iter()
            .find(is_uniform)
            .map(|kind| vec![(*kind).to_owned()])
            .unwrap_or_default();
    }
    let has = |names: &[&str]| names.iter().any(|name| members.contains_key(*name));
    if has(&[
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
    ]) {
        return vec!["object".to_owned()];
    }
    if has(&["items", "prefixItems"]) {
        return vec!["array".to_owned()];
    }
    Vec::new()
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    }
}
