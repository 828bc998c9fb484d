//! One part of the engine: its entries, in which order they go, and when they expire.
//!
//! Plain data behind the engine's lock. It decides which entry goes next; it does not know whether
//! one has to, drops no value (a value's `Drop` may be slow, or use the cache) and reads no clock.
//!
//! The order is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP
//! 2023): new entries pass through a small queue of a tenth; those that were read twice there, or
//! come back soon after they left, live in the main queue, which is a clock. A read only counts
//! up to three on the entry.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use super::budget::{Room, Short};
use super::ghost::Ghost;
use super::{Counts, EvictionCause};
use crate::clock::Time;
use crate::key::{Key, Namespace};

/// No slot.
const NONE: u32 = u32::MAX;
/// The expiry of what never expires.
const NEVER: Time = Time::from_millis(u64::MAX);
/// Reads beyond this many are not counted.
const MAX_USES: u8 = 3;
/// So many reads in the small queue take an entry to the main one.
const PROMOTED_AT: u8 = 2;
/// The small queue has one part in so many.
const SMALL_PART: u64 = 10;
/// A shard that is empty gives back storage for more entries than this.
const KEPT_CAPACITY: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Small,
    Main,
}

#[derive(Clone, Copy)]
struct Queue {
    /// Who goes first.
    head: u32,
    tail: u32,
    room: Room,
}

impl Queue {
    const EMPTY: Self = Self { head: NONE, tail: NONE, room: Room::new(0, 0) };

    fn load(&self, by: Short) -> u64 {
        match by {
            Short::Bytes => self.room.bytes,
            Short::Entries => self.room.entries,
        }
    }
}

pub(super) struct Slot<V> {
    stored: Option<Stored<V>>,
    hash: u64,
    cost: u64,
    expiry: Time,
    prev: u32,
    /// The next in the queue, or the next free slot.
    next: u32,
    uses: u8,
    place: Place,
}

/// What an entry is made of; what is left when it has gone.
pub(super) struct Stored<V> {
    pub(super) namespace: Namespace,
    pub(super) name: Box<str>,
    pub(super) value: V,
}

/// An entry that was taken out, why, and the room that it took.
pub(super) struct Taken<V> {
    pub(super) stored: Stored<V>,
    pub(super) cause: EvictionCause,
    pub(super) room: Room,
}

pub(super) struct Shard<V> {
    table: HashTable<u32>,
    slots: Vec<Slot<V>>,
    free: u32,
    small: Queue,
    main: Queue,
    ghost: Ghost,
    expiries: BTreeSet<(Time, u32)>,
    pub(super) counts: Counts,
}

impl<V> Shard<V> {
    pub(super) fn new() -> Self {
        Self {
            table: HashTable::new(),
            slots: Vec::new(),
            free: NONE,
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            ghost: Ghost::default(),
            expiries: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn room(&self) -> Room {
        let (small, main) = (self.small.room, self.main.room);
        Room::new(small.bytes + main.bytes, small.entries + main.entries)
    }

    pub(super) fn find(&self, key: &Key<'_>) -> Option<u32> {
        let is_it = |&index: &u32| {
            let slot = &self.slots[index as usize];
            slot.hash == key.hash()
                && slot.stored.as_ref().is_some_and(|stored| {
                    *stored.name == *key.name() && stored.namespace == *key.namespace()
                })
        };
        self.table.find(key.hash(), is_it).copied()
    }

    pub(super) fn stored(&self, index: u32) -> Option<&Stored<V>> {
        self.slots.get(index as usize)?.stored.as_ref()
    }

    pub(super) fn is_expired(&self, index: u32, now: Time) -> bool {
        self.slots[index as usize].expiry <= now
    }

    pub(super) fn cost(&self, index: u32) -> u64 {
        self.slots[index as usize].cost
    }

    /// How many slots there are, used or free: the end of a walk by index.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn count_use(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.uses = (slot.uses + 1).min(MAX_USES);
    }

    /// When the next entry expires.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.expiries.first().map(|&(at, _)| at)
    }

    /// How many have expired and are still here.
    pub(super) fn expired(&self, now: Time) -> usize {
        self.expiries.range(..=(now, NONE)).count()
    }

    pub(super) fn insert(&mut self, key: &Key<'_>, value: V, cost: u64, expiry: Option<Time>) {
        let place = if self.ghost.take(key.hash()) { Place::Main } else { Place::Small };
        let stored = Stored { namespace: key.namespace().clone(), name: key.name().into(), value };
        let slot = Slot {
            stored: Some(stored),
            hash: key.hash(),
            cost,
            expiry: expiry.unwrap_or(NEVER),
            prev: NONE,
            next: NONE,
            uses: 0,
            place,
        };
        let index = self.place(slot);
        let slots = &self.slots;
        self.table.insert_unique(key.hash(), index, |&other| slots[other as usize].hash);
        self.push(index, place);
        if let Some(at) = expiry {
            self.expiries.insert((at, index));
        }
        self.counts.inserted += 1;
    }

    /// Puts another value in the place of the one that is there, which it returns.
    pub(super) fn replace(
        &mut self,
        index: u32,
        value: V,
        cost: u64,
        expiry: Option<Time>,
    ) -> Option<V> {
        self.set_expiry(index, expiry);
        let old = self.swap(index, value)?;
        let slot = &mut self.slots[index as usize];
        let old_cost = std::mem::replace(&mut slot.cost, cost);
        let place = slot.place;
        let room = &mut self.queue(place).room;
        room.bytes = room.bytes - old_cost + cost;
        self.count_use(index);
        self.counts.inserted += 1;
        self.counts.gone[EvictionCause::Replaced as usize] += 1;
        Some(old)
    }

    /// Exchanges the value of an entry.
    pub(super) fn swap(&mut self, index: u32, value: V) -> Option<V> {
        let stored = self.slots[index as usize].stored.as_mut()?;
        Some(std::mem::replace(&mut stored.value, value))
    }

    /// Gives an entry a later expiry; an earlier one does not count.
    pub(super) fn postpone(&mut self, index: u32, expiry: Time) {
        if self.slots[index as usize].expiry < expiry {
            self.set_expiry(index, Some(expiry));
        }
    }

    pub(super) fn set_expiry(&mut self, index: u32, expiry: Option<Time>) {
        let slot = &mut self.slots[index as usize];
        let old = std::mem::replace(&mut slot.expiry, expiry.unwrap_or(NEVER));
        if old != NEVER {
            self.expiries.remove(&(old, index));
        }
        if let Some(at) = expiry {
            self.expiries.insert((at, index));
        }
    }

    /// Takes an entry out, and counts why.
    pub(super) fn take(&mut self, index: u32, cause: EvictionCause) -> Option<Taken<V>> {
        self.unlink(index);
        let slot = &mut self.slots[index as usize];
        let (hash, expiry, cost) = (slot.hash, slot.expiry, slot.cost);
        let stored = slot.stored.take()?;
        slot.next = std::mem::replace(&mut self.free, index);
        if expiry != NEVER {
            self.expiries.remove(&(expiry, index));
        }
        if let Ok(found) = self.table.find_entry(hash, |&other| other == index) {
            found.remove();
        }
        self.counts.gone[cause as usize] += 1;
        if self.table.is_empty() {
            self.give_storage_back();
        }
        Some(Taken { stored, cause, room: Room::new(cost, 1) })
    }

    /// Takes out one entry that has expired.
    pub(super) fn take_expired(&mut self, now: Time) -> Option<Taken<V>> {
        let &(at, index) = self.expiries.first()?;
        if at > now {
            return None;
        }
        self.take(index, EvictionCause::Expired)
    }

    /// Takes out the entry that is least worth its place, but never `keep`.
    pub(super) fn evict(&mut self, by: Short, keep: Option<u32>) -> Option<Taken<V>> {
        let keep = keep.unwrap_or(NONE);
        let cause = match by {
            Short::Bytes => EvictionCause::Size,
            Short::Entries => EvictionCause::Count,
        };
        loop {
            let (small, main) = (self.small.load(by), self.main.load(by));
            let main_has_none =
                self.main.head == NONE || (self.main.head == keep && self.main.tail == keep);
            let from_small = self.small.head != NONE
                && (main_has_none || small.saturating_mul(SMALL_PART) > small + main);
            if !from_small && main_has_none {
                return None;
            }
            let index = if from_small { self.small.head } else { self.main.head };
            if index == keep {
                self.unlink(index);
                self.push(index, Place::Main);
                continue;
            }
            let slot = &mut self.slots[index as usize];
            if from_small {
                if slot.uses < PROMOTED_AT {
                    let hash = slot.hash;
                    self.ghost.add(hash, self.table.len().max(KEPT_CAPACITY));
                    return self.take(index, cause);
                }
                slot.uses = 0;
            } else {
                if slot.uses == 0 {
                    return self.take(index, cause);
                }
                slot.uses -= 1;
            }
            self.unlink(index);
            self.push(index, Place::Main);
        }
    }

    /// Takes out the entry that would be looked at first to make room.
    #[cfg(feature = "redis")]
    pub(super) fn take_first(&mut self) -> Option<Taken<V>> {
        let heads = [self.small.head, self.main.head];
        let index = heads.into_iter().find(|head| *head != NONE)?;
        self.take(index, EvictionCause::Removed)
    }

    /// Takes out everything, at the end of the engine; nobody counts it.
    pub(super) fn take_all(&mut self) -> Vec<Slot<V>> {
        std::mem::replace(self, Self::new()).slots
    }

    fn queue(&mut self, place: Place) -> &mut Queue {
        match place {
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
        }
    }

    fn push(&mut self, index: u32, place: Place) {
        let tail = self.queue(place).tail;
        let slot = &mut self.slots[index as usize];
        (slot.place, slot.prev, slot.next) = (place, tail, NONE);
        let cost = slot.cost;
        if tail != NONE {
            self.slots[tail as usize].next = index;
        }
        let queue = self.queue(place);
        queue.tail = index;
        if tail == NONE {
            queue.head = index;
        }
        queue.room.bytes += cost;
        queue.room.entries += 1;
    }

    fn unlink(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let (place, prev, next, cost) = (slot.place, slot.prev, slot.next, slot.cost);
        if prev != NONE {
            self.slots[prev as usize].next = next;
        }
        if next != NONE {
            self.slots[next as usize].prev = prev;
        }
        let queue = self.queue(place);
        if prev == NONE {
            queue.head = next;
        }
        if next == NONE {
            queue.tail = prev;
        }
        queue.room.bytes -= cost;
        queue.room.entries -= 1;
    }

    /// Puts a slot where one is free. The engine's bound keeps indices below `NONE`.
    fn place(&mut self, slot: Slot<V>) -> u32 {
        let index = self.free;
        if let Some(free) = self.slots.get_mut(index as usize) {
            self.free = free.next;
            *free = slot;
            return index;
        }
        self.slots.push(slot);
        u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
    }

    fn give_storage_back(&mut self) {
        if self.slots.capacity() > KEPT_CAPACITY {
            self.slots = Vec::new();
            self.table = HashTable::new();
            self.free = NONE;
            self.ghost.clear();
        }
    }

    /// Checks that the parts agree with each other.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut seen = 0;
        for (place, queue) in [(Place::Small, self.small), (Place::Main, self.main)] {
            let (mut at, mut prev, mut room) = (queue.head, NONE, Room::default());
            while at != NONE {
                let slot = &self.slots[at as usize];
                assert!(slot.place == place && slot.prev == prev && slot.stored.is_some());
                assert_eq!(slot.expiry != NEVER, self.expiries.contains(&(slot.expiry, at)));
                room = Room::new(room.bytes + slot.cost, room.entries + 1);
                (prev, at) = (at, slot.next);
                seen += 1;
            }
            assert_eq!(queue.tail, prev);
            assert_eq!(queue.room, room);
        }
        assert_eq!(self.table.len(), seen);
        assert!(self.expiries.len() <= seen);
        let gone: u64 = self.counts.gone.iter().sum();
        assert_eq!(self.counts.inserted, gone + seen as u64, "{:?}", self.counts);
    }
}
