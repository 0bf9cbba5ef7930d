//! Files that are kept here and named by id in a message. A transcript keeps the id; what a model is
//! sent has the bytes, in the form that all wires know: an image, a file's data, or its text.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::job::Job;
use super::runs::Runs;
use crate::error::ApiError;
use crate::model::{Part, Refused, Source, Turn, kind_of_bytes, that_take};
use crate::store::{FileRow, Store};

/// The largest file that goes into a message, in bytes, and all files of a request together.
pub const MAX_FILE: i64 = 32 * 1024 * 1024;
pub const MAX_FILES: i64 = 64 * 1024 * 1024;

/// A file's content.
pub struct Attachment {
    pub name: String,
    pub media_type: String,
    pub content: Vec<u8>,
}

impl Attachment {
    /// Reads a file.
    pub async fn load(store: &dyn Store, file: &FileRow) -> Result<Self, ApiError> {
        let mut content = Vec::with_capacity(usize::try_from(file.bytes).unwrap_or(0));
        for number in 0.. {
            if content.len() as i64 >= file.bytes {
                break;
            }
            let piece = store.file_piece(&file.tenant_id, &file.id, number).await?;
            let gone = || ApiError::not_found("file", &file.id);
            content.extend_from_slice(&piece.ok_or_else(gone)?);
        }
        Ok(Self {
            media_type: media_type(&file.filename, file.media_type.as_deref(), &content),
            name: file.filename.clone(),
            content,
        })
    }

    /// Whether it is an image that models take.
    pub fn is_image(&self) -> bool {
        self.media_type.starts_with("image/")
    }

    /// Its content in base64.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.content)
    }

    /// As a `data:` URL.
    pub fn data_url(&self) -> String {
        format!("data:{};base64,{}", self.media_type, self.base64())
    }

    fn source(&self) -> Source {
        Source::Data {
            media_type: self.media_type.clone(),
            data: self.base64(),
        }
    }

    /// In place of `part`, which names it. Text goes as text, which every model reads.
    fn part(&self, part: &Part) -> Part {
        let detail = match part {
            Part::Image { detail, .. } => detail.clone(),
            _ => None,
        };
        let name = match part {
            Part::File {
                name: Some(name), ..
            } => name.clone(),
            _ => self.name.clone(),
        };
        if self.is_image() {
            let source = self.source();
            return Part::Image { source, detail };
        }
        match std::str::from_utf8(&self.content) {
            Ok(text) if self.media_type != "application/pdf" => Part::Text {
                text: format!("File '{name}':\n{text}"),
            },
            _ => Part::File {
                source: self.source(),
                name: Some(name),
            },
        }
    }
}

/// What a file is: by its first bytes, else by what its uploader said, else by its name.
fn media_type(name: &str, said: Option<&str>, content: &[u8]) -> String {
    let by_bytes = kind_of_bytes(content);
    if let Some(known) = by_bytes {
        return known.to_owned();
    }
    let said = said
        .and_then(|said| said.split(';').next())
        .map(|said| said.trim().to_ascii_lowercase());
    // What its bytes are not, it is not.
    let is_false = |said: &str| said.starts_with("image/") || said == "application/pdf";
    let is_said = |said: &String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/.+-".contains(&b);
        let known = said.contains('/') && said.bytes().all(plain) && !is_false(said);
        known && said != "application/octet-stream"
    };
    if let Some(said) = said.filter(is_said) {
        return said;
    }
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    let by_name = match extension.as_deref() {
        Some("md" | "markdown") => Some("text/markdown"),
        Some("html" | "htm") => Some("text/html"),
        Some("csv") => Some("text/csv"),
        Some("json") => Some("application/json"),
        _ => None,
    };
    by_name
        .unwrap_or(match std::str::from_utf8(content) {
            Ok(_) => "text/plain",
            Err(_) => "application/octet-stream",
        })
        .to_owned()
}

/// Calls `take` for each part that names a file, in tool results too.
pub fn each_named<'a>(turns: impl IntoIterator<Item = &'a Turn>, take: &mut impl FnMut(&'a str)) {
    fn walk<'a>(parts: &'a [Part], take: &mut impl FnMut(&'a str)) {
        for part in parts {
            match part {
                Part::Image {
                    source: Source::FileId { id },
                    ..
                }
                | Part::File {
                    source: Source::FileId { id },
                    ..
                } => take(id),
                Part::ToolResult { content, .. } => walk(content, take),
                _ => {}
            }
        }
    }
    for turn in turns {
        walk(&turn.parts, take);
    }
}

/// A file that goes into turns.
struct Loaded {
    /// `None` for one that was deleted since, or that is too large.
    file: Option<Attachment>,
    is_deleted: bool,
    /// How often it is still to be put there.
    times: usize,
}

/// From the newest on, as the times were counted.
fn replace(parts: &mut [Part], found: &mut HashMap<String, Loaded>) {
    for part in parts.iter_mut().rev() {
        let id = match part {
            Part::Image {
                source: Source::FileId { id },
                ..
            }
            | Part::File {
                source: Source::FileId { id },
                ..
            } => id.clone(),
            Part::ToolResult { content, .. } => {
                replace(content, found);
                continue;
            }
            _ => continue,
        };
        let left_out = |why: &str| Part::Text {
            text: format!("[the file '{id}' {why}]"),
        };
        *part = match found.get_mut(&id) {
            Some(named) if !named.is_deleted => match &named.file {
                Some(file) if named.times > 0 => {
                    named.times -= 1;
                    file.part(part)
                }
                _ => left_out("is left out here: the files of a request are too large together"),
            },
            _ => left_out("is no longer kept"),
        };
    }
}

/// Files that turns name, and what they take of memory when they are put there.
#[derive(Default)]
pub struct Named {
    /// `None` for one that was deleted since; how often each goes with the turns: each time that it
    /// is named, as long as there is room.
    files: HashMap<String, (Option<FileRow>, usize)>,
    bytes: i64,
}

impl Named {
    /// Looks for what `turns` name. All together are bounded, the newest first: those are asked about.
    pub async fn find(
        store: &dyn Store,
        tenant_id: &str,
        turns: &[Turn],
    ) -> Result<Self, ApiError> {
        let mut ids = Vec::new();
        each_named(turns, &mut |id| ids.push(id));
        let mut named = Self::default();
        for id in ids.into_iter().rev() {
            if !named.files.contains_key(id) {
                let row = store.file(tenant_id, id).await?;
                named.files.insert(id.to_owned(), (row, 0));
            }
            if let Some((Some(file), times)) = named.files.get_mut(id)
                && file.bytes <= MAX_FILE
                && named.bytes + file.bytes <= MAX_FILES
            {
                named.bytes += file.bytes;
                *times += 1;
            }
        }
        Ok(named)
    }

    /// Whether there are any.
    pub fn is_some(&self) -> bool {
        !self.files.is_empty()
    }

    /// What they take of memory in a request, in bytes.
    pub fn weight(&self) -> usize {
        in_base64(self.bytes)
    }

    /// Puts them into `turns`. One that was deleted since is told as such: what was said with it can
    /// still be gone on with.
    pub async fn put(self, store: &dyn Store, turns: &mut [Turn]) -> Result<(), ApiError> {
        if !self.is_some() {
            return Ok(());
        }
        let mut found = HashMap::with_capacity(self.files.len());
        for (id, (row, times)) in self.files {
            let file = match &row {
                Some(row) if times > 0 => Some(Attachment::load(store, row).await?),
                _ => None,
            };
            let is_deleted = row.is_none();
            let loaded = Loaded {
                file,
                is_deleted,
                times,
            };
            found.insert(id, loaded);
        }
        for turn in turns.iter_mut().rev() {
            replace(&mut turn.parts, &mut found);
        }
        Ok(())
    }
}

impl Runs {
    /// Puts the files that the conversation names into what the model is asked, counted in the node's
    /// budget, and leaves the routes that take what the last `given` turns hold. 400 when none does:
    /// `member` is where in the caller's request those are.
    pub(super) async fn attach(
        &self,
        job: &mut Job,
        given: usize,
        member: &str,
    ) -> Result<(), ApiError> {
        let tenant_id = job.live.tenant_id.clone();
        let turns = &job.request().turns;
        let from = turns.len().saturating_sub(given);
        let named = Named::find(self.store.as_ref(), &tenant_id, turns).await?;
        let as_named = named.is_some().then(|| turns[from..].to_vec());
        if named.weight() > 0 {
            let mut held = self.bodies.begin(tenant_id);
            held.grow_beside_body(named.weight()).await?;
            job.files = Some(Box::new(held));
        }
        named
            .put(self.store.as_ref(), &mut job.request().turns)
            .await?;
        let routes = std::mem::take(&mut job.routes);
        let record = job.row.clone();
        let given = &job.request().turns[from..];
        let taking = that_take(routes, given).map_err(|why| {
            let as_named = as_named.as_deref().unwrap_or(given);
            refusal(why, as_named, record.input.as_bytes(), member)
        });
        job.routes = taking?;
        Ok(())
    }
}

/// What says in JSON which file, image or sound a part is.
fn mark_of(part: &Part) -> Option<&str> {
    match part {
        Part::Image { source, .. } | Part::File { source, .. } => Some(match source {
            Source::FileId { id } => id,
            Source::Url { url } => url,
            Source::Data { data, .. } => data,
        }),
        Part::Audio { data, .. } => Some(data),
        _ => None,
    }
}

/// What `turns` say of a part that is refused.
fn mark_at<'a>(turns: &'a [Turn], refused: &Refused) -> Option<&'a str> {
    let (turn, part, inner) = refused.place;
    let part = turns.get(turn)?.parts.get(part)?;
    match (part, inner) {
        (Part::ToolResult { content, .. }, Some(inner)) => mark_of(content.get(inner)?),
        (part, _) => mark_of(part),
    }
}

/// 400 that names the part in `json`, where `named` are the turns as they were there; `member` is
/// where in the request that is.
pub fn refusal(refused: Refused, named: &[Turn], json: &[u8], member: &str) -> ApiError {
    let place = mark_at(named, &refused).and_then(|mark| {
        // Data may have been behind the head of a `data:` URL.
        place_of(json, &|text| text.ends_with(mark))
    });
    let error = ApiError::bad_request("unsupported", refused.message);
    match place {
        Some(place) => {
            let part = place.rfind(']').map_or(&*place, |end| &place[..=end]);
            error.param(format!("{member}{part}"))
        }
        None => error,
    }
}

/// Where in JSON the first text that `is_it` is, such as `messages[0].content[1].file.file_id`.
pub fn place_of(json: &[u8], is_it: &dyn Fn(&str) -> bool) -> Option<String> {
    fn walk(value: &Value, at: &str, is_it: &dyn Fn(&str) -> bool) -> Option<String> {
        match value {
            Value::String(text) => is_it(text).then(|| at.to_owned()),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .find_map(|(place, item)| walk(item, &format!("{at}[{place}]"), is_it)),
            Value::Object(members) => members.iter().find_map(|(name, member)| {
                let dot = if at.is_empty() { "" } else { "." };
                walk(member, &format!("{at}{dot}{name}"), is_it)
            }),
            _ => None,
        }
    }
    walk(&serde_json::from_slice(json).ok()?, "", is_it)
}

/// What `bytes` of files are in JSON.
pub fn in_base64(bytes: i64) -> usize {
    usize::try_from(bytes).unwrap_or(0).div_ceil(3) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_not_trusted_over_the_bytes() {
        for (name, said, content, media_type_is) in [
            ("a.txt", Some("image/png"), &b"hello"[..], "text/plain"),
            ("a", Some("text/plain"), b"%PDF-1.7", "application/pdf"),
            ("a.bin", None, b"\x89PNG\r\n", "image/png"),
            (
                "a.md",
                Some("application/octet-stream"),
                b"# a",
                "text/markdown",
            ),
            ("a", Some("text/csv; charset=utf-8"), b"a,b", "text/csv"),
            (
                "a",
                Some("bad type\r\n"),
                b"\xff\x00",
                "application/octet-stream",
            ),
        ] {
            assert_eq!(
                media_type(name, said, content),
                media_type_is,
                "{name} {said:?}"
            );
        }
    }
}
