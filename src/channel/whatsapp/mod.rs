//! WhatsApp, by Meta's Cloud API
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp>).

mod api;
mod format;
mod receive;
mod rest;
mod status;
mod template;
mod verify;

pub use receive::{arrivals, decode};
pub use rest::{documented, routes};

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::split::units;
use super::{Account, Card, Channel, Destination, Fault, Hub, Meaning, Outgoing, SendTool};
use crate::error::ApiError;
use crate::store::{DeploymentRow, InboundRow, OutboundRow};
use template::Template;

pub const KIND: &str = "whatsapp";
/// Of the text of a message with buttons
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/interactive-reply-buttons-messages>).
const MAX_CARD: usize = 1024;
/// Its buttons, and what each says.
const MAX_BUTTONS: usize = 3;
const MAX_TITLE: usize = 20;
/// Of files, in bytes
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/business-phone-numbers/media>).
const MAX_IMAGE: usize = 5_000_000;
const MAX_PLAYED: usize = 16_000_000;
const MAX_DOCUMENT: usize = 100_000_000;
/// Of the arguments on a card.
const MAX_ARGUMENTS: usize = 800;

/// The secrets of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secrets {
    pub access_token: String,
    /// Of an app of the tenant's own; without, the operator's delivers.
    #[serde(default)]
    pub app_secret: Option<String>,
    #[serde(default)]
    pub verify_token: Option<String>,
}

/// WhatsApp shows for 25 seconds that somebody writes; it is told no more often than it needs.
const TYPING_FOR: Duration = Duration::from_secs(20);
const TYPING_AT_ONCE: u64 = 10_000;

/// WhatsApp.
pub struct WhatsApp {
    /// Messages that are shown as being answered.
    typing: moka::future::Cache<String, ()>,
}

impl Default for WhatsApp {
    fn default() -> Self {
        let typing = moka::future::Cache::builder().max_capacity(TYPING_AT_ONCE);
        Self {
            typing: typing.time_to_live(TYPING_FOR).build(),
        }
    }
}

/// A tenant's account, or why there is none.
async fn account(hub: &Hub, tenant_id: &str) -> Result<Account<Secrets>, Fault> {
    let found = hub.account_lately(tenant_id, KIND).await?;
    found.ok_or_else(|| Fault::Never("whatsapp_unconfigured: the tenant has no number".to_owned()))
}

fn text_message(text: &str) -> Value {
    json!({ "type": "text", "text": { "preview_url": false, "body": text } })
}

/// What WhatsApp shows a file as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MediaKind {
    Image,
    Audio,
    Video,
    Document,
}

impl MediaKind {
    fn of(media_type: &str) -> Self {
        match media_type {
            "image/jpeg" | "image/png" => Self::Image,
            "audio/aac" | "audio/amr" | "audio/mpeg" | "audio/mp4" | "audio/ogg" => Self::Audio,
            "video/mp4" | "video/3gpp" => Self::Video,
            _ => Self::Document,
        }
    }
}

fn file_message(file: &Outgoing, id: &str) -> Value {
    match MediaKind::of(&file.media_type) {
        MediaKind::Image if file.content.len() <= MAX_IMAGE => {
            json!({ "type": "image", "image": { "id": id } })
        }
        MediaKind::Audio => json!({ "type": "audio", "audio": { "id": id } }),
        MediaKind::Video => json!({ "type": "video", "video": { "id": id } }),
        MediaKind::Image | MediaKind::Document => {
            json!({ "type": "document", "document": { "id": id, "filename": file.name } })
        }
    }
}

/// A message with buttons for what may be answered; `None`: there are too many, or too long ones.
fn offered(text: &str, replies: &[String]) -> Option<Value> {
    let fits = |reply: &String| (1..=MAX_TITLE).contains(&units(reply));
    let is_twice = |(at, reply): (usize, &String)| replies[..at].contains(reply);
    let is_fine = (1..=MAX_BUTTONS).contains(&replies.len())
        && replies.iter().all(fits)
        && !replies.iter().enumerate().any(is_twice)
        && units(text) <= MAX_CARD;
    let button = |(at, reply): (usize, &String)| json!({ "type": "reply", "reply": { "id": format!("q:{at}"), "title": reply } });
    let buttons: Vec<Value> = replies.iter().enumerate().map(button).collect();
    is_fine.then(|| {
        json!({ "type": "interactive", "interactive": { "type": "button",
            "body": { "text": text }, "action": { "buttons": buttons } } })
    })
}

/// Sends `message`, as `body` or as what is taken at its time.
async fn say(
    hub: &Hub,
    to: &OutboundRow,
    message: &str,
    body: Value,
    key: &str,
) -> Result<String, Fault> {
    let account = account(hub, &to.tenant_id).await?;
    let reply_to: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
    if let Some(template) = Template::parse(&reply_to["template"]) {
        let message = template.message(message);
        return Ok(api::send(hub, &account, &reply_to, key, message).await?);
    }
    match api::send(hub, &account, &reply_to, key, body).await {
        Err(refused) if refused.code == Some(api::WINDOW_CLOSED) => {
            template::instead(hub, &account, to, message, key, refused.fault).await
        }
        sent => Ok(sent?),
    }
}

/// Whether it is a number, as WhatsApp has them: with the country, without a plus.
fn is_number(text: &str) -> bool {
    (6..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

#[async_trait]
impl Channel for WhatsApp {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn interpret(&self, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
        match arrival.kind.strip_prefix(receive::STATUS) {
            Some(_) => status::interpret(hub, arrival).await,
            None => receive::interpret(hub, arrival).await,
        }
    }

    fn messages(&self, text: &str) -> Vec<String> {
        format::messages(text)
    }

    async fn send(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        message: &str,
        key: &str,
    ) -> Result<String, Fault> {
        say(hub, to, message, text_message(message), key).await
    }

    async fn offer(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        message: &str,
        replies: &[String],
        key: &str,
    ) -> Result<String, Fault> {
        let body = offered(message, replies).unwrap_or_else(|| text_message(message));
        say(hub, to, message, body, key).await
    }

    fn largest_file(&self, media_type: &str) -> Option<usize> {
        // What is too large for its own kind goes as a document, unless it is one that plays.
        match MediaKind::of(media_type) {
            MediaKind::Image | MediaKind::Document => Some(MAX_DOCUMENT),
            MediaKind::Audio | MediaKind::Video => Some(MAX_PLAYED),
        }
    }

    async fn send_files(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        _words: &str,
        files: &[Outgoing],
        key: &str,
    ) -> Result<String, Fault> {
        let [file] = files else {
            return Err(Fault::Never("WhatsApp takes one file at a time".to_owned()));
        };
        let account = account(hub, &to.tenant_id).await?;
        let reply_to: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
        let id = api::upload(hub, &account, file).await?;
        Ok(api::send(hub, &account, &reply_to, key, file_message(file, &id)).await?)
    }

    async fn ask(&self, hub: &Hub, to: &OutboundRow, card: &Card) -> Result<String, Fault> {
        let account = account(hub, &to.tenant_id).await?;
        let reply_to: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
        // As `send` would be given it.
        let key = format!("{}-0", to.id);
        Ok(api::send(hub, &account, &reply_to, &key, card_message(card)).await?)
    }

    async fn decided(&self, hub: &Hub, arrival: &InboundRow, text: &str, _is_settled: bool) {
        let Ok(account) = account(hub, &arrival.tenant_id).await else {
            return;
        };
        let data: Value = serde_json::from_str(&arrival.data).unwrap_or_default();
        let Some(to) = receive::reply_to(&data["message"]) else {
            return;
        };
        // What was sent cannot be changed here, so the press is answered.
        let mut message = text_message(&format::escape(text));
        message["context"] = json!({ "message_id": data["message"]["id"] });
        if let Err(refused) = api::send(hub, &account, &to, "", message).await {
            tracing::info!(error = %refused.fault, "a press is not answered");
        }
    }

    async fn made(
        &self,
        _hub: &Hub,
        _deployment: &DeploymentRow,
        start_token: Option<&str>,
    ) -> Result<Map<String, Value>, ApiError> {
        let mut shown = Map::new();
        if let Some(token) = start_token {
            shown.insert("prefilled_message".to_owned(), json!(prefilled(token)));
        }
        Ok(shown)
    }

    fn deep_link(&self, settings: &Value, token: &str) -> Option<String> {
        let number = settings["display_phone_number"].as_str()?;
        let number: String = number.chars().filter(char::is_ascii_digit).collect();
        let mut link = url::Url::parse("https://wa.me").ok()?;
        link.set_path(&number);
        // Spaces as they are in links that people are shown.
        let text = prefilled(token).replace(' ', "%20").replace('/', "%2F");
        link.set_query(Some(&format!("text={text}")));
        Some(link.to_string()).filter(|_| !number.is_empty())
    }

    async fn typing(&self, hub: &Hub, tenant_id: &str, reply_to: &Value) {
        let Some(message) = reply_to["message"].as_str() else {
            return;
        };
        let key = format!("{tenant_id}/{message}");
        if self.typing.contains_key(&key) {
            return;
        }
        self.typing.insert(key, ()).await;
        let Ok(account) = account(hub, tenant_id).await else {
            return;
        };
        if let Err(error) = api::typing(hub, &account, message).await {
            tracing::debug!(%error, "a sender is not shown that they are answered");
        }
    }

    fn send_tool(&self) -> Option<SendTool> {
        Some(SendTool {
            name: "whatsapp_send_message",
            description: "Sends a WhatsApp message. People who have not written within 24 hours get \
                a template instead, where the deployment names one.",
            to: "The phone number, with the country's code: +15550001234.",
        })
    }

    fn destination(&self, to: &str) -> Result<Destination, String> {
        let number = to.trim();
        let number = number.strip_prefix('+').unwrap_or(number);
        let number: String = number.chars().filter(|c| !" -().".contains(*c)).collect();
        if !is_number(&number) {
            return Err("'to' must be a phone number with the country's code".to_owned());
        }
        Ok(Destination {
            reply_to: json!({ "to": number }),
            chat: number,
        })
    }
}

/// What a person sends who wants to be bound.
fn prefilled(token: &str) -> String {
    format!("/start {token}")
}

/// A question with buttons, or with a link where yes and no do not answer it.
fn card_message(card: &Card) -> Value {
    let tool: String = card.tool.chars().take(60).collect();
    let mut text = format!("May I use *{}*?", format::escape(&tool));
    if let Some(question) = &card.question {
        let asked: String = question.message.chars().take(MAX_CARD / 3).collect();
        text = format::escape(&asked);
    } else if !card.arguments.is_empty() {
        text.push('\n');
        text.push_str(&format::block(&card.arguments, MAX_ARGUMENTS));
    }
    let reply = |word: &str, title: &str| {
        json!({ "type": "reply",
        "reply": { "id": format!("{word}:{}", card.approval_id), "title": title } })
    };
    let interactive = match (&card.question, &card.link) {
        (Some(_), Some(link)) => json!({ "type": "cta_url", "body": { "text": text },
            "action": { "name": "cta_url",
                "parameters": { "display_text": "Answer", "url": link } } }),
        (Some(_), None) => json!({ "type": "button", "body": { "text": text },
            "action": { "buttons": [reply("r", "❌ Decline")] } }),
        (None, _) => json!({ "type": "button", "body": { "text": text },
            "action": { "buttons": [reply("a", "✅ Approve"), reply("r", "❌ Reject")] } }),
    };
    json!({ "type": "interactive", "interactive": interactive })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Question;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let to = WhatsApp::default()
            .destination(" +1 (555) 000-12.34 ")
            .expect("a number");
        assert_eq!(
            (to.chat.as_str(), &to.reply_to["to"]),
            ("15550001234", &json!("15550001234"))
        );
        for none in ["", "Ann", "+1", "12345678901234567890", "../1555000"] {
            assert!(WhatsApp::default().destination(none).is_err(), "{none}");
        }
    }

    #[test]
    fn replies_that_fit_are_buttons() {
        let all = |replies: &[&str]| replies.iter().map(|one| (*one).to_owned()).collect();
        let offered = |text: &str, replies: Vec<String>| offered(text, &replies);
        let asked = offered("Red or blue?", all(&["Red", "Blue"])).expect("buttons");
        let buttons = &asked["interactive"]["action"]["buttons"];
        assert_eq!(
            buttons[1],
            json!({ "type": "reply", "reply": { "id": "q:1", "title": "Blue" } })
        );
        for replies in [
            all(&["a", "b", "c", "d"]),
            all(&["a", "a"]),
            all(&["more than twenty letters"]),
            all(&[""]),
            Vec::new(),
        ] {
            assert_eq!(offered("Which?", replies), None);
        }
        assert_eq!(offered(&"x".repeat(1025), all(&["Yes"])), None);
    }

    #[test]
    fn a_link_says_what_binds() {
        let settings = json!({ "display_phone_number": "+1 555-078-3881" });
        assert_eq!(
            WhatsApp::default()
                .deep_link(&settings, "tok-en_1")
                .as_deref(),
            Some("https://wa.me/15550783881?text=%2Fstart%20tok-en_1")
        );
        assert_eq!(WhatsApp::default().deep_link(&json!({}), "t"), None);
    }

    #[test]
    fn cards_are_within_the_limits() {
        let mut card = Card {
            approval_id: "apr_1".to_owned(),
            tool: "*".repeat(200),
            arguments: "*`".repeat(5000),
            question: None,
            link: None,
        };
        let message = card_message(&card);
        let body = message["interactive"]["body"]["text"]
            .as_str()
            .expect("a text");
        assert!(body.encode_utf16().count() <= MAX_CARD);
        let buttons = &message["interactive"]["action"]["buttons"];
        assert_eq!(buttons[0]["reply"]["id"], "a:apr_1");
        assert_eq!(buttons[1]["reply"]["id"], "r:apr_1");
        card.question = Some(Question {
            message: "Which?".to_owned(),
            schema: json!({}),
        });
        let button = &card_message(&card)["interactive"]["action"]["buttons"][0];
        assert_eq!(button["reply"]["id"], "r:apr_1");
        card.link = Some("https://g.example/form/x".to_owned());
        let asked = &card_message(&card)["interactive"];
        assert_eq!(
            asked["action"]["parameters"]["url"],
            "https://g.example/form/x"
        );
    }
}
