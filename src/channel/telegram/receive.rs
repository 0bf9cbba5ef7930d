//! What an update means (<https://core.telegram.org/bots/api#update>).

use serde_json::{Value, json};

use super::{Secrets, account, api};
use crate::channel::files::{is_picture, part_of};
use crate::channel::said::add_line;
use crate::channel::{Arrival, Command, Decision, Fault, Hub, Meaning, Said, Sender};
use crate::store::InboundRow;

/// Kinds of update that mean something; Telegram is asked for these alone.
pub const KINDS: [&str; 3] = ["message", "edited_message", "callback_query"];

/// An update as an arrival; `None`: it is none.
pub fn arrival(update: Value) -> Option<Arrival> {
    let id = update["update_id"].as_i64()?;
    let kind = update
        .as_object()?
        .keys()
        .find(|key| *key != "update_id")?
        .clone();
    let about = match kind.as_str() {
        "callback_query" => &update[&kind]["message"],
        _ => &update[&kind],
    };
    Some(Arrival {
        key: id.to_string(),
        subject: chat_of(about).unwrap_or_default(),
        kind,
        data: update,
    })
}

/// The conversation of a message: its chat, and within that its topic.
fn chat_of(message: &Value) -> Option<String> {
    let chat = message["chat"]["id"].as_i64()?;
    let topic = message["message_thread_id"].as_i64();
    Some(
        match topic.filter(|_| message["is_topic_message"] == json!(true)) {
            Some(topic) => format!("{chat}:{topic}"),
            None => chat.to_string(),
        },
    )
}

fn sender_of(from: &Value) -> Option<Sender> {
    let name = [&from["first_name"], &from["last_name"]];
    let name: Vec<&str> = name.into_iter().filter_map(Value::as_str).collect();
    let name = name.join(" ").trim().to_owned();
    Some(Sender {
        id: from["id"].as_i64()?.to_string(),
        name: Some(name).filter(|name| !name.is_empty()),
        // Telegram fills it in.
        is_verified: true,
    })
}

/// What an arrival means.
pub async fn interpret(hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
    let update: Value =
        serde_json::from_str(&arrival.data).map_err(|error| Fault::Never(error.to_string()))?;
    match arrival.kind.as_str() {
        "callback_query" => Ok(pressed(&update["callback_query"])),
        "message" | "edited_message" => {
            let account = account(hub, &arrival.tenant_id).await?;
            let message = &update[&arrival.kind];
            let Some(mut said) = said(message, &account.settings) else {
                return Ok(Meaning::Nothing("not for this bot"));
            };
            said.is_edit = arrival.kind == "edited_message";
            if said.command.is_none() {
                attach(hub, arrival, &account.secrets, message, &mut said).await?;
                if said.text.is_empty() && said.parts.is_empty() {
                    return Ok(Meaning::Nothing("there is nothing in it to answer"));
                }
            }
            Ok(Meaning::Said(Box::new(said)))
        }
        _ => Ok(Meaning::Nothing("of a kind that nobody answers")),
    }
}

fn pressed(query: &Value) -> Meaning {
    let data = query["data"].as_str().unwrap_or_default();
    let chat = chat_of(&query["message"]);
    let (Some((word, approval_id)), Some(chat), Some(sender)) =
        (data.split_once(':'), chat, sender_of(&query["from"]))
    else {
        return Meaning::Nothing("a press of no button of ours");
    };
    let approve = match word {
        "a" => true,
        "r" => false,
        _ => return Meaning::Nothing("a press of no button of ours"),
    };
    Meaning::Decided(Decision {
        approval_id: approval_id.to_owned(),
        approve,
        content: None,
        sender,
        chat,
    })
}

/// What was said, when it is said to this bot.
fn said(message: &Value, settings: &Value) -> Option<Said> {
    let from = &message["from"];
    if from["is_bot"] == json!(true) {
        return None;
    }
    let sender = sender_of(from)?;
    let chat = chat_of(message)?;
    let chat_id = message["chat"]["id"].as_i64()?;
    let message_id = message["message_id"].as_i64()?;
    let bot = settings["bot_username"].as_str().unwrap_or_default();
    let text = message["text"].as_str().or(message["caption"].as_str());
    let mut text = text.unwrap_or_default().to_owned();
    let is_private = message["chat"]["type"] == json!("private");
    let command = command(&text, bot, is_private);
    let at_bot = format!("@{bot}");
    let is_mentioned = !bot.is_empty() && mentions(message, &text, &at_bot);
    let is_reply = message["reply_to_message"]["from"]["id"] == settings["bot_id"]
        && settings["bot_id"].is_number();
    if !(is_private || is_mentioned || is_reply || command.is_some()) {
        return None;
    }
    if is_mentioned {
        text = without(&text, &at_bot);
    }
    let mut reply_to = json!({ "chat_id": chat_id });
    if let Some(topic) = message["message_thread_id"].as_i64()
        && chat.contains(':')
    {
        reply_to["message_thread_id"] = json!(topic);
    }
    if !is_private {
        reply_to["reply_parameters"] =
            json!({ "message_id": message_id, "allow_sending_without_reply": true });
    }
    Some(Said {
        sender,
        chat,
        is_private,
        text: text.trim().to_owned(),
        parts: Vec::new(),
        message: message_id.to_string(),
        reply_to,
        command,
        is_edit: false,
    })
}

/// Whether the bot is named, by an entity and not by letters that only look alike.
fn mentions(message: &Value, text: &str, at_bot: &str) -> bool {
    let entities = [&message["entities"], &message["caption_entities"]];
    let units: Vec<u16> = text.encode_utf16().collect();
    entities
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .filter(|entity| entity["type"] == json!("mention"))
        .any(|entity| {
            let at = |name: &str| entity[name].as_u64().and_then(|n| usize::try_from(n).ok());
            let range = at("offset").zip(at("length"));
            let found = range.and_then(|(from, length)| units.get(from..from.checked_add(length)?));
            let found = found.map(String::from_utf16_lossy).unwrap_or_default();
            found.eq_ignore_ascii_case(at_bot)
        })
}

fn without(text: &str, at_bot: &str) -> String {
    let lower = text.to_ascii_lowercase();
    match lower.find(&at_bot.to_ascii_lowercase()) {
        Some(at) => format!("{}{}", &text[..at], &text[at + at_bot.len()..]),
        None => text.to_owned(),
    }
}

fn command(text: &str, bot: &str, is_private: bool) -> Option<Command> {
    let mut words = text.split_whitespace();
    let word = words.next()?.strip_prefix('/')?;
    let (name, to) = word.split_once('@').unwrap_or((word, ""));
    // In a group a command without a name is everybody's.
    let is_ours = match to {
        "" => is_private,
        to => to.eq_ignore_ascii_case(bot),
    };
    if !is_ours {
        return None;
    }
    Command::of(name, words.next())
}

/// Adds what came with a message: files are kept here first.
async fn attach(
    hub: &Hub,
    arrival: &InboundRow,
    secrets: &Secrets,
    message: &Value,
    said: &mut Said,
) -> Result<(), Fault> {
    // The largest of a photo's sizes is the last.
    let photo = message["photo"].as_array().and_then(|sizes| sizes.last());
    let is_image = photo.is_some();
    let documents = [
        "document",
        "voice",
        "audio",
        "video",
        "video_note",
        "animation",
    ];
    let document = documents
        .iter()
        .map(|name| &message[*name])
        .find(|found| found.is_object());
    if let Some(file) = photo.or(document)
        && let Some(id) = file["file_id"].as_str()
    {
        let name = file["file_name"].as_str().map(str::to_owned);
        let unique = file["file_unique_id"].as_str().unwrap_or("file");
        let media_type = file["mime_type"].as_str();
        let name = name.unwrap_or_else(|| match (is_image, media_type) {
            (true, _) => format!("{unique}.jpg"),
            (false, Some("audio/ogg")) => format!("{unique}.ogg"),
            _ => unique.to_owned(),
        });
        let limit = hub.config.max_file_bytes;
        match api::file(hub, secrets, id, limit).await? {
            Some(content) => {
                let kept = hub
                    .keep_file(&arrival.tenant_id, &name, media_type, content)
                    .await?;
                let is_image = is_image || is_picture(media_type);
                said.parts.push(part_of(kept, &name, is_image));
            }
            None => add_line(
                &mut said.text,
                &format!("[A file, {name}, is too large to read.]"),
            ),
        }
    }
    if let Some(emoji) = message["sticker"]["emoji"].as_str() {
        add_line(&mut said.text, emoji);
    }
    let location = &message["location"];
    if let (Some(latitude), Some(longitude)) = (
        location["latitude"].as_f64(),
        location["longitude"].as_f64(),
    ) {
        add_line(
            &mut said.text,
            &format!("[Location: {latitude}, {longitude}]"),
        );
    }
    let contact = &message["contact"];
    if let Some(number) = contact["phone_number"].as_str() {
        let name = contact["first_name"].as_str().unwrap_or_default();
        add_line(&mut said.text, &format!("[Contact: {name} {number}]"));
    }
    Ok(())
}

/// Decodes an update as a stranger may send it, for tests and fuzzing.
pub fn decode(bytes: &[u8]) -> Option<(Arrival, Meaning)> {
    let update: Value = serde_json::from_slice(bytes).ok()?;
    let arrival = arrival(update)?;
    let settings = json!({ "bot_username": "bot", "bot_id": 1 });
    let meaning = match arrival.kind.as_str() {
        "callback_query" => pressed(&arrival.data["callback_query"]),
        kind => match said(&arrival.data[kind], &settings) {
            Some(said) => Meaning::Said(Box::new(said)),
            None => Meaning::Nothing("not for this bot"),
        },
    };
    Some((arrival, meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(mut more: Value) -> Value {
        let mut message = json!({ "message_id": 7, "date": 1, "chat": { "id": 5, "type": "private" },
            "from": { "id": 5, "is_bot": false, "first_name": "Ann", "last_name": "Lee" } });
        message
            .as_object_mut()
            .expect("an object")
            .append(more.as_object_mut().expect("one"));
        json!({ "update_id": 1, "message": message })
    }

    fn meaning(update: Value) -> Meaning {
        decode(update.to_string().as_bytes()).expect("an update").1
    }

    #[test]
    fn a_private_message_is_said() {
        let Meaning::Said(said) = meaning(message(json!({ "text": "hi" }))) else {
            panic!("nothing was said");
        };
        assert_eq!((said.text.as_str(), said.chat.as_str()), ("hi", "5"));
        assert_eq!(said.sender.name.as_deref(), Some("Ann Lee"));
        assert_eq!(said.reply_to, json!({ "chat_id": 5 }));
    }

    #[test]
    fn in_groups_only_what_is_said_to_the_bot_counts() {
        let group = json!({ "id": -9, "type": "supergroup" });
        let say = |text: &str, more: Value| {
            let mut update = message(json!({ "text": text, "chat": group }));
            if let Some(more) = more.as_object() {
                update["message"]
                    .as_object_mut()
                    .expect("an object")
                    .extend(more.clone());
            }
            meaning(update)
        };
        let mention = json!({ "entities": [{ "type": "mention", "offset": 3, "length": 4 }] });
        assert!(matches!(say("hello all", json!({})), Meaning::Nothing(_)));
        // Letters alone are no mention.
        assert!(matches!(say("hi @bot", json!({})), Meaning::Nothing(_)));
        let Meaning::Said(said) = say("hi @Bot there", mention) else {
            panic!("the mention is not seen");
        };
        assert_eq!(said.text, "hi  there");
        assert!(said.reply_to["reply_parameters"]["message_id"].is_number());
        let reply = json!({ "reply_to_message": { "from": { "id": 1 } } });
        assert!(matches!(say("yes", reply), Meaning::Said(_)));
        assert!(matches!(say("/new", json!({})), Meaning::Nothing(_)));
        assert!(matches!(say("/new@bot", json!({})), Meaning::Said(_)));
        let topic =
            json!({ "message_thread_id": 3, "is_topic_message": true, "text": "/help@bot" });
        let Meaning::Said(said) = say("", topic) else {
            panic!("the topic is not seen");
        };
        assert_eq!(
            (said.chat.as_str(), &said.reply_to["message_thread_id"]),
            ("-9:3", &json!(3))
        );
    }

    #[test]
    fn other_bots_and_strange_updates_are_nothing() {
        let bot = message(json!({ "text": "hi", "from": { "id": 8, "is_bot": true } }));
        assert!(matches!(meaning(bot), Meaning::Nothing(_)));
        let press = json!({ "update_id": 2, "callback_query": { "id": "1", "data": "x:y",
            "from": { "id": 5 }, "message": { "chat": { "id": 5 }, "message_id": 1 } } });
        assert!(matches!(meaning(press), Meaning::Nothing(_)));
        assert!(decode(b"{}").is_none() && decode(b"[]").is_none());
        assert!(decode(br#"{"update_id":1}"#).is_none());
    }

    #[test]
    fn commands_are_words_of_their_own() {
        assert_eq!(
            command("/start abc", "bot", true),
            Some(Command::Start(Some("abc".into())))
        );
        assert_eq!(command("/stop@BOT", "bot", false), Some(Command::Stop));
        assert_eq!(command("/stop@other", "bot", true), None);
        assert_eq!(command("/newest", "bot", true), None);
        assert_eq!(command("say /new", "bot", true), None);
    }
}
