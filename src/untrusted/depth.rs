//! How deep JSON is nested, and how much it is once it is parsed, without parsing it.

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

/// What a list's or object's value takes at least once it is parsed, and an object beside: its map
/// sets memory aside for some members at once.
const VALUE_BYTES: usize = 32;
const OBJECT_BYTES: usize = 400;
/// Shorter JSON is not looked at: it becomes no more than some megabytes.
const SMALL_JSON: usize = 64 * 1024;
/// How much more memory than text JSON takes that people and programs write.
const USUAL: usize = 10;
/// What JSON that is denser than that may take, in bytes.
const MAX_PARSED: usize = 128 * 1024 * 1024;

/// The memory that JSON text takes beyond the usual once it is parsed, in bytes. A million times `{}`
/// are 3 MB, and become hundreds.
pub fn unusual_bytes(json: &[u8]) -> usize {
    if json.len() <= SMALL_JSON {
        return 0;
    }
    let (mut values, mut objects) = (0_usize, 0_usize);
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'{' => {
                values += 1;
                objects += 1;
            }
            b'[' | b',' => values += 1,
            b'"' => at = end_of_string(json, at + 1),
            _ => {}
        }
        at += 1;
    }
    let parsed = values * VALUE_BYTES + objects * OBJECT_BYTES;
    parsed.saturating_sub(USUAL * json.len())
}

/// Whether JSON text becomes more than may be held of one, as nobody's does.
pub fn is_vast(json: &[u8]) -> bool {
    let unusual = unusual_bytes(json);
    unusual > 0 && unusual + USUAL * json.len() > MAX_PARSED
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
    fn what_becomes_much_more_than_it_is_is_told() {
        let list = |one: &str, times: usize| format!("[{}0]", one.repeat(times));
        for one in ["{},", "[],", "0,", "{\"a\":0},", "\"\","] {
            assert!(is_vast(list(one, 9_000_000).as_bytes()), "{one}");
            assert!(!is_vast(list(one, 10_000).as_bytes()), "{one}");
        }
        let message = r#"{"role":"user","content":[{"type":"text","text":"What is the weather in Paris today? I would like to go for a walk."}]},"#;
        let history = list(message, 250_000);
        assert!(!is_vast(history.as_bytes()));
        assert_eq!(unusual_bytes(list(message, 2_000).as_bytes()), 0);
        let text = list(&format!("\"{}\",", "{},".repeat(1_000_000)), 10);
        assert_eq!(unusual_bytes(text.as_bytes()), 0);
        assert_eq!(unusual_bytes("{},".repeat(1000).as_bytes()), 0);
    }

    #[test]
    fn what_is_let_through_can_be_read() {
        let nested = "[".repeat(MAX_JSON_DEPTH) + &"]".repeat(MAX_JSON_DEPTH);
        serde_json::from_str::<serde_json::Value>(&nested).expect("readable");
    }
}
