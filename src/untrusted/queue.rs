//! Whose job is next: tenants take turns, and none has all children.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Of one tenant, and of all.
const MAX_WAITING_OF_ONE: usize = 64;
const MAX_WAITING: usize = 1024;
/// What all that waits may hold. A tenant may have as much of it, and of the places, as it leaves
/// free: half when it is alone, and however many fill their part, there is room for another.
const MAX_WAITING_BYTES: usize = 256 * 1024 * 1024;

/// How long a job may take decides which it stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Somebody waits for it.
    Short,
    /// A document; one child is always left for what is short.
    Long,
}

/// What waits, and what runs.
pub struct Queue<T> {
    workers: usize,
    waiting: HashMap<Arc<str>, Own<T>>,
    turns: VecDeque<Arc<str>>,
    count: usize,
    bytes: usize,
    running: HashMap<(Arc<str>, Class), usize>,
    running_long: usize,
    running_all: usize,
}

/// What waits of one tenant.
struct Own<T> {
    jobs: VecDeque<(Class, usize, T)>,
    bytes: usize,
}

impl<T> Queue<T> {
    pub fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            count: 0,
            bytes: 0,
            running: HashMap::new(),
            running_long: 0,
            running_all: 0,
        }
    }

    /// Gives the job back when too much waits.
    pub fn push(&mut self, tenant: &Arc<str>, class: Class, bytes: usize, job: T) -> Result<(), T> {
        let own = self.waiting.get(tenant);
        let (own_count, own_bytes) = own.map_or((0, 0), |own| (own.jobs.len(), own.bytes));
        let free_count = MAX_WAITING.saturating_sub(self.count);
        let free_bytes = MAX_WAITING_BYTES.saturating_sub(self.bytes);
        let is_full = own_count >= MAX_WAITING_OF_ONE.min(free_count)
            || (self.count > 0 && own_bytes + bytes > free_bytes);
        if is_full {
            return Err(job);
        }
        if own_count == 0 {
            self.turns.push_back(tenant.clone());
        }
        let own = self.waiting.entry(tenant.clone()).or_insert_with(|| Own {
            jobs: VecDeque::new(),
            bytes: 0,
        });
        own.jobs.push_back((class, bytes, job));
        own.bytes += bytes;
        self.count += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// The next job that a child may begin, which counts as running from now on.
    pub fn next(&mut self) -> Option<(Arc<str>, Class, T)> {
        if self.running_all >= self.workers {
            return None;
        }
        let shared = (self.workers - 1).max(1);
        for _ in 0..self.turns.len() {
            let tenant = self.turns.pop_front()?;
            let running = &self.running;
            let of = |class| running.get(&(tenant.clone(), class)).copied().unwrap_or(0);
            let may = |class| match class {
                Class::Short => of(class) < shared,
                Class::Long => self.running_long < shared,
            };
            let own = self.waiting.get_mut(&tenant)?;
            let found = own.jobs.iter().position(|(class, ..)| may(*class));
            let taken = found.and_then(|at| own.jobs.remove(at));
            own.bytes -= taken.as_ref().map_or(0, |(_, bytes, _)| *bytes);
            match own.jobs.is_empty() {
                true => drop(self.waiting.remove(&tenant)),
                false => self.turns.push_back(tenant.clone()),
            }
            if let Some((class, bytes, job)) = taken {
                self.count -= 1;
                self.bytes -= bytes;
                self.running_all += 1;
                self.running_long += usize::from(class == Class::Long);
                *self.running.entry((tenant.clone(), class)).or_default() += 1;
                return Some((tenant, class, job));
            }
        }
        None
    }

    /// A job has ended.
    pub fn ended(&mut self, tenant: &Arc<str>, class: Class) {
        self.running_all -= 1;
        self.running_long -= usize::from(class == Class::Long);
        let key = (tenant.clone(), class);
        if let Some(running) = self.running.get_mut(&key) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&key);
            }
        }
    }

    /// Lets go of all that waits.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.turns.clear();
        self.count = 0;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants() -> [Arc<str>; 3] {
        ["a".into(), "b".into(), "c".into()]
    }

    #[test]
    fn tenants_take_turns() {
        let [a, b, c] = tenants();
        let mut queue = Queue::new(1);
        for number in 0..3 {
            queue.push(&a, Class::Short, 1, number).expect("room");
        }
        queue.push(&b, Class::Short, 1, 10).expect("room");
        queue.push(&c, Class::Long, 1, 20).expect("room");
        let mut order = Vec::new();
        while let Some((tenant, class, job)) = queue.next() {
            order.push(job);
            assert!(queue.next().is_none(), "one child does one job");
            queue.ended(&tenant, class);
        }
        assert_eq!(order, [0, 10, 20, 1, 2]);
    }

    #[test]
    fn none_has_all_children() {
        let [a, b, _] = tenants();
        let mut queue = Queue::new(2);
        for number in 0..3 {
            queue.push(&a, Class::Long, 1, number).expect("room");
            queue.push(&a, Class::Short, 1, 10 + number).expect("room");
        }
        queue.push(&b, Class::Long, 1, 20).expect("room");
        let (tenant, class, first) = queue.next().expect("a job");
        assert_eq!((class, first), (Class::Long, 0));
        // Another document would leave no child for what is short.
        let (_, second_class, second) = queue.next().expect("a job");
        assert_eq!((second_class, second), (Class::Short, 10));
        assert!(queue.next().is_none());
        queue.ended(&tenant, class);
        assert_eq!(queue.next().expect("a job").2, 20);
    }

    #[test]
    fn what_waits_is_bounded() {
        let [a, b, _] = tenants();
        let mut queue = Queue::new(1);
        for number in 0..MAX_WAITING_OF_ONE {
            queue.push(&a, Class::Short, 1, number).expect("room");
        }
        assert!(queue.push(&a, Class::Short, 1, 0).is_err());
        queue.push(&b, Class::Short, 1, 0).expect("room");
        assert!(queue.push(&b, Class::Short, MAX_WAITING_BYTES, 0).is_err());
        queue.clear();
        assert!(queue.next().is_none());
    }

    #[test]
    fn none_fills_what_may_wait() {
        const MIB: usize = 1024 * 1024;
        let [a, b, c] = tenants();
        let mut queue = Queue::new(1);
        let mut fill = |tenant: &Arc<str>| {
            let mut count = 0;
            while queue.push(tenant, Class::Long, 16 * MIB, 0).is_ok() {
                count += 1;
            }
            count
        };
        assert_eq!([&a, &b, &c].map(&mut fill), [8, 4, 2]);
        let mut queue = Queue::new(1);
        for number in 0..MAX_WAITING {
            let tenant = format!("t{}", number / MAX_WAITING_OF_ONE).into();
            let _ = queue.push(&tenant, Class::Short, 1, 0);
        }
        queue.push(&a, Class::Short, 1, 0).expect("room");
        // What one alone may not have, it has when nothing else waits.
        let mut queue = Queue::new(1);
        queue
            .push(&a, Class::Long, MAX_WAITING_BYTES, 7)
            .expect("room");
        assert_eq!(queue.next().map(|(.., job)| job), Some(7));
        queue.push(&a, Class::Long, 100 * MIB, 8).expect("room");
    }
}
