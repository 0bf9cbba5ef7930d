//! Messages that the Gateway tells of
//! (<https://docs.discord.com/developers/resources/message#message-object>).

use serde_json::{Value, json};

use super::place::is_id;
use crate::channel::{Arrival, Command, Meaning, Said, Sender};

/// An ordinary message, and one that replies.
const TYPES: [u64; 2] = [0, 19];

/// What a mention of somebody looks like.
fn mentions(id: &str) -> [String; 2] {
    [format!("<@{id}>"), format!("<@!{id}>")]
}

/// Whether a message is said to the bot: alone, by its name, or as a reply.
fn is_for(message: &Value, bot: &str) -> bool {
    let mut mentioned = message["mentions"].as_array().into_iter().flatten();
    let is_bot = |user: &Value| user["id"] == json!(bot);
    !message["guild_id"].is_string()
        || mentioned.any(is_bot)
        || is_bot(&message["referenced_message"]["author"])
}

/// An event as an arrival; `None`: it is about nothing that was said to this bot.
pub fn arrival(kind: &str, message: &Value, bot: &str) -> Option<Arrival> {
    let id = message["id"].as_str().filter(|id| is_id(id))?;
    let channel = message["channel_id"].as_str().filter(|id| is_id(id))?;
    if bot.is_empty() {
        return None;
    }
    let said_by_person = message["author"]["id"].is_string()
        && message["author"]["bot"] != json!(true)
        && !message["webhook_id"].is_string()
        && message["type"]
            .as_u64()
            .is_none_or(|kind| TYPES.contains(&kind));
    let (kind, key) = match kind {
        "MESSAGE_CREATE" if said_by_person && is_for(message, bot) => ("message", id.to_owned()),
        // Without a time it is no person's change, but a preview that was added.
        "MESSAGE_UPDATE" if said_by_person && is_for(message, bot) => {
            let at = message["edited_timestamp"].as_str()?;
            ("message_edit", format!("{id}:{at}"))
        }
        // Nothing tells of those in servers whether they were for the bot.
        "MESSAGE_DELETE" if !message["guild_id"].is_string() => {
            ("message_delete", format!("{id}:deleted"))
        }
        _ => return None,
    };
    Some(Arrival {
        key,
        kind: kind.to_owned(),
        subject: channel.to_owned(),
        data: json!({ "message": message, "bot": bot }),
    })
}

/// What such an arrival means, but for the files in it.
pub fn meaning(kind: &str, data: &Value) -> Meaning {
    let message = &data["message"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (id, channel) = (text(&message["id"]), text(&message["channel_id"]));
    if kind == "message_delete" {
        return Meaning::TakenBack(channel, id);
    }
    let author = &message["author"];
    let names = [
        &message["member"]["nick"],
        &author["global_name"],
        &author["username"],
    ];
    let mut names = names.into_iter().filter_map(Value::as_str).map(str::trim);
    let mut said = text(&message["content"]);
    for mention in mentions(data["bot"].as_str().unwrap_or_default()) {
        said = said.replace(&mention, "");
    }
    let said = said.trim().to_owned();
    let is_private = !message["guild_id"].is_string();
    let mut reply_to = json!({ "channel_id": channel });
    if !is_private {
        reply_to["message"] = json!(id);
    } else {
        // No two have the same place: what is shown there is known by it.
        reply_to["after"] = json!(id);
    }
    Meaning::Said(Box::new(Said {
        sender: Sender {
            id: text(&author["id"]),
            name: names.find(|name| !name.is_empty()).map(str::to_owned),
            // Discord fills it in.
            is_verified: true,
        },
        chat: channel,
        is_private,
        command: typed(&said),
        text: said,
        parts: Vec::new(),
        message: id,
        reply_to,
        is_edit: kind == "message_edit",
    }))
}

/// A command that was typed, and is not one of Discord's own.
fn typed(text: &str) -> Option<crate::channel::Command> {
    let mut words = text.strip_prefix('/')?.split_whitespace();
    let name = words.next()?;
    let token = words
        .next()
        .map(|word| word.strip_prefix("token:").unwrap_or(word));
    Command::of(name, token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Command;

    const BOT: &str = "775799577604522054";

    fn message(more: Value) -> Value {
        let mut message = json!({ "id": "334385199974967042", "channel_id": "290926798999357250",
            "type": 0, "content": "Supa Hot", "mentions": [], "attachments": [],
            "timestamp": "2017-07-11T17:27:07.299000+00:00", "edited_timestamp": null,
            "author": { "id": "53908099506183680", "username": "mason", "global_name": "Mason" } });
        for (name, value) in more.as_object().expect("members") {
            message[name] = value.clone();
        }
        message
    }

    fn said(more: Value) -> Option<Box<Said>> {
        let arrival = arrival("MESSAGE_CREATE", &message(more), BOT)?;
        match meaning(&arrival.kind, &arrival.data) {
            Meaning::Said(said) => Some(said),
            other => panic!("nothing is said: {other:?}"),
        }
    }

    #[test]
    fn what_is_said_to_the_bot_counts() {
        let direct = said(json!({})).expect("it is said to the bot alone");
        assert_eq!(
            (direct.text.as_str(), direct.is_private),
            ("Supa Hot", true)
        );
        assert_eq!(direct.sender.name.as_deref(), Some("Mason"));
        let guild = |more: Value| {
            let mut all = json!({ "guild_id": "290926798626357999" });
            all.as_object_mut()
                .expect("one")
                .extend(more.as_object().expect("one").clone());
            said(all)
        };
        assert!(guild(json!({})).is_none());
        let mention =
            json!({ "content": format!("<@{BOT}> hi <@!{BOT}>"), "mentions": [{ "id": BOT }] });
        let mentioned = guild(mention).expect("it is named");
        assert_eq!(
            (mentioned.text.as_str(), mentioned.is_private),
            ("hi", false)
        );
        assert_eq!(mentioned.reply_to["message"], "334385199974967042");
        let reply = json!({ "type": 19, "referenced_message": { "author": { "id": BOT } } });
        assert!(guild(reply).is_some());
        for other in [
            json!({ "author": { "id": "1", "bot": true } }),
            json!({ "webhook_id": "1" }),
            json!({ "type": 7 }),
            json!({ "id": "x" }),
        ] {
            assert!(said(other).is_none());
        }
        let start = said(json!({ "content": "/start token:abc" })).expect("said");
        assert_eq!(start.command, Some(Command::Start(Some("abc".into()))));
    }

    #[test]
    fn changes_and_deletions_are_of_their_message() {
        let changed = message(json!({ "edited_timestamp": "2017-07-11T17:28:07Z" }));
        let arrived = arrival("MESSAGE_UPDATE", &changed, BOT).expect("a change");
        assert_eq!(arrived.key, "334385199974967042:2017-07-11T17:28:07Z");
        let Meaning::Said(said) = meaning(&arrived.kind, &arrived.data) else {
            panic!("nothing is said");
        };
        assert!(said.is_edit && said.message == "334385199974967042");
        assert!(arrival("MESSAGE_UPDATE", &message(json!({})), BOT).is_none());
        let gone = json!({ "id": "334385199974967042", "channel_id": "290926798999357250" });
        let arrived = arrival("MESSAGE_DELETE", &gone, BOT).expect("a deletion");
        assert!(
            matches!(meaning(&arrived.kind, &arrived.data), Meaning::TakenBack(_, id) if id == "334385199974967042")
        );
        assert!(arrival("TYPING_START", &message(json!({})), BOT).is_none());
    }
}
