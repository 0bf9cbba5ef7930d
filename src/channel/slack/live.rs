//! An answer while it is written: by Slack's streams
//! (<https://docs.slack.dev/reference/methods/chat.startStream>) where the workspace has them, else by
//! editing a message.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{self, Workspace, is_refused_with};
use super::format::Mrkdwn;
use super::{MAX_TEXT, Slack, workspace};
use crate::channel::split::messages;
use crate::channel::{Fault, Hub};
use crate::connection::challenge;
use crate::store::OutboundRow;

/// What is noted of what is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Draft {
    channel: String,
    /// Empty: nothing is shown.
    ts: String,
    is_stream: bool,
    /// Of a stream: how many bytes of the words are there, and what they were.
    shown: usize,
    digest: String,
}

/// Errors of a workspace, an app or a place that has no streams.
fn has_no_streams(fault: &Fault) -> bool {
    matches!(fault, Fault::Never(_))
}

/// Errors of a message that is not there any more.
const GONE: [&str; 3] = ["message_not_found", "channel_not_found", "thread_not_found"];

/// What of an answer its first message shows.
fn first_message(text: &str) -> Option<String> {
    messages(text, &Mrkdwn::default(), MAX_TEXT)
        .into_iter()
        .next()
}

pub async fn show(
    slack: &Slack,
    hub: &Hub,
    tenant_id: &str,
    reply_to: &Value,
    draft: &mut Value,
    text: &str,
) -> Result<(), Fault> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let team = reply_to["team"].as_str().unwrap_or_default();
    let workspace = workspace::workspace(hub, tenant_id, team).await?;
    let mut known: Draft = serde_json::from_value(draft.clone()).unwrap_or_default();
    let shown = match (known.ts.is_empty(), known.is_stream) {
        (true, _) => {
            begin(
                slack,
                hub,
                (tenant_id, &workspace),
                reply_to,
                &mut known,
                text,
            )
            .await
        }
        (false, true) => go_on(hub, &workspace, &mut known, text).await,
        (false, false) => edit(hub, &workspace, &known, text).await,
    };
    *draft = json!(known);
    shown
}

async fn begin(
    slack: &Slack,
    hub: &Hub,
    (tenant_id, workspace): (&str, &Workspace),
    reply_to: &Value,
    known: &mut Draft,
    text: &str,
) -> Result<(), Fault> {
    let team = reply_to["team"].as_str().unwrap_or_default();
    let key = format!("{tenant_id}/{team}");
    // Streams are replies.
    if reply_to["thread_ts"].is_string() && !slack.without_streams.contains_key(&key) {
        let body = json!({ "channel": reply_to["channel"], "thread_ts": reply_to["thread_ts"],
            "recipient_team_id": team, "recipient_user_id": reply_to["user"],
            "markdown_text": text });
        let fits = messages(text, &Mrkdwn::default(), MAX_TEXT).len() <= 1;
        let begun = match fits {
            true => api::call(hub, &workspace.token, "chat.startStream", &body).await,
            false => Ok(Value::Null),
        };
        match begun {
            Ok(begun) => {
                if let Some(ts) = begun["ts"].as_str() {
                    known.ts = ts.to_owned();
                    known.channel = channel_of(&begun, reply_to);
                    known.is_stream = true;
                    (known.shown, known.digest) = (text.len(), challenge(text));
                    return Ok(());
                }
            }
            Err(fault) if has_no_streams(&fault) => {
                tracing::debug!(%fault, "a workspace has no streams");
                slack.without_streams.insert(key, ());
            }
            Err(fault) => return Err(fault),
        }
    }
    let Some(first) = first_message(text) else {
        return Ok(());
    };
    let mut body = message(&first);
    body["channel"] = reply_to["channel"].clone();
    if reply_to["thread_ts"].is_string() {
        body["thread_ts"] = reply_to["thread_ts"].clone();
    }
    let sent = api::call(hub, &workspace.token, "chat.postMessage", &body).await?;
    known.ts = sent["ts"].as_str().unwrap_or_default().to_owned();
    known.channel = channel_of(&sent, reply_to);
    known.is_stream = false;
    Ok(())
}

/// As Slack names it: a person's id becomes that of the conversation with them.
fn channel_of(answer: &Value, reply_to: &Value) -> String {
    let channel = answer["channel"].as_str().or(reply_to["channel"].as_str());
    channel.unwrap_or_default().to_owned()
}

/// A message's text, without the previews of links that would push it away.
pub fn message(text: &str) -> Value {
    json!({ "text": text, "mrkdwn": true, "unfurl_links": false, "unfurl_media": false })
}

/// Adds to a stream what is new. Words that changed are put right when the answer is whole.
async fn go_on(
    hub: &Hub,
    workspace: &Workspace,
    known: &mut Draft,
    text: &str,
) -> Result<(), Fault> {
    let Some((before, more)) = text.split_at_checked(known.shown) else {
        return Ok(());
    };
    let fits = messages(text, &Mrkdwn::default(), MAX_TEXT).len() <= 1;
    if more.is_empty() || challenge(before) != known.digest || !fits {
        return Ok(());
    }
    let body = json!({ "channel": known.channel, "ts": known.ts, "markdown_text": more });
    api::call(hub, &workspace.token, "chat.appendStream", &body).await?;
    (known.shown, known.digest) = (text.len(), challenge(text));
    Ok(())
}

async fn edit(hub: &Hub, workspace: &Workspace, known: &Draft, text: &str) -> Result<(), Fault> {
    let Some(first) = first_message(text) else {
        return Ok(());
    };
    let body = json!({ "channel": known.channel, "ts": known.ts, "text": first });
    api::call(hub, &workspace.token, "chat.update", &body).await?;
    Ok(())
}

/// Makes what is shown the first message of the answer.
pub async fn settle(
    hub: &Hub,
    to: &OutboundRow,
    draft: &Value,
    message: &str,
) -> Result<Option<String>, Fault> {
    let known: Draft = serde_json::from_value(draft.clone()).unwrap_or_default();
    if known.ts.is_empty() {
        return Ok(None);
    }
    let reply_to: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
    let team = reply_to["team"].as_str().unwrap_or_default();
    let workspace = workspace::workspace(hub, &to.tenant_id, team).await?;
    let place = json!({ "channel": known.channel, "ts": known.ts });
    if known.is_stream {
        // All of these can be asked for again: what they do is the same.
        let stopped = api::call(hub, &workspace.token, "chat.stopStream", &place).await;
        match api::asked(stopped) {
            Ok(_) => {}
            Err(fault) if is_refused_with(&fault, &GONE) => return Ok(None),
            // It has stopped already.
            Err(Fault::Never(why)) => tracing::debug!(why, "a stream is not stopped"),
            Err(fault) => return Err(fault),
        }
    }
    let mut body = place.clone();
    body["text"] = json!(message);
    body["blocks"] = json!([]);
    let updated = api::call(hub, &workspace.token, "chat.update", &body).await;
    match api::asked(updated) {
        Ok(_) => Ok(Some(known.ts)),
        Err(fault) if is_refused_with(&fault, &GONE) => Ok(None),
        Err(Fault::Never(why)) => {
            // It cannot become the answer, so it goes, and the answer is sent as any other.
            tracing::info!(why, "what was shown of an answer is not replaced");
            let deleted = api::call(hub, &workspace.token, "chat.delete", &place).await;
            match api::asked(deleted) {
                Err(later @ Fault::Later { .. }) => Err(later),
                _ => Ok(None),
            }
        }
        Err(fault) => Err(fault),
    }
}
