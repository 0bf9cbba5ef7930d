//! What each wire takes, as its documentation and its servers say.

use std::collections::HashSet;

use serde_json::Value;

use super::super::*;
use crate::model::rules;

pub fn is_id(id: &Value, most: usize) -> bool {
    let id = id.as_str().unwrap_or_default();
    (1..=most).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn is_said(text: &Value) -> bool {
    text.as_str().is_some_and(|text| !text.trim().is_empty())
}

pub fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn of_type<'v>(blocks: &'v [Value], kind: &str) -> Vec<&'v Value> {
    blocks
        .iter()
        .filter(|block| block["type"] == kind)
        .collect()
}

pub fn check_anthropic(body: &Value, prefill: bool) -> Result<(), String> {
    let messages = list(&body["messages"]);
    if messages.is_empty() || messages[0]["role"] != "user" {
        return Err("the user must begin".into());
    }
    let mut ids = HashSet::new();
    let mut open: Vec<Value> = Vec::new();
    let thinks = body["thinking"]["type"] == "enabled";
    for (at, message) in messages.iter().enumerate() {
        let blocks = list(&message["content"]);
        if blocks.is_empty() || at > 0 && messages[at - 1]["role"] == message["role"] {
            return Err(format!("message {at} is empty or repeats the role"));
        }
        if of_type(&blocks, "text")
            .iter()
            .any(|b| !is_said(&b["text"]))
        {
            return Err(format!("message {at} has a blank text"));
        }
        let results: Vec<Value> = of_type(&blocks, "tool_result")
            .iter()
            .map(|b| b["tool_use_id"].clone())
            .collect();
        if results != open
            || !blocks[..results.len()]
                .iter()
                .all(|b| b["type"] == "tool_result")
        {
            return Err(format!("message {at}: results {results:?} for {open:?}"));
        }
        let calls = of_type(&blocks, "tool_use");
        open = calls.iter().map(|b| b["id"].clone()).collect();
        for call in &calls {
            if !is_id(&call["id"], 64)
                || !ids.insert(call["id"].clone())
                || !is_id(&call["name"], 64)
            {
                return Err(format!("message {at}: {call}"));
            }
        }
        if message["role"] == "assistant" {
            let first = blocks[0]["type"].as_str().unwrap_or_default();
            if thinks && !calls.is_empty() && !matches!(first, "thinking" | "redacted_thinking") {
                return Err(format!("message {at} does not begin with thinking"));
            }
            if !of_type(&blocks, "image").is_empty() {
                return Err(format!("message {at}: the assistant shows an image"));
            }
        } else if !calls.is_empty() {
            return Err(format!("message {at}: the user calls"));
        }
    }
    let last = messages.last().ok_or("no message")?;
    if last["role"] == "assistant" {
        let text = list(&last["content"]).last().map(|b| b["text"].clone());
        let ends_blank = text.is_some_and(|t| t.as_str().is_some_and(|t| t != t.trim_end()));
        if !prefill || ends_blank || thinks || !open.is_empty() {
            return Err("the assistant can not have the last word".into());
        }
    }
    if !ids.is_empty() && list(&body["tools"]).is_empty() {
        return Err("calls without tools".into());
    }
    if !body["thinking"].is_null() && !body["temperature"].is_null() {
        return Err("thinking with temperature".into());
    }
    Ok(())
}

fn check_chat(body: &Value, rules: &Rules) -> Result<(), String> {
    let messages = list(&body["messages"]);
    let mut open: Vec<Value> = Vec::new();
    let mut before = "";
    let mut spoken = false;
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        let bad = |why: &str| Err(format!("message {at}, {why}: {message}"));
        if !open.is_empty() && message["tool_call_id"] != open[0] {
            return bad("a call is not answered");
        }
        match role {
            "system" => {}
            "user" => {
                spoken = true;
                let said = match &message["content"] {
                    Value::Array(parts) => !parts.is_empty(),
                    text => is_said(text),
                };
                if !said || before == "tool" && !rules.user_after_tool {
                    return bad("an empty user, or one behind a tool");
                }
            }
            "assistant" => {
                let calls = list(&message["tool_calls"]);
                if calls.is_empty()
                    && !is_said(&message["content"])
                    && !is_said(&message["refusal"])
                {
                    return bad("says nothing");
                }
                if rules.replay == crate::config::Replay::Required
                    && !calls.is_empty()
                    && !message["reasoning_content"].is_string()
                    && !message["reasoning_details"].is_array()
                    && !message["reasoning"].is_string()
                {
                    return bad("no reasoning");
                }
                open = calls.iter().map(|c| c["id"].clone()).collect();
                for id in &open {
                    let id = id.as_str().unwrap_or_default();
                    let fits = match rules.call_ids {
                        CallIds::Nine => {
                            id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric())
                        }
                        _ => !id.is_empty() && id.chars().count() <= 40,
                    };
                    if !fits {
                        return bad("an id");
                    }
                }
            }
            "tool" => {
                if open.is_empty() {
                    return bad("a result without a call");
                }
                open.remove(0);
            }
            _ => return bad("an unknown role"),
        }
        if !rules.repeats_roles && before == role && role != "tool" {
            return bad("the role repeats");
        }
        before = role;
    }
    if !open.is_empty() || before == "assistant" && !rules.prefill {
        return Err("the end".into());
    }
    match spoken || messages.iter().any(|m| m["role"] == "assistant") {
        true => Ok(()),
        false => Err("nobody speaks".into()),
    }
}

fn check_gemini(body: &Value) -> Result<(), String> {
    let contents = list(&body["contents"]);
    if contents.is_empty() || contents[0]["role"] != "user" {
        return Err("the user must begin".into());
    }
    let mut open: Vec<Value> = Vec::new();
    for (at, content) in contents.iter().enumerate() {
        let parts = list(&content["parts"]);
        let names = |kind: &str| -> Vec<Value> {
            parts
                .iter()
                .filter(|p| p[kind].is_object())
                .map(|p| p[kind]["name"].clone())
                .collect()
        };
        if parts.is_empty() || at > 0 && contents[at - 1]["role"] == content["role"] {
            return Err(format!("content {at} is empty or repeats the role"));
        }
        if parts.iter().any(|p| {
            p["text"].is_string() && !is_said(&p["text"]) && p["thoughtSignature"].is_null()
        }) {
            return Err(format!("content {at} has a blank text"));
        }
        if names("functionResponse") != open {
            return Err(format!("content {at}: {parts:?} for {open:?}"));
        }
        open = names("functionCall");
        if !open.is_empty() && content["role"] != "model" {
            return Err(format!("content {at}: the user calls"));
        }
    }
    match open.is_empty() {
        true => Ok(()),
        false => Err("an open call".into()),
    }
}

fn check_responses(body: &Value) -> Result<(), String> {
    let items = list(&body["input"]);
    if items.is_empty() {
        return Err("no input".into());
    }
    let mut open: HashSet<String> = HashSet::new();
    let mut all = HashSet::new();
    for (at, item) in items.iter().enumerate() {
        let id = item["call_id"].as_str().unwrap_or_default().to_owned();
        match item["type"].as_str().unwrap_or_default() {
            "function_call"
                if !is_id(&item["call_id"], 64)
                    || !all.insert(id.clone())
                    || !open.insert(id.clone()) =>
            {
                return Err(format!("item {at}: {item}"));
            }
            "function_call_output" if !open.remove(&id) => {
                return Err(format!("item {at}: a result without a call"));
            }
            "message" if !open.is_empty() || list(&item["content"]).is_empty() => {
                return Err(format!("item {at}: an open call before it, or empty"));
            }
            "reasoning" if at + 1 == items.len() => return Err("reasoning at the end".into()),
            _ => {}
        }
    }
    match open.is_empty() {
        true => Ok(()),
        false => Err("an open call".into()),
    }
}

pub fn check(body: &Value, target: (ProviderWire, &str, &str)) -> Result<(), String> {
    let rules = rules::resolve(target.0, target.1, target.2, &[]);
    match target.0 {
        ProviderWire::Anthropic => check_anthropic(body, rules.prefill),
        ProviderWire::OpenaiChat => check_chat(body, &rules),
        ProviderWire::Gemini => check_gemini(body),
        ProviderWire::OpenaiResponses => check_responses(body),
    }
}

// ---- any turns ----
