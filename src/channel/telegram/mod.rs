//! Telegram, by its Bot API (<https://core.telegram.org/bots/api>): webhook, or long polling where no
//! public address is set.

mod api;
mod format;
mod live;
mod poll;
mod receive;
mod rest;

pub use receive::decode;
pub use rest::{documented, routes};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::split::messages;
use super::{Account, Card, Channel, Destination, Fault, Hub, Meaning, Outgoing, SendTool};
use crate::error::ApiError;
use crate::store::{InboundRow, OutboundRow};
use format::Html;

pub const KIND: &str = "telegram";
/// Of a message's text, in UTF-16 units.
const MAX_TEXT: usize = 4096;
/// Of a file, in bytes, and of one that is shown as a photo
/// (<https://core.telegram.org/bots/api#sending-files>).
const MAX_FILE: usize = 50_000_000;
const MAX_PHOTO: usize = 10_000_000;
/// What is shown as a photo; others would stand still or be refused.
const PHOTOS: [&str; 3] = ["image/jpeg", "image/png", "image/webp"];
/// Of the arguments on a card.
const MAX_ARGUMENTS: usize = 1500;

/// The secrets of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secrets {
    pub bot_token: String,
    pub webhook_secret: String,
}

/// Telegram.
pub struct Telegram;

/// A tenant's account, or why there is none.
async fn account(hub: &Hub, tenant_id: &str) -> Result<Account<Secrets>, Fault> {
    let found = hub.account_lately(tenant_id, KIND).await?;
    found.ok_or_else(|| Fault::Never("telegram_bot_unconfigured: the tenant has no bot".to_owned()))
}

/// Sends words of our own format.
async fn say(
    hub: &Hub,
    to: &OutboundRow,
    message: &str,
    keyboard: Option<Value>,
) -> Result<String, Fault> {
    let account = account(hub, &to.tenant_id).await?;
    let mut body = json!({ "text": message, "parse_mode": "HTML",
        "link_preview_options": { "is_disabled": true } });
    if let Some(keyboard) = keyboard {
        body["reply_markup"] = keyboard;
    }
    match api::send(hub, &account.secrets, &to.reply_to, body).await {
        // What our own format did wrong must not cost the answer.
        Err(Fault::Never(why)) if why.contains("parse entities") => {
            tracing::error!(why, "Telegram refuses what was written for it");
            let plain = json!({ "text": format::plain(message) });
            api::send(hub, &account.secrets, &to.reply_to, plain).await
        }
        sent => sent,
    }
}

#[async_trait]
impl Channel for Telegram {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn unconfigured(&self) -> String {
        "telegram_bot_unconfigured".to_owned()
    }

    async fn interpret(&self, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
        receive::interpret(hub, arrival).await
    }

    fn messages(&self, text: &str) -> Vec<String> {
        messages(text, &Html, MAX_TEXT)
    }

    async fn send(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        message: &str,
        _key: &str,
    ) -> Result<String, Fault> {
        say(hub, to, message, None).await
    }

    /// A keyboard, which the message alone can bring that is sent anew: of one that was shown as it was
    /// written only the words are changed. In a group everybody would be given it.
    async fn offer(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        message: &str,
        replies: &[String],
        _key: &str,
    ) -> Result<String, Fault> {
        let place: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
        let is_private = place["chat_id"].as_i64().is_some_and(|chat| chat > 0);
        let rows: Vec<Value> = replies
            .iter()
            .map(|reply| json!([{ "text": reply }]))
            .collect();
        let keyboard =
            json!({ "keyboard": rows, "one_time_keyboard": true, "resize_keyboard": true });
        say(hub, to, message, Some(keyboard).filter(|_| is_private)).await
    }

    fn largest_file(&self, _media_type: &str) -> Option<usize> {
        Some(MAX_FILE)
    }

    async fn send_files(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        _words: &str,
        files: &[Outgoing],
        _key: &str,
    ) -> Result<String, Fault> {
        let [file] = files else {
            return Err(Fault::Never("Telegram takes one file at a time".to_owned()));
        };
        let account = account(hub, &to.tenant_id).await?;
        let send = |how| api::send_file(hub, &account.secrets, &to.reply_to, how, file);
        let is_photo = PHOTOS.contains(&file.media_type.as_str());
        if is_photo && file.content.len() <= MAX_PHOTO {
            match send(("sendPhoto", "photo")).await {
                // As a photo it may be too wide, or of too many points: as a document it is not.
                Err(Fault::Never(why)) => tracing::info!(why, "a picture is sent as a document"),
                sent => return sent,
            }
        }
        send(("sendDocument", "document")).await
    }

    async fn ask(&self, hub: &Hub, to: &OutboundRow, card: &Card) -> Result<String, Fault> {
        let account = account(hub, &to.tenant_id).await?;
        let mut arguments: String = card.arguments.chars().take(MAX_ARGUMENTS).collect();
        if arguments.len() < card.arguments.len() {
            arguments.push('…');
        }
        if let (Some(question), Some(link)) = (&card.question, &card.link) {
            let asked: String = question.message.chars().take(MAX_ARGUMENTS).collect();
            let keyboard = [[json!({ "text": "Answer", "url": link })]];
            let body = json!({ "text": format::escape(&asked), "parse_mode": "HTML",
                "reply_markup": { "inline_keyboard": keyboard } });
            return api::send(hub, &account.secrets, &to.reply_to, body).await;
        }
        let text = format!(
            "May I use <b>{}</b>?\n<pre>{}</pre>",
            format::escape(&card.tool),
            format::escape(&arguments)
        );
        let button = |text: &str, word: &str| json!({ "text": text, "callback_data": format!("{word}:{}", card.approval_id) });
        let keyboard = [[button("✅ Approve", "a"), button("❌ Reject", "r")]];
        let body = json!({ "text": text, "parse_mode": "HTML",
            "reply_markup": { "inline_keyboard": keyboard } });
        api::send(hub, &account.secrets, &to.reply_to, body).await
    }

    async fn decided(&self, hub: &Hub, arrival: &InboundRow, text: &str, is_settled: bool) {
        let Ok(account) = account(hub, &arrival.tenant_id).await else {
            return;
        };
        let update: Value = serde_json::from_str(&arrival.data).unwrap_or_default();
        let query = &update["callback_query"];
        let answer = json!({ "callback_query_id": query["id"], "text": text,
            "show_alert": !is_settled });
        let mut calls = vec![("answerCallbackQuery", answer)];
        if is_settled {
            let message = &query["message"];
            calls.push((
                "editMessageText",
                json!({ "chat_id": message["chat"]["id"], "message_id": message["message_id"],
                    "text": text }),
            ));
        }
        for (method, body) in calls {
            if let Err(error) = api::call(hub, &account.secrets, method, &body).await {
                tracing::info!(%error, method, "a press is not answered");
            }
        }
    }

    fn deep_link(&self, settings: &Value, token: &str) -> Option<String> {
        let bot = settings["bot_username"].as_str()?;
        Some(format!("https://t.me/{bot}?start={token}"))
    }

    async fn typing(&self, hub: &Hub, tenant_id: &str, reply_to: &Value) {
        let Ok(account) = account(hub, tenant_id).await else {
            return;
        };
        let mut body = reply_to.clone();
        if let Some(body) = body.as_object_mut() {
            body.insert("action".to_owned(), json!("typing"));
            body.shift_remove("reply_parameters");
        }
        if let Err(error) = api::call(hub, &account.secrets, "sendChatAction", &body).await {
            tracing::debug!(%error, "a sender is not shown that they are answered");
        }
    }

    fn shows_every(&self) -> Option<Duration> {
        Some(live::EVERY)
    }

    async fn show(
        &self,
        hub: &Hub,
        tenant_id: &str,
        reply_to: &Value,
        draft: &mut Value,
        text: &str,
    ) -> Result<(), Fault> {
        let account = account(hub, tenant_id).await?;
        live::show(hub, &account, reply_to, draft, text).await
    }

    async fn settle(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        draft: &Value,
        message: &str,
    ) -> Result<Option<String>, Fault> {
        let account = account(hub, &to.tenant_id).await?;
        live::settle(hub, &account, &to.reply_to, draft, message).await
    }

    fn send_tool(&self) -> Option<SendTool> {
        Some(SendTool {
            name: "telegram_send_message",
            description: "Send a message over Telegram",
            to: "A chat's number",
        })
    }

    fn destination(&self, to: &str) -> Result<Destination, String> {
        let (chat, topic) = to.split_once(':').map_or((to, None), |(c, t)| (c, Some(t)));
        let number = |text: &str| {
            let read: Result<i64, _> = text.parse();
            read.map_err(|_| format!("'{to}' is no chat: a number, or number:topic"))
        };
        let mut reply_to = json!({ "chat_id": number(chat)? });
        if let Some(topic) = topic {
            reply_to["message_thread_id"] = json!(number(topic)?);
        }
        Ok(Destination {
            chat: to.to_owned(),
            reply_to,
        })
    }

    async fn poll(&self, hub: Arc<Hub>) {
        poll::poll(hub).await;
    }
}

fn telegram_api_error(why: String) -> ApiError {
    ApiError::bad_request("telegram_api_error", why)
}
