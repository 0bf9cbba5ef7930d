//! Whether a delivery is Meta's
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview>).

use aws_lc_rs::{constant_time, hmac};

/// Whether `header` (`X-Hub-Signature-256`) signs the body with the app's secret.
pub fn is_signed(secret: &str, header: Option<&[u8]>, body: &[u8]) -> bool {
    let Some(given) = header.and_then(|header| header.strip_prefix(b"sha256=")) else {
        return false;
    };
    let Ok(given) = hex::decode(given) else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    !secret.is_empty() && hmac::verify(&key, body, &given).is_ok()
}

/// Whether two words are the same, in a time that does not tell how far.
pub fn is_same(given: &str, known: &str) -> bool {
    let (given, known) = (given.as_bytes(), known.as_bytes());
    !known.is_empty() && constant_time::verify_slices_are_equal(given, known).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_signed_is_taken() {
        // Of `printf '{"a":1}' | openssl dgst -sha256 -hmac secret`.
        let tag = "sha256=aa9e2e3575f5d7098b6caccd790888c36d5fdb63342a73bada2d6a51747a8494";
        assert!(is_signed("secret", Some(tag.as_bytes()), br#"{"a":1}"#));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let tag = hex::encode(hmac::sign(&key, b"{}"));
        let header = format!("sha256={tag}");
        assert!(is_signed("secret", Some(header.as_bytes()), b"{}"));
        for (secret, header, body) in [
            ("other", header.as_str(), "{}"),
            ("secret", header.as_str(), "{} "),
            ("secret", &header[..header.len() - 2], "{}"),
            ("secret", tag.as_str(), "{}"),
            ("secret", "sha256=zz", "{}"),
            ("", header.as_str(), "{}"),
        ] {
            assert!(!is_signed(secret, Some(header.as_bytes()), body.as_bytes()));
        }
        assert!(!is_signed("secret", None, b"{}"));
        assert!(is_same("a", "a") && !is_same("", "") && !is_same("a", "b"));
    }
}
