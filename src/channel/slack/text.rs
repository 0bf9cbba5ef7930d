//! The text of Slack's messages as plain words
//! (<https://docs.slack.dev/messaging/formatting-message-text#retrieving-messages>).

/// The words of a message, without its first mention of `bot`; and whether that was there.
pub fn plain(text: &str, bot: &str) -> (String, bool) {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    let mut is_mentioned = false;
    while let Some(at) = rest.find('<') {
        push_text(&rest[..at], &mut out);
        let inner = &rest[at + 1..];
        let Some(end) = inner.find('>') else {
            rest = &rest[at..];
            break;
        };
        let reference = &inner[..end];
        let user = reference.strip_prefix('@').map(|user| name_of(user).0);
        if user == Some(bot) && !bot.is_empty() && !is_mentioned {
            is_mentioned = true;
        } else {
            push_reference(reference, &mut out);
        }
        rest = &inner[end + 1..];
    }
    push_text(rest, &mut out);
    (out.trim().to_owned(), is_mentioned)
}

/// Whether a message mentions somebody at its beginning.
pub fn first_mention(text: &str) -> Option<&str> {
    let inner = text.trim_start().strip_prefix("<@")?;
    let end = inner.find('>')?;
    Some(name_of(&inner[..end]).0)
}

/// What stands before and behind a reference's bar.
fn name_of(reference: &str) -> (&str, &str) {
    match reference.split_once('|') {
        Some((id, name)) => (id, name),
        None => (reference, ""),
    }
}

fn push_text(text: &str, out: &mut String) {
    out.push_str(
        &text
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    );
}

fn push_reference(reference: &str, out: &mut String) {
    let (id, name) = name_of(reference);
    let label = |sign: &str, id: &str| {
        let name = name.trim_start_matches(['@', '#']);
        format!("{sign}{}", if name.is_empty() { id } else { name })
    };
    let words = if let Some(user) = id.strip_prefix('@') {
        label("@", user)
    } else if let Some(channel) = id.strip_prefix('#') {
        label("#", channel)
    } else if let Some(special) = id.strip_prefix('!') {
        match special.split('^').next().unwrap_or_default() {
            "date" => name.to_owned(),
            "subteam" => label("@", special.split('^').nth(1).unwrap_or_default()),
            word => format!("@{word}"),
        }
    } else {
        let address = id.strip_prefix("mailto:").unwrap_or(id);
        let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
        match name {
            "" => address.to_owned(),
            name if name == address || name == bare.trim_end_matches('/') => address.to_owned(),
            name => format!("{name} ({address})"),
        }
    };
    push_text(&words, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_become_words() {
        for (text, words) in [
            ("<@UBOT> hi", "hi"),
            ("hi <@UBOT|smith>, <@UBOT>", "hi , @UBOT"),
            (
                "<@U1|ann> in <#C1|general> &amp; <#C2>",
                "@ann in #general & #C2",
            ),
            (
                "<!here> <!subteam^S1|@devs> <!date^1^{date}|today>",
                "@here @devs today",
            ),
            (
                "<https://a.b/c|a.b/c> <https://a.b|the page>",
                "https://a.b/c the page (https://a.b)",
            ),
            ("<mailto:a@b.c|a@b.c>", "a@b.c"),
            ("1 &lt; 2 &amp;lt; 3 <", "1 < 2 &lt; 3 <"),
        ] {
            assert_eq!(plain(text, "UBOT").0, words, "{text}");
        }
        assert!(plain("<@UBOT>", "UBOT").1 && !plain("@UBOT", "UBOT").1);
        assert_eq!(first_mention(" <@U2|x> no"), Some("U2"));
        assert_eq!(first_mention("no <@U2>"), None);
    }

    proptest! {
        #[test]
        fn any_text_has_words(text in "([a-z ]{0,9}|[<>@#!|^&;]{1,4}|&lt;|🙂){0,40}") {
            let _ = plain(&text, "U1");
            let _ = first_mention(&text);
        }
    }
}
