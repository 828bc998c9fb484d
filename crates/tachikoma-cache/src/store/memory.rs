//! The store in the memory of this process.
//!
//! Decides what of an entry may be seen (by its expiry and its groups) and which load may still
//! store. Where entries are, which go when there is no room and when they are freed is the
//! [`engine`]'s business; the [`sweeper`] frees what expired without traffic.
//!
//! Nothing here waits, so every operation is ready when it is called. No lock is held while another
//! of the same kind is taken; the order is shard, then leases or groups.

mod engine;
mod leases;
mod sweeper;
#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::future::{FutureExt as _, ready};

use self::engine::{Bounds, Engine, Insertion, Listener};
use self::leases::Leases;
use super::{
    Begun, Cursor, Cx, Groups, Guarantee, Health, Item, Lease, Op, Page, Peek, Removed, Store,
    Want, When, Written,
};
use crate::clock::{Clock, Time};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::glob::Glob;
use crate::invalidation::{Group, How, LocalGroups, Snapshot, Validity};
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
    /// Told of each entry that leaves.
    pub on_evict: Option<EvictionListener>,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { max_entries: 100_000, max_bytes: 64 << 20, on_evict: None }
    }
}

impl fmt::Debug for MemoryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConfig")
            .field("max_entries", &self.max_entries)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// The store in memory.
pub struct MemoryStore {
    engine: Engine<Entry>,
    leases: Leases,
    groups: LocalGroups,
    clock: Arc<dyn Clock>,
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
        for (name, bound) in [("max_entries", config.max_entries), ("max_bytes", config.max_bytes)]
        {
            if bound == 0 {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("{name} is 0; allowed is 1 or more"),
                ));
            }
        }
        let listener = config.on_evict.map(|told| -> Listener<Entry> {
            Box::new(move |namespace, name, _, cause| told(namespace, name, cause))
        });
        let bounds = Bounds { bytes: config.max_bytes, entries: config.max_entries };
        let store = Arc::new(Self {
            engine: Engine::new(bounds, listener),
            leases: Leases::new(),
            groups: LocalGroups::default(),
            clock,
        });
        sweeper::watch(&store)?;
        Ok(store)
    }

    /// What an unexpired entry may be used for; `None` if it was invalidated.
    fn judge(&self, namespace: &Namespace, entry: &Entry, now: Time) -> Option<Guarantee> {
        match self.groups.check(namespace, &entry.meta().marks) {
            Validity::Invalid => None,
            Validity::Valid if !entry.meta().is_stale(now) => Some(Guarantee::Fresh),
            Validity::Valid | Validity::Stale => Some(Guarantee::Stale),
        }
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

    /// Frees what has expired; when there is more to free.
    fn sweep(&self, limit: usize) -> engine::Sweep {
        self.engine.sweep(self.clock.now(), limit)
    }

    fn begin_one(&self, key: &Key<'_>, now: Time) -> Begun {
        // The lease first: what is written from here on ends it or is found below.
        let token = self.leases.lock(key).begin(key);
        let groups = self.groups.snapshot(key.namespace());
        let found = self.find(key, now).filter(|(_, guarantee)| *guarantee == Guarantee::Fresh);
        Begun { found, lease: Some(Lease { token, groups }) }
    }

    fn write_one(
        &self,
        key: &Key<'_>,
        entry: Entry,
        when: When<'_>,
        now: Time,
    ) -> Result<Written, Error> {
        let weight = weight(&entry)?;
        let (expiry, marks) = (entry.meta().hard_expiry, entry.meta().marks.clone());
        // Asked under the lock of the key's shard, as `remove` removes under it: so a removal comes
        // either before the question, and ends the lease, or after the storing, and removes it.
        let may = |old: Option<&Entry>| {
            let fresh = |old| self.judge(key.namespace(), old, now) == Some(Guarantee::Fresh);
            let mut leases = self.leases.lock(key);
            let may = match when {
                When::Always => true,
                When::Absent => !old.is_some_and(fresh),
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
                if let When::Leased(lease) = when {
                    self.leases.lock(key).give_back(key, lease.token);
                }
                Ok(Written::Stored)
            }
        }
    }

    fn remove_one(&self, key: &Key<'_>, now: Time) -> bool {
        self.leases.lock(key).end(key);
        let mut live = false;
        self.engine.remove_if(key, now, |entry| {
            live = self.judge(key.namespace(), entry, now).is_some();
            true
        });
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
        for _ in 0..PAGE_WALKS {
            let Some(at) = page.next else { break };
            let mut candidates = Vec::new();
            let next = self.engine.walk(at.0, WALK, now, |of, name, entry| {
                // The whole glob may take long, and the shard is locked.
                if of == namespace && name.starts_with(glob.literal_prefix()) {
                    candidates.push((name.to_owned(), entry.clone()));
                }
            });
            page.next = next.map(Cursor);
            candidates.retain(|(name, entry)| {
                glob.matches(name.as_bytes()) && self.judge(namespace, entry, now).is_some()
            });
            page.items.extend(candidates.into_iter().map(|(name, entry)| Item {
                name,
                entry: (want == Want::Entries).then_some(entry),
            }));
            if page.items.len() >= limit {
                break;
            }
        }
        if page.next.is_none() && want == Want::Names {
            let names = self.leases.matching(namespace, glob);
            page.items.extend(names.into_iter().map(|name| Item { name, entry: None }));
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

fn done<'a, T: Send + 'a>(result: T) -> Op<'a, T> {
    ready(Ok(result)).boxed()
}

impl Store for MemoryStore {
    fn peek(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        let seen = self.engine.peek(key, now, |entry| {
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
        done(self.engine.update(key, expiry, cx.now, |entry| {
            let fresh = self.judge(key.namespace(), entry, cx.now) == Some(Guarantee::Fresh);
            fresh.then(|| entry.with_expiry(expiry, expiry))
        }))
    }

    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed> {
        let live = keys.iter().filter(|key| self.remove_one(key, cx.now)).count();
        done(Removed { memory: Some(live as u64), redis: None })
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

    fn groups(&self) -> &dyn Groups {
        self
    }

    fn stats(&self) -> StoreStats {
        let counts = self.engine.counts();
        StoreStats {
            entries: Some(self.engine.len(self.clock.now())),
            bytes: Some(self.engine.bytes()),
            evictions: Some(Evictions {
                size: counts.gone(EvictionCause::Size),
                count: counts.gone(EvictionCause::Count),
            }),
            expirations: Some(counts.gone(EvictionCause::Expired)),
            ..StoreStats::default()
        }
    }

    fn health(&self) -> Health {
        Health::Up
    }
}

impl Groups for MemoryStore {
    fn snapshot<'a>(&'a self, namespace: &'a Namespace, _cx: &'a Cx) -> Op<'a, Snapshot> {
        done(self.groups.snapshot(namespace))
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        groups: &'a [Group],
        how: How,
        _cx: &'a Cx,
    ) -> Op<'a, ()> {
        self.groups.invalidate(namespace, groups, how);
        done(())
    }
}
