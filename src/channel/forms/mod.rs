//! Pages on which a person decides: what a smith may do, what it asks, whether it may use an account
//! of theirs. For platforms without buttons or forms, and for e-mail.
//!
//! A link is all that it takes: what it is about and who was asked is sealed into it, for a week at
//! most. Opening it decides nothing, as mail scanners and previews open links, too; what is decided is
//! posted, and the second one who does is told what the first one said.
//!
//! Lives here: the links, `pages` (what is shown), `fields` (a question's schema as a form, and its
//! answer as JSON), `rest`.

mod fields;
mod pages;
mod rest;

pub use fields::of_question;
pub use rest::{documented, routes};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Hub;
use crate::error::ApiError;
use crate::store::now_micros;

const SECOND: i64 = 1_000_000;
/// How long a link is good for.
const LASTS_S: i64 = 7 * 24 * 3600;
const MAX_TOKEN: usize = 4096;

/// What a link to a decision says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    #[serde(rename = "t")]
    tenant_id: String,
    #[serde(rename = "a")]
    approval_id: String,
    /// Where, and whom: they become the actor.
    #[serde(rename = "c")]
    channel: String,
    #[serde(rename = "s")]
    sender_id: String,
    #[serde(rename = "e")]
    expires: i64,
}

/// What a link to a connection says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    #[serde(rename = "t")]
    tenant_id: String,
    #[serde(rename = "s")]
    smith_id: String,
    #[serde(rename = "p")]
    provider: String,
    #[serde(rename = "e")]
    expires: i64,
}

trait Sealed: Serialize + DeserializeOwned {
    /// What it is sealed for, so that neither is taken for the other.
    const OWNER: &'static str;

    fn expires(&self) -> i64;

    fn seal(&self, hub: &Hub) -> Result<String, ApiError> {
        let text = serde_json::to_vec(self).map_err(ApiError::internal)?;
        let sealed = hub.vault.seal(Self::OWNER, &text);
        Ok(URL_SAFE_NO_PAD.encode(sealed.map_err(ApiError::internal)?))
    }

    /// What a token says; `None`: it is none of ours, or too old.
    fn open(hub: &Hub, token: &str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).ok()?;
        let opened = hub.vault.open(Self::OWNER, &sealed).ok()?;
        let said: Self = serde_json::from_slice(&opened).ok()?;
        (said.expires() > now_micros()).then_some(said)
    }
}

impl Sealed for Asked {
    const OWNER: &'static str = "form/decision";

    fn expires(&self) -> i64 {
        self.expires
    }
}

impl Sealed for Wanted {
    const OWNER: &'static str = "form/connection";

    fn expires(&self) -> i64 {
        self.expires
    }
}

/// The address of a page on which `sender_id` of `channel` decides an approval. Whoever has it may
/// decide, once.
pub fn decision_link(
    hub: &Hub,
    tenant_id: &str,
    approval_id: &str,
    channel: &str,
    sender_id: &str,
) -> Result<String, ApiError> {
    let asked = Asked {
        tenant_id: tenant_id.to_owned(),
        approval_id: approval_id.to_owned(),
        channel: channel.to_owned(),
        sender_id: sender_id.to_owned(),
        expires: now_micros() + LASTS_S * SECOND,
    };
    let token = asked.seal(hub)?;
    Ok(format!("{}/v1/ui/decisions/{token}", hub.public_url))
}

/// The address of a page on which a person lets a smith use their account at a provider, which must be
/// one of the tenant's OAuth clients (`/v1/tenant/providers`).
pub fn connection_link(
    hub: &Hub,
    tenant_id: &str,
    smith_id: &str,
    provider: &str,
) -> Result<String, ApiError> {
    let wanted = Wanted {
        tenant_id: tenant_id.to_owned(),
        smith_id: smith_id.to_owned(),
        provider: provider.to_owned(),
        expires: now_micros() + LASTS_S * SECOND,
    };
    let token = wanted.seal(hub)?;
    Ok(format!("{}/v1/ui/connections/{token}", hub.public_url))
}
