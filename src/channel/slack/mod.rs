//! Slack, by its Web API (<https://docs.slack.dev>): events over HTTP, or over a WebSocket (Socket
//! Mode) where there is no public address.

mod api;
mod files;
mod form;
mod format;
mod interact;
mod live;
mod oauth;
mod receive;
mod rest;
mod signature;
mod socket;
mod text;
mod workspace;

pub use receive::decode;
pub use rest::{documented, routes};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::split::messages;
use super::{Card, Channel, Destination, Fault, Hub, Meaning, Outgoing, SendTool, Setup};
use crate::error::ApiError;
use crate::store::{DeploymentRow, InboundRow, OutboundRow};
use format::Mrkdwn;

pub const KIND: &str = "slack";

/// The workspace that an event comes from, or the organization, where the app is installed in all of
/// it.
fn team_of(payload: &Value) -> &str {
    let team = payload["team_id"].as_str().filter(|team| api::is_id(team));
    let enterprise = payload["enterprise_id"]
        .as_str()
        .filter(|id| api::is_id(id));
    let marks = [
        &payload["authorizations"][0]["is_enterprise_install"],
        &payload["is_enterprise_install"],
    ];
    let is_whole = marks
        .into_iter()
        .any(|mark| *mark == true || *mark == "true");
    let found = match is_whole {
        true => enterprise.or(team),
        false => team.or(enterprise),
    };
    found.unwrap_or_default()
}
/// Of a message, in UTF-16 units: Slack recommends no more than 4000 characters
/// (<https://docs.slack.dev/reference/methods/chat.postMessage>).
const MAX_TEXT: usize = 4000;
/// Of a file, in bytes (<https://slack.com/help/articles/201330736>).
const MAX_FILE: usize = 1_000_000_000;
/// Slack lets a message be edited about once in a second.
const SHOWS_EVERY: Duration = Duration::from_millis(1_200);
/// A name is worth waiting so long.
const NAME_PATIENCE: Duration = Duration::from_secs(2);
const NAMES: u64 = 10_000;
const WORKSPACES: u64 = 10_000;
const AN_HOUR: Duration = Duration::from_secs(3600);

/// The secrets of a tenant's app.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Secrets {
    /// Of the workspace that the tenant set itself.
    pub bot_token: Option<String>,
    pub signing_secret: Option<String>,
    pub client_secret: Option<String>,
    /// Of Socket Mode.
    pub app_token: Option<String>,
}

/// The secrets of an installation in one workspace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Install {
    pub bot_token: String,
    /// Of apps whose tokens rotate.
    #[serde(default)]
    pub refresh_token: Option<String>,
}

/// What an installation is kept as: below the app's own account.
fn install_kind(team: &str) -> String {
    format!("{KIND}/{team}")
}

/// Slack, with what a node remembers of it.
pub struct Slack {
    /// What senders are called; `None`: nobody said it.
    names: moka::future::Cache<String, Option<String>>,
    /// Workspaces that have no streams.
    without_streams: moka::sync::Cache<String, ()>,
}

impl Default for Slack {
    fn default() -> Self {
        let names = moka::future::Cache::builder().max_capacity(NAMES);
        let workspaces = moka::sync::Cache::builder().max_capacity(WORKSPACES);
        Self {
            names: names.time_to_live(AN_HOUR).build(),
            without_streams: workspaces.time_to_live(AN_HOUR).build(),
        }
    }
}

#[async_trait]
impl Channel for Slack {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn setup(&self, mode: &str) -> Option<Setup> {
        match mode {
            "oauth_install" => Some(Setup::Install),
            Setup::START_TOKEN => Some(Setup::StartToken),
            _ => None,
        }
    }

    async fn interpret(&self, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
        receive::interpret(self, hub, arrival).await
    }

    fn messages(&self, text: &str) -> Vec<String> {
        messages(text, &Mrkdwn::default(), MAX_TEXT)
    }

    async fn send(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        message: &str,
        key: &str,
    ) -> Result<String, Fault> {
        let mut body = live::message(message);
        body["client_msg_id"] = json!(api::message_id(key));
        interact::post(hub, &to.tenant_id, &to.reply_to, body).await
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
        match files {
            [file] => files::share(hub, to, file).await,
            _ => Err(Fault::Never("Slack is given one file at a time".to_owned())),
        }
    }

    /// Slack knows a message by its `client_msg_id`, but promises nowhere that a second one with the
    /// same is not shown.
    fn is_idempotent(&self) -> bool {
        false
    }

    async fn ask(&self, hub: &Hub, to: &OutboundRow, card: &Card) -> Result<String, Fault> {
        interact::ask(hub, to, card).await
    }

    async fn decided(&self, hub: &Hub, arrival: &InboundRow, text: &str, is_settled: bool) {
        let data: Value = serde_json::from_str(&arrival.data).unwrap_or_default();
        interact::tell(hub, &arrival.tenant_id, &data, text, is_settled).await;
    }

    async fn made(
        &self,
        hub: &Hub,
        deployment: &DeploymentRow,
        start_token: Option<&str>,
    ) -> Result<Map<String, Value>, ApiError> {
        oauth::made(hub, deployment, start_token).await
    }

    async fn typing(&self, hub: &Hub, tenant_id: &str, reply_to: &Value) {
        // Only assistants have a status, and they are in threads of direct messages.
        let channel = reply_to["channel"].as_str().unwrap_or_default();
        if !channel.starts_with('D') || !reply_to["thread_ts"].is_string() {
            return;
        }
        let team = reply_to["team"].as_str().unwrap_or_default();
        let body = json!({ "channel_id": channel, "thread_ts": reply_to["thread_ts"],
            "status": "is thinking…" });
        let told = match workspace::workspace(hub, tenant_id, team).await {
            Ok(workspace) => {
                let method = "assistant.threads.setStatus";
                api::call(hub, &workspace.token, method, &body).await
            }
            Err(fault) => Err(fault),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "a sender is not shown that they are answered");
        }
    }

    fn shows_every(&self) -> Option<Duration> {
        Some(SHOWS_EVERY)
    }

    async fn show(
        &self,
        hub: &Hub,
        tenant_id: &str,
        reply_to: &Value,
        draft: &mut Value,
        text: &str,
    ) -> Result<(), Fault> {
        live::show(self, hub, tenant_id, reply_to, draft, text).await
    }

    async fn settle(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        draft: &Value,
        message: &str,
    ) -> Result<Option<String>, Fault> {
        live::settle(hub, to, draft, message).await
    }

    fn send_tool(&self) -> Option<SendTool> {
        Some(SendTool {
            name: "slack_send_message",
            description: "Sends a message over Slack, to a channel, a thread or a person.",
            to: "A person or a channel as the sender of a message is named (T0123:U0456, \
                 T0123:C0456), a thread in a channel (T0123:C0456:1700000000.000100), or its id \
                 alone (C0456, U0456) in the tenant's own workspace.",
        })
    }

    fn destination(&self, to: &str) -> Result<Destination, String> {
        destination(to)
    }

    async fn poll(&self, hub: Arc<Hub>) {
        socket::poll(hub).await;
    }
}

/// Where `team:channel:thread`, `team:channel` or `channel` is; a person is a channel to Slack.
fn destination(to: &str) -> Result<Destination, String> {
    let to = to.trim();
    let parts: Vec<&str> = to.split(':').collect();
    let (team, channel, thread) = match parts.as_slice() {
        [channel] => ("", *channel, None),
        [team, channel] => (*team, *channel, None),
        [team, channel, thread] => (*team, *channel, Some(*thread)),
        _ => return Err(format!("'{to}' is no place in Slack")),
    };
    let is_place = channel.starts_with(['C', 'D', 'G', 'U', 'W']) && api::is_id(channel);
    let is_team = team.is_empty() || api::is_id(team);
    let is_time = |at: &str| at.len() <= 32 && at.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !is_place || !is_team || !thread.is_none_or(is_time) {
        let why = "give an id such as C0123ABC, or T0123ABC:C0123ABC";
        return Err(format!("'{to}' is no place in Slack: {why}"));
    }
    let mut reply_to = json!({ "team": team, "channel": channel });
    if let Some(thread) = thread {
        reply_to["thread_ts"] = json!(thread);
    }
    Ok(Destination {
        chat: to.to_owned(),
        reply_to,
    })
}

fn slack_api_error(why: &Fault, param: &'static str) -> ApiError {
    ApiError::bad_request("slack_api_error", why.to_string()).param(param)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_ids() {
        let place = destination("T1:C2:17.0001").expect("a place");
        assert_eq!(
            place.reply_to,
            json!({ "team": "T1", "channel": "C2", "thread_ts": "17.0001" })
        );
        assert_eq!(place.chat, "T1:C2:17.0001");
        let place = destination(" U2 ").expect("a place");
        assert_eq!(place.reply_to, json!({ "team": "", "channel": "U2" }));
        for bad in ["", "general", "T1:x y", "T1:C1:now", "a:b:c:d", "T/1:C1"] {
            assert!(destination(bad).is_err(), "{bad}");
        }
    }
}
