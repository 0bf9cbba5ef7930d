//! What typed clients take: the shapes of `tests/fixtures/contract`, in words such as `string|null`,
//! `[Smith]` or `page(Smith)`, and a check of real answers against them. A member whose name ends in
//! `?` may be missing; other members may come beside. `...` stands for the members of another shape.

use serde_json::{Map, Value};

/// All shapes, by name.
pub struct Shapes(Map<String, Value>);

/// A document of the folder.
pub fn fixture(name: &str) -> Map<String, Value> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/contract");
    let text = std::fs::read_to_string(folder.join(name)).expect("a fixture");
    serde_json::from_str(&text).expect("an object")
}

impl Shapes {
    pub fn load() -> Self {
        Self(fixture("shapes.json"))
    }

    /// What of `value` a client would not take as `kind`.
    pub fn problems(&self, value: &Value, kind: &str) -> Vec<String> {
        let mut found = Vec::new();
        self.check("", value, kind, &mut found);
        found
    }

    fn check(&self, at: &str, value: &Value, kind: &str, found: &mut Vec<String>) {
        let mut all = Vec::new();
        for one in kind.split('|') {
            let mut problems = Vec::new();
            self.check_one(at, value, one, &mut problems);
            if problems.is_empty() {
                return;
            }
            // The alternative that comes nearest says most.
            if all.is_empty() || (one != "null" && !value.is_null()) {
                all = problems;
            }
        }
        found.extend(all);
    }

    fn check_one(&self, at: &str, value: &Value, kind: &str, found: &mut Vec<String>) {
        let fits = match kind {
            "any" => true,
            "null" => value.is_null(),
            "bool" => value.is_boolean(),
            "string" => value.is_string(),
            "int" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "map" => value.is_object(),
            "time" => value.as_str().is_some_and(is_time),
            _ => return self.check_made(at, value, kind, found),
        };
        if !fits {
            found.push(format!("{at}: {value} is no {kind}"));
        }
    }

    fn check_made(&self, at: &str, value: &Value, kind: &str, found: &mut Vec<String>) {
        let inside = |open: &str| kind.strip_prefix(open)?.strip_suffix([')', ']']);
        if let Some(word) = kind.strip_prefix('=') {
            let said = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            if said != word {
                found.push(format!("{at}: {value} is not {word}"));
            }
        } else if let Some(prefix) = inside("id(") {
            let body = value
                .as_str()
                .and_then(|id| id.strip_prefix(prefix)?.strip_prefix('_'));
            if !body.is_some_and(is_body) {
                found.push(format!("{at}: {value} is no id {prefix}_…"));
            }
        } else if let Some(kind) = inside("map(") {
            match value.as_object() {
                Some(map) => {
                    for (name, member) in map {
                        self.check(&format!("{at}.{name}"), member, kind, found);
                    }
                }
                None => found.push(format!("{at}: {value} is no object")),
            }
        } else if let Some(kind) = inside("[") {
            match value.as_array() {
                Some(list) => {
                    for (place, entry) in list.iter().enumerate() {
                        self.check(&format!("{at}[{place}]"), entry, kind, found);
                    }
                }
                None => found.push(format!("{at}: {value} is no list")),
            }
        } else if let Some(kind) = inside("page(") {
            self.check(
                &format!("{at}.data"),
                &value["data"],
                &format!("[{kind}]"),
                found,
            );
            self.check(&format!("{at}.has_more"), &value["has_more"], "bool", found);
            self.member(at, value, "next_cursor", "string|null", found);
        } else if let Some(kind) = inside("openai_list(") {
            self.check(&format!("{at}.object"), &value["object"], "=list", found);
            self.check(
                &format!("{at}.data"),
                &value["data"],
                &format!("[{kind}]"),
                found,
            );
            self.check(&format!("{at}.has_more"), &value["has_more"], "bool", found);
            self.member(at, value, "first_id", "string|null", found);
            self.member(at, value, "last_id", "string|null", found);
        } else if let Some(kind) = inside("list(") {
            self.check(
                &format!("{at}.data"),
                &value["data"],
                &format!("[{kind}]"),
                found,
            );
        } else {
            self.check_named(at, value, kind, found);
        }
    }

    fn check_named(&self, at: &str, value: &Value, name: &str, found: &mut Vec<String>) {
        let shape = self
            .0
            .get(name)
            .unwrap_or_else(|| panic!("no shape is called {name}"));
        let members = match shape {
            Value::String(other) => return self.check(at, value, other, found),
            Value::Object(members) => members,
            other => panic!("{name} is {other}"),
        };
        if !value.is_object() {
            found.push(format!("{at}: {value} is no {name}"));
            return;
        }
        for (member, kind) in members {
            let kind = kind.as_str().expect("a kind");
            match member.strip_suffix('?') {
                _ if member == "..." => self.check_named(at, value, kind, found),
                Some(member) if value.get(member).is_none() => {}
                member_or_none => {
                    self.member(at, value, member_or_none.unwrap_or(member), kind, found);
                }
            }
        }
    }

    fn member(&self, at: &str, value: &Value, name: &str, kind: &str, found: &mut Vec<String>) {
        match value.get(name) {
            Some(member) => self.check(&format!("{at}.{name}"), member, kind, found),
            None => found.push(format!("{at}.{name} is missing")),
        }
    }
}

/// The form that clients take an id by.
fn is_body(body: &str) -> bool {
    let base58 = |b: u8| b.is_ascii_alphanumeric() && !b"0OIl".contains(&b);
    (21..=22).contains(&body.len()) && body.bytes().all(base58)
}

fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && text.ends_with('Z')
        && bytes[..19]
            .iter()
            .zip(b"0000-00-00T00:00:00")
            .all(|(b, form)| match form {
                b'0' => b.is_ascii_digit(),
                form => b == form,
            })
}

#[test]
fn shapes_tell_what_does_not_fit() {
    let shapes = Shapes::load();
    let actor = serde_json::json!({ "kind": "smith", "id": "a", "token_id": "", "email": "" });
    assert!(shapes.problems(&actor, "Actor|null").is_empty());
    assert!(shapes.problems(&Value::Null, "Actor|null").is_empty());
    for (member, value) in [
        ("email", Value::Null),
        ("kind", "nobody".into()),
        ("id", 1.into()),
    ] {
        let mut bad = actor.clone();
        bad[member] = value;
        assert_eq!(shapes.problems(&bad, "Actor|null").len(), 1, "{member}");
    }
    let page = serde_json::json!({ "data": [actor], "has_more": false });
    assert_eq!(
        shapes.problems(&page, "page(Actor)"),
        [".next_cursor is missing"]
    );
}
