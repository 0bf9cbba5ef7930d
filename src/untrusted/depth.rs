//! How deep JSON is nested, without parsing it.

/// Levels of lists and objects that JSON from outside may have. `serde_json` reads 127, and what is
/// kept becomes part of events, records and answers that have some levels of their own.
pub const MAX_JSON_DEPTH: usize = 100;

/// Whether JSON text has more than [`MAX_JSON_DEPTH`] levels. One pass, in constant memory; of text
/// that is no JSON it says something, and the parser says the rest.
pub fn is_too_deep(json: &[u8]) -> bool {
    let mut depth: usize = 0;
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(json, at + 1),
            _ => {}
        }
        at += 1;
    }
    false
}

/// Where a string ends that begins at `at`.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
        at += found;
        match json[at] {
            b'"' => return at,
            _ => at += 2,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_texts() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(!is_too_deep(nested(MAX_JSON_DEPTH).as_bytes()));
        assert!(is_too_deep(nested(MAX_JSON_DEPTH + 1).as_bytes()));
        assert!(is_too_deep("{\"a\":".repeat(100_000).as_bytes()));
        let brackets = "[".repeat(1000);
        assert!(!is_too_deep(format!("[\"{brackets}\"]").as_bytes()));
        assert!(!is_too_deep(format!(r#"["\"{brackets}"]"#).as_bytes()));
        assert!(is_too_deep(format!(r#"["\\",{brackets}"#).as_bytes()));
        assert!(!is_too_deep("[],".repeat(1000).as_bytes()));
        assert!(!is_too_deep(b"\"\\"));
    }

    #[test]
    fn what_is_let_through_can_be_read() {
        let nested = "[".repeat(MAX_JSON_DEPTH) + &"]".repeat(MAX_JSON_DEPTH);
        serde_json::from_str::<serde_json::Value>(&nested).expect("readable");
    }
}
