//! Single flight under shuttle: its scheduler tries another order of steps in each run.
//!
//! Run with `--features __shuttle`; each law in at least 10,000 schedules.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod elsewhere;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::scheduler::RandomScheduler;
use tachikoma_cache::store::memory::{MemoryConfig, MemoryStore};
use tachikoma_cache::{Cache, LoadError, LoadOptions, TestClock, Ttl};

const SCHEDULES: usize = 10_000;

/// A task's stack. Without optimisation the steps of a load take more than the default of 32 KiB.
const STACK_BYTES: usize = 256 * 1024;

fn check(law: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::default();
    config.stack_size = STACK_BYTES;
    shuttle::Runner::new(RandomScheduler::new(SCHEDULES), config).run(law);
}

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
    check(|| {
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
    });
}

/// Readers load while a writer changes the source and invalidates: whoever begins after the
/// invalidation has answered gets the new value, and nothing old stays.
fn check_invalidation(invalidate: impl AsyncFn(&Cache, u32) + Copy + Send + Sync + 'static) {
    check(move || {
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
                invalidate(&cache, version).await;
                invalidated.store(version, Ordering::SeqCst);
            }
            for reader in readers {
                reader.await.unwrap();
            }
            rest(&cache).await;
            let left = cache.get::<u32>("k").await.unwrap();
            assert!(left.is_none_or(|value| value == 2), "an old value stayed");
        });
    });
}

#[test]
fn nothing_read_before_a_delete_is_seen_after_it() {
    check_invalidation(async |cache: &Cache, _| {
        cache.delete("k").await.unwrap();
    });
}

#[test]
fn nothing_read_before_a_tag_was_invalidated_is_seen_after_it() {
    check_invalidation(async |cache: &Cache, _| cache.invalidate_tag("t").await.unwrap());
}

#[test]
fn nothing_read_before_a_clear_is_seen_after_it() {
    check_invalidation(async |cache: &Cache, _| {
        cache.clear().await.unwrap();
    });
}

/// RG-11: a direct write races the loads.
#[test]
fn nothing_read_before_a_write_is_seen_after_it() {
    check_invalidation(async |cache: &Cache, version| {
        cache.set("k", version, Ttl::Default).await.unwrap();
    });
}

/// Two handles on one store know nothing of each other's loads, as two processes on one server do
/// not: the store's verdict on a load keeps those who joined late from its old value.
fn check_two_handles(invalidate: impl AsyncFn(&Cache) + Copy + Send + Sync + 'static) {
    check(move || {
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
    });
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
    check(|| {
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
    });
}

/// A stale value is renewed in the background while the source changes and the key is deleted:
/// whoever asks after the deletion gets nothing older, stale or not.
#[test]
fn nothing_older_is_stored_or_served_after_a_delete_during_a_refresh() {
    const SECOND: Duration = Duration::from_secs(1);
    check(|| {
        let clock = TestClock::new();
        let options = LoadOptions::new()
            .ttl(SECOND)
            .stale_while_revalidate(60 * SECOND)
            .stale_if_error(60 * SECOND)
            .retry_after(Duration::ZERO);
        let builder = Cache::memory().clock(Arc::new(clock.clone()));
        let cache = builder.load_options(options).build().unwrap();
        let (source, deleted) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        block_on(async {
            let source = Arc::clone(&source);
            cache.get_or_load("k", || read(source)).await.unwrap();
            rest(&cache).await;
        });
        clock.advance(2 * SECOND);
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (cache, source) = (cache.clone(), Arc::clone(&source));
                let deleted = Arc::clone(&deleted);
                spawn(async move {
                    for _ in 0..2 {
                        let at_least = deleted.load(Ordering::SeqCst);
                        let source = Arc::clone(&source);
                        let hit = cache.get_or_load("k", || read(source)).await.unwrap();
                        assert!(*hit >= at_least, "{} after {at_least} was in", *hit);
                    }
                })
            })
            .collect();
        block_on(async {
            yield_now().await;
            source.store(1, Ordering::SeqCst);
            cache.delete("k").await.unwrap();
            deleted.store(1, Ordering::SeqCst);
            for reader in readers {
                reader.await.unwrap();
            }
            rest(&cache).await;
            let left = cache.get::<u32>("k").await.unwrap();
            assert!(left.is_none_or(|value| value == 1), "an old value stayed");
        });
    });
}

/// However many find a stale value at the same moment, the source is asked once.
#[test]
fn one_refresh_runs_for_all_who_find_a_stale_value() {
    const SECOND: Duration = Duration::from_secs(1);
    check(|| {
        let clock = TestClock::new();
        let options = LoadOptions::new().ttl(SECOND).stale_while_revalidate(60 * SECOND);
        let builder = Cache::memory().clock(Arc::new(clock.clone()));
        let cache = builder.load_options(options).build().unwrap();
        let source = Arc::new(AtomicU32::new(0));
        let load = |cache: &Cache| {
            let (cache, source) = (cache.clone(), Arc::clone(&source));
            async move {
                let load = move || async move {
                    yield_now().await;
                    Ok::<u32, ()>(source.fetch_add(1, Ordering::SeqCst))
                };
                *cache.get_or_load("k", load).await.unwrap()
            }
        };
        block_on(async {
            load(&cache).await;
            rest(&cache).await;
        });
        clock.advance(2 * SECOND);
        let readers: Vec<_> = (0..3).map(|_| spawn(load(&cache))).collect();
        block_on(async {
            for reader in readers {
                reader.await.unwrap();
            }
            rest(&cache).await;
        });
        assert_eq!(source.load(Ordering::SeqCst), 2, "one load and one refresh");
    });
}

#[test]
fn batches_in_opposite_order_and_single_callers_share_loads_and_all_end() {
    check(|| {
        let cache = cache();
        let loads = Arc::new(AtomicU32::new(0));
        let orders: [&[&str]; 3] = [&["a", "b", "c"], &["c", "b", "a"], &["b"]];
        let callers: Vec<_> = orders
            .into_iter()
            .map(|keys| {
                let (cache, loads) = (cache.clone(), Arc::clone(&loads));
                spawn(async move {
                    let load = move |missing: Vec<String>| async move {
                        loads.fetch_add(u32::try_from(missing.len()).unwrap(), Ordering::SeqCst);
                        yield_now().await;
                        Ok::<_, ()>(missing.into_iter().map(|key| (key, 7_u32)))
                    };
                    let hits = cache.get_or_load_many(keys.iter().copied(), load).await.unwrap();
                    assert!(hits.iter().all(|hit| hit.as_deref() == Some(&7)));
                })
            })
            .collect();
        block_on(async {
            for caller in callers {
                caller.await.unwrap();
            }
            rest(&cache).await;
        });
        assert_eq!(loads.load(Ordering::SeqCst), 3, "each key once");
    });
}

/// As with one key: who begins after an invalidation has answered gets the new value.
#[test]
fn a_batch_never_gives_nor_stores_what_is_older_than_an_invalidation() {
    check(|| {
        let cache = cache();
        let source = Arc::new(AtomicU32::new(0));
        let invalidated = Arc::new(AtomicU32::new(0));
        let readers: Vec<_> = [["a", "b"], ["b", "a"]]
            .into_iter()
            .map(|keys| {
                let (cache, source) = (cache.clone(), Arc::clone(&source));
                let invalidated = Arc::clone(&invalidated);
                spawn(async move {
                    for _ in 0..2 {
                        let at_least = invalidated.load(Ordering::SeqCst);
                        let source = Arc::clone(&source);
                        let load = move |missing: Vec<String>| async move {
                            let value = read(source).await?;
                            Ok::<_, ()>(missing.into_iter().map(move |key| (key, value)))
                        };
                        let hits = cache.get_or_load_many(keys, load).tags(["t"]).await.unwrap();
                        let a = keys.iter().position(|key| *key == "a").unwrap();
                        let value = **hits[a].as_ref().unwrap();
                        assert!(value >= at_least, "{value} after {at_least} was in");
                    }
                })
            })
            .collect();
        block_on(async {
            for version in 1..=2 {
                yield_now().await;
                source.store(version, Ordering::SeqCst);
                cache.delete("a").await.unwrap();
                invalidated.store(version, Ordering::SeqCst);
            }
            for reader in readers {
                reader.await.unwrap();
            }
            rest(&cache).await;
            let left = cache.get::<u32>("a").await.unwrap();
            assert!(left.is_none_or(|value| value == 2), "an old value stayed");
        });
    });
}

#[test]
fn a_bound_on_loads_is_kept_and_no_turn_is_lost() {
    check(|| {
        let builder = Cache::memory().clock(Arc::new(TestClock::new()));
        let cache = builder.max_concurrent_loads(1).build().unwrap();
        let running = Arc::new(AtomicU32::new(0));
        let callers: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|key| {
                let (cache, running) = (cache.clone(), Arc::clone(&running));
                spawn(async move {
                    let load = move || async move {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                        yield_now().await;
                        running.fetch_sub(1, Ordering::SeqCst);
                        Ok::<u32, ()>(7)
                    };
                    assert_eq!(*cache.get_or_load(key, load).await.unwrap(), 7);
                })
            })
            .collect();
        block_on(async {
            for caller in callers {
                caller.await.unwrap();
            }
            rest(&cache).await;
        });
        assert_eq!(cache.stats().loads_running, 0);
    });
}
