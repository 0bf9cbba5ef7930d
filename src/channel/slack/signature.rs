//! What shows that a request is Slack's
//! (<https://docs.slack.dev/authentication/verifying-requests-from-slack>).

use aws_lc_rs::hmac;
use http::{HeaderMap, StatusCode};

use crate::error::ApiError;

/// Older requests are refused, or whoever overheard one could send it again.
const CLOCK_S: i64 = 5 * 60;

fn refused(code: &'static str, why: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, code, why)
}

/// Checks the signature of a raw body; `secret`: the app's, where the tenant has one. Nobody is told
/// which tenants there are.
pub fn check(
    secret: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
    now_s: i64,
) -> Result<(), ApiError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let missing = || refused("missing_signature", "the request is not signed by Slack");
    let wrong = || refused("bad_signature", "the signature is not this app's");
    let signature = header("x-slack-signature").ok_or_else(missing)?;
    let sent_at = header("x-slack-request-timestamp").ok_or_else(missing)?;
    let at: i64 = sent_at.parse().map_err(|_| wrong())?;
    if now_s.abs_diff(at) > CLOCK_S.unsigned_abs() {
        return Err(refused("bad_signature", "the request is too old"));
    }
    let given = signature.strip_prefix("v0=").ok_or_else(wrong)?;
    let given = hex::decode(given).map_err(|_| wrong())?;
    let secret = secret.ok_or_else(wrong)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut signed = Vec::with_capacity(body.len() + sent_at.len() + 4);
    signed.extend_from_slice(b"v0:");
    signed.extend_from_slice(sent_at.as_bytes());
    signed.push(b':');
    signed.extend_from_slice(body);
    // Takes the same time wherever the first difference is.
    hmac::verify(&key, &signed, &given).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of Slack's documentation.
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow\
        &channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner\
        &command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands\
        %2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121\
        .803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    const AT: i64 = 1_531_420_618;

    fn checked(secret: Option<&str>, signature: &str, body: &str, now_s: i64) -> &'static str {
        let mut headers = HeaderMap::new();
        if !signature.is_empty() {
            headers.insert("x-slack-signature", signature.parse().expect("a value"));
        }
        let at = AT.to_string().parse().expect("a value");
        headers.insert("x-slack-request-timestamp", at);
        match check(secret, &headers, body.as_bytes(), now_s) {
            Ok(()) => "taken",
            Err(error) if error.code == "bad_signature" => "bad",
            Err(error) if error.code == "missing_signature" => "missing",
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn only_slacks_own_requests_are_taken() {
        let secret = Some(SECRET);
        assert_eq!(checked(secret, SIGNATURE, BODY, AT), "taken");
        assert_eq!(checked(secret, SIGNATURE, BODY, AT + 300), "taken");
        assert_eq!(checked(secret, SIGNATURE, BODY, AT + 301), "bad");
        assert_eq!(checked(secret, SIGNATURE, BODY, AT - 301), "bad");
        assert_eq!(checked(secret, SIGNATURE, &BODY[1..], AT), "bad");
        assert_eq!(checked(secret, &SIGNATURE[..40], BODY, AT), "bad");
        assert_eq!(checked(secret, &SIGNATURE[3..], BODY, AT), "bad");
        assert_eq!(checked(Some("other"), SIGNATURE, BODY, AT), "bad");
        assert_eq!(checked(None, SIGNATURE, BODY, AT), "bad");
        assert_eq!(checked(secret, "", BODY, AT), "missing");
    }
}
