//! The keys of a cache whose source is not to be asked now: behind locks, and mostly without one.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::Time;
use crate::closed::Closed;
use crate::key::Key;
use crate::runtime::{Mutex, lock};

const SHARDS: usize = 16;

/// How many keys a part of the table remembers.
const MAX_KEYS: usize = 4096;

/// The keys of one cache whose source is not to be asked now.
pub(crate) struct Throttle {
    shards: Box<[Mutex<Closed>]>,
    /// How many there are, so that mostly no lock is needed to know that a key is open.
    closed: AtomicUsize,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Closed::new(MAX_KEYS))).collect(),
            closed: AtomicUsize::new(0),
        }
    }

    pub(crate) fn close(&self, key: &Key<'_>, until: Time) {
        self.change(key, |closed| closed.close(key.hash(), until));
    }

    pub(crate) fn open(&self, key: &Key<'_>) {
        if self.closed.load(Ordering::Relaxed) > 0 {
            self.change(key, |closed| closed.open(key.hash()));
        }
    }

    pub(crate) fn is_closed(&self, key: &Key<'_>, now: Time) -> bool {
        self.closed.load(Ordering::Relaxed) > 0 && lock(self.shard(key)).is_closed(key.hash(), now)
    }

    fn change(&self, key: &Key<'_>, change: impl FnOnce(&mut Closed)) {
        let mut shard = lock(self.shard(key));
        let before = shard.len();
        change(&mut shard);
        let after = shard.len();
        if after > before {
            self.closed.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.closed.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    fn shard(&self, key: &Key<'_>) -> &Mutex<Closed> {
        &self.shards[(key.hash() >> 56) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Namespace;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn the_count_of_closed_keys_follows() {
        let (throttle, space) = (Throttle::new(), Namespace::default());
        let key = |name| Key::new(&space, name).unwrap();
        for name in ["a", "b", "a"] {
            throttle.close(&key(name), at(100));
        }
        assert_eq!(throttle.closed.load(Ordering::Relaxed), 2);
        assert!(throttle.is_closed(&key("a"), at(0)) && !throttle.is_closed(&key("c"), at(0)));
        for name in ["a", "b", "c"] {
            throttle.open(&key(name));
        }
        assert_eq!(throttle.closed.load(Ordering::Relaxed), 0);
    }
}
