//! Files that are kept here and named by id in a message. A transcript keeps the id; what a model is
//! sent has the bytes, in the form that all wires know: an image, a file's data, or its text.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::ApiError;
use crate::model::{Part, Source, Turn};
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

    /// As a `data:` URL.
    pub fn data_url(&self) -> String {
        let data = STANDARD.encode(&self.content);
        format!("data:{};base64,{data}", self.media_type)
    }

    fn source(&self) -> Source {
        Source::Data {
            media_type: self.media_type.clone(),
            data: STANDARD.encode(&self.content),
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
    let by_bytes = match content {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("image/webp"),
        [b'%', b'P', b'D', b'F', b'-', ..] => Some("application/pdf"),
        _ => None,
    };
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

/// A file that is named in turns.
struct Named {
    /// `None` for one that was deleted since, or that is too large.
    file: Option<Attachment>,
    is_deleted: bool,
    /// How often it goes with the turns: each time it is named, as long as there is room.
    times: usize,
}

/// From the newest on, as the times were counted.
fn replace(parts: &mut [Part], found: &mut HashMap<String, Named>) {
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

/// Puts the files that `turns` name into them, as often as they are named: all together are bounded.
/// One that was deleted since is told as such: what was said with it can still be gone on with.
pub async fn inline(
    store: &dyn Store,
    tenant_id: &str,
    turns: &mut [Turn],
) -> Result<(), ApiError> {
    let mut ids = Vec::new();
    each_named(turns.iter(), &mut |id| ids.push(id.to_owned()));
    if ids.is_empty() {
        return Ok(());
    }
    let mut found: HashMap<String, Named> = HashMap::new();
    let mut left = MAX_FILES;
    // The newest first: those are asked about.
    for id in ids.into_iter().rev() {
        if !found.contains_key(&id) {
            let row = store.file(tenant_id, &id).await?;
            let is_deleted = row.is_none();
            let file = match row.filter(|row| row.bytes <= MAX_FILE.min(left)) {
                Some(row) => Some(Attachment::load(store, &row).await?),
                None => None,
            };
            let times = 0;
            let named = Named {
                file,
                is_deleted,
                times,
            };
            found.insert(id.clone(), named);
        }
        if let Some(named) = found.get_mut(&id)
            && let Some(file) = &named.file
            && file.content.len() as i64 <= left
        {
            left -= file.content.len() as i64;
            named.times += 1;
        }
    }
    for turn in turns.iter_mut().rev() {
        replace(&mut turn.parts, &mut found);
    }
    Ok(())
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
