//! What a cache counts. Always on, pulled when somebody asks, never pushed through layers.
//!
//! Counters are striped over cache lines, so that threads which count hits do not wait for each
//! other; reading adds the stripes up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::ErrorKind;

const STRIPES: usize = 8;

/// A number that only grows, cheap to count up from many threads.
#[derive(Debug, Default)]
pub struct Counter([Stripe; STRIPES]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0[stripe()].0.fetch_add(n, Ordering::Relaxed);
    }

    /// What has been added so far.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}

fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    // A thread that is ending may have no stripe any more; any will do.
    MINE.try_with(|mine| *mine).unwrap_or(0)
}

/// Counts errors by their kind.
#[derive(Debug, Default)]
pub struct ErrorCounters([AtomicU64; ErrorKind::ALL.len()]);

impl ErrorCounters {
    /// Counts one.
    pub fn count(&self, kind: ErrorKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many of each kind there were.
    pub fn get(&self) -> ErrorCounts {
        ErrorCounts(std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed)))
    }
}

/// How many errors of each kind there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorCounts([u64; ErrorKind::ALL.len()]);

impl ErrorCounts {
    /// Of one kind.
    pub fn of(&self, kind: ErrorKind) -> u64 {
        self.0[kind as usize]
    }

    /// Of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each kind with its number.
    pub fn iter(&self) -> impl Iterator<Item = (ErrorKind, u64)> + '_ {
        ErrorKind::ALL.iter().map(|kind| (*kind, self.of(*kind)))
    }

    /// Both added up.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

/// How many entries a store pushed out to stay within its bounds, by the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evictions {
    /// Because of the bound in bytes.
    pub size: u64,
    /// Because of the bound in entries.
    pub count: u64,
}

impl Evictions {
    /// For either reason.
    pub fn total(&self) -> u64 {
        self.size + self.count
    }
}

/// What a store counted. `None`: it cannot know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Live entries of all namespaces.
    pub entries: Option<u64>,
    /// Bytes that they hold, with keys and bookkeeping.
    pub bytes: Option<u64>,
    /// Entries pushed out.
    pub evictions: Option<Evictions>,
    /// Entries that expired, also those that are not freed yet.
    pub expirations: Option<u64>,
    /// Entries that were stored, new or in the place of another.
    pub inserts: Option<u64>,
    /// Entries whose place a newer one took.
    pub replacements: Option<u64>,
    /// Entries that were removed, or freed because they were found invalidated.
    pub removals: Option<u64>,
    /// Errors noticed behind the caller's back: heartbeats, retried invalidations.
    pub errors: ErrorCounts,
    /// Invalidations that the server has not taken yet.
    pub pending: u64,
    /// Panics of the user's own code that were contained: listeners, destructors of values.
    pub hook_panics: u64,
    /// What became of its snapshot file, if it has one.
    pub snapshot: Option<SnapshotStats>,
    /// Its memory tier, if it is to have one.
    pub tier: Option<TierStats>,
}

/// A memory tier in front of a server, at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStats {
    /// Whether its copies are shown.
    pub state: TierState,
    /// Copies that it has.
    pub copies: u64,
    /// Bytes that they take, with keys and bookkeeping.
    pub bytes: u64,
}

impl TierStats {
    /// A tier in this state.
    #[cfg(all(feature = "memory", feature = "redis"))]
    pub(crate) fn new(state: TierState, copies: u64, bytes: u64) -> Self {
        Self { state, copies, bytes }
    }
}

/// Whether the copies of a memory tier are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TierState {
    /// It hears of changes: they are.
    Following,
    /// It has not heard from the server for longer than the freshness, or there is no connection:
    /// they are stale values.
    Lapsed,
    /// The server tells nobody of changes: there are none. The log says why.
    Off,
}

impl TierState {
    /// The state as a word for logs and metrics, in `snake_case`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Lapsed => "lapsed",
            Self::Off => "off",
        }
    }
}

/// What became of a store's snapshot file since the store was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SnapshotStats {
    /// Entries that were read from it.
    pub restored: u64,
    /// Entries in it whose time was over.
    pub expired: u64,
    /// Entries in it that were damaged, of an unknown form or too large; one for all that follows a
    /// place from which on the file cannot be read.
    pub damaged: u64,
    /// How often it was written.
    pub saves: u64,
    /// How often it could not be.
    pub failures: u64,
    /// Entries that were written the last time.
    pub entries: u64,
    /// Entries that were not: they do not fit, or could not be encoded.
    pub left_out: u64,
}

/// What a cache did since it was built, over all its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Lookups that found a fresh value.
    pub hits: u64,
    /// Lookups that did not, also because the store failed.
    pub misses: u64,
    /// Live entries, where the store knows.
    pub size: Option<u64>,
    /// Entries pushed out to stay within the bounds, where the store knows.
    pub evictions: Option<u64>,
    /// The same by cause.
    pub evictions_by_cause: Option<Evictions>,
    /// Lookups answered with a stale value, which its type says.
    pub stale_hits: u64,
    /// Loaders that were run, whatever came of them.
    pub loads: u64,
    /// Of these, how many failed, panicked or timed out.
    pub load_failures: u64,
    /// Loaders that run now.
    pub loads_running: u64,
    /// Loads that wait for their turn now: see
    /// [`max_concurrent_loads`](crate::CacheBuilder::max_concurrent_loads).
    pub loads_queued: u64,
    /// Loads whose turn never came, because too many were waiting or it took too long. Not among
    /// `loads`.
    pub loads_rejected: u64,
    /// The time that all loaders took together.
    pub load_time: Duration,
    /// Callers that waited for another caller's load.
    pub coalesced: u64,
    /// Loaded values that were not stored because an invalidation came in between.
    pub refused_fills: u64,
    /// Entries that expired, where the store knows.
    pub expirations: Option<u64>,
    /// Entries that were stored, where the store knows. Each of them is still there (`size`), or
    /// was evicted, expired, deleted or replaced: the five add up to this whenever nothing is under
    /// way.
    pub inserts: Option<u64>,
    /// Entries whose place a newer value of their key took, where the store knows.
    pub replacements: Option<u64>,
    /// Entries that were deleted or invalidated, where the store knows. What a tag took away is
    /// counted when it is freed: with the next lookup of its key, at the latest when it expires.
    pub deletions: Option<u64>,
    /// Bytes held, where the store knows.
    pub bytes: Option<u64>,
    /// Invalidations that the server has not taken yet.
    pub pending_invalidations: u64,
    /// Errors by kind.
    pub errors: ErrorCounts,
    /// Panics of the user's own code that were contained: listeners of events and evictions,
    /// destructors of values. A loader that panics is a failed load, a weigher that does is an
    /// [`Unencodable`](ErrorKind::Unencodable) value.
    pub hook_panics: u64,
    /// What became of the store's snapshot file, if it has one.
    pub snapshot: Option<SnapshotStats>,
    /// The memory tier in front of the server, if there is to be one.
    pub tier: Option<TierStats>,
}

impl CacheStats {
    /// The share of lookups that hit, from 0 to 1; 0 if there were none.
    #[allow(clippy::cast_precision_loss)] // A ratio needs no more than 53 bits.
    pub fn hit_rate(&self) -> f64 {
        let total = self.hits + self.misses;
        if total == 0 { 0.0 } else { self.hits as f64 / total as f64 }
    }
}

/// The counters of one cache.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) stale_hits: Counter,
    pub(crate) loads: Counter,
    pub(crate) load_failures: Counter,
    pub(crate) load_nanos: Counter,
    pub(crate) coalesced: Counter,
    pub(crate) refused_fills: Counter,
    pub(crate) errors: ErrorCounters,
}

impl Counters {
    pub(crate) fn with(&self, store: &StoreStats) -> CacheStats {
        CacheStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            size: store.entries,
            evictions: store.evictions.map(|evictions| evictions.total()),
            evictions_by_cause: store.evictions,
            stale_hits: self.stale_hits.get(),
            loads: self.loads.get(),
            load_failures: self.load_failures.get(),
            loads_running: 0,
            loads_queued: 0,
            loads_rejected: 0,
            load_time: Duration::from_nanos(self.load_nanos.get()),
            coalesced: self.coalesced.get(),
            refused_fills: self.refused_fills.get(),
            expirations: store.expirations,
            inserts: store.inserts,
            replacements: store.replacements,
            deletions: store.removals,
            bytes: store.bytes,
            pending_invalidations: store.pending,
            errors: self.errors.get().and(store.errors),
            hook_panics: store.hook_panics,
            snapshot: store.snapshot,
            tier: store.tier,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_many_threads_add_up() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| (0..1000).for_each(|_| counter.add_one()));
            }
        });
        assert_eq!(counter.get(), 16_000);
    }

    #[test]
    fn the_hit_rate_of_no_lookups_is_zero() {
        assert!(CacheStats::default().hit_rate().abs() < f64::EPSILON);
        let stats = CacheStats { hits: 3, misses: 1, ..CacheStats::default() };
        assert!((stats.hit_rate() - 0.75).abs() < f64::EPSILON);
    }

    #[test]
    fn errors_are_counted_by_kind() {
        let errors = ErrorCounters::default();
        errors.count(ErrorKind::TimedOut);
        errors.count(ErrorKind::TimedOut);
        let counts = errors.get().and(ErrorCounts::default());
        assert_eq!(counts.of(ErrorKind::TimedOut), 2);
        assert_eq!(counts.of(ErrorKind::Pending), 0);
        assert_eq!(counts.total(), 2);
    }
}
