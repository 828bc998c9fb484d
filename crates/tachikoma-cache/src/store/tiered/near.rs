//! The copies of entries in this process, and what keeps them in step.
//!
//! Decides which answers of the server are kept: only what was asked for after its mark was set,
//! and only while no change of the key has been heard of since. It never asks the server.

use std::sync::Arc;

use super::floor::Floor;
use super::waiters::Waiters;
use crate::clock::Time;
use crate::entry::{Entry, Meta};
use crate::invalidation::{Mark, Snapshot, Validity};
use crate::key::{Key, Namespace};
use crate::store::guarantee::age;
use crate::store::memory::MemoryStore;
use crate::store::redis::groups::Tables;
use crate::store::redis::tracking::Follower;
use crate::store::{Guarantee, Peek, StaleReason, Store as _};

/// See the module.
#[derive(Debug)]
pub(super) struct Near {
    pub(super) memory: Arc<MemoryStore>,
    pub(super) floor: Floor,
    pub(super) groups: Arc<Tables>,
    pub(super) waiters: Waiters,
}

impl Near {
    /// Shows a fresh copy, unless an invalidation of its groups is still owed to the server; the
    /// server must be asked for anything else.
    pub(super) fn peek(
        &self,
        key: &Key<'_>,
        now: Time,
        is_owed: impl Fn(&Entry) -> bool,
        see: &mut dyn FnMut(&Entry, Guarantee),
    ) -> Peek {
        self.show(key, is_owed, see, |see| self.memory.peek(key, now, see))
    }

    /// The same for somebody who only looks.
    pub(super) fn look(
        &self,
        key: &Key<'_>,
        now: Time,
        is_owed: impl Fn(&Entry) -> bool,
        see: &mut dyn FnMut(&Entry, Guarantee),
    ) -> Peek {
        self.show(key, is_owed, see, |see| self.memory.look(key, now, see))
    }

    fn show(
        &self,
        key: &Key<'_>,
        is_owed: impl Fn(&Entry) -> bool,
        see: &mut dyn FnMut(&Entry, Guarantee),
        ask: impl FnOnce(&mut dyn FnMut(&Entry, Guarantee)) -> Peek,
    ) -> Peek {
        let mut peek = Peek::Ask;
        let within = Guarantee::Within(self.floor.freshness());
        ask(&mut |entry, guarantee| {
            if guarantee.is_fresh() && self.is_told(key, entry) && !is_owed(entry) {
                peek = Peek::Seen;
                see(entry, within);
            }
        });
        peek
    }

    /// Shows a copy of which nobody knows whether it is still what the server has; whether there is
    /// one.
    pub(super) fn peek_stale(
        &self,
        key: &Key<'_>,
        now: Time,
        is_owed: impl Fn(&Entry) -> bool,
        see: &mut dyn FnMut(&Entry, Guarantee),
    ) -> bool {
        let mut shown = false;
        self.memory.peek(key, now, &mut |entry, _| {
            if is_owed(entry) || !self.is_told(key, entry) {
                return;
            }
            shown = true;
            let age = age(entry.meta(), now).max(self.floor.unheard(now));
            see(entry, Guarantee::Stale { reason: StaleReason::Disconnected, age });
        });
        shown
    }

    /// Whether everything that was heard of the groups of an entry is known.
    fn is_told(&self, key: &Key<'_>, entry: &Entry) -> bool {
        let marks = &entry.meta().marks;
        marks.is_empty() || self.groups.is_in_step(key.namespace(), marks, entry.stamp())
    }

    /// Whether the key of a copy was surely not changed since it was read, as far as is known.
    pub(super) fn is_current(&self, key: &Key<'_>, entry: &Entry) -> bool {
        let Some(at) = entry.meta().seen else { return false };
        let marks = Mark::of_key(key.name(), at);
        self.groups.judged(key.namespace(), &marks) == Some(Validity::Valid)
    }

    /// Marks keys before the server is asked for them; none while changes may be missed.
    /// `seen`: where the counters of their namespace stood, for those who record.
    pub(super) fn mark<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        seen: Option<Snapshot>,
        now: Time,
    ) -> Marked<'a> {
        let good = self.floor.is_good(now);
        let marks = keys.iter().filter(|_| good).map(|key| (key, self.memory.mark(key)));
        Marked { near: self, marks: marks.collect(), seen }
    }

    /// Drops the copies of keys that are about to be changed from here, and again when that has
    /// ended however it ends. The server tells of it too; this is so that the caller's next look
    /// shows it.
    pub(super) fn changing<'a>(&'a self, keys: &'a [Key<'a>]) -> Changing<'a> {
        // Where not everything is known, the server counts alone: a tag may have taken it before.
        let drop = |key: &Key<'_>| {
            let is_value = self.memory.has_copy(key, |entry| self.is_told(key, entry));
            self.memory.drop_copy(key) && is_value
        };
        let dropped = keys.iter().filter(|key| drop(key)).count() as u64;
        Changing { near: self, keys, dropped }
    }
}

impl Follower for Near {
    fn changed(&self, key: &Key<'_>) {
        self.memory.drop_copy(key);
        self.waiters.wake(key);
    }

    fn freed(&self, key: &Key<'_>) {
        self.waiters.wake(key);
    }

    fn groups_changed(&self, space: &Namespace) {
        self.groups.changed(space);
    }

    fn lost(&self) {
        self.floor.lapse();
        self.waiters.wake_all();
    }

    fn forget(&self) {
        self.groups.all_changed();
        self.memory.drop_copies();
        self.waiters.wake_all();
    }

    fn confirmed(&self, at: Time) {
        self.floor.confirm(at);
    }
}

/// Keys with their marks, until the answers are there or nobody waits for them any more.
pub(super) struct Marked<'a> {
    near: &'a Near,
    seen: Option<Snapshot>,
    marks: Vec<(&'a Key<'a>, u128)>,
}

impl Marked<'_> {
    /// Keeps what was found of the key at this place, if that is certain to be followed.
    pub(super) fn keep(&self, place: usize, found: &mut Option<(Entry, Guarantee)>, now: Time) {
        let Some((key, mark)) = self.marks.get(place) else { return };
        let Some((entry, Guarantee::Fresh)) = found else { return };
        if !is_followed(entry.meta()) {
            return;
        }
        if let (false, Ok(bytes)) = (entry.meta().negative, entry.bytes()) {
            // The object that the caller makes of the bytes stays beside them, and weighs too.
            *entry = Entry::restored(Meta { seen: self.seen, ..entry.meta().clone() }, bytes);
        }
        self.near.memory.keep_copy(key, entry.clone(), *mark, now);
    }
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        for (key, mark) in &self.marks {
            self.near.memory.unmark(key, *mark);
        }
    }
}

/// Whether pushes of its key and of its groups are all that can make an entry invalid before its
/// time. A time to idle begins anew with each read, of which the server must hear.
fn is_followed(meta: &Meta) -> bool {
    meta.idle.is_none()
}

/// Keys that are being changed.
pub(super) struct Changing<'a> {
    near: &'a Near,
    keys: &'a [Key<'a>],
    /// How many copies of values there were.
    pub(super) dropped: u64,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        for key in self.keys {
            self.near.memory.drop_copy(key);
        }
    }
}

#[cfg(test)]
mod tests;
