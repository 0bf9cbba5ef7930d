//! JSON of others, read leniently: null is absent, numbers come as text and text as numbers, a list
//! of one comes as the one, and what is no JSON by a hair is mended.
//!
//! Lives here: how members are read ([`word`], [`count`], [`place`], [`flag`], [`few`], for what a
//! provider tells; [`given`] for what a client asks, where what cannot be understood is refused),
//! and [`mended`]. Well-formed input costs nothing here: strings stay borrowed. Imports nothing of
//! ours.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;
use serde_json::value::RawValue;

/// No count of anything is larger; sums of many still fit in 64 bits.
const MOST: i64 = 1 << 40;

/// A member that is no list and no object, as it came.
#[derive(Debug, Clone, PartialEq)]
enum Scalar<'a> {
    Null,
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text(Cow<'a, str>),
    /// A list or an object, read over.
    Nested,
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Scalar<'de>, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(i64::try_from(number).map_or(Scalar::Real(number as f64), Scalar::Whole))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Real(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Scalar<'de>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
}

impl<'a> Scalar<'a> {
    fn read<'de: 'a, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ScalarVisitor)
    }

    /// As a number, also when it was written as a text.
    fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Whole(number) => *number as f64,
            Self::Real(number) => *number,
            Self::Text(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        number.is_finite().then_some(number)
    }

    /// As a number without a fraction, which is cut off.
    fn whole(&self) -> Option<i64> {
        match self {
            Self::Whole(number) => Some(*number),
            other => other.number().map(|number| number as i64),
        }
    }

    fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            Self::Whole(number @ (0 | 1)) => Some(*number == 1),
            Self::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    fn word(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Whole(number) => Some(Cow::Owned(number.to_string())),
            Self::Real(number) => Some(Cow::Owned(number.to_string())),
            Self::Flag(flag) => Some(Cow::Owned(flag.to_string())),
            Self::Null | Self::Nested => None,
        }
    }
}

/// A text, or what is written as another scalar; `None` for anything else.
pub fn word<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<Cow<'a, str>>, D::Error> {
    Ok(Scalar::read(from)?.word())
}

/// How many of something: never negative, never absurd; `None` for what is no number.
pub fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let whole = Scalar::read(from)?.whole();
    Ok(whole.map(|count| count.clamp(0, MOST) as u64))
}

/// A place in a list; `None` for what is none.
pub fn place<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let whole = Scalar::read(from)?.whole();
    Ok(whole.and_then(|place| u32::try_from(place).ok()))
}

/// Whether something is so; what is not understood is not.
pub fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Scalar::read(from)?.flag().unwrap_or(false))
}

/// Mostly one: then it needs no memory of its own.
pub type Few<T> = smallvec::SmallVec<[T; 1]>;

struct FewVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
    type Value = Few<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: Error>(self) -> Result<Few<T>, E> {
        Ok(Few::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T>, A::Error> {
        let mut few = Few::new();
        while let Some(one) = list.next_element::<Option<T>>()? {
            few.extend(one);
        }
        Ok(few)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Few<T>, A::Error> {
        let one = T::deserialize(MapAccessDeserializer::new(object))?;
        Ok(Few::from_iter([one]))
    }
}

/// A list of objects without its nulls; or one object alone.
pub fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Few<T>, D::Error> {
    from.deserialize_any(FewVisitor(PhantomData))
}

/// What is told beside an answer, such as usage: `None` where it cannot be read, for it must not
/// fail the answer.
pub fn aside<T: DeserializeOwned>(raw: Option<&RawValue>) -> Option<T> {
    let text = raw?.get();
    if text == "null" {
        return None;
    }
    if let Ok(told) = serde_json::from_str(text) {
        return Some(told);
    }
    let value: Value = serde_json::from_slice(&well_formed(text.as_bytes())).ok()?;
    serde_json::from_value(value).ok()
}

/// The same for an object within one: what cannot be read is as if it were empty.
pub fn details<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(from)?;
    Ok(T::deserialize(value).unwrap_or_default())
}

/// `data` as JSON that is well-formed and has each member once, with `shape` put right, which is
/// given nothing but objects; `None` where that does not make JSON of it.
pub fn mended(data: &[u8], shape: impl FnOnce(&mut Value)) -> Option<Bytes> {
    let mut value: Value = serde_json::from_slice(&well_formed(data)).ok()?;
    if value.is_object() {
        shape(&mut value);
    }
    serde_json::to_vec(&value).ok().map(Bytes::from)
}

const BOM: &[u8] = b"\xef\xbb\xbf";
const REPLACEMENT: &[u8] = b"\\ufffd";

/// Without the mark that some editors and shells put before a text.
pub fn without_bom(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_prefix(BOM) {
        text = rest;
    }
    text
}

/// JSON text without what JSON does not allow, or allows and UTF-8 does not: a mark of the byte
/// order, halves of surrogate pairs, bare control characters, `NaN` and infinities, bytes that are
/// no UTF-8. What is well-formed is not copied.
pub fn well_formed(text: &[u8]) -> Cow<'_, [u8]> {
    let text = without_bom(text);
    let text = match std::str::from_utf8(text) {
        Ok(_) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(String::from_utf8_lossy(text).into_owned().into_bytes()),
    };
    let mut edits = Edits::new(&text);
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => at = string(&text, at + 1, &mut edits),
            b'N' if text[at..].starts_with(b"NaN") => at = edits.replace(at, 3, b"null"),
            b'-' if text[at..].starts_with(b"-Infinity") => at = edits.replace(at, 9, b"null"),
            b'I' if text[at..].starts_with(b"Infinity") => at = edits.replace(at, 8, b"null"),
            _ => at += 1,
        }
    }
    match edits.finish() {
        Some(edited) => Cow::Owned(edited),
        None => text,
    }
}

/// A text with pieces replaced.
struct Edits<'a> {
    text: &'a [u8],
    out: Vec<u8>,
    /// Up to here `text` is in `out`.
    done: usize,
}

impl<'a> Edits<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            out: Vec::new(),
            done: 0,
        }
    }

    /// The place behind what was replaced.
    fn replace(&mut self, at: usize, length: usize, with: &[u8]) -> usize {
        self.out.extend_from_slice(&self.text[self.done..at]);
        self.out.extend_from_slice(with);
        self.done = at + length;
        self.done
    }

    /// `None` when nothing was replaced.
    fn finish(mut self) -> Option<Vec<u8>> {
        if self.done == 0 {
            return None;
        }
        self.out.extend_from_slice(&self.text[self.done..]);
        Some(self.out)
    }
}

/// Reads over the inside of a string; the place behind its closing quote.
fn string(text: &[u8], from: usize, edits: &mut Edits<'_>) -> usize {
    let mut at = from;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => match half_at(&text[at..]) {
                Half::None => at += 2,
                Half::Pair => at += 12,
                Half::High | Half::Low => at = edits.replace(at, 6, REPLACEMENT),
            },
            0..0x20 => {
                let escape = format!("\\u{byte:04x}");
                at = edits.replace(at, 1, escape.as_bytes());
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// What an escape is of a surrogate pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Another escape.
    None,
    /// A whole pair, of twelve bytes.
    Pair,
    High,
    Low,
}

fn code_unit(escape: &[u8]) -> Option<u32> {
    let digits = escape.strip_prefix(b"\\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What the escape at the beginning of `rest` is.
pub fn half_at(rest: &[u8]) -> Half {
    match code_unit(rest) {
        Some(0xdc00..0xe000) => Half::Low,
        Some(0xd800..0xdc00) => match rest.get(6..).and_then(code_unit) {
            Some(0xdc00..0xe000) => Half::Pair,
            _ => Half::High,
        },
        _ => Half::None,
    }
}

/// Members of what a client asks: what can be understood is, what cannot is refused in words that
/// follow the member's name.
pub mod given {
    use super::*;

    fn or_refuse<T, E: de::Error>(found: Option<T>, why: &'static str) -> Result<Option<T>, E> {
        found.map(Some).ok_or_else(|| E::custom(why))
    }

    /// A text.
    pub fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        match Scalar::read(from)? {
            Scalar::Null => Ok(None),
            other => or_refuse(other.word().map(Cow::into_owned), "must be a string"),
        }
    }

    /// A number.
    pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match Scalar::read(from)? {
            Scalar::Null => Ok(None),
            other => or_refuse(other.number(), "must be a number"),
        }
    }

    /// A number without a fraction.
    pub fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
        match Scalar::read(from)? {
            Scalar::Null => Ok(None),
            Scalar::Whole(number) => Ok(Some(number)),
            other => {
                let number = other.number().filter(|number| number.fract() == 0.0);
                or_refuse(number.map(|number| number as i64), "must be a whole number")
            }
        }
    }

    /// A limit; what is below 1 is none, as many clients have it.
    pub fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
        let limit = whole(from)?.filter(|limit| *limit > 0);
        Ok(limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)))
    }

    /// Yes or no.
    pub fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
        match Scalar::read(from)? {
            Scalar::Null => Ok(None),
            other => or_refuse(other.flag(), "must be true or false"),
        }
    }

    /// A list, or one of its kind alone; nulls in it are left out.
    pub fn list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        Ok(few::<D, T>(from)?.into_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Told<'a> {
        #[serde(borrow, deserialize_with = "word")]
        word: Option<Cow<'a, str>>,
        #[serde(deserialize_with = "count")]
        count: Option<u64>,
        #[serde(deserialize_with = "place")]
        place: Option<u32>,
        #[serde(deserialize_with = "flag")]
        flag: bool,
        #[serde(borrow, deserialize_with = "few")]
        few: Few<Inner<'a>>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner<'a> {
        #[serde(borrow, default)]
        raw: Option<&'a RawValue>,
    }

    #[test]
    fn members_of_another_kind_are_understood_or_absent() {
        let read = |member: &str, value: Value| {
            let text = json!({ member: value }).to_string();
            let told: Told<'_> = serde_json::from_str(&text).expect("never refused");
            (
                told.word.map(Cow::into_owned),
                told.count,
                told.place,
                told.flag,
                told.few.iter().filter(|one| one.raw.is_some()).count(),
            )
        };
        for value in [json!(null), json!([1]), json!({ "a": 1 })] {
            for member in ["word", "count", "place", "flag"] {
                assert_eq!(read(member, value.clone()), (None, None, None, false, 0));
            }
        }
        assert_eq!(read("word", json!(3)).0.as_deref(), Some("3"));
        assert_eq!(read("word", json!(true)).0.as_deref(), Some("true"));
        for (value, count) in [
            (json!(3.0), 3),
            (json!("3"), 3),
            (json!(" 3.9 "), 3),
            (json!(-7), 0),
            (json!(1e300), MOST as u64),
            (json!(u64::MAX), MOST as u64),
        ] {
            assert_eq!(read("count", value).1, Some(count));
        }
        assert_eq!(read("count", json!("many")).1, None);
        assert_eq!(read("place", json!("2")).2, Some(2));
        assert_eq!(read("place", json!(-1)).2, None);
        assert!(read("flag", json!("true")).3 && read("flag", json!(1)).3);
        assert_eq!(read("few", json!([null, { "raw": 1 }, null])).4, 1);
        assert_eq!(read("few", json!({ "raw": 1 })).4, 1);
        assert_eq!(read("few", json!(null)).4, 0);
    }

    #[test]
    fn text_without_an_escape_stays_borrowed() {
        let told: Told<'_> = serde_json::from_str(r#"{"word":"plain"}"#).expect("read");
        assert!(matches!(told.word, Some(Cow::Borrowed("plain"))));
    }

    #[test]
    fn what_is_no_json_by_a_hair_is_mended() {
        for (text, mended) in [
            ("\u{feff}{}", "{}"),
            (r#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#),
            (r#"["\ude00x\ud83d\ude00"]"#, r#"["\ufffdx\ud83d\ude00"]"#),
            (r#"["\\ud83d"]"#, r#"["\\ud83d"]"#),
            (r#"["\ud83d\ud83d\ude00"]"#, r#"["\ufffd\ud83d\ude00"]"#),
            ("[\"a\tb\"]", r#"["a\u0009b"]"#),
            (
                "[NaN,-Infinity,Infinity,\"NaN\"]",
                "[null,null,null,\"NaN\"]",
            ),
        ] {
            let well = well_formed(text.as_bytes());
            assert_eq!(std::str::from_utf8(&well), Ok(mended), "{text}");
            assert!(serde_json::from_slice::<Value>(&well).is_ok());
        }
        assert!(matches!(well_formed(b"{\"a\":1}"), Cow::Borrowed(_)));
        let once = mended(br#"{"a":1,"a":2}"#, |_| {}).expect("JSON");
        assert_eq!(&once[..], br#"{"a":2}"#);
        assert_eq!(mended(b"{", |_| {}), None);
    }

    #[test]
    fn what_is_told_aside_never_fails() {
        #[derive(Debug, Deserialize)]
        struct Usage {
            #[serde(default, deserialize_with = "count")]
            n: Option<u64>,
        }
        let read = |text: &str| {
            let raw: &RawValue = serde_json::from_str(text).expect("raw");
            aside::<Usage>(Some(raw)).and_then(|usage| usage.n)
        };
        assert_eq!(read(r#"{"n":3.0}"#), Some(3));
        assert_eq!(read(r#"{"n":1,"n":2}"#), Some(2));
        for text in ["null", "7", "\"x\"", r#"{"n":null}"#, r#"{"n":1e999}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn mending_is_done_once_and_keeps_what_is_good(text in "\\PC{0,40}", bytes: Vec<u8>) {
            let good = json!({ text.clone(): [text] }).to_string();
            prop_assert_eq!(&*well_formed(good.as_bytes()), good.as_bytes());
            let once = well_formed(&bytes).into_owned();
            prop_assert_eq!(&*well_formed(&once), &once[..]);
        }

        #[test]
        fn any_string_of_escapes_becomes_a_string(
            pieces in prop::collection::vec(
                prop_oneof![Just("\\ud83d"), Just("\\ude00"), Just("\\n"), Just("a"), Just("\\\\"), Just("\t")],
                0..12,
            ),
        ) {
            let text = format!("\"{}\"", pieces.concat());
            let well = well_formed(text.as_bytes());
            prop_assert!(serde_json::from_slice::<String>(&well).is_ok(), "{}", text);
        }
    }
}
