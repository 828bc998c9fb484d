//! Which keys are asked for most, and which values are largest, in bounded memory.
//!
//! Decides what is counted: one lookup in [`SAMPLE`], drawn at random, into a sketch of
//! [`HEAVY_SLOTS`] keys, and each size that a write or a read shows, among the [`LARGE_SLOTS`]
//! largest. It changes nothing for anybody else. The two tables are pure: [`space_saving`] and
//! [`largest`].

mod largest;
mod space_saving;

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use self::largest::Largest;
use self::space_saving::SpaceSaving;
use crate::clock::Time;
use crate::key::{Key, Namespace, Shown};

/// One lookup in so many is counted. A power of two.
pub const SAMPLE: u32 = 16;

/// So many keys are counted at once.
pub const HEAVY_SLOTS: usize = 512;

/// So many of the largest values are remembered.
pub const LARGE_SLOTS: usize = 128;

/// What [`Cache::top_keys`](crate::Cache::top_keys) found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopKeys {
    /// Since when was counted, by the cache's clock.
    pub since: Time,
    /// The keys that were found most often, the most frequent first.
    pub by_hits: Vec<HotKey>,
    /// The keys with the largest values, the largest first.
    pub by_bytes: Vec<LargeKey>,
}

/// A key that is often asked for. `Debug` shows at most 64 bytes of it, escaped.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HotKey {
    /// Where.
    pub namespace: Namespace,
    /// The key's name in the namespace.
    pub key: String,
    /// How many lookups found it, about.
    pub hits: u64,
    /// At most so many of `hits` may belong to other keys, beside the error of sampling (about
    /// √([`SAMPLE`] × `hits`)).
    pub error: u64,
}

/// A key with a large value. `Debug` shows at most 64 bytes of it, escaped.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LargeKey {
    /// Where.
    pub namespace: Namespace,
    /// The key's name in the namespace.
    pub key: String,
    /// What its value took when it was last written or read, in bytes, without the key.
    pub bytes: u64,
}

impl fmt::Debug for HotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, key, hits, error } = self;
        write!(f, "{namespace:?}/{}: {hits} (±{error})", Shown(key))
    }
}

impl fmt::Debug for LargeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}: {} bytes", self.namespace, Shown(&self.key), self.bytes)
    }
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    hash: u64,
    namespace: Namespace,
    text: Box<str>,
}

impl Name {
    fn of(key: &Key<'_>) -> Self {
        Self { hash: key.hash(), namespace: key.namespace().clone(), text: key.name().into() }
    }

    fn is(&self, key: &Key<'_>) -> bool {
        self.hash == key.hash() && *self.text == *key.name() && self.namespace == *key.namespace()
    }
}

/// What was counted for one cache.
pub(crate) struct Top {
    tables: Mutex<Tables>,
}

struct Tables {
    since: Time,
    heavy: SpaceSaving,
    large: Largest,
}

impl Tables {
    fn new(since: Time) -> Self {
        Self { since, heavy: SpaceSaving::new(HEAVY_SLOTS), large: Largest::new(LARGE_SLOTS) }
    }
}

impl Top {
    pub(crate) fn new(now: Time) -> Self {
        Self { tables: Mutex::new(Tables::new(now)) }
    }

    /// A lookup found this key.
    #[inline]
    pub(crate) fn used(&self, key: &Key<'_>) {
        if drawn() {
            self.lock().heavy.add(key);
        }
    }

    /// The value of this key takes so many bytes now.
    pub(crate) fn sized(&self, key: &Key<'_>, bytes: usize, expiry: Option<Time>) {
        self.lock().large.set(key, bytes as u64, expiry);
    }

    /// This key has no value now.
    pub(crate) fn gone(&self, key: &Key<'_>) {
        self.lock().large.remove(key);
    }

    /// Forgets everything.
    pub(crate) fn reset(&self, now: Time) {
        *self.lock() = Tables::new(now);
    }

    /// The first `n` of each table. `known` says what is known of a large value now: its size, zero
    /// if it is gone, or nothing.
    pub(crate) fn first(
        &self,
        n: usize,
        now: Time,
        known: impl Fn(&Key<'_>) -> Option<u64>,
    ) -> TopKeys {
        let (since, by_hits, mut large) = {
            let tables = self.lock();
            (tables.since, tables.heavy.first(n), tables.large.live(now))
        };
        // Without the lock: it asks the store.
        large.retain_mut(|large| {
            let Ok(key) = Key::new(&large.namespace, large.key.as_str()) else { return false };
            large.bytes = known(&key).unwrap_or(large.bytes);
            large.bytes > 0
        });
        large.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
        large.truncate(n);
        TopKeys { since, by_hits, by_bytes: large }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this lookup is one of those that are counted: at random, or lookups in a fixed order
/// would be counted at the same place each time.
fn drawn() -> bool {
    static NEXT_SEED: AtomicU32 = AtomicU32::new(1);
    thread_local! {
        static STATE: Cell<u32> = Cell::new(
            NEXT_SEED.fetch_add(1, Relaxed).wrapping_mul(0x9E37_79B9) | 1
        );
    }
    STATE
        .try_with(|state| {
            // Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8 (2003).
            let mut x = state.get();
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            state.set(x);
            (x >> 16) % SAMPLE == 0
        })
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lookup_in_sixteen_is_drawn() {
        let drawn = (0..160_000).filter(|_| drawn()).count();
        assert!((9_000..11_000).contains(&drawn), "{drawn}");
    }

    #[test]
    fn debug_shows_a_short_key_without_control_characters() {
        let key = format!("\x1b[31m{}", "k".repeat(100));
        let large = LargeKey { namespace: Namespace::default(), key, bytes: 7 };
        let shown = format!("{large:?}");
        assert!(!shown.contains('\x1b') && shown.len() < 120, "{shown}");
    }

    #[test]
    fn what_the_store_knows_counts_more_than_what_was_seen() {
        let (top, namespace, now) = (Top::new(Time::EPOCH), Namespace::default(), Time::EPOCH);
        for (name, bytes) in [("gone", 300), ("shrunk", 200), ("same", 100)] {
            top.sized(&Key::new(&namespace, name).unwrap(), bytes, None);
        }
        let top = top.first(10, now, |key| match key.name() {
            "gone" => Some(0),
            "shrunk" => Some(50),
            _ => None,
        });
        let found: Vec<_> = top.by_bytes.iter().map(|large| (&*large.key, large.bytes)).collect();
        assert_eq!(found, [("same", 100), ("shrunk", 50)]);
    }
}
