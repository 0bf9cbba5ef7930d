//! A question's schema as the fields of a form, and what was filled in as JSON. The schema is that of
//! an elicitation (<https://modelcontextprotocol.io/specification/2025-06-18/client/elicitation>): a
//! flat object of texts, numbers, switches and choices.

use std::collections::HashMap;

use maud::{Markup, html};
use serde_json::{Map, Number, Value, json};

/// Fields that are shown.
const MOST: usize = 60;
/// Texts that may be longer than this get several lines.
const LONG: u64 = 200;

/// What was filled in, by name.
pub type Filled = HashMap<String, Vec<String>>;

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let all = schema["properties"].as_object().into_iter().flatten();
    all.filter(|(_, of)| of.is_object()).take(MOST)
}

/// The name that a field has in the form, where the buttons have one, too.
fn in_form(name: &str) -> String {
    format!("f-{name}")
}

fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema["required"].as_array();
    required.is_some_and(|all| all.iter().any(|one| one == name))
}

fn kind(of: &Value) -> &str {
    match &of["type"] {
        Value::String(kind) => kind,
        // As typed languages write what may be left out.
        Value::Array(kinds) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            kinds.find(|kind| *kind != "null").unwrap_or("string")
        }
        _ => "string",
    }
}

/// Values and what they are called.
fn choices(of: &Value) -> Vec<(String, String)> {
    let titled = of["oneOf"].as_array().or(of["anyOf"].as_array());
    if let Some(all) = titled {
        let one = |one: &Value| {
            let value = one["const"].as_str()?;
            Some((
                value.to_owned(),
                one["title"].as_str().unwrap_or(value).to_owned(),
            ))
        };
        return all.iter().filter_map(one).collect();
    }
    let names = of["enumNames"].as_array();
    let all = of["enum"].as_array().into_iter().flatten();
    let values = all.enumerate().filter_map(|(at, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let name = names.and_then(|names| names.get(at)?.as_str());
        Some((value.clone(), name.map_or(value, str::to_owned)))
    });
    values.collect()
}

fn usual(of: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("true".to_owned()),
        _ => None,
    };
    match &of["default"] {
        Value::Array(all) => all.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect(),
    }
}

/// The fields of a question, with what was filled in before; `wrong`: the field at fault, and why.
pub fn fields(schema: &Value, filled: Option<&Filled>, wrong: Option<(&str, &str)>) -> Markup {
    html! {
        @for (at, (name, of)) in properties(schema).enumerate() {
            @let id = format!("field-{at}");
            @let said = match filled {
                Some(filled) => filled.get(&in_form(name)).cloned().unwrap_or_default(),
                None => usual(of),
            };
            @let fault = wrong.filter(|(field, _)| field == name).map(|(_, why)| why);
            (field(name, of, &id, &said, is_required(schema, name), fault))
        }
    }
}

fn field(
    name: &str,
    of: &Value,
    id: &str,
    said: &[String],
    required: bool,
    fault: Option<&str>,
) -> Markup {
    let title = of["title"]
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or(name);
    let name = in_form(name);
    let name = name.as_str();
    let about = of["description"].as_str().filter(|text| !text.is_empty());
    let hint = about.map(|_| format!("{id}-hint"));
    let wrong = fault.map(|_| format!("{id}-fault"));
    let described = [hint.as_deref(), wrong.as_deref()];
    let described: Vec<&str> = described.into_iter().flatten().collect();
    let described = (!described.is_empty()).then(|| described.join(" "));
    let first = said.first().map(String::as_str).unwrap_or_default();
    let mark = html! { @if !required { span class="faint" { " (optional)" } } };
    let notes = html! {
        @if let Some(about) = about { p class="hint" id=[&hint] { (about) } }
        @if let Some(fault) = fault { p class="fault" id=[&wrong] { (fault) } }
    };
    let (choices, many) = match kind(of) {
        "array" => (self::choices(&of["items"]), true),
        _ => (self::choices(of), false),
    };
    if many {
        return html! {
            fieldset class="field" aria-describedby=[&described] {
                legend { (title) (mark) }
                (notes)
                @for (at, (value, called)) in choices.iter().enumerate() {
                    @let id = format!("{id}-{at}");
                    div class="tick" {
                        input type="checkbox" id=(id) name=(name) value=(value)
                            checked[said.contains(value)];
                        label for=(id) { (called) }
                    }
                }
            }
        };
    }
    if kind(of) == "boolean" {
        return html! {
            div class="field" {
                div class="tick" {
                    input type="checkbox" id=(id) name=(name) value="true"
                        aria-describedby=[&described] checked[first == "true"];
                    label for=(id) { (title) }
                }
                (notes)
            }
        };
    }
    html! {
        div class="field" {
            label for=(id) { (title) (mark) }
            @if choices.is_empty() {
                (input(name, of, id, first, required, described.as_deref()))
            } @else {
                select id=(id) name=(name) required[required] aria-describedby=[&described] {
                    @if !required || first.is_empty() { option value="" { "Choose" } }
                    @for (value, called) in &choices {
                        option value=(value) selected[value == first] { (called) }
                    }
                }
            }
            (notes)
        }
    }
}

fn input(
    name: &str,
    of: &Value,
    id: &str,
    said: &str,
    required: bool,
    described: Option<&str>,
) -> Markup {
    let number = |name: &str| of[name].as_f64().map(|n| n.to_string());
    if matches!(kind(of), "number" | "integer") {
        let step = if kind(of) == "integer" { "1" } else { "any" };
        return html! {
            input type="number" id=(id) name=(name) value=(said) step=(step)
                min=[number("minimum")] max=[number("maximum")] required[required]
                aria-describedby=[described];
        };
    }
    let (shortest, longest) = (of["minLength"].as_u64(), of["maxLength"].as_u64());
    let kind = match of["format"].as_str() {
        Some("email") => "email",
        Some("uri") => "url",
        Some("date") => "date",
        Some("date-time") => "datetime-local",
        _ if longest.is_some_and(|longest| longest > LONG) => {
            return html! {
                textarea id=(id) name=(name) rows="4" required[required] minlength=[shortest]
                    maxlength=[longest] aria-describedby=[described] { (said) }
            };
        }
        _ => "text",
    };
    html! {
        input type=(kind) id=(id) name=(name) value=(said) required[required]
            minlength=[shortest] maxlength=[longest] aria-describedby=[described];
    }
}

/// What was filled in, of the body of a form.
pub fn filled(form: &[u8]) -> Filled {
    let mut filled = Filled::new();
    for (name, value) in url::form_urlencoded::parse(form) {
        filled.entry(name.into()).or_default().push(value.into());
    }
    filled
}

/// A question's fields with what was filled in, and its answer.
pub fn of_question(schema: &Value, form: &[u8]) -> (String, Value) {
    let filled = filled(form);
    let shown = fields(schema, Some(&filled), None).into_string();
    (shown, answer(schema, &filled))
}

/// What was filled in, as the schema wants it. A field that was left empty is left out: whether it had
/// to be there is for the schema to say.
pub fn answer(schema: &Value, filled: &Filled) -> Value {
    let mut content = Map::new();
    for (name, of) in properties(schema) {
        let said = filled
            .get(&in_form(name))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let first = said.first().map(|text| text.trim()).unwrap_or_default();
        let value = match kind(of) {
            "boolean" => json!(first == "true"),
            "array" if said.is_empty() => continue,
            "array" => json!(said),
            _ if first.is_empty() => continue,
            "integer" => first.parse::<i64>().map_or(json!(first), Value::from),
            "number" => {
                let number = first.parse::<f64>().ok().and_then(Number::from_f64);
                number.map_or(json!(first), Value::Number)
            }
            // Browsers leave the zone out; what is asked for has one.
            _ if of["format"] == "date-time" && first.len() == "2026-01-31T12:00".len() => {
                json!(format!("{first}:00Z"))
            }
            _ => json!(said.first()),
        };
        content.insert(name.clone(), value);
    }
    Value::Object(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({ "type": "object", "required": ["name", "age"], "properties": {
            "name": { "type": "string", "title": "Your <name>", "minLength": 2 },
            "age": { "type": "integer", "minimum": 18 },
            "share": { "type": "number" },
            "news": { "type": "boolean", "default": true, "description": "By e-mail" },
            "size": { "type": "string", "enum": ["s", "l"], "enumNames": ["Small", "Large"],
                "default": "l" },
            "at": { "type": "string", "format": "date-time" },
            "tags": { "type": "array", "items": { "anyOf": [{ "const": "a", "title": "A" }] } },
            "note": { "type": ["string", "null"], "maxLength": 2000 },
        } })
    }

    #[test]
    fn a_schema_becomes_fields() {
        let page = fields(&schema(), None, Some(("age", "is too <small>"))).into_string();
        for wanted in [
            "Your &lt;name&gt;",
            r#"type="number" id="field-1" name="f-age" value="" step="1" min="18""#,
            r#"value="l" selected"#,
            "Small</option>",
            r#"type="checkbox" id="field-3" name="f-news" value="true" aria-describedby="field-3-hint" checked"#,
            r#"type="datetime-local""#,
            "<textarea",
            "is too &lt;small&gt;",
            "<legend>",
        ] {
            assert!(page.contains(wanted), "{wanted} is not in {page}");
        }
    }

    #[test]
    fn what_is_filled_in_becomes_json() {
        let filled = Filled::from([
            ("f-name".to_owned(), vec!["Eva ".to_owned()]),
            ("f-age".to_owned(), vec!["40".to_owned()]),
            ("f-share".to_owned(), vec!["0.5".to_owned()]),
            ("f-size".to_owned(), vec![String::new()]),
            ("f-at".to_owned(), vec!["2026-01-31T12:00".to_owned()]),
            ("f-tags".to_owned(), vec!["a".to_owned()]),
            ("f-stranger".to_owned(), vec!["x".to_owned()]),
        ]);
        assert_eq!(
            answer(&schema(), &filled),
            json!({ "name": "Eva ", "age": 40, "share": 0.5, "news": false,
                "at": "2026-01-31T12:00:00Z", "tags": ["a"] })
        );
        let odd = Filled::from([("f-age".to_owned(), vec!["many".to_owned()])]);
        assert_eq!(
            answer(&schema(), &odd),
            json!({ "age": "many", "news": false })
        );
        assert_eq!(answer(&json!(null), &odd), json!({}));
    }
}
