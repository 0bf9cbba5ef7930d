//! What mail means.

use std::sync::Arc;

use serde_json::json;

use super::arrival::{Form, Found, Kept};
use super::verify::{self, Verdict};
use super::{Email, Settings, account, bounce, deployments, normal, quote};
use crate::channel::files::part_of;
use crate::channel::{Command, Fault, Hub, Meaning, Said, Sender};
use crate::store::InboundRow;
use crate::untrusted::mail::{Attached, Mail};

const HOUR: i64 = 3600 * 1_000_000;
/// How often a message waits for the DNS; then its sender is not verified.
const MAX_WAITS: i64 = 3;
/// Message-IDs that an answer refers to: the first, and so many of the last.
const MAX_REFERENCES: usize = 20;
/// Pictures within a text that are smaller are marks of programs, not what somebody sent; in bytes.
const MIN_PICTURE: usize = 1024;

/// What an arrival means.
pub async fn interpret(email: &Email, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
    let kept: Kept =
        serde_json::from_str(&arrival.data).map_err(|error| Fault::Never(error.to_string()))?;
    let tenant_id = &arrival.tenant_id;
    let account = account(hub, tenant_id).await?;
    let settings = Settings::of(&account.settings);
    // A report has no return path (RFC 3464, section 2).
    if kept.envelope.from.as_deref().is_none_or(str::is_empty) {
        let content = content_of(hub, tenant_id, &kept).await?;
        let (mail, _) = read(hub, tenant_id, kept.form, content).await?;
        if let Some(report) = &mail.report {
            return bounce::told(hub, arrival, report).await;
        }
    }
    if kept.envelope.from.as_deref() == Some("") {
        return Ok(Meaning::Nothing("it has no return path"));
    }
    if kept.head.automatic.is_some() {
        return Ok(Meaning::Nothing(
            "it was sent by a program or to many, and is not answered",
        ));
    }
    let [from] = kept.head.from.as_slice() else {
        return Ok(Meaning::Nothing("it is not from one sender"));
    };
    let local = from.address.split('@').next().unwrap_or_default();
    if ["mailer-daemon", "postmaster"].contains(&local) {
        return Ok(Meaning::Nothing("it was sent by a mail server"));
    }
    if is_own(hub, tenant_id, &settings, &kept, &from.address).await? {
        return Ok(Meaning::Nothing("it was sent from an address of ours"));
    }
    let most = i64::from(hub.config.email.max_per_sender_hour);
    // It is noted before it is an arrival; those that came behind it do not count.
    let until = arrival.created_at;
    let sent = hub
        .store
        .emails_of(tenant_id, &from.address, until - HOUR, until, most + 1)
        .await?;
    if sent > most {
        return Ok(Meaning::Nothing("its sender writes too often"));
    }
    let content = content_of(hub, tenant_id, &kept).await?;
    let verdict = match told_by_hop(&kept, &settings) {
        Some(verdict) => verdict,
        None => {
            let authenticator = email.authenticator(hub)?;
            let hostname = hub.config.email.hostname.clone();
            let (from, envelope) = (from.address.clone(), kept.envelope.clone());
            let content = content.clone();
            verify::verify(authenticator, content, from, envelope, hostname).await
        }
    };
    match verdict {
        Verdict::Unknown if arrival.takings <= MAX_WAITS => {
            return Err(Fault::later("the sender's domain cannot be looked up now"));
        }
        Verdict::Forged => {
            return Ok(Meaning::Nothing(
                "it is forged: the sender's domain refuses such mail (DMARC)",
            ));
        }
        _ if verdict != Verdict::Verified && settings.require_verified => {
            return Ok(Meaning::Nothing("its sender is not verified"));
        }
        _ => {}
    }
    let (mail, files) = read(hub, tenant_id, kept.form, content).await?;
    let mut said = said(&kept, &settings, &mail, verdict == Verdict::Verified);
    said.chat.clone_from(&arrival.subject);
    if said.command.is_none() {
        attach(hub, tenant_id, &mail, files, &mut said).await?;
        if said.text.is_empty() && said.parts.is_empty() {
            return Ok(Meaning::Nothing("there is nothing in it to answer"));
        }
    }
    Ok(Meaning::Said(Box::new(said)))
}

async fn content_of(hub: &Hub, tenant_id: &str, kept: &Kept) -> Result<Vec<u8>, Fault> {
    let found = hub.store.email_content(tenant_id, &kept.content).await?;
    found.ok_or_else(|| Fault::Never("the message is kept no more".to_owned()))
}

async fn read(
    hub: &Hub,
    tenant_id: &str,
    form: Form,
    content: Vec<u8>,
) -> Result<(Mail, Vec<Vec<u8>>), Fault> {
    let tenant: Arc<str> = Arc::from(tenant_id);
    let refused = |error: crate::untrusted::SandboxError| {
        let why = error.told("the message");
        match error.may_pass() {
            true => Fault::later(why),
            false => Fault::Never(why),
        }
    };
    match form {
        Form::Mime => {
            let done = hub.sandbox.mail(&tenant, content);
            done.await.map_err(refused)
        }
        Form::Json => {
            let (mut mail, files, html) = normal::content(&content);
            if mail.text.trim().is_empty()
                && let Some(html) = html
            {
                mail.text = hub.sandbox.html(&tenant, html).await.map_err(refused)?;
            }
            Ok((mail, files))
        }
    }
}

/// Whether mail comes from where our own does: an answer would come back here.
async fn is_own(
    hub: &Hub,
    tenant_id: &str,
    settings: &Settings,
    kept: &Kept,
    from: &str,
) -> Result<bool, Fault> {
    if !settings.has(from) {
        return Ok(false);
    }
    if from == kept.mailbox || from.eq_ignore_ascii_case(&settings.default_mailbox()) {
        return Ok(true);
    }
    let deployments = deployments(hub, tenant_id).await?;
    let mut addresses = deployments.iter().filter_map(|one| one.address.as_deref());
    Ok(addresses.any(|address| address.eq_ignore_ascii_case(from)))
}

/// What the receiving hop found, where it is one that is believed: whoever knows the secret and says
/// it beside the message, or the one named in the account at the top of the message.
fn told_by_hop(kept: &Kept, settings: &Settings) -> Option<Verdict> {
    let from = &kept.head.from.first()?.address;
    if kept.form == Form::Json || kept.found != Found::default() {
        return Some(verify::told(&kept.found, from, &kept.envelope));
    }
    if kept.envelope.ip.is_some() {
        return None;
    }
    let hop = settings.authserv_id.as_deref()?;
    let topmost = kept.head.authentication.first()?;
    let found = verify::results(topmost, hop)?;
    Some(verify::told(&found, from, &kept.envelope))
}

fn said(kept: &Kept, settings: &Settings, mail: &Mail, is_verified: bool) -> Said {
    let head = &kept.head;
    let from = head.from.first().cloned().unwrap_or_default();
    let text = mail.text.replace('\0', "");
    let mut text = quote::fresh(&text, &head.subject);
    let command = command(&text);
    let is_first = head.references.is_empty() && head.in_reply_to.is_empty();
    if is_first && !head.subject.is_empty() && command.is_none() {
        text = format!("Subject: {}\n\n{text}", head.subject);
    }
    // Where a sender is not verified, an answer goes to nobody but who is named as the sender.
    let answer_to = head
        .reply_to
        .first()
        .filter(|_| is_verified)
        .unwrap_or(&from);
    let own: Vec<&String> = head.references.iter().chain(&head.message_id).collect();
    let skip = own.len().saturating_sub(MAX_REFERENCES);
    let first = own.first().filter(|_| skip > 0);
    let references: Vec<&String> = first
        .into_iter()
        .chain(own.iter().skip(skip))
        .copied()
        .collect();
    let name = head.message_id.clone();
    Said {
        sender: Sender {
            id: from.address.clone(),
            name: from.name.clone(),
            is_verified,
        },
        chat: String::new(),
        is_private: head.to.len() + head.cc.len() <= 1,
        text: text.trim().to_owned(),
        parts: Vec::new(),
        message: name.clone().unwrap_or_else(|| kept.content.clone()),
        reply_to: json!({ "to": answer_to.address, "to_name": answer_to.name,
            "mailbox": mailbox(kept, settings), "subject": head.subject, "in_reply_to": name,
            "references": references }),
        command,
        is_edit: false,
    }
}

fn mailbox(kept: &Kept, settings: &Settings) -> String {
    match settings.has(&kept.mailbox) {
        true => kept.mailbox.clone(),
        false => settings.default_mailbox(),
    }
}

/// A command is all that is said, or the first line of it.
fn command(text: &str) -> Option<Command> {
    let line = text.trim().lines().next()?;
    let mut words = line.split_whitespace();
    let name = words.next()?.strip_prefix('/')?.to_ascii_lowercase();
    let token = words.next().map(str::to_owned);
    if words.next().is_some() || (name != "start" && token.is_some()) {
        return None;
    }
    Some(match name.as_str() {
        "start" => Command::Start(token),
        "new" => Command::New,
        "stop" => Command::Stop,
        "help" => Command::Help,
        _ => return None,
    })
}

/// Adds what came with a message: files are kept here first.
async fn attach(
    hub: &Hub,
    tenant_id: &str,
    mail: &Mail,
    files: Vec<Vec<u8>>,
    said: &mut Said,
) -> Result<(), Fault> {
    let mut left_out = mail.left_out;
    for (attached, content) in mail.attached.iter().zip(files) {
        let is_image = is_picture(attached);
        if attached.is_inline && is_image && content.len() < MIN_PICTURE {
            continue;
        }
        let name = attached.name.clone().filter(|name| !name.trim().is_empty());
        let name = name.map(|name| name.replace('\0', ""));
        let name = name.unwrap_or_else(|| default_name(attached));
        if content.len() > hub.config.max_file_bytes {
            let line = format!("\n[A file, {name}, is too large to read.]");
            said.text.push_str(&line);
            continue;
        }
        // A turn has so many parts.
        if said.parts.len() >= 20 {
            left_out += 1;
            continue;
        }
        let media_type = Some(attached.media_type.as_str());
        let id = hub
            .keep_file(tenant_id, &name, media_type, content.into())
            .await?;
        said.parts.push(part_of(id, &name, is_image));
    }
    if left_out > 0 {
        said.text
            .push_str(&format!("\n[{left_out} more files are left out.]"));
    }
    Ok(())
}

fn is_picture(attached: &Attached) -> bool {
    ["image/png", "image/jpeg", "image/gif", "image/webp"].contains(&attached.media_type.as_str())
}

fn default_name(attached: &Attached) -> String {
    let kind = attached.media_type.rsplit('/').next().unwrap_or("bin");
    let is_word = |c: char| c.is_ascii_alphanumeric();
    match kind {
        kind if kind.len() <= 8 && kind.chars().all(is_word) => format!("attachment.{kind}"),
        _ => "attachment.bin".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::email::arrival::Envelope;
    use crate::untrusted::mail::{Head, Person};

    fn kept() -> Kept {
        let person = |address: &str| Person {
            name: Some("Ann".to_owned()),
            address: address.to_owned(),
        };
        Kept {
            form: Form::Mime,
            content: "c".to_owned(),
            size: 1,
            mailbox: "help@acme.test".to_owned(),
            envelope: Envelope::default(),
            head: Head {
                message_id: Some("1@x".to_owned()),
                from: vec![person("ann@x.test")],
                reply_to: vec![person("other@y.test")],
                subject: "Hello".to_owned(),
                ..Head::default()
            },
            found: Default::default(),
        }
    }

    fn settings() -> Settings {
        Settings {
            from_domain: "acme.test".to_owned(),
            mailbox: "smith".to_owned(),
            ..Settings::default()
        }
    }

    fn mail(text: &str) -> Mail {
        Mail {
            text: text.to_owned(),
            ..Mail::default()
        }
    }

    #[test]
    fn an_answer_goes_elsewhere_only_for_the_verified() {
        let to = |is_verified| {
            let said = said(&kept(), &settings(), &mail("hi"), is_verified);
            said.reply_to["to"].as_str().map(str::to_owned)
        };
        assert_eq!(to(false).as_deref(), Some("ann@x.test"));
        assert_eq!(to(true).as_deref(), Some("other@y.test"));
    }

    #[test]
    fn the_first_message_has_its_subject() {
        let first = said(&kept(), &settings(), &mail("hi\0"), true);
        assert_eq!(first.text, "Subject: Hello\n\nhi");
        let mut kept = kept();
        kept.head.in_reply_to = vec!["0@x".to_owned()];
        kept.head.references = (0..50).map(|n| format!("{n}@x")).collect();
        let next = said(&kept, &settings(), &mail("hi"), true);
        assert_eq!(next.text, "hi");
        let references = next.reply_to["references"].as_array().expect("some");
        assert_eq!((references.len(), &references[0]), (21, &json!("0@x")));
        assert_eq!(references[20], "1@x");
    }

    #[test]
    fn commands_are_lines_of_their_own() {
        assert_eq!(command("/new\n\nthanks"), Some(Command::New));
        assert_eq!(
            command(" /start abc "),
            Some(Command::Start(Some("abc".to_owned())))
        );
        assert_eq!(command("/stop it now"), None);
        assert_eq!(command("/new things"), None);
        assert_eq!(command("hello /new"), None);
    }
}
