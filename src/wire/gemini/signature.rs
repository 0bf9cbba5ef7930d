//! Thought signatures, whoever signed: they are bytes in base64, which clients decode and encode again.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::frame::Signer;
use crate::model::Signature;

/// What signatures begin with that Google did not make, and would refuse: `smithgate` in base64.
pub(super) const MARK: &str = "c21pdGhnYXRl";

/// Their makers, and whether the thoughts behind them cannot be read.
const SIGNERS: [(Signer, bool, &str); 5] = [
    (Signer::Anthropic, false, "anthropic"),
    (Signer::Anthropic, true, "anthropic-redacted"),
    (Signer::OpenAi, false, "openai"),
    (Signer::OpenAi, true, "openai-redacted"),
    (Signer::Chat, false, "chat"),
];

/// A signature as the client keeps it.
pub(super) fn written(signer: Signer, redacted: bool, value: &str) -> Cow<'_, str> {
    let of_signer = SIGNERS.iter().filter(|(known, ..)| *known == signer);
    let found = of_signer.rev().find(|(_, is, _)| redacted || !is);
    match found {
        Some((.., name)) => Cow::Owned(STANDARD.encode(format!("smithgate:{name}:{value}"))),
        None => Cow::Borrowed(value),
    }
}

/// The same, when a client sends it back, and whether its thoughts cannot be read.
pub(super) fn read(written: &str) -> Option<(Signature, bool)> {
    if !is_foreign(written) {
        let value = written.to_owned();
        let signer = Signer::Google;
        return (!value.is_empty()).then_some((Signature { signer, value }, false));
    }
    // Some encode for URLs.
    let written = written.replace('-', "+").replace('_', "/");
    let bytes = STANDARD_NO_PAD.decode(written.trim_end_matches('=')).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, value) = text.strip_prefix("smithgate:")?.split_once(':')?;
    let (signer, redacted, _) = SIGNERS.iter().find(|(.., known)| *known == name)?;
    let signature = Signature {
        signer: *signer,
        value: value.to_owned(),
    };
    Some((signature, *redacted))
}

/// Whether Google did not make it.
pub(super) fn is_foreign(signature: &str) -> bool {
    signature.starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_come_back_as_their_makers() {
        for signer in [
            Signer::Anthropic,
            Signer::Google,
            Signer::OpenAi,
            Signer::Chat,
        ] {
            for redacted in [false, true] {
                let value = "a:b?>~ÿ==";
                let kept = written(signer, redacted, value).into_owned();
                assert_eq!(is_foreign(&kept), signer != Signer::Google);
                for kept in [kept.clone(), kept.replace('+', "-").replace('/', "_")] {
                    if signer == Signer::Google {
                        continue;
                    }
                    let (back, is_redacted) = read(&kept).expect("a signature");
                    assert_eq!((back.signer, back.value.as_str()), (signer, value));
                    assert_eq!(is_redacted, redacted && signer != Signer::Chat);
                }
            }
        }
        let (own, _) = read("Q2l0").expect("a signature");
        assert_eq!((own.signer, own.value.as_str()), (Signer::Google, "Q2l0"));
        assert_eq!(read(""), None);
        assert_eq!(read(MARK), None);
    }
}
