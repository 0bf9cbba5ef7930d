//! Where the head and the body of an HTTP/1.1 answer end (RFC 9112, sections 2.1, 6.3 and 7.1).
//! Imports the error; reads no socket.
//!
//! Nothing is kept of what was read but where in it one is, so that an open stream that waits
//! holds no buffer.

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode, header};

use super::error::UpstreamError;

/// Of a chunk's size with its extensions, and of all trailers: nobody needs more.
const MAX_LINE_BYTES: u16 = 16 * 1024;

/// Finds the empty line behind a head.
#[derive(Debug, Default)]
pub struct HeadEnd {
    /// Something other than line ends has come: those before a head are no part of it.
    is_begun: bool,
    line_has_text: bool,
    is_found: bool,
    bytes: usize,
}

impl HeadEnd {
    /// How many bytes of `read` belong to the head. What comes behind a head that has ended is
    /// another (one behind an informational answer).
    pub fn find(&mut self, read: &[u8]) -> usize {
        if self.is_found {
            *self = Self::default();
        }
        let mut line_start = 0;
        while let Some(length) = memchr::memchr(b'\n', &read[line_start..]) {
            self.text(&read[line_start..line_start + length]);
            line_start += length + 1;
            if self.is_begun && !self.line_has_text {
                self.is_found = true;
                self.bytes += line_start;
                return line_start;
            }
            self.line_has_text = false;
        }
        self.text(&read[line_start..]);
        self.bytes += read.len();
        read.len()
    }

    fn text(&mut self, of_line: &[u8]) {
        if of_line.iter().any(|byte| *byte != b'\r') {
            self.is_begun = true;
            self.line_has_text = true;
        }
    }

    /// The length of the last head, when its end was found.
    pub fn length(&self) -> Option<usize> {
        self.is_found.then_some(self.bytes)
    }
}

/// A body's framing is not what its head says, or the head says nothing that can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFraming(pub &'static str);

impl From<BadFraming> for UpstreamError {
    fn from(bad: BadFraming) -> Self {
        Self::Malformed(bad.to_string())
    }
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Ended,
    /// So many bytes.
    Sized(u64),
    UntilClose,
    Chunked(Chunked),
}

/// Where in the chunked coding the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    at: At,
    /// Of the chunk: its size while that is read, then what is to come of its data.
    left: u64,
    /// So far, of what [`MAX_LINE_BYTES`] bounds.
    line: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first digit of a size.
    Start,
    Size,
    /// White space or an extension behind a size: read over.
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
}

impl Framing {
    /// The chunked coding, from its beginning.
    pub const CHUNKED: Self = Self::Chunked(Chunked {
        at: At::Start,
        left: 0,
        line: 0,
    });

    /// From an answer's head to a request with `method`.
    pub fn of(
        method: &Method,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Self, BadFraming> {
        let is_bare = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_bare || method == Method::HEAD {
            return Ok(Self::Ended);
        }
        if let Some(codings) = headers
            .get_all(header::TRANSFER_ENCODING)
            .iter()
            .next_back()
        {
            let last = codings.as_bytes().rsplit(|byte| *byte == b',').next();
            let last = last.unwrap_or_default().trim_ascii();
            return Ok(match last.eq_ignore_ascii_case(b"chunked") {
                true => Self::CHUNKED,
                false => Self::UntilClose,
            });
        }
        let mut length = None;
        for value in headers.get_all(header::CONTENT_LENGTH) {
            // The same length said again is one length.
            for value in value.as_bytes().split(|byte| *byte == b',') {
                let value = value.trim_ascii();
                let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let value = std::str::from_utf8(value).ok().filter(|_| is_number);
                let value = value.and_then(|v| v.parse::<u64>().ok());
                match (value, length) {
                    (Some(value), Some(known)) if value == known => {}
                    (Some(value), None) => length = Some(value),
                    _ => return Err(BadFraming("a bad Content-Length")),
                }
            }
        }
        Ok(match length {
            Some(0) => Self::Ended,
            Some(length) => Self::Sized(length),
            None => Self::UntilClose,
        })
    }

    /// Whether nothing of the body is to come.
    pub fn is_ended(&self) -> bool {
        *self == Self::Ended
    }

    /// The connection was closed: whether that is the body's end.
    pub fn close(&mut self) -> bool {
        if *self == Self::UntilClose {
            *self = Self::Ended;
        }
        self.is_ended()
    }

    /// Appends what `read` holds of the body to `into`; how many bytes of `read` were the body's
    /// with its framing. What is left stands behind the body's end.
    pub fn decode(&mut self, read: &[u8], into: &mut BytesMut) -> Result<usize, BadFraming> {
        match self {
            Self::Ended => Ok(0),
            Self::UntilClose => {
                into.extend_from_slice(read);
                Ok(read.len())
            }
            Self::Sized(left) => {
                let taken = take(left, read, into);
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(taken)
            }
            Self::Chunked(chunked) => {
                let mut taken = 0;
                while taken < read.len() {
                    if chunked.at == At::Data {
                        taken += take(&mut chunked.left, &read[taken..], into);
                        if chunked.left == 0 {
                            chunked.at = At::DataCr;
                        }
                        continue;
                    }
                    let is_last = chunked.step(read[taken])?;
                    taken += 1;
                    if is_last {
                        *self = Self::Ended;
                        break;
                    }
                }
                Ok(taken)
            }
        }
    }
}

/// Moves what there is of the `left` bytes.
fn take(left: &mut u64, read: &[u8], into: &mut BytesMut) -> usize {
    let length = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    into.extend_from_slice(&read[..length]);
    *left -= length as u64;
    length
}

impl Chunked {
    /// Takes a byte that is no data; `true` when it is the body's last.
    fn step(&mut self, byte: u8) -> Result<bool, BadFraming> {
        self.line += 1;
        if self.line > MAX_LINE_BYTES {
            return Err(BadFraming("a chunk's extensions or trailers are too long"));
        }
        self.at = match (self.at, byte) {
            (At::Start | At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.left = (self.left.checked_mul(16))
                    .map(|size| size | u64::from(digit))
                    .ok_or(BadFraming("a chunk's size is too large"))?;
                At::Size
            }
            (At::Size | At::Extension, b'\r') => At::SizeLf,
            (At::Size, b' ' | b'\t' | b';') => At::Extension,
            (At::Start | At::Size, _) => return Err(BadFraming("a chunk has no size")),
            (At::Extension, byte) if byte != b'\n' => At::Extension,
            (At::SizeLf, b'\n') => {
                self.line = 0;
                match self.left {
                    0 => At::TrailerStart,
                    _ => At::Data,
                }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.line = 0;
                At::Start
            }
            (At::TrailerStart, b'\r') => At::LastLf,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerStart | At::Trailer, byte) if byte != b'\n' => At::Trailer,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::LastLf, b'\n') => return Ok(true),
            _ => return Err(BadFraming("a chunk does not end where it should")),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn framing(method: Method, status: u16, headers: &[(header::HeaderName, &str)]) -> String {
        let headers = headers.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a header value");
            (name.clone(), value)
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        let status = StatusCode::from_u16(status).expect("a status");
        match Framing::of(&method, status, &map) {
            Ok(Framing::Chunked(_)) => "chunked".to_owned(),
            Ok(framing) => format!("{framing:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_head_tells_how_its_body_ends() {
        let (length, coding) = (header::CONTENT_LENGTH, header::TRANSFER_ENCODING);
        let get = |headers: &[_]| framing(Method::GET, 200, headers);
        assert_eq!(get(&[]), "UntilClose");
        assert_eq!(get(&[(length.clone(), "5")]), "Sized(5)");
        assert_eq!(get(&[(length.clone(), "0")]), "Ended");
        assert_eq!(
            get(&[(length.clone(), "5, 5"), (length.clone(), "5")]),
            "Sized(5)"
        );
        for bad in ["5, 6", "", "+5", "-1", "5 5", "5,", "99999999999999999999"] {
            assert_eq!(
                get(&[(length.clone(), bad)]),
                "a bad Content-Length",
                "{bad}"
            );
        }
        let both = [(coding.clone(), "gzip, Chunked "), (length.clone(), "5")];
        assert_eq!(get(&both), "chunked");
        assert_eq!(get(&[(coding.clone(), "chunked, gzip")]), "UntilClose");
        assert_eq!(
            get(&[(coding.clone(), "gzip"), (coding, "chunked")]),
            "chunked"
        );
        let length = [(length, "5")];
        assert_eq!(framing(Method::HEAD, 200, &length), "Ended");
        for status in [100, 103, 204, 304] {
            assert_eq!(framing(Method::GET, status, &length), "Ended");
        }
    }

    /// The body, how many bytes were taken, and what is to come.
    fn decoded(mut framing: Framing, reads: &[&[u8]]) -> Result<(Vec<u8>, usize, Framing), String> {
        let (mut body, mut taken) = (BytesMut::new(), 0);
        for read in reads {
            taken += framing.decode(read, &mut body).map_err(|e| e.to_string())?;
        }
        Ok((body.to_vec(), taken, framing))
    }

    #[test]
    fn what_is_no_chunked_coding_is_refused() {
        let chunked = Framing::CHUNKED;
        for (sent, why) in [
            ("\r\n", "a chunk has no size"),
            ("x\r\n", "a chunk has no size"),
            (";a\r\n", "a chunk has no size"),
            ("-1\r\n", "a chunk has no size"),
            ("0x5\r\n", "a chunk has no size"),
            ("5\n", "a chunk has no size"),
            ("5\rx", "a chunk does not end where it should"),
            ("5;a\nb\r\n", "a chunk does not end where it should"),
            ("1\r\nab", "a chunk does not end where it should"),
            ("1\r\na\n", "a chunk does not end where it should"),
            ("1\r\na\rb", "a chunk does not end where it should"),
            ("0\r\n\n", "a chunk does not end where it should"),
            ("0\r\na: b\n", "a chunk does not end where it should"),
            ("0\r\na: b\rc", "a chunk does not end where it should"),
            ("0\r\n\rx", "a chunk does not end where it should"),
            ("10000000000000000\r\n", "a chunk's size is too large"),
        ] {
            assert_eq!(
                decoded(chunked, &[sent.as_bytes()]),
                Err(why.to_owned()),
                "{sent:?}"
            );
        }
        let too_long = "a chunk's extensions or trailers are too long";
        let long = "a".repeat(usize::from(MAX_LINE_BYTES) + 1);
        for sent in [
            format!("1;{long}"),
            format!("0\r\n{long}"),
            "0".repeat(20_000),
        ] {
            assert_eq!(
                decoded(chunked, &[sent.as_bytes()]),
                Err(too_long.to_owned())
            );
        }
        // Of the largest size, nothing has to be held.
        let (body, _, _) = decoded(chunked, &[b"ffffffffffffffff\r\nab"]).expect("begun");
        assert_eq!(body, b"ab");
    }

    #[test]
    fn a_close_ends_only_what_has_no_other_end() {
        let chunked = Framing::CHUNKED;
        for (mut framing, ends) in [
            (Framing::UntilClose, true),
            (Framing::Ended, true),
            (Framing::Sized(1), false),
            (chunked, false),
        ] {
            assert_eq!(framing.close(), ends);
        }
    }

    /// A head, with line ends before it and of either kind.
    fn head() -> impl Strategy<Value = Vec<u8>> {
        let end = || prop_oneof![Just("\r\n"), Just("\n")];
        let line = "[a-z :]{1,8}".prop_map(|line| format!("a{line}"));
        let lines = prop::collection::vec((line, end()), 1..5);
        (prop::collection::vec(end(), 0..3), lines, end()).prop_map(|(before, lines, last)| {
            let lines = lines.iter().map(|(line, end)| format!("{line}{end}"));
            [before.concat(), lines.collect(), last.to_owned()]
                .concat()
                .into_bytes()
        })
    }

    proptest! {
        #[test]
        fn chunks_come_out_the_same_however_they_are_read(
            chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), "(| ?;[a-z=\"]{0,9})", 0..4_usize), 0..6),
            trailers in prop::collection::vec("[a-z]{1,5}: [a-z]{0,9}", 0..3),
            behind in prop::collection::vec(any::<u8>(), 0..5),
            length in 1..30_usize,
        ) {
            let (mut sent, mut body) = (Vec::new(), Vec::new());
            for (data, extension, zeros) in &chunks {
                let head = format!("{}{:X}{extension}\r\n", "0".repeat(*zeros), data.len());
                sent.extend_from_slice(head.as_bytes());
                sent.extend_from_slice(data);
                sent.extend_from_slice(b"\r\n");
                body.extend_from_slice(data);
            }
            sent.extend_from_slice(b"0\r\n");
            for trailer in &trailers {
                sent.extend_from_slice(format!("{trailer}\r\n").as_bytes());
            }
            sent.extend_from_slice(b"\r\n");
            let whole = sent.len();
            sent.extend_from_slice(&behind);
            let reads: Vec<&[u8]> = sent.chunks(length).collect();
            let chunked = Framing::CHUNKED;
            prop_assert_eq!(decoded(chunked, &reads), Ok((body.clone(), whole, Framing::Ended)));
            // What is cut short has not ended.
            let (_, _, mut framing) = decoded(chunked, &[&sent[..whole - 1]]).expect("good");
            prop_assert!(!framing.close());
            // The same body with its length told.
            let sized = match body.len() {
                0 => Framing::Ended,
                length => Framing::Sized(length as u64),
            };
            let sent = [&body[..], &behind[..]].concat();
            let reads: Vec<&[u8]> = sent.chunks(length).collect();
            let length = body.len();
            prop_assert_eq!(decoded(sized, &reads), Ok((body, length, Framing::Ended)));
        }

        #[test]
        fn a_head_ends_behind_its_empty_line_however_it_is_read(
            heads in prop::collection::vec(head(), 1..3),
            length in 1..20_usize,
        ) {
            let mut end = HeadEnd::default();
            for head in &heads {
                let sent = [&head[..], b"body"].concat();
                let (mut found, mut reads) = (0, sent.chunks(length));
                while end.length().is_none() || found == 0 {
                    let read = reads.next().expect("an end");
                    let of_head = end.find(read);
                    found += of_head;
                    prop_assert!(of_head == read.len() || end.length().is_some());
                }
                prop_assert_eq!((found, end.length()), (head.len(), Some(head.len())));
            }
        }
    }
}
