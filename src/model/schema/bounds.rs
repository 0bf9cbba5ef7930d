//! How much of a schema is looked at.

use serde_json::{Map, Value};

use super::Unfit;

/// Of a schema, and of all that is copied while it is translated.
pub const MAX_NODES: usize = 20_000;
/// Levels of a schema, and of references within references.
pub const MAX_DEPTH: usize = 64;

/// What may still be looked at.
#[derive(Debug)]
pub struct Budget {
    nodes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: MAX_NODES }
    }
}

impl Budget {
    /// Takes one step at `depth`.
    pub fn step(&mut self, depth: usize) -> Result<(), Unfit> {
        if depth > MAX_DEPTH {
            return Err(Unfit::TooLarge);
        }
        self.take()
    }

    fn take(&mut self) -> Result<(), Unfit> {
        self.nodes = self.nodes.checked_sub(1).ok_or(Unfit::TooLarge)?;
        Ok(())
    }

    /// Takes as many steps as `value` has nodes.
    pub fn spend_on(&mut self, value: &Value) -> Result<(), Unfit> {
        // Twice the levels: each keyword with schemas below it is a level of JSON of its own.
        let mut waiting = vec![(value, 0)];
        while let Some((value, depth)) = waiting.pop() {
            self.take()?;
            if depth > 2 * MAX_DEPTH {
                return Err(Unfit::TooLarge);
            }
            match value {
                Value::Array(items) => waiting.extend(items.iter().map(|item| (item, depth + 1))),
                Value::Object(members) => {
                    waiting.extend(members.values().map(|item| (item, depth + 1)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// As [`Self::spend_on`], for the members of an object.
    pub fn spend_on_map(&mut self, map: &Map<String, Value>) -> Result<(), Unfit> {
        map.values().try_for_each(|value| self.spend_on(value))
    }
}
