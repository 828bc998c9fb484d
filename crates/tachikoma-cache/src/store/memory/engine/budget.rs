//! Decides whether there is room: exactly, for all shards together.
//!
//! Two counters, of bytes and of entries. Room is taken before an entry is stored and given back
//! after one was removed, so neither counter ever stands above its bound, not even between two
//! instructions. It knows no entries and chooses no victims.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much one or several entries take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Room {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Room {
    pub(super) const fn new(bytes: u64, entries: u64) -> Self {
        Self { bytes, entries }
    }

    /// What is missing in `self` to `needed`, bound by bound.
    fn missing_to(self, needed: Self) -> Self {
        Self {
            bytes: needed.bytes.saturating_sub(self.bytes),
            entries: needed.entries.saturating_sub(self.entries),
        }
    }

    fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.entries += more.entries;
    }
}

/// Which bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    Bytes,
    Entries,
}

#[derive(Debug)]
pub(super) struct Budget {
    max: Room,
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Budget {
    pub(super) fn new(max: Room) -> Self {
        Self { max, bytes: AtomicU64::new(0), entries: AtomicU64::new(0) }
    }

    pub(super) fn max(&self) -> Room {
        self.max
    }

    /// What is taken now.
    pub(super) fn used(&self) -> Room {
        Room::new(self.bytes.load(Relaxed), self.entries.load(Relaxed))
    }

    fn take(&self, room: Room) -> Result<(), Short> {
        take(&self.bytes, room.bytes, self.max.bytes).ok_or(Short::Bytes)?;
        take(&self.entries, room.entries, self.max.entries).ok_or_else(|| {
            give_back(&self.bytes, room.bytes);
            Short::Entries
        })
    }

    pub(super) fn give_back(&self, room: Room) {
        give_back(&self.bytes, room.bytes);
        give_back(&self.entries, room.entries);
    }
}

fn take(counter: &AtomicU64, amount: u64, max: u64) -> Option<()> {
    let within = |used: u64| used.checked_add(amount).filter(|&used| used <= max);
    counter.try_update(Relaxed, Relaxed, within).ok().map(drop)
}

fn give_back(counter: &AtomicU64, amount: u64) {
    let before = counter.fetch_sub(amount, Relaxed);
    debug_assert!(before >= amount, "room was given back twice");
}

/// Room in the hands of one insertion: still counted as used, so nobody else can have it. What is
/// left goes back when it is dropped, also in a panic.
pub(super) struct Credit<'a> {
    budget: &'a Budget,
    room: Room,
}

impl<'a> Credit<'a> {
    pub(super) fn none(budget: &'a Budget) -> Self {
        Self { budget, room: Room::default() }
    }

    /// Takes from the budget what is missing to `needed`.
    pub(super) fn reach(&mut self, needed: Room) -> Result<(), Short> {
        let missing = self.room.missing_to(needed);
        self.budget.take(missing)?;
        self.room.add(missing);
        Ok(())
    }

    /// Keeps the room of an entry that was removed to make room.
    pub(super) fn keep(&mut self, freed: Room) {
        self.room.add(freed);
    }

    /// Hands `used` over to an entry that is stored now.
    pub(super) fn spend(&mut self, used: Room) {
        self.room = used.missing_to(self.room);
    }

    pub(super) fn give_back(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.room));
    }
}

impl Drop for Credit<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_up_to_the_bound_and_not_a_byte_beyond() {
        let budget = Budget::new(Room::new(10, 2));
        let mut one = Credit::none(&budget);
        assert_eq!(one.reach(Room::new(10, 1)), Ok(()));
        let mut other = Credit::none(&budget);
        assert_eq!(other.reach(Room::new(1, 1)), Err(Short::Bytes));
        one.give_back();
        assert_eq!(one.reach(Room::new(1, 2)), Ok(()));
        assert_eq!(other.reach(Room::new(1, 1)), Err(Short::Entries));
        assert_eq!(budget.used(), Room::new(1, 2), "a refusal takes nothing");
        assert_eq!(other.reach(Room::new(u64::MAX, 0)), Err(Short::Bytes));
    }

    #[test]
    fn what_an_insertion_does_not_use_goes_back() {
        let budget = Budget::new(Room::new(10, 2));
        {
            let mut credit = Credit::none(&budget);
            credit.reach(Room::new(8, 1)).unwrap();
            credit.spend(Room::new(5, 1));
        }
        assert_eq!(budget.used(), Room::new(5, 1));
    }
}
