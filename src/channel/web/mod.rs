//! A web page: a chat that a deployment serves itself (`kind: "web"`), at an address that anybody may
//! open.
//!
//! A visitor is who has the cookie of one deployment: sealed by this gateway, it names the visitor and
//! their conversation, and opens nothing else. What a visitor says arrives as on any channel: it is
//! kept first, becomes a turn in the lane of their conversation, and the page follows the turn's run.
//!
//! Lives here: what a deployment says of its page (`settings`), who visits (`visitor`, `password`,
//! `buckets`), the page (`page`, `assets`), what its script calls (`rest`, `files`, `history`), what
//! programs call (`hosted`). The
//! stream of an answer is `wire::ui`'s, which knows the frames.

mod assets;
mod buckets;
mod colour;
mod files;
mod follow;
mod history;
mod hosted;
mod pace;
mod page;
mod password;
mod rest;
mod settings;
mod visitor;

pub use follow::{Awaited, awaited, until_gone};
pub use hosted::{HostedIn, hosted};
pub use rest::{decode, documented, routes};
pub use settings::Settings;

pub(super) use assets::{answered_html, style_url};

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Card, Channel, Fault, Hub, Meaning, Said};
use crate::error::ApiError;
use crate::store::{InboundRow, OutboundRow};

pub const KIND: &str = "web";

/// The web page.
pub struct WebPage;

#[async_trait]
impl Channel for WebPage {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn interpret(&self, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
        rest::interpret(hub, arrival).await
    }

    fn messages(&self, text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    /// The page reads its conversation itself: what is in the thread has come there.
    async fn send(
        &self,
        _hub: &Hub,
        _to: &OutboundRow,
        _message: &str,
        key: &str,
    ) -> Result<String, Fault> {
        Ok(key.to_owned())
    }

    fn is_idempotent(&self) -> bool {
        true
    }

    /// The page shows what waits.
    async fn ask(&self, _hub: &Hub, _to: &OutboundRow, card: &Card) -> Result<String, Fault> {
        Ok(card.approval_id.clone())
    }

    async fn decided(&self, _hub: &Hub, _arrival: &InboundRow, _text: &str, _is_settled: bool) {}

    fn needs_account(&self) -> bool {
        false
    }

    fn deployment_of<'a>(&self, said: &'a Said) -> Option<&'a str> {
        said.chat.split('/').next()
    }

    fn check_settings(&self, settings: &Value) -> Result<(), ApiError> {
        Settings::read(settings).map(drop)
    }

    async fn kept_secrets(&self, secrets: &Value) -> Result<Map<String, Value>, ApiError> {
        password::kept(secrets).await
    }

    fn page_url(&self, hub: &Hub, deployment_id: &str) -> Option<String> {
        Some(format!("{}/hosted/{deployment_id}", hub.public_url))
    }
}
