//! Signatures of deliveries: `X-IC-Signature` (`events.md`) and the Standard Webhooks headers
//! (standard-webhooks.com, "Signature scheme") beside it, each with every secret that is valid.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};

use crate::secrets::VaultError;

/// What a secret begins with.
pub const PREFIX: &str = "whsec_";
/// Standard Webhooks asks for 24 to 64 bytes.
const SECRET_BYTES: usize = 32;

/// A new secret: `whsec_` and random bytes in base64.
pub fn new_secret() -> Result<String, VaultError> {
    let mut bytes = [0u8; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| VaultError::NoRandomness)?;
    Ok(format!("{PREFIX}{}", STANDARD.encode(bytes)))
}

fn sign(key: &[u8], text: &[&[u8]]) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    for piece in text {
        context.update(piece);
    }
    context.sign()
}

/// The headers of one delivery, signed at `unix` seconds with each of `secrets`.
pub fn headers(
    event_id: &str,
    unix: i64,
    body: &[u8],
    secrets: &[&str],
) -> Vec<(HeaderName, HeaderValue)> {
    let at = unix.to_string();
    let mut ours = format!("t={at}");
    let mut standard = Vec::with_capacity(secrets.len());
    for secret in secrets {
        // Ours keys with the secret as it is shown, the standard's with what it encodes.
        let tag = sign(secret.as_bytes(), &[at.as_bytes(), b".", body]);
        ours.push_str(",v1=");
        ours.push_str(&hex::encode(tag.as_ref()));
        let key = secret.strip_prefix(PREFIX).unwrap_or(secret);
        let key = STANDARD.decode(key).unwrap_or_default();
        let text: [&[u8]; 5] = [event_id.as_bytes(), b".", at.as_bytes(), b".", body];
        standard.push(format!("v1,{}", STANDARD.encode(sign(&key, &text))));
    }
    [
        ("content-type", "application/json"),
        ("user-agent", "smithgate-webhooks/1"),
        ("x-ic-event-id", event_id),
        ("x-ic-signature", &ours),
        ("webhook-id", event_id),
        ("webhook-timestamp", &at),
        ("webhook-signature", &standard.join(" ")),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        let value = HeaderValue::from_str(value).ok()?;
        Some((HeaderName::from_static(name), value))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_s_own_example_is_reproduced() {
        // From the Standard Webhooks specification.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let headers = headers(id, 1_614_265_330, body, &[secret]);
        let get = |name: &str| {
            let found = headers.iter().find(|(n, _)| n == name);
            found.and_then(|(_, v)| v.to_str().ok()).unwrap_or_default()
        };
        assert_eq!(
            get("webhook-signature"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert!(get("x-ic-signature").starts_with("t=1614265330,v1="));
    }

    #[test]
    fn two_secrets_make_two_signatures() {
        let (a, b) = (new_secret().expect("a"), new_secret().expect("b"));
        assert_ne!(a, b);
        let headers = headers("evt_1", 1, b"{}", &[&a, &b]);
        let get = |name: &str| {
            let found = headers.iter().find(|(n, _)| n == name);
            found.and_then(|(_, v)| v.to_str().ok()).unwrap_or_default()
        };
        assert_eq!(get("x-ic-signature").matches("v1=").count(), 2);
        assert_eq!(get("webhook-signature").split(' ').count(), 2);
    }
}
