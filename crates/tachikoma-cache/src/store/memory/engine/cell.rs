//! A shard and its lock, with figures beside it that need no lock to be read.
//!
//! It decides nothing: whoever changes the shard publishes its figures when done.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::budget::Room;
use super::shard::Shard;
use crate::clock::Time;

/// Apart from its neighbours, so that cores do not fight for a cache line (two of 64 bytes: the
/// processor fetches them in pairs).
#[repr(align(128))]
pub(super) struct Cell<V> {
    shard: Mutex<Shard<V>>,
    figures: Figures,
}

/// As of the last change; each is written under the lock only.
struct Figures {
    bytes: AtomicU64,
    entries: AtomicU64,
    next_expiry: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl<V> Cell<V> {
    pub(super) fn new() -> Self {
        Self {
            shard: Mutex::new(Shard::new()),
            figures: Figures {
                bytes: AtomicU64::new(0),
                entries: AtomicU64::new(0),
                next_expiry: AtomicU64::new(NEVER),
            },
        }
    }

    /// Locks the shard to look at it, or to count a use.
    pub(super) fn read(&self) -> MutexGuard<'_, Shard<V>> {
        // The shard is whole between any two of the engine's calls, so a panic of a visitor or of
        // a condition leaves nothing to repair.
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the shard to change it.
    pub(super) fn write(&self) -> Writing<'_, V> {
        Writing { shard: self.read(), figures: &self.figures }
    }

    pub(super) fn room(&self) -> Room {
        Room::new(self.figures.bytes.load(Relaxed), self.figures.entries.load(Relaxed))
    }

    pub(super) fn next_expiry(&self) -> Option<Time> {
        let at = self.figures.next_expiry.load(Relaxed);
        (at != NEVER).then_some(Time::from_millis(at))
    }
}

pub(super) struct Writing<'a, V> {
    shard: MutexGuard<'a, Shard<V>>,
    figures: &'a Figures,
}

impl<V> Deref for Writing<'_, V> {
    type Target = Shard<V>;

    fn deref(&self) -> &Shard<V> {
        &self.shard
    }
}

impl<V> DerefMut for Writing<'_, V> {
    fn deref_mut(&mut self) -> &mut Shard<V> {
        &mut self.shard
    }
}

impl<V> Drop for Writing<'_, V> {
    fn drop(&mut self) {
        let (room, figures) = (self.shard.room(), self.figures);
        let next = self.shard.next_expiry().map_or(NEVER, Time::as_millis);
        figures.bytes.store(room.bytes, Relaxed);
        figures.entries.store(room.entries, Relaxed);
        figures.next_expiry.store(next, Relaxed);
    }
}
