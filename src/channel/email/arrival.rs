//! Mail that has come, by whatever way: kept as it is, under its own name, before anybody is told that
//! it was taken.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::KIND;
use crate::channel::{Arrival, Hub};
use crate::error::ApiError;
use crate::store::{EmailMessageRow, now_micros};
use crate::untrusted::mail::Head;

/// Messages that one refers to, of which so many are looked for.
const MAX_LOOKED_FOR: usize = 12;

/// The form that mail came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// RFC 5322.
    Mime,
    /// What a provider made of it.
    Json,
}

/// What the way says of a message.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Envelope {
    /// The return path: empty for reports; `None` where nobody said.
    pub from: Option<String>,
    /// Of the server that brought it.
    pub ip: Option<IpAddr>,
    /// What that called itself.
    pub helo: Option<String>,
    pub tls: bool,
}

/// What the receiving hop found, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    pub spf: Option<String>,
    pub dkim: Option<String>,
    /// Whose signature that is of.
    pub dkim_domain: Option<String>,
    pub dmarc: Option<String>,
}

/// A message that was kept, as its arrival has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    pub form: Form,
    /// Where it is kept.
    pub content: String,
    /// Its size in bytes.
    pub size: usize,
    /// The address that it came to.
    pub mailbox: String,
    pub envelope: Envelope,
    pub head: Head,
    #[serde(default)]
    pub found: Found,
}

/// A short name of a text, which says nothing of it.
pub fn short(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..18])
}

/// A message that has come.
pub struct Coming<'a> {
    pub form: Form,
    pub content: &'a [u8],
    pub head: Head,
    /// The tenant's addresses that it came to.
    pub mailboxes: &'a [String],
    pub envelope: Envelope,
    pub found: Found,
}

/// Keeps a message, once for each address that it came to.
pub async fn accept(hub: &Hub, tenant_id: &str, coming: Coming<'_>) -> Result<(), ApiError> {
    let content = hex::encode(digest(&SHA256, coming.content));
    let now = now_micros();
    hub.store
        .put_email_content(tenant_id, &content, coming.content, now)
        .await?;
    let head = &coming.head;
    let name = head.message_id.clone();
    let name = name.unwrap_or_else(|| format!("{content}@content"));
    let sender = match head.from.as_slice() {
        [one] => one.address.clone(),
        _ => String::new(),
    };
    for mailbox in coming.mailboxes {
        let chat = chat_of(hub, tenant_id, head, mailbox, &sender, &name).await?;
        let people = head.from.iter().chain(&head.to).chain(&head.cc);
        let mut people: Vec<&str> = people.map(|one| one.address.as_str()).collect();
        people.push(mailbox);
        // Before the arrival, so that what comes behind it counts it.
        hub.store
            .note_email(&EmailMessageRow {
                tenant_id: tenant_id.to_owned(),
                id: short(&name),
                chat: chat.clone(),
                sender: sender.clone(),
                people: json!(people).to_string(),
                outbound_id: None,
                created_at: now,
            })
            .await?;
        let kept = Kept {
            form: coming.form,
            content: content.clone(),
            size: coming.content.len(),
            mailbox: mailbox.clone(),
            envelope: coming.envelope.clone(),
            head: head.clone(),
            found: coming.found.clone(),
        };
        let arrival = Arrival {
            key: format!("{name} {mailbox}"),
            kind: "message".to_owned(),
            subject: chat,
            data: serde_json::to_value(&kept).map_err(ApiError::internal)?,
        };
        hub.accept(tenant_id, KIND, arrival).await?;
    }
    Ok(())
}

/// The conversation of a message: that of the message which it answers, when its sender had that; else
/// one named after where its thread began, between this sender and this address alone.
async fn chat_of(
    hub: &Hub,
    tenant_id: &str,
    head: &Head,
    mailbox: &str,
    sender: &str,
    name: &str,
) -> Result<String, ApiError> {
    let answered = head.in_reply_to.iter().rev();
    let mut looked_for: Vec<&String> = Vec::new();
    for id in answered.chain(head.references.iter().rev()) {
        if looked_for.len() < MAX_LOOKED_FOR && !looked_for.contains(&id) {
            looked_for.push(id);
        }
    }
    for id in looked_for {
        let found = hub.store.email_message(tenant_id, &short(id)).await?;
        let Some(found) = found else { continue };
        let people: Vec<String> = serde_json::from_str(&found.people).unwrap_or_default();
        if people.iter().any(|one| one == sender) {
            return Ok(found.chat);
        }
    }
    let begun = head.references.first().or(head.in_reply_to.first());
    let begun = begun.map_or(name, String::as_str);
    Ok(short(&format!("{mailbox}\n{sender}\n{begun}")))
}
