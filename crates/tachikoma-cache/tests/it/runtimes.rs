//! Where the library may be called from: sync and async code, both kinds of Tokio runtime, several
//! of them, and none at all (RG-40). Nothing panics and nothing hangs.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tachikoma_cache::{
    Cache, ErrorKind, KeyTtl, LoadError, Loaded, Pattern, RedisCache, Source, StaleReason,
    TestClock, cache_aside,
};
use tachikoma_testkit::{RedisServer, Stopwatch, wait_until};
use tokio::runtime::{Builder, Runtime};

const SECOND: Duration = Duration::from_secs(1);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Another executor than Tokio's: it polls on this thread until the end, which must come within a
/// second.
#[track_caller]
fn elsewhere<T>(operation: impl IntoFuture<Output = T>) -> T {
    let mut future = pin!(operation.into_future());
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let timer = Stopwatch::start();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        timer.within(SECOND);
        thread::park_timeout(SECOND);
    }
}

fn runtimes() -> [(&'static str, Runtime); 2] {
    let (mut one, mut many) = (Builder::new_current_thread(), Builder::new_multi_thread());
    [
        ("current-thread", one.enable_all().build().unwrap()),
        ("multi-thread", many.worker_threads(2).enable_all().build().unwrap()),
    ]
}

fn loads(value: u32) -> impl FnOnce() -> std::future::Ready<Result<u32, String>> + Send + 'static {
    move || std::future::ready(Ok(value))
}

fn must_not_run() -> std::future::Ready<Result<u32, String>> {
    panic!("there is no runtime to run in");
}

/// Everything that a cache in memory does but load needs no runtime.
fn everything_but_loads(cache: &Cache) {
    elsewhere(cache.set("k", 1_u32, SECOND).tags(["t"])).unwrap();
    assert_eq!(cache.try_get::<u32>("k").as_deref(), Some(&1));
    assert_eq!(elsewhere(cache.get::<u32>("k")).unwrap().as_deref(), Some(&1));
    assert!(elsewhere(cache.exists("k")).unwrap());
    assert!(matches!(elsewhere(cache.ttl("k")).unwrap(), KeyTtl::Expires(_)));
    assert!(elsewhere(cache.touch("k", 2 * SECOND)).unwrap());
    assert!(!elsewhere(cache.set_if_absent("k", 2_u32, SECOND)).unwrap());
    let hit = elsewhere(cache.get_or_load("k", must_not_run)).unwrap();
    assert_eq!((*hit, hit.source()), (1, Source::Hit));
    elsewhere(cache.invalidate_tag("t")).unwrap();
    assert!(!elsewhere(cache.delete("k")).unwrap());
    elsewhere(cache.set_many([("a", 1_u32), ("b", 2)], SECOND)).unwrap();
    assert_eq!(elsewhere(cache.get_many::<u32>(&["a", "b"])).unwrap().len(), 2);
    assert_eq!(elsewhere(cache.keys()).unwrap().keys.len(), 2);
    assert_eq!(elsewhere(cache.delete_pattern(&Pattern::raw("a*").unwrap())).unwrap().total(), 1);
    assert_eq!(elsewhere(cache.clear()).unwrap().total(), 1);
    assert!(cache.stats().hits > 0);
}

#[track_caller]
fn has_no_runtime<T>(result: Result<T, LoadError<String>>) {
    let error = result.err().expect("there is no runtime to load in");
    assert!(matches!(error, LoadError::NoRuntime), "{error:?}");
    assert!(error.to_string().contains("call it within"), "{error}");
}

/// Every way to ask for a load, on any store: a typed error, and nothing is left behind.
fn loads_are_refused(cache: &Cache) {
    has_no_runtime(elsewhere(cache.get_or_load("miss", must_not_run)));
    has_no_runtime(elsewhere(cache.get_or_load(&"k".repeat(5000), must_not_run)));
    has_no_runtime(elsewhere(cache.get_or_load("miss", must_not_run).ttl(Duration::ZERO)));
    has_no_runtime(elsewhere(cache_aside(cache, "miss", SECOND, must_not_run)));
    has_no_runtime(elsewhere(
        cache.get_or_load_optional("miss", || async { must_not_run().await.map(Some) }),
    ));
    has_no_runtime(elsewhere(
        cache.get_or_load_with("miss", |_| async { must_not_run().await.map(Loaded::new) }),
    ));
    has_no_runtime(elsewhere(cache.get_or_load_many(["a", "b"], |_| async {
        must_not_run().await.map(|value| vec![("a".to_owned(), value)])
    })));
}

#[test]
fn without_a_runtime_a_cache_in_memory_does_everything_but_load() {
    let cache = Cache::memory().build().unwrap();
    everything_but_loads(&cache);
    loads_are_refused(&cache);
    // Nothing of it stands in the way later.
    for (kind, runtime) in runtimes() {
        let hit = runtime.block_on(cache.get_or_load(kind, loads(7)).into_future()).unwrap();
        assert_eq!((*hit, hit.source()), (7, Source::Loaded), "{kind}");
    }
}

#[test]
fn a_runtime_without_timers_is_as_none() {
    let cache = Cache::memory().build().unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    everything_but_loads(&cache);
    loads_are_refused(&cache);
    let error = elsewhere(Cache::connect("redis://127.0.0.1:1/0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[test]
fn without_a_runtime_a_stale_value_is_served_where_it_may_be() {
    let clock = TestClock::new();
    let build = || Cache::memory().clock(Arc::new(clock.clone())).default_ttl(SECOND);
    let renewing = build().stale_while_revalidate(60 * SECOND).build().unwrap();
    let fail_safe = build().stale_if_error(60 * SECOND).build().unwrap();
    for cache in [&renewing, &fail_safe] {
        elsewhere(cache.set("k", 1_u32, SECOND)).unwrap();
    }
    clock.advance(2 * SECOND);
    for (cache, expected) in
        [(&renewing, StaleReason::Revalidating), (&fail_safe, StaleReason::LoadFailed)]
    {
        let hit = elsewhere(cache.get_or_load("k", must_not_run)).unwrap();
        assert_eq!((*hit, hit.source()), (1, Source::Stale));
        let reason = format!("{:?}", hit.guarantee());
        assert!(reason.contains(&format!("{expected:?}")), "{reason}");
    }
    let many = |_| async { must_not_run().await.map(|value| vec![("k".to_owned(), value)]) };
    let hits = elsewhere(fail_safe.get_or_load_many(["k"], many)).unwrap();
    assert_eq!(hits.len(), 1);
}

#[test]
fn sync_code_builds_a_cache_and_async_code_uses_it_and_the_other_way_round() {
    for (kind, runtime) in runtimes() {
        let built_outside = Cache::memory().build().unwrap();
        let built_inside = runtime.block_on(async { Cache::memory().build().unwrap() });
        for cache in [built_outside, built_inside] {
            let load = cache.get_or_load("k", loads(1)).into_future();
            assert_eq!(*runtime.block_on(load).unwrap(), 1, "{kind}");
            assert_eq!(cache.try_get::<u32>("k").as_deref(), Some(&1), "{kind}");
            // Sync code inside of the runtime, on a thread where it may block.
            let (inner, handle) = (cache.clone(), runtime.handle().clone());
            let load = move || handle.block_on(inner.get_or_load("b", loads(2)).into_future());
            let blocking = runtime.spawn_blocking(load);
            assert_eq!(*runtime.block_on(blocking).unwrap().unwrap(), 2, "{kind}");
        }
    }
}

#[test]
fn a_redis_cache_says_what_it_needs_when_there_is_no_runtime() {
    let error = elsewhere(Cache::connect("redis://127.0.0.1:1/0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("Tokio runtime"), "{error}");

    let server = RedisServer::start();
    for (kind, runtime) in runtimes() {
        let cache = runtime.block_on(Cache::connect(&server.url()).into_future()).unwrap();
        let error = elsewhere(cache.get::<u32>("k")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{kind}");
        assert!(error.to_string().contains("Tokio runtime"), "{kind}: {error}");
        let error = elsewhere(cache.set("k", 1_u32, SECOND)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{kind}");
        // What takes something away is kept, and sent by the cache's own task.
        let error = elsewhere(cache.delete("k")).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Pending | ErrorKind::Unavailable), "{error}");
        loads_are_refused(&cache);
        let loaded = runtime.block_on(cache.get_or_load(kind, loads(3)).into_future()).unwrap();
        assert_eq!(*loaded, 3, "{kind}");
        drop(cache);
    }
}

#[test]
fn a_redis_cache_serves_another_runtime_until_its_own_ends() {
    let server = RedisServer::start();
    for (kind, own) in runtimes() {
        let cache = own.block_on(RedisCache::new(&server.url(), kind)).unwrap();
        for (other_kind, other) in runtimes() {
            // A current-thread runtime only works while somebody blocks on it.
            let stop = Arc::new(tokio::sync::Notify::new());
            thread::scope(|scope| {
                let stopped = Arc::clone(&stop);
                let own = &own;
                scope.spawn(move || own.block_on(stopped.notified()));
                other.block_on(async {
                    cache.set(other_kind, 1_u32, SECOND * 60).await.unwrap();
                    let hit = cache.get_or_load(other_kind, must_not_run).await.unwrap();
                    assert_eq!(*hit, 1, "{kind} from {other_kind}");
                    let loaded = cache.get_or_load("miss", loads(2)).await.unwrap();
                    assert_eq!(*loaded, 2, "{kind} from {other_kind}");
                });
                stop.notify_one();
            });
        }
        drop(own);
        let (_, other) = runtimes().into_iter().last().unwrap();
        assert!(wait_until(SECOND, || {
            other.block_on(async { cache.get::<u32>(kind).await.is_err() })
        }));
        let timer = Stopwatch::start();
        other.block_on(async {
            let error = cache.get::<u32>(kind).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert_eq!(*cache.get_or_load("later", loads(4)).await.unwrap(), 4);
        });
        timer.within(SECOND);
    }
}

/// Uses its cache while it is dropped.
struct Last(Cache);

impl Drop for Last {
    fn drop(&mut self) {
        elsewhere(self.0.set("dropped", 1_u32, SECOND)).unwrap();
        assert!(self.0.try_get::<u32>("dropped").is_some());
        // In a runtime this is a load that nobody waits for; outside of one it is refused.
        let load = pin!(self.0.get_or_load("dropped too", loads(1)).into_future());
        let _ = load.poll(&mut Context::from_waker(Waker::noop()));
    }
}

#[test]
fn a_cache_may_be_used_from_a_drop_and_dropped_anywhere() {
    drop(Last(Cache::memory().build().unwrap()));
    for (_, runtime) in runtimes() {
        let cache = Cache::memory().build().unwrap();
        runtime.block_on(async { drop(Last(cache.clone())) });
        runtime.spawn({
            let last = Last(cache.clone());
            async move {
                let _last = last;
                std::future::pending::<()>().await;
            }
        });
        // The runtime ends, and with it its tasks and what they hold.
        drop(runtime);
        assert!(cache.try_get::<u32>("dropped").is_some());
    }
}
