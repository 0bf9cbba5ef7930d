//! Content codings (RFC 9110, section 8.4): what was compressed on its way is unpacked piece by
//! piece, so that a small body can't become a large one before somebody looks at its size. Imports
//! nothing of ours.

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use bytes::{Buf, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

/// The codings that are known, as `Accept-Encoding` lists them.
pub const KNOWN: &str = "gzip, deflate, br, zstd";
/// One inside of the other; more is nobody's need.
const MOST_CODINGS: usize = 2;
/// What is unpacked at once.
const PIECE_BYTES: usize = 16 * 1024;
/// The largest window of zstd, as a power of two: what RFC 9659 allows on the web.
const ZSTD_WINDOW: u32 = 23;
/// Between two looks at what else there is to do.
const PIECES_IN_A_ROW: usize = 16;
/// Members of a body that hold next to nothing, and how many of them there may be in a row: each one
/// costs more to begin than it holds, and a megabyte of them packs into nothing once more.
const SMALL_MEMBER: usize = 16;
const MOST_SMALL_MEMBERS: u32 = 1024;

/// Why a body can't be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    #[error("the content coding '{0}' is not known; use one of gzip, deflate, br, zstd")]
    Unknown(String),
    #[error("more than {MOST_CODINGS} content codings one inside of the other")]
    TooMany,
    #[error("the body is no valid {0}")]
    Broken(&'static str),
    #[error("the body unpacks to more than {0} bytes")]
    TooLarge(usize),
}

type Brotli = BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<HuffmanCode>>;

enum Codec {
    Gzip(Decompress),
    /// With zlib's header or without: both are in use. `None` until the first byte tells.
    Deflate(Option<Decompress>),
    Brotli(Box<Brotli>),
    Zstd(zstd::stream::raw::Decoder<'static>),
}

/// One coding on its way out.
struct Stage {
    codec: Codec,
    input: Bytes,
    /// There may be more to come without more input.
    is_full: bool,
    is_ended: bool,
    /// What came out of this member, and how many before it were small.
    given: usize,
    small: u32,
}

/// Takes what was packed and gives what it was.
pub struct Unpacker {
    /// The coding that was applied last is the first.
    stages: Vec<Stage>,
}

impl Unpacker {
    /// For what `headers` say of a body; `None` when it is as it is.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, CodingError> {
        let mut stages = Vec::new();
        for value in headers.get_all(CONTENT_ENCODING) {
            let text = String::from_utf8_lossy(value.as_bytes());
            for name in text.split(',').map(str::trim) {
                if let Some(codec) = codec_of(name)? {
                    stages.insert(0, Stage::new(codec));
                }
            }
        }
        match stages.len() {
            0 => Ok(None),
            1..=MOST_CODINGS => Ok(Some(Self { stages })),
            _ => Err(CodingError::TooMany),
        }
    }

    /// For bytes that begin as those of a coding do, whether or not they are labelled.
    pub fn recognized(begun: &[u8]) -> Option<Self> {
        let name = match begun {
            [0x1f, 0x8b, ..] => "gzip",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
            _ => return None,
        };
        let codec = codec_of(name).ok().flatten()?;
        Some(Self {
            stages: vec![Stage::new(codec)],
        })
    }

    /// Whether bytes that begin so may be what is expected; some servers label what they did not
    /// pack.
    pub fn may_begin(&self, begun: &[u8]) -> bool {
        let (Some(stage), Some(first)) = (self.stages.first(), begun.first()) else {
            return true;
        };
        match &stage.codec {
            Codec::Gzip(_) => *first == 0x1f,
            // A frame, or one that is skipped.
            Codec::Zstd(_) => *first == 0x28 || (0x50..0x60).contains(first),
            Codec::Deflate(_) | Codec::Brotli(_) => true,
        }
    }

    /// Gives the next piece. All of the one before must have been taken.
    pub fn push(&mut self, packed: Bytes) {
        if let Some(first) = self.stages.first_mut() {
            first.input = packed;
        }
    }

    /// Appends a piece of what came out, of some kilobytes at most; `false`: more is needed first.
    pub fn pull(&mut self, out: &mut BytesMut) -> Result<bool, CodingError> {
        pull(&mut self.stages, out)
    }

    /// Whether nothing is missing.
    pub fn is_ended(&self) -> bool {
        self.stages.iter().all(|stage| stage.is_ended)
    }

    /// All of `packed`, when it is whole and becomes at most `limit` bytes. It is unpacked twice: first
    /// to see how much it becomes, which keeps nothing of a bomb.
    pub async fn whole(self, packed: Bytes, limit: usize) -> Result<Bytes, CodingError> {
        let length = self.again()?.run(packed.clone(), limit, None).await?;
        let mut out = BytesMut::with_capacity(length + PIECE_BYTES);
        self.run(packed, limit, Some(&mut out)).await?;
        Ok(out.freeze())
    }

    /// The same from the beginning.
    fn again(&self) -> Result<Self, CodingError> {
        let mut stages = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            stages.extend(codec_of(stage.codec.name())?.map(Stage::new));
        }
        Ok(Self { stages })
    }

    /// Unpacks all of `packed` into `out`, if it is wanted; how much it was. Looks up now and then, so
    /// that a worker has other things to do meanwhile.
    async fn run(
        mut self,
        packed: Bytes,
        limit: usize,
        mut out: Option<&mut BytesMut>,
    ) -> Result<usize, CodingError> {
        self.push(packed);
        let mut scratch = BytesMut::new();
        let (mut length, mut pieces) = (0, 0);
        loop {
            let into = out.as_deref_mut().unwrap_or(&mut scratch);
            let before = into.len();
            if !self.pull(into)? {
                break;
            }
            length += into.len() - before;
            scratch.clear();
            if length > limit {
                return Err(CodingError::TooLarge(limit));
            }
            pieces += 1;
            if pieces % PIECES_IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
        }
        match self.stages.iter().find(|stage| !stage.is_ended) {
            Some(cut) => Err(cut.broken()),
            None => Ok(length),
        }
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.stages.iter().map(|stage| stage.codec.name());
        f.debug_list().entries(names).finish()
    }
}

/// `None` for the coding that is none.
fn codec_of(name: &str) -> Result<Option<Codec>, CodingError> {
    Ok(Some(match &*name.to_ascii_lowercase() {
        "" | "identity" => return Ok(None),
        "gzip" | "x-gzip" => Codec::Gzip(gzip()),
        "deflate" => Codec::Deflate(None),
        "br" => Codec::Brotli(Box::new(BrotliState::new_strict(
            HeapAlloc::new(0),
            HeapAlloc::new(0),
            HeapAlloc::new(HuffmanCode::default()),
        ))),
        "zstd" => {
            let decoder = zstd::stream::raw::Decoder::new().and_then(|mut decoder| {
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
                Ok(decoder)
            });
            Codec::Zstd(decoder.map_err(|_| CodingError::Broken("zstd"))?)
        }
        _ => return Err(CodingError::Unknown(name.chars().take(64).collect())),
    }))
}

fn gzip() -> Decompress {
    Decompress::new_gzip(15)
}

fn pull(stages: &mut [Stage], out: &mut BytesMut) -> Result<bool, CodingError> {
    let Some((stage, before)) = stages.split_last_mut() else {
        return Ok(false);
    };
    loop {
        if stage.input.is_empty() && !stage.is_full {
            let mut packed = BytesMut::new();
            if before.is_empty() || !pull(before, &mut packed)? {
                return Ok(false);
            }
            stage.input = packed.freeze();
        }
        if stage.unpack(out)? {
            return Ok(true);
        }
    }
}

impl Codec {
    fn name(&self) -> &'static str {
        match self {
            Self::Gzip(_) => "gzip",
            Self::Deflate(_) => "deflate",
            Self::Brotli(_) => "br",
            Self::Zstd(_) => "zstd",
        }
    }
}

impl Stage {
    fn new(codec: Codec) -> Self {
        Self {
            codec,
            input: Bytes::new(),
            is_full: false,
            is_ended: false,
            given: 0,
            small: 0,
        }
    }

    fn broken(&self) -> CodingError {
        CodingError::Broken(self.codec.name())
    }

    /// Appends a piece; `false` when nothing came of the input that there is.
    fn unpack(&mut self, out: &mut BytesMut) -> Result<bool, CodingError> {
        if self.is_ended && !self.begins_again()? {
            self.input.clear();
            return Ok(false);
        }
        let before = out.len();
        out.resize(before + PIECE_BYTES, 0);
        let room = &mut out[before..];
        let input = &self.input[..];
        let (taken, given, is_ended) = match &mut self.codec {
            Codec::Gzip(codec) => inflate(codec, input, room),
            Codec::Deflate(codec) => {
                // A stored block with a bit set in its padding is nobody's way to begin.
                let has_header = input.first().is_none_or(|first| first & 0x0f == 8);
                let codec = codec.get_or_insert_with(|| Decompress::new(has_header));
                inflate(codec, input, room)
            }
            Codec::Brotli(state) => {
                let (mut left, mut at) = (input.len(), 0);
                let (mut free, mut given, mut total) = (room.len(), 0, 0);
                let told = BrotliDecompressStream(
                    &mut left, &mut at, input, &mut free, &mut given, room, &mut total, state,
                );
                match told {
                    BrotliResult::ResultFailure => None,
                    BrotliResult::ResultSuccess => Some((at, given, true)),
                    _ => Some((at, given, false)),
                }
            }
            Codec::Zstd(decoder) => {
                let mut from = InBuffer::around(input);
                let mut to = OutBuffer::around(room);
                let left = decoder.run(&mut from, &mut to);
                left.ok().map(|left| (from.pos(), to.pos(), left == 0))
            }
        }
        .ok_or_else(|| self.broken())?;
        out.truncate(before + given);
        self.given += given;
        self.is_full = given == PIECE_BYTES && !is_ended;
        self.is_ended = is_ended;
        self.input.advance(taken);
        if taken == 0 && given == 0 && !self.input.is_empty() && !is_ended {
            return Err(self.broken());
        }
        Ok(given > 0)
    }

    /// Whether another member follows: gzip and zstd may be made of several.
    fn begins_again(&mut self) -> Result<bool, CodingError> {
        let begins = match &mut self.codec {
            Codec::Gzip(codec) if self.input.first() == Some(&0x1f) => {
                *codec = gzip();
                true
            }
            Codec::Zstd(_) => !self.input.is_empty(),
            // What is behind the end is padding.
            _ => false,
        };
        if begins {
            self.small = match std::mem::take(&mut self.given) < SMALL_MEMBER {
                true => self.small + 1,
                false => 0,
            };
            if self.small > MOST_SMALL_MEMBERS {
                return Err(self.broken());
            }
        }
        Ok(begins)
    }
}

/// What was taken and given, and whether it is the end.
fn inflate(codec: &mut Decompress, input: &[u8], room: &mut [u8]) -> Option<(usize, usize, bool)> {
    let (taken, given) = (codec.total_in(), codec.total_out());
    let status = codec.decompress(input, room, FlushDecompress::None).ok()?;
    Some((
        (codec.total_in() - taken) as usize,
        (codec.total_out() - given) as usize,
        status == flate2::Status::StreamEnd,
    ))
}

#[cfg(test)]
pub mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// `plain` in a coding.
    pub fn packed(coding: &str, plain: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::default();
        match coding {
            "gzip" => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), level);
                to.write_all(plain).expect("packed");
                to.finish().expect("packed")
            }
            "deflate" => {
                let mut to = flate2::write::ZlibEncoder::new(Vec::new(), level);
                to.write_all(plain).expect("packed");
                to.finish().expect("packed")
            }
            "raw deflate" => {
                let mut to = flate2::write::DeflateEncoder::new(Vec::new(), level);
                to.write_all(plain).expect("packed");
                to.finish().expect("packed")
            }
            "br" => {
                let mut to = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
                to.write_all(plain).expect("packed");
                to.into_inner()
            }
            "zstd" => zstd::encode_all(plain, 3).expect("packed"),
            _ => plain.to_vec(),
        }
    }

    fn unpacker(codings: &[&str]) -> Unpacker {
        let mut headers = HeaderMap::new();
        for coding in codings {
            let value = coding.trim_start_matches("raw ").parse();
            headers.append(CONTENT_ENCODING, value.expect("a value"));
        }
        Unpacker::of(&headers).expect("known").expect("a coding")
    }

    fn in_pieces(
        mut unpacker: Unpacker,
        packed: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, CodingError> {
        let mut out = BytesMut::new();
        for piece in packed.chunks(length) {
            unpacker.push(Bytes::copy_from_slice(piece));
            while unpacker.pull(&mut out)? {}
        }
        match unpacker.is_ended() {
            true => Ok(out.to_vec()),
            false => Err(CodingError::Broken("")),
        }
    }

    const CODINGS: [&str; 5] = ["gzip", "deflate", "raw deflate", "br", "zstd"];

    #[test]
    fn what_was_packed_is_unpacked_in_whatever_pieces() {
        let plain: Vec<u8> = (0..30_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        for coding in CODINGS {
            let bytes = packed(coding, &plain);
            assert!(bytes.len() < plain.len());
            for length in [1, 7, 1000, bytes.len()] {
                let out = in_pieces(unpacker(&[coding]), &bytes, length);
                assert!(out.expect("valid") == plain, "{coding} by {length}");
            }
            let cut = &bytes[..bytes.len() - 1];
            assert!(
                in_pieces(unpacker(&[coding]), cut, 4096).is_err(),
                "{coding}"
            );
            let twice = packed("gzip", &bytes);
            let out = in_pieces(unpacker(&[coding, "gzip"]), &twice, 100);
            assert!(out.expect("valid") == plain, "gzip of {coding}");
        }
        for coding in ["gzip", "zstd"] {
            let both = [packed(coding, b"one "), packed(coding, b"two")].concat();
            for length in [1, both.len()] {
                let out = in_pieces(unpacker(&[coding]), &both, length);
                assert_eq!(out.expect("valid"), b"one two", "{coding} by {length}");
            }
        }
    }

    #[tokio::test]
    async fn a_whole_body_takes_as_much_as_it_is() {
        for coding in CODINGS {
            for length in [0, 1, PIECE_BYTES, 100_000] {
                let plain = vec![7; length];
                let bytes = Bytes::from(packed(coding, &plain));
                let whole = unpacker(&[coding])
                    .whole(bytes.clone(), length.max(1))
                    .await;
                assert!(whole.expect("valid") == plain, "{coding} {length}");
                if length > 0 {
                    let told = unpacker(&[coding]).whole(bytes, length - 1).await;
                    assert_eq!(told, Err(CodingError::TooLarge(length - 1)), "{coding}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_costs_no_more_than_the_limit() {
        let zeros = vec![0; 8 << 20];
        for coding in CODINGS {
            let bomb = packed(coding, &zeros);
            assert!(bomb.len() < 10_000, "{coding}: {}", bomb.len());
            let told = unpacker(&[coding]).whole(bomb.into(), 1 << 20).await;
            assert_eq!(told, Err(CodingError::TooLarge(1 << 20)), "{coding}");
        }
        let bomb = packed("gzip", &packed("gzip", &zeros));
        let told = unpacker(&["gzip", "gzip"])
            .whole(bomb.into(), 1 << 20)
            .await;
        assert_eq!(told, Err(CodingError::TooLarge(1 << 20)));
    }

    #[tokio::test]
    async fn members_that_hold_nothing_are_no_work_for_minutes() {
        for coding in ["gzip", "zstd"] {
            for plain in [&b""[..], b" "] {
                let many = packed(coding, plain).repeat(100_000);
                let told = unpacker(&[coding])
                    .whole(many.clone().into(), 1 << 20)
                    .await;
                assert_eq!(told, Err(CodingError::Broken(coding)));
                let packed_again = packed("gzip", &many);
                let told = unpacker(&[coding, "gzip"]).whole(packed_again.into(), 1 << 20);
                assert_eq!(told.await, Err(CodingError::Broken(coding)));
            }
            // Some write each line as a member of its own.
            let lines = packed(coding, b"data: a line of a stream\n").repeat(5_000);
            let whole = unpacker(&[coding]).whole(lines.into(), 1 << 20).await;
            assert_eq!(whole.expect("valid").len(), 5_000 * 25);
        }
    }

    #[test]
    fn what_is_not_known_is_told() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static(value));
            Unpacker::of(&headers)
        };
        assert!(matches!(of("identity"), Ok(None)));
        assert!(matches!(of("X-GZIP"), Ok(Some(_))));
        assert!(matches!(of("compress"), Err(CodingError::Unknown(name)) if name == "compress"));
        assert!(matches!(of("gzip, br, zstd"), Err(CodingError::TooMany)));
        assert!(matches!(Unpacker::of(&HeaderMap::new()), Ok(None)));
    }

    #[test]
    fn labels_are_held_against_the_bytes() {
        for coding in ["gzip", "zstd"] {
            let bytes = packed(coding, b"plain");
            assert!(unpacker(&[coding]).may_begin(&bytes));
            assert!(!unpacker(&[coding]).may_begin(b"{}"));
            let recognized = Unpacker::recognized(&bytes).expect("known");
            assert_eq!(in_pieces(recognized, &bytes, 3).expect("valid"), b"plain");
        }
        assert!(Unpacker::recognized(b"{}").is_none());
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_breaks_it(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            which in 0..CODINGS.len(),
        ) {
            let coding = CODINGS[which];
            let _ = in_pieces(unpacker(&[coding]), &bytes, 50);
            let mut packed = packed(coding, &bytes);
            let at = at.index(packed.len());
            packed[at] ^= 0x55;
            let _ = in_pieces(unpacker(&[coding]), &packed, 50);
        }
    }
}
