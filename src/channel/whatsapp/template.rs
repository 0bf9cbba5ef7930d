//! Templates: what may be sent when more than 24 hours have gone by since the person last wrote
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/templates>).

use serde_json::{Value, json};

use super::{Secrets, api};
use crate::channel::report::piece_of;
use crate::channel::{Account, Fault, Hub};
use crate::store::OutboundRow;

/// Of a parameter: what stands around it in a template's 1024 letters has room.
const MAX_PARAMETER: usize = 900;

/// A template that a deployment names, in `provider_metadata.template`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    name: String,
    language: String,
    /// Its only parameter is what was to be said.
    with_text: bool,
}

impl Template {
    /// `{"name": …, "language"?: …, "with_text"?: …}`, or the name alone.
    pub fn parse(value: &Value) -> Option<Self> {
        let name = value.as_str().or(value["name"].as_str())?;
        let language = value["language"].as_str().unwrap_or("en_US");
        let is_word = |text: &str| {
            let is_letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            (1..=512).contains(&text.len()) && text.bytes().all(is_letter)
        };
        (is_word(name) && is_word(language)).then(|| Self {
            name: name.to_owned(),
            language: language.to_owned(),
            with_text: value["with_text"].as_bool().unwrap_or(false),
        })
    }

    fn to_json(&self) -> Value {
        json!({ "name": self.name, "language": self.language, "with_text": self.with_text })
    }

    /// The message that it makes.
    pub fn message(&self, text: &str) -> Value {
        let mut template = json!({ "name": self.name, "language": { "code": self.language } });
        if self.with_text {
            let parameter = json!({ "type": "text", "text": one_line(text) });
            template["components"] = json!([{ "type": "body", "parameters": [parameter] }]);
        }
        json!({ "type": "template", "template": template })
    }
}

/// Parameters hold no line breaks, no tabs and no runs of spaces.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.chars().count() > MAX_PARAMETER {
        true => line.chars().take(MAX_PARAMETER - 1).chain(['…']).collect(),
        false => line,
    }
}

/// The template of the deployment that a message is of.
async fn of(hub: &Hub, message: &OutboundRow) -> Result<Option<Template>, Fault> {
    let deployment = hub
        .store
        .deployment(&message.tenant_id, &message.deployment_id)
        .await?;
    let metadata = deployment.map(|deployment| deployment.provider_metadata);
    let metadata: Value = serde_json::from_str(&metadata.unwrap_or_default()).unwrap_or_default();
    Ok(Template::parse(&metadata["template"]))
}

/// Sends a template instead of a message that is refused for its time. One that holds the message has
/// said it; after another the message still waits to be sent, which its failure says.
pub async fn instead(
    hub: &Hub,
    account: &Account<Secrets>,
    row: &OutboundRow,
    text: &str,
    key: &str,
    closed: Fault,
) -> Result<String, Fault> {
    let Some(template) = of(hub, row).await? else {
        return Err(closed);
    };
    let is_first = piece_of(key).is_none_or(|(_, at)| at == 0);
    if !template.with_text && !is_first {
        return Err(closed);
    }
    let to: Value = serde_json::from_str(&row.reply_to).unwrap_or_default();
    let message = template.message(text);
    match api::send(hub, account, &to, key, message).await {
        Ok(name) if template.with_text => Ok(name),
        Ok(_) => Err(Fault::Never(format!(
            "{closed}; the template {} was sent instead",
            template.name
        ))),
        Err(refused) => Err(match refused.fault {
            Fault::Never(why) => Fault::Never(format!("{closed}; and the template: {why}")),
            fault => fault,
        }),
    }
}

/// The message that is sent after one that was refused for its time only when it was on its way;
/// `None`: there is none.
pub async fn after(
    hub: &Hub,
    row: &OutboundRow,
    at: usize,
    text: Option<&str>,
) -> Result<Option<OutboundRow>, Fault> {
    let mut to: Value = serde_json::from_str(&row.reply_to).unwrap_or_default();
    // A template is never answered by another.
    if !to.is_object() || to["template"].is_object() {
        return Ok(None);
    }
    let Some(template) = of(hub, row).await? else {
        return Ok(None);
    };
    if !template.with_text && at > 0 || template.with_text && text.is_none() {
        return Ok(None);
    }
    to["template"] = template.to_json();
    let now = crate::store::now_micros();
    Ok(Some(OutboundRow {
        // Of the message and its piece, so that it is sent once.
        id: format!("{}t{at}", row.id),
        kind: "notice".to_owned(),
        run_id: row.run_id.clone(),
        reply_to: to.to_string(),
        content: Some(match (template.with_text, text) {
            (true, Some(text)) => one_line(text),
            _ => template.name,
        }),
        tenant_id: row.tenant_id.clone(),
        smith_id: row.smith_id.clone(),
        deployment_id: row.deployment_id.clone(),
        channel: row.channel.clone(),
        chat: row.chat.clone(),
        ..OutboundRow::pending(now)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_and_written() {
        let plain = Template::parse(&json!("hello_world")).expect("a template");
        assert_eq!(
            plain.message("x"),
            json!({ "type": "template",
                "template": { "name": "hello_world", "language": { "code": "en_US" } } })
        );
        let with = json!({ "name": "news", "language": "de", "with_text": true });
        let with = Template::parse(&with).expect("a template");
        assert_eq!(Template::parse(&with.to_json()), Some(with.clone()));
        assert_eq!(
            with.message("a\n\n\tb")["template"]["components"][0]["parameters"][0]["text"],
            "a b"
        );
        let long = one_line(&"word ".repeat(1000));
        assert!(long.chars().count() == MAX_PARAMETER && long.ends_with('…'));
        for none in [
            json!(null),
            json!(""),
            json!({ "name": "a b" }),
            json!({ "language": "de" }),
        ] {
            assert_eq!(Template::parse(&none), None);
        }
    }
}
