//! WhatsApp's text format (<https://faq.whatsapp.com/539178204879377>): `*bold*`, `_italic_`,
//! `~strike~`, code in backticks, quotes. A mark counts only at the edge of a word and within a line,
//! and there is no escape.
//!
//! So text is written in two steps: first with marks of the private use area, which no text has, then
//! as WhatsApp's own, when what stands on both sides of each is known.

use crate::channel::markdown::{Format, Mark};
use crate::channel::split::{self, Plain, units};

/// Of a message's text (<https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/text-messages>).
pub const MAX_TEXT: usize = 4096;

const BOLD: [char; 2] = ['\u{E000}', '\u{E001}'];
const ITALIC: [char; 2] = ['\u{E002}', '\u{E003}'];
const STRIKE: [char; 2] = ['\u{E004}', '\u{E005}'];
const CODE: [char; 2] = ['\u{E006}', '\u{E007}'];
const BLOCK: [char; 2] = ['\u{E008}', '\u{E009}'];
const QUOTE: &str = "\u{E00A}";
const QUOTE_MARK: char = '\u{E00A}';
/// Parts letters that would mean something together, and is not seen.
const APART: char = '\u{200B}';

/// The first step.
struct Marked;

fn is_ours(letter: char) -> bool {
    ('\u{E000}'..='\u{E00F}').contains(&letter)
}

fn push_text(text: &str, out: &mut String) {
    out.extend(text.chars().filter(|c| !is_ours(*c) && *c != '\0'));
}

fn sign(mark: &Mark) -> Option<[char; 2]> {
    match mark {
        Mark::Bold => Some(BOLD),
        Mark::Italic => Some(ITALIC),
        Mark::Strike => Some(STRIKE),
        Mark::Link(_) => None,
    }
}

impl Format for Marked {
    fn text(&self, text: &str, out: &mut String) {
        push_text(text, out);
    }

    fn open(&self, mark: &Mark, out: &mut String) {
        out.extend(sign(mark).map(|[open, _]| open));
    }

    fn close(&self, mark: &Mark, out: &mut String) {
        out.extend(sign(mark).map(|[_, close]| close));
        Plain.close(mark, out);
    }

    fn code(&self, text: &str, out: &mut String) {
        out.push(CODE[0]);
        push_text(text, out);
        out.push(CODE[1]);
    }

    fn block(&self, _language: &str, text: &str, out: &mut String) {
        out.push(BLOCK[0]);
        push_text(text, out);
        out.push(BLOCK[1]);
    }

    fn open_quote(&self, _out: &mut String) {}

    fn close_quote(&self, _out: &mut String) {}

    fn quote_line(&self) -> &'static str {
        QUOTE
    }
}

/// A model's Markdown as messages.
pub fn messages(markdown: &str) -> Vec<String> {
    // The second step adds letters, hardly ever many.
    for limit in [4000, 3000, 2000, 1000] {
        let marked = split::messages(markdown, &Marked, limit);
        let messages: Vec<String> = marked.iter().map(|text| finish(text)).collect();
        if messages.iter().all(|text| units(text) <= MAX_TEXT) {
            return non_empty(messages);
        }
    }
    // Of a letter that means something come at most nine: its own, two that part it, and what closes
    // and opens three marks.
    let marked = split::messages(markdown, &Marked, MAX_TEXT / 9);
    non_empty(marked.iter().map(|text| finish(text)).collect())
}

fn non_empty(mut messages: Vec<String>) -> Vec<String> {
    messages.retain(|message| !message.trim().is_empty());
    messages
}

/// Words of ours that mean nothing to the format.
pub fn escape(text: &str) -> String {
    let mut marked = String::with_capacity(text.len());
    push_text(text, &mut marked);
    finish(&marked)
}

/// Lines of code, cut to about a length.
pub fn block(text: &str, limit: usize) -> String {
    let mut length = limit;
    loop {
        let mut marked = String::from(BLOCK[0]);
        push_text(text, &mut marked);
        if marked.chars().count() > length {
            marked = marked.chars().take(length).collect();
            marked.push('…');
        }
        marked.push(BLOCK[1]);
        let block = finish(&marked);
        // What means something is longer than it is.
        if units(&block) <= limit + 10 || length < 16 {
            return block;
        }
        length /= 2;
    }
}

/// The second step, of one line.
#[derive(Default)]
struct Line {
    out: String,
    /// The same, with a letter for each piece of code.
    shape: String,
    /// What the words that come next are to look like, outermost first; another line goes on with it.
    wanted: Vec<char>,
    shown: Vec<char>,
    /// White space that is not written yet: a mark must touch a word.
    spaces: String,
    /// The last letter is one that closes something.
    has_closed: bool,
    /// Without marks.
    is_plain: bool,
    /// A letter within marks looks like one of them.
    clashes: bool,
}

/// Stands for code in a line's shape.
const SOME_CODE: char = '\u{FFFC}';

fn finish(marked: &str) -> String {
    let mut out = String::with_capacity(marked.len() + 16);
    let mut wanted = Vec::new();
    for (number, line) in lines(marked).into_iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let mut written = Line::write(line, wanted.clone(), false);
        // What a reader could take for other marks than ours has none.
        if written.clashes || !nests(&written.shape) {
            written = Line::write(line, wanted, true);
        }
        out.push_str(&written.out);
        wanted = written.wanted;
    }
    let end = out.trim_end().len();
    out.truncate(end);
    out
}

/// The lines of a text; code is on one line, whatever it holds.
fn lines(marked: &str) -> Vec<&str> {
    let (mut found, mut start, mut in_code) = (Vec::new(), 0, false);
    for (at, letter) in marked.char_indices() {
        match letter {
            c if c == CODE[0] || c == BLOCK[0] => in_code = true,
            c if c == CODE[1] || c == BLOCK[1] => in_code = false,
            '\n' if !in_code => {
                found.push(&marked[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&marked[start..]);
    found
}

/// Whether each mark that a line opens is closed on it, the last first.
fn nests(line: &str) -> bool {
    let is_space = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || c == APART);
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut open = Vec::new();
    let mut last = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied();
        if "*_~".contains(letter) {
            if open.last() == Some(&letter) && !is_space(last) && !is_word(next) {
                open.pop();
            } else if !is_word(last) && !is_space(next) {
                open.push(letter);
            }
        }
        last = Some(letter);
    }
    open.is_empty()
}

fn symbol(open: char) -> char {
    match open {
        c if c == BOLD[0] => '*',
        c if c == ITALIC[0] => '_',
        _ => '~',
    }
}

/// The letter that is seen after a literal one.
fn next_seen(letter: char, after: &str) -> Option<char> {
    // A mark that ends there is one, too.
    if letter == '`' {
        return after.chars().next();
    }
    let is_mark = |c: &char| is_ours(*c) && *c != CODE[0] && *c != BLOCK[0];
    let next = after.chars().find(|c| !is_mark(c));
    next.map(|c| if is_ours(c) { '`' } else { c })
}

impl Line {
    fn write(line: &str, wanted: Vec<char>, is_plain: bool) -> Self {
        let mut writer = Self {
            wanted,
            is_plain,
            ..Self::default()
        };
        let (mut rest, mut in_url) = (line, false);
        while let Some(letter) = rest.chars().next() {
            let after = &rest[letter.len_utf8()..];
            if letter == CODE[0] || letter == BLOCK[0] {
                let end = if letter == CODE[0] { CODE[1] } else { BLOCK[1] };
                let at = after.find(end).unwrap_or(after.len());
                writer.code(&after[..at], letter == BLOCK[0]);
                rest = after[at..].strip_prefix(end).unwrap_or(&after[at..]);
                in_url = false;
                continue;
            }
            if letter.is_whitespace() || is_ours(letter) {
                in_url = false;
            } else if rest.starts_with("https://") || rest.starts_with("http://") {
                in_url = true;
            }
            match letter {
                QUOTE_MARK => writer.push_str("> "),
                letter if is_ours(letter) => writer.mark(letter),
                letter if letter.is_whitespace() => writer.spaces.push(letter),
                '`' => writer.literal(letter, next_seen(letter, after)),
                '*' | '_' | '~' if !in_url => writer.literal(letter, next_seen(letter, after)),
                letter => writer.letter(letter),
            }
            rest = after;
        }
        writer.close_to(0);
        writer
    }

    fn push(&mut self, letter: char) {
        self.out.push(letter);
        self.shape.push(letter);
        self.has_closed = false;
    }

    fn push_str(&mut self, text: &str) {
        self.out.push_str(text);
        self.shape.push_str(text);
        self.has_closed = false;
    }

    /// A mark of the first step.
    fn mark(&mut self, letter: char) {
        for [open, close] in [BOLD, ITALIC, STRIKE] {
            if letter == open {
                self.wanted.push(open);
            } else if letter == close
                && let Some(at) = self.wanted.iter().rposition(|mark| *mark == open)
            {
                self.wanted.remove(at);
            }
        }
    }

    fn close_to(&mut self, count: usize) {
        while self.shown.len() > count
            && let Some(mark) = self.shown.pop()
        {
            self.push(symbol(mark));
            self.has_closed = true;
        }
    }

    /// Makes what is shown what is wanted; a letter comes next.
    fn reconcile(&mut self) {
        // Bold within bold is bold.
        let mut wanted: Vec<char> = Vec::with_capacity(3);
        for mark in self.wanted.iter().filter(|_| !self.is_plain) {
            if !wanted.contains(mark) {
                wanted.push(*mark);
            }
        }
        let pairs = self.shown.iter().zip(&wanted);
        let common = pairs.take_while(|(shown, wanted)| shown == wanted).count();
        self.close_to(common);
        if !self.spaces.is_empty() {
            let spaces = std::mem::take(&mut self.spaces);
            self.push_str(&spaces);
        }
        for (number, mark) in wanted.into_iter().skip(common).enumerate() {
            let last = self.out.chars().next_back();
            let touches = last.is_some_and(|last| last.is_alphanumeric() || "*_~`".contains(last));
            if number == 0 && touches {
                self.push(APART);
            }
            self.push(symbol(mark));
            self.shown.push(mark);
        }
    }

    fn letter(&mut self, letter: char) {
        let is_quote = letter == '>' && self.out.is_empty();
        self.reconcile();
        // What closes counts at the end of a word alone, and a quote begins a line.
        if is_quote || self.has_closed && letter.is_alphanumeric() {
            self.push(APART);
        }
        self.push(letter);
    }

    /// A letter that would be a mark, and is none.
    fn literal(&mut self, letter: char, next: Option<char>) {
        self.reconcile();
        let after_word = self
            .out
            .chars()
            .next_back()
            .is_some_and(char::is_alphanumeric);
        let before_word = next.is_some_and(char::is_alphanumeric);
        if letter != '`' && after_word && before_word {
            return self.push(letter);
        }
        self.clashes |= self.shown.iter().any(|mark| symbol(*mark) == letter);
        if self.has_closed {
            self.push(APART);
        }
        self.push(letter);
        // White space at the end of a mark comes behind what closes it.
        let touches_end = letter == '`' && !self.shown.is_empty();
        if next.is_some_and(|next| touches_end || !next.is_whitespace()) {
            self.push(APART);
        }
    }

    fn code(&mut self, text: &str, is_block: bool) {
        let text = if is_block { text } else { text.trim() };
        if text.trim().is_empty() {
            return;
        }
        self.reconcile();
        let fence = if is_block || text.contains('`') {
            "```"
        } else {
            "`"
        };
        let at_edge = text.starts_with('`') || text.ends_with('`');
        let inner = match at_edge || text.contains("```") {
            true => text.replace('`', &format!("{APART}`{APART}")),
            false => text.to_owned(),
        };
        let last = self.out.chars().next_back();
        if self.has_closed || last.is_some_and(|c| c.is_alphanumeric() || c == '`') {
            self.push(APART);
        }
        self.out.push_str(fence);
        self.out.push_str(&inner);
        self.out.push_str(fence);
        self.shape.push(SOME_CODE);
        self.has_closed = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(markdown: &str) -> String {
        messages(markdown).concat()
    }

    #[test]
    fn markdown_becomes_whatsapps() {
        for (markdown, text) in [
            ("a **b** _c_ ~~d~~ `e<f`", "a *b* _c_ ~d~ `e<f`"),
            ("# Title\n\ntext", "*Title*\n\ntext"),
            ("[x](https://a.b/?c=d_e&f)", "x (https://a.b/?c=d_e&f)"),
            ("<https://a.b/_c_>", "https://a.b/_c_"),
            ("[x](javascript:alert(1))", "x"),
            (
                "- a\n- b\n  - c\n\n1. d\n2. e",
                "• a\n• b\n  • c\n\n1. d\n2. e",
            ),
            ("```rust\nlet a = 1 < 2;\n```", "```let a = 1 < 2;```"),
            ("> a\n> b\n\nc", "> a\n> b\n\nc"),
            ("**a `b` c**", "*a* `b` *c*"),
            ("***x***", "_*x*_"),
            ("**a\nb**", "*a*\n*b*"),
            ("a**b**c", "a\u{200B}*b*\u{200B}c"),
            ("**a**__b__", "*ab*"),
            ("**a**_b_", "*a*\u{200B}_b_"),
            ("snake_case_name 2*3", "snake_case_name 2*3"),
            ("a * b", "a * b"),
            ("~~a * b~~ *~ c*", "~a * b~ _~ c_"),
            (r"**a \*b** _c_", "a *\u{200B}b c"),
            (r"\*no\* \_no\_", "*\u{200B}no* _\u{200B}no_"),
            (r"\> no", "\u{200B}> no"),
            ("`a ` b", "`a` b"),
            ("``a`b``", "```a`b```"),
            ("| a | b |\n|---|---|\n| 1 | 22 |", "```a | b\n1 | 22```"),
            ("", ""),
        ] {
            assert_eq!(one(markdown), text, "{markdown}");
        }
        assert_eq!(escape("*x* `y`"), "*\u{200B}x* `\u{200B}y`");
    }

    /// Whether a reader as WhatsApp's finds marks that nest, each closed on its line.
    fn is_valid(message: &str) -> bool {
        let mut rest = message.to_owned();
        let is_space = |c: char| c.is_whitespace() || c == APART;
        // Code first: what is within means nothing.
        while let Some(at) = rest.find("```") {
            let Some(length) = rest[at + 3..].find("```") else {
                return false;
            };
            rest.replace_range(at..at + 6 + length, "\u{FFFC}");
        }
        while let Some((at, end)) = rest.match_indices('`').find_map(|(at, _)| {
            let inner = &rest[at + 1..];
            let opens = !inner.starts_with(|c| is_space(c) || c == '`');
            let end = inner
                .find(['`', '\n'])
                .filter(|end| inner[*end..].starts_with('`') && !inner[..*end].ends_with(is_space));
            end.filter(|_| opens).map(|end| (at, at + 2 + end))
        }) {
            rest.replace_range(at..end, "\u{FFFC}");
        }
        rest.lines().all(nests)
    }

    fn seen(text: &str) -> String {
        let marks = |c: &char| !"*_~`>•".contains(*c) && *c != APART && !c.is_whitespace();
        text.chars().filter(marks).collect()
    }

    #[test]
    fn a_long_answer_is_cut_where_it_may_be() {
        let code: String = (0..800).map(|n| format!("let line_{n} = {n};\n")).collect();
        let words = "A sentence with a **[link](https://example.com/a/b)**. ".repeat(300);
        let text = format!(
            "# Begin\n\n{words}\n\n```rust\n{code}```\n\n{}",
            "🙂".repeat(5000)
        );
        let messages = messages(&text);
        assert!(messages.len() > 5);
        for message in &messages {
            assert!(units(message) <= MAX_TEXT && is_valid(message), "{message}");
            assert_eq!(message.matches("```").count() % 2, 0);
        }
        let all = messages.concat();
        for n in [0, 399, 799] {
            assert!(all.contains(&format!("let line_{n} = {n};")));
        }
        assert_eq!(all.matches('🙂').count(), 5000);
        assert!(!one(&"*a*_b_~~c~~".repeat(4000)).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_valid_and_says_the_same(
            text in "([a-z ]{0,30}|[*_~`#>\\-\\[\\]()<>&|!\\\\\n]{1,4}|🙂|\u{301}|\u{a0}|\u{3000}|```|\n\n|\u{E000}){0,60}",
        ) {
            for message in messages(&text) {
                prop_assert!(units(&message) <= MAX_TEXT);
                prop_assert!(is_valid(&message), "{message:?}");
                prop_assert!(!message.trim().is_empty());
            }
            let plain = crate::channel::markdown::render(&text, &Plain);
            let plain: String = plain.chars().filter(|c| !is_ours(*c)).collect();
            prop_assert_eq!(seen(&one(&text)), seen(&plain));
        }
    }
}
