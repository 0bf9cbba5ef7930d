//! Calls of the Bot API.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};
use serde_json::{Value, json};

use super::Secrets;
use crate::channel::call::{LONGEST_WAIT, MAX_ANSWER};
use crate::channel::multipart::Form;
use crate::channel::{CallFault, Called, Fault, Hub, Outgoing, Platform};

fn platform(hub: &Hub) -> Platform<'_> {
    Platform {
        name: "Telegram",
        base: &hub.config.telegram_url,
    }
}

/// Calls a method, and answers its `result`.
pub async fn call(
    hub: &Hub,
    secrets: &Secrets,
    method: &str,
    body: &Value,
) -> Result<Value, Fault> {
    let path = format!("/bot{}/{method}", secrets.bot_token);
    let called = hub.post_json(platform(hub), &path, &[], body).await?;
    judged(method, &called)
}

/// Calls a method with a file.
async fn upload(hub: &Hub, secrets: &Secrets, method: &str, form: Form) -> Result<Value, Fault> {
    let path = format!("/bot{}/{method}", secrets.bot_token);
    let (kind, body) = form.finish()?;
    let headers = [(header::CONTENT_TYPE, kind)];
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

fn judged(method: &str, called: &Called) -> Result<Value, Fault> {
    let answer = called.json();
    if answer["ok"] == json!(true) {
        return Ok(answer["result"].clone());
    }
    let status = called.status.as_u16();
    let code = answer["error_code"].as_u64().unwrap_or(u64::from(status));
    let said = answer["description"].as_str().unwrap_or("no description");
    let why = format!("Telegram refused {method} ({code}): {said}");
    let parameters = &answer["parameters"];
    if let Some(chat) = parameters["migrate_to_chat_id"].as_i64() {
        return Err(Fault::Never(format!("{MOVED}{chat}")));
    }
    match code {
        429 => {
            let seconds = parameters["retry_after"].as_u64().unwrap_or(1);
            let after = Some(Duration::from_secs(seconds.min(LONGEST_WAIT)));
            Err(Fault::Later { why, after })
        }
        500..=599 => Err(Fault::later(why)),
        // An answer that says nothing: the message may be there.
        200..=299 => Err(Fault::Unknown(why)),
        _ => Err(Fault::Never(why)),
    }
}

/// What a group that has become a supergroup answers, before its new number.
const MOVED: &str = "the group has moved to ";

/// Sends a message where an answer goes; answers its number.
pub async fn send(
    hub: &Hub,
    secrets: &Secrets,
    reply_to: &str,
    mut body: Value,
) -> Result<String, Fault> {
    let to: Value = serde_json::from_str(reply_to).unwrap_or_default();
    if let (Some(body), Some(to)) = (body.as_object_mut(), to.as_object()) {
        body.extend(to.clone());
    }
    let sent = match call(hub, secrets, "sendMessage", &body).await {
        Err(fault) if moved_to(&fault).is_some() => {
            body["chat_id"] = json!(moved_to(&fault));
            call(hub, secrets, "sendMessage", &body).await
        }
        sent => sent,
    }?;
    Ok(sent["message_id"].to_string())
}

/// The new number of a group that has moved.
fn moved_to(fault: &Fault) -> Option<i64> {
    match fault {
        Fault::Never(why) => why.strip_prefix(MOVED)?.parse().ok(),
        _ => None,
    }
}

/// Sends a file where an answer goes, by `method`, in its field `field`; answers the message's number.
pub async fn send_file(
    hub: &Hub,
    secrets: &Secrets,
    reply_to: &str,
    (method, field): (&str, &str),
    file: &Outgoing,
) -> Result<String, Fault> {
    let mut to: Value = serde_json::from_str(reply_to).unwrap_or_default();
    let form = |to: &Value| {
        let mut form = Form::new()?;
        for (name, value) in to.as_object().into_iter().flatten() {
            form = match value.as_str() {
                Some(text) => form.field(name, text),
                None => form.field(name, &value.to_string()),
            };
        }
        Ok::<_, Fault>(form.file(field, file))
    };
    let sent = match upload(hub, secrets, method, form(&to)?).await {
        Err(fault) if moved_to(&fault).is_some() => {
            to["chat_id"] = json!(moved_to(&fault));
            upload(hub, secrets, method, form(&to)?).await
        }
        sent => sent,
    }?;
    Ok(sent["message_id"].to_string())
}

/// The content of a file, at most `limit` bytes; `None`: it is larger.
pub async fn file(
    hub: &Hub,
    secrets: &Secrets,
    id: &str,
    limit: usize,
) -> Result<Option<Bytes>, Fault> {
    let found = match call(hub, secrets, "getFile", &json!({ "file_id": id })).await {
        // What the Bot API says of files above its own limit.
        Err(Fault::Never(why)) if why.contains("too big") => return Ok(None),
        found => found?,
    };
    let path = found["file_path"].as_str().unwrap_or_default();
    let is_sane = !path.is_empty() && !path.contains("..") && !path.contains(['?', '#', ' ']);
    if !is_sane {
        return Err(Fault::Never("Telegram names no path of a file".to_owned()));
    }
    if found["file_size"]
        .as_u64()
        .is_some_and(|size| size > limit as u64)
    {
        return Ok(None);
    }
    let path = format!("/file/bot{}/{path}", secrets.bot_token);
    let got = hub
        .call(platform(hub), Method::GET, &path, &[], Bytes::new(), limit)
        .await;
    match got {
        Ok(got) if got.status.is_success() => Ok(Some(got.body)),
        Ok(got) => Err(Fault::later(format!(
            "Telegram gave no file ({})",
            got.status
        ))),
        // To ask again harms nobody.
        Err(CallFault::NotSent(why) | CallFault::Unknown(why)) => Err(Fault::later(why)),
    }
}
