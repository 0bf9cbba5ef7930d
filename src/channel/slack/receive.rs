//! What an event means (<https://docs.slack.dev/apis/events-api>).

use serde_json::{Value, json};

use super::api::{self, By, Workspace, is_id};
use super::{KIND, Slack, files, interact, oauth, team_of, text, workspace};
use crate::channel::said::add_line;
use crate::channel::{Arrival, Command, Fault, Hub, Meaning, Said, Sender};
use crate::store::InboundRow;

/// Longest delivery id.
const MAX_KEY: usize = 200;
/// Subtypes of messages that people write.
const WRITTEN: [&str; 4] = ["", "file_share", "thread_broadcast", "me_message"];
/// Of what was forwarded with a message, in characters.
const MAX_FORWARDED: usize = 4000;

/// An event as an arrival; `None`: it is none.
pub fn arrival(mut payload: Value) -> Option<Arrival> {
    // An old way to show who calls, which nobody shall read here.
    let members = payload.as_object_mut()?;
    members.shift_remove("token");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (key, kind) = match payload["type"].as_str()? {
        "event_callback" => (word(&payload["event_id"]), word(&payload["event"]["type"])),
        kind @ "app_rate_limited" => {
            let minute = payload["minute_rate_limited"].as_i64()?;
            (
                format!("{kind}:{}:{minute}", team_of(&payload)),
                kind.to_owned(),
            )
        }
        _ => return None,
    };
    if is_own(&payload) {
        return None;
    }
    if key.is_empty() || kind.is_empty() || key.len() > MAX_KEY || kind.len() > MAX_KEY {
        return None;
    }
    Some(Arrival {
        key,
        subject: place_of(&payload).map_or_else(|| team_of(&payload).to_owned(), |at| at.chat()),
        kind,
        data: payload,
    })
}

/// Whether it is what the app itself said or changed: each edit of an answer comes back so.
fn is_own(payload: &Value) -> bool {
    let event = &payload["event"];
    let about = match event["subtype"].as_str() {
        Some("message_changed") => &event["message"],
        Some("message_deleted") => &event["previous_message"],
        _ => event,
    };
    let app = payload["api_app_id"].as_str().unwrap_or_default();
    let authors = [&about["app_id"], &about["bot_profile"]["app_id"]];
    !app.is_empty() && about["bot_id"].is_string() && authors.into_iter().any(|one| one == app)
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place<'a> {
    team: &'a str,
    channel: &'a str,
    /// The first message of the thread that it is in.
    thread: Option<&'a str>,
    message: &'a str,
    is_private: bool,
}

/// Whether a text names a message: seconds and microseconds.
fn is_time(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn place_of(payload: &Value) -> Option<Place<'_>> {
    let event = &payload["event"];
    let (about, channel) = match event["type"].as_str()? {
        "message" => {
            let about = match event["subtype"].as_str() {
                Some("message_changed") => &event["message"],
                Some("message_deleted") => &event["previous_message"],
                _ => event,
            };
            (about, &event["channel"])
        }
        "app_mention" => (event, &event["channel"]),
        "assistant_thread_started" | "assistant_thread_context_changed" => (
            &event["assistant_thread"],
            &event["assistant_thread"]["channel_id"],
        ),
        _ => return None,
    };
    let time = |value: &'_ Value| value.as_str().is_some_and(is_time);
    let message = [&about["ts"], &event["deleted_ts"], &about["thread_ts"]];
    let message = message.into_iter().find(|value| time(value))?.as_str()?;
    let channel = channel.as_str().filter(|id| is_id(id))?;
    let is_private = match event["channel_type"].as_str() {
        Some(kind) => kind == "im" || kind == "app_home",
        None => channel.starts_with('D'),
    };
    Some(Place {
        team: team_of(payload),
        channel,
        thread: about["thread_ts"].as_str().filter(|at| is_time(at)),
        message,
        is_private,
    })
}

impl Place<'_> {
    /// In channels each thread is a conversation; with one person it is all that is in no thread, and
    /// each thread of an assistant.
    fn chat(&self) -> String {
        match (self.is_private, self.thread) {
            (_, Some(thread)) => format!("{}:{thread}", self.room()),
            (true, None) => self.room(),
            (false, None) => format!("{}:{}", self.room(), self.message),
        }
    }

    /// The channel.
    fn room(&self) -> String {
        format!("{}:{}", self.team, self.channel)
    }

    fn reply_to(&self, user: &str) -> Value {
        let mut to = json!({ "team": self.team, "channel": self.channel, "user": user });
        if let Some(thread) = self.thread.or((!self.is_private).then_some(self.message)) {
            to["thread_ts"] = json!(thread);
        }
        to
    }
}

/// What an arrival means.
pub async fn interpret(slack: &Slack, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
    let payload: Value =
        serde_json::from_str(&arrival.data).map_err(|error| Fault::Never(error.to_string()))?;
    match arrival.kind.as_str() {
        "message" | "app_mention" => message(slack, hub, arrival, &payload).await,
        "assistant_thread_started" => Ok(Meaning::Nothing("a thread begins; nobody spoke in it")),
        "app_uninstalled" | "tokens_revoked" => {
            oauth::uninstalled(hub, &arrival.tenant_id, &payload).await
        }
        "app_rate_limited" => {
            tracing::warn!(tenant_id = %arrival.tenant_id, "Slack holds events back: too many");
            Ok(Meaning::Nothing("Slack holds events back"))
        }
        "block_actions" | "view_submission" | interact::COMMAND => {
            interact::interpret(hub, arrival, &payload).await
        }
        _ => Ok(Meaning::Nothing("of a kind that nobody answers")),
    }
}

async fn message(
    slack: &Slack,
    hub: &Hub,
    arrival: &InboundRow,
    payload: &Value,
) -> Result<Meaning, Fault> {
    let (tenant_id, team) = (&arrival.tenant_id, team_of(payload));
    let workspace = workspace::workspace(hub, tenant_id, team).await?;
    let read = read(payload, &workspace.bot_user_id);
    let (mut said, about) = match read {
        Read::Meaning(meaning) => return Ok(meaning),
        Read::Said(said, about) => (said, about),
        // Without a word for the bot it counts where the bot is spoken with already.
        Read::InThread(said, about) => {
            let begun_by_bot = about["parent_user_id"] == json!(workspace.bot_user_id);
            let takes_part =
                begun_by_bot || hub.store.has_turns_of(tenant_id, KIND, &said.chat).await?;
            if !takes_part {
                return Ok(Meaning::Nothing("the bot takes no part in this thread"));
            }
            (said, about)
        }
    };
    if said.command.is_none() {
        files::attach(hub, tenant_id, &workspace, about, &mut said).await?;
        if said.text.is_empty() && said.parts.is_empty() {
            return Ok(Meaning::Nothing("there is nothing in it to answer"));
        }
    }
    said.sender.name = slack
        .name_of(hub, tenant_id, &workspace, &said.sender.id)
        .await;
    Ok(Meaning::Said(said))
}

/// What a message is, as far as it says itself; with the message that was written.
enum Read<'a> {
    Meaning(Meaning),
    Said(Box<Said>, &'a Value),
    /// In a thread, and not to the bot by name.
    InThread(Box<Said>, &'a Value),
}

fn read<'a>(payload: &'a Value, bot: &str) -> Read<'a> {
    let nothing = |why| Read::Meaning(Meaning::Nothing(why));
    let event = &payload["event"];
    let Some(place) = place_of(payload) else {
        return nothing("it names no message");
    };
    let (about, is_edit) = match event["subtype"].as_str().unwrap_or_default() {
        "message_deleted" => {
            let message = place.message.to_owned();
            return Read::Meaning(Meaning::TakenBack(place.chat(), message));
        }
        "message_changed" if event["message"]["subtype"] == json!("tombstone") => {
            let message = place.message.to_owned();
            return Read::Meaning(Meaning::TakenBack(place.chat(), message));
        }
        "message_changed" => {
            // A preview of a link changes a message, too.
            if event["message"]["text"] == event["previous_message"]["text"] {
                return nothing("its words did not change");
            }
            (&event["message"], true)
        }
        _ => (event, false),
    };
    let subtype = about["subtype"].as_str().unwrap_or_default();
    if !WRITTEN.contains(&subtype) {
        return nothing("no person wrote it");
    }
    let user = about["user"].as_str().filter(|id| is_id(id));
    let (Some(user), None) = (user, about["bot_id"].as_str()) else {
        return nothing("no person wrote it");
    };
    if user == bot || user == "USLACKBOT" {
        return nothing("no person wrote it");
    }
    let raw = about["text"].as_str().unwrap_or_default();
    let (mut words, is_mentioned) = text::plain(raw, bot);
    let is_mention = event["type"] == json!("app_mention");
    let command = command(&words);
    if let Some(forwarded) = forwarded(about) {
        add_line(&mut words, &forwarded);
    }
    let team = [&about["user_team"], &about["team"]];
    let mut teams = team.into_iter().filter_map(Value::as_str);
    let team = teams.find(|team| is_id(team)).unwrap_or(place.team);
    let said = Box::new(Said {
        sender: Sender {
            id: format!("{team}:{user}"),
            name: None,
            // Slack fills it in, and signs it.
            is_verified: true,
        },
        chat: match &command {
            // The channel is bound, not one thread in it.
            Some(Command::Start(_)) => place.room(),
            _ => place.chat(),
        },
        is_private: place.is_private,
        text: words,
        parts: Vec::new(),
        message: place.message.to_owned(),
        reply_to: place.reply_to(user),
        command,
        is_edit,
    });
    if place.is_private || is_mention || is_edit && is_mentioned {
        return Read::Said(said, about);
    }
    if is_mentioned {
        // Slack delivers it once more, as app_mention.
        return nothing("the mention comes as an event of its own");
    }
    if place.thread.is_none() {
        return nothing("it is not said to the bot");
    }
    match text::first_mention(raw) {
        Some(_) => nothing("it is said to somebody else"),
        None => Read::InThread(said, about),
    }
}

/// What was forwarded or shared with a message.
fn forwarded(message: &Value) -> Option<String> {
    let attachments = message["attachments"].as_array()?;
    let mut all = String::new();
    for attachment in attachments.iter().take(10) {
        let is_message =
            attachment["is_msg_unfurl"] == json!(true) || attachment["is_share"] == json!(true);
        let words = attachment["text"]
            .as_str()
            .or(attachment["fallback"].as_str());
        let Some(words) = words.filter(|_| is_message) else {
            continue;
        };
        let who = attachment["author_name"].as_str().unwrap_or("somebody");
        add_line(
            &mut all,
            &format!("[Forwarded, of {who}: {}]", text::plain(words, "").0),
        );
    }
    let cut: String = all.chars().take(MAX_FORWARDED).collect();
    Some(cut).filter(|cut| !cut.is_empty())
}

/// Words that the channel acts on itself. Slack keeps what begins with a slash for its own commands, so
/// a space or a mention comes before it.
fn command(words: &str) -> Option<Command> {
    let mut all = words.split_whitespace();
    let (first, second, third) = (all.next()?, all.next(), all.next());
    let token = second.filter(|_| third.is_none());
    if first == "start" {
        return token
            .filter(|token| is_token(token))
            .map(|token| Command::Start(Some(token.to_owned())));
    }
    Command::of(first.strip_prefix('/')?, second)
}

/// Whether a word is a start token as deployments have them.
fn is_token(word: &str) -> bool {
    word.len() == 43
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Slack {
    /// What a sender is called, when that is known or told soon.
    pub(super) async fn name_of(
        &self,
        hub: &Hub,
        tenant_id: &str,
        workspace: &Workspace,
        sender: &str,
    ) -> Option<String> {
        let key = format!("{tenant_id}/{sender}");
        let (_, user) = sender.split_once(':')?;
        let asked = async {
            let by = By::Token(&workspace.token);
            let fields = [("user", user)];
            let call = api::form(hub, by, "users.info", &fields);
            let found = tokio::time::timeout(super::NAME_PATIENCE, call).await;
            let found = found.ok().and_then(Result::ok)?;
            let user = &found["user"];
            let names = [
                &user["profile"]["display_name"],
                &user["profile"]["real_name"],
                &user["real_name"],
                &user["name"],
            ];
            let mut names = names.into_iter().filter_map(Value::as_str);
            names
                .find(|name| !name.trim().is_empty())
                .map(str::to_owned)
        };
        self.names.get_with(key, asked).await
    }
}

/// Decodes what a stranger may deliver, for tests and fuzzing.
pub fn decode(bytes: &[u8]) -> Option<(Arrival, Meaning)> {
    let payload: Value = serde_json::from_slice(bytes).ok()?;
    if let Some(arrival) = interact::arrival(None, payload.clone()) {
        let meaning = interact::read(&arrival.kind, &arrival.data);
        return Some((arrival, meaning));
    }
    let arrival = arrival(payload)?;
    let meaning = match read(&arrival.data, "UBOT") {
        Read::Meaning(meaning) => meaning,
        Read::Said(said, _) | Read::InThread(said, _) => Meaning::Said(said),
    };
    Some((arrival, meaning))
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
