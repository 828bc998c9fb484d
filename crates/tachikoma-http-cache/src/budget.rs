//! Bounds the bytes that all responses under way hold together before they are stored.
//!
//! Never waits for room: what finds none is streamed through and not stored.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The bytes that may be held, and those that are. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
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
        Room { budget: self.clone(), held: 0 }
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Budget,
    held: usize,
}

impl Room {
    /// Makes it at least this large; false, and nothing changes, where the budget is used up.
    pub(crate) fn reach(&mut self, bytes: usize) -> bool {
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
