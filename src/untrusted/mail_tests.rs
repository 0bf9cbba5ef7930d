use super::*;

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

#[test]
fn a_message_with_both_texts_and_a_file_is_read() {
    let raw = crlf(
        "From: Ann <Ann@Example.com>\nTo: help@acme.test\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\
         Message-ID: <1@example.com>\nReferences: <a@x> <b@x>\nMIME-Version: 1.0\n\
         Content-Type: multipart/mixed; boundary=m\n\n--m\n\
         Content-Type: multipart/alternative; boundary=a\n\n--a\nContent-Type: text/plain\n\n\
         Hello\n--a\nContent-Type: text/html\n\n<p>Hello <b>there</b></p>\n--a--\n--m\n\
         Content-Type: text/csv; name=a.csv\nContent-Disposition: attachment; filename=a.csv\n\
         Content-Transfer-Encoding: base64\n\nYSxi\n--m--\n",
    );
    let head = head(&raw);
    assert_eq!(head.from[0].address, "ann@example.com");
    assert_eq!(
        (head.subject.as_str(), head.message_id.as_deref()),
        ("Grüße", Some("1@example.com"))
    );
    assert_eq!(head.references, ["a@x", "b@x"]);
    let (mail, files) = read(&raw);
    assert_eq!(mail.text, "Hello");
    assert_eq!(files, [b"a,b".to_vec()]);
    assert_eq!(
        (
            mail.attached[0].name.as_deref(),
            mail.attached[0].media_type.as_str()
        ),
        (Some("a.csv"), "text/csv")
    );
}

#[test]
fn html_alone_becomes_text() {
    let raw = crlf(
        "Subject: x\nContent-Type: text/html; charset=utf-8\n\n<html><style>p{}</style>\
         <p>Is it <b>open</b>?</p><script>bad()</script><ul><li>one<li>two</ul></html>",
    );
    let (mail, _) = read(&raw);
    assert!(
        mail.text.contains("Is it open?") && mail.text.contains("two"),
        "{}",
        mail.text
    );
    assert!(!mail.text.contains("bad()"), "{}", mail.text);
}

#[test]
fn a_report_names_who_was_not_reached() {
    let raw = crlf(
        "From: MAILER-DAEMON@mx.test\nContent-Type: multipart/report; \
         report-type=delivery-status; boundary=r\n\n--r\n\nIt failed.\n--r\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.test\n\n\
         Final-Recipient: rfc822; Ann@Example.com\nAction: failed\nStatus: 5.1.1\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such\n user here\n--r\n\
         Content-Type: message/rfc822\n\nMessage-ID: <out-1@acme.test>\nSubject: hi\n\nText\n\
         --r--\n",
    );
    let (mail, files) = read(&raw);
    let report = mail.report.expect("a report");
    assert_eq!(report.message_id.as_deref(), Some("out-1@acme.test"));
    assert_eq!(
        report.recipients,
        [Reported {
            address: "ann@example.com".to_owned(),
            action: "failed".to_owned(),
            status: "5.1.1".to_owned(),
            diagnostic: "550 5.1.1 no such user here".to_owned(),
        }]
    );
    assert!(files.is_empty());
}

#[test]
fn what_is_automatic_says_so() {
    let of = |field: &str| head(format!("{field}\r\nFrom: a@b.c\r\n\r\n").as_bytes()).automatic;
    for field in [
        "Auto-Submitted: auto-replied",
        "auto-submitted: auto-generated (rejected)",
        "Precedence: bulk",
        "List-Id: <x.example.com>",
        "X-Auto-Response-Suppress: OOF, AutoReply",
        "X-Auto-Response-Suppress: All",
    ] {
        assert!(of(field).is_some(), "{field}");
    }
    for field in ["Auto-Submitted: no", "Precedence: normal", "X-Other: list"] {
        assert_eq!(of(field), None, "{field}");
    }
}

#[test]
fn addresses_hold_nothing_that_ends_a_line() {
    assert_eq!(
        address_of(" Ann@Example.COM "),
        Some("ann@example.com".to_owned())
    );
    for bad in [
        "ann",
        "@x",
        "a@",
        "a b@x.y",
        "a@x.y\r\nBcc: z@x",
        "a@b@c",
        "a@.x",
        "<a@x.y>",
        "\"a b\"@x.y",
    ] {
        assert_eq!(address_of(bad), None, "{bad}");
    }
    let people = people_of("Ann <a@x.test>, b@x.test\r\nBcc: z@x.test");
    assert!(
        people.iter().all(|found| found.address != "z@x.test"),
        "{people:?}"
    );
    assert_eq!(people[0].name.as_deref(), Some("Ann"));
}

#[test]
fn a_million_parts_are_few() {
    let raw = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n{}",
        "--b\n\nx\n".repeat(200_000)
    );
    let (mail, files) = read(raw.as_bytes());
    assert!(files.len() <= MAX_ATTACHMENTS && mail.text.len() <= MAX_TEXT);
}

#[test]
fn history_in_html_is_history() {
    let raw = crlf(
        "Subject: Re: x\nContent-Type: text/html; charset=utf-8\n\n<div dir=ltr>Yes, see \
         <a href=\"https://x.test/a\">this</a>.</div><br><div class=gmail_quote><div dir=ltr>On Sat, \
         28 Nov 2026 at 10:00, Smith &lt;<a href=\"mailto:s@acme.test\">s@acme.test</a>&gt; \
         wrote:<br></div><blockquote class=gmail_quote>Hello<br>there<p>Bye</p></blockquote></div>",
    );
    let (head, mail) = crate::channel::email::decode(&raw);
    assert_eq!(head.subject, "Re: x");
    assert_eq!(mail.text, "Yes, see this <https://x.test/a>.");
}
