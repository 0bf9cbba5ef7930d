//! Text that stays JSON-escaped from the provider's bytes to the client's.

use std::borrow::Cow;

use bytes::Bytes;

use super::Room;

/// The inside of a JSON string literal, without its quotes: valid UTF-8 and valid JSON escapes.
/// What was a valid string body on the way in is one on the way out, so a delta is never
/// unescaped on the hot path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Escaped(Bytes);

impl Escaped {
    /// Wraps the inside of a JSON string that a JSON parser has accepted.
    pub fn from_valid(body: Bytes) -> Self {
        Self(body)
    }

    /// Wraps a raw JSON string token (with its quotes) that is a slice of `source`.
    /// `None` when the token is no string.
    pub fn from_token(source: &Bytes, token: &str) -> Option<Self> {
        let inner = token.strip_prefix('"')?.strip_suffix('"')?;
        Some(Self(slice_of(source, inner.as_bytes())))
    }

    /// Escapes plain text.
    pub fn escape(text: &str) -> Self {
        // Without a way out in the middle it looks at many bytes at once.
        let is_special = |b: u8| b < 0x20 || b == b'"' || b == b'\\';
        if !text.bytes().fold(false, |any, b| any | is_special(b)) {
            return Self(Bytes::copy_from_slice(text.as_bytes()));
        }
        let mut quoted = Vec::with_capacity(text.len() + text.len() / 8 + 8);
        if serde_json::to_writer(&mut quoted, text).is_err() {
            return Self::default();
        }
        let end = quoted.len() - 1;
        Self(Bytes::from(quoted).slice(1..end))
    }

    /// The escaped bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The escaped text.
    pub fn as_str(&self) -> Cow<'_, str> {
        text_of(&self.0)
    }

    /// Moves a small text into `room`.
    pub fn settle(&mut self, room: &mut Room) {
        room.settle(&mut self.0);
    }

    /// The escaped bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many characters the plain text has; without a copy.
    pub fn chars(&self) -> u64 {
        let begun = |bytes: &[u8]| bytes.iter().filter(|b| **b & 0xC0 != 0x80).count() as u64;
        let (mut rest, mut chars) = (&self.0[..], 0);
        if rest.is_ascii() && memchr::memchr(b'\\', rest).is_none() {
            return rest.len() as u64;
        }
        while let Some(at) = memchr::memchr(b'\\', rest) {
            chars += begun(&rest[..at]);
            let used = match rest.get(at + 1) {
                None => return chars,
                Some(b'u') => unicode_escape(&rest[at..]).1,
                Some(_) => 2,
            };
            chars += 1;
            rest = rest.get(at + used..).unwrap_or_default();
        }
        chars + begun(rest)
    }

    /// The plain text. Lone surrogates, which JSON allows and UTF-8 does not, become U+FFFD.
    pub fn unescape(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        unescape_into(&self.0, &mut text);
        text
    }
}

/// `inner` as a shared slice of `source` when it lies in it, else a copy.
pub(crate) fn slice_of(source: &Bytes, inner: &[u8]) -> Bytes {
    let start = source.as_ptr() as usize;
    let at = inner.as_ptr() as usize;
    if at >= start && at + inner.len() <= start + source.len() {
        source.slice(at - start..at - start + inner.len())
    } else {
        Bytes::copy_from_slice(inner)
    }
}

/// Text that is valid; the check for that looks at many bytes at once, that for what is lossy does not.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// Appends the plain text of the concatenated string bodies in `escaped` to `text`.
/// Surrogate pairs that were split over two deltas come together here.
pub(crate) fn unescape_into(escaped: &[u8], text: &mut String) {
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        text.push_str(&text_of(&rest[..at]));
        let Some(&kind) = rest.get(at + 1) else {
            return;
        };
        let mut used = at + 2;
        match kind {
            b'n' => text.push('\n'),
            b't' => text.push('\t'),
            b'r' => text.push('\r'),
            b'b' => text.push('\u{8}'),
            b'f' => text.push('\u{c}'),
            b'u' => {
                let (ch, taken) = unicode_escape(&rest[at..]);
                text.push(ch);
                used = at + taken;
            }
            other => text.push(other as char),
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    text.push_str(&text_of(rest));
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(bytes.get(2..6)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

fn unicode_escape(at: &[u8]) -> (char, usize) {
    let Some(first) = hex4(at) else {
        return (char::REPLACEMENT_CHARACTER, at.len().min(6));
    };
    if (0xD800..0xDC00).contains(&first)
        && at.get(6..8) == Some(b"\\u")
        && let Some(second) = hex4(&at[6..])
        && (0xDC00..0xE000).contains(&second)
    {
        let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
            12,
        );
    }
    (
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
        6,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn split_surrogates_join_and_lone_ones_are_replaced() {
        let mut text = String::new();
        unescape_into(br"\ud83d\ude00!", &mut text);
        assert_eq!(text, "😀!");
        assert_eq!(
            Escaped::from_valid(Bytes::from_static(br"\ud83d")).unescape(),
            "\u{fffd}"
        );
    }

    #[test]
    fn a_token_is_sliced_not_copied() {
        let source = Bytes::from_static(br#"{"a":"b\n"}"#);
        let token = std::str::from_utf8(&source[5..10]).expect("utf-8");
        let escaped = Escaped::from_token(&source, token).expect("a string");
        assert_eq!(escaped.as_bytes().as_ptr(), source[6..].as_ptr());
        assert_eq!(escaped.unescape(), "b\n");
        assert_eq!(Escaped::from_token(&source, "12"), None);
    }

    proptest! {
        #[test]
        fn escape_and_unescape_are_inverse(text in "\\PC*|[\\x00-\\x7f]*") {
            let escaped = Escaped::escape(&text);
            prop_assert_eq!(escaped.unescape(), text.clone());
            prop_assert_eq!(escaped.chars(), text.chars().count() as u64);
            let quoted = [b"\"", escaped.as_bytes(), b"\""].concat();
            prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text);
        }

        #[test]
        fn unescape_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut text = String::new();
            unescape_into(&bytes, &mut text);
        }
    }
}
