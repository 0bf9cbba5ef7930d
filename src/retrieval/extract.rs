//! From a file's bytes to chunks of text. `pdf-extract` and `html2text` read the formats that are
//! not text already; `text-splitter` cuts along the text's own structure and counts in tokens of
//! OpenAI's embedding models.

use text_splitter::{ChunkConfig, MarkdownSplitter, TextSplitter};

/// Text beyond this is not taken in, in bytes.
const MAX_TEXT: usize = 16 * 1024 * 1024;
/// Columns at which a page's text is wrapped.
const HTML_WIDTH: usize = 120;

/// Why a file has no text to search; the codes are OpenAI's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    #[error("files of this type are not read")]
    Unsupported,
    #[error("{0}")]
    Invalid(String),
}

impl ExtractError {
    /// `last_error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported_file",
            Self::Invalid(_) => "invalid_file",
        }
    }
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

/// The chunks of a file. Takes long for large files: not for a thread that serves.
pub fn chunks(
    filename: &str,
    content: &[u8],
    chunk_tokens: usize,
    overlap_tokens: usize,
) -> Result<Vec<String>, ExtractError> {
    let format = format_of(filename, content);
    let text = match format {
        // The parser panics on some broken files.
        Format::Pdf => std::panic::catch_unwind(|| pdf_extract::extract_text_from_mem(content))
            .map_err(|_| ExtractError::Invalid("the PDF cannot be read".to_owned()))?
            .map_err(|e| ExtractError::Invalid(format!("the PDF cannot be read: {e}")))?
            .replace('\0', ""),
        Format::Html => html2text::config::plain_no_decorate()
            .string_from_read(decode(content)?.as_bytes(), HTML_WIDTH)
            .map_err(|e| ExtractError::Invalid(format!("the page cannot be read: {e}")))?,
        Format::Markdown | Format::Plain => decode(content)?,
    };
    if text.len() > MAX_TEXT {
        let message = format!("the file has more than {MAX_TEXT} bytes of text");
        return Err(ExtractError::Invalid(message));
    }
    let invalid = |e: text_splitter::ChunkConfigError| ExtractError::Invalid(e.to_string());
    let config = ChunkConfig::new(chunk_tokens)
        .with_sizer(tiktoken_rs::cl100k_base_singleton())
        .with_overlap(overlap_tokens)
        .map_err(invalid)?;
    let owned = |chunk: &str| chunk.to_owned();
    let chunks: Vec<String> = match format {
        Format::Markdown => MarkdownSplitter::new(config)
            .chunks(&text)
            .map(owned)
            .collect(),
        _ => TextSplitter::new(config).chunks(&text).map(owned).collect(),
    };
    match chunks.is_empty() {
        true => Err(ExtractError::Invalid("the file has no text".to_owned())),
        false => Ok(chunks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let found = chunks(name, &content, 800, 400).expect(name);
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
            let refused = chunks(name, content, 800, 400).expect_err(name);
            assert_eq!(refused.code(), code, "{name}");
        }
    }

    #[test]
    fn chunks_are_counted_in_tokens_and_overlap() {
        let text = "one two three four five six seven eight nine ten. ".repeat(40);
        let found = chunks("a.txt", text.as_bytes(), 100, 20).expect("chunks");
        assert!(found.len() > 3);
        let counter = tiktoken_rs::cl100k_base_singleton();
        for chunk in &found {
            assert!(counter.encode_ordinary(chunk).len() <= 100);
        }
        let total: usize = found.iter().map(String::len).sum();
        assert!(total > text.trim().len(), "nothing overlaps");
    }
}
