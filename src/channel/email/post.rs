//! Mail that is posted: as it came, or as a provider made it JSON.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::arrival::{Coming, Envelope, Form, Found, accept};
use super::session::{MAX_HEADER, header_end};
use super::{KIND, Secrets, Settings, normal};
use crate::connection::random_text;
use crate::edge::AppState;
use crate::error::ApiError;
use crate::store::now_seconds;
use crate::untrusted::{is_too_deep, mail};

/// How old a signature may be, in seconds.
const CLOCK: i64 = 300;

/// Whether a delivery shows the secret, or is signed with it: `X-Inbound-Signature: t=<unix>,v1=<hex>`,
/// the HMAC-SHA256 of `<t>.` and the body, as webhooks of this gateway are.
fn check_secret(headers: &HeaderMap, body: &[u8], secret: &str) -> Result<(), ApiError> {
    let same = |a: &[u8], b: &[u8]| aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok();
    let wrong = |why: &'static str| Err(ApiError::forbidden("bad_inbound_secret", why));
    if let Some(said) = headers.get("x-inbound-secret") {
        return match same(said.as_bytes(), secret.as_bytes()) {
            true => Ok(()),
            false => wrong("the delivery does not show this tenant's secret"),
        };
    }
    let said = headers.get("x-inbound-signature");
    let Some(said) = said.and_then(|value| value.to_str().ok()) else {
        return wrong("the delivery shows no X-Inbound-Secret and no X-Inbound-Signature");
    };
    let part = |name: &str| {
        let parts = said
            .split(',')
            .filter_map(|part| part.trim().split_once('='));
        parts
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value)
            .next()
    };
    let (Some(time), Some(signature)) = (part("t"), part("v1").and_then(|v| hex::decode(v).ok()))
    else {
        return wrong("X-Inbound-Signature must be t=<unix>,v1=<hex>");
    };
    let age = time.parse::<i64>().map(|time| (now_seconds() - time).abs());
    if !age.is_ok_and(|age| age <= CLOCK) {
        return wrong("the signature is older than five minutes");
    }
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = aws_lc_rs::hmac::Context::with_key(&key);
    context.update(time.as_bytes());
    context.update(b".");
    context.update(body);
    match same(context.sign().as_ref(), &signature) {
        true => Ok(()),
        false => wrong("the signature is not this body's"),
    }
}

/// Takes a message: as it came (`message/rfc822`), or as a provider made it JSON.
#[utoipa::path(post, path = "/v1/email/inbound/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path)), responses((status = 200, body = Object)))]
pub async fn inbound(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let hub = &gateway.hub;
    // Nobody is told which tenants there are: without one there is a secret that nobody knows.
    let account = hub.account_lately::<Secrets>(&tenant, KIND).await?;
    let Some(account) = account else {
        check_secret(&headers, &body, &random_text()?)?;
        return Err(ApiError::internal("a random secret was guessed"));
    };
    check_secret(&headers, &body, &account.secrets.inbound_secret)?;
    if body.len() > hub.config.email.max_message_bytes {
        return Err(ApiError::too_large(hub.config.email.max_message_bytes));
    }
    let settings = Settings::of(&account.settings);
    let bad = |why: &str| ApiError::bad_request("invalid_request", why.to_owned());
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_json = kind.to_ascii_lowercase().contains("json")
        || (body.trim_ascii_start().first() == Some(&b'{') && !kind.starts_with("message/"));
    let mut content = body.to_vec();
    let mut form = Form::Mime;
    let mut recipients: Vec<String> = Vec::new();
    let (mut envelope, mut found) = (Envelope::default(), Found::default());
    let mut read_head = None;
    if is_json {
        if is_too_deep(&body) {
            return Err(bad("the message is nested too deep"));
        }
        let message: Value =
            serde_json::from_slice(&body).map_err(|error| bad(&error.to_string()))?;
        let outside = normal::outside(&message)
            .ok_or_else(|| bad("the message has no 'from'").param("from"))?;
        (envelope, found, recipients) = (outside.envelope, outside.found, outside.recipients);
        match outside.raw {
            Some(raw) => content = raw,
            None => (form, read_head) = (Form::Json, Some(outside.head)),
        }
    }
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(from) = said("x-envelope-from") {
        envelope.from = Some(mail::address_of(from.trim_matches(['<', '>'])).unwrap_or_default());
    }
    if let Some(to) = said("x-envelope-to") {
        recipients.extend(mail::people_of(to).into_iter().map(|one| one.address));
    }
    let head = match read_head {
        Some(head) => head,
        None => {
            let end = header_end(&content);
            if end >= MAX_HEADER {
                return Err(bad("the message's header is too large"));
            }
            mail::head(&content[..end])
        }
    };
    if head.from.is_empty() && head.message_id.is_none() && envelope.from.is_none() {
        return Err(bad("that is no message: it has no From"));
    }
    let mailboxes = mailboxes(&settings, recipients, &head);
    let coming = Coming {
        form,
        content: &content,
        head,
        mailboxes: &mailboxes,
        envelope,
        found,
    };
    accept(hub, &tenant, coming).await?;
    Ok(Json(json!({ "ok": true })))
}

/// The tenant's addresses that a message came to: as the way says, else as its header does.
fn mailboxes(settings: &Settings, recipients: Vec<String>, head: &mail::Head) -> Vec<String> {
    const MOST: usize = 20;
    let addressed = head
        .to
        .iter()
        .chain(&head.cc)
        .map(|one| one.address.clone());
    let ways: [Vec<String>; 3] = [recipients, head.delivered_to.clone(), addressed.collect()];
    for way in ways {
        let mut own: Vec<String> = way
            .iter()
            .filter(|address| settings.has(address))
            .filter_map(|address| mail::address_of(address))
            .collect();
        own.sort();
        own.dedup();
        own.truncate(MOST);
        if !own.is_empty() {
            return own;
        }
    }
    vec![settings.default_mailbox()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(secret: &str, time: i64, body: &[u8]) -> HeaderMap {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let mut all = format!("{time}.").into_bytes();
        all.extend(body);
        let tag = aws_lc_rs::hmac::sign(&key, &all);
        let value = format!("t={time},v1={}", hex::encode(tag.as_ref()));
        let mut headers = HeaderMap::new();
        headers.insert("x-inbound-signature", value.parse().expect("a value"));
        headers
    }

    #[test]
    fn deliveries_show_the_secret_or_are_signed_with_it() {
        let now = now_seconds();
        assert!(check_secret(&signed("s", now, b"x"), b"x", "s").is_ok());
        for (headers, body) in [
            (signed("s", now, b"x"), b"y"),
            (signed("t", now, b"x"), b"x"),
            (signed("s", now - 400, b"x"), b"x"),
            (signed("s", now + 400, b"x"), b"x"),
            (HeaderMap::new(), b"x"),
        ] {
            let error = check_secret(&headers, body, "s").expect_err("refused");
            assert_eq!(error.code, "bad_inbound_secret");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-inbound-secret", "s".parse().expect("a value"));
        assert!(check_secret(&headers, b"x", "s").is_ok());
        assert!(check_secret(&headers, b"x", "t").is_err());
    }
}
