//! Keys for which something is not to be done again yet.
//!
//! Pure: a bounded table that gets the time as an argument. A key that is forgotten because the
//! table is full is open. Keys are told apart by their hash only: a collision, which is very rare,
//! closes one key more for a moment.

use std::collections::{HashMap, VecDeque};

use crate::clock::Time;

/// Keys that are closed, each until a time of its own.
#[derive(Debug)]
pub(crate) struct Closed {
    until: HashMap<u64, Time>,
    /// In the order in which they came, maybe with some that have left.
    order: VecDeque<u64>,
    most: usize,
}

impl Closed {
    pub(crate) fn new(most: usize) -> Self {
        Self { until: HashMap::new(), order: VecDeque::new(), most }
    }

    /// Closes a key until then; the one that came first may be forgotten for it.
    pub(crate) fn close(&mut self, key: u64, until: Time) {
        if self.until.insert(key, until).is_some() {
            return;
        }
        self.order.push_back(key);
        while self.order.len() > self.most {
            if let Some(first) = self.order.pop_front() {
                self.until.remove(&first);
            }
        }
    }

    /// Opens a key.
    pub(crate) fn open(&mut self, key: u64) {
        self.until.remove(&key);
    }

    /// Whether a key is closed.
    pub(crate) fn is_closed(&self, key: u64, now: Time) -> bool {
        self.until.get(&key).is_some_and(|until| now < *until)
    }

    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn a_key_is_closed_until_its_time_or_until_it_is_opened() {
        let mut closed = Closed::new(10);
        closed.close(1, at(100));
        assert!(closed.is_closed(1, at(99)) && !closed.is_closed(2, at(99)));
        assert!(!closed.is_closed(1, at(100)));
        closed.close(1, at(200));
        assert!(closed.is_closed(1, at(199)));
        closed.open(1);
        assert!(!closed.is_closed(1, at(0)));
    }

    #[test]
    fn the_first_is_forgotten_when_there_are_too_many() {
        let mut closed = Closed::new(3);
        (1..=4).for_each(|key| closed.close(key, at(100)));
        assert!(!closed.is_closed(1, at(0)));
        assert!((2..=4).all(|key| closed.is_closed(key, at(0))));
    }

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_bound(
            steps in prop::collection::vec((0_u64..20, any::<bool>()), 0..200),
        ) {
            let mut closed = Closed::new(5);
            for (key, close) in steps {
                if close { closed.close(key, at(1)) } else { closed.open(key) }
                prop_assert!(closed.until.len() <= 5 && closed.order.len() <= 5);
                prop_assert!(closed.until.keys().all(|key| closed.order.contains(key)));
            }
        }
    }
}
