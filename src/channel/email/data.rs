//! The content of a message on the wire (RFC 5321, section 4.5.2): dots doubled, a dot alone at its end.
//! A line ends with CR LF and with nothing else: two servers that disagree on that take one message for
//! two, whose second nobody has checked ("SMTP smuggling").

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    Line,
    Cr,
    Dot,
    DotCr,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All of it; there is more to come.
    More,
    /// The message ended after so many bytes.
    End(usize),
    /// A CR or LF alone.
    Bare,
}

/// Content as it comes.
#[derive(Debug)]
pub struct Data {
    at: At,
    pub content: Vec<u8>,
    limit: usize,
    pub is_too_large: bool,
}

impl Data {
    /// Of at most `limit` bytes; what is beyond is read and dropped.
    pub fn new(limit: usize) -> Self {
        Self {
            at: At::LineStart,
            content: Vec::new(),
            limit,
            is_too_large: false,
        }
    }

    /// The same, of which nothing is kept any more.
    pub fn full(from: Self) -> Self {
        Self {
            at: from.at,
            content: Vec::new(),
            limit: 0,
            is_too_large: true,
        }
    }

    /// Reads bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Step {
        for (number, byte) in bytes.iter().enumerate() {
            self.at = match (self.at, byte) {
                (At::DotCr, b'\n') => return Step::End(number + 1),
                (At::Cr, b'\n') => {
                    self.push(b'\r');
                    self.push(b'\n');
                    At::LineStart
                }
                (At::Cr | At::DotCr, _) | (_, b'\n') => return Step::Bare,
                (At::Dot, b'\r') => At::DotCr,
                (_, b'\r') => At::Cr,
                (At::LineStart, b'.') => At::Dot,
                (_, byte) => {
                    self.push(*byte);
                    At::Line
                }
            };
        }
        Step::More
    }

    fn push(&mut self, byte: u8) {
        if self.content.len() < self.limit {
            self.content.push(byte);
        } else {
            self.is_too_large = true;
            // It is refused, so nothing of it is needed.
            self.content = Vec::new();
            self.limit = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Step, Vec<u8>) {
        let mut data = Data::new(1000);
        let step = data.feed(bytes);
        // In pieces it is the same.
        let mut pieces = Data::new(1000);
        let mut last = Step::More;
        for (at, byte) in bytes.iter().enumerate() {
            last = match pieces.feed(&[*byte]) {
                Step::End(_) => Step::End(at + 1),
                other => other,
            };
            if last != Step::More {
                break;
            }
        }
        assert_eq!(
            (last, &pieces.content),
            (step, &data.content),
            "{}",
            String::from_utf8_lossy(bytes)
        );
        (step, data.content)
    }

    #[test]
    fn a_message_ends_with_a_dot_alone() {
        assert_eq!(read(b"a\r\n.\r\nQUIT"), (Step::End(6), b"a\r\n".to_vec()));
        assert_eq!(read(b".\r\n"), (Step::End(3), Vec::new()));
        assert_eq!(
            read(b"..a\r\n.b\r\n...\r\n.\r\n"),
            (Step::End(17), b".a\r\nb\r\n..\r\n".to_vec())
        );
        assert_eq!(read(b"a\r\n.").0, Step::More);
    }

    #[test]
    fn nothing_else_ends_one() {
        for smuggled in [
            &b"a\n.\r\nMAIL"[..],
            b"a\r\n.\nMAIL",
            b"a\n.\nMAIL",
            b"a\r.\r\nMAIL",
            b"a\r\n.\rMAIL",
            b"a\r\r\n.\r\n",
            b"a\nb\r\n.\r\n",
        ] {
            assert_eq!(read(smuggled).0, Step::Bare);
        }
    }

    #[test]
    fn what_is_too_large_takes_no_memory() {
        let mut data = Data::new(10);
        assert_eq!(data.feed(b"0123456789abc\r\n.\r\n"), Step::End(18));
        assert!(data.is_too_large && data.content.is_empty());
    }
}
