//! Bodies that are passed on as they are, but for the model's name.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::edge::{check_shape, in_words, parse};
use crate::error::ApiError;
use crate::lenient;
use crate::wire::fields::MEMBER;

/// What must be known of a body before it is passed on.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow, default, deserialize_with = "lenient::word")]
    model: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient::given::flag")]
    stream: Option<bool>,
}

/// The model that a body names, and whether its answer is a stream. Of one that cannot be read, `T`, all
/// that its wire knows of a request, names the member at fault.
pub fn named_model<T: DeserializeOwned>(body: &[u8]) -> Result<(String, bool), ApiError> {
    if matches!(body.trim_ascii_start().first(), Some(b'[')) {
        check_shape(body)?;
    }
    let peek: Peek<'_> = match serde_json::from_slice(body) {
        Ok(peek) => peek,
        Err(error) => {
            parse::<T>(body)?;
            return Err(ApiError::bad_request("invalid_request", error.to_string()));
        }
    };
    let model = peek.model.as_deref().unwrap_or_default().to_owned();
    Ok((model, peek.stream.unwrap_or(false)))
}

/// The model that a body names, if any.
pub fn named_in(body: &[u8]) -> Result<Option<String>, ApiError> {
    if body.is_empty() {
        return Ok(None);
    }
    check_shape(body)?;
    let peek: Result<Peek<'_>, _> = serde_json::from_slice(body);
    let peek = peek.map_err(|e| ApiError::bad_request("invalid_request", in_words(&e)))?;
    let model = peek.model.filter(|model| !model.is_empty());
    Ok(model.map(std::borrow::Cow::into_owned))
}

/// The spans of a body that are replaced.
#[derive(Deserialize)]
struct Spans<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    stream_options: Option<&'a RawValue>,
    /// For the gateway alone.
    #[serde(borrow, default, deserialize_with = "present")]
    on_unsupported: Option<&'a RawValue>,
}

/// A member that is there, `null` or not; an `Option` alone would take `null` for absent.
pub fn present<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// A body made ready for one target.
#[derive(Debug)]
pub struct Forwarded {
    pub body: Bytes,
    /// The usage chunk was asked for here, not by the client, who must not see it.
    pub hide_usage: bool,
}

/// Replaces `model`, and asks for usage when `ask_usage` and the client did not.
pub fn rewrite(body: &[u8], model: &str, ask_usage: bool) -> Result<Forwarded, ApiError> {
    check_shape(body)?;
    let invalid = |e: serde_json::Error| ApiError::bad_request("invalid_request", in_words(&e));
    let spans: Spans<'_> = serde_json::from_slice(body).map_err(invalid)?;
    let offset = |raw: &RawValue| raw.get().as_ptr() as usize - body.as_ptr() as usize;
    let model = serde_json::to_vec(model).map_err(ApiError::internal)?;
    let mut edits = vec![(offset(spans.model), spans.model.get().len(), model)];
    let mut hide_usage = false;
    if ask_usage {
        match spans.stream_options.filter(|raw| raw.get() != "null") {
            None => {
                hide_usage = true;
                let key = b"\"stream_options\":{\"include_usage\":true},".to_vec();
                let brace = body.iter().position(|b| *b == b'{').unwrap_or(0);
                // A null that is already there would come second and win.
                if let Some(null) = spans.stream_options {
                    edits.push((offset(null), 4, b"{\"include_usage\":true}".to_vec()));
                } else {
                    edits.push((brace + 1, 0, key));
                }
            }
            Some(raw) => {
                let mut options: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_str(raw.get())
                        .map_err(|_| ApiError::invalid("stream_options", "must be an object"))?;
                if options.get("include_usage") != Some(&true.into()) {
                    hide_usage = true;
                    options.insert("include_usage".into(), true.into());
                    let text = serde_json::to_vec(&options).map_err(ApiError::internal)?;
                    edits.push((offset(raw), raw.get().len(), text));
                }
            }
        }
    }
    if let Some(raw) = spans.on_unsupported
        && let Some((at, length)) = member(body, offset(raw), raw.get().len())
    {
        edits.push((at, length, Vec::new()));
    }
    edits.sort_unstable_by_key(|(at, ..)| *at);
    let mut out = BytesMut::with_capacity(body.len() + 64);
    let mut from = 0;
    for (at, len, text) in edits {
        out.extend_from_slice(&body[from..at]);
        out.extend_from_slice(&text);
        from = at + len;
    }
    out.extend_from_slice(&body[from..]);
    Ok(Forwarded {
        body: out.freeze(),
        hide_usage,
    })
}

/// The body without what is for the gateway alone.
pub fn without_ours(body: &Bytes) -> Bytes {
    #[derive(Deserialize)]
    struct Ours<'a> {
        #[serde(borrow, default, deserialize_with = "present")]
        on_unsupported: Option<&'a RawValue>,
    }
    if memchr::memmem::find(body, MEMBER.as_bytes()).is_none() {
        return body.clone();
    }
    let found = serde_json::from_slice::<Ours<'_>>(body).ok();
    let found = found.and_then(|ours| ours.on_unsupported).and_then(|raw| {
        let at = raw.get().as_ptr() as usize - body.as_ptr() as usize;
        member(body, at, raw.get().len())
    });
    match found {
        None => body.clone(),
        Some((at, length)) => {
            let mut out = BytesMut::with_capacity(body.len());
            out.extend_from_slice(&body[..at]);
            out.extend_from_slice(&body[at + length..]);
            out.freeze()
        }
    }
}

/// Where the member [`MEMBER`] stands whose value is at `at`, with the comma that goes with it.
fn member(body: &[u8], at: usize, length: usize) -> Option<(usize, usize)> {
    let blank = |letter: &u8| letter.is_ascii_whitespace();
    let name = format!("\"{MEMBER}\"");
    let before = body[..at].trim_ascii_end().strip_suffix(b":")?;
    let before = before.trim_ascii_end().strip_suffix(name.as_bytes())?;
    let end = at + length;
    let behind = body[end..]
        .iter()
        .take_while(|letter| blank(letter))
        .count();
    if body.get(end + behind) == Some(&b',') {
        return Some((before.len(), end + behind + 1 - before.len()));
    }
    let before = before.trim_ascii_end();
    let before = before.strip_suffix(b",").unwrap_or(before);
    Some((before.len(), end - before.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_the_gateway_goes_no_further() {
        for (body, sent) in [
            (
                r#"{"on_unsupported":"error","model":"a","n":1}"#,
                r#"{"model":"b","n":1}"#,
            ),
            (
                r#"{"model":"a", "on_unsupported" : "drop" , "n":1}"#,
                r#"{"model":"b",  "n":1}"#,
            ),
            (
                r#"{"model":"a","n":1 , "on_unsupported":null}"#,
                r#"{"model":"b","n":1 }"#,
            ),
            (
                r#"{"model":"a","x":{"on_unsupported":1}}"#,
                r#"{"model":"b","x":{"on_unsupported":1}}"#,
            ),
        ] {
            let rewritten = rewrite(body.as_bytes(), "b", false).expect("rewritten");
            assert_eq!(rewritten.body, sent.as_bytes(), "{body}");
        }
    }
}
