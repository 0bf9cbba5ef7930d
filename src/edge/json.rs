//! JSON bodies: what is mended before it is read, what is refused, and errors that name the field.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::lenient;
use crate::untrusted::{MAX_JSON_DEPTH, is_too_deep};

/// The body of a request that is read here, not passed on: without a mark of the byte order, and
/// with half surrogates replaced. What is well-formed is not copied.
pub fn readable(body: &Bytes) -> Bytes {
    match lenient::well_formed(body) {
        Cow::Borrowed(same) => body.slice_ref(same),
        Cow::Owned(mended) => Bytes::from(mended),
    }
}

/// Refuses JSON that is nested deeper than what is kept of it could be read again, and a list, which
/// serde would take for an object's members in their order.
pub fn check_shape(body: &[u8]) -> Result<(), ApiError> {
    if is_too_deep(body) {
        return Err(ApiError::bad_request(
            "invalid_request",
            format!("the JSON is nested too deeply: {MAX_JSON_DEPTH} levels are allowed"),
        ));
    }
    match body.trim_ascii_start().first() {
        Some(b'[') => Err(ApiError::bad_request(
            "invalid_request",
            "the body must be a JSON object",
        )),
        _ => Ok(()),
    }
}

/// What is wrong with a member, in the words of JSON, without the place in the text where the member
/// itself is named.
pub fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return text;
    }
    let text = text.rfind(" at line ").map_or(&*text, |at| &text[..at]);
    if text.starts_with("data did not match any variant") {
        return "it has none of the forms that it may have".to_owned();
    }
    // What was sent comes first, and may say anything; what is expected are our own types.
    let Some((sent, expected)) = text.rsplit_once(", expected ") else {
        return text.to_owned();
    };
    let sent = match sent.split_once(": ") {
        Some((what, "map")) => format!("{what}: object"),
        Some((what, "sequence")) => format!("{what}: list"),
        _ => sent.to_owned(),
    };
    format!("{sent}, expected {}", name_of_type(expected))
}

/// A type of ours as JSON has it.
fn name_of_type(expected: &str) -> &str {
    let first = expected.split(' ').next().unwrap_or_default();
    match (first, expected) {
        ("struct", _) | (_, "a map") => "an object",
        ("tuple", _) | (_, "a sequence") => "a list",
        ("enum" | "internally" | "adjacently", _) => "one of the kinds that there are",
        ("u8" | "u16" | "u32" | "u64" | "usize", _) => "a whole number that is not negative",
        ("i8" | "i16" | "i32" | "i64" | "isize", _) => "a whole number",
        ("f32" | "f64", _) => "a number",
        (_, "unit") => "null",
        _ => expected,
    }
}

/// The member that is missing, or there twice, which the path does not name.
fn member_in(words: &str) -> Option<&str> {
    let rest = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|before| words.strip_prefix(before))?;
    rest.strip_suffix('`')
}

/// Parses a JSON body, which is an object; the error names the field at fault.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    check_shape(body)?;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = match error.path().to_string() {
            nowhere if matches!(nowhere.as_str(), "." | "?") => String::new(),
            path => path,
        };
        let words = match body.trim_ascii().is_empty() {
            true => "the body is empty".to_owned(),
            false => in_words(error.inner()),
        };
        let param = match (path.as_str(), member_in(&words)) {
            ("", None) => None,
            ("", Some(member)) => Some(member.to_owned()),
            (_, None) => Some(path),
            (path, Some(member)) => Some(format!("{path}.{member}")),
        };
        let bad = ApiError::bad_request("invalid_request", words);
        match param {
            Some(param) => bad.param(param),
            None => bad,
        }
    })?;
    deserializer
        .end()
        .map_err(|e| ApiError::bad_request("invalid_request", e.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Things {
        list: Option<Vec<u32>>,
        inner: Option<Box<Things>>,
        name: Option<String>,
    }

    #[test]
    fn faults_are_told_without_our_types() {
        for (body, message, param) in [
            ("null", "invalid type: null, expected an object", None),
            (
                "\"x, expected struct Y\"",
                "invalid type: string \"x, expected struct Y\", expected an object",
                None,
            ),
            (
                "{\"list\": {}}",
                "invalid type: object, expected a list",
                Some("list"),
            ),
            (
                "{\"list\": [-1]}",
                "invalid value: integer `-1`, expected a whole number that is not negative",
                Some("list[0]"),
            ),
            (
                "{\"inner\": 1}",
                "invalid type: integer `1`, expected an object",
                Some("inner"),
            ),
            (
                "{\"name\": [1]}",
                "invalid type: list, expected a string",
                Some("name"),
            ),
        ] {
            let error = parse::<Things>(body.as_bytes()).expect_err(body);
            assert_eq!(error.message, message, "{body}");
            assert_eq!(error.param.as_deref(), param, "{body}");
        }
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Inner {
        kind: String,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Option<Inner>,
    }

    #[test]
    fn members_that_are_missing_or_there_twice_are_named() {
        for (body, param, words) in [
            ("", None, "the body is empty"),
            ("{", None, "EOF"),
            ("{\"name\":\"x\",}", None, "trailing comma"),
            ("{}", Some("name"), "missing field"),
            (
                "{\"name\":\"a\",\"name\":\"b\"}",
                Some("name"),
                "duplicate field",
            ),
            (
                "{\"name\":\"x\",\"inner\":{}}",
                Some("inner.kind"),
                "missing field",
            ),
        ] {
            let error = parse::<Outer>(body.as_bytes()).expect_err(body);
            assert_eq!(error.param.as_deref(), param, "{body}: {}", error.message);
            assert!(error.message.contains(words), "{body}: {}", error.message);
        }
    }
}
