//! `memory_consolidation`: behind a turn, a model folds what was said into the smith's working memory.
//! It is on the smith's account, and never in anybody's way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

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
/// How often the notes are made anew because they were changed meanwhile.
const AT_MOST: usize = 3;
/// Before another attempt; after the last, what was said is not noted.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
];
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
    waiting: Arc<Mutex<HashMap<Smith, Vec<String>>>>,
    room: Semaphore,
}

impl Default for Consolidation {
    fn default() -> Self {
        Self {
            waiting: Arc::default(),
            room: Semaphore::new(AT_ONCE),
        }
    }
}

impl Consolidation {
    /// Keeps what was said of a smith; who gets an answer works on it until nothing is left.
    fn keep(&self, smith: Smith, said: String) -> Option<Work> {
        let mut waiting = self.waiting.lock();
        if let Some(before) = waiting.get_mut(&smith) {
            // Who works on it takes this up as well.
            before.push(said);
            bound(before);
            return None;
        }
        if waiting.len() >= MAX_WAITING {
            tracing::warn!(smith_id = %smith.1, "too many memories wait to be consolidated");
            return None;
        }
        waiting.insert(smith.clone(), vec![said]);
        Some(Work {
            waiting: self.waiting.clone(),
            smith,
            is_over: false,
        })
    }
}

/// Leaves out the oldest of what is more than may wait.
fn bound(said: &mut Vec<String>) {
    let mut bytes: usize = said.iter().map(String::len).sum();
    let mut old = 0;
    while bytes > MAX_SAID && old + 1 < said.len() {
        bytes -= said[old].len();
        old += 1;
    }
    said.drain(..old);
}

/// The work on one smith's memory. However it ends, also by a panic, the next turn begins it anew.
struct Work {
    waiting: Arc<Mutex<HashMap<Smith, Vec<String>>>>,
    smith: Smith,
    is_over: bool,
}

impl Work {
    /// All that waits; `None` when that is nothing, and then this work is done.
    fn next(&mut self) -> Option<String> {
        let mut waiting = self.waiting.lock();
        match waiting.get_mut(&self.smith) {
            Some(said) if !said.is_empty() => Some(std::mem::take(said).concat()),
            _ => {
                waiting.remove(&self.smith);
                self.is_over = true;
                None
            }
        }
    }

    /// Puts back what could not be noted, before what was said since.
    fn put_back(&self, said: String) {
        if let Some(waiting) = self.waiting.lock().get_mut(&self.smith) {
            waiting.insert(0, said);
            bound(waiting);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Once it is over, the entry may be the next one's.
        if !self.is_over {
            self.waiting.lock().remove(&self.smith);
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
    fn work_that_breaks_off_is_begun_anew() {
        let consolidation = Consolidation::default();
        let smith: Smith = ("proj_1".into(), "smt_1".into());
        let keep = |said: &str| consolidation.keep(smith.clone(), said.to_owned());
        let mut work = keep("a").expect("work");
        assert!(keep("b").is_none(), "it is worked on");
        assert_eq!(work.next().as_deref(), Some("ab"));
        assert!(keep("c").is_none());
        work.put_back("ab".to_owned());
        assert_eq!(work.next().as_deref(), Some("abc"));
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _work = work;
            panic!("a turn that cannot be noted");
        }));
        assert!(broken.is_err());
        let mut work = keep("d").expect("work");
        assert_eq!(work.next().as_deref(), Some("d"));
        assert_eq!(work.next(), None);
        let next = keep("e").expect("work");
        drop(work);
        assert!(keep("f").is_none(), "the next one works on it");
        drop(next);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut said: Vec<String> = (0..20).map(|_| "x".repeat(MAX_SAID / 10)).collect();
        bound(&mut said);
        assert_eq!(said.len(), 10);
        let mut one = vec!["x".repeat(2 * MAX_SAID)];
        bound(&mut one);
        assert_eq!(one.len(), 1);
    }

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
