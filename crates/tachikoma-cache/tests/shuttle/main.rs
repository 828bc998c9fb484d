//! Single flight under shuttle: its scheduler tries another order of steps in each run.
//!
//! Run with `--features __shuttle`; each law in at least 10,000 schedules.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shuttle::future::{block_on, spawn, yield_now};
use tachikoma_cache::store::memory::{MemoryConfig, MemoryStore};
use tachikoma_cache::{Cache, LoadError, TestClock};

const SCHEDULES: usize = 10_000;

fn cache() -> Cache {
    Cache::memory().clock(Arc::new(TestClock::new())).build().unwrap()
}

/// Waits until the tasks of all loads have ended: shuttle drops no task that holds a lock.
async fn rest(cache: &Cache) {
    while cache.loads_under_way() > 0 {
        yield_now().await;
    }
}

/// Reads the source: takes what is there at one moment between two others.
async fn read(source: Arc<AtomicU32>) -> Result<u32, ()> {
    yield_now().await;
    let value = source.load(Ordering::SeqCst);
    yield_now().await;
    Ok(value)
}

#[test]
fn callers_of_one_key_share_one_load() {
    shuttle::check_random(
        || {
            let cache = cache();
            let loads = Arc::new(AtomicU32::new(0));
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    let (cache, loads) = (cache.clone(), Arc::clone(&loads));
                    spawn(async move {
                        let load = move || async move {
                            loads.fetch_add(1, Ordering::SeqCst);
                            yield_now().await;
                            Ok::<u32, ()>(7)
                        };
                        *cache.get_or_load("k", load).await.unwrap()
                    })
                })
                .collect();
            block_on(async {
                for caller in callers {
                    assert_eq!(caller.await.unwrap(), 7);
                }
                rest(&cache).await;
            });
            assert_eq!(loads.load(Ordering::SeqCst), 1);
        },
        SCHEDULES,
    );
}

/// Readers load while a writer changes the source and invalidates: whoever begins after the
/// invalidation has answered gets the new value, and nothing old stays.
fn check_invalidation(invalidate: impl AsyncFn(&Cache) + Copy + Send + Sync + 'static) {
    shuttle::check_random(
        move || {
            let cache = cache();
            let source = Arc::new(AtomicU32::new(0));
            let invalidated = Arc::new(AtomicU32::new(0));
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    let (cache, source) = (cache.clone(), Arc::clone(&source));
                    let invalidated = Arc::clone(&invalidated);
                    spawn(async move {
                        for _ in 0..2 {
                            let at_least = invalidated.load(Ordering::SeqCst);
                            let source = Arc::clone(&source);
                            let load = move || read(source);
                            let value = *cache.get_or_load("k", load).tags(["t"]).await.unwrap();
                            assert!(value >= at_least, "{value} after {at_least} was in");
                        }
                    })
                })
                .collect();
            block_on(async {
                for version in 1..=2 {
                    yield_now().await;
                    source.store(version, Ordering::SeqCst);
                    invalidate(&cache).await;
                    invalidated.store(version, Ordering::SeqCst);
                }
                for reader in readers {
                    reader.await.unwrap();
                }
                rest(&cache).await;
                let left = cache.get::<u32>("k").await.unwrap();
                assert!(left.is_none_or(|value| value == 2), "an old value stayed");
            });
        },
        SCHEDULES,
    );
}

#[test]
fn nothing_read_before_a_delete_is_seen_after_it() {
    check_invalidation(async |cache: &Cache| {
        cache.delete("k").await.unwrap();
    });
}

#[test]
fn nothing_read_before_a_tag_was_invalidated_is_seen_after_it() {
    check_invalidation(async |cache: &Cache| cache.invalidate_tag("t").await.unwrap());
}

#[test]
fn nothing_read_before_a_clear_is_seen_after_it() {
    check_invalidation(async |cache: &Cache| {
        cache.clear().await.unwrap();
    });
}

/// Two handles on one store know nothing of each other's loads, as two processes on one server do
/// not: the store's verdict on a load keeps those who joined late from its old value.
fn check_two_handles(invalidate: impl AsyncFn(&Cache) + Copy + Send + Sync + 'static) {
    shuttle::check_random(
        move || {
            let clock = Arc::new(TestClock::new());
            let store = MemoryStore::new(MemoryConfig::default(), clock.clone()).unwrap();
            let handle = || Cache::on(store.clone()).clock(clock.clone()).build().unwrap();
            let (writer, reader) = (handle(), handle());
            let (source, invalidated) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    let (cache, source) = (reader.clone(), Arc::clone(&source));
                    let invalidated = Arc::clone(&invalidated);
                    spawn(async move {
                        for _ in 0..2 {
                            let at_least = invalidated.load(Ordering::SeqCst);
                            let source = Arc::clone(&source);
                            let load = cache.get_or_load("k", || read(source)).tags(["t"]);
                            let value = *load.await.unwrap();
                            assert!(value >= at_least, "{value} after {at_least} was in");
                        }
                    })
                })
                .collect();
            block_on(async {
                yield_now().await;
                source.store(1, Ordering::SeqCst);
                invalidate(&writer).await;
                invalidated.store(1, Ordering::SeqCst);
                for task in readers {
                    task.await.unwrap();
                }
                rest(&reader).await;
            });
        },
        SCHEDULES,
    );
}

#[test]
fn nothing_read_before_another_handles_delete_is_seen_after_it() {
    check_two_handles(async |cache: &Cache| {
        cache.delete("k").await.unwrap();
    });
}

#[test]
fn nothing_read_before_another_handles_tag_is_seen_after_it() {
    check_two_handles(async |cache: &Cache| cache.invalidate_tag("t").await.unwrap());
}

#[test]
fn a_caller_that_leaves_at_any_point_leaves_nobody_waiting() {
    shuttle::check_random(
        || {
            let cache = cache();
            let leaving: Vec<_> = (0..2)
                .map(|_| {
                    let cache = cache.clone();
                    spawn(async move {
                        let load = || read(Arc::new(AtomicU32::new(1)));
                        cache.get_or_load("k", load).await.map(|hit| *hit)
                    })
                })
                .collect();
            let staying = {
                let cache = cache.clone();
                spawn(async move {
                    let load = || read(Arc::new(AtomicU32::new(1)));
                    cache.get_or_load("k", load).await.map(|hit| *hit)
                })
            };
            block_on(async {
                yield_now().await;
                leaving.iter().for_each(shuttle::future::JoinHandle::abort);
                let value: Result<u32, LoadError<()>> = staying.await.unwrap();
                assert_eq!(value.unwrap(), 1);
                rest(&cache).await;
            });
        },
        SCHEDULES,
    );
}
