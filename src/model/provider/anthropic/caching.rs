//! `cache_control`: where the caller marked it, or where a smith's turns begin alike. Wire facts: the
//! Anthropic API reference, "Prompt caching": four marks at most, and none on thinking.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::model::request::Caching;

const MOST: usize = 4;
const MEMBER: &str = "cache_control";

fn control(ttl: Option<&str>) -> Value {
    match ttl {
        Some(ttl) => json!({ "type": "ephemeral", "ttl": ttl }),
        None => json!({ "type": "ephemeral" }),
    }
}

/// Marks a block, so that all up to it is kept.
pub(super) fn mark(block: Option<&mut Value>, ttl: Option<&str>) {
    let is_thinking = |block: &Value| {
        matches!(
            block["type"].as_str(),
            Some("thinking" | "redacted_thinking")
        )
    };
    if let Some(block) = block.filter(|block| !is_thinking(block)) {
        block[MEMBER] = control(ttl);
    }
}

/// The system text, in blocks where it is marked.
pub(super) fn system(text: &str, caching: &Caching) -> Value {
    let mut blocks = Vec::new();
    let mut from = 0;
    for (at, ttl) in &caching.system {
        if let Some(piece) = text.get(from..*at)
            && !piece.trim().is_empty()
        {
            let mut block = json!({ "type": "text", "text": piece });
            block[MEMBER] = control(ttl.as_deref());
            blocks.push(block);
            from = *at;
        }
    }
    if blocks.is_empty() && !caching.is_automatic {
        return json!(text);
    }
    let rest = text.get(from..).unwrap_or_default();
    if !rest.trim().is_empty() {
        let mut block = json!({ "type": "text", "text": rest });
        if caching.is_automatic {
            block[MEMBER] = control(None);
        }
        blocks.push(block);
    }
    Value::Array(blocks)
}

/// Marks the tools and, for a smith, what was said last; more marks than the wire takes go, the
/// earliest among the messages first.
pub(super) fn place(body: &mut Map<String, Value>, caching: &Caching) {
    let tools = body.get_mut("tools").and_then(Value::as_array_mut);
    if let Some(tools) = tools {
        if !caching.tools.is_empty() {
            let mut places = HashMap::with_capacity(tools.len());
            for (at, tool) in tools.iter().enumerate() {
                let name = tool["name"].as_str().unwrap_or_default();
                places.entry(name.to_owned()).or_insert(at);
            }
            for (name, ttl) in &caching.tools {
                let place = places.get(name);
                mark(place.and_then(|at| tools.get_mut(*at)), ttl.as_deref());
            }
        }
        if caching.is_automatic {
            mark(tools.last_mut(), None);
        }
    }
    let count = |value: Option<&Value>| {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter(|one| one.get(MEMBER).is_some()).count()
    };
    let before = count(body.get("system")) + count(body.get("tools"));
    let Some(messages) = body.get_mut("messages").and_then(Value::as_array_mut) else {
        return;
    };
    if caching.is_automatic {
        let said = messages.iter_mut().rfind(|one| one["role"] == "user");
        let blocks = said.and_then(|message| message["content"].as_array_mut());
        mark(blocks.and_then(|blocks| blocks.last_mut()), None);
    }
    let mut left = MOST.saturating_sub(before);
    let blocks = messages.iter_mut().rev().flat_map(|message| {
        let blocks = message["content"].as_array_mut();
        blocks.into_iter().flatten().rev()
    });
    for block in blocks.filter(|block| block.get(MEMBER).is_some()) {
        match left.checked_sub(1) {
            Some(fewer) => left = fewer,
            None => {
                if let Some(block) = block.as_object_mut() {
                    block.shift_remove(MEMBER);
                }
            }
        }
    }
    if before > MOST {
        trim(body, before - MOST);
    }
}

/// Takes the earliest `excess` marks off the tools and the system text.
fn trim(body: &mut Map<String, Value>, mut excess: usize) {
    for name in ["tools", "system"] {
        let list = body.get_mut(name).and_then(Value::as_array_mut);
        for one in list.into_iter().flatten() {
            if excess > 0
                && let Some(one) = one.as_object_mut()
                && one.shift_remove(MEMBER).is_some()
            {
                excess -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(body: &Value) -> usize {
        body.to_string().matches(MEMBER).count()
    }

    #[test]
    fn never_more_than_four_marks_and_the_last_stay() {
        let block = |marked: bool| {
            let mut block = json!({ "type": "text", "text": "x" });
            if marked {
                block[MEMBER] = control(None);
            }
            block
        };
        for tools in 0..7_usize {
            for said in 0..7_usize {
                let names: Vec<Value> = (0..tools)
                    .map(|n| json!({ "name": n.to_string() }))
                    .collect();
                let content: Vec<Value> = (0..said).map(|_| block(true)).collect();
                let mut body = Map::new();
                body.insert("tools".into(), json!(names));
                body.insert(
                    "messages".into(),
                    json!([{ "role": "user", "content": content }]),
                );
                let caching = Caching {
                    is_automatic: false,
                    system: Vec::new(),
                    tools: (0..tools).map(|n| (n.to_string(), None)).collect(),
                };
                place(&mut body, &caching);
                let body = Value::Object(body);
                assert_eq!(marks(&body), (tools + said).min(MOST));
                let last = body["messages"][0]["content"]
                    .as_array()
                    .and_then(|c| c.last());
                if tools < MOST
                    && let Some(last) = last
                {
                    assert!(last.get(MEMBER).is_some());
                }
            }
        }
    }

    #[test]
    fn system_text_is_cut_where_it_is_marked() {
        let caching = Caching {
            system: vec![(1, Some("1h".to_owned())), (99, None)],
            ..Caching::default()
        };
        let blocks = system("ab", &caching);
        assert_eq!(blocks[0][MEMBER]["ttl"], "1h");
        assert_eq!(blocks[1], json!({ "type": "text", "text": "b" }));
        assert_eq!(system("ab", &Caching::default()), json!("ab"));
    }
}
