//! `memory_consolidation`: behind a turn, a model folds what was said into the smith's working memory.
//! It is on the smith's account, and never in anybody's way.

pub(super) mod waiting;

use std::sync::Arc;
use std::time::Duration;

use super::job::Job;
use super::runs::Runs;
use super::spender::Spender;
use super::transcript::Collector;
use crate::error::ApiError;
use crate::model::{Completed, ModelRequest, Part, Role, Turn, joined_text};
use crate::store::now_micros;

/// How often the notes are made anew because they were changed meanwhile.
const AT_MOST: usize = 3;
/// Before another attempt; after the last, what was said is not noted.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
];
/// A single message, in characters.
const MAX_MESSAGE: usize = 8 * 1024;
/// As large as the API takes a memory, in bytes.
const MAX_MEMORY: usize = 64 * 1024;

const TASK: &str = "You keep the notes of an assistant about the person that it talks with. You are \
    given the notes so far and what was said since. Answer with the whole new notes and nothing else: \
    keep what still holds, add what is worth remembering in later conversations (who the person is, \
    what they want and like, what was decided, what is open), correct what has changed, and leave out \
    what was only of the moment. If nothing is worth noting, answer with the notes as they are.";

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

/// Whether another attempt may go better.
fn may_pass(error: &ApiError) -> bool {
    error.status.is_server_error() || matches!(error.status.as_u16(), 409 | 429)
}

impl Runs {
    /// Notes what a turn said, soon.
    pub(super) fn consolidate(self: &Arc<Self>, job: &Job, said: String) {
        let smith = (job.live.tenant_id.clone(), job.live.smith_id.clone());
        let Some(mut work) = self.consolidation.keep(smith, said) else {
            return;
        };
        let (runs, spender, model) = (self.clone(), job.effective.spender(), job.model.clone());
        tokio::spawn(async move {
            let mut pauses = PAUSES.iter();
            loop {
                let error = {
                    let _room = runs.consolidation.room.acquire().await;
                    let Some(said) = work.next() else {
                        return;
                    };
                    match runs.note(&spender, &model, &said).await {
                        Ok(()) => {
                            pauses = PAUSES.iter();
                            continue;
                        }
                        Err(error) => {
                            work.put_back(said);
                            error
                        }
                    }
                };
                tracing::warn!(%error, smith_id = %work.smith.1, "a memory was not consolidated");
                match pauses.next().filter(|_| may_pass(&error)) {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return,
                }
            }
        });
    }

    async fn note(&self, spender: &Spender, model: &str, said: &str) -> Result<(), ApiError> {
        let (tenant, smith) = (&spender.tenant_id, &spender.smith_id);
        // The smith itself, a person or another node may change it meanwhile: then their word is
        // folded in too.
        for _ in 0..AT_MOST {
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
                .complete(tenant, smith, routes, &request, &[])
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
            let put = self
                .store
                .swap_smith_memory(tenant, smith, &before, notes, now_micros());
            if put.await? || self.store.smith(tenant, smith).await?.is_none() {
                return Ok(());
            }
        }
        let message = "the memory was changed each time meanwhile";
        Err(ApiError::conflict("memory_changed", message))
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
