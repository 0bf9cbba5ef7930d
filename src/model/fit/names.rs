//! Ids of tool calls and names of tools, in a form that the target takes: the same id or name
//! always becomes the same one, and two never become one.

use std::collections::{HashMap, HashSet};

use crate::config::CallIds;

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const MAX_SHORT: usize = 40;
const MAX_WORD: usize = 64;

/// 64 bits of SHA-256, of the text and how often it was tried.
fn hash(text: &str, tried: u32) -> u64 {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(text.as_bytes());
    if tried > 0 {
        context.update(&tried.to_be_bytes());
    }
    let digest = context.finish();
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_be_bytes(first)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// As much of `text` as fits, other characters replaced, and its hash behind it.
fn hashed(text: &str, most: usize, tried: u32) -> String {
    let hash = format!("{:016x}", hash(text, tried));
    let room = most.saturating_sub(hash.len() + 1);
    let mut word: String = text
        .chars()
        .take(room)
        .map(|c| {
            if c.is_ascii() && is_word(c as u8) {
                c
            } else {
                '_'
            }
        })
        .collect();
    word.push('_');
    word + &hash
}

impl CallIds {
    fn takes(self, id: &str) -> bool {
        let bytes = id.as_bytes();
        !bytes.is_empty()
            && match self {
                Self::Any => true,
                Self::Short => id.chars().count() <= MAX_SHORT,
                Self::Word => bytes.len() <= MAX_WORD && bytes.iter().all(|b| is_word(*b)),
                Self::Nine => bytes.len() == 9 && bytes.iter().all(u8::is_ascii_alphanumeric),
            }
    }

    fn derive(self, id: &str, tried: u32) -> String {
        let most = match self {
            Self::Short => MAX_SHORT,
            Self::Any | Self::Word => MAX_WORD,
            Self::Nine => {
                let mut rest = hash(id, tried);
                let nine = std::iter::repeat_with(|| {
                    let letter = LETTERS[(rest % 62) as usize];
                    rest /= 62;
                    char::from(letter)
                });
                return nine.take(9).collect();
            }
        };
        match id.is_empty() {
            true => hashed("call", most, tried),
            false => hashed(id, most, tried),
        }
    }
}

/// Gives calls their ids, each once.
pub struct CallNames {
    rule: CallIds,
    taken: HashSet<String>,
    /// How often an id had to be derived until it was free: below that all are taken.
    tried: HashMap<String, u32>,
}

impl CallNames {
    /// Before the first call.
    pub fn new(rule: CallIds) -> Self {
        Self {
            rule,
            taken: HashSet::new(),
            tried: HashMap::new(),
        }
    }

    /// The id of the next call, which its maker calls `id`.
    pub fn next(&mut self, id: &str) -> String {
        let mut name = match self.rule.takes(id) {
            true => id.to_owned(),
            false => self.rule.derive(id, 0),
        };
        if self.taken.insert(name.clone()) {
            return name;
        }
        let tried = self.tried.entry(id.to_owned()).or_default();
        loop {
            *tried += 1;
            name = self.rule.derive(id, *tried);
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// A tool's name with at most `most` characters of `[a-zA-Z0-9_-]`, the first a letter or `_`.
pub fn tool_name(name: &str, most: usize) -> String {
    let bytes = name.as_bytes();
    let begins = bytes
        .first()
        .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    if begins && bytes.len() <= most && bytes.iter().all(|b| is_word(*b)) {
        return name.to_owned();
    }
    match begins {
        true => hashed(name, most, 0),
        false => hashed(&format!("_{name}"), most, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_the_same_way_and_never_to_one() {
        for rule in [CallIds::Short, CallIds::Word, CallIds::Nine, CallIds::Any] {
            let long = "x".repeat(99);
            let given = [
                "functions.get_weather:0",
                "functions.get_weather_0",
                "call_Q1|fc_0f0d",
                "",
                "",
                "call_1",
                "call_1",
                "call_1",
                "abcdefghi",
                &long,
                "ü",
            ];
            let names = |rule| {
                let mut names = CallNames::new(rule);
                given.map(|id| names.next(id))
            };
            let mapped = names(rule);
            assert_eq!(mapped, names(rule));
            assert_eq!(mapped.iter().collect::<HashSet<_>>().len(), given.len());
            assert!(
                mapped.iter().all(|id| rule.takes(id)),
                "{rule:?}: {mapped:?}"
            );
            assert_eq!(mapped[8], "abcdefghi");
        }
        let mut names = CallNames::new(CallIds::Word);
        assert_eq!(names.next("call_1"), "call_1");
        assert!(names.next("functions.f:0").starts_with("functions_f_0_"));
    }

    #[test]
    fn one_id_for_all_calls_does_not_make_each_slower_than_the_one_before() {
        let began = std::time::Instant::now();
        let mut names = CallNames::new(CallIds::Word);
        let named: HashSet<String> = (0..100_000).map(|_| names.next("call_0")).collect();
        assert_eq!(named.len(), 100_000);
        // With a hash for each one before it that would be minutes.
        assert!(began.elapsed() < std::time::Duration::from_secs(20));
    }

    #[test]
    fn names_keep_what_can_be_kept() {
        assert_eq!(tool_name("get_weather", 64), "get_weather");
        let (dot, underscore) = (tool_name("a.b", 64), tool_name("a_b", 64));
        assert!(dot.starts_with("a_b_") && underscore == "a_b");
        let long = tool_name(&"n".repeat(100), 64);
        assert_eq!(long.len(), 64);
        assert!(tool_name("7up", 64).starts_with("_7up_"));
        assert!(tool_name("größe", 64).is_ascii());
    }
}
