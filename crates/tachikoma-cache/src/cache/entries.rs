//! A cache at the level of entries, for layers that keep objects with a binary form of their own
//! (the HTTP cache keeps responses with their heads ready to send).
//!
//! It shares store, namespace and errors with its [`Cache`], but counts no hits and misses: what a
//! hit is, such a layer decides.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use super::Cache;
use crate::clock::Clock;
use crate::codec::{TypeOps, own_object};
use crate::dependencies::Dependencies;
use crate::entry::{Entry, Object, Value};
use crate::error::{BatchError, Error, ErrorKind};
use crate::expiry::Ttl;
use crate::glob::Glob;
use crate::invalidation::{Group, Mark, Marks, Validity};
use crate::key::{Key, Namespace};
use crate::load::batch::AT_ONCE;
use crate::pattern::Pattern;
use crate::store::{Cursor, Guarantee, Item, Lease, Page, Removed, Want, When, Written};

/// So many entries are looked at in one step of a count.
const COUNTED: usize = 256;

/// See the module. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Entries {
    cache: Cache,
}

/// The right to store what is read from now on; see [`Lease`]. Given back when dropped unused.
#[derive(Debug)]
pub struct EntryLease {
    cache: Cache,
    key: String,
    /// `None` if somebody else is loading this key, or the store failed.
    lease: Option<Lease>,
}

impl EntryLease {
    /// Whether a value may be stored with it, as far as is known.
    pub fn may_store(&self) -> bool {
        self.lease.is_some()
    }
}

impl Drop for EntryLease {
    fn drop(&mut self) {
        if let (Some(lease), Ok(key)) = (self.lease.take(), self.cache.key(&self.key)) {
            self.cache.shared().store.abandon(&key, lease);
        }
    }
}

impl Entries {
    pub(super) fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// The object of a key if that needs no waiting; `None` if only [`get`](Self::get) can tell.
    pub fn peek<V: Value>(&self, key: &str) -> Option<Option<Arc<V>>> {
        let Ok(key) = self.cache.key(key) else {
            return Some(None);
        };
        let (mut found, mut undecoded) = (None, None);
        let peek = self.cache.shared().peek(&key, &mut |entry, guarantee| {
            if guarantee.is_fresh() && entry.is_decoded() {
                found = own_object(entry).ok();
            }
            if found.is_none() {
                // The type's own code, and who hears of its errors, do not run under a lock.
                undecoded = Some((entry.clone(), guarantee));
            }
        });
        if let Some((entry, guarantee)) = undecoded {
            found = self.decoded(&key, &entry, guarantee);
        }
        (!peek.asks()).then_some(found)
    }

    /// The object of a key.
    ///
    /// # Errors
    ///
    /// As [`Cache::get`].
    pub async fn get<V: Value>(&self, key: &str) -> Result<Option<Arc<V>>, Error> {
        if let Some(known) = self.peek(key) {
            return Ok(known);
        }
        let key = self.cache.key(key)?;
        let shared = self.cache.shared();
        let keys = [key];
        let found = shared.counted(shared.store.read(&keys, &shared.cx()).await)?.pop().flatten();
        Ok(found.and_then(|(entry, guarantee)| self.decoded(&keys[0], &entry, guarantee)))
    }

    /// The objects of these keys, in their order, as [`Cache::get_many`] gives values.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_many`].
    pub async fn get_many<V: Value>(
        &self,
        keys: &[impl AsRef<str>],
    ) -> Result<Vec<Option<Arc<V>>>, Error> {
        let shared = self.cache.shared();
        let keys = self.cache.keys_of(keys)?;
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(AT_ONCE) {
            let entries = shared.counted(shared.store.read(chunk, &shared.cx()).await)?;
            found.extend(chunk.iter().zip(entries).map(|(key, entry)| {
                entry.and_then(|(entry, guarantee)| self.decoded(key, &entry, guarantee))
            }));
        }
        Ok(found)
    }

    fn decoded<V: Value>(
        &self,
        key: &Key<'_>,
        entry: &Entry,
        guarantee: Guarantee,
    ) -> Option<Arc<V>> {
        if !guarantee.is_fresh() {
            return None;
        }
        match own_object(entry) {
            Ok(value) => Some(value),
            Err(error) => {
                self.cache.shared().note("decode", key, &error);
                None
            }
        }
    }

    /// Takes the right to store a key, before its source is read. A store that fails, or another
    /// node that is loading, gives one that stores nothing.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey).
    pub async fn begin(&self, key: &str) -> Result<EntryLease, Error> {
        let shared = self.cache.shared();
        let mut lease = EntryLease { cache: self.cache.clone(), key: key.to_owned(), lease: None };
        let keys = [self.cache.key(key)?];
        let cx = shared.cx();
        match shared.store.begin(&keys, &cx).await {
            Ok(mut begun) => lease.lease = begun.pop().and_then(|begun| begun.lease),
            Err(error) => shared.note("begin", &keys[0], &error),
        }
        Ok(lease)
    }

    /// Stores what was read under a lease; `false` if an invalidation, a direct write or the end of
    /// the lease came in between.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`].
    pub async fn fill<V: Value, S: AsRef<str>>(
        &self,
        lease: EntryLease,
        value: Arc<V>,
        ttl: impl Into<Ttl>,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<bool, Error> {
        self.fill_with(lease, value, ttl, tags, &Dependencies::default()).await
    }

    /// As [`fill`](Self::fill), of what was made of `read`, recorded since the lease was taken: it
    /// goes when any of that goes. What is not known to depend on what is not stored.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`].
    pub async fn fill_with<V: Value, S: AsRef<str>>(
        &self,
        mut lease: EntryLease,
        value: Arc<V>,
        ttl: impl Into<Ttl>,
        tags: impl IntoIterator<Item = S>,
        read: &Dependencies,
    ) -> Result<bool, Error> {
        let Some(right) = lease.lease.filter(|_| read.is_known()) else {
            return Ok(false);
        };
        let (shared, name) = (self.cache.shared(), lease.key.clone());
        let tags = shared.counted(Group::tags(tags))?;
        let (key, cx, ops) = (self.cache.key(&name)?, shared.cx(), TypeOps::own::<V>());
        let marks = Marks::new(&tags, right.groups).and(read.parts(), key.namespace());
        let entry = shared.counted(shared.entry(ttl.into(), ops, value, marks, cx.now))?;
        lease.lease = None; // From here on it is the store's.
        let written = shared.store.write(&key, entry, When::Leased(&right), &cx).await;
        let stored = shared.counted(written)? == Written::Stored;
        if !stored {
            shared.counters.refused_fills.add_one();
        }
        Ok(stored)
    }

    /// Stores an object whatever was there.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`].
    pub async fn put<V: Value, S: AsRef<str>>(
        &self,
        key: &str,
        value: Arc<V>,
        ttl: impl Into<Ttl>,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<(), Error> {
        self.put_with(key, value, ttl, tags, &Dependencies::default()).await
    }

    /// As [`put`](Self::put), of what was made of `read`: it goes when any of that goes.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`]; [`Unsupported`](crate::ErrorKind::Unsupported) if it is not known what it
    /// depends on.
    pub async fn put_with<V: Value, S: AsRef<str>>(
        &self,
        key: &str,
        value: Arc<V>,
        ttl: impl Into<Ttl>,
        tags: impl IntoIterator<Item = S>,
        read: &Dependencies,
    ) -> Result<(), Error> {
        let shared = self.cache.shared();
        if let Some(why) = read.unknown() {
            return shared.counted(Err(Error::new(ErrorKind::Unsupported, why.to_string())));
        }
        let (tags, ops) = (shared.counted(Group::tags(tags))?, TypeOps::own::<V>());
        let made = self.cache.put_made(key, value, ops, ttl.into(), &tags, read, When::Always);
        made.await.map(|_| ())
    }

    /// Whether what was made of `read` may be used as fresh, by what this process knows without
    /// asking. `false` may also mean that it does not know.
    pub fn is_current(&self, read: &Dependencies) -> bool {
        let groups = self.cache.shared().store.groups();
        let is_valid = |(space, marks): (&Namespace, Vec<Mark>)| {
            groups.judged(space, &marks) == Some(Validity::Valid)
        };
        read.is_known() && read.parts().all(is_valid)
    }

    /// Stores several objects whatever was there, as [`Cache::set_many`] stores values.
    ///
    /// # Errors
    ///
    /// [`BatchError`], as [`Cache::set_many`].
    pub async fn put_many<V: Value, S: AsRef<str>>(
        &self,
        items: Vec<(String, Arc<V>)>,
        ttl: impl Into<Ttl>,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<(), BatchError> {
        let items = items.into_iter().map(|(key, value)| (key, value as Object)).collect();
        self.cache.put_many(items, TypeOps::own::<V>(), ttl.into(), Group::tags(tags)).await
    }

    /// Removes these keys.
    ///
    /// # Errors
    ///
    /// As [`Cache::delete`].
    pub async fn remove<S: AsRef<str>>(&self, keys: &[S]) -> Result<Removed, Error> {
        self.cache.remove_many(self.cache.keys_of(keys)?).await
    }

    /// As [`Cache::delete_pattern`].
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn remove_pattern(&self, pattern: &Pattern) -> Result<Removed, Error> {
        self.cache.delete_pattern(pattern).await
    }

    /// As [`Cache::invalidate_tags`].
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn invalidate_tags<S: AsRef<str>>(
        &self,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<(), Error> {
        self.cache.invalidate_tags(tags).await
    }

    /// One page of the keys that match, with their entries if asked for: to list or count them.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`](crate::ErrorKind::InvalidPattern); otherwise as [`Cache::get`].
    pub async fn scan(
        &self,
        pattern: &Pattern,
        at: Cursor,
        want: Want,
        limit: usize,
    ) -> Result<Page, Error> {
        let shared = self.cache.shared();
        let glob = shared.counted(pattern.glob())?;
        let namespace = self.cache.namespace_ref();
        let cx = shared.cx();
        shared.counted(shared.store.scan(namespace, at, &glob, want, limit, &cx).await)
    }

    /// As [`Store::scan_may_miss`](crate::store::Store::scan_may_miss).
    pub fn scan_may_miss(&self) -> bool {
        self.cache.shared().store.scan_may_miss()
    }

    /// How many entries have this tag and could still be seen. It looks at every entry of the
    /// namespace: for people who ask, not for requests.
    ///
    /// # Errors
    ///
    /// [`InvalidTag`](crate::ErrorKind::InvalidTag); otherwise as [`Cache::get`].
    pub async fn count_tagged(&self, tag: &str) -> Result<u64, Error> {
        let shared = self.cache.shared();
        let group = shared.counted(Group::tag(tag))?;
        let (namespace, hasher) = (self.cache.namespace_ref(), RandomState::new());
        // A scan may show a key twice; a hash is enough to tell.
        let mut seen = HashSet::new();
        let mut at = Some(Cursor::START);
        while let Some(cursor) = at {
            let (cx, everything) = (shared.cx(), Glob::everything());
            let page =
                shared.store.scan(namespace, cursor, &everything, Want::Entries, COUNTED, &cx);
            let page = shared.counted(page.await)?;
            for item in &page.items {
                let marks = item.entry.as_ref().map(|entry| entry.meta().marks.own());
                if marks.unwrap_or_default().iter().any(|mark| mark.group == group) {
                    seen.insert(hasher.hash_one(&item.name));
                }
            }
            at = page.next;
        }
        Ok(seen.len() as u64)
    }

    /// The object of an item that a scan with [`Want::Entries`] found.
    pub fn object<V: Value>(&self, item: &Item) -> Option<Arc<V>> {
        own_object(item.entry.as_ref()?).ok()
    }

    /// The cache that this is a view of.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The clock that the cache goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.cache.clock()
    }
}
