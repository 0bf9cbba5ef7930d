//! Where the platforms of channels are.

use serde::{Deserialize, Serialize};

use super::Email;

/// Base URLs of platforms; others than theirs are for emulators and relays.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Channels {
    /// Of Telegram's Bot API.
    pub telegram_url: String,
    /// The largest file that is taken from a message, in bytes.
    pub max_file_bytes: usize,
    /// Mail servers.
    pub email: Email,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            telegram_url: "https://api.telegram.org".to_owned(),
            max_file_bytes: 20 * 1024 * 1024,
            email: Email::default(),
        }
    }
}
