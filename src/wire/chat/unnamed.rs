//! Results that do not say which call they are of, as before calls had ids: each is of the last call
//! that has none yet.

use std::collections::{HashMap, HashSet};

use crate::model::{Part, Turn};

/// The calls of a conversation that are without a result. It is looked through only once somebody
/// asks, and no part of it twice, however many results do not say.
#[derive(Default)]
pub(super) struct OpenCalls {
    /// How far is looked: a turn, and a part of it.
    turn: usize,
    part: usize,
    answered: HashSet<String>,
    /// The ids of the calls, in their order; those at the end that are answered are left out.
    all: Vec<String>,
    by_name: HashMap<String, Vec<String>>,
}

impl OpenCalls {
    /// The last call (of this name) in `turns`, which only ever grow at their end.
    pub(super) fn last(&mut self, turns: &[Turn], name: Option<&str>) -> Option<String> {
        self.look(turns);
        let calls = match name {
            Some(name) => self.by_name.get_mut(name)?,
            None => &mut self.all,
        };
        while calls.last().is_some_and(|id| self.answered.contains(id)) {
            calls.pop();
        }
        calls.last().cloned()
    }

    fn look(&mut self, turns: &[Turn]) {
        while let Some(turn) = turns.get(self.turn) {
            for part in turn.parts.iter().skip(self.part) {
                match part {
                    Part::ToolCall { id, name, .. } => {
                        self.all.push(id.clone());
                        let same = self.by_name.entry(name.clone()).or_default();
                        same.push(id.clone());
                    }
                    Part::ToolResult { tool_call_id, .. } => {
                        self.answered.insert(tool_call_id.clone());
                    }
                    _ => {}
                }
            }
            self.part = turn.parts.len();
            // More results may come into the last one.
            if self.turn + 1 == turns.len() {
                return;
            }
            self.turn += 1;
            self.part = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn call(id: &str, name: &str) -> Part {
        Part::ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: "{}".to_owned(),
            signature: None,
            server: None,
            approved: false,
        }
    }

    fn result(id: String) -> Part {
        Part::ToolResult {
            tool_call_id: id,
            content: Vec::new(),
            is_error: false,
        }
    }

    fn turn(role: Role, parts: Vec<Part>) -> Turn {
        Turn { role, parts }
    }

    #[test]
    fn a_result_is_of_the_last_call_without_one() {
        let calls = vec![call("1", "a"), call("2", "b"), call("3", "a")];
        let mut turns = vec![turn(Role::Assistant, calls)];
        let mut open = OpenCalls::default();
        assert_eq!(open.last(&turns, Some("c")), None);
        assert_eq!(open.last(&turns, Some("a")).as_deref(), Some("3"));
        turns.push(turn(Role::Tool, vec![result("3".to_owned())]));
        assert_eq!(open.last(&turns, None).as_deref(), Some("2"));
        turns[1].parts.push(result("2".to_owned()));
        assert_eq!(open.last(&turns, Some("b")), None);
        assert_eq!(open.last(&turns, Some("a")).as_deref(), Some("1"));
        turns.push(turn(Role::Assistant, vec![call("4", "a")]));
        assert_eq!(open.last(&turns, None).as_deref(), Some("4"));
        turns.push(turn(Role::Tool, vec![result("4".to_owned())]));
        assert_eq!(open.last(&turns, None).as_deref(), Some("1"));
        turns[3].parts.push(result("1".to_owned()));
        assert_eq!(open.last(&turns, None), None);
    }
}
