//! `RunIn` of `POST /v1/smiths/{id}/runs`.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::lenient::given;
use crate::model::{Part, ResponseFormat, Role, Source, Turn};
use crate::run::{INCLUDE_CITATIONS, INCLUDE_REASONING, INCLUDE_TOOL_ARGS};
use crate::wire::openai::choice::decode_format;

/// The body, as sent.
#[derive(Debug, Deserialize)]
pub struct RunIn {
    #[serde(default)]
    input: Option<Vec<InputMessage>>,
    #[serde(default)]
    thread_id: Option<String>,
    #[serde(default, deserialize_with = "given::flag")]
    stream: Option<bool>,
    #[serde(default, deserialize_with = "given::text")]
    channel: Option<String>,
    #[serde(default)]
    metadata: Option<Object>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

/// A message of the input, as sent.
#[derive(Debug, Deserialize)]
pub struct InputMessage {
    #[serde(default, deserialize_with = "given::text")]
    role: Option<String>,
    #[serde(default)]
    content: Value,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include: Option<Vec<Option<String>>>,
}

/// What the body means.
#[derive(Debug)]
pub struct RunInput {
    pub turns: Vec<Turn>,
    pub record: Value,
    pub thread_id: Option<String>,
    pub stream: bool,
    pub channel: String,
    pub metadata: Option<Object>,
    pub response_format: Option<ResponseFormat>,
    pub include_mask: i64,
}

fn invalid_input(param: String, why: impl Into<String>) -> ApiError {
    ApiError::bad_request("invalid_input", why.into()).param(param)
}

/// Checks a body and turns it into neutral terms.
pub fn decode(body: RunIn) -> Result<RunInput, ApiError> {
    let (turns, record) = decode_input(body.input.unwrap_or_default())?;
    if let Some(thread) = &body.thread_id
        && !ids::is_sane_thread_id(thread)
    {
        return Err(ApiError::invalid(
            "thread_id",
            "must be 1 to 256 printable characters",
        ));
    }
    let mut include_mask = 0;
    for (at, name) in body
        .stream_options
        .into_iter()
        .flat_map(|o| o.include)
        .flatten()
        .flatten()
        .enumerate()
    {
        include_mask |= match name.as_str() {
            "reasoning" => INCLUDE_REASONING,
            "tool_args" => INCLUDE_TOOL_ARGS,
            "citations" => INCLUDE_CITATIONS,
            other => {
                return Err(ApiError::invalid(
                    format!("stream_options.include[{at}]"),
                    format!("nothing called '{other}' can be included"),
                ));
            }
        };
    }
    Ok(RunInput {
        turns,
        record,
        thread_id: body.thread_id,
        stream: body.stream.unwrap_or(false),
        channel: body
            .channel
            .filter(|c| !c.is_empty())
            .unwrap_or_else(|| "api".to_owned()),
        metadata: body.metadata,
        response_format: match &body.response_format {
            None => None,
            Some(format) => decode_format(format, "response_format")?,
        },
        include_mask,
    })
}

/// Checks messages that end with the user's; answers them as turns, and as they were sent.
pub fn decode_input(messages: Vec<InputMessage>) -> Result<(Vec<Turn>, Value), ApiError> {
    let has_user = messages
        .last()
        .is_some_and(|message| message.role.as_deref() == Some("user"));
    if messages.is_empty() {
        return Err(invalid_input("input".into(), "there is nothing to answer"));
    }
    let mut turns = Vec::with_capacity(messages.len());
    let mut record = Vec::with_capacity(messages.len());
    for (at, message) in messages.into_iter().enumerate() {
        let role = match message.role.as_deref().unwrap_or_default() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => {
                return Err(invalid_input(
                    format!("input[{at}].role"),
                    "system text comes from the smith's instructions",
                ));
            }
            other => {
                return Err(invalid_input(
                    format!("input[{at}].role"),
                    format!("no role '{other}'"),
                ));
            }
        };
        let parts = parts(&message.content, &format!("input[{at}].content"))?;
        record.push(json!({ "role": message.role, "content": message.content }));
        turns.push(Turn { role, parts });
    }
    if !has_user {
        return Err(invalid_input(
            "input".into(),
            "the last message must be the user's",
        ));
    }
    Ok((turns, Value::Array(record)))
}

fn parts(content: &Value, field: &str) -> Result<Vec<Part>, ApiError> {
    let parts = match content {
        Value::String(text) => vec![Part::Text { text: text.clone() }],
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| part(item, &format!("{field}[{at}]")))
            .collect::<Result<_, _>>()?,
        _ => {
            return Err(invalid_input(
                field.to_owned(),
                "must be a string or an array of parts",
            ));
        }
    };
    if parts.is_empty() {
        return Err(invalid_input(field.to_owned(), "is empty"));
    }
    Ok(parts)
}

/// `{type: text|image|file}`; OpenAI's part names are taken too.
fn part(item: &Value, field: &str) -> Result<Part, ApiError> {
    let text = |name: &str| item[name].as_str();
    match text("type") {
        Some("text" | "input_text") => {
            let text = text("text")
                .ok_or_else(|| invalid_input(format!("{field}.text"), "must be a string"))?;
            Ok(Part::Text {
                text: text.to_owned(),
            })
        }
        Some("image" | "input_image") => Ok(Part::Image {
            source: source(item, &["image_url", "url", "image"], field)?,
            detail: text("detail").map(str::to_owned),
        }),
        Some("file" | "input_file") if !item["file"].is_object() => Ok(Part::File {
            source: source(item, &["file_url", "url", "file"], field)?,
            name: text("filename").or(text("name")).map(str::to_owned),
        }),
        Some("image_url" | "file" | "input_audio") => {
            crate::wire::openai::content::content_parts(&json!([item]), field)?
                .into_iter()
                .next()
                .ok_or_else(|| invalid_input(field.to_owned(), "is empty"))
        }
        Some(other) => Err(invalid_input(
            format!("{field}.type"),
            format!("no content part '{other}'"),
        )),
        None => Err(invalid_input(format!("{field}.type"), "is missing")),
    }
}

fn source(item: &Value, urls: &[&str], field: &str) -> Result<Source, ApiError> {
    if let Some(url) = urls.iter().find_map(|name| item[*name].as_str()) {
        return Ok(Source::from_url(url));
    }
    let media_type = ["media_type", "mime_type"]
        .iter()
        .find_map(|n| item[*n].as_str());
    if let (Some(data), Some(media_type)) = (item["data"].as_str(), media_type) {
        return Ok(Source::Data {
            media_type: media_type.to_owned(),
            data: data.to_owned(),
        });
    }
    if let Some(id) = item["file_id"].as_str() {
        return Ok(Source::FileId { id: id.to_owned() });
    }
    Err(invalid_input(
        field.to_owned(),
        "must hold a url, data with a media_type, or a file_id",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(body: Value) -> Result<RunInput, ApiError> {
        crate::edge::parse::<RunIn>(body.to_string().as_bytes()).and_then(decode)
    }

    #[test]
    fn bad_input_is_named() {
        for (body, code, param) in [
            (json!({}), "invalid_input", "input"),
            (json!({ "input": [] }), "invalid_input", "input"),
            (json!({ "input": "hi" }), "invalid_request", "input"),
            (
                json!({ "input": [{ "role": "system", "content": "x" }] }),
                "invalid_input",
                "input[0].role",
            ),
            (
                json!({ "input": [{ "role": "user", "content": [{ "type": "image" }] }] }),
                "invalid_input",
                "input[0].content[0]",
            ),
            (
                json!({ "input": [{ "role": "user", "content": "x" }], "stream_options": { "include": ["x"] } }),
                "invalid_request",
                "stream_options.include[0]",
            ),
        ] {
            let error = run(body.clone()).expect_err("refused");
            assert_eq!(error.code, code, "{body}");
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn parts_are_read() {
        let input = run(json!({ "input": [{ "role": "user", "content": [
            { "type": "text", "text": "what is it?" },
            { "type": "image", "url": "data:image/png;base64,aGk=" },
            { "type": "file", "file_id": "file-1", "filename": "a.pdf" },
        ]}]}))
        .expect("valid");
        assert_eq!(input.turns[0].parts.len(), 3);
        assert_eq!(input.channel, "api");
    }
}
