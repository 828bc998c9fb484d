//! A store that tells what is written to another one and removed from it, and counts its top keys.
//!
//! It stands between a cache and its store only if somebody wants to know. It decides nothing: what
//! it answers is what the other one answered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};

use super::{
    Begun, Cursor, Cx, Groups, Guarantee, Guard, Health, Lease, Op, Page, Peek, Removed, Store,
    Want, When, Write, Written,
};
use crate::clock::Time;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::events::{EventKind, Listeners};
use crate::glob::Glob;
use crate::invalidation::{Group, How, Mark, Snapshot, Validity};
use crate::key::{Key, Namespace};
use crate::stats::StoreStats;
use crate::top::Top;

/// See the module.
pub(crate) struct Observed {
    inner: Arc<dyn Store>,
    listeners: Option<Arc<Listeners>>,
    top: Option<Top>,
}

impl Observed {
    pub(crate) fn new(
        inner: Arc<dyn Store>,
        listeners: Option<Arc<Listeners>>,
        top: Option<Top>,
    ) -> Self {
        Self { inner, listeners, top }
    }

    /// What was counted of its keys, if it was to count.
    pub(crate) fn top(&self) -> Option<&Top> {
        self.top.as_ref()
    }

    /// The size of a key's value now: zero if it has none, `None` if that would need waiting.
    pub(crate) fn size_now(&self, key: &Key<'_>, now: Time) -> Option<u64> {
        let mut bytes = None;
        let mut see = |entry: &Entry, _| bytes = entry.known_bytes().map(|bytes| bytes as u64);
        match self.inner.look(key, now, &mut see) {
            Peek::Seen => bytes,
            Peek::Absent => Some(0),
            Peek::Ask | Peek::Away => None,
        }
    }

    fn tell_written(&self, key: &Key<'_>, entry: &Entry, written: &Result<Written, Error>) {
        if matches!(written, Ok(Written::Stored)) {
            self.sized(key, entry);
        }
        let kind = match written {
            Ok(Written::Stored) => EventKind::Stored { bytes: entry.known_bytes() },
            Ok(Written::Refused) => EventKind::NotStored { error: None },
            Err(error) => EventKind::NotStored { error: Some(error.kind()) },
        };
        self.tell(key, kind);
    }

    fn tell_deleted(&self, keys: &[Key<'_>], error: Option<ErrorKind>) {
        for key in keys {
            if let Some(top) = &self.top {
                top.gone(key);
            }
            self.tell(key, EventKind::Deleted { error });
        }
    }

    fn tell(&self, key: &Key<'_>, kind: EventKind<'_>) {
        if let Some(listeners) = &self.listeners {
            listeners.tell(key.namespace(), Some(key.name()), kind);
        }
    }

    fn sized(&self, key: &Key<'_>, entry: &Entry) {
        if let (Some(top), Some(bytes)) = (&self.top, entry.known_bytes()) {
            top.sized(key, bytes, entry.meta().hard_expiry);
        }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Store for Observed {
    fn peek(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        let peek = self.inner.peek(key, now, see);
        if let (Some(top), Peek::Seen) = (&self.top, peek) {
            top.used(key);
        }
        peek
    }

    fn look(&self, key: &Key<'_>, now: Time, see: &mut dyn FnMut(&Entry, Guarantee)) -> Peek {
        self.inner.look(key, now, see)
    }

    fn read<'a>(
        &'a self,
        keys: &'a [Key<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Option<(Entry, Guarantee)>>> {
        let Some(top) = &self.top else { return self.inner.read(keys, cx) };
        async move {
            let found = self.inner.read(keys, cx).await?;
            for (key, found) in keys.iter().zip(&found) {
                match found {
                    Some((entry, _)) => {
                        top.used(key);
                        self.sized(key, entry);
                    }
                    None => top.gone(key),
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn begin<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Vec<Begun>> {
        self.inner.begin(keys, cx)
    }

    fn changed<'a>(&'a self, keys: &'a [Key<'a>]) -> BoxFuture<'a, ()> {
        self.inner.changed(keys)
    }

    fn write<'a>(
        &'a self,
        key: &'a Key<'a>,
        entry: Entry,
        when: When<'a>,
        cx: &'a Cx,
    ) -> Op<'a, Written> {
        async move {
            let written = self.inner.write(key, entry.clone(), when, cx).await;
            self.tell_written(key, &entry, &written);
            written
        }
        .boxed()
    }

    fn write_many<'a>(
        &'a self,
        writes: &'a [Write<'a>],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Result<Written, Error>>> {
        async move {
            let written = self.inner.write_many(writes, cx).await;
            let failed = written.as_ref().err().map(Error::kind);
            for (index, Write { key, entry, .. }) in writes.iter().enumerate() {
                match (written.as_ref().ok().and_then(|written| written.get(index)), failed) {
                    (Some(written), _) => self.tell_written(key, entry, written),
                    (None, error) => self.tell(key, EventKind::NotStored { error }),
                }
            }
            written
        }
        .boxed()
    }

    fn abandon(&self, key: &Key<'_>, lease: Lease) {
        self.inner.abandon(key, lease);
    }

    fn touch<'a>(&'a self, key: &'a Key<'a>, expiry: Option<Time>, cx: &'a Cx) -> Op<'a, bool> {
        self.inner.touch(key, expiry, cx)
    }

    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed> {
        async move {
            let removed = self.inner.remove(keys, cx).await;
            self.tell_deleted(keys, removed.as_ref().err().map(Error::kind));
            removed
        }
        .boxed()
    }

    fn guard<'a>(&'a self, keys: &'a [Key<'a>], life: Duration, cx: &'a Cx) -> Op<'a, Guard> {
        async move {
            let guard = self.inner.guard(keys, life, cx).await;
            if guard.is_ok() {
                self.tell_deleted(keys, None);
            }
            guard
        }
        .boxed()
    }

    fn end_guard<'a>(
        &'a self,
        guard: &'a Guard,
        ends: &'a [(Key<'a>, Option<Entry>)],
        cx: &'a Cx,
    ) -> Op<'a, Vec<Written>> {
        async move {
            let written = self.inner.end_guard(guard, ends, cx).await;
            let error = written.as_ref().err().map(Error::kind);
            for (index, (key, entry)) in ends.iter().enumerate() {
                let written = written.as_ref().ok().and_then(|written| written.get(index));
                match (entry, written) {
                    (Some(entry), Some(stored @ Written::Stored)) => {
                        self.tell_written(key, entry, &Ok(*stored));
                    }
                    _ => self.tell_deleted(std::slice::from_ref(key), error),
                }
            }
            written
        }
        .boxed()
    }

    fn abandon_guard(&self, guard: &Guard, keys: &[Key<'_>]) {
        self.inner.abandon_guard(guard, keys);
        self.tell_deleted(keys, None);
    }

    fn lag(&self) -> Duration {
        self.inner.lag()
    }

    fn catch_up(&self) -> BoxFuture<'_, ()> {
        self.inner.catch_up()
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

    fn scan_may_miss(&self) -> bool {
        self.inner.scan_may_miss()
    }

    fn save_snapshot(&self) -> Op<'_, u64> {
        self.inner.save_snapshot()
    }

    fn groups(&self) -> &dyn Groups {
        self
    }

    fn has_dependencies(&self) -> bool {
        self.inner.has_dependencies()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }
}

impl Groups for Observed {
    fn snapshot<'a>(&'a self, namespace: &'a Namespace, cx: &'a Cx) -> Op<'a, Snapshot> {
        self.inner.groups().snapshot(namespace, cx)
    }

    fn known(&self, namespace: &Namespace) -> Option<Snapshot> {
        self.inner.groups().known(namespace)
    }

    fn judged(&self, namespace: &Namespace, marks: &[Mark]) -> Option<Validity> {
        self.inner.groups().judged(namespace, marks)
    }

    fn invalidate<'a>(
        &'a self,
        namespace: &'a Namespace,
        groups: &'a [Group],
        how: How,
        cx: &'a Cx,
    ) -> Op<'a, ()> {
        async move {
            let done = self.inner.groups().invalidate(namespace, groups, how, cx).await;
            let error = done.as_ref().err().map(Error::kind);
            if let Some(listeners) = &self.listeners {
                listeners.tell(namespace, None, EventKind::Invalidated { groups, how, error });
            }
            done
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The methods that stand below the line that begins so, up to the end of its block.
    fn methods(source: &'static str, head: &str) -> BTreeSet<&'static str> {
        let (_, block) = source.split_once(head).unwrap();
        let (block, _) = block.split_once("\n}").unwrap();
        let names = block.lines().filter_map(|line| line.strip_prefix("    fn "));
        names.map(|line| line.split(['<', '(']).next().unwrap()).collect()
    }

    /// One with a default that is not forwarded would silently be the default.
    #[test]
    fn every_method_of_a_store_is_forwarded() {
        let (traits, here) = (include_str!("../store.rs"), include_str!("observed.rs"));
        for (of, there) in [
            ("\npub trait Store:", "\nimpl Store for Observed {"),
            ("\npub trait Groups:", "\nimpl Groups for Observed {"),
        ] {
            let wanted = methods(traits, of);
            assert!(wanted.len() >= 2, "{of}: {wanted:?}");
            assert_eq!(methods(here, there), wanted, "{of}");
        }
    }
}
