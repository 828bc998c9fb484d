//! The process and its clock misbehave (catalogue §5.3), as far as the library meets it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tachikoma_cache::entry::Value;
use tachikoma_cache::{Cache, CacheKeyBuilder, Error, ErrorKind, Guarantee, TestClock, Ttl};
use tachikoma_testkit::{FaultRow, Stopwatch};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn fm_52_steps_of_the_wall_clock_change_no_life() {
    let mut row = FaultRow::new("FM-52", "the wall clock steps");
    let year_2040 = 2_208_988_800_000_i64 - 1_000_000_000_000;
    for (name, step) in [
        ("an hour back", -3_600_000),
        ("an hour on", 3_600_000),
        ("a day back", -86_400_000),
        ("a day on", 86_400_000),
        ("to 2040", year_2040),
    ] {
        let clock = TestClock::new();
        let cache = Cache::memory().clock(Arc::new(clock.clone())).build().unwrap();
        cache.set("a", 1_u32, HOUR).await.unwrap();
        clock.step_wall(step);
        clock.advance(Duration::from_millis(3_599_999));
        let before = cache.exists("a").await.unwrap();
        clock.advance(Duration::from_millis(1));
        let after = cache.exists("a").await.unwrap();
        let lives = format!("{before} then {after}");
        row.holds(name, "true then false", lives, before && !after);
    }
    row.report();
}

#[test]
fn fm_55_a_loader_that_blocks_its_thread_does_not_stop_the_others() {
    const BLOCKED: Duration = Duration::from_millis(400);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cache = Cache::memory().build().unwrap();
    let mut row = FaultRow::new("FM-55", "a loader blocks one of two threads for 400 ms");
    runtime.block_on(async {
        cache.set("other", 1_u32, HOUR).await.unwrap();
        let blocking = {
            let cache = cache.clone();
            tokio::spawn(async move {
                let load = || async {
                    std::thread::sleep(BLOCKED);
                    Ok::<_, ()>(2_u32)
                };
                cache.get_or_load("slow", load).await.map(|hit| *hit)
            })
        };
        // This future is polled by the test's own thread; the tasks it makes, by the workers.
        let clock = Stopwatch::start();
        let hit = cache.get::<u32>("other").await.unwrap().is_some();
        row.at_most("get of another key", Duration::from_millis(100), clock.elapsed());
        row.holds("its value", "there", hit, hit);
        let clock = Stopwatch::start();
        // The documented way for work that blocks.
        let load = || async {
            tokio::task::spawn_blocking(|| 3_u32).await.map_err(|error| error.to_string())
        };
        let loaded = cache.get_or_load("another", load).await.map(|hit| *hit);
        let took = clock.elapsed();
        row.at_most("load of another key", BLOCKED, took);
        row.holds("its value", "3", format!("{loaded:?}"), matches!(loaded, Ok(3)));
        let slow = blocking.await.unwrap();
        row.holds("the slow load", "2", format!("{slow:?}"), matches!(slow, Ok(2)));
    });
    row.report();
}

/// A type whose code panics where it is told to.
#[derive(Debug)]
struct Bad(&'static str);

impl Serialize for Bad {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != "serializer", "a bug in Serialize");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bad {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        unreachable!("a store in memory shows the object itself")
    }
}

/// An object with a form of its own whose weigher does as it is told.
struct Weighed(u32, usize);

impl Value for Weighed {
    const TYPE: &'static str = "weighed";

    fn encode(&self) -> Result<bytes::Bytes, Error> {
        Ok(bytes::Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }

    fn decode(_: &bytes::Bytes) -> Result<Self, Error> {
        Err(ErrorKind::Undecodable.into())
    }

    fn weight(&self) -> usize {
        assert!(self.0 != 13, "a bug in a weigher");
        self.1
    }
}

/// A part of a key whose `Display` panics.
struct BadPart;

impl fmt::Display for BadPart {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a bug in Display")
    }
}

async fn works(cache: &Cache) -> bool {
    cache.set("probe", 7_u32, HOUR).await.unwrap();
    let found = cache.get::<u32>("probe").await.unwrap().is_some();
    cache.delete("probe").await.unwrap() && found
}

#[tokio::test]
async fn fm_57_panics_in_the_users_own_code_are_contained() {
    let mut row = FaultRow::new("FM-57", "the user's own code panics");
    let cache = Cache::memory()
        .max_entries(2)
        .on_evict(Arc::new(|_, key, _| assert!(key != "evicted", "a bug in a listener")))
        .on_event(|event| assert!(event.key != Some("heard"), "a bug in a listener"))
        .build()
        .unwrap();
    let entries = cache.entries();

    let weighed = entries.put("weigher", Arc::new(Weighed(13, 1)), HOUR, [""; 0]).await;
    let refused = weighed.is_err_and(|error| error.kind() == ErrorKind::Unencodable);
    row.holds("weigher", "Unencodable, usable", refused, refused && works(&cache).await);

    let set = cache.set("serializer", Bad("serializer"), HOUR).await;
    let refused = set.is_err_and(|error| error.kind() == ErrorKind::Unencodable);
    row.holds("serializer", "Unencodable, usable", refused, refused && works(&cache).await);

    let key = catch_unwind(AssertUnwindSafe(|| CacheKeyBuilder::new("k").add(BadPart).build()));
    row.holds("key function", "the caller's, usable", key.is_err(), works(&cache).await);

    let loaded = cache.get_or_load("heard", || async { Ok::<_, ()>(1_u32) }).await;
    let counted = cache.stats().hook_panics;
    let fine = loaded.is_ok() && counted >= 3 && works(&cache).await;
    row.holds("event listener", "value, counted, usable", counted, fine);

    cache.clear().await.unwrap();
    let before = cache.stats();
    for key in ["evicted", "b", "c"] {
        cache.set(key, 1_u32, Ttl::Never).await.unwrap();
    }
    let after = cache.stats();
    let fine = after.hook_panics == before.hook_panics + 1
        && after.evictions == before.evictions.map(|evictions| evictions + 1)
        && after.size == Some(2);
    row.holds("eviction listener", "evicted, counted", after.hook_panics, fine);
    row.report();
}

/// Everything that runs code of the user under a lock, or near one, is made to panic; then
/// everything works.
#[tokio::test]
async fn fm_56_no_lock_stays_poisoned() {
    let mut row = FaultRow::new("FM-56", "panics on threads that hold or held locks");
    let cache = Cache::memory().build().unwrap();
    for round in 0..50_u32 {
        let key = format!("k{}", round % 5);
        let loaded = cache.get_or_load(&key, || async { panic!("a bug in a loader") });
        let loaded: Result<tachikoma_cache::Hit<u32>, tachikoma_cache::LoadError<()>> =
            loaded.await;
        assert!(loaded.is_err());
        let _ = cache.set(&key, Bad("serializer"), HOUR).await;
        let cache = cache.clone();
        let thread = std::thread::spawn(move || {
            let _hit = cache.try_get::<u32>("k1");
            panic!("a bug in a thread");
        });
        assert!(thread.join().is_err());
    }
    let all = works(&cache).await && cache.clear().await.is_ok();
    row.holds("every operation", "works", all, all);
    row.count("entries left", 0, cache.stats().size.unwrap());
    row.report();
}

/// DS-29.
#[tokio::test]
async fn a_weigher_may_say_anything() {
    let cache = Cache::memory().max_entries(10).build().unwrap();
    let entries = cache.entries();
    for n in 0..100 {
        entries.put(&n.to_string(), Arc::new(Weighed(n + 100, 0)), HOUR, [""; 0]).await.unwrap();
    }
    assert_eq!(cache.stats().size, Some(10), "nothing weighs nothing: the key and the place do");
    assert!(cache.stats().bytes.unwrap() > 0);
    for weight in [u32::MAX as usize, usize::MAX] {
        let put = entries.put("large", Arc::new(Weighed(1, weight)), HOUR, [""; 0]).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::TooLarge);
    }
    let put = entries.put("bad", Arc::new(Weighed(13, 1)), HOUR, [""; 0]).await;
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Unencodable);
    assert_eq!(cache.stats().size, Some(10), "the others stay");
    entries.put("fine", Arc::new(Weighed(1, 1)), HOUR, [""; 0]).await.unwrap();
    assert!(entries.peek::<Weighed>("fine").flatten().is_some());
    let fresh = cache.get::<u32>("fine").await.unwrap().map(|hit| hit.guarantee());
    assert_ne!(fresh, Some(Guarantee::Fresh), "of another type");
}
