//! What a memory tier in front of another store asks of the memory: copies of entries.
//!
//! A mark is a [lease](super::leases) by another name: it is begun before the other store is asked,
//! a change of the key ends it, and only with a good one the answer is kept. Marks and copies go in
//! this order, so an answer either finds its mark ended or is removed after it was kept.

#[cfg_attr(feature = "__no_marker", path = "copies/no_marker.rs")]
#[cfg_attr(not(feature = "__no_marker"), path = "copies/marker.rs")]
mod marker;

use std::sync::Arc;

use super::{MemoryConfig, MemoryStore, weight};
use crate::clock::{Clock, Time};
use crate::entry::Entry;
use crate::error::Error;
use crate::expiry::gone_at;
use crate::invalidation::Judge;
use crate::key::Key;
use crate::store::Store as _;

impl MemoryStore {
    /// A store for copies of entries whose groups somebody else knows.
    pub(crate) fn of_copies(
        config: MemoryConfig,
        clock: Arc<dyn Clock>,
        judge: Arc<dyn Judge>,
    ) -> Result<Arc<Self>, Error> {
        Self::judged(config, clock, None, Some(judge))
    }

    /// A mark of this key; to be [given up](Self::unmark).
    pub(crate) fn mark(&self, key: &Key<'_>) -> u128 {
        self.leases.lock(key).begin(key)
    }

    /// Gives a mark up, good or ended.
    pub(crate) fn unmark(&self, key: &Key<'_>, mark: u128) {
        self.leases.lock(key).give_back(key, mark);
    }

    /// Keeps an entry if its mark is still good and there is room.
    pub(crate) fn keep_copy(&self, key: &Key<'_>, entry: Entry, mark: u128, now: Time) {
        let Ok(weight) = weight(&entry) else { return };
        let expiry = gone_at(entry.meta(), now);
        let is_good = |_: Option<&Entry>| marker::keeps(self.leases.lock(key).is_valid(key, mark));
        // Refused or too large: it is read anew the next time.
        let _ = self.engine.insert(key, entry, weight, expiry, now, is_good);
    }

    /// Whether there is a copy of a value of which this holds.
    pub(crate) fn has_copy(&self, key: &Key<'_>, holds: impl Fn(&Entry) -> bool) -> bool {
        let mut has = false;
        self.look(key, self.clock.now(), &mut |entry, _| {
            has = !entry.meta().negative && holds(entry);
        });
        has
    }

    /// Ends the marks of a key and removes its copy; whether that held a value.
    pub(crate) fn drop_copy(&self, key: &Key<'_>) -> bool {
        self.remove_one(key, self.clock.now())
    }

    /// Ends all marks and removes all copies.
    pub(crate) fn drop_copies(&self) {
        self.leases.end_all();
        self.engine.clear();
    }
}
