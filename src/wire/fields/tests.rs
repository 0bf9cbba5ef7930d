//! Each member of each wire's table is sent through the wire's decoder and each provider's encoder: what
//! becomes of it is what the table says.

use serde_json::{Value, json};

use super::*;
use crate::config::ProviderWire;
use crate::model::{ModelRequest, provider, rules};

const WIRES: [ProviderWire; 4] = [
    ProviderWire::OpenaiChat,
    ProviderWire::OpenaiResponses,
    ProviderWire::Anthropic,
    ProviderWire::Gemini,
];

/// A body of `wire` for a model that has no rules of its own.
fn sent(wire: ProviderWire, request: &ModelRequest) -> Value {
    let mut request = request.clone();
    request.model = "a-model".to_owned();
    let rules = rules::resolve(wire, "models.example", "a-model", &[]);
    let api = provider::api(wire);
    api.body(&request, &rules, false, false).expect("a body")
}

/// Walks a wire's table. `basic` is a request; `samples` has a value for each member that is no part of
/// it, with those that it needs beside it.
pub fn walk(
    fields: Fields,
    basic: &Value,
    samples: &[(&str, Value)],
    read: &dyn Fn(&Value) -> ModelRequest,
) {
    let with = |more: &Value| {
        let mut body = basic.clone();
        for (name, value) in more.as_object().expect("members") {
            body[name] = value.clone();
        }
        body
    };
    for (name, means) in fields {
        let sample = samples.iter().find(|(of, _)| of == name);
        let Some((_, sample)) = sample else {
            assert!(
                basic.get(name).is_some() || *means == Means::Understood,
                "no sample of {name}"
            );
            continue;
        };
        let sample = match sample.get(*name) {
            Some(_) => sample.clone(),
            None => json!({ *name: sample }),
        };
        let body = with(&sample);
        let mut without = sample.clone();
        without
            .as_object_mut()
            .expect("members")
            .shift_remove(*name);
        let before = read(&with(&without));
        let request = read(&body);
        let given = Given::of_body(body.to_string().as_bytes(), fields).expect("read");
        match means {
            Means::Understood => {
                assert!(given.nothing.is_empty(), "{name}: {given:?}");
            }
            Means::Nothing => {
                assert!(given.nothing.contains(*name), "{name}: {given:?}");
                for wire in WIRES {
                    assert_eq!(
                        sent(wire, &request),
                        sent(wire, &before),
                        "{name} to {wire:?}"
                    );
                }
            }
            Means::Param(param) => {
                assert!(param.is_asked(&request), "{name} is not read");
                assert!(given.params.contains(&(*param, *name)), "{name}: {given:?}");
                for wire in WIRES {
                    let (body, before) = (sent(wire, &request), sent(wire, &before));
                    let places = provider::api(wire).places(*param);
                    let is_there = places.iter().any(|place| body.pointer(place).is_some());
                    assert_eq!(is_there, !places.is_empty(), "{name} to {wire:?}: {body}");
                    // What is sent is sent where the table looks for it, and nowhere else.
                    assert_eq!(is_there, body != before, "{name} to {wire:?}: {body}");
                }
            }
        }
    }
}

#[test]
fn names_of_strangers_are_made_plain() {
    let body =
        json!({ "model": "m", "a\r\nb": 1, "ä": true, "off": false, "none": null, "empty": [] });
    let mut given =
        Given::of_body(body.to_string().as_bytes(), &[("model", Means::Understood)]).expect("read");
    let names: Vec<&String> = given.nothing.iter().collect();
    assert_eq!(names, ["?", "a??b"]);
    for number in 0..100 {
        given.add_nothing(&format!("name{number}{}", "x".repeat(100)));
    }
    assert_eq!(given.nothing.len(), MOST_NAMES);
}

#[test]
fn what_is_to_become_of_it_is_one_of_three_words() {
    for (word, what) in [
        (json!("warn"), Some(OnUnsupported::Warn)),
        (json!("drop"), Some(OnUnsupported::Drop)),
        (json!("error"), Some(OnUnsupported::Error)),
        (json!("other"), None),
        (json!(1), None),
    ] {
        let body = json!({ "on_unsupported": word }).to_string();
        let given = Given::of_body(body.as_bytes(), &[]);
        assert_eq!(given.ok().map(|given| given.on_unsupported), what, "{body}");
    }
}
