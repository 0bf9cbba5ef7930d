//! The header of an HTTP/1.1 request before anybody parses it: where it ends, and that all who read
//! it would read the same. A header that two servers could understand differently is how a request
//! is smuggled past the first of them, so none of the leniencies of RFC 9112 is taken here.

use http::StatusCode;

/// The largest header, in bytes.
pub const MAX: usize = 64 * 1024;

/// Why a header is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    pub why: &'static str,
}

/// One that no client may send.
fn bad(why: &'static str) -> Refused {
    Refused {
        status: StatusCode::BAD_REQUEST,
        why,
    }
}

/// One that does not end.
pub const TOO_LARGE: Refused = Refused {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    why: "the request header is larger than 64 KiB",
};

/// Where the header that `bytes` begin with ends; the first `seen` of them hold no end.
pub fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(2);
    memchr::memchr_iter(b'\n', &bytes[from..]).find_map(|at| {
        let next = from + at + 1;
        match bytes.get(next)? {
            b'\n' => Some(next + 1),
            b'\r' if bytes.get(next + 1) == Some(&b'\n') => Some(next + 2),
            _ => None,
        }
    })
}

/// Checks a whole header, with its last empty line.
pub fn check(head: &[u8]) -> Result<(), Refused> {
    let mut rest = head;
    let mut is_first = true;
    let (mut has_length, mut has_coding, mut has_host) = (false, false, false);
    while let Some(at) = memchr::memchr(b'\n', rest) {
        let Some((b'\r', line)) = rest[..at].split_last() else {
            return Err(bad("a line of the request header ends without CR"));
        };
        rest = &rest[at + 1..];
        if memchr::memchr2(b'\r', 0, line).is_some() {
            return Err(bad("the request header holds a lone CR or a NUL"));
        }
        if std::mem::take(&mut is_first) {
            if memchr::memchr_iter(b' ', line).count() != 2 || memchr::memchr(b'\t', line).is_some()
            {
                return Err(bad("the request line is not METHOD SP TARGET SP VERSION"));
            }
            continue;
        }
        let Some(first) = line.first() else {
            continue;
        };
        if matches!(first, b' ' | b'\t') {
            return Err(bad("a request header is folded over two lines"));
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return Err(bad("a line of the request header has no colon"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.iter().any(|b| b.is_ascii_whitespace()) || name.is_empty() {
            return Err(bad("a request header's name holds a space"));
        }
        match first {
            b'c' | b'C' if name.eq_ignore_ascii_case(b"content-length") => {
                let is_number = (1..=18).contains(&value.len());
                if !is_number || !value.iter().all(u8::is_ascii_digit) {
                    return Err(bad("Content-Length is no number"));
                }
                if std::mem::replace(&mut has_length, true) {
                    return Err(bad("Content-Length is there twice"));
                }
            }
            b't' | b'T' if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(bad("the only Transfer-Encoding is chunked"));
                }
                if std::mem::replace(&mut has_coding, true) {
                    return Err(bad("Transfer-Encoding is there twice"));
                }
            }
            b'h' | b'H'
                if name.eq_ignore_ascii_case(b"host") && std::mem::replace(&mut has_host, true) =>
            {
                return Err(bad("Host is there twice"));
            }
            _ => {}
        }
    }
    match has_length && has_coding {
        true => Err(bad("both Content-Length and Transfer-Encoding are there")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_found_wherever_reads_are_cut() {
        for text in ["GET / HTTP/1.1\r\na: b\r\n\r\n", "GET / HTTP/1.1\na: b\n\n"] {
            let whole = format!("{text}rest\r\n\r\n");
            for cut in 0..text.len() {
                assert_eq!(end(&text.as_bytes()[..cut], 0), None, "{text:?} {cut}");
                assert_eq!(end(whole.as_bytes(), cut), Some(text.len()), "{cut}");
            }
        }
        assert_eq!(end(b"\n", 0), None);
    }

    #[test]
    fn only_headers_that_all_read_alike_are_taken() {
        let of = |lines: &str| check(format!("POST /a HTTP/1.1\r\n{lines}\r\n").as_bytes());
        for good in [
            "",
            "Host: x\r\nContent-Length: 5\r\n",
            "host: x\r\nTransfer-Encoding:chunked\r\n",
            "X-Empty:\r\nX-Odd: a\tb  c\r\n",
            "Content-Type: a/b\r\ntransfer: x\r\ncookie: a\r\ncookie: b\r\n",
        ] {
            assert_eq!(of(good), Ok(()), "{good:?}");
        }
        for bad in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length : 5\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding:\u{b}chunked\r\n",
            "X: a\r\n chunked\r\n",
            "X: a\nTransfer-Encoding: chunked\r\n",
            "X: a\rb\r\n",
            "X: a\0b\r\n",
            " X: a\r\n",
            ": a\r\n",
            "nothing\r\n",
            "Host: a\r\nHost: b\r\n",
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        for line in [
            "GET  / HTTP/1.1",
            "GET / x HTTP/1.1",
            "GET /",
            "GET\t/ HTTP/1.1",
        ] {
            assert!(
                check(format!("{line}\r\n\r\n").as_bytes()).is_err(),
                "{line}"
            );
        }
    }
}
