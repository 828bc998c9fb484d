//! What went wrong in the loads of other caches, by their issue numbers (RG), and the faults of a
//! loader that need real time or a runtime of their own (FM-24 to FM-31).

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tachikoma_cache::{Cache, Clock as _, LoadError, LoadOptions, SystemClock};
use tachikoma_testkit::Stopwatch;
use tokio::sync::Notify;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn pause(millis: u64) {
    SystemClock::new().sleep(ms(millis)).await;
}

fn cache() -> Cache {
    Cache::memory().build().unwrap()
}

/// A number from the environment, for longer runs.
fn rounds(default: u32) -> u32 {
    std::env::var("TACHIKOMA_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// RG-01, FM-25: the first caller's future is polled once and then only held: the others do not
/// wait for it.
#[tokio::test]
async fn rg_moka_240_a_first_caller_that_is_not_polled_blocks_nobody() {
    let cache = cache();
    let mut first = Box::pin(
        cache
            .get_or_load("k", || async {
                pause(5).await;
                Ok::<u32, ()>(1)
            })
            .into_future(),
    );
    assert!(first.as_mut().now_or_never().is_none());
    let second = cache.get_or_load("k", || async { Ok::<u32, ()>(2) }).into_future();
    let second = tokio::time::timeout(Duration::from_secs(5), second).await;
    assert_eq!(second.expect("it waits for the first").unwrap(), 1);
    assert_eq!(first.await.unwrap(), 1);
}

/// RG-06, RG-14, FM-24: whoever leads is cancelled after some polls; the load goes on, its value is
/// stored, and the key can be loaded again.
#[tokio::test]
async fn rg_risingwave_3909_and_pingora_931_a_cancelled_leader_leaves_no_lock_behind() {
    let cache = cache();
    for polls in 0..8_u32 {
        let key = polls.to_string();
        let load = move || async move {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            Ok::<u32, ()>(polls)
        };
        let mut leader = Box::pin(cache.get_or_load(&key, load).into_future());
        for _ in 0..polls {
            if leader.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(leader);
        let next = cache.get_or_load(&key, move || async move { Ok::<u32, ()>(polls) });
        let next = tokio::time::timeout(Duration::from_secs(5), next.into_future()).await;
        assert_eq!(next.expect("the key is free").unwrap(), polls);
        assert!(cache.get::<u32>(&key).await.unwrap().is_some(), "after {polls} polls");
    }
}

/// RG-08: whatever becomes of loaders and callers, callers only see errors that say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rg_foyer_1118_waiters_never_see_an_error_of_the_machinery() {
    let cache = cache();
    let callers: Vec<_> = (0..2000_u32)
        .map(|i| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let key = (i % 20).to_string();
                let load = move || async move {
                    tokio::task::yield_now().await;
                    match i % 3 {
                        0 => Ok(i),
                        1 => Err("no"),
                        _ => panic!("as the test wants"),
                    }
                };
                let got = cache.get_or_load(&key, load).ttl(ms(1)).await;
                let expected = match &got {
                    Ok(_) | Err(LoadError::Panicked) => true,
                    Err(LoadError::Source(error)) => **error == "no",
                    Err(_) => false,
                };
                assert!(expected, "{got:?}");
            })
        })
        .collect();
    for (i, caller) in callers.into_iter().enumerate() {
        if i % 7 == 0 {
            caller.abort();
        } else {
            caller.await.unwrap();
        }
    }
}

/// RG-09: a direct write during a load wins, and neither panics. `TACHIKOMA_ROUNDS=100000` makes it
/// as many rounds as the catalogue asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rg_foyer_1121_a_write_during_a_load_stays() {
    let cache = cache();
    for round in 0..rounds(2000) {
        let load = {
            let cache = cache.clone();
            tokio::spawn(async move {
                let load = || async {
                    tokio::task::yield_now().await;
                    Ok::<u32, ()>(u32::MAX)
                };
                cache.get_or_load("k", load).await.unwrap();
            })
        };
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        cache.set("k", round, ms(60_000)).await.unwrap();
        load.await.unwrap();
        let value = *cache.get::<u32>("k").await.unwrap().unwrap();
        assert_eq!(value, round, "what was written last is there");
        cache.delete("k").await.unwrap();
    }
}

/// RG-16, FM-27: a waiter that goes away is gone at once; the load and the others stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rg_pingora_800_a_waiter_that_leaves_does_not_wait_out_the_load() {
    let cache = cache();
    let go = Arc::new(Notify::new());
    let call = |value: u32| {
        let (cache, go) = (cache.clone(), Arc::clone(&go));
        tokio::spawn(async move {
            let load = move || async move {
                go.notified().await;
                Ok::<u32, ()>(value)
            };
            cache.get_or_load("k", load).await.map(|hit| *hit)
        })
    };
    let (stays, leaves) = (call(1), call(2));
    while cache.stats().coalesced == 0 || cache.stats().loads == 0 {
        pause(1).await;
    }
    let leaving = Stopwatch::start();
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    // Ten are promised; machines that run tests are shared.
    leaving.within(ms(500));
    go.notify_one();
    stays.await.unwrap().unwrap();
    assert_eq!(cache.stats().loads, 1);
}

/// RG-17, FM-26: nobody waits any more: the load ends all the same and its value is there for the
/// next.
#[tokio::test]
async fn rg_pingora_314_a_load_that_all_have_left_still_fills() {
    let cache = cache();
    let load = || async {
        pause(20).await;
        Ok::<u32, ()>(1)
    };
    let caller = cache.get_or_load("k", load).into_future();
    assert!(tokio::time::timeout(ms(2), caller).await.is_err());
    for _ in 0..1000 {
        if let Some(hit) = cache.try_get::<u32>("k") {
            assert_eq!((*hit, cache.stats().loads), (1, 1));
            return;
        }
        pause(2).await;
    }
    panic!("it was not stored");
}

/// FM-29: a circle that is hidden in a task of the loader's own ends with the load timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hidden_circle_ends_with_the_load_timeout() {
    let cache = Cache::memory().load_timeout(ms(100)).build().unwrap();
    let inner = cache.clone();
    let load = move || async move {
        let hidden = tokio::spawn(async move {
            inner.get_or_load("k", || async { Ok::<u32, ()>(1) }).await.map(|hit| *hit)
        });
        hidden.await.unwrap().map_err(|_| ())
    };
    let outer = cache.get_or_load("k", load).into_future();
    let outer = tokio::time::timeout(Duration::from_secs(10), outer).await;
    assert!(matches!(outer.expect("it ends"), Err(LoadError::TimedOut)));
    assert_eq!(cache.get_or_load("k", || async { Ok::<u32, ()>(2) }).await.unwrap(), 2);
}

/// RG-07, FM-31: the runtime ends during a load. Nobody hangs, and another runtime loads the key.
#[test]
fn rg_foyer_1345_a_runtime_that_ends_during_a_load_leaves_the_key_free() {
    let (done, watchdog) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let cache = cache();
        let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let first = runtime();
        let (began, has_begun) = std::sync::mpsc::channel();
        let inner = cache.clone();
        first.spawn(async move {
            let load = move || async move {
                began.send(()).unwrap();
                std::future::pending::<Result<u32, ()>>().await
            };
            inner.get_or_load("k", load).await.map(|hit| *hit)
        });
        has_begun.recv().unwrap();
        first.shutdown_timeout(ms(100));
        let value = runtime().block_on(async {
            *cache.get_or_load("k", || async { Ok::<u32, ()>(2) }).await.unwrap()
        });
        done.send(value).unwrap();
    });
    let value = watchdog.recv_timeout(Duration::from_secs(5)).expect("it hangs");
    assert_eq!(value, 2);
}

/// A refresh without a runtime is none: the stale value is served all the same.
#[test]
fn outside_of_a_runtime_a_stale_value_is_served_without_a_refresh() {
    let clock = tachikoma_cache::TestClock::new();
    let options = LoadOptions::new().stale_while_revalidate(ms(60_000));
    let builder = Cache::memory().clock(Arc::new(clock.clone())).load_options(options);
    let cache = builder.build().unwrap();
    cache.set("k", 1_u32, ms(1000)).into_future().now_or_never().unwrap().unwrap();
    clock.advance(ms(2000));
    for _ in 0..2 {
        let load = cache.get_or_load("k", || async { Ok::<u32, ()>(2) }).into_future();
        let hit = load.now_or_never().expect("it is there").unwrap();
        assert!(*hit == 1 && hit.is_stale());
    }
}

/// FM-20: many callers of one slow source that has failed before get their stale value at the soft
/// timeout, and the source is asked once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_source_holds_nobody_up_who_has_a_stale_value() {
    let cache = Cache::memory().stale_if_error(ms(60_000)).soft_timeout(ms(30)).build().unwrap();
    cache.get_or_load("k", || async { Ok::<u32, ()>(1) }).ttl(ms(1)).await.unwrap();
    pause(5).await;
    let loads = Arc::new(AtomicU32::new(0));
    let started = Stopwatch::start();
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let (cache, loads) = (cache.clone(), Arc::clone(&loads));
            tokio::spawn(async move {
                let load = move || async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    pause(3000).await;
                    Ok::<u32, ()>(2)
                };
                cache.get_or_load("k", load).await.unwrap().is_stale()
            })
        })
        .collect();
    for caller in callers {
        assert!(caller.await.unwrap());
    }
    started.within(ms(2500));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}
