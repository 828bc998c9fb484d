//! What a cache keeps its entries in.
//!
//! [`Store`] is the one seam between the typed handle and memory, Redis, tiers, fault injection and
//! counting. It moves opaque [`Entry`]s, is safe to use as `dyn Store`, and passes one conformance
//! suite whatever is behind it. It never decodes a value and never loads one.

pub(crate) mod guarantee;
#[cfg(feature = "memory")]
pub mod memory;
pub(crate) mod observed;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(all(feature = "memory", feature = "redis"))]
pub mod tiered;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use guarantee::{Guarantee, StaleReason};

use crate::clock::{Deadline, Time};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::glob::Glob;
use crate::invalidation::{Group, How, Mark, Snapshot, Validity};
use crate::key::{Key, Namespace};
use crate::stats::StoreStats;

/// The answer of a store that may take a while.
pub type Op<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// What one operation knows of the moment it runs in.
#[derive(Debug, Clone, Copy)]
pub struct Cx {
    /// The cache's time at its start.
    pub now: Time,
    /// When it must have ended, in real time.
    pub deadline: Deadline,
}

/// What a store can show without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peek {
    /// The entry was shown.
    Seen,
    /// There is none.
    Absent,
    /// Only [`Store::read`] can tell. What was shown, if anything, is a stale entry for the case
    /// that it fails.
    Ask,
    /// The same, and [`Store::read`] would fail at once.
    Away,
}

impl Peek {
    /// Whether only [`Store::read`] can tell.
    pub fn asks(self) -> bool {
        matches!(self, Self::Ask | Self::Away)
    }
}

/// The right to store what is loaded from now on. An invalidation of the key, a direct write, or
/// that its holder was gone for too long takes the right away; then the value may be used but not
/// stored. A store behind a network renews it until it is used or [abandoned](Store::abandon).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Never given twice.
    pub token: u128,
    /// Where the group counters of the namespace stood when it was given.
    pub groups: Snapshot,
}

/// Tells one load of a key from the next one, without the right that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub u64);

/// What a load finds when it begins.
#[derive(Debug, Default)]
pub struct Begun {
    /// The entry: fresh if somebody stored it meanwhile or it is to be renewed early, or stale.
    pub found: Option<(Entry, Guarantee)>,
    /// The right to store: to be used or [abandoned](Store::abandon). `None`: somebody else is
    /// loading this key. Wait until it [changed](Store::changed) and begin again; or load, but do
    /// not store.
    pub lease: Option<Lease>,
    /// Who else is loading it, as far as that is known.
    pub holder: Option<Holder>,
    /// A [guard](Store::guard) of the key is open: there is no lease until it has ended. Load, but
    /// do not store, and wait for nobody.
    pub guarded: bool,
}

/// The guard of some keys while their source is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Never given twice.
    pub token: u128,
    /// Where the group counters of the namespace stood when it began.
    pub groups: Snapshot,
}

/// When a write takes place.
#[derive(Debug, Clone, Copy)]
pub enum When<'a> {
    /// Always. Ends the leases of loads that are under way: they read older data.
    Always,
    /// Only if the key has no fresh entry. Ends leases as `Always` if it takes place.
    Absent,
    /// Only while this lease is valid. Ends the lease whatever comes of it: also if it is refused
    /// or fails, or if nobody waits for it. It is not to be abandoned besides.
    Leased(&'a Lease),
}

/// One entry to store among others.
#[derive(Debug, Clone)]
pub struct Write<'a> {
    /// Where.
    pub key: Key<'a>,
    /// What.
    pub entry: Entry,
    /// On which condition.
    pub when: When<'a>,
}

/// Whether a write took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It did.
    Stored,
    /// It did not: there was an entry, or the lease had ended.
    Refused,
}

/// How many entries were removed, in each tier that a store has; `None` for a tier that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// From the memory of this process.
    pub memory: Option<u64>,
    /// From Redis.
    pub redis: Option<u64>,
}

impl Removed {
    /// The most that any tier removed: tiers hold copies of the same entries.
    pub fn total(self) -> u64 {
        self.memory.max(self.redis).unwrap_or(0)
    }

    /// Both counted together, tier by tier.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let add = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        Self { memory: add(self.memory, other.memory), redis: add(self.redis, other.redis) }
    }
}

/// Where a scan goes on. A store gives it; only [`START`](Self::START) is made by a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub u64);

impl Cursor {
    /// The beginning.
    pub const START: Self = Self(0);
}

/// What a scan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The names of all that is there, also of what was invalidated and of keys that only have a
    /// load under way: to remove them.
    Names,
    /// The names of live entries: to list them.
    Live,
    /// Live entries with what they hold.
    Entries,
}

/// One key that a scan found.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its name in the namespace.
    pub name: String,
    /// Its entry, if [`Want::Entries`] asked for it.
    pub entry: Option<Entry>,
}

/// A part of a scan.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What it found; a key may come twice in one scan.
    pub items: Vec<Item>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Whether a store does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Up,
    /// It does not, since then; callers get their loaders' values.
    Degraded {
        /// When it was first noticed.
        since: Time,
        /// What is wrong, without secrets.
        reason: String,
    },
}

/// Keeps entries.
///
/// Rules for each implementation, checked by the conformance suite:
///
/// - Expiry holds in every method: what is past `hard_expiry` is absent everywhere, also in counts.
/// - An entry whose groups were hard-invalidated is absent; soft-invalidated or past `soft_expiry`
///   it is shown as [`Guarantee::Stale`].
/// - After `remove` of a key has answered `Ok`, no write with a lease that was given before
///   `remove` was called takes place. The same for `write` with `Always` and `Absent`.
/// - `remove` that could not reach the store answers [`Pending`](crate::ErrorKind::Pending): it is
///   kept, retried until it is in, also if the caller goes away, and meanwhile this store shows the
///   key as absent.
/// - No method outlives `cx.deadline` by more than a few milliseconds, and none panics.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Shows the entry if that needs no waiting. `see` is called at most once, maybe under a lock:
    /// it must be quick and must not use the store. With [`Peek::Ask`] and [`Peek::Away`] it is
    /// shown only what is [stale](Guarantee::is_stale).
    fn peek(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek;

    /// As [`peek`](Self::peek), for somebody who only looks: it is no use of the entry, so it keeps
    /// it neither beyond its time to idle nor when room is made. Default: `peek`, which is right
    /// for a store that keeps nothing by it.
    fn look(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        self.peek(key, now, see)
    }

    /// The entries of these keys, in their order.
    fn read<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Option<(Entry, Guarantee)>>>;

    /// Begins a load of each of these keys, in their order.
    fn begin<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Vec<Begun>>;

    /// Ends when one of these keys may have changed since the call, so that whoever waits for
    /// another process's load need not ask again before. It may end for no reason. Default: it
    /// never ends, so those who wait ask from time to time.
    fn changed<'a>(&'a self, keys: &'a [Key<'a>]) -> BoxFuture<'a, ()> {
        let _ = keys;
        Box::pin(std::future::pending())
    }

    /// Stores an entry. [`TooLarge`](crate::ErrorKind::TooLarge) if it can never fit; others stay
    /// then.
    fn write<'a>(
        &'a self,
        key: &'a Key<'a>,
        entry: Entry,
        when: When<'a>,
        cx: &'a Cx,
    ) -> Op<'a, Written>;

    /// Stores several entries (all of one namespace) in their order, each as [`write`](Self::write)
    /// would; what came of each. One that fails spoils none of the others. A store behind a network
    /// needs one round
    /// trip for all.
    fn write_many<'a>(
        &'a self,
        writes: &'a [Write<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Result<Written, Error>>> {
        Box::pin(async move {
            let mut written = Vec::with_capacity(writes.len());
            for one in writes {
                written.push(self.write(&one.key, one.entry.clone(), one.when, cx).await);
            }
            Ok(written)
        })
    }

    /// Gives a lease back that will not be used. Never waits.
    fn abandon(&self, key: &Key<'_>, lease: Lease);

    /// Gives a fresh entry a new expiry, `None` for none; false if the key has none.
    fn touch<'a>(&'a self, key: &'a Key<'a>, expiry: Option<Time>, cx: &'a Cx) -> Op<'a, bool>;

    /// Removes these keys (all of one namespace) and ends their leases.
    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed>;

    /// For how long after a [`remove`](Self::remove) has answered `Ok` another process may show as
    /// fresh what was there before. Default: zero, no other process has any of it.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }

    /// Ends when what any process had changed before the call is known here, so that nothing older
    /// is shown as fresh from then on; bounded by [`lag`](Self::lag), after which that is so by
    /// itself. Default: at once, nothing is shown that is not asked for.
    fn catch_up(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Remembers to remove the keys that match, because a [`scan`](Self::scan) for them could not
    /// reach the store: from now on they are shown as absent, and they are removed when it is back.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) by a store that can always be reached.
    fn defer_pattern(&self, namespace: &Namespace, glob: &Glob) -> Result<(), Error> {
        let _ = (namespace, glob);
        Err(ErrorKind::Unsupported.into())
    }

    /// Begins a guard of these keys (all of one namespace): removes them as
    /// [`remove`](Self::remove) does, and until the guard has ended gives no lease of them. It ends
    /// by itself after `life`, for the case that its holder dies.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) by a store that has no guards.
    fn guard<'a>(&'a self, keys: &'a [Key<'a>], life: Duration, cx: &'a Cx) -> Op<'a, Guard> {
        let _ = (keys, life, cx);
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }

    /// Ends a guard: stores the entry of a key that has one, if the guard was open until now and no
    /// other guard of the key overlapped with it, and removes the key otherwise. Whether each was
    /// stored. Fails as [`remove`](Self::remove) does: with `Pending` all of these keys are
    /// removed.
    fn end_guard<'a>(
        &'a self,
        guard: &'a Guard,
        ends: &'a [(Key<'a>, Option<Entry>)],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Written>> {
        let _ = (guard, ends, cx);
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }

    /// Ends a guard whose holder went away: its keys are removed, as soon as that can be. Never
    /// waits.
    fn abandon_guard(&self, guard: &Guard, keys: &[Key<'_>]) {
        let _ = (guard, keys);
    }

    /// The keys of a namespace that match, `limit` at a time or somewhat more. A key that is there
    /// from the scan's beginning to its end is found.
    fn scan<'a>(
        &'a self,
        namespace: &'a Namespace,
        at: Cursor,
        glob: &'a Glob,
        want: Want,
        limit: usize,
        cx: &'a Cx,
    ) -> Op<'a, Page>;

    /// Whether a scan for [`Want::Names`] may miss a key whose load was under way when it began and
    /// stored since: then a second scan after it finds the entry. Default: it misses none.
    fn scan_may_miss(&self) -> bool {
        false
    }

    /// Writes what it holds to its snapshot file; how many entries. Not bounded by a deadline: it
    /// takes as long as the disk does.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) by a store that has none.
    fn save_snapshot(&self) -> Op<'_, u64> {
        Box::pin(async {
            Err(Error::new(ErrorKind::Unsupported, "the store has no snapshot file"))
        })
    }

    /// The groups of its entries.
    fn groups(&self) -> &dyn Groups;

    /// Whether each removal and each write of a key but under a lease invalidates the
    /// [group of the key](Group::of_key) after it took place, and a deferred pattern
    /// [that of all](Group::of_any_key), so that what was made of entries can be judged by it.
    /// Default: no.
    fn has_dependencies(&self) -> bool {
        false
    }

    /// What it counted. Quick: at most a microsecond.
    fn stats(&self) -> StoreStats;

    /// Whether it works.
    fn health(&self) -> Health;
}

/// The group counters that belong to a store.
pub trait Groups: Send + Sync {
    /// Where the counters of a namespace stand: for an entry that is written without a lease.
    fn snapshot<'a>(&'a self, namespace: &'a Namespace, cx: &'a Cx) -> Op<'a, Snapshot>;

    /// Where they stood not later than now, if that is known without waiting. Default: it is not.
    fn known(&self, namespace: &Namespace) -> Option<Snapshot> {
        let _ = namespace;
        None
    }

    /// Whether what has these marks in a namespace may be used, by what is known without waiting.
    /// Default: nothing is.
    fn judged(&self, namespace: &Namespace, marks: &[Mark]) -> Option<Validity> {
        let _ = (namespace, marks);
        None
    }

    /// Invalidates all entries of these groups whose source was read before now. Answers
    /// [`Pending`](crate::ErrorKind::Pending) as [`Store::remove`] does.
    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        groups: &'a [Group],
        how: How,
        cx: &'a Cx,
    ) -> Op<'a, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_counts_tiers_apart() {
        let memory = Removed { memory: Some(3), redis: None };
        let redis = Removed { memory: None, redis: Some(5) };
        assert_eq!(memory.and(redis), Removed { memory: Some(3), redis: Some(5) });
        assert_eq!(memory.and(memory).memory, Some(6));
        assert_eq!(memory.and(redis).total(), 5);
        assert_eq!(Removed::default().total(), 0);
    }
}
