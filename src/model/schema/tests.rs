use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::keywords::{OF_NAMED, OF_SCHEMA, OF_SCHEMAS};
use super::target::Target;
use super::*;

/// Calls `look` with each schema within `schema`.
fn each(schema: &Value, look: &mut dyn FnMut(&Map<String, Value>)) {
    let Value::Object(members) = schema else {
        return;
    };
    look(members);
    for (name, value) in members {
        match value {
            Value::Object(named) if OF_NAMED.contains(&name.as_str()) => {
                named.values().for_each(|below| each(below, look));
            }
            Value::Array(list) if OF_SCHEMAS.contains(&name.as_str()) => {
                list.iter().for_each(|below| each(below, look));
            }
            one if OF_SCHEMA.contains(&name.as_str()) => each(one, look),
            _ => {}
        }
    }
}

/// What of a translated schema the target does not take.
fn refused(schema: &Value, target: &Target) -> Vec<String> {
    let mut refused = Vec::new();
    let structure = [
        "type",
        "title",
        "description",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "anyOf",
        "$ref",
        "$defs",
        "format",
    ];
    each(schema, &mut |members| {
        for (name, value) in members {
            let name = name.as_str();
            let is_taken = structure.contains(&name)
                || target.keywords.contains(&name)
                || name == "const" && target.consts
                || name == "prefixItems" && target.tuples
                || name == "minItems" && target.most_min_items.is_some();
            if !is_taken {
                refused.push(format!("{name}: {value}"));
            }
        }
        let is_object = members.get("type") == Some(&json!("object"));
        if is_object && target.closed && members.get("additionalProperties") != Some(&json!(false))
        {
            refused.push(format!("open: {members:?}"));
        }
        if is_object && target.all_required {
            let names = members["properties"].as_object().map_or(0, Map::len);
            if members
                .get("required")
                .and_then(Value::as_array)
                .map_or(0, Vec::len)
                != names
            {
                refused.push(format!("optional: {members:?}"));
            }
        }
        if members.contains_key("$ref") && members.len() > 1 && !target.described_refs {
            let only_defs = members.keys().all(|k| k.starts_with('$'));
            if !only_defs {
                refused.push(format!("beside a reference: {members:?}"));
            }
        }
        if !target.type_lists && members.get("type").is_some_and(Value::is_array) {
            refused.push(format!("types: {members:?}"));
        }
    });
    refused
}

/// A schema, and an instance that it describes, with named members alone.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    let leaf = prop_oneof![
        (1i64..9).prop_map(|n| (
            json!({ "type": "integer", "minimum": 1, "maximum": 9 }),
            json!(n)
        )),
        (1i64..9).prop_map(|n| (json!({ "type": "number", "exclusiveMinimum": 0 }), json!(n))),
        "[a-z]{2,5}".prop_map(|s| (
            json!({ "type": "string", "minLength": 2, "pattern": "^[a-z]+$" }),
            json!(s)
        )),
        Just((
            json!({ "type": "string", "format": "date" }),
            json!("2026-11-27")
        )),
        Just((json!({ "enum": ["a", "b"] }), json!("b"))),
        Just((json!({ "enum": ["a", 1, null, true] }), json!(true))),
        Just((json!({ "const": 7 }), json!(7))),
        Just((
            json!({ "type": ["string", "null"], "maxLength": 3 }),
            Value::Null
        )),
        Just((
            json!({ "type": ["string", "integer"], "minimum": 2 }),
            json!("x")
        )),
        any::<bool>().prop_map(|b| (json!({ "type": "boolean", "description": "d" }), json!(b))),
        Just((
            json!({ "$ref": "#/$defs/word", "description": "a word" }),
            json!("word")
        )),
        Just((json!({ "$ref": "#/definitions/point" }), json!({ "x": 1 }))),
        Just((
            json!({ "$ref": "#/$defs/tree" }),
            json!({ "value": 1, "next": { "value": 2 } })
        )),
        Just((json!({}), json!({ "any": [1] }))),
        Just((
            json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
            json!({ "k": 1 })
        )),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let members =
            proptest::collection::vec((inner.clone(), any::<bool>(), any::<bool>()), 0..4);
        prop_oneof![
            // An object; some members are required, some of the others are there.
            members.prop_map(|members| {
                let (mut properties, mut required, mut instance) =
                    (Map::new(), Vec::new(), Map::new());
                for (at, ((schema, value), is_required, is_there)) in
                    members.into_iter().enumerate()
                {
                    let name = format!("m{at}");
                    if is_required {
                        required.push(name.clone());
                    }
                    if is_required || is_there {
                        instance.insert(name.clone(), value);
                    }
                    properties.insert(name, schema);
                }
                let schema = json!({ "type": "object", "properties": properties,
                    "required": required, "minProperties": 0 });
                (schema, Value::Object(instance))
            }),
            // A list.
            (inner.clone(), 0usize..4).prop_map(|((schema, value), count)| {
                (
                    json!({ "type": "array", "items": schema, "maxItems": 9, "minItems": count }),
                    Value::Array(vec![value; count]),
                )
            }),
            // A tuple, in the words of both drafts.
            (inner.clone(), inner.clone(), any::<bool>()).prop_map(|((a, x), (b, y), old)| {
                let schema = match old {
                    true => json!({ "type": "array", "items": [a, b], "additionalItems": false }),
                    false => json!({ "type": "array", "prefixItems": [a, b], "items": false }),
                };
                (schema, json!([x, y]))
            }),
            // Alternatives.
            (inner.clone(), inner.clone(), any::<bool>()).prop_map(|((a, x), (b, _), one)| {
                let keyword = if one { "oneOf" } else { "anyOf" };
                (json!({ keyword: [a, b, false], "title": "t" }), x)
            }),
            // An object in two parts.
            (inner.clone(), inner.clone()).prop_map(|((a, x), (b, y))| {
                let schema = json!({ "allOf": [
                    { "type": "object", "properties": { "a": a }, "required": ["a"] },
                    { "properties": { "b": b } } ] });
                (schema, json!({ "a": x, "b": y }))
            }),
            // Alternatives that share members.
            (inner.clone(), inner).prop_map(|((a, x), (b, _))| {
                let schema = json!({ "type": "object", "properties": { "a": a, "b": b },
                    "anyOf": [{ "required": ["a"] }, { "required": ["b"] }],
                    "dependentRequired": { "b": ["a"] } });
                (schema, json!({ "a": x }))
            }),
        ]
    })
}

/// With what the references lead to.
fn with_defs(mut schema: Value) -> Value {
    schema["$defs"] = json!({
        "word": { "type": "string", "minLength": 1 },
        "tree": { "type": "object", "required": ["value"], "additionalProperties": false,
            "properties": { "value": { "type": "integer" }, "next": { "$ref": "#/$defs/tree" } } },
    });
    schema["definitions"] = json!({
        "point": { "type": "object", "properties": { "x": { "type": "number", "minimum": 0 } },
            "required": ["x"], "additionalProperties": false },
    });
    schema
}

fn describes(schema: &Value, instance: &Value) -> bool {
    jsonschema::validator_for(schema)
        .unwrap_or_else(|error| panic!("{error}: {schema}"))
        .is_valid(instance)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_is_translated_is_taken_and_describes_what_it_did((schema, instance) in pair()) {
        let schema = with_defs(schema);
        // Old words are no words to the validator, and `oneOf` may fit twice.
        let is_valid = jsonschema::validator_for(&schema).is_ok_and(|v| v.is_valid(&instance));
        for target in [&target::ANTHROPIC, &target::OPENAI_STRICT, &target::GEMINI] {
            let Ok(translated) = translate(&schema, target) else {
                prop_assert!(target.closed, "{}", schema);
                continue;
            };
            let refused = refused(&translated, target);
            prop_assert!(refused.is_empty(), "{refused:?}\n{schema:#}\n{translated:#}");
            prop_assert!(
                !is_valid || describes(&translated, &instance),
                "{instance}\n{schema:#}\n{translated:#}"
            );
        }
        for dialect in [Dialect::Openai, Dialect::Anthropic, Dialect::Gemini] {
            let fitted = tool(&schema, false, dialect);
            prop_assert_eq!(&fitted.schema["type"], &json!("object"));
            prop_assert!(fitted.schema["properties"].is_object());
            for keyword in ["anyOf", "oneOf", "allOf", "not", "enum", "$ref"] {
                prop_assert!(fitted.schema.get(keyword).is_none(), "{}", fitted.schema);
            }
            prop_assert!(
                !is_valid || !instance.is_object() || describes(&fitted.schema, &instance),
                "{instance}\n{schema:#}\n{:#}", fitted.schema
            );
        }
    }
}

#[test]
fn what_fits_already_stays_as_it_is() {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" },
        "age": { "type": "integer" } }, "required": ["name", "age"], "additionalProperties": false });
    for dialect in [Dialect::Openai, Dialect::Anthropic, Dialect::Gemini] {
        let fitted = output(&schema, true, dialect).expect("it fits");
        assert_eq!((fitted.schema, fitted.strict), (schema.clone(), true));
    }
}

#[test]
fn strict_is_given_up_where_members_are_optional() {
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
    let fitted = output(&schema, true, Dialect::Openai).expect("it fits");
    assert_eq!((fitted.schema, fitted.strict), (schema.clone(), false));
    assert!(!tool(&schema, true, Dialect::Openai).strict);
}

#[test]
fn roots_of_tools_are_objects() {
    for (given, properties) in [
        (json!({}), json!({})),
        (json!(true), json!({})),
        (json!(null), json!({})),
        (json!({ "type": "string" }), json!({})),
        (json!({ "properties": { "a": {} } }), json!({ "a": {} })),
        (json!({ "type": ["object", "null"] }), json!({})),
        (
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "properties": { "b": {} } } } }),
            json!({ "b": {} }),
        ),
        (
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/a" } } }),
            json!({}),
        ),
        (json!({ "$ref": "https://x/y.json" }), json!({})),
        (
            json!({ "oneOf": [{ "properties": { "a": {} } }, { "properties": { "b": {} } }] }),
            json!({ "a": {}, "b": {} }),
        ),
        (
            json!({ "type": "object", "properties": null, "required": true }),
            json!({}),
        ),
    ] {
        let fitted = tool(&given, false, Dialect::Anthropic);
        assert_eq!(fitted.schema["type"], "object", "{given}");
        assert_eq!(fitted.schema["properties"], properties, "{given}");
    }
    let old = json!({ "type": "object", "properties": {
        "n": { "type": "number", "minimum": 1, "exclusiveMinimum": true },
        "t": { "type": "array", "items": [{ "type": "string" }] },
        "u": { "type": "any", "required": true } } });
    let new = tool(&old, false, Dialect::Anthropic).schema;
    assert_eq!(
        new["properties"]["n"],
        json!({ "type": "number", "exclusiveMinimum": 1 })
    );
    assert_eq!(new["properties"]["t"]["prefixItems"][0]["type"], "string");
    assert_eq!(new["properties"]["u"], json!({}));
}

#[test]
fn what_unfolds_without_end_is_bounded() {
    let mut defs = Map::new();
    for at in 0..60 {
        let next = json!({ "$ref": format!("#/$defs/l{}", at + 1) });
        for (kind, name) in [("oneOf", "l"), ("allOf", "a")] {
            let next = json!({ "$ref": next["$ref"].as_str().expect("text").replace("/l", &format!("/{name}")) });
            defs.insert(format!("{name}{at}"), json!({ kind: [next, next] }));
        }
    }
    defs.insert("l60".to_owned(), json!({ "type": "string" }));
    defs.insert(
        "a60".to_owned(),
        json!({ "type": "object", "properties": { "x": {} } }),
    );
    for root in ["l0", "a0"] {
        let schema = json!({ "$ref": format!("#/$defs/{root}"), "$defs": defs });
        let inner = json!({ "type": "object", "properties": { "v": { "$ref": format!("#/$defs/{root}") } },
            "required": ["v"], "$defs": defs });
        for dialect in [Dialect::Openai, Dialect::Anthropic, Dialect::Gemini] {
            for schema in [&schema, &inner] {
                // Of 2^60 steps none are taken but those that are paid for.
                let started = std::time::Instant::now();
                let _ = output(schema, true, dialect);
                assert_eq!(tool(schema, true, dialect).schema["type"], "object");
                assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
                assert!(check(schema).is_ok());
            }
        }
    }
    let wide = json!({ "type": "object", "properties": (0..30_000)
        .map(|n| (format!("p{n}"), json!({ "type": "string" }))).collect::<Map<_, _>>() });
    assert!(check(&wide).is_err());
    assert_eq!(
        tool(&wide, false, Dialect::Gemini).schema["properties"],
        json!({})
    );
    let mut deep = json!({ "type": "string" });
    for _ in 0..200 {
        deep = json!({ "type": "array", "items": deep });
    }
    assert!(check(&deep).is_err() && output(&deep, false, Dialect::Anthropic).is_none());
}

#[test]
fn what_is_put_among_the_definitions_takes_no_names_name() {
    let schema = json!({
        "type": "object",
        "properties": {
            "first": { "type": "string", "minLength": 2 },
            "second": { "$ref": "#/properties/first" },
            "third": { "$ref": "#/$defs/at_0" },
            "fourth": { "$ref": "#/$defs/att_1" },
        },
        "$defs": { "at_0": { "type": "integer" }, "att_1": { "type": "boolean" } },
    });
    let (root, _) = tools::root_of(&schema).expect("fits");
    assert_eq!(root["$defs"]["at_0"], json!({ "type": "integer" }));
    assert_eq!(root["$defs"]["att_1"], json!({ "type": "boolean" }));
    let moved = root["properties"]["second"]["$ref"]
        .as_str()
        .expect("a reference");
    let moved = root.pointer(&moved[1..]).expect("there");
    assert_eq!(*moved, json!({ "type": "string", "minLength": 2 }));
}
