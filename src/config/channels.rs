//! Where the platforms of channels are.

use serde::{Deserialize, Serialize};

use super::Email;

/// Base URLs of platforms; others than theirs are for emulators and relays.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Channels {
    /// Of Telegram's Bot API.
    pub telegram_url: String,
    /// Of Meta's Graph API with its version, which WhatsApp is a part of.
    pub whatsapp_url: String,
    /// The secret of the Meta app that delivers for all tenants that name none of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whatsapp_app_secret: Option<String>,
    /// What Meta shows when it asks whether that app may deliver here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whatsapp_verify_token: Option<String>,
    /// Of Discord's API with its version.
    pub discord_url: String,
    /// Of Slack: its Web API is below `/api`, installations begin below `/oauth`.
    pub slack_url: String,
    /// The largest file that is taken from a message, or sent with an answer, in bytes.
    pub max_file_bytes: usize,
    /// Mail servers.
    pub email: Email,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            telegram_url: "https://api.telegram.org".to_owned(),
            whatsapp_url: "https://graph.facebook.com/v26.0".to_owned(),
            whatsapp_app_secret: None,
            whatsapp_verify_token: None,
            discord_url: "https://discord.com/api/v10".to_owned(),
            slack_url: "https://slack.com".to_owned(),
            max_file_bytes: 20 * 1024 * 1024,
            email: Email::default(),
        }
    }
}
