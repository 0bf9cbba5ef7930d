//! What the wire sends, read leniently: events, items and their parts; and shapes that are put right.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::lenient::{self, Few, few, place, word};

#[derive(Deserialize)]
pub(super) struct StreamEvent<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "word")]
    pub kind: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "place")]
    pub output_index: Option<u32>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub item_id: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "place")]
    pub content_index: Option<u32>,
    #[serde(default, deserialize_with = "place")]
    pub summary_index: Option<u32>,
    #[serde(borrow, default)]
    pub delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub arguments: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub part: Option<ContentPart<'a>>,
    #[serde(borrow, default)]
    pub annotation: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub item: Option<Item<'a>>,
    #[serde(borrow, default)]
    pub response: Option<Response<'a>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub code: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    pub id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub model: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub status: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "few")]
    pub output: Few<Item<'a>>,
    #[serde(borrow, default)]
    pub output_text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub incomplete_details: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
pub(super) struct Incomplete {
    #[serde(default, deserialize_with = "lenient::given::text")]
    pub reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "word")]
    pub kind: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub arguments: Option<&'a RawValue>,
    /// Of a call of free text.
    #[serde(borrow, default)]
    pub input: Option<&'a RawValue>,
    /// Of an image that the provider made, in base64.
    #[serde(borrow, default, deserialize_with = "word")]
    pub result: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub output_format: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    pub encrypted_content: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "few")]
    pub content: Few<ContentPart<'a>>,
    #[serde(borrow, default, deserialize_with = "few")]
    pub summary: Few<ContentPart<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ContentPart<'a> {
    #[serde(borrow, default)]
    pub text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub annotations: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub refusal: Option<&'a RawValue>,
}

/// Where a piece is from: the item's place and id. Servers get one of them wrong, or leave it out.
#[derive(Default, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub output_index: Option<u32>,
    pub item_id: &'a str,
    pub call_id: &'a str,
}

impl StreamEvent<'_> {
    pub fn origin(&self) -> Origin<'_> {
        Origin {
            output_index: self.output_index,
            item_id: self.item_id.as_deref().unwrap_or_default(),
            call_id: "",
        }
    }

    pub fn part(&self) -> Option<u32> {
        self.content_index.or(self.summary_index)
    }
}

/// Contents that are texts, and parts that are.
pub(super) fn reshape_item(item: &mut Value) {
    let text = |value: &mut Value| *value = json!({ "text": value.take() });
    for name in ["content", "summary"] {
        match item.get_mut(name) {
            Some(content @ Value::String(_)) => text(content),
            Some(Value::Array(parts)) => {
                parts
                    .iter_mut()
                    .filter(|part| part.is_string())
                    .for_each(text);
            }
            _ => {}
        }
    }
}

pub(super) fn reshape_response(response: &mut Value) {
    match response.get_mut("output") {
        Some(Value::Array(items)) => {
            for item in items {
                if item.is_string() {
                    *item = json!({ "type": "message", "content": item.take() });
                }
                reshape_item(item);
            }
        }
        Some(item @ Value::Object(_)) => reshape_item(item),
        Some(text @ Value::String(_)) => {
            *text = json!([{ "type": "message", "content": [{ "text": text.take() }] }]);
        }
        _ => {}
    }
}

pub(super) fn reshape_event(event: &mut Value) {
    if let Some(item) = event.get_mut("item") {
        reshape_item(item);
    }
    if let Some(response) = event.get_mut("response") {
        reshape_response(response);
    }
    if let Some(part) = event.get_mut("part").filter(|part| part.is_string()) {
        *part = json!({ "text": part.take() });
    }
}
