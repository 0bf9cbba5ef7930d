//! A letter: a model's Markdown as text and as HTML. Nothing that a model or a stranger wrote becomes a
//! line of the header or a tag.

use std::time::SystemTime;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use crate::channel::Outgoing;
use crate::channel::markdown::options;
use crate::untrusted::mail::line;

/// Longest subject, in characters.
const MAX_SUBJECT: usize = 200;
const SCHEMES: [&str; 4] = ["http://", "https://", "mailto:", "tel:"];

/// What a letter says on its outside.
#[derive(Debug, Clone)]
pub struct Outside {
    pub from: String,
    pub from_name: Option<String>,
    pub to: String,
    pub to_name: Option<String>,
    pub subject: String,
    /// Without brackets, as the following.
    pub message_id: String,
    pub in_reply_to: Option<String>,
    pub references: Vec<String>,
}

/// A letter, ready to be signed and sent.
pub fn letter(outside: &Outside, markdown: &str, files: &[Outgoing]) -> Result<Vec<u8>, String> {
    let mailbox = |address: &str, name: &Option<String>| {
        let address: Address = address
            .parse()
            .map_err(|error| format!("{address} is no address: {error}"))?;
        let name = name.as_deref().map(line).filter(|name| !name.is_empty());
        Ok::<_, String>(Mailbox::new(name, address))
    };
    let bracketed = |id: &String| format!("<{id}>");
    let mut builder = Message::builder()
        .from(mailbox(&outside.from, &outside.from_name)?)
        .to(mailbox(&outside.to, &outside.to_name)?)
        .subject(subject(&outside.subject))
        .date(SystemTime::now())
        .message_id(Some(bracketed(&outside.message_id)));
    if let Some(id) = &outside.in_reply_to {
        builder = builder.in_reply_to(bracketed(id));
    }
    if !outside.references.is_empty() {
        let all: Vec<String> = outside.references.iter().map(bracketed).collect();
        builder = builder.references(all.join(" "));
    }
    // RFC 3834: nobody's program answers it. To programs of Exchange the other field says so.
    let submitted = match outside.in_reply_to {
        Some(_) => "auto-replied",
        None => "auto-generated",
    };
    let field = |name: &'static str, value: &str| {
        HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
    };
    builder = builder
        .raw_header(field("Auto-Submitted", submitted))
        .raw_header(field("X-Auto-Response-Suppress", "All"));
    let part = |kind: ContentType, body: String| SinglePart::builder().header(kind).body(body);
    let body = MultiPart::alternative()
        .singlepart(part(ContentType::TEXT_PLAIN, plain(markdown)))
        .singlepart(part(ContentType::TEXT_HTML, html(markdown)));
    let body = match files {
        [] => body,
        files => files
            .iter()
            .fold(MultiPart::mixed().multipart(body), |body, file| {
                body.singlepart(attached(file))
            }),
    };
    let message = builder
        .multipart(body)
        .map_err(|error| format!("the letter cannot be written: {error}"))?;
    Ok(message.formatted())
}

fn attached(file: &Outgoing) -> SinglePart {
    let kind = ContentType::parse(&file.media_type);
    let kind = kind.or_else(|_| ContentType::parse("application/octet-stream"));
    let kind = kind.unwrap_or(ContentType::TEXT_PLAIN);
    Attachment::new(file.name.clone()).body(file.content.to_vec(), kind)
}

fn subject(text: &str) -> String {
    let subject: String = line(text).chars().take(MAX_SUBJECT).collect();
    match subject.is_empty() {
        true => "(no subject)".to_owned(),
        false => subject,
    }
}

/// The subject of an answer.
pub fn answer_to(subject: &str) -> String {
    let begins = subject
        .get(..3)
        .is_some_and(|begin| begin.eq_ignore_ascii_case("re:"));
    match begins {
        true => subject.to_owned(),
        false => format!("Re: {subject}"),
    }
}

/// Of a letter that answers nothing: its first line, without marks.
pub fn first_line(markdown: &str) -> String {
    let line = markdown
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty());
    let plain: String = line
        .unwrap_or_default()
        .trim_start_matches(['#', '>', '-', '*', ' '])
        .replace(['*', '`'], "");
    let mut subject: String = plain.chars().take(80).collect();
    if subject.len() < plain.len() {
        subject.push('…');
    }
    subject
}

/// Markdown is what people write as plain text.
fn plain(markdown: &str) -> String {
    let mut text: String = markdown
        .trim()
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    text.push('\n');
    text
}

/// Markdown as HTML. Tags are shown as they are written; pictures become links, since to show one is to
/// tell its server; links lead only where people follow them.
pub fn html(markdown: &str) -> String {
    let text = plain(markdown);
    // Whether each link that is open is shown as one.
    let mut links = Vec::new();
    let events = Parser::new_ext(&text, options()).filter_map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            let lower = dest_url.to_ascii_lowercase();
            let is_shown = SCHEMES.iter().any(|scheme| lower.starts_with(scheme));
            // HTML has no link within a link.
            let is_shown = is_shown && !links.contains(&true);
            links.push(is_shown);
            is_shown.then(|| {
                Event::Start(Tag::Link {
                    link_type: pulldown_cmark::LinkType::Inline,
                    dest_url,
                    title: "".into(),
                    id: "".into(),
                })
            })
        }
        Event::End(TagEnd::Link | TagEnd::Image) => {
            let is_shown = links.pop().unwrap_or(false);
            is_shown.then_some(Event::End(TagEnd::Link))
        }
        Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) => None,
        event => Some(event),
    });
    let mut body = String::with_capacity(text.len() * 2);
    pulldown_cmark::html::push_html(&mut body, events);
    format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head>\
         <body style=\"font-family: sans-serif; line-height: 1.5\">\n{body}</body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside() -> Outside {
        Outside {
            from: "help@acme.test".to_owned(),
            from_name: Some("Smith\r\nBcc: x@y.z".to_owned()),
            to: "ann@x.test".to_owned(),
            to_name: None,
            subject: "Grüße\r\nBcc: x@y.z".to_owned(),
            message_id: "obm_1-0@acme.test".to_owned(),
            in_reply_to: Some("1@x.test".to_owned()),
            references: vec!["0@x.test".to_owned(), "1@x.test".to_owned()],
        }
    }

    #[test]
    fn no_header_can_be_added() {
        let letter =
            letter(&outside(), "Hi **there**\r\n\r\n.\r\nBcc: q@y.z", &[]).expect("written");
        let letter = String::from_utf8(letter).expect("text");
        let (head, _) = letter.split_once("\r\n\r\n").expect("a header");
        assert!(!head.contains("\r\nBcc"), "{head}");
        assert!(head.contains("Message-ID: <obm_1-0@acme.test>"), "{head}");
        assert!(head.contains("In-Reply-To: <1@x.test>"), "{head}");
        assert!(head.contains("References: <0@x.test> <1@x.test>"), "{head}");
        assert!(head.contains("Auto-Submitted: auto-replied"), "{head}");
        let (found, parsed) = crate::channel::email::decode(letter.as_bytes());
        assert_eq!(found.subject, "Grüße Bcc: x@y.z");
        assert!(found.automatic.is_some());
        assert!(parsed.text.starts_with("Hi **there**"), "{}", parsed.text);
    }

    #[test]
    fn a_model_writes_no_tags() {
        let html = html(
            "<script>alert(1)</script>\n\nA <b onclick=x>b</b> [x](javascript:alert(1)) \
             ![p](https://x.test/p.png) [ok](https://x.test/?a=\"b) **bold**\n\n```rust\n\
             let a = \"<\";\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        );
        for bad in ["<script", "<b ", "javascript:", "<img", "onclick=x>b</b> <"] {
            assert!(!html.contains(bad), "{bad}: {html}");
        }
        for good in [
            "<a href=\"https://x.test/p.png\">p</a>",
            "<strong>bold</strong>",
            "let a = \"&lt;\";",
            "<table>",
        ] {
            assert!(html.contains(good), "{good}: {html}");
        }
    }

    #[test]
    fn subjects_are_short_lines() {
        assert_eq!(answer_to("Hello"), "Re: Hello");
        assert_eq!(answer_to("RE: Hello"), "RE: Hello");
        assert_eq!(answer_to("äß"), "Re: äß");
        assert_eq!(first_line("\n## **Your** order\n\nx"), "Your order");
        assert_eq!(subject(" \r\n "), "(no subject)");
    }
}
