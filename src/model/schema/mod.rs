//! JSON Schemas in the dialect of the target: each provider takes a part of the language, and
//! refuses the whole request for a keyword more.
//!
//! Lives here: [`tool`] and [`output`], which put a schema into a dialect; the [`Target`]s; the
//! translator. What a target has no words for goes into the description, so that the model is told
//! of it, and is checked where the answer is held against the caller's own schema. The work is
//! bounded: references are kept, never unfolded, and what is copied is counted.

mod bounds;
mod combine;
mod keywords;
mod target;
mod tools;
mod translate;

use serde_json::Value;

use self::bounds::Budget;
use self::target::{ANTHROPIC, GEMINI, OPENAI_STRICT};
use self::translate::translate;
use crate::config::Dialect;

/// A schema in the target's dialect.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    pub schema: Value,
    /// What the schema does not say, for the description of what it is of.
    pub note: Option<String>,
    /// Whether the model can be held to it by the wire's `strict`.
    pub strict: bool,
}

/// Why a schema is not told in a target's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    /// It is larger or deeper than what is looked at.
    TooLarge,
    /// It allows what the target can not.
    TooFree,
}

/// Refuses a schema that is larger or deeper than what is translated; the message is for the caller.
pub fn check(schema: &Value) -> Result<(), String> {
    let mut budget = Budget::default();
    match budget.spend_on(schema) {
        Ok(()) => Ok(()),
        Err(_) => Err(format!(
            "the schema is too large: at most {} nodes, {} levels deep",
            bounds::MAX_NODES,
            bounds::MAX_DEPTH
        )),
    }
}

/// The schema of a tool's arguments, which are an object everywhere.
pub fn tool(schema: &Value, strict: bool, dialect: Dialect) -> Fitted {
    let (root, note) = match tools::root_of(schema) {
        Ok(rooted) => rooted,
        Err(_) => return tools::degraded(schema),
    };
    let translated = match dialect {
        Dialect::Gemini => Some(translate(&root, &GEMINI)),
        Dialect::Openai if strict => Some(translate(&root, &OPENAI_STRICT)),
        Dialect::Plain | Dialect::Openai | Dialect::Anthropic => None,
    };
    match (translated, dialect) {
        (Some(Ok(schema)), _) => Fitted {
            schema,
            note,
            strict: dialect == Dialect::Openai,
        },
        (Some(Err(_)), Dialect::Gemini) => tools::degraded(schema),
        _ => Fitted {
            schema: root,
            note,
            strict: strict && dialect == Dialect::Plain,
        },
    }
}

/// The schema of an answer; `None` when the target can not be held to it by its own member.
pub fn output(schema: &Value, strict: bool, dialect: Dialect) -> Option<Fitted> {
    let fitted = |schema, strict| Fitted {
        schema,
        note: None,
        strict,
    };
    match dialect {
        Dialect::Plain => Some(fitted(schema.clone(), strict)),
        // What it can not enforce it is still shown.
        Dialect::Openai => Some(match strict {
            false => fitted(schema.clone(), false),
            true => match translate(schema, &OPENAI_STRICT) {
                Ok(translated) => fitted(translated, true),
                Err(_) => fitted(schema.clone(), false),
            },
        }),
        Dialect::Anthropic => Some(fitted(translate(schema, &ANTHROPIC).ok()?, strict)),
        Dialect::Gemini => Some(fitted(translate(schema, &GEMINI).ok()?, strict)),
    }
}

/// Whether what the schema describes is an object, so that a tool can take it.
pub fn is_object(schema: &Value) -> bool {
    tools::root_of(schema).is_ok_and(|(root, note)| {
        // What could not be said as an object has no members.
        note.is_none()
            || root["properties"]
                .as_object()
                .is_some_and(|p| !p.is_empty())
    })
}

#[cfg(test)]
mod tests;
