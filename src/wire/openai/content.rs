//! Contents of messages, whichever of OpenAI's interfaces they are of, and Anthropic's blocks that
//! clients mix in.

use serde_json::Value;

use crate::error::ApiError;
use crate::model::{Caching, Part, Source};

/// A call's arguments as JSON text: as it is, or of the value that they are.
pub fn arguments_text(arguments: &Value) -> String {
    match arguments {
        Value::Null => "{}".to_owned(),
        Value::String(text) if text.trim().is_empty() => "{}".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `content`: null, a string, or an array of parts.
pub fn content_parts(content: &Value, field: &str) -> Result<Vec<Part>, ApiError> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Part::Text { text: text.clone() }]),
        Value::Array(items) => {
            let mut parts = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                if !item.is_null() {
                    parts.push(content_part(item, &format!("{field}[{at}]"))?);
                    parts.extend(cache_mark(item));
                }
            }
            Ok(parts)
        }
        part @ Value::Object(_) => {
            let said = content_part(part, field)?;
            Ok(std::iter::once(said).chain(cache_mark(part)).collect())
        }
        _ => Err(ApiError::invalid(
            field.to_owned(),
            "must be a string or an array of parts",
        )),
    }
}

/// The mark of a part with `cache_control`.
pub fn cache_mark(item: &Value) -> Option<Part> {
    Caching::mark(&item["cache_control"]).map(|ttl| Part::CacheHere { ttl })
}

/// One part; `field` is where it stands.
pub fn content_part(item: &Value, field: &str) -> Result<Part, ApiError> {
    let text_at = |value: &Value, name: &str| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| ApiError::invalid(format!("{field}.{name}"), "must be a string"))
    };
    // A URL, or an object with one.
    let url_at = |name: &str| match &item[name] {
        Value::String(url) => Ok(url.clone()),
        object => text_at(&object["url"], &format!("{name}.url")),
    };
    if let Some(text) = item.as_str() {
        return Ok(Part::Text {
            text: text.to_owned(),
        });
    }
    match item["type"].as_str() {
        Some("text" | "input_text" | "output_text") => Ok(Part::Text {
            text: text_at(&item["text"], "text")?,
        }),
        None if item["text"].is_string() => Ok(Part::Text {
            text: text_at(&item["text"], "text")?,
        }),
        Some("refusal") => Ok(Part::Refusal {
            text: text_at(&item["refusal"], "refusal")?,
        }),
        Some("image_url" | "input_image") => Ok(Part::Image {
            source: match (item["image_url"].is_null(), item["file_id"].as_str()) {
                (true, Some(id)) => Source::FileId { id: id.to_owned() },
                _ => Source::from_url(&url_at("image_url")?),
            },
            detail: (item["image_url"]["detail"].as_str())
                .or(item["detail"].as_str())
                .map(str::to_owned),
        }),
        Some("video_url") => Ok(Part::File {
            source: Source::from_url(&url_at("video_url")?),
            name: None,
        }),
        Some(kind @ ("image" | "document")) => {
            let source = source_block(&item["source"]).ok_or_else(|| {
                ApiError::invalid(format!("{field}.source"), "must hold data or a url")
            })?;
            Ok(match kind {
                "image" => Part::Image {
                    source,
                    detail: None,
                },
                _ => Part::File {
                    source,
                    name: item["title"].as_str().map(str::to_owned),
                },
            })
        }
        Some("input_audio") => Ok(Part::Audio {
            data: text_at(&item["input_audio"]["data"], "input_audio.data")?,
            format: text_at(&item["input_audio"]["format"], "input_audio.format")?,
        }),
        Some(kind @ ("file" | "input_file")) => {
            let file = match kind {
                "file" => &item["file"],
                _ => item,
            };
            let name = file["filename"].as_str();
            let data = file["file_data"].as_str();
            let url = file["file_url"].as_str();
            let source = match (file["file_id"].as_str(), data, url) {
                (Some(id), ..) => Source::FileId { id: id.to_owned() },
                (None, Some(data), _) => Source::from_file_data(data, name),
                (None, None, Some(url)) => Source::from_url(url),
                (None, None, None) => {
                    return Err(ApiError::invalid(
                        format!("{field}.file"),
                        "must hold file_id or file_data",
                    ));
                }
            };
            Ok(Part::File {
                source,
                name: name.map(str::to_owned),
            })
        }
        Some(other) => Err(ApiError::invalid(
            format!("{field}.type"),
            format!("no content part '{other}'"),
        )),
        None => Err(ApiError::invalid(format!("{field}.type"), "is missing")),
    }
}

/// Anthropic's `source`.
fn source_block(source: &Value) -> Option<Source> {
    let text = |name: &str| source[name].as_str().map(str::to_owned);
    match source["type"].as_str()? {
        "url" => Some(Source::from_url(source["url"].as_str()?)),
        "base64" => Some(Source::from_data(&text("media_type")?, text("data")?)),
        "file" => Some(Source::FileId {
            id: text("file_id")?,
        }),
        _ => None,
    }
}
