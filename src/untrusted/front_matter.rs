//! YAML at the head of a Markdown file, bounded before it is parsed.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Longest front matter, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Levels inside each other.
const MAX_DEPTH: usize = 32;

/// Refuses what no front matter is, without parsing it.
pub fn check(yaml: &str) -> Result<(), String> {
    if yaml.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let too_deep = || format!("it is nested deeper than {MAX_DEPTH} levels");
    let mut brackets: usize = 0;
    for line in yaml.lines() {
        // `- - - - a` and `? ? ? a` open a level with each sign.
        let signs = line.split_whitespace().take_while(|word| {
            matches!(*word, "-" | "?" | ":") || word.starts_with(['&', '!', '*'])
        });
        if signs.count() > MAX_DEPTH {
            return Err(too_deep());
        }
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => brackets += 1,
                b']' | b'}' => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            if brackets > MAX_DEPTH {
                return Err(too_deep());
            }
        }
    }
    Ok(())
}

/// The YAML between the first two lines of dashes, and what is behind it.
pub fn split(markdown: &str) -> Option<(&str, &str)> {
    let text = markdown.trim_start_matches('\u{feff}');
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().filter(|line| line.trim_end() == "---")?;
    let mut at = first.len();
    for line in lines {
        if line.trim_end() == "---" {
            return Some((text[first.len()..at].trim_end(), &text[at + line.len()..]));
        }
        at += line.len();
    }
    None
}

/// A value in whose mappings no key is there twice: of two, nobody could say which is meant.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Each).map(Self)
    }
}

struct Each;

impl<'de> Visitor<'de> for Each {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text, a number, a list or a mapping")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut mapping = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if mapping.contains_key(&name) {
                return Err(A::Error::custom(format!("the key '{name}' is there twice")));
            }
            let Unique(value) = members.next_value()?;
            mapping.insert(name, value);
        }
        Ok(Value::Object(mapping))
    }
}

/// The mapping that the front matter is. For the sandbox.
pub fn parse(yaml: &str) -> Result<Value, String> {
    check(yaml)?;
    let Unique(value) = serde_yaml_ng::from_str(yaml).map_err(|e| e.to_string())?;
    match value.is_object() {
        true if value.to_string().len() <= 4 * MAX_BYTES => Ok(value),
        true => Err("it unfolds to more than it may".to_owned()),
        false => Err("it must be a mapping, such as 'name: greeter'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_size_are_bounded_before_parsing() {
        for bomb in [
            format!("name: {}", "[".repeat(200_000)),
            format!("name: {}", "[".repeat(1_000)),
            format!("name: {}", "{a: ".repeat(100)),
            format!("name:\n  {}", "- ".repeat(1_000)),
            "? ".repeat(1_000),
            format!("name: {}", "a".repeat(MAX_BYTES)),
        ] {
            assert!(check(&bomb).is_err(), "{}", &bomb[..20]);
        }
        assert!(check("name: a\ndescription: see [1], {x} and - that\ntags: [a, b]").is_ok());
    }

    #[test]
    fn the_head_is_split_off() {
        for text in [
            "---\nname: a\n---\nBody\n---\n",
            "\u{feff}---\r\nname: a\r\n--- \r\nBody\n---\n",
        ] {
            assert_eq!(split(text), Some(("name: a", "Body\n---\n")), "{text:?}");
        }
        assert_eq!(split("---\nname: a\n---"), Some(("name: a", "")));
        for none in ["", "name: a", "---", "---\nname: a\n--", "a\n---\n---\n"] {
            assert_eq!(split(none), None, "{none:?}");
        }
    }

    #[test]
    fn aliases_do_not_blow_up() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let of = format!("*a{}", level - 1);
            let list = [of.as_str(); 9].join(", ");
            bomb += &format!("a{level}: &a{level} [{list}]\n");
        }
        assert!(parse(&bomb).is_err());
        let fine = parse("name: a\nmetadata: {version: 1.0, x: null}").expect("parsed");
        assert_eq!(fine["metadata"]["version"], 1.0);
        assert!(parse("- a").is_err());
        let fine = parse("a: yes\nb: 0x10\nc: [1.5, -2, ~]\nd: 2024-01-01\n").expect("parsed");
        assert_eq!(
            fine,
            serde_json::json!({ "a": "yes", "b": 16, "c": [1.5, -2, null], "d": "2024-01-01" })
        );
    }

    #[test]
    fn a_key_that_is_there_twice_is_named() {
        for yaml in [
            "name: a\ndescription: x\nname: b",
            "name: a\nmetadata: {x: 1, name: 2, \"name\": 3}",
            "list: [{name: 1, name: 1}]",
        ] {
            let why = parse(yaml).expect_err("refused");
            assert!(why.contains("the key 'name' is there twice"), "{why}");
        }
    }
}
