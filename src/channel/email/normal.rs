//! Mail as providers deliver it over HTTP: JSON whose fields have the same few names everywhere. What is
//! known is read by whichever of its names is there.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::arrival::{Envelope, Found};
use crate::untrusted::mail::{self, Attached, Head, Mail, Person, automatic, line};

const MAX_ATTACHMENTS: usize = 50;
const MAX_TEXT: usize = 1024 * 1024;
const MAX_IDS: usize = 50;

/// What the outside of a message says.
#[derive(Debug, Default)]
pub struct Outside {
    pub head: Head,
    pub envelope: Envelope,
    pub found: Found,
    /// Who it was delivered to, as the provider says.
    pub recipients: Vec<String>,
    /// The message as it came, where the provider has it; all else is read from that.
    pub raw: Option<Vec<u8>>,
}

fn any<'a>(value: &'a Value, names: &[&str]) -> &'a Value {
    let found = names.iter().map(|name| &value[*name]);
    found
        .into_iter()
        .find(|found| !found.is_null())
        .unwrap_or(&Value::Null)
}

fn text<'a>(value: &'a Value, names: &[&str]) -> Option<&'a str> {
    any(value, names).as_str().filter(|text| !text.is_empty())
}

/// An address, or several: as text, as an object, or a list of either.
fn people(value: &Value) -> Vec<Person> {
    match value {
        Value::String(text) => mail::people_of(text),
        Value::Array(all) => all.iter().take(100).flat_map(people).collect(),
        Value::Object(_) => {
            let inner = any(value, &["value", "emails"]);
            if inner.is_array() {
                return people(inner);
            }
            let address = text(value, &["address", "email", "Email"]);
            let address = address.and_then(mail::address_of);
            let name = text(value, &["name", "Name"]).map(line);
            address
                .map(|address| Person { name, address })
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The fields of a message's header: an object, or a list of pairs or objects.
fn fields(value: &Value) -> Vec<(String, String)> {
    let said = |value: &Value| match value {
        Value::String(text) => Some(line(text)),
        Value::Array(all) => all.first().and_then(Value::as_str).map(line),
        _ => None,
    };
    let found: Vec<(String, String)> = match value {
        Value::Object(all) => all
            .iter()
            .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), said(value)?)))
            .collect(),
        Value::Array(all) => all
            .iter()
            .filter_map(|one| {
                let (name, value) = match one {
                    Value::Array(pair) => (pair.first()?.as_str()?, pair.get(1)?),
                    one => (
                        text(one, &["name", "key", "Name"])?,
                        any(one, &["value", "Value"]),
                    ),
                };
                Some((name.to_ascii_lowercase(), said(value)?))
            })
            .collect(),
        _ => Vec::new(),
    };
    found.into_iter().take(500).collect()
}

fn ids(value: &Value) -> Vec<String> {
    let all: Vec<String> = match value {
        Value::String(text) => text.split_whitespace().filter_map(mail::id).collect(),
        Value::Array(all) => all
            .iter()
            .filter_map(Value::as_str)
            .filter_map(mail::id)
            .collect(),
        _ => Vec::new(),
    };
    let skip = all.len().saturating_sub(MAX_IDS);
    all.into_iter().skip(skip).collect()
}

/// A result: a word, or an object that has one.
fn result(value: &Value) -> Option<String> {
    let word = value.as_str().or_else(|| value["result"].as_str());
    word.map(|word| line(word).to_ascii_lowercase())
}

/// Reads the outside of a message; `None`: it is none.
pub fn outside(message: &Value) -> Option<Outside> {
    message.as_object()?;
    let headers = fields(any(message, &["headers", "Headers"]));
    let field = |name: &str| {
        let found = headers.iter().find(|(found, _)| found == name);
        found.map_or(Value::Null, |(_, value)| Value::from(value.as_str()))
    };
    let or = |names: &[&str], name: &str| match any(message, names) {
        Value::Null => field(name),
        found => found.clone(),
    };
    let from = people(&or(&["from", "From", "sender"], "from"));
    let mut head = Head {
        message_id: ids(&or(&["message_id", "messageId", "MessageID"], "message-id")).pop(),
        from,
        reply_to: people(&or(&["reply_to", "replyTo", "ReplyTo"], "reply-to")),
        to: people(&or(&["to", "To"], "to")),
        cc: people(&or(&["cc", "Cc"], "cc")),
        subject: line(
            or(&["subject", "Subject"], "subject")
                .as_str()
                .unwrap_or_default(),
        ),
        in_reply_to: ids(&or(&["in_reply_to", "inReplyTo"], "in-reply-to")),
        references: ids(&or(&["references", "References"], "references")),
        ..Head::default()
    };
    for (name, value) in &headers {
        let lower = value.to_ascii_lowercase();
        let found = automatic(name, &lower).map(str::to_owned);
        head.automatic = head.automatic.take().or(found);
    }
    let envelope = &message["envelope"];
    let return_path = text(envelope, &["from", "mail_from"])
        .or_else(|| text(message, &["envelope_from", "return_path", "mail_from"]));
    let recipients = match any(
        message,
        &["recipient", "recipients", "envelope_to", "rcpt_to"],
    ) {
        Value::Null => people(any(envelope, &["to", "rcpt_to"])),
        found => people(found),
    };
    let dkim = any(message, &["dkim"]);
    let raw = text(message, &["raw", "mime", "raw_mime", "email"]);
    let outside = Outside {
        envelope: Envelope {
            from: return_path.map(|text| mail::address_of(text).unwrap_or_default()),
            ..Envelope::default()
        },
        found: Found {
            spf: result(&message["spf"]),
            dkim: result(dkim),
            dkim_domain: text(message, &["dkim_domain"])
                .or_else(|| text(dkim, &["domain", "header_d", "d"]))
                .map(line),
            dmarc: result(&message["dmarc"]),
        },
        recipients: recipients.into_iter().map(|one| one.address).collect(),
        raw: raw.map(unpacked),
        head,
    };
    let says_something = !outside.head.from.is_empty() || outside.raw.is_some();
    says_something.then_some(outside)
}

/// Bytes as base64, or as they are.
fn unpacked(text: &str) -> Vec<u8> {
    let is_message = text.contains(':') && text.contains('\n');
    match is_message {
        true => text.as_bytes().to_vec(),
        false => decoded(text).unwrap_or_else(|| text.as_bytes().to_vec()),
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let bare: String = text.split_whitespace().collect();
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
        .iter()
        .find_map(|engine| engine.decode(&bare).ok())
}

/// What a message holds: its text, its files, and its HTML.
pub fn content(bytes: &[u8]) -> (Mail, Vec<Vec<u8>>, Option<String>) {
    let message: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let body = |names: &[&str]| {
        let found = text(&message, names).unwrap_or_default();
        let end = (0..=MAX_TEXT.min(found.len()))
            .rev()
            .find(|at| found.is_char_boundary(*at));
        found[..end.unwrap_or(0)].to_owned()
    };
    let mut mail = Mail {
        text: body(&[
            "text",
            "text_body",
            "plain",
            "body",
            "TextBody",
            "body-plain",
        ]),
        ..Mail::default()
    };
    let html = body(&["html", "html_body", "HtmlBody", "body-html"]);
    let mut files = Vec::new();
    let attachments = any(&message, &["attachments", "Attachments"]).as_array();
    for one in attachments.into_iter().flatten() {
        if files.len() == MAX_ATTACHMENTS {
            mail.left_out += 1;
            continue;
        }
        let content = text(one, &["content", "data", "Content", "content_base64"]);
        let Some(content) = content.and_then(decoded) else {
            mail.left_out += 1;
            continue;
        };
        let kind = [
            "content_type",
            "contentType",
            "mime_type",
            "mimeType",
            "type",
            "ContentType",
        ];
        let media_type = text(one, &kind).unwrap_or("application/octet-stream");
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let disposition = text(one, &["disposition", "contentDisposition"]);
        mail.attached.push(Attached {
            name: text(one, &["filename", "file_name", "fileName", "name", "Name"]).map(line),
            media_type: line(media_type).to_ascii_lowercase(),
            is_inline: disposition == Some("inline"),
        });
        files.push(content);
    }
    (mail, files, Some(html).filter(|html| !html.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_of_many_providers_are_known() {
        for message in [
            json!({ "from": "Ann <Ann@x.test>", "to": "help@acme.test", "subject": "Hi",
                "message_id": "<1@x>", "headers": { "References": "<0@x>", "Precedence": "list" },
                "text": "Hello" }),
            json!({ "from": { "address": "ann@x.test", "name": "Ann" }, "subject": "Hi",
                "to": [{ "email": "help@acme.test" }], "body": "Hello",
                "headers": [{ "key": "Message-ID", "value": "<1@x>" },
                    { "name": "references", "value": "<0@x>" }, ["Auto-Submitted", "auto-replied"]] }),
        ] {
            let found = outside(&message).expect("a message");
            assert_eq!(found.head.from[0].address, "ann@x.test");
            assert_eq!(found.head.from[0].name.as_deref(), Some("Ann"));
            assert_eq!(found.head.to[0].address, "help@acme.test");
            assert_eq!(found.head.message_id.as_deref(), Some("1@x"));
            assert_eq!(found.head.references, ["0@x"]);
            assert!(found.head.automatic.is_some());
            let (mail, _, _) = content(message.to_string().as_bytes());
            assert_eq!(mail.text, "Hello");
        }
        assert!(outside(&json!([])).is_none() && outside(&json!({ "a": 1 })).is_none());
    }

    #[test]
    fn files_come_in_base64() {
        let message = json!({ "from": "a@x.test", "attachments": [
            { "filename": "a.txt", "contentType": "text/plain; charset=utf-8", "content": "aGk=" },
            { "filename": "b", "content": "%%%" }] });
        let (mail, files, html) = content(message.to_string().as_bytes());
        assert_eq!(files, [b"hi".to_vec()]);
        assert_eq!((mail.left_out, html), (1, None));
        assert_eq!(mail.attached[0].media_type, "text/plain");
    }

    #[test]
    fn results_are_words_or_objects() {
        let found = outside(&json!({ "from": "a@x.test", "spf": "Pass",
            "dkim": { "result": "pass", "domain": "x.test" },
            "envelope": { "from": "b@x.test", "to": ["help@acme.test"] } }))
        .expect("a message");
        assert_eq!(found.found.spf.as_deref(), Some("pass"));
        assert_eq!(found.found.dkim_domain.as_deref(), Some("x.test"));
        assert_eq!(found.envelope.from.as_deref(), Some("b@x.test"));
        assert_eq!(found.recipients, ["help@acme.test"]);
    }
}
