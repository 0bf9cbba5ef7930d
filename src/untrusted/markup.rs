//! HTML that is nested deeper than any page: found by a scan, and read as a row of texts, in time
//! that grows with its length alone.

use std::cell::RefCell;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer,
};

/// Browsers keep 512 levels; what builds and walks trees here takes time by depth.
const MAX_DEPTH: usize = 200;

/// Elements that nothing is inside of, or whose end is often left out: they say nothing of depth.
const FLAT: [&[u8]; 32] = [
    b"area",
    b"base",
    b"br",
    b"col",
    b"embed",
    b"hr",
    b"img",
    b"input",
    b"link",
    b"meta",
    b"param",
    b"source",
    b"track",
    b"wbr",
    b"p",
    b"li",
    b"dt",
    b"dd",
    b"option",
    b"optgroup",
    b"tr",
    b"td",
    b"th",
    b"thead",
    b"tbody",
    b"tfoot",
    b"colgroup",
    b"caption",
    b"rp",
    b"rt",
    b"html",
    b"body",
];

/// Whether a page has elements inside each other beyond all measure.
pub fn is_too_deep(html: &str) -> bool {
    let bytes = html.as_bytes();
    let mut depth: usize = 0;
    for at in memchr::memchr_iter(b'<', bytes) {
        let rest = &bytes[at + 1..];
        let (closes, rest) = match rest {
            [b'/', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let name = rest
            .iter()
            .take(16)
            .take_while(|b| b.is_ascii_alphanumeric());
        let name: Vec<u8> = name.map(u8::to_ascii_lowercase).collect();
        if !name.first().is_some_and(u8::is_ascii_alphabetic) || FLAT.contains(&name.as_slice()) {
            continue;
        }
        match closes {
            true => depth = depth.saturating_sub(1),
            false => depth += 1,
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// The texts of a page, one behind the other.
pub fn flat_text(html: &str) -> String {
    let input = BufferQueue::default();
    input.push_back(StrTendril::from_slice(html));
    let tokenizer = Tokenizer::new(Texts::default(), Default::default());
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    tokenizer.sink.text.into_inner()
}

#[derive(Default)]
struct Texts {
    text: RefCell<String>,
    /// Inside of what is no text for readers.
    hidden: RefCell<bool>,
}

impl Texts {
    fn tag(&self, tag: &Tag) -> TokenSinkResult<()> {
        let name = &*tag.name;
        let raw = match name {
            "script" => Some(RawKind::ScriptData),
            "style" | "noframes" | "iframe" | "noembed" | "xmp" => Some(RawKind::Rawtext),
            "title" | "textarea" => Some(RawKind::Rcdata),
            _ => None,
        };
        let is_hidden = raw.is_some() && !matches!(name, "title" | "textarea");
        match tag.kind {
            TagKind::StartTag => {
                self.separate();
                *self.hidden.borrow_mut() = is_hidden;
                raw.map_or(TokenSinkResult::Continue, TokenSinkResult::RawData)
            }
            TagKind::EndTag => {
                self.separate();
                *self.hidden.borrow_mut() = false;
                TokenSinkResult::Continue
            }
        }
    }

    fn separate(&self) {
        let mut text = self.text.borrow_mut();
        if !text.is_empty() && !text.ends_with(char::is_whitespace) {
            text.push('\n');
        }
    }
}

impl TokenSink for Texts {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        match token {
            Token::TagToken(tag) => return self.tag(&tag),
            Token::CharacterTokens(text) if !*self.hidden.borrow() => {
                self.text.borrow_mut().push_str(&text);
            }
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_told_from_length() {
        let page = |inner: &str| format!("<html><body>{inner}</body></html>");
        assert!(is_too_deep(&page(&"<div>".repeat(50_000))));
        assert!(is_too_deep(&"<BLOCKQUOTE a=b>".repeat(300)));
        assert!(!is_too_deep(&page(&"<p>a<br><li>b".repeat(5_000))));
        assert!(!is_too_deep(&page(&"<div><b>a</b></div>".repeat(5_000))));
        assert!(!is_too_deep("a < b, 3<4 and <<<<"));
    }

    #[test]
    fn texts_stay_without_scripts() {
        let page = "<title>A &amp; B</title><script>if (a<b) x()</script><style>p{}</style>\
                    <div><p>one</p>two<b>three</b>";
        assert_eq!(flat_text(page).trim(), "A & B\none\ntwo\nthree");
        let deep = "<div>".repeat(50_000) + "the end";
        assert_eq!(flat_text(&deep), "the end");
    }
}
