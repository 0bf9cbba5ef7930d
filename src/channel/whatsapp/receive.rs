//! What a delivery means
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages>).

use serde_json::{Value, json};

use super::{Secrets, account, api};
use crate::channel::fetch::Fetched;
use crate::channel::files::part_of;
use crate::channel::said::add_line;
use crate::channel::{Account, Arrival, Command, Decision, Fault, Hub, Meaning, Said, Sender};
use crate::store::InboundRow;

/// What the kind of an arrival begins with that says what became of a message.
pub const STATUS: &str = "status.";
/// Messages that hold a file.
const FILES: [&str; 5] = ["image", "audio", "video", "document", "sticker"];

/// The arrivals of a delivery, each with the id of the number that it is for.
pub fn arrivals(delivery: &Value) -> Vec<(String, Arrival)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    if delivery["object"] != json!("whatsapp_business_account") {
        return found;
    }
    for change in list(&delivery["entry"])
        .iter()
        .flat_map(|entry| list(&entry["changes"]))
    {
        let value = &change["value"];
        let Some(number) = value["metadata"]["phone_number_id"].as_str() else {
            continue;
        };
        if change["field"] != json!("messages") {
            continue;
        }
        for error in list(&value["errors"]) {
            tracing::warn!(number, why = api::told(&error), "WhatsApp reports a fault");
        }
        let contacts = list(&value["contacts"]);
        for message in list(&value["messages"]) {
            found
                .extend(message_arrival(value, &contacts, message).map(|a| (number.to_owned(), a)));
        }
        for status in list(&value["statuses"]) {
            found.extend(status_arrival(value, status).map(|a| (number.to_owned(), a)));
        }
    }
    found
}

fn message_arrival(value: &Value, contacts: &[Value], message: Value) -> Option<Arrival> {
    let id = message["id"].as_str().filter(|id| !id.is_empty())?;
    let kind = message["type"].as_str().filter(|kind| !kind.is_empty())?;
    let contact = contacts.iter().find(|contact| {
        let is = |theirs: &Value, own: &Value| theirs.is_string() && theirs == own;
        is(&contact["wa_id"], &message["from"]) || is(&contact["user_id"], &message["from_user_id"])
    });
    let contact = contact.or(contacts.first().filter(|_| contacts.len() == 1));
    Some(Arrival {
        key: id.to_owned(),
        kind: kind.to_owned(),
        subject: chat_of(&message).unwrap_or_default(),
        data: json!({ "metadata": value["metadata"], "contact": contact, "message": message }),
    })
}

fn status_arrival(value: &Value, status: Value) -> Option<Arrival> {
    let id = status["id"].as_str().filter(|id| !id.is_empty())?;
    let word = status["status"].as_str().filter(|word| !word.is_empty())?;
    Some(Arrival {
        key: format!("{STATUS}{word}:{id}"),
        kind: format!("{STATUS}{word}"),
        // Apart from the conversation: what is waited for here delays no message.
        subject: format!("{STATUS}{id}"),
        data: json!({ "metadata": value["metadata"], "status": status }),
    })
}

/// Who sent it: a number, or where that is not shown, the id that the business knows them by
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids>).
fn sender_id(message: &Value) -> Option<&str> {
    let ids = [&message["from"], &message["from_user_id"]];
    let mut ids = ids.into_iter().filter_map(Value::as_str);
    ids.find(|id| !id.is_empty())
}

/// The conversation: a group, else the sender.
fn chat_of(message: &Value) -> Option<String> {
    let group = message["group_id"].as_str().filter(|id| !id.is_empty());
    group.or(sender_id(message)).map(str::to_owned)
}

/// Where an answer to a message goes.
pub fn reply_to(message: &Value) -> Option<Value> {
    let mut to = match message["group_id"].as_str() {
        Some(group) => json!({ "to": group, "group": true }),
        None if message["from"].is_string() => json!({ "to": message["from"] }),
        None => json!({ "recipient": message["from_user_id"].as_str()? }),
    };
    to["message"] = message["id"].clone();
    Some(to)
}

fn sender_of(data: &Value) -> Option<Sender> {
    let name = data["contact"]["profile"]["name"].as_str();
    Some(Sender {
        id: sender_id(&data["message"])?.to_owned(),
        name: name
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        // WhatsApp fills it in.
        is_verified: true,
    })
}

/// What an arrival means.
pub async fn interpret(hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
    let data: Value =
        serde_json::from_str(&arrival.data).map_err(|error| Fault::Never(error.to_string()))?;
    let account = account(hub, &arrival.tenant_id).await?;
    let meaning = meaning(&data, &account.settings);
    let Meaning::Said(mut said) = meaning else {
        return Ok(meaning);
    };
    if said.command.is_none() {
        let message = content_of(&data["message"]);
        attach(hub, arrival, &account, message, &mut said).await?;
        if said.text.is_empty() && said.parts.is_empty() {
            return Ok(Meaning::Nothing("there is nothing in it to answer"));
        }
    }
    Ok(Meaning::Said(said))
}

/// What a message holds: of an edit, what it says now.
fn content_of(message: &Value) -> &Value {
    match message["type"].as_str() {
        Some("edit") => &message["edit"]["message"],
        _ => message,
    }
}

/// What a message means, but for the files in it.
fn meaning(data: &Value, settings: &Value) -> Meaning {
    let message = &data["message"];
    let (Some(sender), Some(chat), Some(reply_to)) =
        (sender_of(data), chat_of(message), reply_to(message))
    else {
        return Meaning::Nothing("of nobody");
    };
    let kind = message["type"].as_str().unwrap_or_default();
    if let Some((word, approval_id)) = pressed(message) {
        return Meaning::Decided(Decision {
            approval_id: approval_id.to_owned(),
            approve: word == "a",
            content: None,
            sender,
            chat,
        });
    }
    let original = |name: &str| message[name]["original_message_id"].as_str();
    if kind == "revoke" {
        return match original("revoke") {
            Some(id) => Meaning::TakenBack(chat, id.to_owned()),
            None => Meaning::Nothing("takes nothing back"),
        };
    }
    let content = content_of(message);
    let Some(text) = text_of(content) else {
        return Meaning::Nothing("of a kind that nobody answers");
    };
    let is_private = !message["group_id"].is_string();
    let command = command(&text);
    let own = settings["display_phone_number"]
        .as_str()
        .unwrap_or_default();
    let own: String = own.chars().filter(char::is_ascii_digit).collect();
    let is_reply = !own.is_empty() && message["context"]["from"] == json!(own);
    if !(is_private || is_reply || command.is_some()) {
        return Meaning::Nothing("not for this number");
    }
    let id = original("edit").or(message["id"].as_str());
    Meaning::Said(Box::new(Said {
        sender,
        chat,
        is_private,
        text,
        parts: Vec::new(),
        message: id.unwrap_or_default().to_owned(),
        reply_to,
        command,
        is_edit: kind == "edit",
    }))
}

/// The word and the approval of a button of ours.
fn pressed(message: &Value) -> Option<(&str, &str)> {
    let id = match message["type"].as_str()? {
        "interactive" => &message["interactive"]["button_reply"]["id"],
        "button" => &message["button"]["payload"],
        _ => return None,
    };
    let (word, approval_id) = id.as_str()?.split_once(':')?;
    (matches!(word, "a" | "r") && approval_id.starts_with("apr_")).then_some((word, approval_id))
}

/// What a message says in words; `None`: it is nothing that is answered.
fn text_of(message: &Value) -> Option<String> {
    let kind = message["type"].as_str()?;
    let content = &message[kind];
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    Some(match kind {
        "text" => text(&content["body"]),
        kind if FILES.contains(&kind) => text(&content["caption"]),
        "button" => text(&content["text"]),
        "interactive" => chosen(content),
        "location" => {
            let place = [&content["name"], &content["address"]];
            let place: Vec<&str> = place.into_iter().filter_map(Value::as_str).collect();
            let at = content["latitude"]
                .as_f64()
                .zip(content["longitude"].as_f64());
            let (latitude, longitude) = at?;
            match place.join(", ") {
                place if place.is_empty() => format!("[Location: {latitude}, {longitude}]"),
                place => format!("[Location: {latitude}, {longitude}, {place}]"),
            }
        }
        "contacts" => {
            let contacts = content.as_array()?.iter().map(|contact| {
                let name = contact["name"]["formatted_name"]
                    .as_str()
                    .unwrap_or_default();
                let number = contact["phones"][0]["phone"].as_str().unwrap_or_default();
                format!("[Contact: {name} {number}]")
            });
            contacts.collect::<Vec<_>>().join("\n")
        }
        "order" => format!("[Order: {}]", content["product_items"]),
        // Reactions, what the platform itself says, and what it cannot show.
        _ => return None,
    })
}

/// What was chosen of buttons, of a list, or written into a form.
fn chosen(interactive: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    match interactive["type"].as_str() {
        Some("button_reply") => text(&interactive["button_reply"]["title"]),
        Some("list_reply") => {
            let reply = &interactive["list_reply"];
            match (text(&reply["title"]), text(&reply["description"])) {
                (title, more) if more.is_empty() => title,
                (title, more) => format!("{title}\n{more}"),
            }
        }
        Some("nfm_reply") => text(&interactive["nfm_reply"]["response_json"]),
        _ => String::new(),
    }
}

fn command(text: &str) -> Option<Command> {
    let mut words = text.split_whitespace();
    Some(match words.next()?.to_ascii_lowercase().as_str() {
        "/start" => Command::Start(words.next().map(str::to_owned)),
        "/new" => Command::New,
        "/stop" => Command::Stop,
        "/help" => Command::Help,
        _ => return None,
    })
}

/// Adds the file that came with a message: it is kept here first.
async fn attach(
    hub: &Hub,
    arrival: &InboundRow,
    account: &Account<Secrets>,
    message: &Value,
    said: &mut Said,
) -> Result<(), Fault> {
    let kind = message["type"].as_str().unwrap_or_default();
    let file = &message[kind];
    let Some(id) = file["id"].as_str().filter(|_| FILES.contains(&kind)) else {
        return Ok(());
    };
    // `audio/ogg; codecs=opus`
    let media_type = file["mime_type"].as_str();
    let media_type = media_type
        .and_then(|said| said.split(';').next())
        .map(str::trim);
    let name = file["filename"].as_str().map(str::to_owned);
    let name = name.unwrap_or_else(|| name_of(kind, file, media_type));
    let limit = hub.config.max_file_bytes;
    let content = match api::file(hub, account, id, limit).await? {
        Fetched::Content(content) => content,
        Fetched::TooLarge => {
            add_line(
                &mut said.text,
                &format!("[A file, {name}, is too large to read.]"),
            );
            return Ok(());
        }
        Fetched::Gone => {
            add_line(
                &mut said.text,
                &format!("[A file, {name}, is no longer there.]"),
            );
            return Ok(());
        }
    };
    let kept = hub
        .keep_file(&arrival.tenant_id, &name, media_type, content)
        .await?;
    let is_image = matches!(kind, "image" | "sticker");
    said.parts.push(part_of(kept, &name, is_image));
    Ok(())
}

/// A name for a file that has none.
fn name_of(kind: &str, file: &Value, media_type: Option<&str>) -> String {
    let kind = if file["voice"] == json!(true) {
        "voice"
    } else {
        kind
    };
    let ending = media_type
        .and_then(|said| said.split_once('/'))
        .map(|(_, end)| end);
    let is_word = |end: &&str| end.len() <= 8 && end.bytes().all(|b| b.is_ascii_alphanumeric());
    match ending.filter(is_word) {
        Some("jpeg") => format!("{kind}.jpg"),
        Some("mpeg") => format!("{kind}.mp3"),
        Some(ending) => format!("{kind}.{ending}"),
        None => kind.to_owned(),
    }
}

/// Decodes a delivery as a stranger may send it, for tests and fuzzing.
pub fn decode(bytes: &[u8]) -> Vec<(Arrival, Meaning)> {
    let delivery: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let settings = json!({ "display_phone_number": "15550783881" });
    let found = arrivals(&delivery).into_iter().map(|(_, arrival)| {
        let meaning = match arrival.kind.starts_with(STATUS) {
            true => Meaning::Nothing("what became of a message"),
            false => meaning(&arrival.data, &settings),
        };
        (arrival, meaning)
    });
    found.collect()
}

#[cfg(test)]
mod tests;
