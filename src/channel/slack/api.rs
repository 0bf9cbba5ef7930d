//! Calls of the Web API (<https://docs.slack.dev/apis/web-api>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use serde_json::{Value, json};

use crate::channel::{CallFault, Called, Fault, Hub, Platform};
use crate::upstream::Endpoint;

const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Errors that pass.
const LATER: [&str; 8] = [
    "ratelimited",
    "rate_limited",
    "message_limit_exceeded",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
    "accesslimited",
    "org_login_required",
];

/// Errors after which "it's possible some aspect of the operation succeeded".
const UNKNOWN: [&str; 2] = ["internal_error", "fatal_error"];

pub(super) fn platform(hub: &Hub) -> Platform<'_> {
    Platform {
        name: "Slack",
        base: &hub.config.slack_url,
    }
}

/// A workspace that the app is installed in.
#[derive(Debug, Clone)]
pub struct Workspace {
    pub token: String,
    pub bot_user_id: String,
}

/// Whether a text is an id of Slack's, which becomes a part of our own names.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn bearer(token: &str) -> Result<(HeaderName, HeaderValue), Fault> {
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| Fault::Never("the token is no token".to_owned()))?;
    value.set_sensitive(true);
    Ok((header::AUTHORIZATION, value))
}

/// Calls a method with JSON, and answers all that it answers.
pub async fn call(hub: &Hub, token: &str, method: &str, body: &Value) -> Result<Value, Fault> {
    let path = format!("/api/{method}");
    let called = hub
        .post_json(platform(hub), &path, &[bearer(token)?], body)
        .await?;
    judged(method, &called)
}

/// Calls a method that takes forms alone, with a token or with the app's own id and secret.
pub async fn form(
    hub: &Hub,
    by: By<'_>,
    method: &str,
    fields: &[(&str, &str)],
) -> Result<Value, Fault> {
    let text = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let authorization = match by {
        By::Token(token) => bearer(token)?,
        By::App(id, secret) => {
            let value = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
            let value = HeaderValue::from_str(&value);
            let mut value = value.map_err(|error| Fault::Never(error.to_string()))?;
            value.set_sensitive(true);
            (header::AUTHORIZATION, value)
        }
    };
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    let headers = [(header::CONTENT_TYPE, kind), authorization];
    let (path, body) = (format!("/api/{method}"), Bytes::from(text));
    let called = hub
        .call(
            platform(hub),
            Method::POST,
            &path,
            &headers,
            body,
            MAX_ANSWER,
        )
        .await?;
    judged(method, &called)
}

/// Who calls.
#[derive(Clone, Copy)]
pub enum By<'a> {
    Token(&'a str),
    App(&'a str, &'a str),
}

/// The same for what changes nothing: to ask again harms nobody.
pub fn asked(answer: Result<Value, Fault>) -> Result<Value, Fault> {
    match answer {
        Err(Fault::Unknown(why)) => Err(Fault::later(why)),
        answer => answer,
    }
}

fn judged(method: &str, called: &Called) -> Result<Value, Fault> {
    let answer = called.json();
    if answer["ok"] == json!(true) {
        return Ok(answer);
    }
    let status = called.status.as_u16();
    let error = answer["error"].as_str().unwrap_or_default();
    let mut why = match error {
        "" => format!("Slack refused {method} ({status})"),
        error => format!("Slack refused {method}: {error}"),
    };
    // Which scope is missing, which field is wrong.
    for more in [
        &answer["needed"],
        &answer["response_metadata"]["messages"][0],
    ] {
        if let Some(more) = more.as_str() {
            why.push_str(": ");
            why.extend(more.chars().take(200));
        }
    }
    let after = called.retry_after();
    match (status, error) {
        (429, _) => Err(Fault::Later { why, after }),
        (_, error) if LATER.contains(&error) => Err(Fault::Later { why, after }),
        (_, error) if UNKNOWN.contains(&error) => Err(Fault::Unknown(why)),
        (500..=599, _) => Err(Fault::Later { why, after }),
        // An answer that says nothing: the message may be there.
        (200..=299, "") => Err(Fault::Unknown(why)),
        _ => Err(Fault::Never(why)),
    }
}

/// Whether Slack refused a call with one of some errors.
pub fn is_refused_with(fault: &Fault, errors: &[&str]) -> bool {
    let Fault::Never(why) = fault else {
        return false;
    };
    let said = why.split(": ").nth(1).unwrap_or_default();
    errors.contains(&said)
}

/// A UUID that is the same for the same key: what Slack knows a message of ours by.
pub fn message_id(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    // Version 8 (RFC 9562): of our own making.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}

/// A URL that Slack gave, as base and path, when it is on Slack's own servers: nobody else is shown a
/// token.
pub fn on_slack(hub: &Hub, url: &str) -> Option<(String, String)> {
    let (own, given) = (
        Endpoint::parse(&hub.config.slack_url, true).ok()?,
        Endpoint::parse(url, true).ok()?,
    );
    if !given.is_of(&own) {
        return None;
    }
    let parsed = url::Url::parse(url).ok()?;
    let path = match parsed.query() {
        Some(query) => format!("{}?{query}", parsed.path()),
        None => parsed.path().to_owned(),
    };
    Some((parsed.origin().ascii_serialization(), path))
}

/// Posts to a URL that came with a press or a command
/// (<https://docs.slack.dev/interactivity/handling-user-interaction#message_responses>).
pub async fn respond(hub: &Hub, url: &str, body: &Value) -> Result<(), Fault> {
    let not_slacks = || Fault::Never("the response URL is not Slack's".to_owned());
    let (base, path) = on_slack(hub, url).ok_or_else(not_slacks)?;
    let platform = Platform {
        name: "Slack",
        base: &base,
    };
    let called = hub.post_json(platform, &path, &[], body).await?;
    let status = called.status.as_u16();
    let why = format!("Slack refused a response ({status})");
    match status {
        200..=299 => Ok(()),
        429 | 500..=599 => Err(Fault::Later {
            why,
            after: called.retry_after(),
        }),
        _ => Err(Fault::Never(why)),
    }
}

/// The content of a file with a bot's token, at most `limit` bytes.
pub async fn file(hub: &Hub, token: &str, url: &str, limit: usize) -> Result<Called, Fault> {
    let elsewhere = || Fault::Never("the file is not on Slack's servers".to_owned());
    let (base, path) = on_slack(hub, url).ok_or_else(elsewhere)?;
    let platform = Platform {
        name: "Slack",
        base: &base,
    };
    let headers = [bearer(token)?];
    let got = hub
        .call(platform, Method::GET, &path, &headers, Bytes::new(), limit)
        .await;
    got.map_err(|fault| match fault {
        CallFault::NotSent(why) | CallFault::Unknown(why) => Fault::later(why),
    })
}

/// Puts a file where Slack said; it is shown nowhere yet.
pub async fn upload(hub: &Hub, url: &str, content: Bytes) -> Result<(), Fault> {
    let elsewhere = || Fault::Never("files are not taken on Slack's servers".to_owned());
    let (base, path) = on_slack(hub, url).ok_or_else(elsewhere)?;
    let platform = Platform {
        name: "Slack",
        base: &base,
    };
    let kind = HeaderValue::from_static("application/octet-stream");
    let headers = [(header::CONTENT_TYPE, kind)];
    let put = hub
        .call(platform, Method::POST, &path, &headers, content, MAX_ANSWER)
        .await;
    let called = put.map_err(|fault| match fault {
        CallFault::NotSent(why) | CallFault::Unknown(why) => Fault::later(why),
    })?;
    let why = format!("Slack took no file ({})", called.status);
    match called.status.as_u16() {
        200..=299 => Ok(()),
        429 | 500..=599 => Err(Fault::Later {
            why,
            after: called.retry_after(),
        }),
        _ => Err(Fault::Never(why)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn judge(status: u16, body: &str, retry_after: Option<&str>) -> Result<Value, Fault> {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.parse().expect("a value"));
        }
        let called = Called {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: Bytes::from(body.to_owned()),
        };
        judged("chat.postMessage", &called)
    }

    #[test]
    fn refusals_are_told_apart() {
        assert!(judge(200, r#"{"ok":true}"#, None).is_ok());
        let busy = judge(429, r#"{"ok":false,"error":"ratelimited"}"#, Some("7"));
        let Err(Fault::Later { after, .. }) = busy else {
            panic!("{busy:?}");
        };
        assert_eq!(after.map(|after| after.as_secs()), Some(7));
        for (status, body, kind) in [
            (200, r#"{"ok":false,"error":"channel_not_found"}"#, "never"),
            (
                200,
                r#"{"ok":false,"error":"service_unavailable"}"#,
                "later",
            ),
            (200, r#"{"ok":false,"error":"fatal_error"}"#, "unknown"),
            (200, "<html>", "unknown"),
            (503, "<html>", "later"),
            (403, "<html>", "never"),
        ] {
            let told = match judge(status, body, None) {
                Err(Fault::Never(_)) => "never",
                Err(Fault::Later { .. }) => "later",
                Err(Fault::Unknown(_)) => "unknown",
                Ok(_) => "taken",
            };
            assert_eq!(told, kind, "{status} {body}");
        }
        let missing = judge(
            200,
            r#"{"ok":false,"error":"missing_scope","needed":"chat:write"}"#,
            None,
        );
        let missing = missing.expect_err("refused");
        assert_eq!(
            missing.to_string(),
            "Slack refused chat.postMessage: missing_scope: chat:write"
        );
        assert!(is_refused_with(&missing, &["missing_scope"]));
        assert!(!is_refused_with(&missing, &["chat:write"]));
    }

    #[test]
    fn a_key_is_one_uuid() {
        let id = message_id("out_1-0");
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'8'));
        assert_eq!(id, message_id("out_1-0"));
        assert_ne!(id, message_id("out_1-1"));
    }
}
