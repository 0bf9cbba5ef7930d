//! What is new in a message: without the history that mail programs put below an answer, and without a
//! signature. Whatever is not surely history stays; a message of which nothing would be left stays whole.

/// Words by which forwarded mail begins; what comes below is what it is about.
const FORWARDED: [&str; 6] = [
    "forwarded message",
    "weitergeleitete nachricht",
    "message transféré",
    "mensaje reenviado",
    "begin forwarded message",
    "messaggio inoltrato",
];
/// How subjects of forwarded mail begin.
const FORWARDS: [&str; 7] = ["fwd:", "fw:", "wg:", "tr:", "rv:", "i:", "enc:"];
/// Names of fields in the header that Outlook puts above history.
const FROM: [&str; 9] = [
    "from:",
    "von:",
    "de:",
    "da:",
    "van:",
    "från:",
    "fra:",
    "od:",
    "expéditeur:",
];
const OTHERS: [&str; 24] = [
    "sent:",
    "date:",
    "to:",
    "subject:",
    "cc:",
    "gesendet:",
    "datum:",
    "an:",
    "betreff:",
    "envoyé:",
    "envoyé :",
    "à:",
    "objet:",
    "enviado:",
    "para:",
    "asunto:",
    "inviato:",
    "oggetto:",
    "verzonden:",
    "aan:",
    "onderwerp:",
    "skickat:",
    "till:",
    "ämne:",
];
/// Last lines that programs add.
const SENT_FROM: [&str; 7] = [
    "sent from my ",
    "get outlook for ",
    "von meinem ",
    "gesendet von ",
    "envoyé de mon ",
    "enviado desde mi ",
    "sent with ",
];
/// Lines of an attribution (`On …, Ann wrote:`) that programs have broken.
const MAX_ATTRIBUTION: usize = 4;

/// What is new in a text under a subject.
pub fn fresh(text: &str, subject: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\u{a0}', " ");
    let subject = subject.trim().to_lowercase();
    let lines: Vec<&str> = text.lines().collect();
    let is_forward = FORWARDS.iter().any(|word| subject.starts_with(word))
        || lines.iter().any(|line| is_forward_mark(line));
    let mut end = lines.len();
    if !is_forward {
        end = history_begins(&lines);
    }
    end = without_signature(&lines[..end]);
    let kept = lines[..end].join("\n");
    match kept.trim() {
        "" => text.trim().to_owned(),
        kept => kept.to_owned(),
    }
}

fn is_forward_mark(line: &str) -> bool {
    let line = line.trim().to_lowercase();
    let bare = line.trim_matches(|c: char| c == '-' || c == ' ' || c == ':');
    line.len() < 80 && FORWARDED.contains(&bare)
}

fn is_quoted(line: &str) -> bool {
    line.trim_start().starts_with('>')
}

/// The number of the line with which history begins; that of all lines when there is none.
fn history_begins(lines: &[&str]) -> usize {
    for (at, line) in lines.iter().enumerate() {
        if is_divider(line) || is_header(&lines[at..]) {
            let mut begin = at;
            // A rule above belongs to it.
            while begin > 0 && is_rule_or_blank(lines[begin - 1]) {
                begin -= 1;
            }
            return begin;
        }
    }
    // Quotes at the end; those with words between or below them are what is answered.
    let last = lines.iter().rposition(|line| !line.trim().is_empty());
    let Some(last) = last.filter(|last| is_quoted(lines[*last])) else {
        // An attribution without quotes, whose history some program has cut off or indented. With quotes
        // the answer is below them.
        if lines.iter().any(|line| is_quoted(line)) {
            return lines.len();
        }
        return lines
            .iter()
            .enumerate()
            .find(|(at, line)| is_attribution_alone(lines, *at, line))
            .map_or(lines.len(), |(at, _)| at);
    };
    let mut begin = last;
    while begin > 0 && (is_quoted(lines[begin - 1]) || lines[begin - 1].trim().is_empty()) {
        begin -= 1;
    }
    let is_interleaved = lines[..begin].iter().any(|line| is_quoted(line));
    if is_interleaved {
        return lines.len();
    }
    attribution_begins(lines, begin)
}

/// `-----Original Message-----` and its like.
fn is_divider(line: &str) -> bool {
    let line = line.trim();
    let words = line.trim_matches('-').trim();
    line.len() < 80
        && line.starts_with("----")
        && line.ends_with("----")
        && words.contains(char::is_alphabetic)
        && words.split_whitespace().count() <= 4
}

fn is_rule_or_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || (line.len() >= 5 && line.chars().all(|c| c == '_' || c == '-'))
}

/// Whether lines begin with the fields that Outlook puts above history.
fn is_header(lines: &[&str]) -> bool {
    let plain = |line: &str| {
        line.trim()
            .trim_start_matches('*')
            .replace('*', "")
            .to_lowercase()
    };
    let first = plain(lines[0]);
    if !FROM.iter().any(|word| first.starts_with(word)) {
        return false;
    }
    let others = lines[1..]
        .iter()
        .take(6)
        .map(|line| plain(line))
        .filter(|line| OTHERS.iter().any(|word| line.starts_with(word)))
        .count();
    others >= 2
}

/// The line with which the attribution above a quote begins; the quote's own without one.
fn attribution_begins(lines: &[&str], quote: usize) -> usize {
    let Some(end) = lines[..quote]
        .iter()
        .rposition(|line| !line.trim().is_empty())
    else {
        return quote;
    };
    if !lines[end].trim_end().ends_with(':') {
        return quote;
    }
    let mut begin = end;
    while begin > 0 && end - begin + 1 < MAX_ATTRIBUTION && !lines[begin - 1].trim().is_empty() {
        begin -= 1;
    }
    // A paragraph that ends with a colon may be the sender's own words.
    let text = lines[begin..=end].join(" ");
    match is_attribution(&text) {
        true => begin,
        false if is_attribution(lines[end]) => end,
        false => quote,
    }
}

/// Whether a text says who wrote what comes below: it ends with a colon, and has an address or a time.
fn is_attribution(text: &str) -> bool {
    let has_time = text
        .as_bytes()
        .windows(3)
        .any(|found| found[0].is_ascii_digit() && found[1] == b':' && found[2].is_ascii_digit());
    let has_digits = text.bytes().filter(u8::is_ascii_digit).count() >= 3;
    let is_long = text.len() > 400;
    text.trim_end().ends_with(':') && !is_long && (text.contains('@') || (has_time || has_digits))
}

fn is_attribution_alone(lines: &[&str], at: usize, line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    let begins = ["On", "Am", "Le", "El", "Il", "Op", "Den", "Em"].contains(&first);
    if !begins {
        return false;
    }
    (at..lines.len().min(at + MAX_ATTRIBUTION)).any(|end| {
        let text = lines[at..=end].join(" ");
        let is_whole = is_attribution(&text) && text.contains('@');
        let has_verb = [
            "wrote:",
            "schrieb:",
            "a écrit",
            "escribió:",
            "ha scritto:",
            "schreef:",
        ]
        .iter()
        .any(|verb| text.contains(verb));
        (is_whole || is_attribution(&text)) && has_verb
    })
}

/// Lines without a signature (`-- ` on a line of its own, RFC 3676, section 4.3).
fn without_signature(lines: &[&str]) -> usize {
    const MOST: usize = 20;
    let mut end = lines.len();
    let mark = lines
        .iter()
        .rposition(|line| *line == "-- " || *line == "--");
    if let Some(mark) = mark
        && mark > 0
        && end - mark <= MOST
    {
        end = mark;
    }
    while end > 0 {
        let line = lines[end - 1].trim().to_lowercase();
        let is_added = line.len() < 80 && SENT_FROM.iter().any(|word| line.starts_with(word));
        let goes = line.is_empty() || (is_added && end > 1);
        if !goes {
            break;
        }
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::fresh;

    #[test]
    fn history_below_an_answer_is_left_out() {
        for history in [
            "On Mon, 2 Nov 2026 at 10:00, Smith <s@acme.test> wrote:\n> Hello\n>\n> there\n",
            "On Mon, 2 Nov 2026 at 10:00, A Very Long Name\n<s@acme.test> wrote:\n\n> Hello\n",
            "Am 02.11.26 um 10:00 schrieb Schmied:\n> Hallo\n",
            "Le lun. 2 nov. 2026 à 10:00, Forgeron <s@acme.test> a écrit :\n> Bonjour\n",
            "-----Original Message-----\nFrom: Smith\nSent: Monday\n\nHello\n",
            "________________________________\nFrom: Smith <s@acme.test>\nSent: Monday\nTo: Ann\n\
             Subject: x\n\nHello",
            "*Von:* Schmied\n*Gesendet:* Montag\n*An:* Ann\n*Betreff:* x\n\nHallo",
            "On Mon, 2 Nov 2026 at 10:00, Smith <s@acme.test> wrote:\n\nHello, not quoted.\n",
            "> only quoted\n> lines",
            "-- \nAnn Lee\nAcme",
            "Sent from my phone",
        ] {
            let text = format!("Yes, please.\nAt 5: sharp.\n\n{history}");
            assert_eq!(
                fresh(&text, "Re: x"),
                "Yes, please.\nAt 5: sharp.",
                "{history}"
            );
        }
    }

    #[test]
    fn what_is_answered_within_stays() {
        let text = "> Shall we?\nYes.\n\n> When?\nAt five.";
        assert_eq!(fresh(text, "Re: x"), text);
        let text = "My list:\n- From: a field\n- x\n\nThe end --- really";
        assert_eq!(fresh(text, "x"), text);
        let text = "Look:\n> one\n> two\nand:\n> three";
        assert_eq!(fresh(text, "x"), text);
    }

    #[test]
    fn forwarded_mail_is_what_it_is_about() {
        let text = "What is this?\n\n---------- Forwarded message ---------\nFrom: Bob <b@x.test>\n\
                    Date: Mon\nSubject: y\nTo: ann\n\nThe offer";
        assert_eq!(fresh(text, "Fwd: y"), text);
        assert_eq!(fresh(text, "y"), text);
    }

    #[test]
    fn nothing_is_never_left() {
        let text = "> everything\n> is quoted";
        assert_eq!(fresh(text, "x"), text);
        assert_eq!(fresh("-- \nonly a name", "x"), "-- \nonly a name");
    }
}
