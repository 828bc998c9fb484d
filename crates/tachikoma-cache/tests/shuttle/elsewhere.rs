//! Two handles on a store that gives the lease of a key to one load at a time, as Redis does to
//! processes: one waits for the other's load. Without a runtime there is no polling here, so a
//! wake-up that is lost is a wait without end, which shuttle finds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shuttle::future::{block_on, spawn, yield_now};
use tachikoma_cache::entry::Entry;
use tachikoma_cache::glob::Glob;
use tachikoma_cache::key::Key;
use tachikoma_cache::stats::StoreStats;
use tachikoma_cache::store::memory::{MemoryConfig, MemoryStore};
use tachikoma_cache::store::{
    Begun, Cursor, Cx, Groups, Holder, Lease, Op, Page, Peek, Removed, Store, Want, When, Written,
};
use tachikoma_cache::{Cache, Guarantee, Health, LoadError, Namespace, Source, TestClock, Time};
use tokio::sync::Notify;

use crate::{check, read, rest};

/// A store in memory whose leases are for one load.
#[derive(Debug)]
struct Exclusive {
    inner: Arc<MemoryStore>,
    held: Mutex<HashMap<String, u128>>,
    changed: Notify,
}

impl Exclusive {
    /// The lease of this key has ended, whoever had it or only this one.
    fn end(&self, key: &Key<'_>, token: Option<u128>) {
        let mut held = self.held.lock().unwrap();
        if token.is_none_or(|token| held.get(key.name()) == Some(&token)) {
            held.remove(key.name());
        }
        drop(held);
        self.changed.notify_waiters();
    }
}

impl Store for Exclusive {
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
        async move {
            yield_now().await;
            let mut begun = Vec::new();
            for key in keys {
                let mut held = self.held.lock().unwrap();
                if let Some(token) = held.get(key.name()) {
                    let holder = Some(Holder(u64::try_from(token >> 64).unwrap()));
                    let found = self.inner.read(std::slice::from_ref(key), cx);
                    let found = found.now_or_never().unwrap()?.remove(0);
                    begun.push(Begun { found, holder, ..Begun::default() });
                    continue;
                }
                let one = self.inner.begin(std::slice::from_ref(key), cx);
                let one = one.now_or_never().unwrap()?.remove(0);
                held.insert(key.name().to_owned(), one.lease.unwrap().token);
                begun.push(one);
            }
            Ok(begun)
        }
        .boxed()
    }

    fn changed<'a>(&'a self, _: &'a [Key<'a>]) -> BoxFuture<'a, ()> {
        // It counts as waiting from now on.
        self.changed.notified().boxed()
    }

    fn write<'a>(
        &'a self,
        key: &'a Key<'a>,
        entry: Entry,
        when: When<'a>,
        cx: &'a Cx,
    ) -> Op<'a, Written> {
        async move {
            yield_now().await;
            let written = self.inner.write(key, entry, when, cx).await;
            let token = if let When::Leased(lease) = when { Some(lease.token) } else { None };
            self.end(key, token);
            written
        }
        .boxed()
    }

    fn abandon(&self, key: &Key<'_>, lease: Lease) {
        self.inner.abandon(key, lease);
        self.end(key, Some(lease.token));
    }

    fn touch<'a>(&'a self, key: &'a Key<'a>, expiry: Option<Time>, cx: &'a Cx) -> Op<'a, bool> {
        self.inner.touch(key, expiry, cx)
    }

    fn remove<'a>(&'a self, keys: &'a [Key<'a>], cx: &'a Cx) -> Op<'a, Removed> {
        async move {
            yield_now().await;
            let removed = self.inner.remove(keys, cx).await;
            for key in keys {
                self.end(key, None);
            }
            removed
        }
        .boxed()
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

/// Two handles on one such store.
fn two() -> [Cache; 2] {
    let clock = Arc::new(TestClock::new());
    let inner = MemoryStore::new(MemoryConfig::default(), clock.clone()).unwrap();
    let store = Arc::new(Exclusive { inner, held: Mutex::default(), changed: Notify::new() });
    [(); 2].map(|()| Cache::on(store.clone()).clock(clock.clone()).build().unwrap())
}

#[test]
fn handles_wait_for_each_others_loads_and_a_key_is_loaded_once() {
    check(|| {
        let (handles, loads) = (two(), Arc::new(AtomicU32::new(0)));
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                let (cache, loads) = (handles[caller % 2].clone(), Arc::clone(&loads));
                spawn(async move {
                    let load = move || async move {
                        loads.fetch_add(1, Ordering::SeqCst);
                        yield_now().await;
                        Ok::<u32, ()>(7)
                    };
                    let hit = cache.get_or_load("k", load).await.unwrap();
                    assert_eq!(*hit, 7);
                    hit.source()
                })
            })
            .collect();
        block_on(async {
            let mut loaded = 0;
            for caller in callers {
                loaded += u32::from(caller.await.unwrap() == Source::Loaded);
            }
            assert_eq!((loads.load(Ordering::SeqCst), loaded), (1, 1));
            for cache in &handles {
                rest(cache).await;
            }
        });
    });
}

#[test]
fn when_a_load_fails_another_handle_loads() {
    check(|| {
        let (handles, loads) = (two(), Arc::new(AtomicU32::new(0)));
        let callers: Vec<_> = handles
            .iter()
            .map(|cache| {
                let (cache, loads) = (cache.clone(), Arc::clone(&loads));
                spawn(async move {
                    let load = move || async move {
                        yield_now().await;
                        match loads.fetch_add(1, Ordering::SeqCst) {
                            0 => Err(()),
                            _ => Ok(7),
                        }
                    };
                    let result: Result<_, LoadError<()>> = cache.get_or_load("k", load).await;
                    result.map(|hit| *hit).ok()
                })
            })
            .collect();
        block_on(async {
            let mut values = Vec::new();
            for caller in callers {
                values.push(caller.await.unwrap());
            }
            values.sort_unstable();
            assert_eq!(values, [None, Some(7)]);
            for cache in &handles {
                rest(cache).await;
            }
        });
    });
}

/// Whoever asks after an invalidation has answered gets nothing older, from whichever handle's
/// load.
#[test]
fn nothing_read_before_a_delete_is_given_to_who_waited_for_another_handle() {
    check(|| {
        let handles = two();
        let (source, deleted) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let (cache, source) = (handles[reader % 2].clone(), Arc::clone(&source));
                let deleted = Arc::clone(&deleted);
                spawn(async move {
                    let at_least = deleted.load(Ordering::SeqCst);
                    let hit = cache.get_or_load("k", || read(source)).await.unwrap();
                    assert!(*hit >= at_least, "{} after {at_least} was in", *hit);
                })
            })
            .collect();
        block_on(async {
            yield_now().await;
            source.store(1, Ordering::SeqCst);
            handles[0].delete("k").await.unwrap();
            deleted.store(1, Ordering::SeqCst);
            for reader in readers {
                reader.await.unwrap();
            }
            for cache in &handles {
                rest(cache).await;
            }
            let left = handles[1].get::<u32>("k").await.unwrap();
            assert!(left.is_none_or(|value| *value == 1), "an old value stayed");
        });
    });
}
