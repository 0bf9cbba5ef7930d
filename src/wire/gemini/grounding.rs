//! What an answer rests on, as `groundingMetadata`. Its places count bytes of a part's text.

use serde_json::{Value, json};

use crate::model::provider::Ruler;

/// Sources and the pieces of text that rest on them.
#[derive(Default)]
pub(super) struct Grounds {
    names: Vec<String>,
    chunks: Vec<Value>,
    supports: Vec<Value>,
}

impl Grounds {
    /// A source that is told with its place, in characters, in the text that `ruler` knows; `part`:
    /// which of the answer's parts that is.
    pub fn add(&mut self, told: &Value, ruler: &Ruler, part: usize) {
        let text = |name: &str| told[name].as_str().filter(|text| !text.is_empty());
        let cited = text("cited_text").or(text("quote"));
        let (name, chunk) = match (text("url"), text("filename").or(text("file_id"))) {
            (Some(url), _) => {
                let title = text("title").unwrap_or(url);
                (url, json!({ "web": { "uri": url, "title": title } }))
            }
            (None, Some(name)) => {
                let mut file = json!({ "title": name });
                for (member, value) in [("uri", text("file_id")), ("text", cited)] {
                    if let Some(value) = value {
                        file[member] = json!(value);
                    }
                }
                (name, json!({ "retrievedContext": file }))
            }
            (None, None) => return,
        };
        let known = self.names.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.chunks.push(chunk);
            self.chunks.len() - 1
        });
        let place = |name: &str| told[name].as_u64().unwrap_or_default();
        let (from, to) = (place("start_index"), place("end_index"));
        if to > from {
            let mut segment = json!({
                "startIndex": ruler.byte_at(from),
                "endIndex": ruler.byte_at(to),
            });
            if part > 0 {
                segment["partIndex"] = json!(part);
            }
            if let Some(cited) = cited {
                segment["text"] = json!(cited);
            }
            self.supports
                .push(json!({ "segment": segment, "groundingChunkIndices": [index] }));
        }
    }

    /// `groundingMetadata`, if there is something to tell.
    pub fn metadata(self) -> Option<Value> {
        if self.chunks.is_empty() {
            return None;
        }
        let mut out = json!({ "groundingChunks": self.chunks });
        if !self.supports.is_empty() {
            out["groundingSupports"] = Value::Array(self.supports);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Escaped;

    #[test]
    fn places_count_bytes() {
        let mut ruler = Ruler::default();
        ruler.add(&Escaped::escape("ä€c😀e"), false);
        let mut grounds = Grounds::default();
        for told in [
            json!({ "url": "https://x.example", "title": "t", "start_index": 1, "end_index": 2 }),
            json!({ "url": "https://x.example", "start_index": 3, "end_index": 5 }),
            json!({ "filename": "a.pdf", "file_id": "f", "index": 0 }),
            json!({}),
        ] {
            grounds.add(&told, &ruler, 0);
        }
        assert_eq!(
            grounds.metadata(),
            Some(json!({
                "groundingChunks": [
                    { "web": { "uri": "https://x.example", "title": "t" } },
                    { "retrievedContext": { "title": "a.pdf", "uri": "f" } }],
                "groundingSupports": [
                    { "segment": { "startIndex": 2, "endIndex": 5 }, "groundingChunkIndices": [0] },
                    { "segment": { "startIndex": 6, "endIndex": 11 }, "groundingChunkIndices": [0] }],
            }))
        );
        assert_eq!(Grounds::default().metadata(), None);
    }
}
