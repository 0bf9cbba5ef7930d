//! Content blocks of a request's messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::thinking;
use crate::error::ApiError;
use crate::model::{Part, Source};
use crate::wire::openai::content::{arguments_text, cache_mark, content_part};

/// The parts of a content: null, a text, blocks, or one block. `field`: where it stands.
pub(super) fn parts(content: &Value, field: &str) -> Result<Vec<Part>, ApiError> {
    let mut out = Vec::new();
    match content {
        Value::Null => {}
        Value::String(text) => out.push(text_part(text.clone())),
        Value::Array(items) => {
            out.reserve(items.len());
            for (at, item) in items.iter().enumerate().filter(|(_, item)| !item.is_null()) {
                block(item, &format!("{field}[{at}]"), &mut out)?;
            }
        }
        one @ Value::Object(_) => block(one, field, &mut out)?,
        _ => {
            return Err(ApiError::invalid(
                field.to_owned(),
                "must be a string or a list of blocks",
            ));
        }
    }
    Ok(out)
}

fn text_part(text: String) -> Part {
    Part::Text { text }
}

fn block(item: &Value, field: &str, out: &mut Vec<Part>) -> Result<(), ApiError> {
    let text = |name: &str| {
        let text = item[name].as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| ApiError::invalid(format!("{field}.{name}"), "is missing"))
    };
    match item["type"].as_str().unwrap_or_default() {
        "image" => out.push(Part::Image {
            source: source(item, field)?,
            detail: None,
        }),
        "document" => document(item, field, out)?,
        "search_result" => out.push(text_part(search_result(item))),
        "tool_use" => out.push(Part::ToolCall {
            id: text("id")?,
            name: text("name")?,
            arguments: arguments_text(&item["input"]),
            signature: None,
            server: None,
            approved: false,
        }),
        "tool_result" => {
            let mut content = result(&item["content"], &format!("{field}.content"))?;
            content.extend(cache_mark(item));
            out.push(Part::ToolResult {
                tool_call_id: text("tool_use_id")?,
                content,
                is_error: item["is_error"].as_bool().unwrap_or(false),
            });
            return Ok(());
        }
        "thinking" => out.push(Part::Reasoning {
            text: item["thinking"].as_str().unwrap_or_default().to_owned(),
            signature: thinking::read(item["signature"].as_str().unwrap_or_default()),
            redacted: false,
        }),
        "redacted_thinking" => out.push(Part::Reasoning {
            text: String::new(),
            signature: thinking::read(item["data"].as_str().unwrap_or_default()),
            redacted: true,
        }),
        "tool_reference" => {
            let name = item["tool_name"].as_str().unwrap_or_default();
            out.push(text_part(format!("[tool: {name}]")));
        }
        "compaction" => out.extend(item["content"].as_str().map(|t| text_part(t.to_owned()))),
        "container_upload" => out.push(Part::File {
            source: Source::FileId {
                id: text("file_id")?,
            },
            name: None,
        }),
        kind if kind.ends_with("_tool_use") || kind.ends_with("_tool_result") => {
            out.push(text_part(told(item, kind)));
        }
        _ => out.push(content_part(item, field)?),
    }
    out.extend(cache_mark(item));
    Ok(())
}

/// A tool's result: its blocks, or the JSON text of another value, as clients give back what a tool
/// returned.
fn result(content: &Value, field: &str) -> Result<Vec<Part>, ApiError> {
    match content {
        Value::Object(_) if content["type"].is_string() => parts(content, field),
        Value::Object(_) | Value::Number(_) | Value::Bool(_) => {
            Ok(vec![text_part(content.to_string())])
        }
        _ => parts(content, field),
    }
}

fn source(item: &Value, field: &str) -> Result<Source, ApiError> {
    let source = &item["source"];
    let text = |name: &str| source[name].as_str();
    let found = match text("type").unwrap_or_default() {
        "url" => text("url").map(Source::from_url),
        "file" => text("file_id").map(|id| Source::FileId { id: id.to_owned() }),
        // Some leave the type out.
        _ => match (text("data"), text("url")) {
            (Some(data), _) => {
                let media_type = text("media_type").unwrap_or("application/octet-stream");
                Some(Source::from_data(media_type, data.to_owned()))
            }
            (None, url) => url.map(Source::from_url),
        },
    };
    found.ok_or_else(|| {
        ApiError::invalid(
            format!("{field}.source"),
            "must hold data, a url or a file_id",
        )
    })
}

/// A document: a file, a text, or blocks of its own.
fn document(item: &Value, field: &str, out: &mut Vec<Part>) -> Result<(), ApiError> {
    let name = item["title"].as_str().filter(|title| !title.is_empty());
    if let Some(context) = item["context"].as_str().filter(|text| !text.is_empty()) {
        let about = name.unwrap_or("the document that follows");
        out.push(text_part(format!("About {about}: {context}")));
    }
    let from = &item["source"];
    match from["type"].as_str().unwrap_or_default() {
        "text" => {
            let text = from["data"].as_str().or_else(|| from["text"].as_str());
            let missing = || ApiError::invalid(format!("{field}.source.data"), "is missing");
            let data = STANDARD.encode(text.ok_or_else(missing)?);
            out.push(Part::File {
                source: Source::Data {
                    media_type: "text/plain".to_owned(),
                    data,
                },
                name: Some(name.unwrap_or("document.txt").to_owned()),
            });
        }
        "content" => {
            out.extend(name.map(|name| text_part(format!("{name}:"))));
            let content = &from["content"];
            out.extend(parts(content, &format!("{field}.source.content"))?);
        }
        _ => out.push(Part::File {
            source: source(item, field)?,
            name: name.map(str::to_owned),
        }),
    }
    Ok(())
}

fn search_result(item: &Value) -> String {
    let text = |name: &str| item[name].as_str().unwrap_or_default();
    let found = item["content"].as_array().into_iter().flatten();
    let found: Vec<&str> = found.filter_map(|block| block["text"].as_str()).collect();
    format!(
        "{} ({}):\n{}",
        text("title"),
        text("source"),
        found.join("\n")
    )
}

/// What one of Anthropic's own tools did, for a model that does not have it.
fn told(item: &Value, kind: &str) -> String {
    let shown = match kind.ends_with("_tool_use") {
        true => &item["input"],
        false => &item["content"],
    };
    let name = item["name"].as_str().unwrap_or(kind);
    format!("[{name}: {}]", without_encrypted(shown.clone()))
}

/// Without what only Anthropic can read.
fn without_encrypted(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| *item = without_encrypted(item.take())),
        Value::Object(members) => {
            members.retain(|name, _| !name.starts_with("encrypted"));
            for member in members.values_mut() {
                *member = without_encrypted(member.take());
            }
        }
        _ => {}
    }
    value
}
