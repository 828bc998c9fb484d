//! The lookups of one cache that are under way: who waits for which question.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

use super::wave::Wave;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Namespace};
use crate::runtime::{Mutex, lock};
use crate::store::Guarantee;

const SHARDS: usize = 16;

/// What a store answered.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) found: Result<Option<(Entry, Guarantee)>, ErrorKind>,
    /// How long the store took.
    pub(crate) took: Duration,
}

/// The lookups of one cache that are under way.
pub(crate) struct Lookups([Mutex<HashTable<Slot>>; SHARDS]);

/// A key about which a question is under way.
struct Slot {
    hash: u64,
    namespace: Namespace,
    name: Box<str>,
    /// Those who came since it was asked.
    next: Option<Arc<Wave<Answer>>>,
}

impl Slot {
    fn is_of(&self, key: &Key<'_>) -> bool {
        self.hash == key.hash() && self.namespace == *key.namespace() && *self.name == *key.name()
    }
}

impl Lookups {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(HashTable::new())))
    }

    fn shard(&self, key: &Key<'_>) -> &Mutex<HashTable<Slot>> {
        &self.0[(key.hash() >> 56) as usize % SHARDS]
    }

    #[cfg(any(test, feature = "__shuttle"))]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Those who will get the answer to the next question; `true` if the caller must have it asked.
    pub(super) fn join(&self, key: &Key<'_>) -> (Arc<Wave<Answer>>, bool) {
        let mut slots = lock(self.shard(key));
        if let Some(slot) = slots.find_mut(key.hash(), |slot| slot.is_of(key)) {
            return (Arc::clone(slot.next.get_or_insert_with(Wave::new)), false);
        }
        let wave = Wave::new();
        let slot = Slot {
            hash: key.hash(),
            namespace: key.namespace().clone(),
            name: key.name().into(),
            next: Some(Arc::clone(&wave)),
        };
        slots.insert_unique(key.hash(), slot, |slot| slot.hash);
        (wave, true)
    }

    /// Those for whom a question is to be asked now; the slot is gone if there are none.
    pub(super) fn take(&self, key: &Key<'_>) -> Option<Arc<Wave<Answer>>> {
        let mut slots = lock(self.shard(key));
        let mut slot = slots.find_entry(key.hash(), |slot| slot.is_of(key)).ok()?;
        let next = slot.get_mut().next.take();
        if next.is_none() {
            slot.remove();
        }
        next
    }
}

impl Answer {
    /// The error, if there was one.
    pub(crate) fn error(&self) -> Option<Error> {
        self.found.as_ref().err().map(|kind| Error::from(*kind))
    }
}
