//! Several processes on one server: while one of them loads a key, others wait for its value, or
//! serve a stale one that they have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tachikoma_cache::{Cache, Guarantee, LoadError, LoadOptions, Source, StaleReason};
use tachikoma_testkit::{RedisServer, Stopwatch};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::bench::Bench;

const SECOND: Duration = Duration::from_secs(1);

fn reason(guarantee: Guarantee) -> Option<StaleReason> {
    match guarantee {
        Guarantee::Stale { reason, .. } => Some(reason),
        _ => None,
    }
}

/// Two processes, as far as Redis can tell.
async fn two(server: &RedisServer) -> (Cache, Cache) {
    let url = format!("{}&store_timeout=10s", server.url_with("shop"));
    (Cache::connect(&url).await.unwrap(), Cache::connect(&url).await.unwrap())
}

/// A load that is under way until it is let go.
struct Held {
    go: Arc<Notify>,
    load: JoinHandle<Result<u32, LoadError<()>>>,
}

impl Held {
    async fn new(cache: &Cache, options: LoadOptions, brings: Result<u32, ()>) -> Self {
        let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (cache, started, end) = (cache.clone(), Arc::clone(&began), Arc::clone(&go));
        let load = tokio::spawn(async move {
            let load = move || async move {
                started.notify_one();
                end.notified().await;
                brings
            };
            cache.get_or_load("k", load).options(options).await.map(|hit| *hit)
        });
        began.notified().await;
        Self { go, load }
    }

    async fn let_go(self) -> Result<u32, LoadError<()>> {
        self.go.notify_one();
        self.load.await.unwrap()
    }
}

/// Callers of the same key in another process, each with a loader that is counted.
fn callers(cache: &Cache, count: u32) -> (Vec<JoinHandle<(u32, Source)>>, Arc<AtomicU32>) {
    let loads = Arc::new(AtomicU32::new(0));
    let call = |_| {
        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
        tokio::spawn(async move {
            let load = move || async move {
                loads.fetch_add(1, Ordering::SeqCst);
                Ok::<u32, ()>(3)
            };
            let hit = cache.get_or_load("k", load).await.unwrap();
            (*hit, hit.source())
        })
    };
    ((0..count).map(call).collect(), loads)
}

/// What is stored, in a moment: storing delays no answer.
async fn stored(cache: &Cache) -> u32 {
    let clock = Stopwatch::start();
    loop {
        if let Some(hit) = cache.get::<u32>("k").await.unwrap() {
            return *hit;
        }
        assert!(clock.elapsed() < 10 * SECOND, "it was not stored");
        pause(5).await;
    }
}

async fn pause(millis: u64) {
    let pause = Duration::from_millis(millis);
    tachikoma_cache::Clock::sleep(&tachikoma_cache::SystemClock::new(), pause).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_value_is_served_while_another_process_loads() {
    let b = Bench::redis().await;
    let other = b.with(|builder| builder);
    let on_error = LoadOptions::new().ttl(SECOND).stale_if_error(60 * SECOND);
    b.cache.get_or_load("k", || async { Ok::<u32, ()>(1) }).options(on_error).await.unwrap();
    while !b.cache.exists("k").await.unwrap() {
        tokio::task::yield_now().await;
    }
    b.advance(2000);
    let slow = Held::new(&b.cache, on_error, Ok(2)).await;

    let load = |options| {
        let other: &Cache = &other;
        async move { other.get_or_load("k", || async { Ok::<u32, ()>(3) }).options(options).await }
    };
    let hit = load(on_error).await.unwrap();
    let expected = (1, Source::Stale, Some(StaleReason::LoadedElsewhere));
    assert_eq!((*hit, hit.source(), reason(hit.guarantee())), expected);
    let hit = load(on_error.stale_while_revalidate(60 * SECOND)).await.unwrap();
    let expected = (1, Source::Stale, Some(StaleReason::Revalidating));
    assert_eq!((*hit, hit.source(), reason(hit.guarantee())), expected);
    // Who accepts no stale value waits.
    let (waiting, loads) = callers(&other, 1);
    pause(100).await;
    assert!(!waiting[0].is_finished());
    assert_eq!(slow.let_go().await.unwrap(), 2);
    for caller in waiting {
        assert_eq!(caller.await.unwrap().0, 2);
    }
    assert_eq!((loads.load(Ordering::SeqCst), other.stats().loads), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_another_process_get_what_this_one_loads() {
    let server = RedisServer::start();
    let (cache, other) = two(&server).await;
    let slow = Held::new(&cache, LoadOptions::new().ttl(60 * SECOND), Ok(2)).await;
    let (waiting, loads) = callers(&other, 20);
    pause(100).await;
    assert!(waiting.iter().all(|caller| !caller.is_finished()));
    assert_eq!(slow.let_go().await.unwrap(), 2);
    for caller in waiting {
        let (value, source) = caller.await.unwrap();
        assert_eq!(value, 2);
        assert!(matches!(source, Source::Coalesced | Source::Hit), "{source:?}");
    }
    assert_eq!((loads.load(Ordering::SeqCst), other.stats().loads), (0, 0));
}

/// The median time from the end of another process's load to its value here, or to a load here if
/// that failed.
async fn behind(settings: &str, brings: Result<u32, ()>) -> Duration {
    let server = RedisServer::start();
    let url = format!("{}&store_timeout=10s{settings}", server.url_with("shop"));
    let (cache, other) = (Cache::connect(&url).await.unwrap(), Cache::connect(&url).await.unwrap());
    let mut times = Vec::new();
    for _ in 0..9 {
        let slow = Held::new(&cache, LoadOptions::new(), brings).await;
        let (waiting, _) = callers(&other, 1);
        // So long that it asks as seldom as it ever does.
        pause(150).await;
        assert!(!waiting[0].is_finished());
        let clock = Stopwatch::start();
        assert_eq!(slow.let_go().await.ok(), brings.ok());
        for caller in waiting {
            assert_eq!(caller.await.unwrap().0, brings.unwrap_or(3));
        }
        times.push(clock.elapsed());
        cache.delete("k").await.unwrap();
        // A copy of the other process may be shown until it has heard of that.
        while other.get::<u32>("k").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_of_changes_need_not_ask_from_time_to_time() {
    for brings in [Ok(2), Err(())] {
        let asked = behind("&memory=off", brings).await;
        let mut told = behind("", brings).await;
        // Machines that run tests are shared.
        for _ in 0..2 {
            if told > Duration::from_millis(10) {
                told = behind("", brings).await;
            }
        }
        println!(
            "waited after a load that gave {brings:?}: {asked:?}; with a memory tier {told:?}"
        );
        assert!(told <= Duration::from_millis(10), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_its_load_fails_another_process_loads_and_stores() {
    let server = RedisServer::start();
    let (cache, other) = two(&server).await;
    let slow = Held::new(&cache, LoadOptions::new(), Err(())).await;
    let (waiting, loads) = callers(&other, 20);
    pause(50).await;
    assert!(slow.let_go().await.is_err());
    for caller in waiting {
        assert_eq!(caller.await.unwrap().0, 3);
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(stored(&cache).await, 3);
}

/// What another process loads, a deletion meanwhile makes too old: who began after that gets none
/// of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_another_process_loaded_it_is_given_to_nobody_who_came_later() {
    let server = RedisServer::start();
    let (cache, other) = two(&server).await;
    let slow = Held::new(&cache, LoadOptions::new(), Ok(2)).await;
    let (early, _) = callers(&other, 3);
    pause(50).await;
    other.delete("k").await.unwrap();
    let (late, loads) = callers(&other, 3);
    for caller in early.into_iter().chain(late) {
        assert_eq!(caller.await.unwrap().0, 3, "with the lease free again, nobody waits longer");
    }
    assert!(loads.load(Ordering::SeqCst) <= 1);
    assert_eq!(slow.let_go().await.unwrap(), 2, "its own caller came before the deletion");
    assert_eq!(stored(&cache).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_as_long_as_a_load_may_take_loads_without_storing() {
    let server = RedisServer::start();
    let (cache, _) = two(&server).await;
    server.command(&["SET", "shop:{vk}:l", "of one that never ends", "PX", "60000"]);
    let clock = Stopwatch::start();
    let load = cache.get_or_load("k", || async { Ok::<u32, ()>(3) });
    let hit = load.load_timeout(Duration::from_millis(300)).await.unwrap();
    assert_eq!((*hit, hit.source()), (3, Source::Loaded));
    assert!(clock.elapsed() >= Duration::from_millis(300));
    assert!(cache.get::<u32>("k").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_saw_others_load_in_vain_again_and_again_loads_without_storing() {
    let server = RedisServer::start();
    let (cache, _) = two(&server).await;
    server.command(&["SET", "shop:{vk}:l", "00000000 of another", "PX", "60000"]);
    let (mut waiting, loads) = callers(&cache, 1);
    for n in 1_u32.. {
        pause(100).await;
        if waiting[0].is_finished() {
            assert!((3..50).contains(&n), "{n} others loaded");
            break;
        }
        // The first bytes tell one from the other.
        server.command(&["SET", "shop:{vk}:l", &format!("{n:08} of another"), "PX", "60000"]);
    }
    assert_eq!(waiting.remove(0).await.unwrap(), (3, Source::Loaded));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert!(cache.get::<u32>("k").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_when_the_server_goes_away_loads() {
    let mut server = RedisServer::start();
    let (cache, other) = two(&server).await;
    let slow = Held::new(&cache, LoadOptions::new(), Ok(2)).await;
    let (waiting, _) = callers(&other, 3);
    pause(50).await;
    server.kill();
    for caller in waiting {
        assert_eq!(caller.await.unwrap().0, 3);
    }
    assert_eq!(slow.let_go().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_keys_those_that_another_process_loads_are_waited_for_beside_the_others() {
    let server = RedisServer::start();
    let (cache, other) = two(&server).await;
    server.command(&["SET", "shop:{vgone}:l", "of one that is gone", "PX", "500"]);
    let slow = Held::new(&cache, LoadOptions::new().ttl(60 * SECOND), Ok(2)).await;
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let batch = {
        let (other, calls) = (other.clone(), Arc::clone(&calls));
        tokio::spawn(async move {
            let load = move |missing: Vec<String>| async move {
                calls.lock().unwrap().push(missing.clone());
                Ok::<_, ()>(missing.into_iter().map(|key| (key, 3_u32)))
            };
            let hits = other.get_or_load_many(["a", "k", "gone", "b"], load).await.unwrap();
            hits.into_iter().map(|hit| *hit.unwrap()).collect::<Vec<_>>()
        })
    };
    while other.get::<u32>("b").await.unwrap().is_none() {
        assert!(!batch.is_finished());
        pause(5).await;
    }
    assert_eq!(*calls.lock().unwrap(), [["a", "b"]], "what is free is loaded at once");
    pause(600).await;
    assert_eq!(*calls.lock().unwrap(), [vec!["a", "b"], vec!["gone"]]);
    assert!(!batch.is_finished());
    assert_eq!(slow.let_go().await.unwrap(), 2);
    assert_eq!(batch.await.unwrap(), [3, 2, 3, 3]);
    assert_eq!(other.stats().loads, 2);
}

/// Law 37 for values that are too large to be stored: with no lease that is used, only asking again
/// tells whether somebody deleted the key meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_after_another_processes_delete_gets_no_older_value_that_is_not_stored() {
    let server = RedisServer::start();
    let url = format!("{}&store_timeout=10s&max_value_bytes=1KiB", server.url_with("shop"));
    let (cache, other) = (Cache::connect(&url).await.unwrap(), Cache::connect(&url).await.unwrap());
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let first = {
        let (cache, began, go) = (cache.clone(), Arc::clone(&began), Arc::clone(&go));
        tokio::spawn(async move {
            let load = move || async move {
                began.notify_one();
                go.notified().await;
                Ok::<_, ()>("old".repeat(2000))
            };
            cache.get_or_load("k", load).await.unwrap().to_string()
        })
    };
    began.notified().await;
    other.delete("k").await.unwrap();
    let late = {
        let cache = cache.clone();
        tokio::spawn(async move {
            let load = || async { Ok::<_, ()>("new".repeat(2000)) };
            cache.get_or_load("k", load).await.unwrap().to_string()
        })
    };
    while cache.stats().misses < 2 {
        pause(5).await;
    }
    go.notify_one();
    assert!(first.await.unwrap().starts_with("old"), "it came before the deletion");
    assert!(late.await.unwrap().starts_with("new"));
}
