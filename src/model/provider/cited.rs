//! What an answer rests on, from the form that each provider gives it to the one of
//! [`crate::frame::citation`].

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::frame::{Escaped, Frame, citation};

/// Places in a text that are kept of one answer.
const MOST_BENDS: usize = 65_536;

/// A frame of a citation, if it names a source.
pub(super) fn frame(told: Value) -> Option<Frame> {
    Some(Frame::Cited(Bytes::from(
        citation::shaped(told)?.to_string(),
    )))
}

/// Citations of one answer, which providers tell again and again.
#[derive(Default)]
pub(super) struct Told {
    all: Vec<Value>,
}

impl Told {
    /// Appends those of `told` that are new.
    pub fn add(&mut self, told: Value, out: &mut Vec<Frame>) {
        if let Some(told) = citation::shaped(told)
            && !self.all.contains(&told)
        {
            out.push(Frame::Cited(Bytes::from(told.to_string())));
            self.all.push(told);
        }
    }

    /// The same for a page that was found, which is told with its place or without one.
    fn page(&mut self, url: &str, title: Option<&str>, out: &mut Vec<Frame>) {
        if !self.all.iter().any(|told| told["url"] == url) {
            self.add(json!({ "url": url, "title": title }), out);
        }
    }

    /// The `annotations` of Chat Completions, whose members stand in an object of their own.
    pub fn annotations(&mut self, raw: Option<&RawValue>, out: &mut Vec<Frame>) {
        for told in list(raw) {
            let kind = told["type"].as_str().unwrap_or_default();
            let told = match told.get(kind) {
                Some(Value::Object(inner)) => {
                    let mut flat = inner.clone();
                    flat.insert("type".to_owned(), json!(kind));
                    Value::Object(flat)
                }
                _ => told,
            };
            self.add(told, out);
        }
    }

    /// Lists of pages beside the answer: their URLs, or objects with a URL and a title.
    pub fn pages(&mut self, raw: Option<&RawValue>, out: &mut Vec<Frame>) {
        for page in list(raw) {
            let url = page.as_str().or_else(|| page["url"].as_str());
            if let Some(url) = url.filter(|url| !url.is_empty()) {
                self.page(url, page["title"].as_str(), out);
            }
        }
    }
}

fn list(raw: Option<&RawValue>) -> Vec<Value> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default()
}

/// A citation of Anthropic's, which is for the whole of the text block that it stands in.
pub(super) fn of_block(told: Value, from: u64, to: u64) -> Option<Frame> {
    let Value::Object(mut told) = told else {
        return None;
    };
    let source = told.get("source").and_then(Value::as_str);
    let is_page = source.is_some_and(|source| source.contains("://"));
    let moved = match (source, is_page) {
        (Some(_), true) => [("source", "url")].as_slice(),
        (Some(_), false) => &[("source", "filename")],
        _ => &[("document_title", "filename"), ("document_index", "index")],
    };
    for (theirs, ours) in moved {
        if let Some(value) = told.get(*theirs).filter(|value| !value.is_null()) {
            let value = value.clone();
            told.entry(*ours).or_insert(value);
        }
    }
    // A document without a title has a place in the request alone.
    if told.contains_key("document_index") && !told.get("filename").is_some_and(Value::is_string) {
        let index = told["document_index"].as_u64().unwrap_or_default();
        told.insert("filename".to_owned(), json!(format!("document {index}")));
    }
    told.insert("start_index".to_owned(), json!(from));
    told.insert("end_index".to_owned(), json!(to));
    frame(Value::Object(told))
}

/// Finds the characters of a text by its bytes in UTF-8, and the other way round.
#[derive(Default)]
pub struct Ruler {
    bytes: u64,
    chars: u64,
    /// Where characters of another width begin: the byte, the character, the width.
    bends: Vec<(u64, u64, u64)>,
}

impl Ruler {
    /// The text goes on; `is_plain`: with ASCII without escapes.
    pub fn add(&mut self, text: &Escaped, is_plain: bool) {
        let bytes = text.as_bytes();
        if is_plain {
            return self.run(1, bytes.len() as u64);
        }
        if bytes.is_ascii() && memchr::memmem::find(bytes, b"\\u").is_none() {
            return self.run(1, text.chars());
        }
        for char in text.unescape().chars() {
            self.run(char.len_utf8() as u64, 1);
        }
    }

    fn run(&mut self, width: u64, count: u64) {
        let bends = self.bends.last().is_none_or(|last| last.2 != width);
        if bends && self.bends.len() < MOST_BENDS {
            self.bends.push((self.bytes, self.chars, width));
        }
        self.bytes += width * count;
        self.chars += count;
    }

    fn char_at(&self, byte: u64) -> u64 {
        let bend = self.bends.partition_point(|bend| bend.0 <= byte);
        match bend.checked_sub(1).and_then(|at| self.bends.get(at)) {
            Some((from, chars, width)) => (chars + (byte - from) / width).min(self.chars),
            None => 0,
        }
    }

    /// The byte at which a character begins.
    pub fn byte_at(&self, char: u64) -> u64 {
        let bend = self.bends.partition_point(|bend| bend.1 <= char);
        match bend.checked_sub(1).and_then(|at| self.bends.get(at)) {
            Some((bytes, from, width)) => (bytes + (char - from) * width).min(self.bytes),
            None => 0,
        }
    }

    /// What Gemini's `groundingMetadata` and `citationMetadata` tell.
    pub(super) fn grounding(&self, metadata: &Value, told: &mut Told, out: &mut Vec<Frame>) {
        let place = |segment: &Value, name: &str| {
            json!(self.char_at(segment[name].as_u64().unwrap_or_default()))
        };
        let chunks = array(&metadata["groundingChunks"]);
        for support in array(&metadata["groundingSupports"]) {
            let segment = &support["segment"];
            for index in array(&support["groundingChunkIndices"]) {
                let at = index.as_u64().and_then(|at| usize::try_from(at).ok());
                if let Some(mut source) = at.and_then(|at| source_of(chunks.get(at)?)) {
                    source.insert("start_index".to_owned(), place(segment, "startIndex"));
                    source.insert("end_index".to_owned(), place(segment, "endIndex"));
                    told.add(Value::Object(source), out);
                }
            }
        }
        for source in chunks.iter().filter_map(source_of) {
            match source.get("url").and_then(Value::as_str) {
                Some(url) => told.page(url, source.get("title").and_then(Value::as_str), out),
                None if told
                    .all
                    .iter()
                    .any(|told| told["filename"] == source["filename"]) => {}
                None => told.add(Value::Object(source), out),
            }
        }
        for name in ["citationSources", "citations"] {
            for source in array(&metadata[name]) {
                let mut found = json!({ "url": source["uri"], "title": source["title"] });
                found["start_index"] = place(source, "startIndex");
                found["end_index"] = place(source, "endIndex");
                told.add(found, out);
            }
        }
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What a chunk of Gemini's grounding is from.
fn source_of(chunk: &Value) -> Option<Map<String, Value>> {
    let from = ["web", "retrievedContext", "maps", "image"]
        .into_iter()
        .find_map(|kind| chunk[kind].as_object())?;
    let mut source = Map::new();
    let uri = from.get("uri").or(from.get("sourceUri"));
    if let Some(uri) = uri.filter(|uri| uri.as_str().is_some_and(|uri| !uri.is_empty())) {
        source.insert("url".to_owned(), uri.clone());
    }
    if let Some(title) = from.get("title").filter(|title| title.is_string()) {
        let name = match source.is_empty() {
            true => "filename",
            false => "title",
        };
        source.insert(name.to_owned(), title.clone());
    }
    (!source.is_empty()).then_some(source)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn characters_are_found_by_their_bytes(pieces in proptest::collection::vec(".{0,6}", 0..8)) {
            let mut ruler = Ruler::default();
            for piece in &pieces {
                ruler.add(&Escaped::escape(piece), false);
            }
            let text = pieces.concat();
            for (chars, (byte, _)) in text.char_indices().enumerate() {
                prop_assert_eq!(ruler.char_at(byte as u64), chars as u64);
            }
            let all = text.chars().count() as u64;
            prop_assert_eq!(ruler.char_at(text.len() as u64), all);
            prop_assert_eq!(ruler.char_at(u64::MAX), all);
        }
    }
}
