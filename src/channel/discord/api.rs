//! Calls of Discord's API (<https://docs.discord.com/developers/reference>).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use serde_json::{Value, json};

use super::{Interaction, Secrets};
use crate::channel::call::{Called, LONGEST_WAIT, MAX_ANSWER};
use crate::channel::multipart::Form;
use crate::channel::{CallFault, Fault, Hub, Outgoing, Platform};
use crate::error::ApiError;

/// Unknown message, and unknown webhook, which an interaction's token is
/// (<https://docs.discord.com/developers/topics/opcodes-and-status-codes#json>).
const GONE: [i64; 3] = [10_008, 10_015, 50_027];

/// What Discord refuses.
#[derive(Debug)]
pub struct Refused {
    /// What was named is not there, or no longer.
    pub is_gone: bool,
    pub fault: Fault,
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        refused.fault
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self {
            is_gone: false,
            fault,
        }
    }
}

impl From<CallFault> for Refused {
    fn from(fault: CallFault) -> Self {
        Fault::from(fault).into()
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum As<'a> {
    Bot(&'a Secrets),
    /// Whoever has the interaction's token, which is in the path.
    Interaction,
}

fn value(text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text).map_err(|_| Fault::Never("the bot's token is none".to_owned()))
}

fn wait(called: &Called, answer: &Value) -> Option<Duration> {
    let said = answer["retry_after"].as_f64().filter(|said| *said >= 0.0);
    match said {
        // Whole seconds are counted.
        Some(seconds) => Some(Duration::from_secs(
            (seconds.ceil() as u64).clamp(1, LONGEST_WAIT),
        )),
        None => called.retry_after(),
    }
}

fn refused(called: &Called, what: &str) -> Refused {
    let answer = called.json();
    let code = answer["code"].as_i64().unwrap_or(0);
    let said = answer["message"].as_str().unwrap_or("no description");
    let status = called.status;
    let mut why = format!("Discord refused {what} ({status}, {code}): {said}");
    if answer["errors"].is_object() {
        let errors: String = answer["errors"].to_string().chars().take(500).collect();
        why.push_str(&format!(" {errors}"));
    }
    let fault = match status.as_u16() {
        429 => Fault::Later {
            after: wait(called, &answer),
            why,
        },
        // The message may be there.
        200..=299 | 500..=599 => Fault::Unknown(why),
        _ => Fault::Never(why),
    };
    Refused {
        is_gone: GONE.contains(&code) || status.as_u16() == 404,
        fault,
    }
}

/// A message, with the files that belong to it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub body: &'a Value,
    pub files: &'a [Outgoing],
}

impl<'a> From<&'a Value> for Message<'a> {
    fn from(body: &'a Value) -> Self {
        Self { body, files: &[] }
    }
}

impl Message<'_> {
    /// As it is sent, with its media type
    /// (<https://docs.discord.com/developers/reference#uploading-files>).
    fn written(self) -> Result<(HeaderValue, Bytes), ApiError> {
        if self.files.is_empty() {
            let json = HeaderValue::from_static("application/json");
            return Ok((json, Bytes::from(self.body.to_string())));
        }
        let named = self.files.iter().enumerate();
        let named = named.map(|(id, file)| json!({ "id": id, "filename": file.name }));
        let mut body = self.body.clone();
        body["attachments"] = named.collect();
        let mut form = Form::new()?.json("payload_json", &body);
        for (id, file) in self.files.iter().enumerate() {
            form = form.file(&format!("files[{id}]"), file);
        }
        form.finish()
    }
}

/// Calls what is at `path`, which is not shown: it may hold a token. `what` is.
pub async fn call(
    hub: &Hub,
    who: As<'_>,
    method: Method,
    path: &str,
    what: &str,
    message: Option<Message<'_>>,
) -> Result<Value, Refused> {
    let platform = Platform {
        name: "Discord",
        base: &hub.config.discord_url,
    };
    // Others are refused (<https://docs.discord.com/developers/reference#user-agent>).
    let agent = format!(
        "DiscordBot ({}, {})",
        hub.public_url,
        env!("CARGO_PKG_VERSION")
    );
    let mut headers: Vec<(HeaderName, HeaderValue)> = vec![(header::USER_AGENT, value(&agent)?)];
    if let As::Bot(secrets) = who {
        let mut token = value(&format!("Bot {}", secrets.bot_token))?;
        token.set_sensitive(true);
        headers.push((header::AUTHORIZATION, token));
    }
    let bytes = match message {
        Some(message) => {
            let (kind, bytes) = message.written().map_err(Fault::from)?;
            headers.push((header::CONTENT_TYPE, kind));
            bytes
        }
        None => Bytes::new(),
    };
    let called = hub
        .call(platform, method, path, &headers, bytes, MAX_ANSWER)
        .await?;
    match called.status.as_u16() {
        204 => Ok(Value::Null),
        200..=299 => match called.json() {
            Value::Null => Err(refused(&called, what)),
            answer => Ok(answer),
        },
        _ => Err(refused(&called, what)),
    }
}

/// Asks again what may be asked twice: of two same answers one is kept.
fn repeatable(refused: Refused) -> Refused {
    match refused.fault {
        Fault::Unknown(why) => Refused {
            fault: Fault::later(why),
            ..refused
        },
        _ => refused,
    }
}

fn name_of(message: &Value) -> Result<String, Refused> {
    match message["id"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(Fault::Unknown("Discord names no message".to_owned()).into()),
    }
}

fn webhook(application: &str, interaction: &Interaction, rest: &str) -> String {
    format!("/webhooks/{application}/{}{rest}", interaction.token)
}

/// The answer of an interaction, as Discord has it now.
pub struct Original(Value);

impl Original {
    /// Whether it is still awaited: a person sees "is thinking"
    /// (<https://docs.discord.com/developers/resources/message#message-object-message-flags>).
    pub fn is_awaited(&self) -> bool {
        const LOADING: u64 = 1 << 7;
        self.0["flags"].as_u64().unwrap_or(0) & LOADING != 0
    }

    /// Its id, when it says what `body` does. White space does not count, of which Discord strips some.
    pub fn saying(&self, body: &Value) -> Option<&str> {
        let letters = |message: &Value| -> Option<String> {
            let text = message["content"].as_str()?;
            Some(text.chars().filter(|c| !c.is_whitespace()).collect())
        };
        let own = letters(body).filter(|own| !own.is_empty())?;
        self.0["id"]
            .as_str()
            .filter(|_| letters(&self.0) == Some(own))
    }
}

/// Asks for the answer of an interaction.
pub async fn original(
    hub: &Hub,
    application: &str,
    interaction: &Interaction,
) -> Result<Original, Refused> {
    let path = webhook(application, interaction, "/messages/@original");
    let found = call(hub, As::Interaction, Method::GET, &path, "the answer", None).await;
    found.map(Original).map_err(repeatable)
}

/// Changes a message of an interaction; its answer is `@original`.
pub async fn edit(
    hub: &Hub,
    application: &str,
    interaction: &Interaction,
    message: &str,
    body: Message<'_>,
) -> Result<String, Refused> {
    let path = webhook(application, interaction, &format!("/messages/{message}"));
    let changed = call(
        hub,
        As::Interaction,
        Method::PATCH,
        &path,
        "a change",
        Some(body),
    )
    .await;
    name_of(&changed.map_err(repeatable)?)
}

/// Sends a message after the answer of an interaction.
pub async fn follow(
    hub: &Hub,
    application: &str,
    interaction: &Interaction,
    body: Message<'_>,
) -> Result<String, Refused> {
    let path = webhook(application, interaction, "");
    let sent = call(
        hub,
        As::Interaction,
        Method::POST,
        &path,
        "a message",
        Some(body),
    )
    .await?;
    name_of(&sent)
}

/// Changes a message of the bot's in a channel.
pub async fn edit_in(
    hub: &Hub,
    secrets: &Secrets,
    channel: &str,
    message: &str,
    body: &Value,
) -> Result<String, Refused> {
    let path = format!("/channels/{channel}/messages/{message}");
    let who = As::Bot(secrets);
    let changed = call(
        hub,
        who,
        Method::PATCH,
        &path,
        "a change",
        Some(body.into()),
    )
    .await;
    name_of(&changed.map_err(repeatable)?)
}

/// Sends a message to a channel. Discord takes one that is sent again under its nonce within minutes
/// only once (<https://docs.discord.com/developers/resources/message#create-message>).
pub async fn send_to(
    hub: &Hub,
    secrets: &Secrets,
    channel: &str,
    nonce: Option<&str>,
    message: Message<'_>,
) -> Result<String, Refused> {
    let path = format!("/channels/{channel}/messages");
    let mut body = message.body.clone();
    if let Some(nonce) = nonce {
        body["nonce"] = json!(nonce);
        body["enforce_nonce"] = json!(true);
    }
    let who = As::Bot(secrets);
    let message = Message {
        body: &body,
        files: message.files,
    };
    let sent = call(hub, who, Method::POST, &path, "a message", Some(message)).await;
    let sent = match nonce {
        Some(_) => sent.map_err(repeatable),
        None => sent,
    };
    name_of(&sent?)
}

/// The channel in which the bot and a user are alone.
pub async fn direct(hub: &Hub, secrets: &Secrets, user: &str) -> Result<String, Refused> {
    let body = json!({ "recipient_id": user });
    let path = "/users/@me/channels";
    let who = As::Bot(secrets);
    let made = call(
        hub,
        who,
        Method::POST,
        path,
        "a direct message",
        Some((&body).into()),
    )
    .await;
    name_of(&made.map_err(repeatable)?)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    #[test]
    fn an_answer_that_is_there_is_known() {
        let there = Original(json!({ "id": "8", "flags": 4, "content": "a b\nc" }));
        assert!(!there.is_awaited());
        let same = json!({ "content": " a b \n\nc\n" });
        assert_eq!(there.saying(&same), Some("8"));
        assert_eq!(there.saying(&json!({ "content": "a b" })), None);
        let awaited = Original(json!({ "id": "8", "flags": 128 + 4, "content": "" }));
        assert!(awaited.is_awaited());
        assert_eq!(awaited.saying(&json!({ "content": "" })), None);
    }

    #[test]
    fn what_is_refused_is_told_and_waited_out() {
        let answered = |status: u16, body: Value| {
            let called = Called {
                status: StatusCode::from_u16(status).expect("a status"),
                headers: HeaderMap::new(),
                body: Bytes::from(body.to_string()),
            };
            refused(&called, "a message")
        };
        let slow = json!({ "message": "You are being rate limited.", "retry_after": 64.57, "global": false });
        let slow = answered(429, slow).fault;
        assert!(matches!(slow, Fault::Later { after: Some(after), .. } if after.as_secs() == 65));
        let absurd = answered(429, json!({ "retry_after": 1e300 })).fault;
        assert!(
            matches!(absurd, Fault::Later { after: Some(after), .. } if after.as_secs() == LONGEST_WAIT)
        );
        let gone = answered(404, json!({ "message": "Unknown Webhook", "code": 10015 }));
        assert!(gone.is_gone && matches!(gone.fault, Fault::Never(_)));
        assert!(gone.fault.to_string().contains("Unknown Webhook"));
        let expired = answered(
            401,
            json!({ "message": "Invalid Webhook Token", "code": 50027 }),
        );
        assert!(expired.is_gone);
        assert!(matches!(answered(502, json!("?")).fault, Fault::Unknown(_)));
        assert!(matches!(
            repeatable(answered(502, json!("?"))).fault,
            Fault::Later { .. }
        ));
    }
}
