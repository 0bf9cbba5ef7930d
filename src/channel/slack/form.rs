//! A question as a modal, and what is entered there
//! (<https://docs.slack.dev/surfaces/modals>, <https://docs.slack.dev/reference/block-kit>).

use serde_json::{Map, Value, json};

use super::format::escape_within;
use crate::channel::Question;

/// The modal that asks questions.
pub const CALLBACK: &str = "smith_question";
/// Before the names of what is asked, in the ids of blocks.
const PREFIX: &str = "q:";
/// Of a modal, less what is not asked.
const MAX_FIELDS: usize = 90;
const MAX_NAME: usize = 200;
const MAX_OPTIONS: usize = 100;
/// Of an option's text and value.
const MAX_OPTION: usize = 75;
const MAX_LABEL: usize = 150;
const MAX_MESSAGE: usize = 2900;
/// Of what is entered as text.
const MAX_ENTERED: u64 = 3000;

/// A modal that asks; `None`: Slack has no fields for some of it.
pub fn modal(question: &Question, metadata: &str) -> Option<Value> {
    let properties = question.schema["properties"].as_object()?;
    if properties.is_empty() || properties.len() > MAX_FIELDS {
        return None;
    }
    let required = question.schema["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
    let mut blocks = Vec::with_capacity(properties.len() + 1);
    if !question.message.trim().is_empty() {
        let text = escape_within(&question.message, MAX_MESSAGE);
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } }));
    }
    for (name, schema) in properties {
        if name.len() > MAX_NAME || name.is_empty() {
            return None;
        }
        let element = element(schema)?;
        let label = schema["title"]
            .as_str()
            .filter(|title| !title.trim().is_empty());
        let mut block = json!({ "type": "input", "block_id": format!("{PREFIX}{name}"),
            "label": words(label.unwrap_or(name), MAX_LABEL), "element": element,
            "optional": !is_required(name) });
        if let Some(hint) = schema["description"]
            .as_str()
            .filter(|hint| !hint.is_empty())
        {
            block["hint"] = words(hint, MAX_LABEL);
        }
        blocks.push(block);
    }
    Some(
        json!({ "type": "modal", "callback_id": CALLBACK, "private_metadata": metadata,
        "title": words("A question", 24), "submit": words("Send", 24),
        "close": words("Cancel", 24), "blocks": blocks }),
    )
}

fn words(text: &str, limit: usize) -> Value {
    let mut cut: String = text.chars().take(limit - 1).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    json!({ "type": "plain_text", "text": cut })
}

/// What one member of a flat object is entered with.
fn element(schema: &Value) -> Option<Value> {
    let default = &schema["default"];
    if let Some(options) = options(schema) {
        return select("static_select", options?, default);
    }
    let mut element = match schema["type"].as_str()? {
        "boolean" => {
            let option = |text, value: &str| (words(text, MAX_OPTION), value.to_owned());
            let initial = default.as_bool().map(|yes| json!(yes.to_string()));
            let both = vec![option("Yes", "true"), option("No", "false")];
            return select("radio_buttons", both, &initial.unwrap_or_default());
        }
        "array" => {
            let mut element = select("multi_static_select", options(&schema["items"])??, default)?;
            if let Some(most) = schema["maxItems"].as_u64().filter(|most| *most > 0) {
                element["max_selected_items"] = json!(most);
            }
            return Some(element);
        }
        kind @ ("integer" | "number") => {
            let mut element =
                json!({ "type": "number_input", "is_decimal_allowed": kind == "number" });
            for (bound, name) in [("minimum", "min_value"), ("maximum", "max_value")] {
                if let Some(bound) = schema[bound].as_number() {
                    element[name] = json!(bound.to_string());
                }
            }
            if let Some(number) = default.as_number() {
                element["initial_value"] = json!(number.to_string());
            }
            element
        }
        "string" => {
            let (kind, initial) = match schema["format"].as_str().unwrap_or_default() {
                "date" => ("datepicker", "initial_date"),
                "date-time" => ("datetimepicker", ""),
                "email" => ("email_text_input", "initial_value"),
                "uri" => ("url_text_input", "initial_value"),
                _ => ("plain_text_input", "initial_value"),
            };
            let mut element = json!({ "type": kind });
            if let Some(text) = default.as_str().filter(|_| !initial.is_empty()) {
                element[initial] = json!(text);
            }
            if kind == "plain_text_input" {
                let bounds = [("minLength", "min_length"), ("maxLength", "max_length")];
                for (bound, name) in bounds {
                    if let Some(bound) = schema[bound].as_u64().filter(|n| *n > 0) {
                        element[name] = json!(bound.min(MAX_ENTERED));
                    }
                }
                let is_long = schema["maxLength"].as_u64().is_some_and(|most| most > 200);
                element["multiline"] = json!(is_long);
            }
            element
        }
        _ => return None,
    };
    element["action_id"] = json!("value");
    Some(element)
}

/// What may be chosen, as text and value; `Some(None)`: Slack cannot show it.
type Options = Option<Vec<(Value, String)>>;

fn options(schema: &Value) -> Option<Options> {
    let named = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    let found: Vec<(Option<&str>, Option<&str>)> = match (schema["enum"].as_array(), named) {
        (Some(values), _) => {
            let names = &schema["enumNames"];
            let name = |at: usize| names[at].as_str();
            let all = values.iter().enumerate();
            all.map(|(at, value)| (name(at), value.as_str())).collect()
        }
        (None, Some(named)) => named
            .iter()
            .map(|one| (one["title"].as_str(), one["const"].as_str()))
            .collect(),
        (None, None) => return None,
    };
    if found.is_empty() || found.len() > MAX_OPTIONS {
        return Some(None);
    }
    let shown = found.into_iter().map(|(name, value)| {
        let value = value.filter(|value| (1..=MAX_OPTION).contains(&value.chars().count()))?;
        let name = name.filter(|name| !name.is_empty()).unwrap_or(value);
        Some((words(name, MAX_OPTION), value.to_owned()))
    });
    Some(shown.collect())
}

fn select(kind: &str, options: Vec<(Value, String)>, default: &Value) -> Option<Value> {
    let is_chosen = |value: &str| match default {
        Value::Array(all) => all.iter().any(|one| one == value),
        one => one == value,
    };
    let mut chosen = Vec::new();
    let options: Vec<Value> = options
        .into_iter()
        .map(|(text, value)| {
            let option = json!({ "text": text, "value": value });
            if is_chosen(&value) {
                chosen.push(option.clone());
            }
            option
        })
        .collect();
    let mut element = json!({ "type": kind, "action_id": "value", "options": options });
    match (kind, chosen.first()) {
        (_, None) => {}
        ("multi_static_select", _) => element["initial_options"] = json!(chosen),
        (_, Some(first)) => element["initial_option"] = first.clone(),
    }
    Some(element)
}

/// What was entered, as the question's schema wants it.
pub fn entered(view: &Value) -> Value {
    let mut content = Map::new();
    for (block, actions) in view["state"]["values"].as_object().into_iter().flatten() {
        let Some(name) = block.strip_prefix(PREFIX) else {
            continue;
        };
        let value = value(&actions["value"]);
        if !value.is_null() {
            content.insert(name.to_owned(), value);
        }
    }
    Value::Object(content)
}

fn value(state: &Value) -> Value {
    let chosen = &state["selected_option"]["value"];
    match state["type"].as_str().unwrap_or_default() {
        "number_input" => {
            let text = state["value"].as_str().unwrap_or_default().trim();
            serde_json::from_str::<serde_json::Number>(text).map_or(Value::Null, Value::Number)
        }
        "radio_buttons" => match chosen.as_str() {
            Some("true") => json!(true),
            Some("false") => json!(false),
            _ => Value::Null,
        },
        "static_select" => chosen.clone(),
        "multi_static_select" => {
            let all = state["selected_options"].as_array();
            let all = all.into_iter().flatten();
            json!(all.map(|one| one["value"].clone()).collect::<Vec<_>>())
        }
        "datepicker" => state["selected_date"].clone(),
        "datetimepicker" => {
            let at = state["selected_date_time"].as_i64();
            let at = at.and_then(|at| jiff::Timestamp::from_second(at).ok());
            at.map_or(Value::Null, |at| json!(at.to_string()))
        }
        _ => state["value"].clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(properties: Value) -> Question {
        Question {
            message: "Which <one>?".to_owned(),
            schema: json!({ "type": "object", "properties": properties, "required": ["size"] }),
        }
    }

    #[test]
    fn a_flat_question_is_a_modal() {
        let view = modal(
            &question(json!({
                "size": { "type": "string", "enum": ["s", "m"], "enumNames": ["Small", "Middle"],
                    "default": "m" },
                "count": { "type": "integer", "minimum": 1, "title": "How many" },
                "gift": { "type": "boolean", "default": true },
                "note": { "type": "string", "maxLength": 500, "description": "For the card" },
                "day": { "type": "string", "format": "date" },
                "tags": { "type": "array", "items": { "anyOf": [{ "const": "a", "title": "A" }] } },
            })),
            "{}",
        )
        .expect("a modal");
        let blocks = view["blocks"].as_array().expect("blocks");
        assert_eq!(blocks[0]["text"]["text"], "Which &lt;one&gt;?");
        let kinds: Vec<&str> = blocks[1..]
            .iter()
            .filter_map(|block| block["element"]["type"].as_str())
            .collect();
        assert_eq!(
            kinds,
            [
                "static_select",
                "number_input",
                "radio_buttons",
                "plain_text_input",
                "datepicker",
                "multi_static_select"
            ]
        );
        assert_eq!(blocks[1]["optional"], false);
        assert_eq!(blocks[2]["optional"], true);
        assert_eq!(
            blocks[1]["element"]["initial_option"]["text"]["text"],
            "Middle"
        );
        assert_eq!(blocks[2]["element"]["min_value"], "1");
        assert_eq!(blocks[3]["element"]["initial_option"]["value"], "true");
        assert_eq!(blocks[4]["element"]["max_length"], 500);
        // What Slack has no field for is asked elsewhere.
        for odd in [
            json!({ "a": { "type": "object" } }),
            json!({ "a": { "type": "string", "enum": ["x".repeat(80)] } }),
            json!({ "a": { "type": "array", "items": { "type": "string" } } }),
            json!({}),
        ] {
            assert!(modal(&question(odd.clone()), "").is_none(), "{odd}");
        }
    }

    #[test]
    fn what_is_entered_has_its_type() {
        let state = |state: Value| json!({ "value": state });
        let view = json!({ "state": { "values": {
            "q:size": state(json!({ "type": "static_select", "selected_option": { "value": "m" } })),
            "q:count": state(json!({ "type": "number_input", "value": "3" })),
            "q:price": state(json!({ "type": "number_input", "value": "1.5" })),
            "q:gift": state(json!({ "type": "radio_buttons", "selected_option": { "value": "true" } })),
            "q:note": state(json!({ "type": "plain_text_input", "value": null })),
            "q:at": state(json!({ "type": "datetimepicker", "selected_date_time": 0 })),
            "q:tags": state(json!({ "type": "multi_static_select",
                "selected_options": [{ "value": "a" }] })),
            "other": state(json!({ "type": "plain_text_input", "value": "x" })),
        } } });
        assert_eq!(
            entered(&view),
            json!({ "size": "m", "count": 3, "price": 1.5, "gift": true,
                "at": "1970-01-01T00:00:00Z", "tags": ["a"] })
        );
    }
}
