//! Discord's Markdown (<https://support.discord.com/hc/en-us/articles/210298617>): what means something
//! is escaped, what is marked touches its marks.

use std::cell::{Cell, RefCell};

use crate::channel::markdown::{Format, Mark};
use crate::channel::split;

/// Of a message's content (<https://docs.discord.com/developers/resources/message#create-message>).
pub const MAX_TEXT: usize = 2000;
/// Parts what would mean something together, and is not seen.
const APART: char = '\u{200B}';

/// The format, and what it must remember of what was just written.
#[derive(Default)]
struct Words {
    /// Where marks that were just opened begin and end, while nothing but white space follows.
    opened: Cell<Option<(usize, usize)>>,
    /// Where something was just closed.
    closed: Cell<usize>,
    /// What each mark that is open is written as: nothing, within one of its kind.
    marks: RefCell<Vec<&'static str>>,
    /// Where the texts of links begin.
    links: RefCell<Vec<usize>>,
}

/// A model's Markdown as messages.
pub fn messages(markdown: &str) -> Vec<String> {
    split::messages(markdown, &Words::default(), MAX_TEXT)
}

/// Words of ours that mean nothing to the format.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    Words::default().text(text, &mut out);
    out
}

/// Lines of code, cut to about a length.
pub fn block(language: &str, text: &str, limit: usize) -> String {
    let (mut out, mut length) = (String::new(), limit);
    loop {
        let mut cut: String = text.chars().take(length).collect();
        if cut.len() < text.len() {
            cut.push('…');
        }
        out.clear();
        Words::default().block(language, &cut, &mut out);
        // What means something is longer than it is.
        if split::units(&out) <= limit + 50 || length < 16 {
            return out;
        }
        length /= 2;
    }
}

fn symbol(mark: &Mark) -> &'static str {
    match mark {
        Mark::Bold => "**",
        Mark::Italic => "*",
        Mark::Strike => "~~",
        Mark::Link(_) => "",
    }
}

/// Whether what is written next is within an address, where nothing is escaped.
fn is_in_url(out: &str) -> bool {
    let ends = |c: char| c.is_whitespace() || "<(*".contains(c);
    let word = out.rsplit(ends).next().unwrap_or(out);
    word.starts_with("https://") || word.starts_with("http://")
}

/// A text without two backticks beside each other.
fn apart(text: &str) -> String {
    let parted = format!("`{APART}`");
    text.replace("``", &parted).replace("``", &parted)
}

/// Whether a line begins.
fn at_line_start(out: &str) -> bool {
    let line = out.rfind('\n').map_or(out, |at| &out[at + 1..]);
    line.trim_start_matches(['>', ' ']).is_empty()
}

impl Words {
    /// Before something that is seen: white space that follows marks goes before them.
    fn before_seen(&self, out: &mut String) {
        let Some((from, to)) = self.opened.take() else {
            return;
        };
        if to < out.len() && out.is_char_boundary(to) {
            let spaces = out.split_off(to);
            out.insert_str(from, &spaces);
        } else if from > 0 && self.closed.get() == from {
            out.insert(from, APART);
        }
    }
}

impl Format for Words {
    fn text(&self, text: &str, out: &mut String) {
        let mut text = text;
        if self.opened.get().is_some() {
            let seen = text.trim_start();
            out.push_str(&text[..text.len() - seen.len()]);
            text = seen;
        }
        if text.is_empty() {
            return;
        }
        self.before_seen(out);
        let mut in_url = is_in_url(out);
        for (at, letter) in text.char_indices() {
            let rest = &text[at..];
            if rest.starts_with("https://") || rest.starts_with("http://") {
                in_url = true;
            } else if letter.is_whitespace() || letter == '<' {
                in_url = false;
            }
            let means = match letter {
                '*' | '_' | '~' => !in_url,
                '\\' | '`' | '|' | '[' | ']' | '<' | '>' => true,
                '#' | '-' | '+' => at_line_start(out),
                _ => false,
            };
            if means {
                out.push('\\');
            }
            if letter != '\0' {
                out.push(letter);
            }
        }
    }

    fn open(&self, mark: &Mark, out: &mut String) {
        if let Mark::Link(_) = mark {
            self.before_seen(out);
            out.push('[');
            self.links.borrow_mut().push(out.len());
            return;
        }
        let mut marks = self.marks.borrow_mut();
        let symbol = symbol(mark);
        if marks.contains(&symbol) {
            marks.push("");
            return;
        }
        marks.push(symbol);
        match self.opened.get() {
            // Among others that were just opened.
            Some((from, to)) if to <= out.len() => {
                let spaces = out.split_off(to);
                out.insert_str(from, &spaces);
                let from = from + spaces.len();
                out.push_str(symbol);
                self.opened.set(Some((from, out.len())));
            }
            _ => {
                let from = out.len();
                out.push_str(symbol);
                self.opened.set(Some((from, out.len())));
            }
        }
    }

    fn close(&self, mark: &Mark, out: &mut String) {
        if let Mark::Link(url) = mark {
            let start = self
                .links
                .borrow_mut()
                .pop()
                .unwrap_or(1)
                .clamp(1, out.len().max(1));
            return close_link(url, start, out);
        }
        let symbol = self.marks.borrow_mut().pop().unwrap_or_default();
        if symbol.is_empty() {
            return;
        }
        if let Some((from, to)) = self.opened.get() {
            // Nothing was marked.
            let at = to.saturating_sub(symbol.len()).max(from);
            out.replace_range(at..to, "");
            self.opened.set((at > from).then_some((from, at)));
            return;
        }
        let seen = out.trim_end().len();
        let spaces = out.split_off(seen);
        out.push_str(symbol);
        out.push_str(&spaces);
        self.closed.set(out.len());
    }

    fn code(&self, text: &str, out: &mut String) {
        if text.trim().is_empty() {
            return self.text(text, out);
        }
        self.before_seen(out);
        // Three would be a block.
        let text = apart(text);
        let fence = if text.contains('`') { "``" } else { "`" };
        if out.ends_with('`') {
            out.push(APART);
        }
        let pad = if text.starts_with('`') || text.ends_with('`') {
            " "
        } else {
            ""
        };
        for piece in [fence, pad, &text, pad, fence] {
            out.push_str(piece);
        }
        self.closed.set(out.len());
    }

    fn block(&self, language: &str, text: &str, out: &mut String) {
        if text.trim().is_empty() {
            return;
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || "+-_#.".contains(c);
        // What is longer is no language, and would take a message's room.
        let language = match language.len() <= 20 && language.chars().all(is_word) {
            true => language,
            false => "",
        };
        out.push_str("```");
        out.push_str(language);
        out.push('\n');
        match text.contains("```") {
            true => out.push_str(&apart(text)),
            false => out.push_str(text),
        }
        out.push_str("\n```");
    }

    fn open_quote(&self, _out: &mut String) {}

    fn close_quote(&self, _out: &mut String) {}

    fn quote_line(&self) -> &'static str {
        "> "
    }
}

/// What ends a link whose text began at `start`, after its bracket.
fn close_link(url: &str, start: usize, out: &mut String) {
    let inner = out.get(start..).unwrap_or_default().to_owned();
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    if url.is_empty() {
        out.replace_range(start - 1..start, "");
        return;
    }
    let mut safe = String::with_capacity(url.len());
    for letter in url.chars() {
        match letter {
            c if c.is_whitespace() || c.is_control() || "<>()[]\\`|".contains(c) => {
                safe.push_str(&percent(c));
            }
            c => safe.push(c),
        }
    }
    let url = safe;
    let bare = inner.replace('\\', "");
    if bare.trim().is_empty() || bare == url {
        out.truncate(start - 1);
        out.push_str(&url);
        return;
    }
    // Words that name an address themselves are not shown as a link.
    if is_web && !bare.contains("://") {
        out.push_str("](<");
        out.push_str(&url);
        out.push_str(">)");
    } else {
        out.replace_range(start - 1..start, "");
        out.push_str(" (<");
        out.push_str(&url);
        out.push_str(">)");
    }
}

fn percent(letter: char) -> String {
    let mut bytes = [0; 4];
    let bytes = letter.encode_utf8(&mut bytes).as_bytes();
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::markdown::render;
    use crate::channel::split::{Plain, units};

    fn one(markdown: &str) -> String {
        messages(markdown).concat()
    }

    #[test]
    fn markdown_becomes_discords() {
        for (markdown, text) in [
            ("a **b** _c_ ~~d~~ `e<f`", "a **b** *c* ~~d~~ `e<f`"),
            ("# Title\n\ntext", "**Title**\n\ntext"),
            ("[x](https://a.b/?c=d_e&f)", "[x](<https://a.b/?c=d_e&f>)"),
            ("<https://a.b/_c_>", "https://a.b/_c_"),
            (
                "see https://a.b/c_d_e*f ok_",
                "see https://a.b/c_d_e*f ok\\_",
            ),
            (
                "[https://a.b](https://evil.c)",
                "https://a.b (<https://evil.c>)",
            ),
            ("[x](javascript:alert(1))", "x"),
            ("[me](mailto:a@b.c)", "me (<mailto:a@b.c>)"),
            (
                "- a\n- b\n  - c\n\n1. d\n2. e",
                "• a\n• b\n  • c\n\n1. d\n2. e",
            ),
            (
                "```rust\nlet a = 1 < 2;\n```",
                "```rust\nlet a = 1 < 2;\n```",
            ),
            ("> a\n> b\n\nc", "> a\n> b\n\nc"),
            ("**a `b` c**", "**a** `b` **c**"),
            ("***x***", "***x***"),
            ("**a**_b_", "**a**\u{200B}*b*"),
            ("**`a`**", "`a`"),
            (
                "snake_case <@123> @everyone ||x||",
                "snake\\_case \\<@123\\> @everyone \\|\\|x\\|\\|",
            ),
            (r"\# no", "\\# no"),
            (r"\- no - so", "\\- no - so"),
            ("``a`b``", "``a`b``"),
            (
                "| a | b |\n|---|---|\n| 1 | 22 |",
                "```\na | b\n1 | 22\n```",
            ),
            ("", ""),
        ] {
            assert_eq!(one(markdown), text, "{markdown}");
        }
    }

    /// What a reader as Discord's shows; `None`: something is open at the end.
    fn seen(message: &str) -> Option<String> {
        let (mut shown, mut open, mut rest) = (String::new(), Vec::new(), message);
        while let Some(letter) = rest.chars().next() {
            let fence = rest.len() - rest.trim_start_matches('`').len();
            if fence > 0 {
                let inner = &rest[fence..];
                let end = inner.match_indices('`').map(|(at, _)| at).find(|at| {
                    let run = inner[*at..].len() - inner[*at..].trim_start_matches('`').len();
                    run == fence && !inner[..*at].ends_with('`')
                })?;
                let code = &inner[..end];
                let code = if fence < 3 {
                    code
                } else {
                    code.split_once('\n')?.1
                };
                shown.push_str(code);
                rest = &inner[end + fence..];
                continue;
            }
            if letter == '\\' {
                let next = rest[1..].chars().next()?;
                shown.push(next);
                rest = &rest[1 + next.len_utf8()..];
                continue;
            }
            let marks = ["***", "**", "*", "~~"];
            if let Some(mark) = marks.into_iter().find(|mark| rest.starts_with(mark)) {
                rest = &rest[mark.len()..];
                let pieces: Vec<&str> = match (mark, open.last()) {
                    ("***", Some(&"*")) => vec!["*", "**"],
                    ("***", _) => vec!["**", "*"],
                    (mark, _) => vec![mark],
                };
                for mark in pieces {
                    if open.last() == Some(&mark) {
                        open.pop();
                    } else {
                        if rest.is_empty() || mark == "*" && rest.starts_with(char::is_whitespace) {
                            return None;
                        }
                        open.push(mark);
                    }
                }
                continue;
            }
            if "_`|[]<~".contains(letter) {
                return None;
            }
            shown.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
        open.is_empty().then_some(shown)
    }

    fn bare(text: &str) -> String {
        text.chars()
            .filter(|c| *c != APART && !c.is_whitespace() && !">`".contains(*c))
            .collect()
    }

    #[test]
    fn a_long_answer_is_cut_where_it_may_be() {
        let code: String = (0..400).map(|n| format!("let line_{n} = {n};\n")).collect();
        let words = "A sentence with a [link](https://example.com/a/b). ".repeat(100);
        let text = format!(
            "# Begin\n\n{words}\n\n```rust\n{code}```\n\n{}",
            "🙂".repeat(3000)
        );
        let messages = messages(&text);
        assert!(messages.len() > 5);
        for message in &messages {
            assert!(units(message) <= MAX_TEXT, "{message}");
            assert_eq!(message.matches("```").count() % 2, 0);
        }
        let all = messages.concat();
        for n in [0, 199, 399] {
            assert!(all.contains(&format!("let line_{n} = {n};")));
        }
        assert_eq!(all.matches('🙂').count(), 3000);
    }

    #[test]
    fn words_are_parted_by_white_space_of_any_width() {
        for space in ['\u{a0}', '\u{3000}', '\u{2028}'] {
            assert_eq!(one(&format!("# a{space}](b")), format!("**a{space}\\](b**"));
        }
        assert_eq!(one("a\u{a0}https://a.b/c_d_e"), "a\u{a0}https://a.b/c_d_e");
    }

    proptest! {
        #[test]
        fn any_text_is_valid_and_says_the_same(
            text in "([a-z ]{0,30}|[*_~`#>\\-\\[\\]()<>&|!\\\\\n]{1,4}|🙂|\u{301}|\u{a0}|\u{3000}|```|\n\n){0,60}",
        ) {
            let mut all = String::new();
            for message in messages(&text) {
                prop_assert!(units(&message) <= MAX_TEXT);
                prop_assert!(!message.trim().is_empty());
                let shown = seen(&message);
                prop_assert!(shown.is_some(), "{message:?}");
                all.push_str(&shown.unwrap_or_default());
            }
            prop_assert_eq!(bare(&all), bare(&render(&text, &Plain)));
        }
    }
}
