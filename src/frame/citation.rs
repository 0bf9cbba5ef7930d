//! What an answer rests on. Every wire has its own form for it; between them it is a JSON object in the
//! form of an annotation of OpenAI's Responses, with what else the provider told of it beside.

use serde_json::{Map, Value, json};

const PLACES: [&str; 2] = ["start_index", "end_index"];

/// A citation with the members that strict clients ask for; `None` for what names no source. Kinds
/// that they do not know become one that they do.
pub fn shaped(told: Value) -> Option<Value> {
    let Value::Object(mut told) = told else {
        return None;
    };
    let has = |told: &Map<String, Value>, name: &str| {
        let text = told.get(name).and_then(Value::as_str);
        text.is_some_and(|text| !text.is_empty())
    };
    let kind = match told.get("type").and_then(Value::as_str) {
        Some(known @ ("container_file_citation" | "file_path")) if has(&told, "file_id") => known,
        Some("file_citation") => "file_citation",
        _ if has(&told, "url") => "url_citation",
        _ if has(&told, "file_id") || has(&told, "filename") => "file_citation",
        _ => return None,
    };
    let (texts, numbers): (&[&str], &[&str]) = match kind {
        "url_citation" => (&["url", "title"], &PLACES),
        "file_citation" => (&["file_id", "filename"], &["index"]),
        "file_path" => (&["file_id"], &["index"]),
        _ => (&["container_id", "file_id", "filename"], &PLACES),
    };
    let kind = json!(kind);
    for name in texts {
        if !told.get(*name).is_some_and(Value::is_string) {
            told.insert((*name).to_owned(), json!(""));
        }
    }
    for name in numbers {
        if !told.get(*name).is_some_and(Value::is_u64) {
            told.insert((*name).to_owned(), json!(0));
        }
    }
    told.insert("type".to_owned(), kind);
    Some(Value::Object(told))
}

/// The citation, where the text that it stands in begins `by` characters later (or earlier). One
/// that is for no piece of the text stays so.
pub fn shifted(mut citation: Value, by: i64) -> Value {
    let at = |citation: &Value, name: &str| citation[name].as_i64();
    if PLACES
        .iter()
        .all(|name| matches!(at(&citation, name), None | Some(0)))
    {
        return citation;
    }
    for name in PLACES {
        if let Some(place) = at(&citation, name) {
            citation[name] = json!(place.saturating_add(by).max(0));
        }
    }
    citation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_citation_has_what_strict_clients_ask_for() {
        let page = shaped(json!({ "url": "https://x.example", "end_index": 4, "quote": "q" }));
        assert_eq!(
            page,
            Some(
                json!({ "type": "url_citation", "url": "https://x.example", "title": "",
                "start_index": 0, "end_index": 4, "quote": "q" })
            )
        );
        let file = shaped(json!({ "type": "page_location", "filename": "a.pdf", "file_id": null }));
        assert_eq!(
            file,
            Some(
                json!({ "type": "file_citation", "filename": "a.pdf", "file_id": "", "index": 0 })
            )
        );
        for nothing in [json!({ "type": "url_citation" }), json!("x"), json!(null)] {
            assert_eq!(shaped(nothing), None);
        }
    }

    #[test]
    fn a_citation_moves_with_its_text() {
        let at = |from: i64, to: i64| json!({ "start_index": from, "end_index": to });
        assert_eq!(shifted(at(0, 4), 3), at(3, 7));
        assert_eq!(shifted(at(5, 9), -3), at(2, 6));
        assert_eq!(shifted(at(0, 0), 3), at(0, 0));
        assert_eq!(
            shifted(json!({ "file_id": "f" }), 3),
            json!({ "file_id": "f" })
        );
    }
}
