//! Bodies that are passed on as they are, but for the model's name.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::edge::{check_shape, in_words};
use crate::error::ApiError;
use crate::lenient;

/// What must be known of a body before it is passed on.
#[derive(Deserialize)]
pub struct Peek<'a> {
    #[serde(borrow, default, deserialize_with = "lenient::word")]
    pub model: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient::given::flag")]
    pub stream: Option<bool>,
}

/// The spans of a body that are replaced.
#[derive(Deserialize)]
struct Spans<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    stream_options: Option<&'a RawValue>,
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
