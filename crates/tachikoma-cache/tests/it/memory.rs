//! What the store in memory promises beyond the laws of every store: its bounds at every moment,
//! and memory that comes back by itself.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tachikoma_cache::store::memory::EvictionCause;
use tachikoma_cache::{Cache, ErrorKind, Pattern, TestClock, Ttl};
use tachikoma_testkit::{Stopwatch, pace, wait_until};

const MIB: u64 = 1 << 20;

/// Runs one operation of a cache; those of a store in memory never wait.
fn now<T>(operation: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(operation)
}

/// A value that knows how many bytes of its kind there are in the process.
struct Counted {
    text: String,
    alive: &'static AtomicI64,
}

impl Counted {
    fn new(bytes: usize, alive: &'static AtomicI64) -> Self {
        alive.fetch_add(i64::try_from(bytes).unwrap(), Relaxed);
        Self { text: "x".repeat(bytes), alive }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(i64::try_from(self.text.len()).unwrap(), Relaxed);
    }
}

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        unreachable!("a store in memory shows the object itself")
    }
}

/// Must show 5, first half.
#[test]
fn two_threads_writing_100_kb_values_for_10_s_never_exceed_10_mib() {
    static ALIVE: AtomicI64 = AtomicI64::new(0);
    const BYTES: usize = 100_000;
    const WRITERS: i64 = 2;
    // Beside what the cache holds: what each writer brings, and what it pushed out and drops next.
    const IN_HAND: i64 = WRITERS * 3 * 100_000;

    let cache = Cache::memory().max_bytes(10 * MIB).build().unwrap();
    let done = AtomicBool::new(false);
    let (writes, looks) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let clock = Stopwatch::start();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (cache, writes, done) = (&cache, &writes, &done);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for round in 0.. {
                    let key = format!("{writer}:{}", round % 1000);
                    let value = Counted::new(BYTES, &ALIVE);
                    runtime.block_on(cache.set(&key, value, Ttl::Never).into_future()).unwrap();
                    writes.fetch_add(1, Relaxed);
                    if done.load(Relaxed) {
                        break;
                    }
                }
            });
        }
        let looking = scope.spawn(|| {
            while clock.elapsed() < Duration::from_secs(10) {
                let (bytes, alive) = (cache.stats().bytes.unwrap(), ALIVE.load(Relaxed));
                assert!(bytes <= 10 * MIB, "{bytes} bytes by its own account");
                assert!(alive <= 10 * 1_048_576 + IN_HAND, "{alive} bytes of values alive");
                looks.fetch_add(1, Relaxed);
            }
        });
        let looked = looking.join();
        // Also when a check failed: the writers would never end.
        done.store(true, Relaxed);
        looked.unwrap();
    });
    let (writes, looks) = (writes.into_inner(), looks.into_inner());
    println!("{writes} writes, {looks} looks");
    assert!(writes > 1_000 && looks > 1_000, "{writes} writes, {looks} looks");
    // It is full, not empty: 104 values of 100 kB and their bookkeeping fit.
    assert!(cache.stats().size.unwrap() >= 100, "{:?}", cache.stats());
    drop(cache);
    assert!(wait_until(Duration::from_secs(1), || ALIVE.load(Relaxed) == 0));
}

/// Must show 5, second half.
#[test]
fn two_seconds_after_everything_expired_the_cache_is_empty_without_traffic() {
    static ALIVE: AtomicI64 = AtomicI64::new(0);
    // All are to be there before the first expires, on a busy machine too.
    let ttl = Duration::from_millis(1500).mul_f64(2.0 * pace() - 1.0);
    let cache = Cache::memory().build().unwrap();
    now(async {
        for i in 0..20_000 {
            let value = Counted::new(100, &ALIVE);
            cache.set(&format!("k{i}"), value, ttl).await.unwrap();
        }
    });
    assert_eq!((cache.stats().size, ALIVE.load(Relaxed)), (Some(20_000), 2_000_000));
    let patience = ttl + Duration::from_secs(10);
    let expired = wait_until(patience, || cache.stats().size == Some(0));
    assert!(expired);
    let freed = Stopwatch::start();
    assert!(wait_until(Duration::from_secs(10), || ALIVE.load(Relaxed) == 0));
    freed.within(Duration::from_secs(2));
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.expirations), (Some(0), Some(20_000)));
}

#[test]
fn what_a_test_clock_made_expire_is_freed_too() {
    static ALIVE: AtomicI64 = AtomicI64::new(0);
    let clock = TestClock::new();
    let cache = Cache::memory().clock(Arc::new(clock.clone())).build().unwrap();
    let minute = Duration::from_secs(60);
    now(cache.set("a", Counted::new(10, &ALIVE), minute).into_future()).unwrap();
    now(cache.set("b", Counted::new(10, &ALIVE), minute * 2).into_future()).unwrap();
    clock.advance(minute);
    assert!(wait_until(Duration::from_secs(5), || ALIVE.load(Relaxed) == 10));
    assert_eq!(cache.stats().size, Some(1));
}

#[test]
fn a_cache_that_is_dropped_drops_its_values() {
    static ALIVE: AtomicI64 = AtomicI64::new(0);
    let cache = Cache::memory().build().unwrap();
    now(cache.set("a", Counted::new(10, &ALIVE), Ttl::Never).into_future()).unwrap();
    drop(cache);
    // At once, unless the sweeper is looking into it at this very moment.
    assert!(wait_until(Duration::from_secs(1), || ALIVE.load(Relaxed) == 0));
}

/// DS-28.
#[test]
fn a_value_larger_than_the_cache_is_an_error_and_leaves_no_older_one() {
    let cache = Cache::memory().max_bytes(10_000).build().unwrap();
    now(async {
        cache.set("a", "old".to_owned(), Ttl::Never).await.unwrap();
        cache.set("other", "stays".to_owned(), Ttl::Never).await.unwrap();
        for key in ["a", "b"] {
            let error = cache.set(key, "x".repeat(10_000), Ttl::Never).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            assert!(error.to_string().contains("10000"), "{error}");
        }
        assert_eq!(*cache.get::<String>("other").await.unwrap().unwrap(), "stays");
        assert!(!cache.exists("a").await.unwrap());
        assert!(!cache.exists("b").await.unwrap());
    });
}

#[test]
fn a_bound_of_zero_is_refused_by_name() {
    for (builder, name) in [
        (Cache::memory().max_bytes(0), "max_bytes"),
        (Cache::memory().max_entries(0), "max_entries"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn bounds_of_any_size_are_allowed() {
    let cache = Cache::memory().max_bytes(u64::MAX).max_entries(u64::MAX).build().unwrap();
    now(cache.set("a", 1, Ttl::Never).into_future()).unwrap();
    assert_eq!(cache.stats().size, Some(1));
    let cache = Cache::memory().max_entries(1).build().unwrap();
    for key in ["a", "b", "c"] {
        now(cache.set(key, 1, Ttl::Never).into_future()).unwrap();
        assert_eq!(cache.stats().size, Some(1));
        assert!(now(cache.exists(key)).unwrap(), "what was set last is there");
    }
}

#[test]
fn the_listener_may_use_the_cache_and_may_panic() {
    let heard: Arc<Mutex<Vec<(String, EvictionCause)>>> = Arc::default();
    let cell: Arc<OnceLock<Cache>> = Arc::default();
    let (ears, inner) = (Arc::clone(&heard), Arc::clone(&cell));
    let listener = move |_: &_, key: &str, cause| {
        ears.lock().unwrap().push((key.to_owned(), cause));
        if let Some(cache) = inner.get() {
            now(cache.exists(key)).unwrap();
        }
        assert!(key != "bad", "a bug in a listener");
    };
    let cache = Cache::memory().max_entries(2).on_evict(Arc::new(listener)).build().unwrap();
    cell.set(cache.clone()).unwrap();
    let set = |key: &str| now(cache.set(key, 1, Ttl::Never).into_future()).unwrap();
    set("bad");
    set("bad");
    assert!(now(cache.delete("bad")).unwrap());
    for key in ["a", "b", "c"] {
        set(key);
    }
    let expected = [
        ("bad".to_owned(), EvictionCause::Replaced),
        ("bad".to_owned(), EvictionCause::Removed),
        ("a".to_owned(), EvictionCause::Count),
    ];
    assert_eq!(*heard.lock().unwrap(), expected);
    let stats = cache.stats();
    assert_eq!((stats.size, stats.evictions), (Some(2), Some(1)));
}

#[tokio::test]
async fn a_pattern_over_many_pages_removes_all_that_match_and_no_other() {
    let cache = Cache::memory().max_bytes(256 * MIB).build().unwrap();
    for i in 0..30_000 {
        cache.set(&format!("user:{i}"), i, Ttl::Never).await.unwrap();
        cache.set(&format!("superuser:{i}"), i, Ttl::Never).await.unwrap();
    }
    let removed = cache.delete_pattern(&Pattern::raw("user:*").unwrap()).await.unwrap();
    assert_eq!(removed.memory, Some(30_000));
    assert_eq!(cache.stats().size, Some(30_000));
    assert_eq!(cache.clear().await.unwrap().memory, Some(30_000));
    assert_eq!((cache.stats().size, cache.stats().bytes), (Some(0), Some(0)));
}

#[test]
fn an_entry_of_an_invalidated_tag_is_freed_when_it_is_asked_for() {
    let cache = Cache::memory().build().unwrap();
    now(async {
        cache.set("a", 1, Ttl::Never).tags(["t"]).await.unwrap();
        cache.invalidate_tag("t").await.unwrap();
        assert!(cache.get::<i32>("a").await.unwrap().is_none());
    });
    assert_eq!((cache.stats().size, cache.stats().bytes), (Some(0), Some(0)));
}
