//! Buttons, forms and slash commands
//! (<https://docs.slack.dev/interactivity/handling-user-interaction>,
//! <https://docs.slack.dev/interactivity/implementing-slash-commands>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::api::{self, is_id};
use super::form;
use super::format::{escape, escape_within};
use super::{team_of, workspace};
use crate::channel::{
    Arrival, Card, Command, Decision, Fault, Hub, Meaning, Question, Said, Sender,
};
use crate::store::{ApprovalStatus, InboundRow, OutboundRow};

/// What arrives of a slash command.
pub const COMMAND: &str = "slash_command";
const APPROVE: &str = "smith_approve";
const REJECT: &str = "smith_reject";
const ANSWER: &str = "smith_answer";
/// Longest name of a delivery.
const MAX_KEY: usize = 200;
/// Of a section's text, with room for the words around it.
const MAX_SECTION: usize = 2700;

/// Whoever interprets an arrival later answers by what came with it; until then that is sealed.
pub struct Sealer<'a> {
    pub hub: &'a Hub,
    pub tenant_id: &'a str,
}

fn owner(tenant_id: &str) -> String {
    format!("slack_response/{tenant_id}")
}

/// Takes out what lets others act as the app or answer in its name.
fn cleaned(sealer: Option<&Sealer<'_>>, payload: &mut Value) {
    let Some(members) = payload.as_object_mut() else {
        return;
    };
    members.shift_remove("token");
    members.shift_remove("response_urls");
    let url = members.shift_remove("response_url");
    if let (Some(sealer), Some(Value::String(url))) = (sealer, url)
        && let Ok(sealed) = sealer
            .hub
            .vault
            .seal(&owner(sealer.tenant_id), url.as_bytes())
    {
        let sealed = STANDARD.encode(sealed);
        members.insert("sealed_response_url".to_owned(), json!(sealed));
    }
}

/// The URL that came with a press or a command.
fn response_url(hub: &Hub, tenant_id: &str, data: &Value) -> Option<String> {
    let sealed = STANDARD
        .decode(data["sealed_response_url"].as_str()?)
        .ok()?;
    let opened = hub.vault.open(&owner(tenant_id), &sealed).ok()?;
    String::from_utf8(opened.to_vec()).ok()
}

/// A name for a delivery that has none: Slack sends each trigger once.
fn key(kind: &str, payload: &Value) -> String {
    let trigger = payload["trigger_id"].as_str();
    match trigger.filter(|id| !id.is_empty() && id.len() <= MAX_KEY) {
        Some(id) => format!("{kind}:{id}"),
        None => {
            let text = payload.to_string();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
            format!("{kind}:{}", hex::encode(digest))
        }
    }
}

/// What somebody did with a button or a form, as an arrival; `None`: it is none.
pub fn arrival(sealer: Option<&Sealer<'_>>, mut payload: Value) -> Option<Arrival> {
    let kinds = [
        "block_actions",
        "view_submission",
        "view_closed",
        "shortcut",
        "message_action",
    ];
    let kind = payload["type"].as_str()?;
    let kind = (*kinds.iter().find(|known| **known == kind)?).to_owned();
    let key = key(&kind, &payload);
    cleaned(sealer, &mut payload);
    Some(Arrival {
        key,
        subject: asked_in(&payload).map_or_else(String::new, |asked| asked.chat),
        kind,
        data: payload,
    })
}

/// A slash command, as an arrival; `None`: it is none.
pub fn command_arrival(sealer: Option<&Sealer<'_>>, mut fields: Value) -> Option<Arrival> {
    let id = |name: &str| fields[name].as_str().filter(|id| is_id(id));
    let (team, channel) = (team(&fields)?, id("channel_id")?);
    id("user_id")?;
    let subject = format!("{team}:{channel}");
    let key = key("command", &fields);
    cleaned(sealer, &mut fields);
    fields["delivery"] = json!(key);
    Some(Arrival {
        key,
        subject,
        kind: COMMAND.to_owned(),
        data: fields,
    })
}

fn team(fields: &Value) -> Option<&str> {
    Some(team_of(fields)).filter(|team| !team.is_empty())
}

/// What a card asks, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    action: String,
    approval_id: String,
    chat: String,
    /// The card's channel and message.
    channel: String,
    message: String,
}

/// What is kept in a button or a form of ours; nobody but the app writes there.
fn asked_in(payload: &Value) -> Option<Asked> {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let read = |action: &str, kept: &Value, channel: Option<String>, message: Option<String>| {
        let kept: Value = serde_json::from_str(kept.as_str()?).ok()?;
        Some(Asked {
            action: action.to_owned(),
            approval_id: word(&kept["id"])?,
            chat: word(&kept["chat"])?,
            channel: channel.or(word(&kept["channel"])).unwrap_or_default(),
            message: message.or(word(&kept["message"])).unwrap_or_default(),
        })
    };
    if payload["type"] == json!("view_submission") {
        let view = &payload["view"];
        if view["callback_id"] != json!(form::CALLBACK) {
            return None;
        }
        return read(form::CALLBACK, &view["private_metadata"], None, None);
    }
    let actions = payload["actions"].as_array()?;
    let ours = [APPROVE, REJECT, ANSWER];
    let action = actions.iter().find(|action| {
        let id = action["action_id"].as_str().unwrap_or_default();
        ours.contains(&id)
    })?;
    let channel = word(&payload["container"]["channel_id"]).or(word(&payload["channel"]["id"]));
    let message = word(&payload["container"]["message_ts"]).or(word(&payload["message"]["ts"]));
    read(
        action["action_id"].as_str()?,
        &action["value"],
        channel,
        message,
    )
}

fn presser(payload: &Value) -> Option<Sender> {
    let user = payload["user"]["id"].as_str().filter(|id| is_id(id))?;
    let teams = [&payload["user"]["team_id"], &payload["team"]["id"]];
    let mut teams = teams.into_iter().filter_map(Value::as_str);
    let team = teams.find(|id| is_id(id))?;
    let names = [&payload["user"]["name"], &payload["user"]["username"]];
    Some(Sender {
        id: format!("{team}:{user}"),
        name: names.into_iter().find_map(Value::as_str).map(str::to_owned),
        is_verified: true,
    })
}

/// What an arrival says itself.
pub fn read(kind: &str, data: &Value) -> Meaning {
    if kind == COMMAND {
        return commanded(data);
    }
    let (Some(asked), Some(sender)) = (asked_in(data), presser(data)) else {
        return Meaning::Nothing("a press of no button of ours");
    };
    let (approve, content) = match asked.action.as_str() {
        APPROVE => (true, None),
        REJECT => (false, None),
        form::CALLBACK => (true, Some(form::entered(&data["view"]))),
        _ => return Meaning::Nothing("a form is asked for"),
    };
    Meaning::Decided(Decision {
        approval_id: asked.approval_id,
        approve,
        content,
        sender,
        chat: asked.chat,
    })
}

fn commanded(data: &Value) -> Meaning {
    let word = |name: &str| data[name].as_str().unwrap_or_default();
    let Some(team) = team(data) else {
        return Meaning::Nothing("it names no workspace");
    };
    let (channel, user) = (word("channel_id"), word("user_id"));
    let name = word("command").trim_start_matches('/');
    let text = super::text::plain(word("text"), "").0;
    let mut words = text.split_whitespace();
    let (first, second, third) = (words.next(), words.next(), words.next());
    let command = match (Command::of(name, first), first) {
        (Some(command), _) => Some(command),
        (None, None) => Some(Command::Help),
        // `/smith stop`; but `/smith stop the music` is said.
        (None, Some(first)) => match (first.trim_start_matches('/'), second, third) {
            ("start", Some(token), None) => Some(Command::Start(Some(token.to_owned()))),
            (word, None, _) => Command::of(word, None),
            _ => None,
        },
    };
    let mut reply_to = json!({ "team": team, "channel": channel, "user": user });
    if data["sealed_response_url"].is_string() {
        reply_to["sealed_response_url"] = data["sealed_response_url"].clone();
    }
    Meaning::Said(Box::new(Said {
        sender: Sender {
            id: format!("{team}:{user}"),
            name: Some(word("user_name").to_owned()).filter(|name| !name.is_empty()),
            is_verified: true,
        },
        chat: format!("{team}:{channel}"),
        is_private: false,
        text,
        parts: Vec::new(),
        message: word("delivery").to_owned(),
        reply_to,
        command,
        is_edit: false,
    }))
}

/// What an arrival means; a form that is asked for is opened.
pub async fn interpret(hub: &Hub, arrival: &InboundRow, data: &Value) -> Result<Meaning, Fault> {
    let Some(asked) = asked_in(data).filter(|asked| asked.action == ANSWER) else {
        return Ok(read(&arrival.kind, data));
    };
    let approval = hub
        .store
        .approval(&arrival.tenant_id, &asked.approval_id)
        .await?
        .filter(|approval| approval.status == ApprovalStatus::Pending);
    let question = approval.and_then(|approval| Question::of(approval.elicitation.as_deref()?));
    let kept = json!({ "id": asked.approval_id, "chat": asked.chat, "channel": asked.channel,
        "message": asked.message });
    let view = question.and_then(|question| form::modal(&question, &kept.to_string()));
    let Some(view) = view else {
        tell(
            hub,
            &arrival.tenant_id,
            data,
            "This question is over.",
            false,
        )
        .await;
        return Ok(Meaning::Nothing("the question is over"));
    };
    let team = asked.chat.split(':').next().unwrap_or_default();
    let workspace = workspace::workspace(hub, &arrival.tenant_id, team).await?;
    let body = json!({ "trigger_id": data["trigger_id"], "view": view });
    match api::call(hub, &workspace.token, "views.open", &body).await {
        Ok(_) => Ok(Meaning::Nothing("a form is opened")),
        Err(fault) => {
            // Slack lets a press open a form within three seconds alone.
            tracing::info!(%fault, "a form is not opened");
            let why = "The form could not be opened. Please press again.";
            tell(hub, &arrival.tenant_id, data, why, false).await;
            Ok(Meaning::Nothing("the form could not be opened"))
        }
    }
}

/// Says what was decided in place of the card, or to who pressed alone why nothing was.
pub async fn tell(hub: &Hub, tenant_id: &str, data: &Value, text: &str, is_settled: bool) {
    if let Err(error) = told(hub, tenant_id, data, text, is_settled).await {
        tracing::info!(%error, "a press is not answered");
    }
}

async fn told(
    hub: &Hub,
    tenant_id: &str,
    data: &Value,
    text: &str,
    is_settled: bool,
) -> Result<(), Fault> {
    let gone = || Fault::Never("the press is of no card of ours".to_owned());
    let asked = asked_in(data).ok_or_else(gone)?;
    let mut place = asked.chat.split(':');
    let (team, thread) = (place.next().unwrap_or_default(), place.nth(1));
    let workspace = workspace::workspace(hub, tenant_id, team).await?;
    let text = escape(text);
    let (method, body) = match is_settled {
        true => (
            "chat.update",
            json!({ "channel": asked.channel, "ts": asked.message, "text": text, "blocks": [] }),
        ),
        false => (
            "chat.postEphemeral",
            json!({ "channel": asked.channel, "user": data["user"]["id"], "text": text,
                "thread_ts": thread }),
        ),
    };
    let done = api::call(hub, &workspace.token, method, &body).await;
    // Where the bot is no member, what came with the press still answers it.
    match (done, response_url(hub, tenant_id, data)) {
        (Err(Fault::Never(_)), Some(url)) => {
            let body = json!({ "text": text, "replace_original": is_settled,
                "response_type": "ephemeral" });
            api::respond(hub, &url, &body).await
        }
        (done, _) => done.map(drop),
    }
}

/// Sends a message where an answer goes; answers its time, which names it.
pub async fn post(
    hub: &Hub,
    tenant_id: &str,
    reply_to: &str,
    mut body: Value,
) -> Result<String, Fault> {
    let to: Value = serde_json::from_str(reply_to).unwrap_or_default();
    let team = to["team"].as_str().unwrap_or_default();
    let workspace = workspace::workspace(hub, tenant_id, team).await?;
    body["channel"] = to["channel"].clone();
    if to["thread_ts"].is_string() {
        body["thread_ts"] = to["thread_ts"].clone();
    }
    let sent = api::call(hub, &workspace.token, "chat.postMessage", &body).await;
    let not_there = ["not_in_channel", "channel_not_found", "is_archived"];
    match sent {
        Err(fault) if api::is_refused_with(&fault, &not_there) => {
            let Some(url) = response_url(hub, tenant_id, &to) else {
                return Err(fault);
            };
            let mut answer = json!({ "response_type": "in_channel", "text": body["text"] });
            if body["blocks"].is_array() {
                answer["blocks"] = body["blocks"].clone();
            }
            api::respond(hub, &url, &answer).await?;
            Ok("response".to_owned())
        }
        sent => Ok(sent?["ts"].as_str().unwrap_or_default().to_owned()),
    }
}

/// Asks for a decision.
pub async fn ask(hub: &Hub, to: &OutboundRow, card: &Card) -> Result<String, Fault> {
    let (text, blocks) = blocks(card, &to.chat);
    let body = json!({ "text": text, "blocks": blocks, "client_msg_id": api::message_id(&to.id) });
    post(hub, &to.tenant_id, &to.reply_to, body).await
}

/// A card as words for a notification, and as blocks.
fn blocks(card: &Card, chat: &str) -> (String, Value) {
    let kept = json!({ "id": card.approval_id, "chat": chat }).to_string();
    let button = |text: &str, style: &str, action: &str| {
        json!({ "type": "button",
        "text": { "type": "plain_text", "text": text, "emoji": true }, "style": style,
        "action_id": action, "value": kept })
    };
    let link = |text: &str| {
        let url = card.link.as_deref().filter(|url| url.len() <= 3000)?;
        Some(
            json!({ "type": "button", "text": { "type": "plain_text", "text": text },
            "action_id": "smith_link", "url": url }),
        )
    };
    let (title, section, buttons) = match &card.question {
        None => (
            format!("May I use {}?", escape_within(&card.tool, 200)),
            format!(
                "May I use `{}`?\n```\n{}\n```",
                escape_within(&card.tool.replace('`', "ˋ"), 200),
                escape_within(
                    &card.arguments.replace("```", "``\u{200b}`"),
                    MAX_SECTION - 250
                )
            ),
            vec![
                button("✅ Approve", "primary", APPROVE),
                button("❌ Reject", "danger", REJECT),
            ],
        ),
        Some(question) => {
            let text = escape_within(&question.message, MAX_SECTION);
            let mut buttons = Vec::new();
            if form::modal(question, "").is_some() {
                buttons.push(button("Answer", "primary", ANSWER));
            } else {
                buttons.extend(link("Answer"));
            }
            buttons.push(button("Decline", "danger", REJECT));
            let title: String = text.chars().take(200).collect();
            (title, text, buttons)
        }
    };
    let section = match section.trim().is_empty() {
        true => "I have a question.".to_owned(),
        false => section,
    };
    let blocks = json!([
        { "type": "section", "text": { "type": "mrkdwn", "text": section } },
        { "type": "actions", "elements": buttons },
    ]);
    (title, blocks)
}

#[cfg(test)]
#[path = "interact_tests.rs"]
mod tests;
