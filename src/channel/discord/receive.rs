//! What an interaction means
//! (<https://docs.discord.com/developers/interactions/receiving-and-responding>).

use serde_json::{Value, json};

use super::commands::FILES;
use super::place::{Place, is_id, valid_until};
use super::{account, format, message};
use crate::channel::fetch::Fetched;
use crate::channel::files::{is_picture, part_of};
use crate::channel::said::add_line;
use crate::channel::{Arrival, Command, Decision, Fault, Hub, Meaning, Said, Sender};
use crate::store::InboundRow;

/// As many as a message may have.
const MOST_FILES: usize = 10;

/// What is done with an interaction at once.
#[derive(Debug)]
pub enum Taken {
    /// It is kept, and answered with this; what it is about follows.
    Kept(Box<Arrival>, Value),
    /// It needs nothing more than this answer.
    Answered(Value),
}

/// What an interaction is; `None`: it is none. `seal` makes of its token what is kept.
pub fn taken<E>(
    mut interaction: Value,
    seal: impl FnOnce(&str) -> Result<String, E>,
) -> Result<Option<Taken>, E> {
    let (kind, answer) = match interaction["type"].as_u64() {
        Some(1) => return Ok(Some(Taken::Answered(json!({ "type": 1 })))),
        Some(2) => ("application_command", json!({ "type": 5 })),
        Some(3) => ("message_component", json!({ "type": 6 })),
        // Nothing is known that completes what is typed.
        Some(4) => {
            let none = json!({ "type": 8, "data": { "choices": [] } });
            return Ok(Some(Taken::Answered(none)));
        }
        // No forms are shown here.
        Some(5) => return Ok(Some(Taken::Answered(json!({ "type": 6 })))),
        _ => return Ok(None),
    };
    let Some(id) = interaction["id"]
        .as_str()
        .filter(|id| is_id(id))
        .map(str::to_owned)
    else {
        return Ok(None);
    };
    let Some(members) = interaction.as_object_mut() else {
        return Ok(None);
    };
    let token = members.shift_remove("token");
    let sealed = seal(token.as_ref().and_then(Value::as_str).unwrap_or_default())?;
    members.insert("sealed_token".to_owned(), json!(sealed));
    let arrival = Arrival {
        key: id,
        kind: kind.to_owned(),
        subject: chat_of(&interaction).unwrap_or_default(),
        data: interaction,
    };
    Ok(Some(Taken::Kept(Box::new(arrival), answer)))
}

/// The channel, which a thread is, too.
fn chat_of(interaction: &Value) -> Option<String> {
    let ids = [&interaction["channel_id"], &interaction["channel"]["id"]];
    let id = ids.into_iter().find_map(Value::as_str);
    id.filter(|id| is_id(id)).map(str::to_owned)
}

/// Where the answer to an interaction goes.
pub fn reply_to(interaction: &Value) -> Option<Value> {
    Some(
        json!({ "channel_id": chat_of(interaction)?, "token": interaction["sealed_token"],
        "until": valid_until(interaction["id"].as_str()?) }),
    )
}

fn sender_of(interaction: &Value) -> Option<Sender> {
    let member = &interaction["member"];
    let user = match member["user"].is_object() {
        true => &member["user"],
        false => &interaction["user"],
    };
    let names = [&member["nick"], &user["global_name"], &user["username"]];
    let name = names.into_iter().filter_map(Value::as_str).map(str::trim);
    Some(Sender {
        id: user["id"].as_str().filter(|id| is_id(id))?.to_owned(),
        name: name
            .into_iter()
            .find(|name| !name.is_empty())
            .map(str::to_owned),
        // Discord fills it in.
        is_verified: true,
    })
}

/// What an arrival means.
pub async fn interpret(hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
    let data: Value =
        serde_json::from_str(&arrival.data).map_err(|error| Fault::Never(error.to_string()))?;
    let meaning = meaning(&arrival.kind, &data);
    let account = account(hub, &arrival.tenant_id).await?;
    let reply_to = match &meaning {
        Meaning::Said(said) => said.reply_to.clone(),
        _ => reply_to(&data).unwrap_or_default(),
    };
    let place = Place {
        hub,
        account: &account,
        tenant_id: &arrival.tenant_id,
        reply_to: &reply_to,
    };
    let mut said = match meaning {
        Meaning::Said(said) => said,
        // Who is shown that they are answered would wait for ever.
        Meaning::Nothing(why) if arrival.kind == "application_command" => {
            place.tell("I do not know that command.").await;
            return Ok(Meaning::Nothing(why));
        }
        meaning => return Ok(meaning),
    };
    if said.command.is_none() {
        attach(hub, arrival, &data, &mut said).await?;
        if said.text.is_empty() && said.parts.is_empty() {
            place.tell("There is nothing in it to answer.").await;
            return Ok(Meaning::Nothing("there is nothing in it to answer"));
        }
    }
    if said.command == Some(Command::Stop) {
        end_waiting(hub, &place, arrival, &said).await?;
    }
    // A message waits for nothing.
    if arrival.kind == "application_command" && !is_answered(hub, arrival, &said).await? {
        let why = match &said.command {
            Some(Command::Start(Some(_))) => "That token connects nothing.",
            _ => "Nobody answers here yet.",
        };
        place.tell(&format::escape(why)).await;
    }
    Ok(Meaning::Said(said))
}

/// The question that is being answered is shown as awaited until it is answered: what is stopped may
/// never be.
async fn end_waiting(
    hub: &Hub,
    place: &Place<'_>,
    arrival: &InboundRow,
    said: &Said,
) -> Result<(), Fault> {
    let Some((answerer, _)) = hub.answerer(arrival, said).await? else {
        return Ok(());
    };
    let (tenant_id, smith_id) = (&arrival.tenant_id, &answerer.smith_id);
    let thread = hub.thread(arrival, &said.chat, smith_id).await?;
    let running = hub.store.running_turn(tenant_id, smith_id, &thread).await?;
    let Some(asked) = running.and_then(|turn| turn.reply_to) else {
        return Ok(());
    };
    let reply_to: Value = serde_json::from_str(&asked).unwrap_or_default();
    let place = Place {
        reply_to: &reply_to,
        ..*place
    };
    place.end_waiting("Stopped.").await;
    Ok(())
}

/// Whether somebody answers a sender.
async fn is_answered(hub: &Hub, arrival: &InboundRow, said: &Said) -> Result<bool, Fault> {
    if let Some(Command::Start(Some(token))) = &said.command
        && hub.bind_by_token(arrival, said, token).await?.is_some()
    {
        return Ok(true);
    }
    Ok(hub.answerer(arrival, said).await?.is_some())
}

/// What an arrival means, but for the files in it.
fn meaning(kind: &str, interaction: &Value) -> Meaning {
    if kind.starts_with("message_") && kind != "message_component" || kind == "message" {
        return message::meaning(kind, interaction);
    }
    let (Some(sender), Some(chat), Some(reply_to)) = (
        sender_of(interaction),
        chat_of(interaction),
        reply_to(interaction),
    ) else {
        return Meaning::Nothing("of nobody");
    };
    let data = &interaction["data"];
    if kind == "message_component" {
        let id = data["custom_id"].as_str().unwrap_or_default();
        return match id.split_once(':') {
            Some((word @ ("a" | "r"), approval)) => Meaning::Decided(Decision {
                approval_id: approval.to_owned(),
                approve: word == "a",
                content: None,
                sender,
                chat,
            }),
            _ => Meaning::Nothing("a press of no button of ours"),
        };
    }
    let option = |name: &str| {
        let mut options = data["options"].as_array().into_iter().flatten();
        let found = options.find(|option| option["name"] == json!(name));
        found
            .and_then(|option| option["value"].as_str())
            .map(str::trim)
    };
    let mut text = String::new();
    let name = data["name"].as_str().unwrap_or_default();
    let command = Command::of(name, option("token"));
    if name == "ask" {
        option("message").unwrap_or_default().clone_into(&mut text);
    } else if command.is_none() {
        return Meaning::Nothing("a command that is not of this gateway");
    }
    Meaning::Said(Box::new(Said {
        sender,
        chat,
        is_private: !interaction["guild_id"].is_string()
            && interaction["context"]
                .as_u64()
                .is_none_or(|context| context == 1),
        text,
        parts: Vec::new(),
        message: interaction["id"].as_str().unwrap_or_default().to_owned(),
        reply_to,
        command,
        is_edit: false,
    }))
}

/// The files that came with a message, or with a question.
fn files_of(data: &Value) -> Vec<&Value> {
    if let Some(files) = data["message"]["attachments"].as_array() {
        return files.iter().take(MOST_FILES).collect();
    }
    let data = &data["data"];
    let options = data["options"].as_array().into_iter().flatten();
    let files = options.filter(|option| FILES.iter().any(|name| option["name"] == json!(name)));
    let ids = files.filter_map(|option| option["value"].as_str());
    ids.take(MOST_FILES)
        .map(|id| &data["resolved"]["attachments"][id])
        .collect()
}

/// Adds the files that came with a question: they are kept here first.
async fn attach(
    hub: &Hub,
    arrival: &InboundRow,
    data: &Value,
    said: &mut Said,
) -> Result<(), Fault> {
    let limit = hub.config.max_file_bytes;
    for file in files_of(data) {
        let (Some(url), name) = (file["url"].as_str(), file["filename"].as_str()) else {
            continue;
        };
        let name = name.unwrap_or("file").to_owned();
        let is_large = file["size"]
            .as_u64()
            .is_some_and(|size| size > limit as u64);
        let fetched = match is_large {
            true => Fetched::TooLarge,
            false => hub.fetch("Discord", url, &[], limit).await?,
        };
        let content = match fetched {
            Fetched::Content(content) => content,
            Fetched::TooLarge => {
                add_line(
                    &mut said.text,
                    &format!("[A file, {name}, is too large to read.]"),
                );
                continue;
            }
            Fetched::Gone => {
                add_line(
                    &mut said.text,
                    &format!("[A file, {name}, is no longer there.]"),
                );
                continue;
            }
        };
        let media_type = file["content_type"].as_str();
        let media_type = media_type
            .and_then(|said| said.split(';').next())
            .map(str::trim);
        let kept = hub
            .keep_file(&arrival.tenant_id, &name, media_type, content)
            .await?;
        said.parts
            .push(part_of(kept, &name, is_picture(media_type)));
    }
    Ok(())
}

/// Decodes an interaction as a stranger may send it, for tests and fuzzing.
pub fn decode(bytes: &[u8]) -> Option<(Arrival, Meaning)> {
    let interaction: Value = serde_json::from_slice(bytes).ok()?;
    let seal = |token: &str| Ok::<_, ()>(format!("sealed {}", token.len()));
    match taken(interaction, seal).ok()?? {
        Taken::Kept(arrival, _) => {
            let meaning = meaning(&arrival.kind, &arrival.data);
            Some((*arrival, meaning))
        }
        Taken::Answered(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Discord's documentation shows one.
    fn command(mut data: Value) -> Value {
        data["type"] = json!(1);
        data["id"] = json!("771825006014889984");
        json!({ "type": 2, "token": "A_UNIQUE_TOKEN", "version": 1,
            "application_id": "775799577604522054",
            "member": { "user": { "id": "53908232506183680", "username": "Mason", "avatar": "a_d5",
                    "discriminator": "1337", "public_flags": 131_141 },
                "roles": ["539082325061836999"], "permissions": "2147483647", "nick": null },
            "id": "786008729715212338", "guild_id": "290926798626357999", "context": 0,
            "app_permissions": "442368", "guild_locale": "en-US", "locale": "en-US",
            "data": data, "channel_id": "645027906669510667" })
    }

    fn ask(text: &str) -> Value {
        command(
            json!({ "name": "ask", "options": [{ "type": 3, "name": "message", "value": text }] }),
        )
    }

    fn decoded(interaction: &Value) -> (Arrival, Meaning) {
        decode(interaction.to_string().as_bytes()).expect("an interaction")
    }

    #[test]
    fn a_question_is_said_and_its_token_is_not_kept() {
        let (arrival, meaning) = decoded(&ask(" What is this? "));
        assert_eq!(
            (arrival.key.as_str(), arrival.kind.as_str()),
            ("786008729715212338", "application_command")
        );
        assert!(!arrival.data.to_string().contains("A_UNIQUE_TOKEN"));
        let Meaning::Said(said) = meaning else {
            panic!("nothing is said");
        };
        assert_eq!(
            (said.text.as_str(), said.chat.as_str()),
            ("What is this?", "645027906669510667")
        );
        assert_eq!(said.sender.name.as_deref(), Some("Mason"));
        assert!(!said.is_private && said.reply_to["token"] == "sealed 14");
        let mut direct = ask("hi");
        direct["context"] = json!(1);
        let members = direct.as_object_mut().expect("an object");
        members.shift_remove("guild_id");
        let member = members.shift_remove("member").expect("a member");
        direct["user"] = member["user"].clone();
        let (_, Meaning::Said(said)) = decoded(&direct) else {
            panic!("nothing is said");
        };
        assert!(said.is_private && said.sender.id == "53908232506183680");
    }

    #[test]
    fn commands_presses_and_pings() {
        let named = |data: Value| decoded(&command(data)).1;
        let token =
            json!({ "name": "start", "options": [{ "type": 3, "name": "token", "value": "abc" }] });
        let Meaning::Said(start) = named(token) else {
            panic!("nothing is said");
        };
        assert_eq!(start.command, Some(Command::Start(Some("abc".into()))));
        for (name, command) in [
            ("new", Command::New),
            ("stop", Command::Stop),
            ("help", Command::Help),
        ] {
            let Meaning::Said(said) = named(json!({ "name": name })) else {
                panic!("nothing is said");
            };
            assert_eq!(said.command, Some(command));
        }
        assert!(matches!(
            named(json!({ "name": "other" })),
            Meaning::Nothing(_)
        ));
        let mut press = command(json!({ "component_type": 2, "custom_id": "a:apr_1" }));
        press["type"] = json!(3);
        let (_, Meaning::Decided(decision)) = decoded(&press) else {
            panic!("nothing is decided");
        };
        assert!(decision.approve && decision.approval_id == "apr_1");
        press["data"]["custom_id"] = json!("click_one");
        assert!(matches!(decoded(&press).1, Meaning::Nothing(_)));
        let seal = |_: &str| Ok::<_, ()>(String::new());
        let answered = |kind: u64| match taken(json!({ "type": kind, "id": "1" }), seal) {
            Ok(Some(Taken::Answered(answer))) => answer["type"].as_u64(),
            Ok(Some(Taken::Kept(_, answer))) => answer["type"].as_u64(),
            _ => None,
        };
        let answers = [1, 2, 3, 4, 5, 6].map(answered);
        assert_eq!(answers, [Some(1), Some(5), Some(6), Some(8), Some(6), None]);
        assert!(decode(b"[]").is_none() && decode(br#"{"type":2,"id":"../1"}"#).is_none());
        let nobody = json!({ "type": 2, "id": "1", "channel_id": "2", "data": { "name": "ask" } });
        assert!(matches!(decoded(&nobody).1, Meaning::Nothing(_)));
    }
}
