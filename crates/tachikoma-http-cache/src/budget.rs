//! Bounds the bytes that all responses under way hold together before they are stored.
//!
//! Never waits for room: what finds none is streamed through and not stored. But first those who
//! hold room are asked to give way, so that a few that hold it for long do not keep out all others.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// One who holds room while others find none.
pub(crate) trait Holder: fmt::Debug + Send + Sync {
    /// Gives its room back, if it does not use it well enough. Never waits.
    fn give_way(&self);
}

/// The bytes that may be held, and those that are. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
    holders: Arc<Mutex<Holders>>,
}

#[derive(Debug, Default)]
struct Holders {
    next: u64,
    known: HashMap<u64, Weak<dyn Holder>>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit, holders: Arc::default() }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many bytes are held now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Room for nothing yet.
    pub(crate) fn open(&self) -> Room {
        Room { budget: self.clone(), held: 0, holder: None }
    }

    /// Those who may give way, the oldest ones first.
    fn holders(&self) -> Vec<Arc<dyn Holder>> {
        let holders = self.lock();
        let mut known: Vec<_> = holders.known.iter().collect();
        known.sort_unstable_by_key(|(number, _)| **number);
        known.into_iter().filter_map(|(_, holder)| holder.upgrade()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        // Nothing in here is left half done by a panic.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Budget,
    held: usize,
    /// The number of who is asked to give it back.
    holder: Option<u64>,
}

impl Room {
    /// Names who is asked to give it back when others find none.
    pub(crate) fn held_by(&mut self, holder: Weak<dyn Holder>) {
        let mut holders = self.budget.lock();
        let number = holders.next;
        holders.next += 1;
        holders.known.insert(number, holder);
        self.holder = Some(number);
    }

    /// Makes it at least this large, though others have to give way for it; false, and nothing
    /// changes, where the budget is used up.
    pub(crate) fn reach(&mut self, bytes: usize) -> bool {
        if self.take(bytes) || bytes > self.budget.limit {
            return bytes <= self.budget.limit;
        }
        self.budget.holders().into_iter().any(|holder| {
            holder.give_way();
            self.take(bytes)
        })
    }

    fn take(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.held);
        if more == 0 {
            return true;
        }
        let limit = self.budget.limit;
        let taken = self.budget.used.fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(more).filter(|used| *used <= limit)
        });
        if taken.is_ok() {
            self.held = bytes;
        }
        taken.is_ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Relaxed);
        if let Some(number) = self.holder {
            let holder = self.budget.lock().known.remove(&number);
            drop(holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_the_limit_and_all_is_given_back() {
        let budget = Budget::new(10);
        let (mut a, mut b) = (budget.open(), budget.open());
        assert!(a.reach(6) && b.reach(4) && a.reach(3));
        assert!(!b.reach(5));
        assert_eq!(budget.used(), 10);
        drop(a);
        assert!(b.reach(10) && !b.reach(11));
        drop(b);
        assert_eq!(budget.used(), 0);
    }
}
