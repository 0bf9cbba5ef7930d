//! What an answer rests on, in the five forms that this wire has for it.

use serde_json::{Map, Value, json};

/// A citation as clients of this wire know it. Where it came from Anthropic, its own places in the
/// source are still beside it.
pub(super) fn citation(told: &Value) -> Value {
    let text = |name: &str| told[name].as_str().filter(|text| !text.is_empty());
    let number = |name: &str| told[name].as_u64().unwrap_or_default();
    let cited = text("cited_text").or(text("quote")).unwrap_or_default();
    let mut out = Map::new();
    out.insert("cited_text".to_owned(), json!(cited));
    let mut of_document = |kind: &str, places: [&str; 2]| {
        let index = match told["document_index"].is_null() {
            true => number("index"),
            false => number("document_index"),
        };
        let title = text("document_title").or(text("filename"));
        out.insert("type".to_owned(), json!(kind));
        out.insert("document_index".to_owned(), json!(index));
        out.insert("document_title".to_owned(), json!(title));
        out.insert("file_id".to_owned(), json!(text("file_id")));
        for place in places {
            out.insert(place.to_owned(), json!(number(place)));
        }
    };
    if !told["search_result_index"].is_null() {
        let of_result = json!({
            "type": "search_result_location",
            "source": text("source").or(text("url")).or(text("filename")).unwrap_or_default(),
            "title": text("title"),
            "search_result_index": number("search_result_index"),
            "start_block_index": number("start_block_index"),
            "end_block_index": number("end_block_index"),
        });
        out.extend(of_result.as_object().cloned().unwrap_or_default());
    } else if !told["start_page_number"].is_null() {
        of_document("page_location", ["start_page_number", "end_page_number"]);
    } else if !told["start_block_index"].is_null() {
        of_document(
            "content_block_location",
            ["start_block_index", "end_block_index"],
        );
    } else if let Some(url) = text("url").filter(|_| told["start_char_index"].is_null()) {
        let of_page = json!({
            "type": "web_search_result_location",
            "url": url,
            "title": text("title"),
            "encrypted_index": text("encrypted_index").unwrap_or_default(),
        });
        out.extend(of_page.as_object().cloned().unwrap_or_default());
    } else {
        of_document("char_location", ["start_char_index", "end_char_index"]);
    }
    Value::Object(out)
}

/// A place in a text, which only goes on.
struct Place<'a> {
    text: &'a str,
    byte: usize,
    char: usize,
}

impl Place<'_> {
    /// Goes to a character; the byte where it begins.
    fn to(&mut self, char: usize) -> usize {
        if let Some(count) = char.checked_sub(self.char) {
            let rest = &self.text[self.byte..];
            let skipped = rest.char_indices().nth(count);
            self.byte += skipped.map_or(rest.len(), |(at, _)| at);
            self.char = char;
        }
        self.byte
    }
}

fn text_block(text: &str, cited: Vec<Value>) -> Value {
    let citations = match cited.is_empty() {
        true => Value::Null,
        false => Value::Array(cited),
    };
    json!({ "type": "text", "text": text, "citations": citations })
}

/// A text as blocks: each piece that has sources by itself, as here a citation is for its whole
/// block. A citation without a place is for the last of them.
pub(super) fn text_blocks(text: &str, cited: &[&Value]) -> Vec<Value> {
    let place = |of: &Value, name: &str| of[name].as_u64().unwrap_or_default() as usize;
    let mut spans: Vec<(usize, usize, Value)> = Vec::with_capacity(cited.len());
    let mut of_all = Vec::new();
    for of in cited {
        match (place(of, "start_index"), place(of, "end_index")) {
            (from, to) if to > from => spans.push((from, to, citation(of))),
            _ => of_all.push(citation(of)),
        }
    }
    spans.sort_by_key(|span| (span.0, span.1));
    let mut pieces: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut at = Place {
        text,
        byte: 0,
        char: 0,
    };
    for (from, to, of) in spans {
        let before = at.byte;
        let begins = at.to(from);
        if begins > before {
            pieces.push((&text[before..begins], Vec::new()));
        }
        let ends = at.to(to);
        match pieces.last_mut() {
            // Of what has its block already.
            Some((_, cited)) if ends == begins => cited.push(of),
            _ => pieces.push((&text[begins..ends], vec![of])),
        }
    }
    if at.byte < text.len() {
        pieces.push((&text[at.byte..], Vec::new()));
    }
    if let Some((_, cited)) = pieces.last_mut() {
        cited.append(&mut of_all);
    }
    let pieces = pieces.into_iter();
    pieces
        .map(|(text, cited)| text_block(text, cited))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_have_the_form_of_their_source() {
        for (told, kind, members) in [
            (
                json!({ "type": "url_citation", "url": "https://x.example", "title": "t" }),
                "web_search_result_location",
                json!({ "url": "https://x.example", "title": "t", "encrypted_index": "" }),
            ),
            (
                json!({ "type": "file_citation", "filename": "a.pdf", "file_id": "f", "index": 2 }),
                "char_location",
                json!({ "document_title": "a.pdf", "file_id": "f", "document_index": 2,
                    "start_char_index": 0, "end_char_index": 0 }),
            ),
            (
                json!({ "type": "file_citation", "filename": "a.pdf", "document_index": 1,
                    "document_title": "a.pdf", "start_page_number": 3, "end_page_number": 4,
                    "cited_text": "c" }),
                "page_location",
                json!({ "document_index": 1, "start_page_number": 3, "end_page_number": 4,
                    "cited_text": "c" }),
            ),
            (
                json!({ "url": "https://x.example", "source": "https://x.example",
                    "search_result_index": 1, "start_block_index": 0, "end_block_index": 1 }),
                "search_result_location",
                json!({ "source": "https://x.example", "search_result_index": 1 }),
            ),
        ] {
            let written = citation(&told);
            assert_eq!(written["type"], kind, "{told}");
            for (name, value) in members.as_object().expect("members") {
                assert_eq!(written[name], *value, "{name} of {written}");
            }
            assert!(written["cited_text"].is_string());
        }
    }

    #[test]
    fn a_text_is_cut_where_its_sources_are() {
        let of = |from: u64, to: u64, url: &str| json!({ "url": url, "start_index": from, "end_index": to });
        let cut = |text: &str, cited: &[Value]| -> Vec<(String, usize)> {
            let cited: Vec<&Value> = cited.iter().collect();
            let blocks = text_blocks(text, &cited);
            let blocks = blocks.iter().map(|block| {
                let count = block["citations"].as_array().map_or(0, Vec::len);
                (block["text"].as_str().unwrap_or_default().to_owned(), count)
            });
            blocks.collect()
        };
        let piece = |text: &str, count: usize| (text.to_owned(), count);
        assert_eq!(cut("abc", &[]), [piece("abc", 0)]);
        assert_eq!(cut("", &[]), []);
        assert_eq!(cut("abc", &[of(0, 0, "u")]), [piece("abc", 1)]);
        assert_eq!(
            cut("ä€c😀e", &[of(3, 4, "u"), of(1, 2, "v"), of(1, 2, "w")]),
            [
                piece("ä", 0),
                piece("€", 2),
                piece("c", 0),
                piece("😀", 1),
                piece("e", 0)
            ]
        );
        // Overlapping, and beyond the end.
        assert_eq!(
            cut("abcd", &[of(0, 3, "u"), of(1, 2, "v"), of(2, 99, "w")]),
            [piece("abc", 2), piece("d", 1)]
        );
    }
}
