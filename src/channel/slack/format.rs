//! Slack's mrkdwn (<https://docs.slack.dev/messaging/formatting-message-text>). Nothing in it can be
//! escaped but `&`, `<` and `>`; what a mark needs so that Slack sees it is kept here.

use std::cell::RefCell;

use crate::channel::markdown::{Format, Mark};

/// Parts a mark from a letter that it touches, where Slack would take it for text.
const ZERO_WIDTH: char = '\u{200b}';

/// The format. It is used by one text at a time.
#[derive(Default)]
pub struct Mrkdwn {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// What is open, outermost first.
    open: Vec<Opened>,
    /// How long the text was when a mark was last closed.
    closed_at: usize,
}

struct Opened {
    mark: Mark,
    /// It is within one that looks the same, or within a link.
    is_silent: bool,
    /// Written with the first letter behind it: Slack takes a mark before a space for text.
    is_written: bool,
}

/// Text that means nothing to the format.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_escaped(text, &mut out);
    out
}

/// The longest beginning of a text whose escaped form has at most `limit` characters.
pub fn escape_within(text: &str, limit: usize) -> String {
    let (mut out, mut length) = (String::new(), 0);
    for letter in text.chars() {
        let mut one = String::new();
        push_escaped(letter.encode_utf8(&mut [0; 4]), &mut one);
        length += one.encode_utf16().count();
        if length >= limit {
            out.push('…');
            break;
        }
        out.push_str(&one);
    }
    out
}

fn push_escaped(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\0' => {}
            letter => out.push(letter),
        }
    }
}

fn sign(mark: &Mark) -> &'static str {
    match mark {
        Mark::Bold => "*",
        Mark::Italic => "_",
        Mark::Strike => "~",
        Mark::Link(_) => "",
    }
}

/// A URL that holds nothing that ends it.
fn push_url(url: &str, out: &mut String) {
    for letter in url.chars() {
        match letter {
            '|' => out.push_str("%7C"),
            '<' => out.push_str("%3C"),
            '>' => out.push_str("%3E"),
            '&' => out.push_str("&amp;"),
            letter if letter.is_whitespace() || letter.is_control() => out.push_str("%20"),
            letter => out.push(letter),
        }
    }
}

fn push_opening(mark: &Mark, out: &mut String) {
    if let Mark::Link(url) = mark {
        if !url.is_empty() {
            out.push('<');
            push_url(url, out);
            out.push('|');
        }
        return;
    }
    if out.chars().next_back().is_some_and(char::is_alphanumeric) {
        out.push(ZERO_WIDTH);
    }
    out.push_str(sign(mark));
}

impl State {
    fn is_in_link(&self) -> bool {
        let is_link = |opened: &Opened| matches!(&opened.mark, Mark::Link(url) if !url.is_empty());
        self.open.iter().any(is_link)
    }

    /// Writes what is open and not written.
    fn write_openings(&mut self, out: &mut String) {
        for opened in &mut self.open {
            if !opened.is_written && !opened.is_silent {
                push_opening(&opened.mark, out);
            }
            opened.is_written = true;
        }
    }
}

impl Format for Mrkdwn {
    fn text(&self, text: &str, out: &mut String) {
        let mut state = self.state.borrow_mut();
        let start = text.len() - text.trim_start().len();
        let (space, words) = text.split_at(start);
        if state.is_in_link() && state.open.iter().all(|opened| opened.is_written) {
            // A label is one line.
            push_escaped(&space.replace(['\n', '\r'], " "), out);
        } else {
            push_escaped(space, out);
        }
        if words.is_empty() {
            return;
        }
        let touches = space.is_empty()
            && state.closed_at == out.len()
            && state.closed_at > 0
            && words.chars().next().is_some_and(char::is_alphanumeric);
        if touches {
            out.push(ZERO_WIDTH);
        }
        state.write_openings(out);
        match state.is_in_link() {
            true => push_escaped(&words.replace(['\n', '\r'], " "), out),
            false => push_escaped(words, out),
        }
    }

    fn open(&self, mark: &Mark, _out: &mut String) {
        let mut state = self.state.borrow_mut();
        let is_same = |opened: &Opened| match (&opened.mark, mark) {
            (Mark::Link(_), Mark::Link(_)) => true,
            (one, other) => one == other,
        };
        let is_silent = state.is_in_link() || state.open.iter().any(is_same);
        state.open.push(Opened {
            mark: mark.clone(),
            is_silent,
            is_written: false,
        });
    }

    fn close(&self, _mark: &Mark, out: &mut String) {
        let mut state = self.state.borrow_mut();
        let Some(opened) = state.open.pop() else {
            return;
        };
        if opened.is_silent {
            return;
        }
        if let Mark::Link(url) = &opened.mark {
            match (opened.is_written, url.is_empty()) {
                (_, true) => {}
                (true, false) => out.push('>'),
                (false, false) => {
                    // A link without words is shown as it is.
                    state.write_openings(out);
                    out.push('<');
                    push_url(url, out);
                    out.push('>');
                }
            }
        } else if opened.is_written {
            let end = out.trim_end_matches(' ').len();
            let space = out.split_off(end);
            out.push_str(sign(&opened.mark));
            state.closed_at = out.len();
            out.push_str(&space);
        }
    }

    fn code(&self, text: &str, out: &mut String) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        if out.chars().next_back().is_some_and(char::is_alphanumeric) {
            out.push(ZERO_WIDTH);
        }
        out.push('`');
        // No code holds the sign that ends it: another one looks like it.
        push_escaped(&text.replace('`', "ˋ").replace(['\n', '\r'], " "), out);
        out.push('`');
        self.state.borrow_mut().closed_at = out.len();
    }

    fn block(&self, _language: &str, text: &str, out: &mut String) {
        out.push_str("```\n");
        push_escaped(&text.replace("```", "``\u{200b}`"), out);
        out.push_str("\n```");
    }

    fn open_quote(&self, _out: &mut String) {}

    fn close_quote(&self, _out: &mut String) {}

    fn quote_line(&self) -> &'static str {
        "> "
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::markdown::render;
    use crate::channel::split::{messages, units};

    #[test]
    fn markdown_becomes_mrkdwn() {
        for (markdown, mrkdwn) in [
            ("a **b** _c_ ~~d~~ `e<f`", "a *b* _c_ ~d~ `e&lt;f`"),
            ("# Title\n\ntext", "*Title*\n\ntext"),
            ("## **Title**", "*Title*"),
            ("# `code`", "`code`"),
            (
                "[x](https://a.b/?c=d&e|f)",
                "<https://a.b/?c=d&amp;e%7Cf|x>",
            ),
            ("[**x** y](https://a.b)", "<https://a.b|x y>"),
            ("**[x](https://a.b)**", "*<https://a.b|x>*"),
            ("[](https://a.b)", "<https://a.b>"),
            ("[x](javascript:alert(1))", "x"),
            ("- a\n- b\n  - c", "• a\n• b\n  • c"),
            (
                "```rust\nlet a = 1 < 2;\n```",
                "```\nlet a = 1 &lt; 2;\n```",
            ),
            ("> a\n> b", "> a\n> b"),
            ("**a `b` c**", "*a* `b` *c*"),
            ("re**mark**able", "re\u{200b}*mark*\u{200b}able"),
            ("这**重点**在", "这\u{200b}*重点*\u{200b}在"),
            // Nobody is called by what a model says.
            (
                "<!channel> <@U1> & co",
                "&lt;!channel&gt; &lt;@U1&gt; &amp; co",
            ),
            ("**a _b ~~c~~_ d**", "*a _b ~c~_ d*"),
        ] {
            assert_eq!(render(markdown, &Mrkdwn::default()), mrkdwn, "{markdown}");
        }
    }

    /// Whether each angle bracket is of a link or a quote, and each ampersand of an entity.
    fn is_valid(text: &str) -> bool {
        let entities = ["&lt;", "&gt;", "&amp;"];
        let is_entity = |rest: &str| entities.iter().any(|one| rest.starts_with(one));
        text.lines().all(|line| {
            let mut rest = line.trim_start_matches("> ");
            while let Some(at) = rest.find(['<', '>', '&']) {
                rest = &rest[at..];
                let length = match rest.as_bytes()[0] {
                    b'&' if is_entity(rest) => 1,
                    b'<' => match rest.find('>') {
                        Some(end) if is_link(&rest[1..end]) => end + 1,
                        _ => return false,
                    },
                    _ => return false,
                };
                rest = &rest[length..];
            }
            true
        })
    }

    fn is_link(inner: &str) -> bool {
        let schemes = ["http://", "https://", "mailto:", "tel:"];
        schemes.iter().any(|scheme| inner.starts_with(scheme)) && !inner.contains('<')
    }

    #[test]
    fn a_long_answer_is_cut_where_it_may_be() {
        let code: String = (0..800).map(|n| format!("let line_{n} = {n};\n")).collect();
        let words = "A sentence with a [link](https://example.com/a/b). ".repeat(300);
        let text = format!(
            "# Begin\n\n{words}\n\n```rust\n{code}```\n\n{}",
            "🙂".repeat(5000)
        );
        let messages = messages(&text, &Mrkdwn::default(), 4000);
        assert!(messages.len() > 5);
        let mut all = String::new();
        for message in &messages {
            assert!(units(message) <= 4000 && is_valid(message), "{message}");
            assert_eq!(message.matches("```").count() % 2, 0);
            all.push_str(message);
        }
        for n in [0, 399, 799] {
            assert!(all.contains(&format!("let line_{n} = {n};")));
        }
        assert_eq!(all.matches("https://example.com/a/b").count(), 300);
        assert_eq!(all.matches('🙂').count(), 5000);
    }

    #[test]
    fn a_quote_that_says_nothing_is_nothing() {
        let written = |text: &str| render(text, &Mrkdwn::default());
        assert_eq!(written(">#"), "");
        assert_eq!(written("a\n\n> #\n\nb"), "a\n\nb");
        assert_eq!(written("> a\n>\n> #\n"), "> a");
    }

    #[test]
    fn a_list_in_a_quote_is_marked_once_a_line() {
        let written = render("> - a\n> - **b**\n>   - c", &Mrkdwn::default());
        assert_eq!(written, "> • a\n> • *b*\n>   • c");
    }

    #[test]
    fn the_words_of_a_link_are_on_one_line() {
        let written = render("[#\n\\[a](https://b)", &Mrkdwn::default());
        assert_eq!(written, "<https://b|# [a>");
    }

    #[test]
    fn what_is_cut_is_within_its_limit() {
        assert_eq!(escape_within("a<b", 100), "a&lt;b");
        let cut = escape_within(&"<".repeat(1000), 100);
        assert!(units(&cut) <= 100 && cut.ends_with("&lt;…"), "{cut}");
    }

    proptest! {
        #[test]
        fn any_text_is_valid_within_any_limit(
            text in "([a-z ]{0,30}|[*_~`#>\\-\\[\\]()<>&|!\\\\\n]{1,4}|🙂|\u{301}|\u{a0}|\u{3000}|```|\n\n|\\[a\\]\\(https://b\\)){0,60}",
            limit in 120usize..400,
        ) {
            let whole = render(&text, &Mrkdwn::default());
            prop_assert!(is_valid(&whole), "{whole}");
            for message in messages(&text, &Mrkdwn::default(), limit) {
                prop_assert!(units(&message) <= limit, "{} {message}", units(&message));
                prop_assert!(is_valid(&message), "{message}");
                prop_assert!(!message.trim().is_empty());
            }
        }
    }
}
