//! Items that a request of the Responses wire refers to by their ids: what was said before is read
//! once, however many items of it are named, and each item is taken once.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use crate::error::ApiError;
use crate::model::{Part, Role, Turn};
use crate::wire::responses::items::{Item, Numbering};
use crate::wire::responses::turns::turn_of;

/// What the runs and conversations may be together whose items a request refers to, in bytes.
pub const REFERRED_BYTES: usize = 64 * 1024 * 1024;

/// What was said in a run or a conversation, to find items in.
pub struct Said {
    pub thread_id: String,
    turns: Vec<Turn>,
    items: Vec<Item>,
    /// In `items`, by their ids.
    places: HashMap<String, usize>,
    referred: HashSet<usize>,
    /// The parts that are calls, by their ids: the turn and the part therein.
    calls: HashMap<String, (usize, usize)>,
    /// The calls that ran here and their results, by the place of their item.
    ran_here: HashMap<usize, (Part, Part)>,
}

impl Said {
    /// Of the run or conversation whose id has this body; `left`: how much more may be referred to.
    pub fn read(
        body: &str,
        thread_id: String,
        transcript: &str,
        left: &mut usize,
    ) -> Result<Self, ApiError> {
        *left = left.checked_sub(transcript.len()).ok_or_else(|| {
            let message = format!(
                "the items that are referred to are of more than {REFERRED_BYTES} bytes together"
            );
            ApiError::invalid("input", message)
        })?;
        let turns: Vec<Turn> = serde_json::from_str(transcript).map_err(ApiError::internal)?;
        let items = Numbering::new(body).items(&turns);
        let places = (0..).zip(&items);
        let places = places.map(|(at, item)| (item.id.clone(), at)).collect();
        let mut calls = HashMap::new();
        for (at, turn) in turns.iter().enumerate() {
            for (place, part) in turn.parts.iter().enumerate() {
                if let Part::ToolCall { id, .. } = part {
                    calls.entry(id.clone()).or_insert((at, place));
                }
            }
        }
        let mut said = Self {
            thread_id,
            turns,
            items,
            places,
            referred: HashSet::new(),
            calls,
            ran_here: HashMap::new(),
        };
        said.ran_here = said.pairs();
        Ok(said)
    }

    fn call(&self, id: &str) -> Option<&Part> {
        let (turn, part) = self.calls.get(id)?;
        self.turns.get(*turn)?.parts.get(*part)
    }

    /// Calls that ran here, which are found in the order of their results.
    fn pairs(&self) -> HashMap<usize, (Part, Part)> {
        let ran_here = |item: &Item| matches!(item.kind, "mcp_call" | "file_search_call");
        let places = (0..).zip(&self.items);
        let places = places.filter(|(_, item)| ran_here(item)).map(|(at, _)| at);
        let results = self.turns.iter().flat_map(|turn| &turn.parts);
        let pairs = results.filter_map(|part| match part {
            Part::ToolResult { tool_call_id, .. } => match self.call(tool_call_id)? {
                call @ Part::ToolCall {
                    server: Some(_), ..
                } => Some((call.clone(), part.clone())),
                _ => None,
            },
            _ => None,
        });
        places.zip(pairs).collect()
    }

    /// The item `id`: a turn, or a call that ran here and its result; nothing if it was referred to
    /// before. `None` when there is no such item.
    pub fn turns_of(&mut self, id: &str) -> Option<Vec<Turn>> {
        let at = *self.places.get(id)?;
        if !self.referred.insert(at) {
            return Some(Vec::new());
        }
        let item = &self.items[at];
        if matches!(item.kind, "mcp_call" | "file_search_call") {
            let (call, result) = self.ran_here.remove(&at)?;
            let turn = |role, part: Part| Turn {
                role,
                parts: vec![part],
            };
            return Some(vec![turn(Role::Assistant, call), turn(Role::Tool, result)]);
        }
        let mut members = item.members.clone();
        members.insert("type".into(), json!(item.kind));
        let mut turn = turn_of(&members).ok()??;
        // An item does not show a call's signature.
        if let Some(Part::ToolCall { id, .. }) = turn.parts.first()
            && let Some(call) = self.call(id)
        {
            turn.parts = vec![call.clone()];
        }
        Some(vec![turn])
    }
}
