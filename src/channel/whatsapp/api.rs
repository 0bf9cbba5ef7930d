//! Calls of the Cloud API
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/reference>).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::Secrets;
use crate::channel::call::{Called, MAX_ANSWER};
use crate::channel::fetch::Fetched;
use crate::channel::multipart::Form;
use crate::channel::{Account, CallFault, Fault, Hub, Outgoing, Platform};

/// More than 24 hours have gone by since the person last wrote.
pub const WINDOW_CLOSED: i64 = 131_047;

/// Codes of what passes: limits of calls and of messages, and the platform's own trouble
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes>).
const PASSES: [i64; 11] = [
    1, 2, 4, 80_007, 130_429, 131_016, 131_048, 131_056, 131_057, 133_004, 133_016,
];

/// What Meta refuses, and its code.
#[derive(Debug)]
pub struct Refused {
    pub code: Option<i64>,
    pub fault: Fault,
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        refused.fault
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { code: None, fault }
    }
}

impl From<CallFault> for Refused {
    fn from(fault: CallFault) -> Self {
        Fault::from(fault).into()
    }
}

fn bearer(secrets: &Secrets) -> Result<[(HeaderName, HeaderValue); 1], Fault> {
    let value = HeaderValue::from_str(&format!("Bearer {}", secrets.access_token));
    let mut value = value.map_err(|_| Fault::Never("the access token is none".to_owned()))?;
    value.set_sensitive(true);
    Ok([(header::AUTHORIZATION, value)])
}

/// What an error says, in Meta's words.
pub fn told(error: &Value) -> String {
    let code = error["code"].as_i64().unwrap_or(0);
    let title = [&error["message"], &error["title"]];
    let title = title.into_iter().find_map(Value::as_str);
    let details = error["error_data"]["details"].as_str().unwrap_or_default();
    let mut why = format!("{} ({code})", title.unwrap_or("no description"));
    if !details.is_empty() {
        why.push_str(": ");
        why.push_str(details);
    }
    if code == WINDOW_CLOSED {
        why.push_str(
            "; WhatsApp takes only templates when more than 24 hours have gone by since the person \
             last wrote",
        );
    }
    why
}

fn refused(called: &Called, what: &str) -> Refused {
    let answer = called.json();
    let status = called.status;
    let error = &answer["error"];
    let code = error["code"].as_i64();
    let why = match error.is_object() {
        true => format!("WhatsApp refused {what}: {}", told(error)),
        false => format!("WhatsApp refused {what} ({status})"),
    };
    let passes = code.is_some_and(|code| PASSES.contains(&code));
    let fault = match status.as_u16() {
        _ if passes => Fault::Later {
            why,
            after: called.retry_after(),
        },
        429 => Fault::Later {
            why,
            after: called.retry_after(),
        },
        500..=599 if error.is_object() => Fault::later(why),
        // Of whoever is in between: the message may be there.
        200..=299 | 500..=599 => Fault::Unknown(why),
        _ => Fault::Never(why),
    };
    Refused { code, fault }
}

/// Calls what is at `path`, and answers its JSON.
pub async fn call(
    hub: &Hub,
    secrets: &Secrets,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, Refused> {
    let platform = Platform {
        name: "WhatsApp",
        base: &hub.config.whatsapp_url,
    };
    let headers = bearer(secrets)?;
    let called = match body {
        Some(body) => hub.post_json(platform, path, &headers, body).await?,
        None => {
            let empty = Bytes::new();
            hub.call(platform, method, path, &headers, empty, MAX_ANSWER)
                .await?
        }
    };
    judged(path, &called)
}

fn judged(path: &str, called: &Called) -> Result<Value, Refused> {
    let answer = called.json();
    match called.status.is_success() && answer.is_object() && answer["error"].is_null() {
        true => Ok(answer),
        false => {
            let last = path.rsplit('/').next().unwrap_or_default();
            let what = last.split('?').next().unwrap_or_default();
            Err(refused(called, what))
        }
    }
}

/// Uploads a file, which nobody sees yet; answers what messages name it by
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/business-phone-numbers/media>).
pub async fn upload(
    hub: &Hub,
    account: &Account<Secrets>,
    file: &Outgoing,
) -> Result<String, Refused> {
    let number = account.settings["phone_number_id"]
        .as_str()
        .unwrap_or_default();
    let path = format!("/{number}/media");
    let form = Form::new().map_err(Fault::from)?;
    let form = form
        .field("messaging_product", "whatsapp")
        .field("type", &file.media_type)
        .file("file", file);
    let (kind, body) = form.finish().map_err(Fault::from)?;
    let platform = Platform {
        name: "WhatsApp",
        base: &hub.config.whatsapp_url,
    };
    let [authorization] = bearer(&account.secrets)?;
    let headers = [authorization, (header::CONTENT_TYPE, kind)];
    let called = hub
        .call(platform, Method::POST, &path, &headers, body, MAX_ANSWER)
        .await;
    let answered = match called {
        Ok(called) => judged(&path, &called),
        Err(fault) => Err(fault.into()),
    };
    // One that is uploaded twice is sent once.
    let again = |refused: Refused| match refused.fault {
        Fault::Unknown(why) => Fault::later(why).into(),
        fault => Refused { fault, ..refused },
    };
    match answered.map_err(again)?["id"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(Fault::later("WhatsApp names no file").into()),
    }
}

/// Posts to the account's number: a message, or that one is read.
async fn post(hub: &Hub, account: &Account<Secrets>, body: &Value) -> Result<Value, Refused> {
    let number = account.settings["phone_number_id"]
        .as_str()
        .unwrap_or_default();
    let path = format!("/{number}/messages");
    call(hub, &account.secrets, Method::POST, &path, Some(body)).await
}

/// Sends a message where an answer goes; answers its name. `key` comes back with what becomes of it.
pub async fn send(
    hub: &Hub,
    account: &Account<Secrets>,
    reply_to: &Value,
    key: &str,
    message: Value,
) -> Result<String, Refused> {
    let mut body = json!({ "messaging_product": "whatsapp" });
    let kind = match reply_to["group"].as_bool() {
        Some(true) => "group",
        _ => "individual",
    };
    body["recipient_type"] = json!(kind);
    for name in ["to", "recipient"] {
        if reply_to[name].is_string() {
            body[name] = reply_to[name].clone();
        }
    }
    if !key.is_empty() {
        body["biz_opaque_callback_data"] = json!(key);
    }
    if let (Some(body), Value::Object(message)) = (body.as_object_mut(), message) {
        body.extend(message);
    }
    let answer = post(hub, account, &body).await?;
    match answer["messages"][0]["id"].as_str() {
        Some(name) => Ok(name.to_owned()),
        None => Err(Fault::Unknown("WhatsApp names no message".to_owned()).into()),
    }
}

/// Shows that a message was read and is being answered
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/typing-indicators>).
pub async fn typing(hub: &Hub, account: &Account<Secrets>, message: &str) -> Result<(), Fault> {
    let body = json!({ "messaging_product": "whatsapp", "status": "read", "message_id": message,
        "typing_indicator": { "type": "text" } });
    post(hub, account, &body).await?;
    Ok(())
}

/// The content of a file, at most `limit` bytes
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/business-phone-numbers/media>).
pub async fn file(
    hub: &Hub,
    account: &Account<Secrets>,
    id: &str,
    limit: usize,
) -> Result<Fetched, Fault> {
    let is_id = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_id {
        return Ok(Fetched::Gone);
    }
    let secrets = &account.secrets;
    let path = format!("/{id}");
    let found = match call(hub, secrets, Method::GET, &path, None).await {
        // It is kept for 30 days, and then is no object that exists.
        Err(Refused {
            code: Some(100), ..
        }) => return Ok(Fetched::Gone),
        // To ask again harms nobody.
        Err(Refused {
            fault: Fault::Unknown(why),
            ..
        }) => return Err(Fault::later(why)),
        found => found?,
    };
    if found["file_size"]
        .as_u64()
        .is_some_and(|size| size > limit as u64)
    {
        return Ok(Fetched::TooLarge);
    }
    let url = found["url"].as_str().unwrap_or_default();
    // The token goes nowhere that others read along, but where an emulator stands in.
    let is_sealed = url.starts_with("https://") || hub.config.whatsapp_url.starts_with("http://");
    if !is_sealed {
        return Err(Fault::Never(
            "WhatsApp gave a file an address without TLS".to_owned(),
        ));
    }
    hub.fetch("WhatsApp", url, &bearer(secrets)?, limit).await
}

/// Whether an error of `PUT` is the caller's to mend.
pub fn status_of(fault: &Fault) -> StatusCode {
    match fault {
        Fault::Never(_) => StatusCode::BAD_REQUEST,
        Fault::Later { .. } | Fault::Unknown(_) => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn fault(status: u16, body: &Value) -> (Option<i64>, Fault) {
        let called = Called {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_string()),
        };
        let refused = refused(&called, "messages");
        (refused.code, refused.fault)
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_said() {
        for code in [4, 80_007, 130_429, 131_048, 131_056] {
            let (_, fault) = fault(
                400,
                &json!({ "error": { "code": code, "message": "slow" } }),
            );
            assert!(matches!(fault, Fault::Later { .. }), "{code}");
        }
        let (code, closed) = fault(
            400,
            &json!({ "error": { "code": 131_047, "message": "Re-engagement message",
            "error_data": { "details": "More than 24 hours have passed" } } }),
        );
        assert_eq!(code, Some(WINDOW_CLOSED));
        assert!(
            closed
                .to_string()
                .contains("Re-engagement message (131047): More than 24 hours")
        );
        assert!(matches!(closed, Fault::Never(_)));
        let expired = fault(
            401,
            &json!({ "error": { "code": 190, "message": "expired" } }),
        )
        .1;
        assert!(matches!(expired, Fault::Never(_)));
        let theirs = fault(
            500,
            &json!({ "error": { "code": 131_000, "message": "oh" } }),
        )
        .1;
        assert!(matches!(theirs, Fault::Later { .. }));
        assert!(matches!(fault(502, &json!("?")).1, Fault::Unknown(_)));
        assert!(matches!(fault(200, &json!({})).1, Fault::Unknown(_)));
    }
}
