//! Where an answer goes: to the interaction that asked, as long as its token is valid, then to the
//! channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};

use super::api::Message;
use super::{Interaction, Secrets, api};
use crate::channel::{Account, Fault, Hub};
use crate::error::ApiError;
use crate::store::now_micros;

/// A token is valid for so long
/// (<https://docs.discord.com/developers/interactions/receiving-and-responding#followup-messages>); what
/// a call takes is kept off, in microseconds.
const VALID_FOR: i64 = (15 * 60 - 20) * 1_000_000;
/// The first moment of Discord's ids, in milliseconds.
const EPOCH_MS: i64 = 1_420_070_400_000;
const MAX_TOKEN: usize = 1024;

/// An id of Discord's, which becomes a part of paths.
pub fn is_id(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn owner(tenant_id: &str) -> String {
    format!("interaction/{tenant_id}")
}

/// A token as it is kept: whoever has it may answer.
pub fn seal(hub: &Hub, tenant_id: &str, token: &str) -> Result<String, ApiError> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(is_token) {
        return Err(ApiError::invalid("token", "is no token of an interaction"));
    }
    let sealed = hub.vault.seal(&owner(tenant_id), token.as_bytes());
    Ok(STANDARD_NO_PAD.encode(sealed.map_err(ApiError::internal)?))
}

/// When the token of an interaction ends, by when its id was made.
pub fn valid_until(id: &str) -> i64 {
    let made = id
        .parse::<u64>()
        .map_or(0, |id| (id >> 22) as i64 + EPOCH_MS);
    made.saturating_mul(1000).saturating_add(VALID_FOR)
}

/// The interaction that `reply_to` is of, while its token is valid.
pub fn interaction(hub: &Hub, tenant_id: &str, reply_to: &Value) -> Option<Interaction> {
    let until = reply_to["until"].as_i64()?;
    if until <= now_micros() {
        return None;
    }
    let sealed = STANDARD_NO_PAD.decode(reply_to["token"].as_str()?).ok()?;
    let opened = hub.vault.open(&owner(tenant_id), &sealed).ok()?;
    let token = String::from_utf8(opened.to_vec()).ok()?;
    Some(Interaction { token })
}

/// Which message is sent.
#[derive(Debug, Clone, Copy)]
pub struct Which {
    /// Nothing was sent before it that was the answer.
    pub is_first: bool,
    /// It was tried before, and may be there.
    pub is_again: bool,
}

impl Which {
    /// The first, for the first time.
    pub const FIRST: Self = Self {
        is_first: true,
        is_again: false,
    };
}

/// A place and who knows it.
pub struct Place<'a> {
    pub hub: &'a Hub,
    pub account: &'a Account<Secrets>,
    pub tenant_id: &'a str,
    pub reply_to: &'a Value,
}

impl Place<'_> {
    fn application(&self) -> &str {
        self.account.settings["application_id"]
            .as_str()
            .unwrap_or_default()
    }

    /// Whether an interaction is answered here.
    pub fn has_interaction(&self) -> bool {
        interaction(self.hub, self.tenant_id, self.reply_to).is_some()
    }

    async fn channel(&self) -> Result<String, Fault> {
        if let Some(user) = self.reply_to["user_id"].as_str().filter(|id| is_id(id)) {
            let secrets = &self.account.secrets;
            return Ok(api::direct(self.hub, secrets, user).await?);
        }
        let channel = self.reply_to["channel_id"].as_str().filter(|id| is_id(id));
        let channel = channel.ok_or_else(|| Fault::Never("there is no channel".to_owned()))?;
        Ok(channel.to_owned())
    }

    /// Sends a message: as the answer that is awaited, else after it, else to the channel. Answers its
    /// id.
    pub async fn send(
        &self,
        message: Message<'_>,
        which: Which,
        nonce: Option<&str>,
    ) -> Result<String, Fault> {
        let found = interaction(self.hub, self.tenant_id, self.reply_to);
        if let Some(interaction) = found {
            match self.answer(&interaction, message, which).await {
                Err(refused) if refused.is_gone => {}
                sent => return Ok(sent?),
            }
        }
        let channel = self.channel().await?;
        let secrets = &self.account.secrets;
        let mut body = message.body.clone();
        if let Some(message) = self.reply_to["message"].as_str().filter(|_| which.is_first) {
            body["message_reference"] =
                json!({ "message_id": message, "fail_if_not_exists": false });
        }
        let message = Message {
            body: &body,
            files: message.files,
        };
        Ok(api::send_to(self.hub, secrets, &channel, nonce, message).await?)
    }

    async fn answer(
        &self,
        interaction: &Interaction,
        message: Message<'_>,
        which: Which,
    ) -> Result<String, api::Refused> {
        let application = self.application();
        if which.is_first {
            match api::original(self.hub, application, interaction).await {
                Ok(original) if original.is_awaited() => {
                    let name = "@original";
                    return api::edit(self.hub, application, interaction, name, message).await;
                }
                Ok(original) => {
                    // It came there, and that was not heard.
                    let there = original.saying(message.body).filter(|_| which.is_again);
                    if let Some(id) = there {
                        return Ok(id.to_owned());
                    }
                }
                // The answer was deleted; a message may follow it all the same.
                Err(refused) if refused.is_gone => {}
                Err(refused) => return Err(refused),
            }
        }
        api::follow(self.hub, application, interaction, message).await
    }

    /// Changes a message; `None`: it is there no more.
    pub async fn edit(&self, message: &str, body: &Value) -> Result<Option<String>, Fault> {
        let application = self.application();
        let found = interaction(self.hub, self.tenant_id, self.reply_to);
        if let Some(interaction) = found {
            match api::edit(self.hub, application, &interaction, message, body.into()).await {
                Err(refused) if refused.is_gone => {}
                changed => return Ok(Some(changed?)),
            }
        }
        if !is_id(message) {
            return Ok(None);
        }
        let channel = self.channel().await?;
        let secrets = &self.account.secrets;
        match api::edit_in(self.hub, secrets, &channel, message, body).await {
            Err(refused) if refused.is_gone => Ok(None),
            changed => Ok(Some(changed?)),
        }
    }

    /// Answers the interaction itself, for nobody else to see where that is possible. What fails here
    /// costs nothing.
    pub async fn tell(&self, text: &str) {
        let body = super::content(text);
        let sent = match interaction(self.hub, self.tenant_id, self.reply_to) {
            Some(interaction) => {
                self.answer(&interaction, (&body).into(), Which::FIRST)
                    .await
            }
            None => return,
        };
        if let Err(refused) = sent {
            tracing::info!(error = %refused.fault, "an interaction is not answered");
        }
    }

    /// Ends the waiting for an answer that may never come. What fails here costs nothing.
    pub async fn end_waiting(&self, text: &str) {
        let Some(interaction) = interaction(self.hub, self.tenant_id, self.reply_to) else {
            return;
        };
        let application = self.application();
        let body = super::content(text);
        let told = match api::original(self.hub, application, &interaction).await {
            Ok(original) if original.is_awaited() => {
                let body = (&body).into();
                let told = api::edit(self.hub, application, &interaction, "@original", body);
                told.await.map(drop)
            }
            original => original.map(drop),
        };
        if let Err(refused) = told {
            tracing::info!(error = %refused.fault, "an interaction is not answered");
        }
    }

    /// Says something to whoever pressed alone.
    pub async fn whisper(&self, text: &str) -> Result<(), Fault> {
        const EPHEMERAL: u64 = 1 << 6;
        let Some(interaction) = interaction(self.hub, self.tenant_id, self.reply_to) else {
            return Ok(());
        };
        let mut body = super::content(text);
        body["flags"] = json!(EPHEMERAL);
        api::follow(self.hub, self.application(), &interaction, (&body).into()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_a_quarter_of_an_hour_after_its_id() {
        // Of Discord's documentation: made at 2016-04-30T11:18:25.796Z.
        let made = 1_462_015_105_796_000;
        assert_eq!(valid_until("175928847299117063"), made + VALID_FOR);
        assert!(valid_until("x") < now_micros() && valid_until("").is_positive());
        assert!(is_id("175928847299117063"));
        for none in ["", "@original", "1/2", "123456789012345678901"] {
            assert!(!is_id(none), "{none}");
        }
    }
}
