//! Decisions on approvals, as this wire carries them: the result of a call whose id is
//! `<run_id>::<tool_call_id>` (`wires.md`).

use serde_json::Value;

use crate::error::ApiError;
use crate::ids;
use crate::model::{Part, Role, Turn, joined_text};
use crate::run::Word;

/// The run and the call of an approval's id, which is split at its first `::`.
pub fn approval_of(id: &str) -> Option<(&str, &str)> {
    let (run, call) = id.split_once("::")?;
    ids::body(ids::Kind::Run, run)?;
    Some((run, call))
}

/// The decisions that a request ends with, and the run that they are about.
pub fn decisions(turns: &[Turn]) -> Result<Option<(String, Vec<Word>)>, ApiError> {
    let Some(last) = turns.last().filter(|turn| turn.role == Role::Tool) else {
        return Ok(None);
    };
    let mut of: Option<String> = None;
    let mut words = Vec::new();
    for part in &last.parts {
        let Part::ToolResult {
            tool_call_id,
            content,
            ..
        } = part
        else {
            continue;
        };
        let Some((run, call)) = approval_of(tool_call_id) else {
            continue;
        };
        if of.as_deref().is_some_and(|other| other != run) {
            let message = "the decisions are about several runs";
            return Err(ApiError::invalid("messages", message));
        }
        of = Some(run.to_owned());
        words.push(word(call, &joined_text(content))?);
    }
    Ok(of.map(|run| (run, words)))
}

fn word(call: &str, text: &str) -> Result<Word, ApiError> {
    let text = text.trim();
    let given: Value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.into()));
    let decision = given.as_str().or(given["decision"].as_str());
    let approve = match decision {
        Some("approve") => true,
        Some("reject") => false,
        _ => {
            let message = "a decision is approve or reject";
            return Err(ApiError::bad_request("invalid_decision", message).param("messages"));
        }
    };
    Ok(Word {
        tool_call_id: Some(call.to_owned()),
        approve,
        content: given.get("content").cloned(),
        reason: given["reason"].as_str().map(str::to_owned),
        ..Word::default()
    })
}

/// A history without the decisions of earlier turns, which no model asked for.
pub fn without_decisions(mut turns: Vec<Turn>) -> Vec<Turn> {
    for turn in &mut turns {
        turn.parts.retain(|part| match part {
            Part::ToolCall { id, .. } => approval_of(id).is_none(),
            Part::ToolResult { tool_call_id, .. } => approval_of(tool_call_id).is_none(),
            _ => true,
        });
    }
    turns.retain(|turn| !turn.parts.is_empty());
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(id: &str, text: &str) -> Turn {
        Turn {
            role: Role::Tool,
            parts: vec![Part::ToolResult {
                tool_call_id: id.to_owned(),
                content: vec![Part::Text {
                    text: text.to_owned(),
                }],
                is_error: false,
            }],
        }
    }

    #[test]
    fn decisions_are_read_in_every_form() {
        let id = format!("{}::a::b", ids::mint(ids::Kind::Run));
        for (text, approve) in [
            ("approve", true),
            (r#"{"decision":"reject","reason":"no"}"#, false),
            (r#""approve""#, true),
        ] {
            let (_, words) = decisions(&[result(&id, text)])
                .expect("read")
                .expect("some");
            assert_eq!(words[0].approve, approve);
            assert_eq!(words[0].tool_call_id.as_deref(), Some("a::b"));
        }
        assert!(decisions(&[result(&id, "maybe")]).is_err());
        assert!(
            decisions(&[result("call_1", "42")])
                .expect("read")
                .is_none()
        );
        assert!(without_decisions(vec![result(&id, "approve")]).is_empty());
    }
}
