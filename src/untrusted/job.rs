//! The jobs that children do.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::{self, Cutting};
use super::{archive, front_matter, mail, page, schema};

/// What a child is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    pub work: Work,
    /// Of computing.
    pub seconds: u64,
}

/// What is to be done with a frame's bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A file's text, in chunks.
    Document(Cutting),
    /// The readable part of an HTML page.
    Page { url: String },
    /// The files of a zip.
    Archive(archive::Bounds),
    /// YAML as JSON.
    FrontMatter,
    /// A message of e-mail.
    Mail,
    /// HTML as text.
    Html,
    /// A schema, of so many bytes, and a value when there are more.
    Schema { schema_bytes: usize },
}

/// What a child answers, beside bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The bytes are a JSON list of texts.
    Chunks,
    /// The bytes are text.
    Text,
    /// The bytes are the files, one behind the other, with these paths and lengths.
    Files(Vec<(String, usize)>),
    /// The bytes are JSON.
    Json,
    /// Where and why a value does not conform.
    Mismatch {
        path: String,
        why: String,
    },
    Refused(Refused),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub code: String,
    pub message: String,
}

impl Refused {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }

    /// Of a parser that lost its way.
    pub fn broken() -> Self {
        Self::new("invalid_file", "it cannot be read: it is broken")
    }

    /// Of what is longer than anybody would read.
    pub fn too_much() -> Self {
        Self::new("invalid_file", "it holds more than can be taken in")
    }
}

/// Does a job.
pub fn run(work: &Work, bytes: &[u8]) -> Result<(Told, Vec<u8>), Refused> {
    let json = |value: &Value| serde_json::to_vec(value).map_err(|_| Refused::broken());
    match work {
        Work::Document(cutting) => {
            let chunks = document::chunks(cutting, bytes);
            let chunks = chunks.map_err(|e| Refused::new(e.code(), e.to_string()))?;
            let chunks = serde_json::to_vec(&chunks).map_err(|_| Refused::broken())?;
            Ok((Told::Chunks, chunks))
        }
        Work::Page { url } => {
            let html = String::from_utf8_lossy(bytes);
            Ok((Told::Text, page::readable(url, &html).into_bytes()))
        }
        Work::Archive(bounds) => {
            let files = archive::unpacked(bytes, bounds);
            let files = files.map_err(|why| Refused::new("invalid_bundle", why))?;
            let listed = |(path, file): &(String, Vec<u8>)| (path.clone(), file.len());
            let list = files.iter().map(listed).collect();
            let bytes = files.into_iter().flat_map(|(_, file)| file).collect();
            Ok((Told::Files(list), bytes))
        }
        Work::FrontMatter => {
            let text = String::from_utf8_lossy(bytes);
            let found = front_matter::parse(&text);
            let found = found.map_err(|why| Refused::new("invalid_bundle", why))?;
            Ok((Told::Json, json(&found)?))
        }
        Work::Mail => {
            let (found, contents) = mail::read(bytes);
            let found = serde_json::to_vec(&found).map_err(|_| Refused::broken())?;
            let files = std::iter::once(&found).chain(&contents);
            // Told by their order; the first is what the message holds.
            let list = files.map(|file| (String::new(), file.len())).collect();
            let bytes = std::iter::once(found).chain(contents).flatten().collect();
            Ok((Told::Files(list), bytes))
        }
        Work::Html => {
            let html = String::from_utf8_lossy(bytes);
            Ok((Told::Text, mail::text_of_html(&html).into_bytes()))
        }
        Work::Schema { schema_bytes } => {
            let (schema, value) = bytes
                .split_at_checked(*schema_bytes)
                .ok_or_else(Refused::broken)?;
            let read =
                |bytes| serde_json::from_slice::<Value>(bytes).map_err(|_| Refused::broken());
            let value = match value {
                [] => None,
                value => Some(read(value)?),
            };
            let found = schema::in_sandbox(&read(schema)?, value.as_ref());
            let found = found.map_err(|e| Refused::new("invalid_schema", e.0))?;
            Ok(match found {
                None => (Told::Json, b"null".to_vec()),
                Some((path, why)) => (Told::Mismatch { path, why }, Vec::new()),
            })
        }
    }
}
