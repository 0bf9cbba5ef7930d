//! From a file's bytes to chunks of text. `pdf-extract` and `html2text` read the formats that are
//! not text already; `text-splitter` cuts along the text's own structure and counts in tokens of
//! OpenAI's embedding models.

use serde::{Deserialize, Serialize};
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};

use super::markup;

/// Text beyond this is not taken in, in bytes.
const MAX_TEXT: usize = 16 * 1024 * 1024;
/// Columns at which a page's text is wrapped.
const HTML_WIDTH: usize = 120;
/// The splitters take time by the square of what they are given at once, in the worst case.
const SECTION: usize = 64 * 1024;
/// Of what is no words, where each chunk makes a splitter count all that is left of the word.
const WORDLESS_SECTION: usize = 4 * 1024;
/// Longer words are counted in pieces, in bytes: counting one takes time by its square.
const MAX_WORD: usize = 128;
/// Markdown's lists and quotes inside each other; what has more is taken for plain text.
const MAX_MARKS: usize = 32;

/// Why a file has no text to search; the codes are OpenAI's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    #[error("files of this type are not read")]
    Unsupported,
    #[error("{0}")]
    Invalid(String),
    /// Another attempt may go better.
    #[error("{0}")]
    Later(String),
}

impl ExtractError {
    /// `last_error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported_file",
            Self::Invalid(_) => "invalid_file",
            Self::Later(_) => "server_error",
        }
    }

    /// What a child told.
    pub(super) fn of(code: &str, message: String) -> Self {
        match code {
            "unsupported_file" => Self::Unsupported,
            _ => Self::Invalid(message),
        }
    }
}

/// How a file is cut.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cutting {
    pub filename: String,
    pub chunk_tokens: usize,
    pub overlap_tokens: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Pdf,
    Html,
    Markdown,
    Plain,
}

fn format_of(filename: &str, content: &[u8]) -> Format {
    let extension = filename.rsplit_once('.').map(|(_, e)| e.to_lowercase());
    match extension.as_deref() {
        _ if content.starts_with(b"%PDF-") => Format::Pdf,
        Some("html" | "htm" | "xhtml") => Format::Html,
        Some("md" | "markdown") => Format::Markdown,
        _ => Format::Plain,
    }
}

fn decode(content: &[u8]) -> Result<String, ExtractError> {
    let wide = |from: fn([u8; 2]) -> u16| {
        let (units, _) = content[2..].as_chunks::<2>();
        String::from_utf16(&units.iter().map(|u| from(*u)).collect::<Vec<_>>())
            .map_err(|_| ExtractError::Unsupported)
    };
    let text = match content {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes)?,
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => std::str::from_utf8(rest)
            .map_err(|_| ExtractError::Unsupported)?
            .to_owned(),
    };
    // PostgreSQL's text holds no NUL, and a text has none.
    match text.contains('\0') {
        true => Err(ExtractError::Unsupported),
        false => Ok(text),
    }
}

fn text_of(format: Format, content: &[u8]) -> Result<String, ExtractError> {
    let unreadable = |what: &str, why: &dyn std::fmt::Display| {
        let why = why.to_string();
        let why = why.chars().take(300).collect::<String>();
        ExtractError::Invalid(format!("the {what} cannot be read: {why}"))
    };
    Ok(match format {
        // The parser panics on some broken files.
        Format::Pdf => std::panic::catch_unwind(|| pdf_extract::extract_text_from_mem(content))
            .map_err(|_| ExtractError::Invalid("the PDF cannot be read".to_owned()))?
            .map_err(|e| unreadable("PDF", &e))?
            .replace('\0', ""),
        Format::Html => {
            let html = decode(content)?;
            match markup::is_too_deep(&html) {
                true => markup::flat_text(&html),
                false => html2text::config::plain_no_decorate()
                    .string_from_read(html.as_bytes(), HTML_WIDTH)
                    .map_err(|e| unreadable("page", &e))?,
            }
        }
        Format::Markdown | Format::Plain => decode(content)?,
    })
}

/// The chunks of a file. For the sandbox: takes long for large files.
pub fn chunks(cutting: &Cutting, content: &[u8]) -> Result<Vec<String>, ExtractError> {
    let format = format_of(&cutting.filename, content);
    let text = text_of(format, content)?;
    if text.len() > MAX_TEXT {
        let message = format!("the file has more than {MAX_TEXT} bytes of text");
        return Err(ExtractError::Invalid(message));
    }
    let config = ChunkConfig::new(cutting.chunk_tokens)
        .with_sizer(Tokens)
        .with_overlap(cutting.overlap_tokens)
        .map_err(|e| ExtractError::Invalid(e.to_string()))?;
    let mut chunks: Vec<String> = Vec::new();
    if format == Format::Markdown && !is_marked_deeply(&text) {
        let splitter = MarkdownSplitter::new(config);
        for section in sections(&text) {
            chunks.extend(splitter.chunks(section).map(str::to_owned));
        }
    } else {
        let splitter = TextSplitter::new(config);
        for section in sections(&text) {
            chunks.extend(splitter.chunks(section).map(str::to_owned));
        }
    }
    match chunks.is_empty() {
        true => Err(ExtractError::Invalid("the file has no text".to_owned())),
        false => Ok(chunks),
    }
}

/// Counts tokens in time that grows with the text alone.
struct Tokens;

impl ChunkSizer for Tokens {
    fn size(&self, text: &str) -> usize {
        let counter = tiktoken_rs::cl100k_base_singleton();
        let mut count = 0;
        let mut from = 0;
        let mut at = 0;
        // A long word is cut off from what is before it, and counted piece by piece.
        for word in text.split_inclusive(char::is_whitespace) {
            if word.len() > MAX_WORD {
                if from < at {
                    count += counter.encode_ordinary(&text[from..at]).len();
                }
                for piece in pieces(word, MAX_WORD) {
                    count += counter.encode_ordinary(piece).len();
                }
                from = at + word.len();
            }
            at += word.len();
        }
        if from < text.len() {
            count += counter.encode_ordinary(&text[from..]).len();
        }
        count
    }
}

/// A text in pieces of at most `limit` bytes, cut between characters.
fn pieces(text: &str, limit: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = (0..=limit.min(rest.len()))
            .rev()
            .find(|at| rest.is_char_boundary(*at))
            .filter(|end| *end > 0)
            .unwrap_or(rest.len());
        let (piece, others) = rest.split_at(end);
        rest = others;
        Some(piece)
    })
}

/// What stands before the first word that is longer than a section without words may be.
fn before_long_word(text: &str) -> Option<&str> {
    let mut at = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        if word.len() > WORDLESS_SECTION {
            return Some(&text[..at]).filter(|before| !before.is_empty());
        }
        at += word.len();
    }
    None
}

/// A text in sections, cut where a paragraph, a line or a word ends.
fn sections(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_wordless = pieces(rest, WORDLESS_SECTION)
            .next()
            .is_some_and(|begin| !begin.contains(char::is_whitespace));
        let limit = match is_wordless {
            true => WORDLESS_SECTION,
            false => SECTION,
        };
        let piece = pieces(rest, limit).next()?;
        // A long word further on is left to sections of its own.
        let piece = before_long_word(piece).unwrap_or(piece);
        let end = match piece.len() == rest.len() {
            true => rest.len(),
            false => ["\n# ", "\n\n", "\n", " "]
                .iter()
                .find_map(|end| {
                    let at = piece.rfind(end)?;
                    // A heading begins the next section; other ends belong to this one.
                    let cut = at + if *end == "\n# " { 1 } else { end.len() };
                    (cut > piece.len() / 2).then_some(cut)
                })
                .unwrap_or(piece.len()),
        };
        let (section, others) = rest.split_at(end);
        rest = others;
        Some(section)
    })
}

/// Whether a line of Markdown opens more lists and quotes than anybody writes.
fn is_marked_deeply(text: &str) -> bool {
    text.lines().any(|line| {
        let indented = line.len() - line.trim_start().len();
        let marks = line
            .bytes()
            .take_while(|b| b" \t>-*+.)0123456789".contains(b))
            .filter(|b| b">-*+.)".contains(b))
            .count();
        // A rule of dashes or stars is no list.
        let is_rule = line.bytes().all(|b| b" \t-*_".contains(&b));
        (marks > MAX_MARKS && !is_rule) || indented > 4 * MAX_MARKS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(
        filename: &str,
        content: &[u8],
        chunk_tokens: usize,
        overlap_tokens: usize,
    ) -> Result<Vec<String>, ExtractError> {
        let cutting = Cutting {
            filename: filename.to_owned(),
            chunk_tokens,
            overlap_tokens,
        };
        chunks(&cutting, content)
    }

    /// A PDF of one page that says `text`.
    fn pdf(text: &str) -> Vec<u8> {
        let stream = format!("BT /F1 12 Tf 72 720 Td ({text}) Tj ET");
        let objects = [
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R \
             /Resources << /Font << /F1 5 0 R >> >> >>"
                .to_owned(),
            format!(
                "<< /Length {} >>\nstream\n{stream}\nendstream",
                stream.len()
            ),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
        ];
        let mut file = b"%PDF-1.4\n".to_vec();
        let mut offsets = Vec::new();
        for (number, object) in objects.iter().enumerate() {
            offsets.push(file.len());
            file.extend(format!("{} 0 obj\n{object}\nendobj\n", number + 1).into_bytes());
        }
        let start = file.len();
        file.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).into_bytes());
        for offset in offsets {
            file.extend(format!("{offset:010} 00000 n \n").into_bytes());
        }
        let trailer = format!(
            "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF",
            objects.len() + 1
        );
        file.extend(trailer.into_bytes());
        file
    }

    #[test]
    fn text_is_found_in_every_format() {
        for (name, content) in [
            ("a.txt", b"The keel is of oak.".to_vec()),
            ("a.txt", b"\xef\xbb\xbfThe keel is of oak.".to_vec()),
            ("a.md", b"# Ships\n\nThe keel is of oak.".to_vec()),
            (
                "a.html",
                b"<html><head><style>p{}</style></head><p>The keel is of <b>oak</b>.".to_vec(),
            ),
            ("a.bin", pdf("The keel is of oak.")),
        ] {
            let found = cut(name, &content, 800, 400).expect(name);
            assert_eq!(found.len(), 1, "{name}");
            assert!(
                found[0].contains("The keel is of oak."),
                "{name}: {found:?}"
            );
            assert!(!found[0].contains("p{}"));
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for (name, content, code) in [
            ("a.png", &b"\x89PNG\r\n\x1a\n\xff"[..], "unsupported_file"),
            ("a.txt", b"a\0b", "unsupported_file"),
            ("a.txt", b"  \n", "invalid_file"),
            ("a.pdf", b"%PDF-1.4 broken", "invalid_file"),
        ] {
            let refused = cut(name, content, 800, 400).expect_err(name);
            assert_eq!(refused.code(), code, "{name}");
        }
    }

    #[test]
    fn chunks_are_counted_in_tokens_and_overlap() {
        let text = "one two three four five six seven eight nine ten. ".repeat(40);
        let found = cut("a.txt", text.as_bytes(), 100, 20).expect("chunks");
        assert!(found.len() > 3);
        let counter = tiktoken_rs::cl100k_base_singleton();
        for chunk in &found {
            assert!(counter.encode_ordinary(chunk).len() <= 100);
        }
        let total: usize = found.iter().map(String::len).sum();
        assert!(total > text.trim().len(), "nothing overlaps");
    }

    #[test]
    fn long_words_and_deep_marks_take_no_longer() {
        let begun = std::time::Instant::now();
        for (name, text) in [
            ("a.txt", "x".repeat(200_000)),
            ("a.md", "ä".repeat(100_000)),
            ("a.md", "> ".repeat(20_000) + "end"),
            ("a.md", "- ".repeat(20_000) + "end"),
        ] {
            let found = cut(name, text.as_bytes(), 800, 400).expect(name);
            assert!(
                found.iter().map(String::len).sum::<usize>() + 2 * found.len() >= text.trim().len()
            );
        }
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    }

    #[test]
    fn sections_are_the_whole_text() {
        let text = "A line of words.\n\n".repeat(20_000) + &"ä".repeat(100_000);
        let cut: Vec<&str> = sections(&text).collect();
        assert_eq!(cut.concat(), text);
        assert!(cut.iter().all(|section| section.len() <= SECTION));
        assert!(cut[0].ends_with("\n\n"));
    }
}
