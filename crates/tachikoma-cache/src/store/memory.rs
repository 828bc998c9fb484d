//! The store in the memory of this process.
//!
//! Decides what of an entry may be seen (by its expiry and its groups) and which load may still
//! store. Where entries are, which go when there is no room and when they are freed is the
//! [`engine`]'s business; the [`sweeper`] frees what expired without traffic.
//!
//! Nothing here waits, so every operation is ready when it is called. No lock is held while another
//! of the same kind is taken; the order is shard, then leases or groups.

#[cfg(feature = "redis")]
mod copies;
mod engine;
mod guards;
mod leases;
mod leaving;
mod snapshot;
mod sweeper;
#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{FutureExt as _, ready};

use self::engine::{Bounds, Census, Engine, Insertion};
use self::leases::Leases;
use self::leaving::leaving;
use self::snapshot::Snapshots;
pub use self::snapshot::{DEFAULT_MAX_BYTES as DEFAULT_SNAPSHOT_BYTES, SnapshotFile};
use super::{
    Begun, Cursor, Cx, Groups, Guarantee, Guard, Health, Item, Lease, Op, Page, Peek, Removed,
    Store, Want, When, Written,
};
use crate::clock::{Clock, Time};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::events::Listeners;
use crate::expiry::{gone_at, moved};
use crate::glob::Glob;
use crate::invalidation::{Group, How, Judge, LocalGroups, Mark, Snapshot, Validity};
use crate::key::{Key, Namespace};
use crate::stats::{Evictions, StoreStats};

/// A scan looks at so many entries under one lock.
const WALK: usize = 256;

/// A scan that finds little still ends a page after so many entries, so that others get their turn.
const PAGE_WALKS: usize = 64;

/// Told of each entry that leaves: its namespace, its key, and why.
pub type EvictionListener = Arc<dyn Fn(&Namespace, &str, EvictionCause) + Send + Sync>;

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EvictionCause {
    /// Its time was over.
    Expired,
    /// The bound in bytes.
    Size,
    /// The bound in entries.
    Count,
    /// A newer value took its place.
    Replaced,
    /// It was removed or invalidated.
    Removed,
}

impl EvictionCause {
    const NUMBER: usize = 5;
}

/// The bounds of a store in memory.
#[derive(Clone)]
pub struct MemoryConfig {
    /// The most entries.
    pub max_entries: u64,
    /// The most bytes.
    pub max_bytes: u64,
    /// The most bytes of one value, without its key.
    pub max_value_bytes: u64,
    /// Told of each entry that leaves.
    pub on_evict: Option<EvictionListener>,
    /// Where it keeps a snapshot of itself.
    pub snapshot: Option<SnapshotFile>,
    /// Whether what is removed or written takes along what was made of it.
    pub dependencies: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            max_entries: 100_000,
            max_bytes: 64 << 20,
            max_value_bytes: u64::MAX,
            on_evict: None,
            snapshot: None,
            dependencies: false,
        }
    }
}

impl fmt::Debug for MemoryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConfig")
            .field("max_entries", &self.max_entries)
            .field("max_bytes", &self.max_bytes)
            .field("max_value_bytes", &self.max_value_bytes)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

/// The store in memory.
pub struct MemoryStore {
    engine: Engine<Entry>,
    leases: Leases,
    groups: LocalGroups,
    judge: Option<Arc<dyn Judge>>,
    dependencies: bool,
    max_value_bytes: u64,
    clock: Arc<dyn Clock>,
    snapshots: Option<Snapshots>,
    me: Weak<Self>,
}

impl MemoryStore {
    /// A store within these bounds. What expires in it is freed within a second by a thread that
    /// all stores of the process share.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if a bound is zero; [`ErrorKind::Unavailable`] if the thread cannot be
    /// started.
    pub fn new(config: MemoryConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Error> {
        Self::observed(config, clock, None)
    }

    /// As [`new`](Self::new); `listeners` are told of what is evicted and what expires.
    pub(crate) fn observed(
        config: MemoryConfig,
        clock: Arc<dyn Clock>,
        listeners: Option<Arc<Listeners>>,
    ) -> Result<Arc<Self>, Error> {
        Self::judged(config, clock, listeners, None)
    }

    /// As [`observed`](Self::observed); entries are judged by `judge` if it is not this process
    /// that counts their invalidations.
    fn judged(
        config: MemoryConfig,
        clock: Arc<dyn Clock>,
        listeners: Option<Arc<Listeners>>,
        judge: Option<Arc<dyn Judge>>,
    ) -> Result<Arc<Self>, Error> {
        for (name, bound) in [
            ("max_entries", config.max_entries),
            ("max_bytes", config.max_bytes),
            ("max_value_bytes", config.max_value_bytes),
        ] {
            if bound == 0 {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("{name} is 0; allowed is 1 or more"),
                ));
            }
        }
        if let Some(file) = &config.snapshot {
            file.check()?;
        }
        let listener = leaving(config.on_evict, listeners);
        let bounds = Bounds { bytes: config.max_bytes, entries: config.max_entries };
        let store = Arc::new_cyclic(|me| Self {
            engine: Engine::new(bounds, listener),
            leases: Leases::new(),
            groups: LocalGroups::default(),
            judge,
            dependencies: config.dependencies,
            max_value_bytes: config.max_value_bytes,
            clock,
            snapshots: config.snapshot.map(Snapshots::new),
            me: Weak::clone(me),
        });
        if let Some(snapshots) = &store.snapshots {
            snapshots.load(&store);
            snapshots.keep_saving(Arc::downgrade(&store))?;
        }
        sweeper::watch(&store)?;
        Ok(store)
    }

    /// What an unexpired entry may be used for; `None` if it was invalidated.
    fn judge(&self, namespace: &Namespace, entry: &Entry, now: Time) -> Option<Guarantee> {
        let marks = &entry.meta().marks;
        let judge: &dyn Judge = self.judge.as_deref().unwrap_or(&self.groups);
        let judged = (!marks.is_empty()).then(|| judge.check(namespace, marks, entry.stamp()));
        Guarantee::of(entry.meta(), judged.unwrap_or(Validity::Valid), now)
    }

    /// Whether an entry is a fresh value, not stale and not the note that there is none.
    fn has_value(&self, namespace: &Namespace, entry: &Entry, now: Time) -> bool {
        !entry.meta().negative && self.judge(namespace, entry, now) == Some(Guarantee::Fresh)
    }

    fn find(&self, key: &Key<'_>, now: Time) -> Option<(Entry, Guarantee)> {
        let mut found = None;
        self.peek(key, now, &mut |entry, guarantee| found = Some((entry.clone(), guarantee)));
        found
    }

    /// Frees an entry that was found invalidated, unless it was replaced meanwhile.
    fn free_invalid(&self, key: &Key<'_>, now: Time) {
        self.engine.remove_if(key, now, |entry| self.judge(key.namespace(), entry, now).is_none());
    }

    /// Before a change is answered that a snapshot may say otherwise.
    #[inline]
    fn changed(&self) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.changed();
        }
    }

    /// After a key was changed: what was made of it is no longer valid.
    fn outdate(&self, key: &Key<'_>) {
        if self.dependencies {
            self.groups.invalidate(key.namespace(), &[Group::of_key(key.name())], How::Hard);
        }
    }

    /// Frees what has expired; when there is more to free.
    fn sweep(&self, limit: usize) -> engine::Sweep {
        self.engine.sweep(self.clock.now(), limit)
    }

    fn begin_one(&self, key: &Key<'_>, now: Time) -> Begun {
        // The lease first: what is written from here on ends it or is found below.
        let mut leases = self.leases.lock(key);
        let guarded = leases.is_guarded(key, now);
        let token = (!guarded).then(|| leases.begin(key));
        drop(leases);
        let groups = self.groups.snapshot(key.namespace());
        let lease = token.map(|token| Lease { token, groups });
        Begun { found: self.find(key, now), lease, holder: None, guarded }
    }

    fn write_one(
        &self,
        key: &Key<'_>,
        entry: Entry,
        when: When<'_>,
        now: Time,
    ) -> Result<Written, Error> {
        let _ending = Ending::of(&self.leases, key, when);
        let weight = weight(&entry)?;
        if weight > self.max_value_bytes {
            let limit = self.max_value_bytes;
            let text = format!("about {weight} bytes; max_value_bytes allows {limit}");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let (expiry, marks) = (gone_at(entry.meta(), now), entry.meta().marks.clone());
        // Asked under the lock of the key's shard, as `remove` removes under it: so a removal comes
        // either before the question, and ends the lease, or after the storing, and removes it.
        let may = |old: Option<&Entry>| {
            let has_value = |old: &Entry| self.has_value(key.namespace(), old, now);
            let mut leases = self.leases.lock(key);
            let may = match when {
                When::Always => true,
                When::Absent => !old.is_some_and(has_value),
                When::Leased(lease) => {
                    return leases.is_valid(key, lease.token)
                        && self.groups.check(key.namespace(), &marks) != Validity::Invalid;
                }
            };
            if may {
                leases.end(key);
            }
            may
        };
        match self.engine.insert(key, entry, weight, expiry, now, may) {
            Insertion::Refused => Ok(Written::Refused),
            Insertion::TooLarge => Err(Error::new(
                ErrorKind::TooLarge,
                format!("about {weight} bytes; the whole cache has {}", self.engine.max_bytes()),
            )),
            Insertion::Stored => {
                if !matches!(when, When::Leased(_)) {
                    self.outdate(key);
                }
                self.changed();
                Ok(Written::Stored)
            }
        }
    }

    fn remove_one(&self, key: &Key<'_>, now: Time) -> bool {
        self.leases.lock(key).end(key);
        self.remove_entry(key, now)
    }

    /// Removes an entry whose leases have ended; whether it had a value.
    fn remove_entry(&self, key: &Key<'_>, now: Time) -> bool {
        let mut live = false;
        self.engine.remove_if(key, now, |entry| {
            let seen = self.judge(key.namespace(), entry, now).is_some();
            live = seen && !entry.meta().negative;
            true
        });
        // Also of a key that is not here: it may be in the file, or what was made of it here.
        self.outdate(key);
        self.changed();
        live
    }

    fn page(
        &self,
        namespace: &Namespace,
        at: Cursor,
        glob: &Glob,
        want: Want,
        limit: usize,
        now: Time,
    ) -> Page {
        let mut page = Page { items: Vec::new(), next: Some(at) };
        if at == Cursor::START && want == Want::Names {
            // Before the entries: what is stored under a lease may come to where the scan has been.
            let names = self.leases.matching(namespace, glob);
            page.items.extend(names.into_iter().map(|name| Item { name, entry: None }));
        }
        for _ in 0..PAGE_WALKS {
            let Some(at) = page.next else { break };
            let mut candidates = Vec::new();
            // Each place has at most one entry, so the page does not grow beyond its limit.
            let places = WALK.min(limit.saturating_sub(page.items.len())).max(1);
            let next = self.engine.walk(at.0, places, now, |of, name, entry| {
                // The whole glob may take long, and the shard is locked.
                if of == namespace && name.starts_with(glob.literal_prefix()) {
                    candidates.push((name.to_owned(), entry.clone()));
                }
            });
            page.next = next.map(Cursor);
            candidates.retain(|(name, entry)| {
                glob.matches(name.as_bytes())
                    && match want {
                        Want::Names => true,
                        Want::Live if entry.meta().negative => false,
                        Want::Live | Want::Entries => self.judge(namespace, entry, now).is_some(),
                    }
            });
            page.items.extend(candidates.into_iter().map(|(name, entry)| Item {
                name,
                entry: (want == Want::Entries).then_some(entry),
            }));
            if page.items.len() >= limit {
                break;
            }
        }
        page
    }
}

/// What an entry takes beside its place in the engine.
fn weight(entry: &Entry) -> Result<u64, Error> {
    // The type's own code.
    let weigh = catch_unwind(AssertUnwindSafe(|| entry.weight()));
    let weight = weigh
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unencodable, "its weigher panicked")))?;
    Ok(weight.saturating_add(Entry::FOOTPRINT) as u64)
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// A write with a lease ends it, whatever comes of the write.
struct Ending<'a>(&'a Leases, &'a Key<'a>, u128);

impl<'a> Ending<'a> {
    fn of(leases: &'a Leases, key: &'a Key<'a>, when: When<'_>) -> Option<Self> {
        match when {
            When::Leased(lease) => Some(Self(leases, key, lease.token)),
            When::Always | When::Absent => None,
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.lock(self.1).give_back(self.1, self.2);
    }
}

fn done<'a, T: Send + 'a>(result: T) -> Op<'a, T> {
    ready(Ok(result)).boxed()
}

impl Store for MemoryStore {
    fn peek(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        let keep = |entry: &Entry| entry.meta().idle.and_then(|_| gone_at(entry.meta(), now));
        let seen = self.engine.peek_and_keep(key, now, keep, |entry| {
            let guarantee = self.judge(key.namespace(), entry, now);
            if let Some(guarantee) = guarantee {
                see(entry, guarantee);
            }
            guarantee.is_some()
        });
        match seen {
            Some(true) => Peek::Seen,
            Some(false) => {
                self.free_invalid(key, now);
                Peek::Absent
            }
            None => Peek::Absent,
        }
    }

    fn look(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        let seen = self.engine.look(key, now, |entry| {
            let guarantee = self.judge(key.namespace(), entry, now)?;
            see(entry, guarantee);
            Some(())
        });
        if seen.flatten().is_some() { Peek::Seen } else { Peek::Absent }
    }

    fn read<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Option<(Entry, Guarantee)>>> {
        done(keys.iter().map(|key| self.find(key, cx.now)).collect())
    }

    fn begin<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Vec<Begun>> {
        done(keys.iter().map(|key| self.begin_one(key, cx.now)).collect())
    }

    fn write<'a>(
        &'a self,
        key: &'a Key<'a>,
        entry: Entry,
        when: When<'a>,
        cx: &'a Cx,
    ) -> Op<'a, Written> {
        ready(self.write_one(key, entry, when, cx.now)).boxed()
    }

    fn abandon(&self, key: &Key<'_>, lease: Lease) {
        self.leases.lock(key).give_back(key, lease.token);
    }

    fn touch<'a>(&'a self, key: &'a Key<'a>, expiry: Option<Time>, cx: &'a Cx) -> Op<'a, bool> {
        let touched = self.engine.update(key, cx.now, |entry| {
            let hard = moved(entry.meta(), expiry);
            let has_value = self.has_value(key.namespace(), entry, cx.now);
            has_value.then(|| {
                let entry = entry.with_expiry(expiry, hard);
                let gone = gone_at(entry.meta(), cx.now);
                (entry, gone)
            })
        });
        self.changed();
        done(touched)
    }

    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed> {
        let live = keys.iter().filter(|key| self.remove_one(key, cx.now)).count();
        done(Removed { memory: Some(live as u64), redis: None })
    }

    fn guard<'a>(&'a self, keys: &'a [Key<'a>], life: Duration, cx: &'a Cx) -> Op<'a, Guard> {
        ready(self.begin_guard(keys, life, cx.now)).boxed()
    }

    fn end_guard<'a>(
        &'a self,
        guard: &'a Guard,
        ends: &'a [(Key<'a>, Option<Entry>)],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Written>> {
        let ends =
            ends.iter().map(|(key, entry)| self.end_guard_of(key, guard, entry.as_ref(), cx.now));
        done(ends.collect())
    }

    fn abandon_guard(&self, guard: &Guard, keys: &[Key<'_>]) {
        for key in keys {
            self.end_guard_of(key, guard, None, self.clock.now());
        }
    }

    fn scan<'a>(
        &'a self,
        namespace: &'a Namespace,
        at: Cursor,
        glob: &'a Glob,
        want: Want,
        limit: usize,
        cx: &'a Cx,
    ) -> Op<'a, Page> {
        async move {
            let page = self.page(namespace, at, glob, want, limit, cx.now);
            // A long scan is many pages; the runtime's other tasks come in between.
            tokio::task::yield_now().await;
            Ok(page)
        }
        .boxed()
    }

    fn save_snapshot(&self) -> Op<'_, u64> {
        let none = || Error::new(ErrorKind::Unsupported, "the store has no snapshot file");
        let (Some(store), true) = (self.me.upgrade(), self.snapshots.is_some()) else {
            return ready(Err(none())).boxed();
        };
        let save = move || store.snapshots.as_ref().map_or(Err(none()), |own| own.save(&store));
        async move {
            // Without a runtime there is nobody else who would wait.
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => runtime.spawn_blocking(save).await.unwrap_or_else(|_| {
                    Err(Error::new(ErrorKind::Unavailable, "the runtime shut down"))
                }),
                Err(_) => save(),
            }
        }
        .boxed()
    }

    fn groups(&self) -> &dyn Groups {
        self
    }

    fn has_dependencies(&self) -> bool {
        self.dependencies
    }

    fn stats(&self) -> StoreStats {
        let Census { live, expired, counts } = self.engine.census(self.clock.now());
        StoreStats {
            entries: Some(live),
            bytes: Some(self.engine.bytes()),
            evictions: Some(Evictions {
                size: counts.gone(EvictionCause::Size),
                count: counts.gone(EvictionCause::Count),
            }),
            expirations: Some(counts.gone(EvictionCause::Expired) + expired),
            inserts: Some(counts.inserted()),
            replacements: Some(counts.gone(EvictionCause::Replaced)),
            removals: Some(counts.gone(EvictionCause::Removed)),
            hook_panics: self.engine.panics(),
            snapshot: self.snapshots.as_ref().map(Snapshots::stats),
            ..StoreStats::default()
        }
    }

    fn health(&self) -> Health {
        Health::Up
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        if let Some(snapshots) = self.snapshots.as_ref().filter(|own| !own.is_current()) {
            // Counted and logged there; nobody waits for the answer.
            let _ = snapshots.save(self);
        }
    }
}

impl Groups for MemoryStore {
    fn snapshot<'a>(&'a self, namespace: &'a Namespace, _cx: &'a Cx) -> Op<'a, Snapshot> {
        done(self.groups.snapshot(namespace))
    }

    fn known(&self, namespace: &Namespace) -> Option<Snapshot> {
        Some(self.groups.snapshot(namespace))
    }

    fn judged(&self, namespace: &Namespace, marks: &[Mark]) -> Option<Validity> {
        Some(self.groups.check_in(namespace, marks))
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        groups: &'a [Group],
        how: How,
        _cx: &'a Cx,
    ) -> Op<'a, ()> {
        self.groups.invalidate(namespace, groups, how);
        self.changed();
        done(())
    }
}
