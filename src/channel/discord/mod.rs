//! Discord, by interactions (<https://docs.discord.com/developers/interactions/overview>) and, where that
//! is not switched off, by messages over its Gateway.

mod api;
mod commands;
mod format;
mod gateway;
mod message;
mod place;
mod receive;
mod rest;
mod verify;

pub use receive::decode;
pub use rest::{documented, routes};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::report::piece_of;
use super::{Account, Card, Channel, Destination, Fault, Hub, Meaning, Outgoing, SendTool};
use crate::error::ApiError;
use crate::store::{DeploymentRow, InboundRow, OutboundRow};
use place::{Place, Which, is_id};

/// An interaction that is being answered.
#[derive(Debug, Clone)]
pub struct Interaction {
    pub token: String,
}

pub const KIND: &str = "discord";
/// Of a file, in bytes: what may be sent where nobody has paid for more
/// (<https://docs.discord.com/developers/reference#uploading-files>).
const MAX_FILE: usize = 10 * 1024 * 1024;
/// Of the arguments on a card.
const MAX_ARGUMENTS: usize = 1200;
/// Five changes in two seconds are allowed; others edit, too.
const SHOWN_EVERY: Duration = Duration::from_secs(2);
/// After so many tries a nonce is remembered no more.
const TRIES_OF_A_NONCE: i64 = 4;
/// What a bot must be allowed to do where it answers: to see channels, to write in them and in threads,
/// and to attach files (<https://docs.discord.com/developers/topics/permissions>).
const PERMISSIONS: u64 = (1 << 10) | (1 << 11) | (1 << 15) | (1 << 38);

/// The secrets of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secrets {
    pub bot_token: String,
}

/// Discord.
pub struct Discord;

/// A tenant's account, or why there is none.
async fn account(hub: &Hub, tenant_id: &str) -> Result<Account<Secrets>, Fault> {
    let found = hub.account_lately(tenant_id, KIND).await?;
    found.ok_or_else(|| Fault::Never("discord_unconfigured: the tenant has no bot".to_owned()))
}

/// A message that mentions nobody and shows no previews.
fn content(text: &str) -> Value {
    const SUPPRESS_EMBEDS: u64 = 1 << 2;
    json!({ "content": text, "allowed_mentions": { "parse": [] }, "flags": SUPPRESS_EMBEDS })
}

/// At most 25 letters that are the same for the same key.
fn nonce(key: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..18])
}

#[async_trait]
impl Channel for Discord {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn interpret(&self, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
        receive::interpret(hub, arrival).await
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
        deliver(hub, to, (&content(message)).into(), key).await
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
        key: &str,
    ) -> Result<String, Fault> {
        let body = json!({ "allowed_mentions": { "parse": [] } });
        let message = api::Message { body: &body, files };
        deliver(hub, to, message, key).await
    }

    async fn ask(&self, hub: &Hub, to: &OutboundRow, card: &Card) -> Result<String, Fault> {
        // As `send` would be given it.
        let key = format!("{}-0", to.id);
        deliver(hub, to, (&card_message(card)).into(), &key).await
    }

    async fn decided(&self, hub: &Hub, arrival: &InboundRow, text: &str, is_settled: bool) {
        let Ok(account) = account(hub, &arrival.tenant_id).await else {
            return;
        };
        let data: Value = serde_json::from_str(&arrival.data).unwrap_or_default();
        let Some(reply_to) = receive::reply_to(&data) else {
            return;
        };
        let place = Place {
            hub,
            account: &account,
            tenant_id: &arrival.tenant_id,
            reply_to: &reply_to,
        };
        let text = format::escape(text);
        let told = match is_settled {
            true => {
                let mut card = content(&text);
                card["components"] = json!([]);
                place.edit("@original", &card).await.map(drop)
            }
            false => place.whisper(&text).await,
        };
        if let Err(error) = told {
            tracing::info!(%error, "a press is not answered");
        }
    }

    async fn made(
        &self,
        hub: &Hub,
        deployment: &DeploymentRow,
        start_token: Option<&str>,
    ) -> Result<Map<String, Value>, ApiError> {
        let mut shown = Map::new();
        if let Some(token) = start_token {
            let message = format!("/start token:{token}");
            shown.insert("prefilled_message".to_owned(), json!(message));
        }
        let account = hub.account::<Secrets>(&deployment.tenant_id, KIND).await?;
        if let Some(id) = account
            .as_ref()
            .and_then(|a| a.settings["application_id"].as_str())
        {
            let url = format!(
                "https://discord.com/oauth2/authorize?client_id={id}\
                 &scope=bot+applications.commands&permissions={PERMISSIONS}"
            );
            shown.insert("install_url".to_owned(), json!(url));
        }
        Ok(shown)
    }

    async fn typing(&self, hub: &Hub, tenant_id: &str, reply_to: &Value) {
        // Who gave a command is shown it by Discord.
        if reply_to["token"].is_string() {
            return;
        }
        let channel = reply_to["channel_id"].as_str().filter(|id| is_id(id));
        let (Some(channel), Ok(account)) = (channel, account(hub, tenant_id).await) else {
            return;
        };
        let path = format!("/channels/{channel}/typing");
        let who = api::As::Bot(&account.secrets);
        let told = api::call(hub, who, Method::POST, &path, "typing", None).await;
        if let Err(refused) = told {
            tracing::debug!(error = %refused.fault, "a sender is not shown that they are answered");
        }
    }

    async fn poll(&self, hub: Arc<Hub>) {
        gateway::listen_to_all(hub).await;
    }

    fn shows_every(&self) -> Option<Duration> {
        Some(SHOWN_EVERY)
    }

    async fn show(
        &self,
        hub: &Hub,
        tenant_id: &str,
        reply_to: &Value,
        draft: &mut Value,
        text: &str,
    ) -> Result<(), Fault> {
        const MORE: &str = " …";
        let account = account(hub, tenant_id).await?;
        let place = Place {
            hub,
            account: &account,
            tenant_id,
            reply_to,
        };
        let pieces = format::messages(text);
        let Some(first) = pieces.first() else {
            return Ok(());
        };
        let mut shown = first.clone();
        if shown.encode_utf16().count() + MORE.len() <= format::MAX_TEXT {
            shown.push_str(MORE);
        }
        // What was written before is all that has room.
        let digest = nonce(&shown);
        if draft["shown"] == json!(digest) {
            return Ok(());
        }
        let body = content(&shown);
        let sent = match draft["message"].as_str() {
            Some(message) => place.edit(message, &body).await,
            None => {
                // Of what it answers, so that it is shown once.
                let nonce = nonce(&reply_to.to_string());
                place
                    .send((&body).into(), Which::FIRST, Some(&nonce))
                    .await
                    .map(Some)
            }
        };
        match sent {
            Ok(Some(message)) => {
                *draft = json!({ "message": message, "shown": digest });
                Ok(())
            }
            Ok(None) => Err(Fault::Never("what was shown was deleted".to_owned())),
            Err(fault) => {
                // That there is nothing to wait for, or what is there if it came through: of an
                // interaction that is its answer, which may be changed either way.
                if draft.is_null() {
                    let may_be = !matches!(fault, Fault::Never(_));
                    *draft = match place.has_interaction() {
                        true => json!({ "message": may_be.then_some("@original") }),
                        false => json!({ "message": null, "may_be": may_be }),
                    };
                }
                Err(fault)
            }
        }
    }

    async fn settle(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        draft: &Value,
        message: &str,
    ) -> Result<Option<String>, Fault> {
        if !draft["message"].is_string() && draft["may_be"] != json!(true) {
            return Ok(None);
        }
        let account = account(hub, &to.tenant_id).await?;
        let reply_to: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
        let place = Place {
            hub,
            account: &account,
            tenant_id: &to.tenant_id,
            reply_to: &reply_to,
        };
        let body = content(message);
        if let Some(shown) = draft["message"].as_str() {
            return place.edit(shown, &body).await;
        }
        // Under its nonce it is the one that may be there, with what was written then.
        let nonce = nonce(&reply_to.to_string());
        let sent = place
            .send((&body).into(), Which::FIRST, Some(&nonce))
            .await?;
        place.edit(&sent, &body).await
    }

    fn send_tool(&self) -> Option<SendTool> {
        Some(SendTool {
            name: "discord_send_message",
            description: "Send a message over Discord",
            to: "A channel's or thread's id, or user: and a user's id",
        })
    }

    fn addressed(&self, identity: &str) -> Option<String> {
        if let Some(user) = identity.strip_prefix("sender:") {
            return Some(format!("user:{user}"));
        }
        Some(
            identity
                .strip_prefix("chat:")
                .unwrap_or(identity)
                .to_owned(),
        )
    }

    fn destination(&self, to: &str) -> Result<Destination, String> {
        let to = to.trim();
        let reply_to = match to.strip_prefix("user:") {
            Some(user) if is_id(user) => json!({ "user_id": user }),
            None if is_id(to) => json!({ "channel_id": to }),
            _ => {
                return Err(format!(
                    "'{to}' is no channel: its id, or user: and a user's id"
                ));
            }
        };
        Ok(Destination {
            chat: to.to_owned(),
            reply_to,
        })
    }
}

/// Sends a message of the outbox.
async fn deliver(
    hub: &Hub,
    to: &OutboundRow,
    message: api::Message<'_>,
    key: &str,
) -> Result<String, Fault> {
    let account = account(hub, &to.tenant_id).await?;
    let reply_to: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
    let place = Place {
        hub,
        account: &account,
        tenant_id: &to.tenant_id,
        reply_to: &reply_to,
    };
    let which = Which {
        is_first: piece_of(key).is_none_or(|(_, at)| at == 0),
        is_again: to.attempts > 0,
    };
    let nonce = nonce(key);
    let nonce = Some(nonce.as_str()).filter(|_| to.attempts < TRIES_OF_A_NONCE);
    place.send(message, which, nonce).await
}

/// A question with buttons
/// (<https://docs.discord.com/developers/components/reference#button>).
fn card_message(card: &Card) -> Value {
    const SUCCESS: u64 = 3;
    const DANGER: u64 = 4;
    const LINK: u64 = 5;
    let press = |word: &str, label: &str, style: u64| {
        json!({ "type": 2, "style": style, "label": label,
            "custom_id": format!("{word}:{}", card.approval_id) })
    };
    let (text, buttons) = match &card.question {
        Some(question) => {
            let asked: String = question.message.chars().take(MAX_ARGUMENTS / 2).collect();
            let mut buttons = Vec::new();
            if let Some(link) = &card.link {
                buttons.push(json!({ "type": 2, "style": LINK, "label": "Answer", "url": link }));
            }
            buttons.push(press("r", "Decline", DANGER));
            (format::escape(&asked), buttons)
        }
        None => {
            let tool: String = card.tool.chars().take(200).collect();
            let mut text = format!("May I use **{}**?", format::escape(&tool));
            if !card.arguments.is_empty() {
                text.push('\n');
                text.push_str(&format::block("json", &card.arguments, MAX_ARGUMENTS));
            }
            let buttons = vec![press("a", "Approve", SUCCESS), press("r", "Reject", DANGER)];
            (text, buttons)
        }
    };
    let mut message = content(&text);
    message["components"] = json!([{ "type": 1, "components": buttons }]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Question;

    #[test]
    fn nonces_are_short_and_of_their_key() {
        assert!(nonce("out_1-0").len() <= 25);
        assert_eq!(nonce("out_1-0"), nonce("out_1-0"));
        assert_ne!(nonce("out_1-0"), nonce("out_1-1"));
    }

    #[test]
    fn cards_are_within_the_limits() {
        let mut card = Card {
            approval_id: "apr_1".to_owned(),
            tool: "_".repeat(2000),
            arguments: "```".repeat(5000),
            question: None,
            link: None,
        };
        let message = card_message(&card);
        let text = message["content"].as_str().expect("a text");
        assert!(
            text.encode_utf16().count() <= format::MAX_TEXT,
            "{}",
            text.len()
        );
        let buttons = &message["components"][0]["components"];
        assert_eq!(
            (&buttons[0]["custom_id"], &buttons[1]["custom_id"]),
            (&json!("a:apr_1"), &json!("r:apr_1"))
        );
        card.question = Some(Question {
            message: "_".repeat(5000),
            schema: json!({}),
        });
        card.link = Some("https://g.example/form/x".to_owned());
        let message = card_message(&card);
        let text = message["content"].as_str().expect("a text");
        assert!(text.encode_utf16().count() <= format::MAX_TEXT);
        assert_eq!(
            message["components"][0]["components"][0]["url"],
            "https://g.example/form/x"
        );
    }

    #[test]
    fn destinations_are_channels_and_users() {
        let channel = Discord
            .destination("175928847299117063")
            .expect("a channel");
        assert_eq!(
            channel.reply_to,
            json!({ "channel_id": "175928847299117063" })
        );
        let user = Discord
            .destination("user:80351110224678912")
            .expect("a user");
        assert_eq!(user.reply_to, json!({ "user_id": "80351110224678912" }));
        // Whoever is bound is written to alone, or where the conversation is.
        let named = |identity: &str| Discord.addressed(identity);
        assert_eq!(named("sender:80351").as_deref(), Some("user:80351"));
        assert_eq!(named("chat:17592").as_deref(), Some("17592"));
        for none in ["", "general", "user:", "user:a", "1/../2"] {
            assert!(Discord.destination(none).is_err(), "{none}");
        }
    }
}
