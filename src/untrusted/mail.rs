//! Mail taken apart, by `mail-parser`: its text, what is attached, and reports of delivery. A message
//! of many tiny parts takes a hundred times its size in memory, which is why it is read in a child.

use mail_parser::{
    HeaderName, HeaderValue, Message, MessageParser, MessagePart, MimeHeaders, PartType,
};
use serde::{Deserialize, Serialize};

use super::letter::Letter;
use super::markup;

/// Lines that may begin a part; what is behind the last is not read.
const MAX_BOUNDARIES: usize = 5_000;
/// Attachments of a message; more are counted.
const MAX_ATTACHMENTS: usize = 50;
/// Of all texts together, in bytes.
const MAX_TEXT: usize = 1024 * 1024;
/// HTML that is longer is read as far as here.
const MAX_HTML: usize = 4 * 1024 * 1024;
/// Recipients in a report of delivery.
const MAX_RECIPIENTS: usize = 100;
/// Columns of text that was HTML.
const WIDTH: usize = 500;

/// What a message holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// The plain text; of a message without one, its HTML as text.
    pub text: String,
    /// Attachments that are not among `attached`.
    pub left_out: usize,
    pub attached: Vec<Attached>,
    /// What a delivery report says (RFC 3464).
    pub report: Option<Report>,
}

/// A file that came with a message; its bytes come beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub name: Option<String>,
    pub media_type: String,
    /// Whether it is shown within the text.
    pub is_inline: bool,
}

/// A delivery report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub recipients: Vec<Reported>,
    /// The Message-ID of what was sent.
    pub message_id: Option<String>,
}

/// What became of a message for one recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    pub address: String,
    /// `failed`, `delayed`, `delivered`, `relayed` or `expanded`.
    pub action: String,
    /// An enhanced status code, such as `5.1.1`.
    pub status: String,
    pub diagnostic: String,
}

/// A message by its parts; one whose parts the parser cannot put together is its header and a text.
fn parsed(raw: &[u8]) -> Option<Message<'_>> {
    let whole = || MessageParser::default().parse(raw);
    std::panic::catch_unwind(whole).unwrap_or_else(|_| {
        let mut message = MessageParser::default().parse_headers(raw)?;
        let body = message
            .parts
            .first()
            .map_or(0, |part| part.offset_body as usize);
        let text = String::from_utf8_lossy(raw.get(body..)?).into_owned();
        if let Some(part) = message.parts.first_mut() {
            part.body = PartType::Text(text.into());
        }
        message.text_body = vec![0];
        Some(message)
    })
}

/// Takes a message apart: what it holds, and the bytes of its attachments in the same order.
pub fn read(raw: &[u8]) -> (Mail, Vec<Vec<u8>>) {
    let raw = bounded(raw);
    let Some(message) = parsed(raw) else {
        return Default::default();
    };
    let mut mail = Mail {
        text: text_of(&message),
        report: report_of(&message),
        ..Mail::default()
    };
    let mut contents = Vec::new();
    for part in message.attachments() {
        if mail.report.is_some() && is_of_report(part) {
            continue;
        }
        if mail.attached.len() == MAX_ATTACHMENTS {
            mail.left_out += 1;
            continue;
        }
        let content = match &part.body {
            PartType::Message(inner) => inner.raw_message().to_vec(),
            PartType::Multipart(_) => continue,
            _ => part.contents().to_vec(),
        };
        if content.is_empty() {
            continue;
        }
        let media_type = media_type(part);
        let name = match &part.body {
            PartType::Message(inner) => Some(named(inner.subject())),
            _ => part.attachment_name().map(str::to_owned),
        };
        let disposition = part.content_disposition();
        mail.attached.push(Attached {
            name,
            is_inline: part.content_id().is_some()
                && !disposition.is_some_and(|found| found.is_attachment()),
            media_type,
        });
        contents.push(content);
    }
    (mail, contents)
}

/// The name of a message that came within another.
fn named(subject: Option<&str>) -> String {
    let subject: String = subject
        .unwrap_or("message")
        .chars()
        .map(|c| if c.is_control() || c == '/' { ' ' } else { c })
        .take(100)
        .collect();
    format!("{}.eml", subject.trim())
}

fn media_type(part: &MessagePart<'_>) -> String {
    match part.content_type() {
        Some(found) => {
            let subtype = found.subtype().unwrap_or("octet-stream");
            format!("{}/{subtype}", found.ctype()).to_ascii_lowercase()
        }
        None => "application/octet-stream".to_owned(),
    }
}

/// As far as it is read.
fn bounded(raw: &[u8]) -> &[u8] {
    let mut seen = 0;
    for at in memchr::memmem::find_iter(raw, b"\n--") {
        seen += 1;
        if seen > MAX_BOUNDARIES {
            return &raw[..at];
        }
    }
    raw
}

fn push_bounded(text: &mut String, more: &str) {
    let left = MAX_TEXT.saturating_sub(text.len());
    let end = (0..=left.min(more.len()))
        .rev()
        .find(|at| more.is_char_boundary(*at));
    text.push_str(&more[..end.unwrap_or(0)]);
}

fn text_of(message: &Message<'_>) -> String {
    let mut text = String::new();
    for part in message.text_bodies() {
        let said = match &part.body {
            PartType::Text(said) => said.to_string(),
            PartType::Html(html) => text_of_html(html),
            _ => continue,
        };
        let said = said.trim_matches('\n');
        if said.trim().is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        push_bounded(&mut text, said);
    }
    if !text.trim().is_empty() {
        return text;
    }
    // The plain part of some mail is empty, and all is in its HTML.
    for part in message.html_bodies() {
        if let PartType::Html(html) = &part.body {
            push_bounded(&mut text, &text_of_html(html));
        }
    }
    text
}

/// HTML as text.
pub fn text_of_html(html: &str) -> String {
    let end = (0..=MAX_HTML.min(html.len()))
        .rev()
        .find(|at| html.is_char_boundary(*at));
    let html = &html[..end.unwrap_or(0)];
    if markup::is_too_deep(html) {
        return markup::flat_text(html);
    }
    html2text::config::with_decorator(Letter::default())
        .string_from_read(html.as_bytes(), WIDTH)
        .unwrap_or_else(|_| markup::flat_text(html))
}

fn is_of_report(part: &MessagePart<'_>) -> bool {
    let kind = media_type(part);
    matches!(
        kind.as_str(),
        "message/delivery-status" | "message/rfc822" | "message/global" | "text/rfc822-headers"
    ) || kind == "message/global-delivery-status"
}

/// What a delivery report says; `None` when it is none.
fn report_of(message: &Message<'_>) -> Option<Report> {
    let kind = message.content_type()?;
    let is_report = kind.ctype().eq_ignore_ascii_case("multipart")
        && kind
            .subtype()
            .is_some_and(|found| found.eq_ignore_ascii_case("report"))
        && kind
            .attribute("report-type")
            .is_some_and(|found| found.eq_ignore_ascii_case("delivery-status"));
    if !is_report {
        return None;
    }
    let mut report = Report::default();
    for part in &message.parts {
        match media_type(part).as_str() {
            "message/delivery-status" | "message/global-delivery-status" => {
                let fields = String::from_utf8_lossy(part.contents());
                report.recipients.extend(reported(&fields));
                report.recipients.truncate(MAX_RECIPIENTS);
            }
            "message/rfc822" | "message/global" => {
                let inner = part.message().and_then(Message::message_id);
                report.message_id = report.message_id.or(inner.map(str::to_owned));
            }
            "text/rfc822-headers" | "message/global-headers" => {
                let fields = [part.contents(), b"\r\n\r\n"].concat();
                let headers = MessageParser::default().parse_headers(&fields);
                let id = headers.and_then(|found| found.message_id().map(str::to_owned));
                report.message_id = report.message_id.or(id);
            }
            _ => {}
        }
    }
    Some(report)
}

/// The recipients of a delivery-status part: blocks of fields, the first of which is of the message.
fn reported(fields: &str) -> Vec<Reported> {
    let mut all = Vec::new();
    let mut one = Reported::default();
    let mut last: Option<&'static str> = None;
    for line in fields.lines().chain([""]) {
        if line.trim().is_empty() {
            if !one.address.is_empty() {
                all.push(std::mem::take(&mut one));
            }
            one = Reported::default();
            last = None;
            if all.len() >= MAX_RECIPIENTS {
                break;
            }
            continue;
        }
        if line.starts_with([' ', '\t']) {
            if last == Some("diagnostic") && one.diagnostic.len() < 1000 {
                one.diagnostic.push(' ');
                one.diagnostic.push_str(line.trim());
            }
            continue;
        }
        last = None;
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        // `rfc822; ann@example.com`, `smtp; 550 5.1.1 no such user`.
        let typed = value.split_once(';').map_or(value, |(_, rest)| rest).trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "final-recipient" => one.address = bare(typed),
            "original-recipient" if one.address.is_empty() => one.address = bare(typed),
            "action" => one.action = value.trim().to_ascii_lowercase(),
            "status" => {
                let word = value.split_whitespace().next().unwrap_or_default();
                one.status = word.to_owned();
            }
            "diagnostic-code" => {
                one.diagnostic = typed.chars().take(1000).collect();
                last = Some("diagnostic");
            }
            _ => {}
        }
    }
    all
}

fn bare(address: &str) -> String {
    let bare = address.trim().trim_start_matches('<').trim_end_matches('>');
    bare.to_ascii_lowercase()
}

/// The header of a message, in words that any form of mail has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// Without its brackets.
    pub message_id: Option<String>,
    pub from: Vec<Person>,
    pub reply_to: Vec<Person>,
    pub to: Vec<Person>,
    pub cc: Vec<Person>,
    pub subject: String,
    pub in_reply_to: Vec<String>,
    pub references: Vec<String>,
    /// Why nobody may answer it by itself.
    pub automatic: Option<String>,
    /// `Authentication-Results`, topmost first.
    pub authentication: Vec<String>,
    /// Where it was delivered to, as the receiving side says.
    pub delivered_to: Vec<String>,
    /// How many servers it passed.
    pub hops: usize,
}

/// A name and an address, which is in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Person {
    pub name: Option<String>,
    pub address: String,
}

/// Addresses of one field.
const MAX_PEOPLE: usize = 100;
/// Message-IDs of one field, of which the last count.
const MAX_IDS: usize = 50;
/// A Message-ID, an address, a subject; in bytes.
const MAX_WORD: usize = 998;

/// Reads the header of a message; the caller has bounded it.
pub fn head(raw: &[u8]) -> Head {
    let Some(message) = MessageParser::default().parse_headers(raw) else {
        return Head::default();
    };
    let mut head = Head {
        message_id: message.message_id().and_then(id),
        from: people(message.from()),
        reply_to: people(message.reply_to()),
        to: message.all_to().flat_map(|to| people(Some(to))).collect(),
        cc: message.all_cc().flat_map(|cc| people(Some(cc))).collect(),
        subject: line(message.subject().unwrap_or_default()),
        in_reply_to: ids(message.in_reply_to()),
        references: ids(message.references()),
        ..Head::default()
    };
    head.to.truncate(MAX_PEOPLE);
    head.cc.truncate(MAX_PEOPLE);
    for (name, value) in message.headers_raw() {
        let value = line(value);
        let lower = value.to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "received" => head.hops += 1,
            "authentication-results" if head.authentication.len() < 10 => {
                head.authentication.push(value);
            }
            "delivered-to" | "x-original-to" | "envelope-to" | "x-envelope-to"
                if head.delivered_to.len() < 10 =>
            {
                head.delivered_to.push(bare(&lower));
            }
            other => {
                head.automatic = head
                    .automatic
                    .take()
                    .or_else(|| automatic(other, &lower).map(str::to_owned));
            }
        }
    }
    head
}

/// Why nobody may answer a message with such a field by itself (RFC 3834, section 2).
pub fn automatic(name: &str, value: &str) -> Option<&'static str> {
    let word = value.split([';', ',', ' ']).next().unwrap_or_default();
    match name {
        "auto-submitted" if !matches!(word, "no" | "") => {
            Some("it was sent by a program (Auto-Submitted)")
        }
        "precedence" if matches!(word, "bulk" | "list" | "junk") => {
            Some("it was sent to many (Precedence)")
        }
        "list-id" if !word.is_empty() => Some("it came over a mailing list (List-Id)"),
        "x-auto-response-suppress"
            if value
                .split([',', ' ', ';'])
                .any(|word| matches!(word, "all" | "autoreply")) =>
        {
            Some("its sender wants no automatic answer (X-Auto-Response-Suppress)")
        }
        "x-autoreply" | "x-autorespond" if word != "no" => Some("it was sent by a program"),
        _ => None,
    }
}

/// One line without control characters, as long as any field may be.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_WORD));
    for c in text.trim().chars() {
        if out.len() + c.len_utf8() > MAX_WORD {
            break;
        }
        if !c.is_control() {
            out.push(c);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

/// A Message-ID without brackets and blanks; `None` when it is none.
pub fn id(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>');
    let is_sane = !text.is_empty()
        && text.len() <= MAX_WORD
        && !text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '<' || c == '>');
    is_sane.then(|| text.to_owned())
}

fn ids(value: &HeaderValue<'_>) -> Vec<String> {
    let texts: Vec<&str> = match value {
        HeaderValue::Text(text) => vec![text.as_ref()],
        HeaderValue::TextList(list) => list.iter().map(AsRef::as_ref).collect(),
        _ => Vec::new(),
    };
    let from = texts.len().saturating_sub(MAX_IDS);
    texts[from..].iter().filter_map(|text| id(text)).collect()
}

fn people(address: Option<&mail_parser::Address<'_>>) -> Vec<Person> {
    let Some(address) = address else {
        return Vec::new();
    };
    address
        .iter()
        .take(MAX_PEOPLE)
        .filter_map(|found| {
            let address = address_of(found.address()?)?;
            let name = found.name().map(line).filter(|name| !name.is_empty());
            Some(Person { name, address })
        })
        .collect()
}

/// An address that a message can be sent to, in lower case; `None` when it is none.
pub fn address_of(text: &str) -> Option<String> {
    let text = text.trim();
    let (local, domain) = text.rsplit_once('@')?;
    // Quoted local parts are nobody's, and the way of many an injection.
    let is_local = |c: char| !c.is_control() && !c.is_whitespace() && !"<>()[]\\,;:\"@".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || c == '.' || c == '-';
    let is_sane = !local.is_empty()
        && local.len() <= 64
        && !domain.is_empty()
        && text.len() <= 254
        && local.chars().all(is_local)
        && domain.chars().all(is_domain)
        && !domain.starts_with(['.', '-'])
        && !domain.ends_with('.');
    is_sane.then(|| text.to_lowercase())
}

/// Addresses as people write them: `Ann <ann@example.com>, bob@example.com`.
pub fn people_of(text: &str) -> Vec<Person> {
    // What begins a line of its own is no part of a field.
    let ends = text.trim().match_indices('\n');
    let end = ends
        .map(|(at, _)| at)
        .find(|at| !text.trim()[at + 1..].starts_with([' ', '\t']));
    let text = &text.trim()[..end.unwrap_or(text.trim().len())];
    let header = format!("To: {}\r\n\r\n", line(text));
    let parsed = MessageParser::default().parse_headers(header.as_bytes());
    parsed.map_or_else(Vec::new, |found| {
        people(
            found
                .header(HeaderName::To)
                .and_then(HeaderValue::as_address),
        )
    })
}

#[cfg(test)]
#[path = "mail_tests.rs"]
mod tests;
