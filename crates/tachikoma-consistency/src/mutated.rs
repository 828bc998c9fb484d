//! The Redis store with one thing wrong, to see that the harness notices.
//!
//! It changes how a loaded value is stored and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tachikoma_cache::entry::{Entry, Meta};
use tachikoma_cache::glob::Glob;
use tachikoma_cache::invalidation::{Group, Marks};
use tachikoma_cache::key::{Key, Namespace};
use tachikoma_cache::stats::StoreStats;
use tachikoma_cache::store::redis::RedisStore;
use tachikoma_cache::store::{
    Begun, Cursor, Cx, Groups, Lease, Op, Page, Peek, Store, Want, When, Written,
};
use tachikoma_cache::{Error, Guarantee, Health, Removed, Time};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The fill does not ask whether its lease is still there.
    BlindFill,
    /// A value gets the counters that its tags have when it is stored.
    LateCounter,
    /// All loads of the process have the same token: a fill goes through by the lease that another
    /// load has now.
    TokenPerProcess,
}

#[derive(Debug)]
pub(crate) struct Mutated {
    inner: RedisStore,
    mutation: Mutation,
    /// The latest lease of each key.
    leases: Mutex<HashMap<String, Lease>>,
}

impl Mutated {
    pub(crate) fn new(inner: RedisStore, mutation: Mutation) -> Self {
        Self { inner, mutation, leases: Mutex::default() }
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<String, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn marked_late(&self, key: &Key<'_>, entry: Entry, cx: &Cx) -> Result<Entry, Error> {
        let meta = entry.meta();
        if meta.marks.is_empty() || meta.negative {
            return Ok(entry);
        }
        let groups: Vec<Group> = meta.marks.own().iter().map(|mark| mark.group.clone()).collect();
        let now = self.inner.groups().snapshot(key.namespace(), cx).await?;
        let meta = Meta { marks: Marks::new(&groups, now), ..meta.clone() };
        Ok(Entry::from_bytes(meta, entry.bytes()?))
    }
}

impl Store for Mutated {
    fn peek(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        self.inner.peek(key, now, see)
    }

    fn read<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Option<(Entry, Guarantee)>>> {
        self.inner.read(keys, cx)
    }

    fn begin<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Vec<Begun>> {
        Box::pin(async move {
            let begun = self.inner.begin(keys, cx).await?;
            let leases = keys.iter().zip(&begun).filter_map(|(key, one)| Some((key, one.lease?)));
            self.leases().extend(leases.map(|(key, lease)| (key.name().to_owned(), lease)));
            Ok(begun)
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a Key<'a>,
        entry: Entry,
        when: When<'a>,
        cx: &'a Cx,
    ) -> Op<'a, Written> {
        match (self.mutation, when) {
            (Mutation::BlindFill, When::Leased(_)) => {
                self.inner.write(key, entry, When::Always, cx)
            }
            (Mutation::LateCounter, When::Leased(_)) => Box::pin(async move {
                let entry = self.marked_late(key, entry, cx).await?;
                self.inner.write(key, entry, when, cx).await
            }),
            (Mutation::TokenPerProcess, When::Leased(own)) => Box::pin(async move {
                let latest = self.leases().get(key.name()).copied();
                self.inner.write(key, entry, When::Leased(&latest.unwrap_or(*own)), cx).await
            }),
            _ => self.inner.write(key, entry, when, cx),
        }
    }

    fn abandon(&self, key: &Key<'_>, lease: Lease) {
        self.inner.abandon(key, lease);
    }

    fn touch<'a>(&'a self, key: &'a Key<'a>, expiry: Option<Time>, cx: &'a Cx) -> Op<'a, bool> {
        self.inner.touch(key, expiry, cx)
    }

    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed> {
        self.inner.remove(keys, cx)
    }

    fn defer_pattern(&self, namespace: &Namespace, glob: &Glob) -> Result<(), Error> {
        self.inner.defer_pattern(namespace, glob)
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
        self.inner.scan(namespace, at, glob, want, limit, cx)
    }

    fn groups(&self) -> &dyn Groups {
        self.inner.groups()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }
}
