//! Answers that appear while they are written: as a draft in a private chat
//! (<https://core.telegram.org/bots/api#sendmessagedraft>), else by edits of a message.

use std::time::Duration;

use serde_json::{Value, json};

use super::format::Html;
use super::{MAX_TEXT, api};
use crate::channel::split::messages;
use crate::channel::{Account, Fault, Hub};
use crate::store::now_micros;

/// How often what is written is shown anew.
pub const EVERY: Duration = Duration::from_millis(1200);
/// A group takes twenty messages a minute, and edits count.
const EVERY_IN_GROUPS: i64 = 3_500_000;
/// That there is more to come.
const MORE: &str = " …";

/// Shows what is written so far. `draft` becomes `{draft_id}` or `{message_id}`, with when it was shown.
pub async fn show(
    hub: &Hub,
    account: &Account<super::Secrets>,
    reply_to: &Value,
    draft: &mut Value,
    text: &str,
) -> Result<(), Fault> {
    let now = now_micros();
    let is_group = reply_to["chat_id"].as_i64().is_none_or(|chat| chat < 0);
    let shown_at = draft["shown_at"].as_i64().unwrap_or(0);
    if is_group && now - shown_at < EVERY_IN_GROUPS {
        return Ok(());
    }
    let pieces = messages(text, &Html, MAX_TEXT - MORE.len());
    let Some(first) = pieces.first() else {
        return Ok(());
    };
    let words = json!({ "text": format!("{first}{MORE}"), "parse_mode": "HTML" });
    let mut body = words.clone();
    body["link_preview_options"] = json!({ "is_disabled": true });
    if let Some(message) = draft["message_id"].as_str() {
        edit(hub, account, reply_to, message, body).await?;
        draft["shown_at"] = json!(now);
        return Ok(());
    }
    if !is_group && draft["no_drafts"] != json!(true) {
        let id = draft["draft_id"]
            .as_i64()
            .unwrap_or((now & 0x7fff_ffff) | 1);
        let mut drafted = json!({ "draft_id": id });
        // A draft shows no previews, and knows no such option.
        for source in [reply_to, &words] {
            for (name, value) in source.as_object().into_iter().flatten() {
                drafted[name] = value.clone();
            }
        }
        match api::call(hub, &account.secrets, "sendMessageDraft", &drafted).await {
            Ok(_) => {
                *draft = json!({ "draft_id": id });
                return Ok(());
            }
            // Not every bot and client has drafts.
            Err(Fault::Never(_)) => *draft = json!({ "no_drafts": true }),
            Err(fault) => return Err(fault),
        }
    }
    let to = reply_to.to_string();
    let message = api::send(hub, &account.secrets, &to, body).await?;
    *draft = json!({ "message_id": message, "shown_at": now });
    Ok(())
}

/// Makes the message that was shown the first of the answer; `None`: a draft, which is gone by itself.
pub async fn settle(
    hub: &Hub,
    account: &Account<super::Secrets>,
    reply_to: &str,
    draft: &Value,
    text: &str,
) -> Result<Option<String>, Fault> {
    let Some(message) = draft["message_id"].as_str() else {
        return Ok(None);
    };
    let reply_to: Value = serde_json::from_str(reply_to).unwrap_or_default();
    let body = json!({ "text": text, "parse_mode": "HTML",
        "link_preview_options": { "is_disabled": true } });
    edit(hub, account, &reply_to, message, body).await?;
    Ok(Some(message.to_owned()))
}

async fn edit(
    hub: &Hub,
    account: &Account<super::Secrets>,
    reply_to: &Value,
    message: &str,
    mut body: Value,
) -> Result<(), Fault> {
    body["chat_id"] = reply_to["chat_id"].clone();
    body["message_id"] = json!(message.parse::<i64>().unwrap_or_default());
    match api::call(hub, &account.secrets, "editMessageText", &body).await {
        Ok(_) => Ok(()),
        // It says so already.
        Err(Fault::Never(why)) if why.contains("not modified") => Ok(()),
        Err(fault) => Err(fault),
    }
}
