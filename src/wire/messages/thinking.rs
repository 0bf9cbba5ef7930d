//! What a model thought, on a wire that gives it a block of its own: whether the client is shown it,
//! and how its signature goes out and comes back, whoever signed it.

use std::borrow::Cow;

use serde_json::Value;

use crate::frame::Signer;
use crate::model::Signature;

/// Whether thinking is shown. A client that did not ask for it reads the answer's first block as its
/// text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Display {
    #[default]
    Hidden,
    /// Blocks without their text.
    Omitted,
    Shown,
}

impl Display {
    /// What `thinking` asks for.
    pub fn of(thinking: &Value) -> Self {
        match (thinking["type"].as_str(), thinking["display"].as_str()) {
            (None | Some("disabled"), _) => Self::Hidden,
            (Some(_), Some("omitted")) => Self::Omitted,
            (Some(_), _) => Self::Shown,
        }
    }
}

/// Before signatures that Anthropic did not make, and would refuse. Its own are base64.
pub(super) const MARK: &str = "smithgate:";
/// Of thinking that nobody signed: the member must be there.
const UNSIGNED: &str = "smithgate:unsigned:";

const SIGNERS: [(Signer, &str); 3] = [
    (Signer::Google, "google"),
    (Signer::OpenAi, "openai"),
    (Signer::Chat, "chat"),
];

/// A signature as the client keeps it.
pub(super) fn written(signer: Signer, value: &str) -> Cow<'_, str> {
    if value.is_empty() {
        return Cow::Borrowed(UNSIGNED);
    }
    match SIGNERS.iter().find(|(known, _)| *known == signer) {
        Some((_, name)) => Cow::Owned(format!("{MARK}{name}:{value}")),
        None => Cow::Borrowed(value),
    }
}

/// The same, when a client sends it back.
pub(super) fn read(written: &str) -> Option<Signature> {
    let Some(ours) = written.strip_prefix(MARK) else {
        let value = written.to_owned();
        let signer = Signer::Anthropic;
        return (!value.is_empty()).then_some(Signature { signer, value });
    };
    let (name, value) = ours.split_once(':')?;
    let (signer, _) = SIGNERS.iter().find(|(_, known)| *known == name)?;
    Some(Signature {
        signer: *signer,
        value: value.to_owned(),
    })
}

/// Whether a block holds thinking that Anthropic did not sign.
pub(super) fn is_foreign(block: &Value) -> bool {
    let signed = match block["type"].as_str() {
        Some("thinking") => &block["signature"],
        Some("redacted_thinking") => &block["data"],
        _ => return false,
    };
    signed.as_str().is_some_and(|text| text.starts_with(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn signatures_come_back_as_their_makers() {
        for signer in [
            Signer::Anthropic,
            Signer::Google,
            Signer::OpenAi,
            Signer::Chat,
        ] {
            let value = "a:b==";
            let back = read(&written(signer, value)).expect("a signature");
            assert_eq!((back.signer, back.value.as_str()), (signer, value));
            let block = json!({ "type": "thinking", "signature": written(signer, value) });
            assert_eq!(is_foreign(&block), signer != Signer::Anthropic);
        }
        assert_eq!(read(&written(Signer::OpenAi, "")), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn thinking_is_shown_to_those_who_ask() {
        for (thinking, display) in [
            (json!(null), Display::Hidden),
            (json!({ "type": "disabled" }), Display::Hidden),
            (json!({ "type": "enabled" }), Display::Shown),
            (json!({ "type": "adaptive" }), Display::Shown),
            (
                json!({ "type": "adaptive", "display": "omitted" }),
                Display::Omitted,
            ),
        ] {
            assert_eq!(Display::of(&thinking), display, "{thinking}");
        }
    }
}
