//! Words in as many messages as a platform's limit asks for, cut where it hurts least: between blocks,
//! else between lines, else between words.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};

use super::markdown::{Format, Mark, options, render};

/// Messages of one answer; what is beyond is told of.
const MOST: usize = 40;

/// The length that platforms count: UTF-16 code units.
pub fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// The blocks of a Markdown text, in order, and whether each is code.
fn blocks(markdown: &str) -> Vec<(&str, bool)> {
    let (mut depth, mut starts) = (0, Vec::new());
    for (event, range) in Parser::new_ext(markdown, options()).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                if depth == 0 {
                    starts.push((range.start, matches!(tag, Tag::CodeBlock(_))));
                }
                depth += 1;
            }
            Event::End(_) => depth -= 1,
            _ if depth == 0 => starts.push((range.start, false)),
            _ => {}
        }
    }
    let mut found = Vec::with_capacity(starts.len());
    for (at, (start, is_code)) in starts.iter().enumerate() {
        // An indented block begins with its line.
        let begin = |at: usize| markdown[..at].rfind('\n').map_or(0, |line| line + 1);
        let end = starts
            .get(at + 1)
            .map_or(markdown.len(), |next| begin(next.0));
        if let Some(block) = markdown.get(begin(*start)..end) {
            found.push((block, *is_code));
        }
    }
    found
}

/// Markdown as messages of a format, none longer than `limit` UTF-16 units.
pub fn messages<F: Format>(markdown: &str, format: &F, limit: usize) -> Vec<String> {
    let whole = render(markdown, format);
    if units(&whole) <= limit {
        return match whole.is_empty() {
            true => Vec::new(),
            false => vec![whole],
        };
    }
    let mut messages = Vec::new();
    let mut pending = String::new();
    for (block, is_code) in blocks(markdown) {
        let together = format!("{pending}{block}");
        if units(&render(&together, format)) <= limit {
            pending = together;
            continue;
        }
        flush(&mut pending, format, &mut messages);
        if units(&render(block, format)) <= limit {
            block.clone_into(&mut pending);
        } else if is_code {
            messages.extend(cut_code(block, format, limit));
        } else {
            messages.extend(cut_words(block, format, limit));
        }
        if messages.len() > MOST {
            break;
        }
    }
    flush(&mut pending, format, &mut messages);
    if messages.len() > MOST {
        messages.truncate(MOST - 1);
        let mut rest = String::new();
        format.text("(The rest is too long for this channel.)", &mut rest);
        messages.push(rest);
    }
    messages
}

fn flush<F: Format>(pending: &mut String, format: &F, messages: &mut Vec<String>) {
    let text = render(&std::mem::take(pending), format);
    if !text.is_empty() {
        messages.push(text);
    }
}

/// A block of code in several, each whole.
fn cut_code<F: Format>(block: &str, format: &F, limit: usize) -> Vec<String> {
    let (mut language, mut code) = (String::new(), String::new());
    for event in Parser::new_ext(block, options()) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                language = info.split_whitespace().next().unwrap_or("").to_owned();
            }
            Event::Text(text) => code.push_str(&text),
            _ => {}
        }
    }
    let wrap = |text: &str| {
        let mut out = String::new();
        format.block(&language, text, &mut out);
        out
    };
    cut(&code, limit, true, wrap)
}

/// A block of words in several, without marks: they could not end where they began.
fn cut_words<F: Format>(block: &str, format: &F, limit: usize) -> Vec<String> {
    let plain = render(block, &Plain);
    let wrap = |text: &str| {
        let mut out = String::new();
        format.text(text, &mut out);
        out
    };
    cut(&plain, limit, false, wrap)
}

/// Cuts a text so that each piece, wrapped, is within the limit.
fn cut(text: &str, limit: usize, by_lines: bool, wrap: impl Fn(&str) -> String) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.trim().is_empty() && pieces.len() <= MOST {
        let mut end = longest(rest, limit);
        // What the format adds makes it longer.
        while units(&wrap(&rest[..end])) > limit && end > 1 {
            end = longest(rest, units(&rest[..end]) * 9 / 10);
        }
        let mut end = end.max(rest.chars().next().map_or(1, char::len_utf8));
        if end < rest.len() {
            end = boundary(rest, end, by_lines);
        }
        let piece = match by_lines {
            true => rest[..end].trim_end_matches('\n'),
            false => rest[..end].trim(),
        };
        if !piece.is_empty() {
            pieces.push(wrap(piece));
        }
        rest = match by_lines {
            true => rest[end..].strip_prefix('\n').unwrap_or(&rest[end..]),
            false => rest[end..].trim_start(),
        };
    }
    pieces
}

/// The bytes of the longest beginning of so many UTF-16 units.
fn longest(text: &str, limit: usize) -> usize {
    let mut count = 0;
    for (at, letter) in text.char_indices() {
        count += letter.len_utf16();
        if count > limit {
            return at;
        }
    }
    text.len()
}

/// The last good place to cut at or before `end`: not in the first quarter, or pieces would be tiny.
fn boundary(text: &str, end: usize, by_lines: bool) -> usize {
    let head = &text[..end];
    let least = end / 4;
    let found = |at: Option<usize>| at.filter(|at| *at > least);
    let line = found(head.rfind('\n'));
    if by_lines {
        return line.or_else(|| found(head.rfind(' '))).unwrap_or(end);
    }
    let sentence = [". ", "! ", "? ", "。", "\n"]
        .iter()
        .filter_map(|mark| head.rfind(mark).map(|at| at + mark.len()))
        .max();
    found(sentence.filter(|at| *at > end / 2))
        .or_else(|| found(head.rfind(char::is_whitespace)))
        .unwrap_or_else(|| before_joined(text, end))
}

/// Does not part a letter from the marks that belong to it.
fn before_joined(text: &str, end: usize) -> usize {
    use unicode_segmentation::UnicodeSegmentation;
    let start = text[..end]
        .char_indices()
        .rev()
        .nth(64)
        .map_or(0, |(at, _)| at);
    let boundaries = text[start..].grapheme_indices(true);
    let last = boundaries
        .map(|(at, _)| start + at)
        .take_while(|at| *at <= end)
        .last();
    last.filter(|at| *at > start).unwrap_or(end)
}

/// Words alone; a link is followed by where it leads to.
pub struct Plain;

impl Format for Plain {
    fn text(&self, text: &str, out: &mut String) {
        out.push_str(text);
    }

    fn open(&self, _mark: &Mark, _out: &mut String) {}

    fn close(&self, mark: &Mark, out: &mut String) {
        if let Mark::Link(url) = mark
            && !url.is_empty()
            && !out.ends_with(url.as_str())
        {
            out.push_str(" (");
            out.push_str(url);
            out.push(')');
        }
    }

    fn code(&self, text: &str, out: &mut String) {
        out.push_str(text);
    }

    fn block(&self, _language: &str, text: &str, out: &mut String) {
        out.push_str(text);
    }

    fn open_quote(&self, _out: &mut String) {}

    fn close_quote(&self, _out: &mut String) {}
}
