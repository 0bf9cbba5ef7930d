//! What was said and is not noted yet, and who works on it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Smiths whose memories are worked on at a time, on each node.
const AT_ONCE: usize = 4;
/// Smiths that may wait for it; of more, what was said is not noted.
const MAX_WAITING: usize = 1000;
/// What waits for one smith, in characters.
const MAX_SAID: usize = 64 * 1024;

/// Tenant and smith.
pub(in crate::run) type Smith = (Arc<str>, Arc<str>);

/// What was said and is not noted yet, by tenant and smith.
pub(in crate::run) struct Consolidation {
    waiting: Arc<Mutex<HashMap<Smith, Vec<String>>>>,
    pub room: Semaphore,
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
    pub fn keep(&self, smith: Smith, said: String) -> Option<Work> {
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
pub(in crate::run) struct Work {
    waiting: Arc<Mutex<HashMap<Smith, Vec<String>>>>,
    pub smith: Smith,
    is_over: bool,
}

impl Work {
    /// All that waits; `None` when that is nothing, and then this work is done.
    pub fn next(&mut self) -> Option<String> {
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
    pub fn put_back(&self, said: String) {
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
}
