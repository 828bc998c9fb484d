//! Keeps entries in memory, within two bounds and each until its time is over.
//!
//! It decides which entries go when there is no more room, and finds those that have expired. It
//! never stands above a bound, not even for a moment: room is taken from one budget of all shards
//! before an entry is stored. No value is dropped and no listener called under a lock, and a panic
//! in either stays here. Times come in as arguments.
//!
//! - A key belongs to one shard by its hash; a shard is one lock. Nobody ever holds two.
//! - Room is made in the entry's own shard while that holds its share, else in the fullest one, so
//!   a value that fits the cache fits whatever its shard holds.
//! - Bytes are an entry's weight as the caller says, its name, and [`Engine::OVERHEAD`].
//! - `inserted` = entries here + gone, by cause: exact whenever nothing is under way.
//!
//! [`shard`] has the order of eviction and its source.

mod budget;
mod cell;
mod discard;
mod ghost;
mod shard;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use self::budget::{Budget, Credit, Room, Short};
use self::cell::{Cell, Writing};
pub(crate) use self::discard::Listener;
use self::discard::{Discarded, Hook};
use self::shard::Slot;
use super::EvictionCause;
use crate::clock::Time;
use crate::key::{Key, Namespace};

/// Expired entries are freed so many at a time, so that nobody waits long for the shard.
const SLICE: usize = 64;
/// A shard is not made for less than this.
const MIN_SHARD: Room = Room::new(4 << 20, 256);
const MAX_SHARDS: usize = 64;
/// Slots are numbered with 32 bits.
const MAX_ENTRIES: u64 = 1 << 31;

/// What happened to all entries so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    inserted: u64,
    gone: [u64; EvictionCause::NUMBER],
}

impl Counts {
    /// Entries that were stored.
    pub(crate) fn inserted(&self) -> u64 {
        self.inserted
    }

    /// Entries that went for this reason.
    pub(crate) fn gone(&self, cause: EvictionCause) -> u64 {
        self.gone[cause as usize]
    }
}

/// What an engine holds, and what happened to all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Census {
    pub(crate) live: u64,
    /// Expired and not freed yet.
    pub(crate) expired: u64,
    pub(crate) counts: Counts,
}

/// The bounds of an engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// What came of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insertion {
    Stored,
    /// The condition did not hold.
    Refused,
    /// It is larger than the whole cache; nothing was changed.
    TooLarge,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// So many entries were freed.
    pub(crate) freed: usize,
    /// When the next entry expires; in the past if the sweep ended before it was done.
    pub(crate) next: Option<Time>,
}

pub(crate) struct Engine<V> {
    cells: Box<[Cell<V>]>,
    budget: Budget,
    /// Held by whoever empties other shards, so that two of them never wait for what the other has.
    making_room: Mutex<()>,
    hook: Hook<V>,
}

impl<V> Engine<V> {
    /// What an entry takes beside its weight and its name, in bytes: its slot and its parts of the
    /// table, the expiries, the ghosts and the allocator's headers.
    ///
    /// Measured on x86-64 Linux with glibc's allocator, as the growth of the process for a million
    /// entries of one byte with names of 16 bytes, set through the public handle: 383 bytes each
    /// with an expiry and 346 without, where this and the entry's own footprint account for 385.
    pub(crate) const OVERHEAD: u64 = size_of::<Slot<V>>() as u64 + 88;

    pub(crate) fn new(bounds: Bounds, listener: Option<Listener<V>>) -> Self {
        let max = Room::new(bounds.bytes, bounds.entries.min(MAX_ENTRIES));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = shards(max, cores);
        Self {
            cells: std::iter::repeat_with(Cell::new).take(shards).collect(),
            budget: Budget::new(max),
            making_room: Mutex::new(()),
            hook: Hook { listener, panics: AtomicU64::new(0) },
        }
    }

    /// Shows the value of a live entry, under the lock. Allocates nothing.
    #[cfg(test)]
    pub(crate) fn peek<R>(&self, key: &Key<'_>, now: Time, see: impl FnOnce(&V) -> R) -> Option<R> {
        self.peek_and_keep(key, now, |_| None, see)
    }

    /// Shows the value of a live entry, under the lock; `keep` may say when it expires from now on.
    pub(crate) fn peek_and_keep<R>(
        &self,
        key: &Key<'_>,
        now: Time,
        keep: impl FnOnce(&V) -> Option<Time>,
        see: impl FnOnce(&V) -> R,
    ) -> Option<R> {
        let mut shard = self.home(key).read();
        let index = shard.find(key)?;
        if shard.is_expired(index, now) {
            drop(shard);
            // It goes now, as it was found; somebody may have replaced it meanwhile.
            self.remove_if(key, now, |_| false);
            return None;
        }
        shard.count_use(index);
        // The figure of the next expiry may be too early then, which only wakes the sweeper.
        if let Some(until) = shard.stored(index).and_then(|stored| keep(&stored.value)) {
            shard.postpone(index, until);
        }
        shard.stored(index).map(|stored| see(&stored.value))
    }

    /// Shows the value of a live entry, under the lock, for somebody who only looks: neither its
    /// expiry nor its rank changes.
    pub(crate) fn look<R>(&self, key: &Key<'_>, now: Time, see: impl FnOnce(&V) -> R) -> Option<R> {
        let shard = self.home(key).read();
        let index = shard.find(key).filter(|index| !shard.is_expired(*index, now))?;
        shard.stored(index).map(|stored| see(&stored.value))
    }

    /// Stores a value if `when` holds for what is there, in one step with the storing. `when` may
    /// be asked more than once; the last answer counts.
    pub(crate) fn insert(
        &self,
        key: &Key<'_>,
        value: V,
        weight: u64,
        expiry: Option<Time>,
        now: Time,
        mut when: impl FnMut(Option<&V>) -> bool,
    ) -> Insertion {
        let cost = weight.saturating_add(key.name().len() as u64).saturating_add(Self::OVERHEAD);
        let max = self.budget.max();
        if cost > max.bytes || max.entries == 0 {
            return Insertion::TooLarge;
        }
        // Declared before the lock is taken, so that values go after it is released.
        let mut discarded = Discarded::new(&self.hook);
        let mut credit = Credit::none(&self.budget);
        let (mut shard, found) = loop {
            let mut shard = self.home(key).write();
            let found = Self::live(&mut shard, key, now, &mut credit, &mut discarded);
            if !when(found.and_then(|index| shard.stored(index)).map(|stored| &stored.value)) {
                return Insertion::Refused;
            }
            let needed = match found {
                Some(index) => Room::new(cost.saturating_sub(shard.cost(index)), 0),
                None => Room::new(cost, 1),
            };
            let Err(short) =
                self.room_at_home(&mut shard, needed, found, now, &mut credit, &mut discarded)
            else {
                break (shard, found);
            };
            drop(shard);
            self.room_elsewhere(key, needed, short, now, &mut credit, &mut discarded);
        };
        if let Some(index) = found {
            credit.keep(Room::new(shard.cost(index), 0));
            credit.spend(Room::new(cost, 0));
            if let Some(old) = shard.replace(index, value, cost, expiry) {
                discarded.replaced(key, old);
            }
        } else {
            credit.spend(Room::new(cost, 1));
            shard.insert(key, value, cost, expiry);
        }
        Insertion::Stored
    }

    /// Removes an entry if `condition` holds for its value, in one step; whether it did.
    pub(crate) fn remove_if(
        &self,
        key: &Key<'_>,
        now: Time,
        condition: impl FnOnce(&V) -> bool,
    ) -> bool {
        let mut discarded = Discarded::new(&self.hook);
        let mut credit = Credit::none(&self.budget);
        let mut shard = self.home(key).write();
        let Some(index) = Self::live(&mut shard, key, now, &mut credit, &mut discarded) else {
            return false;
        };
        if !shard.stored(index).is_some_and(|stored| condition(&stored.value)) {
            return false;
        }
        let Some(taken) = shard.take(index, EvictionCause::Removed) else {
            return false;
        };
        credit.keep(taken.room);
        discarded.add(taken);
        true
    }

    /// Removes every entry that was there when it began.
    #[cfg(feature = "redis")]
    pub(crate) fn clear(&self) {
        for cell in &self.cells {
            let mut discarded = Discarded::new(&self.hook);
            let mut credit = Credit::none(&self.budget);
            let mut shard = cell.write();
            while let Some(taken) = shard.take_first() {
                credit.keep(taken.room);
                discarded.add(taken);
            }
        }
    }

    /// Puts what `change` makes of a value in its place, with the expiry that it says; false if
    /// there is no such entry or `change` makes nothing of it. The weight stays.
    pub(crate) fn update(
        &self,
        key: &Key<'_>,
        now: Time,
        change: impl FnOnce(&V) -> Option<(V, Option<Time>)>,
    ) -> bool {
        let mut discarded = Discarded::new(&self.hook);
        let mut credit = Credit::none(&self.budget);
        let mut shard = self.home(key).write();
        let Some(index) = Self::live(&mut shard, key, now, &mut credit, &mut discarded) else {
            return false;
        };
        let changed = shard.stored(index).and_then(|stored| change(&stored.value));
        let Some((value, expiry)) = changed else { return false };
        shard.set_expiry(index, expiry);
        if let Some(old) = shard.swap(index, value) {
            discarded.silently(old);
        }
        true
    }

    /// Shows live entries from `at` on (0 is the beginning), after looking at no more than `limit`
    /// places under one lock. Returns where to go on. What is there all the time is shown once,
    /// also when it is replaced meanwhile.
    pub(crate) fn walk(
        &self,
        at: u64,
        limit: usize,
        now: Time,
        mut see: impl FnMut(&Namespace, &str, &V),
    ) -> Option<u64> {
        let from = u32::try_from(at & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let cell = usize::try_from(at >> 32).unwrap_or(usize::MAX);
        let shard = self.cells.get(cell)?.read();
        let slots = u32::try_from(shard.slots()).unwrap_or(u32::MAX);
        let to = slots.min(from.saturating_add(u32::try_from(limit).unwrap_or(u32::MAX)));
        for index in from..to {
            if let Some(stored) = shard.stored(index)
                && !shard.is_expired(index, now)
            {
                see(&stored.namespace, &stored.name, &stored.value);
            }
        }
        if to < slots {
            return Some(((cell as u64) << 32) | u64::from(to));
        }
        (cell + 1 < self.cells.len()).then_some((cell as u64 + 1) << 32)
    }

    /// Frees what has expired, at most `limit` entries.
    pub(crate) fn sweep(&self, now: Time, limit: usize) -> Sweep {
        let mut sweep = Sweep { freed: 0, next: None };
        for cell in &self.cells {
            while sweep.freed < limit && cell.next_expiry().is_some_and(|at| at <= now) {
                let mut discarded = Discarded::new(&self.hook);
                let mut credit = Credit::none(&self.budget);
                let mut shard = cell.write();
                for _ in 0..SLICE.min(limit - sweep.freed) {
                    let Some(taken) = shard.take_expired(now) else {
                        break;
                    };
                    credit.keep(taken.room);
                    discarded.add(taken);
                    sweep.freed += 1;
                }
            }
            sweep.next = [sweep.next, cell.next_expiry()].into_iter().flatten().min();
        }
        sweep
    }

    /// How many entries are here and how many went, each counted once: by the shard's lock, so
    /// that one which is being freed right now is in one place.
    pub(crate) fn census(&self, now: Time) -> Census {
        let mut sum = Census::default();
        for cell in &self.cells {
            let shard = cell.read();
            let expired = shard.expired(now) as u64;
            sum.expired += expired;
            sum.live += shard.room().entries - expired;
            sum.counts.inserted += shard.counts.inserted;
            for (total, gone) in sum.counts.gone.iter_mut().zip(shard.counts.gone) {
                *total += gone;
            }
        }
        sum
    }

    /// How many bytes are taken, with what has expired and was not freed yet.
    pub(crate) fn bytes(&self) -> u64 {
        self.budget.used().bytes
    }

    /// The bound in bytes.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.budget.max().bytes
    }

    /// How often a listener or a value's destructor panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.hook.panics.load(Relaxed)
    }

    fn home_index(&self, key: &Key<'_>) -> usize {
        // Bits that choose neither the bucket (the lowest) nor its tag (the highest seven).
        (key.hash() >> 48) as usize & (self.cells.len() - 1)
    }

    fn home(&self, key: &Key<'_>) -> &Cell<V> {
        &self.cells[self.home_index(key)]
    }

    /// Finds a live entry; one that has expired is taken out.
    fn live(
        shard: &mut Writing<'_, V>,
        key: &Key<'_>,
        now: Time,
        credit: &mut Credit<'_>,
        discarded: &mut Discarded<'_, V>,
    ) -> Option<u32> {
        let index = shard.find(key)?;
        if !shard.is_expired(index, now) {
            return Some(index);
        }
        if let Some(taken) = shard.take(index, EvictionCause::Expired) {
            credit.keep(taken.room);
            discarded.add(taken);
        }
        None
    }

    /// Makes room in the entry's own shard, as long as that is fair.
    fn room_at_home(
        &self,
        shard: &mut Writing<'_, V>,
        needed: Room,
        found: Option<u32>,
        now: Time,
        credit: &mut Credit<'_>,
        discarded: &mut Discarded<'_, V>,
    ) -> Result<(), Short> {
        while let Err(short) = credit.reach(needed) {
            let mut taken = shard.take_expired(now);
            if taken.is_none() && self.holds_its_share(shard.room(), short) {
                taken = shard.evict(short, found);
            }
            let taken = taken.ok_or(short)?;
            credit.keep(taken.room);
            discarded.add(taken);
        }
        Ok(())
    }

    /// Whether a shard holds at least half of what it would if all held the same.
    fn holds_its_share(&self, room: Room, short: Short) -> bool {
        let used = self.budget.used();
        let shards = self.cells.len() as u64;
        match short {
            Short::Bytes => room.bytes.saturating_mul(2 * shards) >= used.bytes,
            Short::Entries => room.entries.saturating_mul(2 * shards) >= used.entries,
        }
    }

    /// Makes room in the fullest of the other shards, and at last in the entry's own. Called
    /// without a lock.
    fn room_elsewhere(
        &self,
        key: &Key<'_>,
        needed: Room,
        short: Short,
        now: Time,
        credit: &mut Credit<'_>,
        discarded: &mut Discarded<'_, V>,
    ) {
        // Nobody waits with room in hand, except whoever has the turn: it gets all it needs,
        // because what others have they either store, and it can be evicted, or give back.
        credit.give_back();
        let _turn = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        let mut short = Some(short);
        while let Some(by) = short {
            let load = |cell: &&Cell<V>| match by {
                Short::Bytes => cell.room().bytes,
                Short::Entries => cell.room().entries,
            };
            let home = self.home_index(key);
            let others = self.cells.iter().enumerate().filter(|(index, _)| *index != home);
            let fullest = others.map(|(_, cell)| cell).max_by_key(load);
            // What has expired goes first, and was not evicted.
            let take = |cell: &Cell<V>| {
                let mut shard = cell.write();
                shard.take_expired(now).or_else(|| shard.evict(by, None))
            };
            let taken = fullest.and_then(take).or_else(|| take(self.home(key)));
            match taken {
                Some(taken) => {
                    credit.keep(taken.room);
                    discarded.add(taken);
                }
                // Others hold it, for the few instructions until they store or give back.
                None => std::thread::yield_now(),
            }
            short = credit.reach(needed).err();
        }
    }
}

impl<V> Drop for Engine<V> {
    fn drop(&mut self) {
        for cell in &self.cells {
            let slots = cell.write().take_all();
            for slot in slots {
                self.hook.contain(|| drop(slot));
            }
        }
    }
}

impl<V> fmt::Debug for Engine<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("shards", &self.cells.len())
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// How many shards: enough that cores seldom meet, few enough that each holds something.
fn shards(max: Room, cores: usize) -> usize {
    let mut shards = cores.saturating_mul(4).next_power_of_two().min(MAX_SHARDS);
    let too_small = |shards: usize| {
        let shards = shards as u64;
        max.bytes / shards < MIN_SHARD.bytes || max.entries / shards < MIN_SHARD.entries
    };
    while shards > 1 && too_small(shards) {
        shards /= 2;
    }
    shards
}
