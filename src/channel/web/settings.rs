//! What a deployment says of its page: its `provider_metadata`.

use serde_json::Value;

use super::colour::Colour;
use crate::error::ApiError;

const MAX_TITLE: usize = 100;
const MAX_GREETING: usize = 2_000;
const MAX_WORDS: usize = 200;
const MAX_SUGGESTIONS: usize = 6;
const MAX_ORIGINS: usize = 50;
const MAX_PER_MINUTE: u64 = 100_000;

/// Light, dark, or as the visitor's system is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Theme {
    #[default]
    Auto,
    Light,
    Dark,
}

impl Theme {
    /// As the page's root says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// How a page looks and what it lets its visitors do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub title: String,
    /// What stands where nothing has been said yet.
    pub greeting: String,
    /// What the empty composer says.
    pub placeholder: String,
    /// First messages that are sent by a press.
    pub suggestions: Vec<String>,
    pub theme: Theme,
    pub accent: Colour,
    /// Origins of sites that may show the page in a frame.
    pub allowed_origins: Vec<String>,
    pub takes_files: bool,
    /// Whether what tools were given and gave is shown, not only that they ran.
    pub shows_tools: bool,
    pub shows_reasoning: bool,
    /// Messages of all visitors together, on each node.
    pub per_minute: u32,
}

fn invalid(name: &str, why: &'static str) -> ApiError {
    ApiError::invalid(format!("provider_metadata.{name}"), why)
}

/// A text of so many characters; none where nothing is said.
fn text(of: &Value, name: &str, most: usize) -> Result<Option<String>, ApiError> {
    let text = match &of[name] {
        Value::Null => return Ok(None),
        Value::String(text) => text.trim(),
        _ => return Err(invalid(name, "must be a text")),
    };
    if text.chars().count() > most {
        return Err(invalid(name, "is too long"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(invalid(name, "holds a control character"));
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn list(of: &Value, name: &str, most: usize) -> Result<Vec<String>, ApiError> {
    let all = match &of[name] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(all) => all,
        _ => return Err(invalid(name, "must be a list of texts")),
    };
    if all.len() > most {
        return Err(invalid(name, "has too many entries"));
    }
    let words = all.iter().map(|one| {
        let word = one.as_str().map(str::trim).unwrap_or_default();
        let is_one = !word.is_empty() && word.chars().count() <= MAX_WORDS;
        let is_one = is_one && !word.chars().any(char::is_control);
        match is_one {
            true => Ok(word.to_owned()),
            false => Err(invalid(name, "must hold texts of 1 to 200 characters")),
        }
    });
    words.collect()
}

fn switch(of: &Value, name: &str) -> Result<bool, ApiError> {
    match &of[name] {
        Value::Null => Ok(true),
        Value::Bool(is_on) => Ok(*is_on),
        _ => Err(invalid(name, "must be true or false")),
    }
}

/// An origin as a browser writes it; it becomes a part of a header.
fn origin(text: &str) -> Result<String, ApiError> {
    let bad = || {
        invalid(
            "allowed_origins",
            "must hold origins such as https://example.com",
        )
    };
    let url = url::Url::parse(text).map_err(|_| bad())?;
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
    let is_bare = is_bare && url.fragment().is_none() && url.username().is_empty();
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    let written = url.origin().ascii_serialization();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:/[]".contains(c);
    match is_bare && is_web && written.chars().all(is_plain) {
        true => Ok(written),
        false => Err(bad()),
    }
}

impl Settings {
    /// Of a deployment's `provider_metadata`; members that mean nothing here are left alone.
    pub fn read(of: &Value) -> Result<Self, ApiError> {
        let theme = match of["theme"].as_str() {
            None if of["theme"].is_null() => Theme::Auto,
            Some("auto") => Theme::Auto,
            Some("light") => Theme::Light,
            Some("dark") => Theme::Dark,
            _ => return Err(invalid("theme", "must be auto, light or dark")),
        };
        let accent = match &of["accent"] {
            Value::Null => Colour::DEFAULT,
            said => {
                let said = said.as_str().and_then(Colour::parse);
                said.ok_or_else(|| invalid("accent", "must be a colour such as #3b5bdb"))?
            }
        };
        let per_minute = match &of["messages_per_minute"] {
            Value::Null => 120,
            said => {
                let said = said.as_u64().filter(|n| (1..=MAX_PER_MINUTE).contains(n));
                let said = said.and_then(|n| u32::try_from(n).ok());
                said.ok_or_else(|| invalid("messages_per_minute", "must be 1 to 100000"))?
            }
        };
        let origins = list(of, "allowed_origins", MAX_ORIGINS)?;
        let origins: Result<Vec<String>, ApiError> =
            origins.iter().map(|text| origin(text)).collect();
        let told = |name, most, usual: &str| {
            let said = text(of, name, most)?;
            Ok::<_, ApiError>(said.unwrap_or_else(|| usual.to_owned()))
        };
        Ok(Self {
            title: told("title", MAX_TITLE, "Assistant")?.replace('\n', " "),
            greeting: told("greeting", MAX_GREETING, "How can I help?")?,
            placeholder: told("placeholder", MAX_TITLE, "Write a message")?.replace('\n', " "),
            suggestions: list(of, "suggestions", MAX_SUGGESTIONS)?,
            theme,
            accent,
            allowed_origins: origins?,
            takes_files: switch(of, "files")?,
            shows_tools: switch(of, "show_tools")?,
            shows_reasoning: switch(of, "show_reasoning")?,
            per_minute,
        })
    }

    /// The same of what was checked when it was kept.
    pub fn of(provider_metadata: &str) -> Result<Self, ApiError> {
        let of: Value = serde_json::from_str(provider_metadata).map_err(ApiError::internal)?;
        Self::read(&of).map_err(ApiError::internal)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        for (said, name) in [
            (json!({ "title": "x".repeat(101) }), "title"),
            (json!({ "title": 7 }), "title"),
            (json!({ "greeting": "a\u{7}" }), "greeting"),
            (json!({ "theme": "pink" }), "theme"),
            (json!({ "theme": 1 }), "theme"),
            (json!({ "accent": "red;}" }), "accent"),
            (
                json!({ "allowed_origins": "https://a.b" }),
                "allowed_origins",
            ),
            (json!({ "allowed_origins": ["*"] }), "allowed_origins"),
            (
                json!({ "allowed_origins": ["https://a.b/c"] }),
                "allowed_origins",
            ),
            (
                json!({ "allowed_origins": ["https://a.b; script-src *"] }),
                "allowed_origins",
            ),
            (json!({ "suggestions": [""] }), "suggestions"),
            (json!({ "files": "no" }), "files"),
            (json!({ "messages_per_minute": 0 }), "messages_per_minute"),
        ] {
            let error = Settings::read(&said).expect_err("refused");
            let wanted = format!("provider_metadata.{name}");
            assert_eq!(error.param.as_deref(), Some(wanted.as_str()), "{said}");
        }
        let said = json!({ "title": " Desk ", "theme": "dark", "accent": "#0A7", "files": false,
            "allowed_origins": ["HTTPS://Example.com:443/", "http://localhost:3000"], "other": 1 });
        let read = Settings::read(&said).expect("valid");
        assert_eq!(read.title, "Desk");
        assert_eq!(
            read.allowed_origins,
            ["https://example.com", "http://localhost:3000"]
        );
        assert!(!read.takes_files && read.shows_tools);
        assert_eq!(
            Settings::read(&json!({})).expect("valid").theme,
            Theme::Auto
        );
    }
}
