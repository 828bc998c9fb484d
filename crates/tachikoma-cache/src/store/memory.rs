//! The store in the memory of this process.

mod leases;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{FutureExt as _, ready};

use super::{
    Begin, Cursor, Cx, Groups, Guarantee, Health, Item, Lease, Op, Page, Peek, Purpose, Removed,
    Store, Want, When, Written,
};
use crate::clock::{Clock, Time};
use crate::entry::Entry;
use crate::error::Error;
use crate::glob::Glob;
use crate::invalidation::{Group, How, LocalGroups, Snapshot, Validity};
use crate::key::{Key, Namespace};
use crate::stats::{Evictions, StoreStats};
use leases::Leases;

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

type Map = HashMap<(Namespace, String), Entry>;

/// The store in memory.
pub struct MemoryStore {
    map: Mutex<Map>,
    leases: Leases,
    groups: LocalGroups,
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// A store within these bounds.
    pub fn new(_config: MemoryConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            map: Mutex::default(),
            leases: Leases::new(),
            groups: LocalGroups::default(),
            clock,
        }))
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, namespace: &Namespace, entry: &Entry, now: Time) -> Option<Guarantee> {
        if entry.meta().is_expired(now) {
            return None;
        }
        match self.groups.check(namespace, &entry.meta().marks) {
            Validity::Invalid => None,
            Validity::Valid if !entry.meta().is_stale(now) => Some(Guarantee::Fresh),
            Validity::Valid | Validity::Stale => Some(Guarantee::Stale),
        }
    }

    fn find(&self, key: &Key<'_>, now: Time) -> Option<(Entry, Guarantee)> {
        let entry = self.map().get(&id(key)).cloned()?;
        let guarantee = self.live(key.namespace(), &entry, now)?;
        Some((entry, guarantee))
    }
}

fn id(key: &Key<'_>) -> (Namespace, String) {
    (key.namespace().clone(), key.name().to_owned())
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

fn now<'a, T: Send + 'a>(result: T) -> Op<'a, T> {
    ready(Ok(result)).boxed()
}

impl Store for MemoryStore {
    fn peek(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        match self.find(key, now) {
            Some((entry, guarantee)) => {
                see(&entry, guarantee);
                Peek::Seen
            }
            None => Peek::Absent,
        }
    }

    fn read<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Option<(Entry, Guarantee)>>> {
        now(keys.iter().map(|key| self.find(key, cx.now)).collect())
    }

    fn begin<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        purpose: Purpose,
        cx: &'a Cx,
    ) -> Op<'a, Vec<Begin>> {
        let begin = |key: &Key<'_>| {
            let mut leases = self.leases.lock(key);
            match self.find(key, cx.now) {
                Some((entry, Guarantee::Fresh)) if purpose == Purpose::Fill => {
                    Begin::Found(entry, Guarantee::Fresh)
                }
                _ => {
                    let groups = self.groups.snapshot(key.namespace());
                    Begin::Lead(Lease { token: leases.begin(key), groups })
                }
            }
        };
        now(keys.iter().map(begin).collect())
    }

    fn write<'a>(
        &'a self,
        key: &'a Key<'a>,
        entry: Entry,
        when: When<'a>,
        cx: &'a Cx,
    ) -> Op<'a, Written> {
        let mut leases = self.leases.lock(key);
        let may = match when {
            When::Always => true,
            When::Absent => self.find(key, cx.now).is_none_or(|(_, g)| g != Guarantee::Fresh),
            When::Leased(lease) => leases.is_valid(key, lease.token),
        };
        if !may {
            return now(Written::Refused);
        }
        match when {
            When::Always | When::Absent => leases.end(key),
            When::Leased(lease) => leases.give_back(key, lease.token),
        }
        self.map().insert(id(key), entry);
        now(Written::Stored)
    }

    fn abandon(&self, key: &Key<'_>, lease: Lease) {
        self.leases.lock(key).give_back(key, lease.token);
    }

    fn touch<'a>(&'a self, key: &'a Key<'a>, expiry: Option<Time>, cx: &'a Cx) -> Op<'a, bool> {
        let _leases = self.leases.lock(key);
        let touched = match self.find(key, cx.now) {
            Some((entry, _)) => {
                self.map().insert(id(key), entry.with_expiry(expiry, expiry));
                true
            }
            None => false,
        };
        now(touched)
    }

    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed> {
        let mut count = 0;
        for key in keys {
            let mut leases = self.leases.lock(key);
            leases.end(key);
            count += u64::from(self.find(key, cx.now).is_some());
            self.map().remove(&id(key));
        }
        now(Removed { memory: Some(count), redis: None })
    }

    fn scan<'a>(
        &'a self,
        namespace: &'a Namespace,
        _at: Cursor,
        glob: &'a Glob,
        want: Want,
        _limit: usize,
        cx: &'a Cx,
    ) -> Op<'a, Page> {
        let mut items = Vec::new();
        for ((ns, name), entry) in self.map().iter() {
            if ns == namespace
                && glob.matches(name.as_bytes())
                && self.live(ns, entry, cx.now).is_some()
            {
                let entry = (want == Want::Entries).then(|| entry.clone());
                items.push(Item { name: name.clone(), entry });
            }
        }
        if want == Want::Names {
            let names = self.leases.matching(namespace, glob);
            items.extend(names.into_iter().map(|name| Item { name, entry: None }));
        }
        now(Page { items, next: None })
    }

    fn groups(&self) -> &dyn Groups {
        self
    }

    fn stats(&self) -> StoreStats {
        let (map, now) = (self.map(), self.clock.now());
        let live = map.iter().filter(|((ns, _), entry)| self.live(ns, entry, now).is_some());
        StoreStats {
            entries: Some(live.count() as u64),
            bytes: Some(0),
            evictions: Some(Evictions::default()),
            expirations: Some(0),
            ..StoreStats::default()
        }
    }

    fn health(&self) -> Health {
        Health::Up
    }
}

impl Groups for MemoryStore {
    fn snapshot<'a>(&'a self, namespace: &'a Namespace, _cx: &'a Cx) -> Op<'a, Snapshot> {
        now(self.groups.snapshot(namespace))
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        groups: &'a [Group],
        how: How,
        _cx: &'a Cx,
    ) -> Op<'a, ()> {
        self.groups.invalidate(namespace, groups, how);
        now(())
    }
}
