//! What becomes of a request's members when it is translated: each wire says in one table which of its
//! members mean what here. What no target has a place for is told in the answer's header
//! [`UNSUPPORTED`], or refused, as the request's `on_unsupported` asks for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use http::{HeaderName, HeaderValue};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::edge::Exchange;
use crate::error::ApiError;
use crate::model::{Lost, Param};

/// Names what of a request had no place at the provider that answered.
pub const UNSUPPORTED: HeaderName = HeaderName::from_static("x-smithgate-unsupported");
/// Says what is to become of that, as the member [`MEMBER`] does: `warn`, `drop`, `error`.
const ON_UNSUPPORTED: &str = "x-smithgate-on-unsupported";
/// The member of a request that says the same; it is for the gateway and goes no further.
pub const MEMBER: &str = "on_unsupported";
/// Most names that are told, and the most letters of one.
const MOST_NAMES: usize = 32;
const LONGEST_NAME: usize = 64;

/// What a member of a request means, when it is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// It is understood here, and needs no place at the provider.
    Understood,
    /// A parameter, for which the provider has a place or not.
    Param(Param),
    /// There is no place for it at a provider of another wire.
    Nothing,
}

/// The members of a wire's requests. One that is not listed means nothing.
pub type Fields = &'static [(&'static str, Means)];

/// What is to become of what has no place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnUnsupported {
    #[default]
    Warn,
    Drop,
    Error,
}

impl OnUnsupported {
    fn of(word: &str) -> Option<Self> {
        match word.trim() {
            "" | "warn" => Some(Self::Warn),
            "drop" => Some(Self::Drop),
            "error" => Some(Self::Error),
            _ => None,
        }
    }
}

/// What a request asks for, by the names of its members.
#[derive(Debug, Default)]
pub struct Given {
    pub on_unsupported: OnUnsupported,
    /// What no provider of another wire has a place for.
    nothing: BTreeSet<String>,
    /// The parameters, as the caller calls them.
    params: Vec<(Param, &'static str)>,
}

/// A member that asks for nothing: absent in other words.
fn is_absent(value: &RawValue) -> bool {
    let text = value.get();
    matches!(text, "null" | "false" | "\"\"")
        || (text.len() < 64
            && matches!(
                text.replace([' ', '\n', '\t', '\r'], "").as_str(),
                "{}" | "[]"
            ))
}

impl Given {
    /// Of a request whose body is a JSON object; another has no members.
    pub fn of(exchange: &Exchange, body: &[u8], fields: Fields) -> Result<Self, ApiError> {
        let wrong = || ApiError::invalid(MEMBER, "must be warn, drop or error");
        let mut given = Self::of_body(body, fields)?;
        if let Some(word) = exchange.header(ON_UNSUPPORTED) {
            given.on_unsupported = OnUnsupported::of(word).ok_or_else(wrong)?;
        }
        given.check()?;
        Ok(given)
    }

    fn of_body(body: &[u8], fields: Fields) -> Result<Self, ApiError> {
        let mut given = Self::default();
        let mut told = None;
        let reader = Reader(|name: Cow<'_, str>, value: &RawValue| {
            if name == MEMBER {
                let word: Option<String> = serde_json::from_str(value.get()).ok();
                told = Some(word.and_then(|word| OnUnsupported::of(&word)));
                return;
            }
            let known = fields.iter().find(|(known, _)| *known == name);
            match known {
                Some((_, Means::Understood)) => {}
                Some((known, Means::Param(param))) => given.params.push((*param, known)),
                _ if is_absent(value) => {}
                _ => given.add_nothing(&name),
            }
        });
        // What is no object is refused where it is read.
        let _ = serde_json::Deserializer::from_slice(body).deserialize_map(reader);
        if let Some(told) = told {
            let wrong = || ApiError::invalid(MEMBER, "must be warn, drop or error");
            given.on_unsupported = told.ok_or_else(wrong)?;
        }
        Ok(given)
    }

    /// Adds what was read and has no place, by a name that says where it stands.
    pub fn add_nothing(&mut self, name: &str) {
        if self.nothing.len() < MOST_NAMES {
            let plain = |letter: char| match letter {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' | '.' | '[' | ']' => letter,
                _ => '?',
            };
            let name = name.chars().take(LONGEST_NAME).map(plain).collect();
            self.nothing.insert(name);
        }
    }

    /// Refuses what has no place anywhere, where that is asked for.
    pub fn check(&self) -> Result<(), ApiError> {
        match self.nothing.first() {
            Some(name) if self.on_unsupported == OnUnsupported::Error => {
                let why = format!("'{name}' has no place at this model's provider");
                Err(ApiError::bad_request("unsupported_parameter", why).param(name.clone()))
            }
            _ => Ok(()),
        }
    }

    /// An error that names a parameter, in the caller's own word for it.
    pub fn in_callers_words(&self, error: ApiError) -> ApiError {
        let param = error.param.as_deref();
        let known = self.params.iter().find(|(of, _)| Some(of.name()) == param);
        match known {
            Some((_, name)) if error.code == "unsupported_parameter" => error.param(*name),
            _ => error,
        }
    }

    /// Tells in the answer's header what had no place.
    pub fn tell(&self, exchange: &mut Exchange, lost: Lost) {
        if self.on_unsupported == OnUnsupported::Drop {
            return;
        }
        let of_caller = |param: Param| {
            let known = self.params.iter().find(|(of, _)| *of == param);
            known.map_or(param.name(), |(_, name)| name)
        };
        let mut names: Vec<&str> = self.nothing.iter().map(String::as_str).collect();
        names.extend(lost.params().map(of_caller));
        if !names.is_empty()
            && let Ok(value) = HeaderValue::from_str(&names.join(", "))
        {
            exchange.tell(UNSUPPORTED, value);
        }
    }
}

/// Hands each member of an object on.
struct Reader<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Reader<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = members.next_key()? {
            // A name that is seen once is mostly not escaped.
            (self.0)(name, members.next_value()?);
        }
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
pub mod tests;
