//! Write guards in memory: see [`Store::guard`](crate::store::Store::guard).
//!
//! The order of locks is that of every write: the shard of the key, then its leases. So whether a
//! guard was alone is asked in the very step that stores its value.

use std::time::Duration;

use super::engine::Insertion;
use super::{MemoryStore, weight};
use crate::clock::Time;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::expiry::gone_at;
use crate::invalidation::Validity;
use crate::key::Key;
use crate::store::{Guard, Written};

impl MemoryStore {
    pub(super) fn begin_guard(
        &self,
        keys: &[Key<'_>],
        life: Duration,
        now: Time,
    ) -> Result<Guard, Error> {
        let first = keys.first().ok_or_else(|| Error::from(ErrorKind::InvalidKey))?;
        let groups = self.groups.snapshot(first.namespace());
        let (token, until) = (rand::random(), now.saturating_add(life));
        for key in keys {
            self.leases.lock(key).guard(key, token, until, now);
            self.remove_entry(key, now);
        }
        Ok(Guard { token, groups })
    }

    /// Ends the guard of one key: stores this entry if it was alone, else removes the key.
    pub(super) fn end_guard_of(
        &self,
        key: &Key<'_>,
        guard: &Guard,
        entry: Option<&Entry>,
        now: Time,
    ) -> Written {
        if let Some(entry) = entry
            && let Ok(weight) = weight(entry)
            && weight <= self.max_value_bytes
        {
            let (expiry, marks) = (gone_at(entry.meta(), now), &entry.meta().marks);
            let may = |_: Option<&Entry>| {
                let mut leases = self.leases.lock(key);
                let alone = leases.end_guard(key, guard.token, now);
                alone && self.groups.check(key.namespace(), marks) != Validity::Invalid
            };
            let inserted = self.engine.insert(key, entry.clone(), weight, expiry, now, may);
            if matches!(inserted, Insertion::Stored) {
                self.outdate(key);
                self.changed();
                return Written::Stored;
            }
        }
        // Its value is not stored, so loads may store theirs from here on.
        self.leases.lock(key).end_guard(key, guard.token, now);
        self.remove_one(key, now);
        Written::Refused
    }
}
