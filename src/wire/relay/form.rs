//! A form's model, found in its beginning (RFC 7578), so that a file behind it is never held.

use std::ops::Range;

use memchr::memmem;

/// Of a form's beginning, what is looked through: clients send a form's words before its files.
pub const LOOKED_THROUGH: usize = 64 * 1024;
/// The longest name of a model.
const LONGEST: usize = 512;

/// The boundary that a form's `Content-Type` names; `None` for what is no form.
pub fn boundary(content_type: &str) -> Option<String> {
    multer::parse_boundary(content_type).ok()
}

/// Where the value of the field `model` stands in `begun`, when all of it is there.
pub fn model(begun: &[u8], boundary: &str) -> Option<Range<usize>> {
    let delimiter = format!("--{boundary}");
    let mut at = 0;
    while let Some(found) = memmem::find(&begun[at..], delimiter.as_bytes()) {
        let head = at + found + delimiter.len();
        let length = memmem::find(&begun[head..], b"\r\n\r\n")?;
        let value = head + length + 4;
        let names_model = is_model(&begun[head..head + length]);
        if names_model {
            let end = memmem::find(&begun[value..], b"\r\n")?;
            return (end <= LONGEST).then_some(value..value + end);
        }
        at = value;
    }
    None
}

/// Parts whose header has anything to do with a model, however it says so.
pub fn parts_about_models(form: &[u8]) -> usize {
    let form = form.to_ascii_lowercase();
    let headers = memmem::find_iter(&form, b"content-disposition");
    headers
        .filter(|at| {
            let line = &form[*at..];
            let end = memmem::find(line, b"\r\n\r\n").unwrap_or(line.len());
            memmem::find(&line[..end.min(4096)], b"model").is_some()
        })
        .count()
}

/// Whether a part's header names it `model`.
fn is_model(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let disposition =
        lines.find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"));
    let Some((_, value)) = disposition else {
        return false;
    };
    value.split(';').skip(1).any(|parameter| {
        let named = parameter.trim().split_once('=');
        named.is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("name") && value.trim().trim_matches('"') == "model"
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nmodel\r\n\
        --b\r\ncontent-disposition: form-data; filename=\"name=model\"; name=\"file\"\r\n\
        Content-Type: audio/wav\r\n\r\nRIFF\r\n\
        --b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nopenai/whisper-1\r\n--b--\r\n";

    #[test]
    fn the_model_of_a_form_is_found_once_it_is_there() {
        let end = FORM.find("whisper-1\r\n").expect("there") + "whisper-1\r\n".len();
        for length in 0..=FORM.len() {
            let found = model(&FORM.as_bytes()[..length], "b");
            let found = found.map(|range| &FORM[range]);
            assert_eq!(
                found,
                (length >= end).then_some("openai/whisper-1"),
                "{length}"
            );
        }
        assert_eq!(parts_about_models(FORM.as_bytes()), 2);
        assert_eq!(model(FORM.as_bytes(), "c"), None);
        assert_eq!(
            boundary("multipart/form-data; boundary=b").as_deref(),
            Some("b")
        );
        assert_eq!(boundary("application/json"), None);
    }
}
