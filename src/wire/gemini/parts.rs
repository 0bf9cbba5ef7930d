//! The parts of a request's contents, and the ids of calls, which this wire need not have.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write;

use serde_json::Value;

use super::{member, signature, unsupported};
use crate::error::ApiError;
use crate::frame::Signer;
use crate::model::{Part, Source};

/// The calls of a conversation so far.
#[derive(Default)]
pub(super) struct Calls {
    count: usize,
    /// The ids by the functions' names, in their order.
    open: HashMap<String, VecDeque<String>>,
    answered: HashSet<String>,
}

impl Calls {
    /// The id of a call; one that has none gets the same each time, so that a conversation that goes on
    /// begins alike.
    fn called(&mut self, call: &Value, name: &str) -> String {
        self.count += 1;
        let id = match call["id"].as_str().filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None => {
                let of = format!("{} {name} {}", self.count, call["args"]);
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, of.as_bytes());
                let mut id = "call_".to_owned();
                for byte in &digest.as_ref()[..12] {
                    let _ = write!(id, "{byte:02x}");
                }
                id
            }
        };
        let of_name = self.open.entry(name.to_owned()).or_default();
        of_name.push_back(id.clone());
        id
    }

    /// The id of the call that a response is to: its own, or that of the first call of its function
    /// that has none.
    fn answered(&mut self, response: &Value, name: &str) -> Option<String> {
        let id = match response["id"].as_str().filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None => {
                let of_name = self.open.get_mut(name)?;
                loop {
                    let id = of_name.pop_front()?;
                    if !self.answered.contains(&id) {
                        break id;
                    }
                }
            }
        };
        self.answered.insert(id.clone());
        Some(id)
    }
}

/// The parts of a content: a text, a list, or one of them.
pub(super) fn parts(parts: &Value, field: &str, calls: &mut Calls) -> Result<Vec<Part>, ApiError> {
    let mut out = Vec::new();
    match parts {
        Value::Null => {}
        Value::Array(items) => {
            out.reserve(items.len());
            for (at, item) in items.iter().enumerate().filter(|(_, item)| !item.is_null()) {
                part(item, &format!("{field}[{at}]"), calls, &mut out)?;
            }
        }
        one => part(one, field, calls, &mut out)?,
    }
    Ok(out)
}

/// What a part has, by either of its members' names.
#[derive(Default)]
struct Members<'a> {
    is_thought: bool,
    signature: Option<&'a str>,
    resolution: Option<&'a str>,
    data: Option<(&'a str, &'a Value)>,
}

fn members<'a>(item: &'a Value, field: &str) -> Result<Members<'a>, ApiError> {
    let Value::Object(object) = item else {
        return Err(ApiError::invalid(field.to_owned(), "must be an object"));
    };
    let mut found = Members::default();
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "thought" => found.is_thought = value == true,
            "thoughtSignature" | "thought_signature" => found.signature = value.as_str(),
            "mediaResolution" | "media_resolution" => {
                found.resolution = value.as_str().or_else(|| value["level"].as_str());
            }
            "videoMetadata" | "video_metadata" => {
                let why = "only models of Google itself look at a piece of a video";
                return Err(unsupported(format!("{field}.videoMetadata"), why));
            }
            "partMetadata" | "part_metadata" | "type" => {}
            _ if found.data.is_some() => {
                return Err(ApiError::invalid(
                    field.to_owned(),
                    format!("holds '{name}' beside what it is"),
                ));
            }
            name => found.data = Some((name, value)),
        }
    }
    Ok(found)
}

fn text_part(text: &str) -> Part {
    Part::Text {
        text: text.to_owned(),
    }
}

fn part(item: &Value, field: &str, calls: &mut Calls, out: &mut Vec<Part>) -> Result<(), ApiError> {
    if let Some(text) = item.as_str() {
        out.push(text_part(text));
        return Ok(());
    }
    let found = members(item, field)?;
    let Some((name, value)) = found.data else {
        // A signature may come by itself.
        return match found.signature {
            Some(_) => {
                signed("", &found, out);
                Ok(())
            }
            None => Err(ApiError::invalid(field.to_owned(), "is empty")),
        };
    };
    let missing = |name: &str| ApiError::invalid(format!("{field}.{name}"), "is missing");
    match name {
        "text" => {
            let bad = || ApiError::invalid(format!("{field}.text"), "must be a string");
            let text = value.as_str().ok_or_else(bad)?;
            if !found.is_thought && (!text.is_empty() || found.signature.is_none()) {
                out.push(text_part(text));
            }
            signed(text, &found, out);
            return Ok(());
        }
        "functionCall" | "function_call" => {
            let name = value["name"].as_str().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| missing("functionCall.name"))?;
            let signature = found.signature.and_then(signature::read);
            let signature = signature.filter(|(of, _)| of.signer == Signer::Google);
            out.push(Part::ToolCall {
                id: calls.called(value, name),
                name: name.to_owned(),
                arguments: match &value["args"] {
                    Value::Null => "{}".to_owned(),
                    args => args.to_string(),
                },
                signature: signature.map(|(of, _)| of.value),
                server: None,
                approved: false,
            });
            return Ok(());
        }
        "functionResponse" | "function_response" => {
            let name = value["name"].as_str().unwrap_or_default();
            let stray = || {
                let why = format!("answers no call of '{name}'");
                ApiError::invalid(format!("{field}.functionResponse"), why)
            };
            let tool_call_id = calls.answered(value, name).ok_or_else(stray)?;
            let (mut content, is_error) = response(&value["response"]);
            content.extend(parts(
                &value["parts"],
                &format!("{field}.functionResponse.parts"),
                calls,
            )?);
            out.push(Part::ToolResult {
                tool_call_id,
                content,
                is_error,
            });
        }
        "inlineData" | "inline_data" => {
            let data = value["data"].as_str();
            let data = data.ok_or_else(|| missing("inlineData.data"))?;
            let media_type = member(value, "mimeType", "mime_type").as_str();
            // Clients that are not Google's send base64 for URLs, too.
            let data = match data.contains(['-', '_']) {
                true => data.replace('-', "+").replace('_', "/"),
                false => data.to_owned(),
            };
            let media_type = media_type.unwrap_or("application/octet-stream");
            match media_type.strip_prefix("audio/") {
                Some(kind) => out.push(Part::Audio {
                    format: sound(kind).to_owned(),
                    data,
                }),
                None => out.push(media(Source::from_data(media_type, data), value, &found)),
            }
        }
        "fileData" | "file_data" => {
            let uri = member(value, "fileUri", "file_uri").as_str();
            let uri = uri.ok_or_else(|| missing("fileData.fileUri"))?;
            let is_googles = [
                "files/",
                "gs://",
                "https://generativelanguage.googleapis.com/",
            ];
            if is_googles.iter().any(|begin| uri.starts_with(begin)) {
                let why = format!("only Google itself has the file '{uri}'");
                return Err(unsupported(format!("{field}.fileData.fileUri"), why));
            }
            out.push(media(Source::from_url(uri), value, &found));
        }
        "executableCode" | "executable_code" => {
            let text = |name: &str| value[name].as_str().unwrap_or_default();
            let language = text("language").to_lowercase();
            let code = format!("\n```{language}\n{}\n```\n", text("code"));
            out.push(text_part(&code));
        }
        "codeExecutionResult" | "code_execution_result" => {
            let output = value["output"].as_str().unwrap_or_default();
            out.push(text_part(&format!("\n```\n{output}\n```\n")));
        }
        // What one of Google's own tools did, for a model that does not have it.
        "toolCall" | "tool_call" | "toolResponse" | "tool_response" => {
            out.push(text_part(&format!("[{name}: {value}]")));
        }
        _ => {
            let why = format!("no part '{name}'");
            return Err(ApiError::invalid(field.to_owned(), why));
        }
    }
    signed("", &found, out);
    Ok(())
}

/// Appends thoughts, and the signature of what is there.
fn signed(text: &str, found: &Members<'_>, out: &mut Vec<Part>) {
    if found.is_thought && !text.is_empty() {
        match out.last_mut() {
            Some(Part::Reasoning {
                text: said,
                signature: None,
                ..
            }) => said.push_str(text),
            _ => out.push(Part::Reasoning {
                text: text.to_owned(),
                signature: None,
                redacted: false,
            }),
        }
    }
    let Some((of, redacted)) = found.signature.and_then(signature::read) else {
        return;
    };
    match out.last_mut() {
        // Google's are of what comes behind a thought.
        Some(Part::Reasoning {
            signature: signature @ None,
            ..
        }) if of.signer != Signer::Google && !redacted => *signature = Some(of),
        _ => out.push(Part::Reasoning {
            text: String::new(),
            signature: Some(of),
            redacted,
        }),
    }
}

/// What a function gave back: its text, and whether that is an error.
fn response(response: &Value) -> (Vec<Part>, bool) {
    let words = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (text, is_error) = match response {
        Value::Null => return (Vec::new(), false),
        Value::Object(members) if members.len() == 1 => {
            let result = members.get("result").or_else(|| members.get("output"));
            match (result, members.get("error")) {
                (Some(result), _) => (words(result), false),
                (_, Some(error)) => (words(error), true),
                _ => (words(response), false),
            }
        }
        other => (words(other), false),
    };
    (vec![Part::Text { text }], is_error)
}

/// How a sound is coded, as others call it.
fn sound(kind: &str) -> &str {
    let kind = kind.split(';').next().unwrap_or_default();
    match kind {
        "mpeg" | "mpga" => "mp3",
        "x-wav" | "wave" | "vnd.wave" => "wav",
        kind => kind,
    }
}

fn media(source: Source, told: &Value, found: &Members<'_>) -> Part {
    let said = member(told, "mimeType", "mime_type").as_str();
    let media_type = match &source {
        Source::Data { media_type, .. } => Some(&**media_type),
        _ => said.or(source.media_type()),
    };
    if media_type.is_some_and(|kind| kind.starts_with("image/")) {
        let detail = match found.resolution {
            Some(level) if level.ends_with("_LOW") => Some("low"),
            Some(level) if level.ends_with("HIGH") => Some("high"),
            _ => None,
        };
        return Part::Image {
            source,
            detail: detail.map(str::to_owned),
        };
    }
    let name = member(told, "displayName", "display_name").as_str();
    Part::File {
        source,
        name: name.filter(|name| !name.is_empty()).map(str::to_owned),
    }
}
