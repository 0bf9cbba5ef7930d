//! What a virtual key may do: which wires it calls, and which models.

use http::StatusCode;

use super::Scope;
use crate::error::ApiError;

/// Longest model pattern, in bytes.
const MAX_PATTERN: usize = 256;
/// Most patterns of a key.
const MAX_PATTERNS: usize = 200;

macro_rules! uses {
    ($($variant:ident => $name:literal, $scope:ident);+ $(;)?) => {
        /// A way to use models: what a virtual key may be made for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Use {
            $($variant),+
        }

        impl Use {
            /// All of them.
            pub const ALL: &'static [Use] = &[$(Use::$variant),+];

            /// The wire spelling.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// What a smith's token needs for it.
            pub fn scope(self) -> Scope {
                match self {
                    $(Self::$variant => Scope::$scope),+
                }
            }
        }

        /// The uses as types: a handler's signature says which one it is.
        pub mod uses {
            use super::{AsUse, Use};

            $(
                #[doc = concat!("`", $name, "`")]
                pub struct $variant;

                impl AsUse for $variant {
                    const USE: Use = Use::$variant;
                }
            )+
        }
    };
}

/// A use as a type.
pub trait AsUse: Send + Sync + 'static {
    const USE: Use;
}

uses! {
    ChatCompletions => "chat.completions", RunsWrite;
    Responses => "responses", RunsWrite;
    Messages => "messages", RunsWrite;
    Embeddings => "embeddings", EmbeddingsWrite;
    Models => "models", RunsRead;
    GenerateContent => "generate_content", RunsWrite;
    Completions => "completions", RunsWrite;
    Moderations => "moderations", RunsWrite;
    Images => "images", RunsWrite;
    Audio => "audio", RunsWrite;
    Rerank => "rerank", RunsWrite;
}

impl std::str::FromStr for Use {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.iter().copied();
        all.find(|one| one.as_str() == name).ok_or(())
    }
}

/// A line of a key's list of models.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// An alias, a bare id, or `<provider>/<model>`: the name as it is.
    Name(Box<str>),
    /// What `<provider>/<model>` begins with.
    Prefix(Box<str>),
}

impl Pattern {
    /// A name, or `<provider>/*` (`<provider>/<beginning>*`).
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err("a pattern has 1 to 256 bytes");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("a pattern has no white space");
        }
        match text.strip_suffix('*') {
            None if text.contains('*') => Err("a '*' stands at the end"),
            None => Ok(Self::Name(text.into())),
            Some(prefix) if prefix.contains('*') => Err("a '*' stands at the end"),
            // Else a prefix of a provider's name would let in one that is made later.
            Some(prefix) if prefix.find('/').is_none_or(|at| at == 0) => {
                Err("a '*' stands behind <provider>/; leave the list out for all models")
            }
            Some(prefix) => Ok(Self::Prefix(prefix.into())),
        }
    }
}

/// What a virtual key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// A bit for each [`Use`].
    uses: u16,
    /// `None`: all models.
    models: Option<Box<[Pattern]>>,
}

impl Rights {
    /// From lists of names; what is absent is not limited.
    ///
    /// # Errors
    /// 400 that names the line at fault.
    pub fn parse(uses: Option<&[String]>, models: Option<&[String]>) -> Result<Self, ApiError> {
        let bits = match uses {
            None => u16::MAX,
            Some([]) => return Err(empty("routes")),
            Some(names) => names.iter().enumerate().try_fold(0, |bits, (at, name)| {
                let known = name.parse::<Use>();
                let known = known.map_err(|()| {
                    let all: Vec<&str> = Use::ALL.iter().map(|one| one.as_str()).collect();
                    let message = format!("must be one of {}", all.join(", "));
                    ApiError::invalid(format!("routes[{at}]"), message)
                })?;
                Ok::<u16, ApiError>(bits | 1 << known as u8)
            })?,
        };
        let models = match models {
            None => None,
            Some([]) => return Err(empty("models")),
            Some(names) if names.len() > MAX_PATTERNS => {
                let message = format!("at most {MAX_PATTERNS} models");
                return Err(ApiError::invalid("models", message));
            }
            Some(names) => {
                let patterns = names.iter().enumerate().map(|(at, name)| {
                    let parsed = Pattern::parse(name);
                    parsed.map_err(|why| ApiError::invalid(format!("models[{at}]"), why))
                });
                Some(patterns.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self { uses: bits, models })
    }

    /// Whether it may be used so.
    pub fn allows(&self, what: Use) -> bool {
        self.uses & (1 << what as u8) != 0
    }

    /// Whether it is for some models only.
    pub fn is_limited(&self) -> bool {
        self.models.is_some()
    }

    fn any(&self, fits: impl Fn(&Pattern) -> bool) -> bool {
        let patterns = self.models.as_deref();
        patterns.is_none_or(|patterns| patterns.iter().any(fits))
    }

    /// Whether its list has `name` as a caller writes it. An alias that is in it may be asked with all
    /// its targets.
    pub fn names(&self, name: &str) -> bool {
        self.any(|pattern| matches!(pattern, Pattern::Name(known) if **known == *name))
    }

    /// Whether it may ask `model` of `provider`, both as the call will.
    pub fn takes(&self, provider: &str, model: &str) -> bool {
        self.any(|pattern| match pattern {
            Pattern::Name(known) => behind(known, provider) == Some(model),
            Pattern::Prefix(known) => {
                behind(known, provider).is_some_and(|known| model.starts_with(known))
            }
        })
    }
}

/// What stands behind `<provider>/`.
fn behind<'a>(known: &'a str, provider: &str) -> Option<&'a str> {
    known.strip_prefix(provider)?.strip_prefix('/')
}

fn empty(param: &'static str) -> ApiError {
    ApiError::invalid(param, "must not be empty; leave it out for no limit")
}

/// 403 for a model that the key is not for.
pub fn model_not_allowed(model: &str) -> ApiError {
    let shown: String = model.chars().take(MAX_PATTERN).collect();
    ApiError::new(
        StatusCode::FORBIDDEN,
        "model_not_allowed",
        format!("this key may not use the model '{shown}'"),
    )
    .param("model")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(models: &[&str]) -> Rights {
        let models: Vec<String> = models.iter().map(|m| (*m).to_owned()).collect();
        Rights::parse(None, Some(&models)).expect("a list")
    }

    #[test]
    fn models_are_let_in_as_they_will_be_asked() {
        let rights = rights(&["openai/gpt-5.5", "anthropic/*", "or/meta/llama-3*", "fast"]);
        for (provider, model, takes) in [
            ("openai", "gpt-5.5", true),
            ("openai", "GPT-5.5", false),
            ("openai", "gpt-5.5-mini", false),
            ("openai-responses", "gpt-5.5", false),
            ("anthropic", "claude-opus-4-8", true),
            ("anthropic2", "claude-opus-4-8", false),
            ("or", "meta/llama-3-70b", true),
            ("or", "meta/llama-2", false),
            ("x", "fast", false),
        ] {
            assert_eq!(rights.takes(provider, model), takes, "{provider}/{model}");
        }
        assert!(rights.names("fast") && rights.names("openai/gpt-5.5"));
        assert!(!rights.names("anthropic/*") && !rights.names("Fast") && !rights.names(""));
    }

    #[test]
    fn what_is_absent_is_no_limit_and_what_is_empty_is_refused() {
        let all = Rights::parse(None, None).expect("no lists");
        assert!(all.takes("x", "y") && all.names("z") && !all.is_limited());
        assert!(Use::ALL.iter().all(|one| all.allows(*one)));
        assert!(Rights::parse(Some(&[]), None).is_err());
        assert!(Rights::parse(None, Some(&[])).is_err());
        let chat = Rights::parse(Some(&["chat.completions".to_owned()]), None).expect("a list");
        assert!(chat.allows(Use::ChatCompletions) && !chat.allows(Use::Models));
        assert!(Rights::parse(Some(&["mcp".to_owned()]), None).is_err());
    }

    #[test]
    fn patterns_that_would_let_in_too_much_are_refused() {
        for bad in ["", "*", "open*", "/*", "openai/*x", "a/*/*", "a b", "a\n"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Pattern::parse("openai/*").is_ok());
    }
}
