//! A bound on the loads of all keys together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::{Cache, Clock as _, LoadError, Source, SystemClock, TestClock};
use tachikoma_testkit::RedisServer;
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_secs(60);

async fn pause(millis: u64) {
    SystemClock::new().sleep(Duration::from_millis(millis)).await;
}

/// Waits until a figure is what it should become.
async fn until(what: &str, reached: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if reached() {
            return;
        }
        pause(1).await;
    }
    panic!("{what}: not within thirty seconds");
}

/// Counts the loaders that run at once.
#[derive(Clone, Default)]
struct Meter {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    runs: Arc<AtomicU32>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Meter {
    fn enter(&self) -> Running {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.runs.fetch_add(1, Ordering::SeqCst);
        Running(Arc::clone(&self.running))
    }
}

/// 1,000 distinct cold keys with 50 callers each, at most 16 loads at once: each key is loaded once
/// and all are answered.
async fn everything_misses_at_once(cache: &Cache) {
    let meter = Meter::default();
    let mut callers = Vec::new();
    for _ in 0..50 {
        for key in 0..1000_u32 {
            let (cache, meter) = (cache.clone(), meter.clone());
            callers.push(tokio::spawn(async move {
                let load = move || async move {
                    let _running = meter.enter();
                    pause(1).await;
                    Ok::<_, ()>(key)
                };
                // Waiting for a turn counts against the limit, and may take long on a busy machine.
                let name = format!("k{key}");
                let value = cache.get_or_load(&name, load).ttl(60 * MINUTE);
                assert_eq!(*value.load_timeout(10 * MINUTE).await.unwrap(), key);
            }));
        }
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(meter.runs.load(Ordering::SeqCst), 1000);
    let most = meter.most.load(Ordering::SeqCst);
    assert!((2..=16).contains(&most), "{most} at once");
    until("no load is left", || {
        let stats = cache.stats();
        (stats.loads_running, stats.loads_queued) == (0, 0)
    })
    .await;
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures, stats.loads_rejected), (1000, 0, 0));
}

/// Callers that go away leave no turn behind: the cache loads as many at once as before.
async fn callers_that_leave(cache: &Cache) {
    let meter = Meter::default();
    for round in 0..50 {
        let callers: Vec<_> = (0..40)
            .map(|i| {
                let (cache, meter) = (cache.clone(), meter.clone());
                tokio::spawn(async move {
                    let load = move || async move {
                        let _running = meter.enter();
                        pause(1).await;
                        match i % 4 {
                            0 => Err("no"),
                            1 => panic!("as the test wants"),
                            _ => Ok(i),
                        }
                    };
                    drop(cache.get_or_load(&format!("{round}:{i}"), load).await);
                })
            })
            .collect();
        pause(round % 4).await;
        callers.iter().for_each(tokio::task::JoinHandle::abort);
    }
    until("all have ended", || {
        let stats = cache.stats();
        (stats.loads_running, stats.loads_queued) == (0, 0)
    })
    .await;
    assert!(meter.most.load(Ordering::SeqCst) <= 16);
    everything_misses_at_once_again(cache, &meter).await;
}

async fn everything_misses_at_once_again(cache: &Cache, meter: &Meter) {
    meter.most.store(0, Ordering::SeqCst);
    let all = (0..64).map(|i| {
        let (cache, meter) = (cache.clone(), meter.clone());
        tokio::spawn(async move {
            let load = move || async move {
                let _running = meter.enter();
                pause(20).await;
                Ok::<_, ()>(i)
            };
            assert_eq!(*cache.get_or_load(&format!("again:{i}"), load).await.unwrap(), i);
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert_eq!(meter.most.load(Ordering::SeqCst), 16, "all turns are there");
}

/// A loader that loads other keys does not wait for its own turn to end.
async fn loads_inside_of_loads(cache: &Cache) {
    let callers: Vec<_> = (0..64_u32)
        .map(|i| {
            let (cache, inside) = (cache.clone(), cache.clone());
            tokio::spawn(async move {
                let load = move || async move {
                    pause(1).await;
                    let mut sum = 0;
                    // Some of these are being loaded by others, which wait for a turn.
                    for part in [i, (i + 1) % 64] {
                        let key = format!("part:{part}");
                        let load = move || async move {
                            pause(1).await;
                            Ok::<_, ()>(part)
                        };
                        sum += *inside.get_or_load(&key, load).await.unwrap();
                    }
                    let too_long = "k".repeat(5000);
                    sum +=
                        *inside.get_or_load(&too_long, || async { Ok::<_, ()>(0) }).await.unwrap();
                    Ok::<_, ()>(sum)
                };
                let sum = cache.get_or_load(&format!("sum:{i}"), load).ttl(MINUTE).await;
                assert_eq!(*sum.unwrap(), i + (i + 1) % 64);
            })
        })
        .chain((0..64_u32).map(|part| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let load = move || async move {
                    pause(1).await;
                    Ok::<_, ()>(part)
                };
                let value = cache.get_or_load(&format!("part:{part}"), load).await;
                assert_eq!(*value.unwrap(), part);
            })
        }))
        .collect();
    for caller in callers {
        tokio::time::timeout(Duration::from_secs(20), caller).await.expect("no deadlock").unwrap();
    }
}

/// On a server, with patience: what is tested is who loads, not how fast a busy machine answers.
async fn patient(server: &RedisServer) -> Cache {
    let (config, _) = RedisConfig::from_url(&server.url()).unwrap();
    let patience = 2 * MINUTE;
    let config = config.timeout(patience).connect_timeout(patience).lease(patience);
    let store = RedisStore::connect(config, Arc::new(SystemClock::new())).await.unwrap();
    let builder = Cache::on(Arc::new(store)).store_timeout(patience);
    builder.max_concurrent_loads(16).build().unwrap()
}

macro_rules! on_stores {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let cache = tachikoma_cache::Cache::memory().max_concurrent_loads(16);
                super::$case(&cache.build().unwrap()).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let server = super::RedisServer::start();
                super::$case(&super::patient(&server).await).await;
            })*
        }
    };
}

on_stores!(everything_misses_at_once, callers_that_leave, loads_inside_of_loads);

/// A load that runs until it is told to end.
fn hold(cache: &Cache, key: &'static str) -> (Arc<Notify>, tokio::task::JoinHandle<u32>) {
    let go = Arc::new(Notify::new());
    let (cache, wait) = (cache.clone(), Arc::clone(&go));
    let task = tokio::spawn(async move {
        let load = move || async move {
            wait.notified().await;
            Ok::<u32, ()>(1)
        };
        *cache.get_or_load(key, load).load_timeout(10 * MINUTE).await.unwrap()
    });
    (go, task)
}

mod one_at_a_time {
    use super::*;

    fn narrow() -> (Cache, TestClock) {
        let clock = TestClock::new();
        let builder = Cache::memory().clock(Arc::new(clock.clone())).load_timeout(MINUTE);
        (builder.max_concurrent_loads(1).max_queued_loads(1).build().unwrap(), clock)
    }

    fn spawned(
        cache: &Cache,
        key: &'static str,
    ) -> tokio::task::JoinHandle<Result<u32, LoadError<()>>> {
        let cache = cache.clone();
        tokio::spawn(
            async move { cache.get_or_load(key, || async { Ok(2) }).await.map(|hit| *hit) },
        )
    }

    #[tokio::test]
    async fn beyond_the_queue_a_load_is_refused_at_once_and_told_what_to_do() {
        let (cache, _) = narrow();
        let (go, first) = hold(&cache, "a");
        until("it runs", || cache.stats().loads_running == 1).await;
        let second = spawned(&cache, "b");
        until("it waits", || cache.stats().loads_queued == 1).await;
        let error = spawned(&cache, "c").await.unwrap().unwrap_err();
        assert!(matches!(error, LoadError::Overloaded), "{error:?}");
        assert!(error.to_string().contains("max_queued_loads"), "{error}");
        assert_eq!(cache.stats().loads_rejected, 1);
        // Who joins a load that waits takes no place of its own.
        let joined = spawned(&cache, "b");
        until("it joined", || cache.stats().coalesced == 1).await;
        go.notify_one();
        assert_eq!((first.await.unwrap(), second.await.unwrap().unwrap()), (1, 2));
        assert_eq!(joined.await.unwrap().unwrap(), 2);
        assert_eq!(spawned(&cache, "c").await.unwrap().unwrap(), 2);
        assert_eq!(cache.stats().loads, 3);
    }

    #[tokio::test]
    async fn waiting_counts_against_the_load_timeout_and_the_loader_is_not_called() {
        let (cache, clock) = narrow();
        let (go, first) = hold(&cache, "a");
        until("it runs", || cache.stats().loads_running == 1).await;
        let second = spawned(&cache, "b");
        until("it waits", || cache.stats().loads_queued == 1).await;
        clock.advance(MINUTE);
        assert!(matches!(second.await.unwrap(), Err(LoadError::TimedOut)));
        go.notify_one();
        assert_eq!(first.await.unwrap(), 1);
        let stats = cache.stats();
        assert_eq!((stats.loads, stats.load_failures, stats.loads_rejected), (1, 0, 1));
        assert_eq!((stats.loads_running, stats.loads_queued), (0, 0));
    }

    #[tokio::test]
    async fn a_stale_value_is_served_rather_than_the_refusal() {
        let (cache, clock) = narrow();
        let load = || async { Ok::<u32, ()>(7) };
        let stale = cache.get_or_load("c", load).ttl(Duration::from_secs(1));
        stale.stale_if_error(MINUTE).await.unwrap();
        clock.advance(Duration::from_secs(2));
        let (_go, _first) = hold(&cache, "a");
        until("it runs", || cache.stats().loads_running == 1).await;
        let _second = spawned(&cache, "b");
        until("it waits", || cache.stats().loads_queued == 1).await;
        let hit = cache.get_or_load("c", load).stale_if_error(MINUTE).await.unwrap();
        assert_eq!((*hit, hit.source()), (7, Source::Stale));
        assert_eq!(cache.stats().loads_rejected, 1);
    }

    #[tokio::test]
    async fn a_hit_and_a_direct_call_need_no_turn() {
        let (cache, _) = narrow();
        let (_go, _first) = hold(&cache, "a");
        until("it runs", || cache.stats().loads_running == 1).await;
        cache.set("k", 5_u32, MINUTE).await.unwrap();
        assert_eq!(spawned(&cache, "k").await.unwrap().unwrap(), 5);
        assert_eq!(cache.stats().loads_queued, 0);
    }
}

#[tokio::test]
async fn bounds_can_come_from_a_configuration() {
    let cache =
        Cache::connect("memory://?max_concurrent_loads=1&max_queued_loads=0").await.unwrap();
    let (go, first) = hold(&cache, "a");
    until("it runs", || cache.stats().loads_running == 1).await;
    let refused = cache.get_or_load("b", || async { Ok::<u32, ()>(2) }).await;
    assert!(matches!(refused, Err(LoadError::Overloaded)));
    go.notify_one();
    assert_eq!(first.await.unwrap(), 1);
    for url in ["memory://?max_concurrent_loads=0", "memory://?max_queued_loads=-1"] {
        let error = Cache::connect(url).await.unwrap_err();
        assert!(error.to_string().contains("_loads"), "{error}");
    }
}
