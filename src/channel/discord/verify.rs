//! Whether an interaction is Discord's
//! (<https://docs.discord.com/developers/interactions/overview#setting-up-an-endpoint-validating-security-request-headers>).

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use http::HeaderMap;

/// What was signed longer ago, or is to be signed only then, is taken by nobody, in seconds.
const MAX_AGE: i64 = 5 * 60;

/// A key as the developer portal shows it.
pub fn key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).ok()?;
    Some(key)
}

/// Whether the headers sign the body with the application's key, and have just done so.
pub fn is_signed(public_key: &str, headers: &HeaderMap, body: &[u8], now_s: i64) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(signature), Some(at)) = (
        header("x-signature-ed25519"),
        header("x-signature-timestamp"),
    ) else {
        return false;
    };
    let (Some(key), Ok(signature)) = (key(public_key), hex::decode(signature)) else {
        return false;
    };
    let is_now = at
        .parse::<i64>()
        .is_ok_and(|at| now_s.abs_diff(at) <= MAX_AGE as u64);
    let signed = [at.as_bytes(), body].concat();
    let key = UnparsedPublicKey::new(&ED25519, key);
    is_now && key.verify(&signed, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn only_what_was_just_signed_is_taken() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a pair");
        let public = hex::encode(pair.public_key().as_ref());
        let headers = |at: &str, body: &str| {
            let signature = pair.sign(format!("{at}{body}").as_bytes());
            let mut headers = HeaderMap::new();
            let signature = hex::encode(signature.as_ref());
            headers.insert("x-signature-ed25519", signature.parse().expect("a value"));
            headers.insert("x-signature-timestamp", at.parse().expect("a value"));
            headers
        };
        let signed = headers("1000", "{}");
        assert!(is_signed(&public, &signed, b"{}", 1000));
        assert!(is_signed(&public, &signed, b"{}", 1300));
        assert!(!is_signed(&public, &signed, b"{}", 1301));
        assert!(!is_signed(&public, &signed, b"{}", 600));
        assert!(!is_signed(&public, &signed, b"{} ", 1000));
        assert!(!is_signed(&hex::encode([1; 32]), &signed, b"{}", 1000));
        assert!(!is_signed("", &signed, b"{}", 1000));
        assert!(!is_signed(&public, &HeaderMap::new(), b"{}", 1000));
        assert!(!is_signed(&public, &headers("soon", "{}"), b"{}", 1000));
        assert!(key("ab").is_none() && key(&"zz".repeat(32)).is_none());
    }
}
