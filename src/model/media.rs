//! Images, files and sounds: where they stand in a conversation. A wire that has no
//! place for them in a tool's result gets them in a user's turn behind it, with a word on where they
//! are from.

use std::borrow::Cow;
use std::collections::HashMap;

use super::request::{Part, Role, Turn};

/// The turns, with images, files and sounds taken out of tools' results, for wires that have no place
/// for them there, into a user's turn behind all results.
pub fn moved(turns: &[Turn]) -> Cow<'_, [Turn]> {
    if !turns.iter().any(|turn| turn.parts.iter().any(has_media)) {
        return Cow::Borrowed(turns);
    }
    let mut names: HashMap<&str, &str> = HashMap::new();
    for part in turns.iter().flat_map(|turn| &turn.parts) {
        if let Part::ToolCall { id, name, .. } = part {
            names.entry(id).or_insert(name);
        }
    }
    let mut out: Vec<Turn> = Vec::with_capacity(turns.len() + 1);
    let mut homeless = Vec::new();
    for turn in turns {
        // Results come right behind their calls: nothing may stand between.
        if turn.role != Role::Tool {
            settle(&mut homeless, &mut out);
        }
        let mut turn = turn.clone();
        for part in &mut turn.parts {
            take_from_result(part, &names, &mut homeless);
        }
        // What is the user's turn anyway is not cut in two.
        match out.last_mut() {
            Some(last) if turn.role == Role::User && last.role == Role::User => {
                last.parts.extend(turn.parts);
            }
            _ => out.push(turn),
        }
    }
    settle(&mut homeless, &mut out);
    Cow::Owned(out)
}

fn has_media(part: &Part) -> bool {
    matches!(part, Part::ToolResult { content, .. } if content.iter().any(Part::is_media))
}

fn text(text: String) -> Part {
    Part::Text { text }
}

fn take_from_result(part: &mut Part, names: &HashMap<&str, &str>, homeless: &mut Vec<Part>) {
    let Part::ToolResult {
        tool_call_id,
        content,
        ..
    } = part
    else {
        return;
    };
    let (media, rest): (Vec<Part>, Vec<Part>) = std::mem::take(content)
        .into_iter()
        .partition(Part::is_media);
    *content = rest;
    if media.is_empty() {
        return;
    }
    homeless.push(text(match names.get(tool_call_id.as_str()) {
        Some(name) => format!("From the result of the call {tool_call_id} of {name}:"),
        None => format!("From the result of the call {tool_call_id}:"),
    }));
    homeless.extend(media);
    if content.is_empty() {
        content.push(text("The result follows in the user's message.".to_owned()));
    }
}

/// Puts what was taken out into a user's turn.
fn settle(homeless: &mut Vec<Part>, out: &mut Vec<Turn>) {
    if !homeless.is_empty() {
        out.push(Turn {
            role: Role::User,
            parts: std::mem::take(homeless),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::Source;

    fn image() -> Part {
        Part::Image {
            source: Source::from_url("https://x.example/a.png"),
            detail: None,
        }
    }

    fn call(id: &str) -> Part {
        Part::ToolCall {
            id: id.to_owned(),
            name: "shot".to_owned(),
            arguments: "{}".to_owned(),
            signature: None,
            server: None,
            approved: false,
        }
    }

    fn result(id: &str, content: Vec<Part>) -> Part {
        Part::ToolResult {
            tool_call_id: id.to_owned(),
            content,
            is_error: false,
        }
    }

    #[test]
    fn what_has_no_place_is_moved_behind_all_results_and_none_is_lost() {
        let turn = |role, parts| Turn { role, parts };
        let turns = vec![
            turn(Role::User, vec![text("look".to_owned())]),
            turn(Role::Assistant, vec![call("a"), call("b")]),
            turn(Role::Tool, vec![result("a", vec![image()])]),
            turn(
                Role::Tool,
                vec![result("b", vec![text("shot".to_owned()), image()])],
            ),
            turn(Role::User, vec![text("and?".to_owned())]),
        ];
        let moved_all = moved(&turns);
        let roles: Vec<Role> = moved_all.iter().map(|turn| turn.role).collect();
        use Role::{Assistant, Tool, User};
        assert_eq!(roles, [User, Assistant, Tool, Tool, User]);
        let last = &moved_all[4].parts;
        assert_eq!(last.iter().filter(|part| part.is_media()).count(), 2);
        assert_eq!(last[4], text("and?".to_owned()));
        assert!(matches!(&last[0], Part::Text { text } if text.contains("the call a of shot")));
        assert!(matches!(moved(&turns[..2]), Cow::Borrowed(_)));
    }
}
