//! `memory_consolidation`: behind a turn, a model folds what was said into the smith's working memory.
//! It is on the smith's account, and never in anybody's way.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::accounting::Spender;
use super::engine::{Job, Runs};
use super::transcript::Collector;
use crate::error::ApiError;
use crate::model::{Completed, ModelRequest, Part, Role, Turn, joined_text};
use crate::store::now_micros;

/// Smiths whose memories are worked on at a time, on each node.
const AT_ONCE: usize = 4;
/// Smiths that may wait for it; of more, what was said is not noted.
const MAX_WAITING: usize = 1000;
/// What waits for one smith, and a single message, in characters.
const MAX_SAID: usize = 64 * 1024;
const MAX_MESSAGE: usize = 8 * 1024;
/// As large as the API takes a memory, in bytes.
const MAX_MEMORY: usize = 64 * 1024;

const TASK: &str = "You keep the notes of an assistant about the person that it talks with. You are \
    given the notes so far and what was said since. Answer with the whole new notes and nothing else: \
    keep what still holds, add what is worth remembering in later conversations (who the person is, \
    what they want and like, what was decided, what is open), correct what has changed, and leave out \
    what was only of the moment. If nothing is worth noting, answer with the notes as they are.";

/// Tenant and smith.
type Smith = (Arc<str>, Arc<str>);

/// What was said and is not noted yet, by tenant and smith.
pub(super) struct Consolidation {
    waiting: Mutex<HashMap<Smith, Vec<String>>>,
    room: Semaphore,
}

impl Default for Consolidation {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            room: Semaphore::new(AT_ONCE),
        }
    }
}

/// The words of some turns, with who said them.
pub(super) fn said_in(turns: &[Turn]) -> String {
    let mut said = String::new();
    for turn in turns {
        let who = match turn.role {
            Role::User => "Person",
            Role::Assistant => "Assistant",
            _ => continue,
        };
        let text = joined_text(&turn.parts);
        if !text.trim().is_empty() {
            said.push_str(who);
            said.push_str(": ");
            said.extend(text.chars().take(MAX_MESSAGE));
            said.push('\n');
        }
    }
    said
}

impl Runs {
    /// Notes what a turn said, soon.
    pub(super) fn consolidate(self: &Arc<Self>, job: &Job, said: String) {
        let key = (job.live.tenant_id.clone(), job.live.smith_id.clone());
        {
            let mut waiting = self.consolidation.waiting.lock();
            if let Some(before) = waiting.get_mut(&key) {
                // Who works on it takes this up as well.
                before.push(said);
                while before.iter().map(String::len).sum::<usize>() > MAX_SAID && before.len() > 1 {
                    before.remove(0);
                }
                return;
            }
            if waiting.len() >= MAX_WAITING {
                tracing::warn!(smith_id = %key.1, "too many memories wait to be consolidated");
                return;
            }
            waiting.insert(key.clone(), vec![said]);
        }
        let (runs, spender, model) = (self.clone(), job.effective.spender(), job.model.clone());
        tokio::spawn(async move {
            loop {
                let _room = runs.consolidation.room.acquire().await;
                let said = {
                    let mut waiting = runs.consolidation.waiting.lock();
                    match waiting.get_mut(&key) {
                        Some(said) if !said.is_empty() => std::mem::take(said).concat(),
                        _ => {
                            waiting.remove(&key);
                            return;
                        }
                    }
                };
                if let Err(error) = runs.note(&spender, &model, &said).await {
                    tracing::warn!(%error, smith_id = %key.1, "a memory was not consolidated");
                }
            }
        });
    }

    async fn note(&self, spender: &Spender, model: &str, said: &str) -> Result<(), ApiError> {
        let (tenant, smith) = (&spender.tenant_id, &spender.smith_id);
        // The smith itself may change its memory meanwhile: then its word is folded in too.
        for _ in 0..2 {
            self.budgets.check(spender).await?;
            let before = self.store.smith_memory(tenant, smith).await?;
            let text = format!("<notes>\n{before}\n</notes>\n<said>\n{said}</said>");
            let request = ModelRequest {
                system: Some(TASK.to_owned()),
                turns: vec![Turn {
                    role: Role::User,
                    parts: vec![Part::Text { text }],
                }],
                ..ModelRequest::default()
            };
            let routing = &self.models.routing;
            let routes = routing.resolve(tenant, Some(smith), model).await?;
            let Completed { route, frames, .. } = self
                .models
                .complete(tenant, smith, routes, &request)
                .await?;
            let mut collector = Collector::default();
            frames.iter().for_each(|frame| collector.add(frame));
            let answer = collector.finish();
            self.accounting
                .add(spender, &route.provider, &route.model, &answer.usage);
            let text = answer.text();
            let notes = text.trim();
            if notes.is_empty() || notes.len() > MAX_MEMORY || notes == before.trim() {
                return Ok(());
            }
            if self.store.smith_memory(tenant, smith).await? == before {
                let put = self
                    .store
                    .put_smith_memory(tenant, smith, notes, now_micros());
                put.await?;
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_told_with_who_said_it() {
        let turn = |role, text: &str| Turn {
            role,
            parts: vec![Part::Text {
                text: text.to_owned(),
            }],
        };
        let turns = [
            turn(Role::User, "I am Ann"),
            turn(Role::Tool, "12 cm"),
            turn(Role::Assistant, " "),
            turn(Role::Assistant, &"x".repeat(2 * MAX_MESSAGE)),
        ];
        let said = said_in(&turns);
        assert!(
            said.starts_with("Person: I am Ann\nAssistant: xxx"),
            "{said}"
        );
        assert_eq!(
            said.len(),
            "Person: I am Ann\nAssistant: \n".len() + MAX_MESSAGE
        );
    }
}
