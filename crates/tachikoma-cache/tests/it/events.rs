//! What listeners hear, on each store, and what they cannot break.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use proptest::prelude::*;
use tachikoma_cache::events::EventKind;
use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::{Cache, CacheBuilder, Pattern, TestClock, Ttl};
use tachikoma_testkit::RedisServer;

const MINUTE: Duration = Duration::from_secs(60);

/// What was heard: label and key of each event, in order.
#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Vec<String>>>);

impl Ears {
    fn on<S>(&self, builder: CacheBuilder<S>) -> CacheBuilder<S> {
        let heard = Arc::clone(&self.0);
        builder.on_event(move |event| {
            let line = format!("{} {}", event.kind.label(), event.key.unwrap_or("-"));
            heard.lock().unwrap().push(line);
        })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    #[track_caller]
    fn check(&self, expected: &[&str]) {
        assert_eq!(self.take(), expected);
    }
}

/// What every store tells.
async fn tells_what_it_does(cache: Cache, ears: &Ears) {
    assert!(cache.get::<u32>("a").await.unwrap().is_none());
    ears.check(&["miss a"]);
    cache.set("a", 1_u32, MINUTE).await.unwrap();
    assert_eq!(*cache.get::<u32>("a").await.unwrap().unwrap(), 1);
    ears.check(&["stored a", "hit a"]);
    assert!(!cache.set_if_absent("a", 2_u32, MINUTE).await.unwrap());
    assert!(cache.get::<String>("a").await.unwrap().is_none());
    ears.check(&["not_stored a", "failed a", "miss a"]);
    let load = || cache.get_or_load("b", || async { Ok::<_, std::io::Error>(7_u32) }).tags(["t"]);
    load().await.unwrap();
    // Storing does not delay the caller.
    assert!(tachikoma_testkit::wait_until(Duration::from_secs(5), || {
        ears.0.lock().unwrap().len() == 3
    }));
    ears.check(&["miss b", "loaded b", "stored b"]);
    load().await.unwrap();
    ears.check(&["hit b"]);
    let failed = cache.get_or_load("c", || async { Err::<u32, _>("no") }).await;
    assert!(failed.is_err());
    ears.check(&["miss c", "load_failed c"]);
    cache.invalidate_tag("t").await.unwrap();
    assert!(cache.get::<u32>("b").await.unwrap().is_none());
    ears.check(&["invalidated -", "miss b"]);
    assert!(cache.delete("a").await.unwrap());
    ears.check(&["deleted a"]);
    cache.set_many([("u:1", 1_u32), ("u:2", 2)], MINUTE).await.unwrap();
    cache.get_many::<u32>(&["u:1", "u:3"]).await.unwrap();
    ears.check(&["stored u:1", "stored u:2", "hit u:1", "miss u:3"]);
    cache.delete_pattern(&Pattern::raw("u:*").unwrap()).await.unwrap();
    let mut removed = ears.take();
    removed.sort_unstable();
    assert_eq!(removed, ["deleted u:1", "deleted u:2"]);
    assert!(cache.get::<u32>(&"k".repeat(5000)).await.is_err());
    ears.check(&[]);
    assert_eq!(cache.stats().hook_panics, 0);
}

#[tokio::test]
async fn a_cache_in_memory_tells_what_it_does() {
    let ears = Ears::default();
    tells_what_it_does(ears.on(Cache::memory()).build().unwrap(), &ears).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_in_redis_tells_what_it_does() {
    let (server, ears) = (RedisServer::start(), Ears::default());
    let clock = Arc::new(TestClock::new());
    let (config, _) = RedisConfig::from_url(&server.url()).unwrap();
    let config = config.timeout(Duration::from_secs(10));
    let store = RedisStore::connect(config, clock.clone()).await.unwrap();
    let builder = Cache::on(Arc::new(store)).clock(clock).store_timeout(Duration::from_secs(10));
    tells_what_it_does(ears.on(builder).build().unwrap(), &ears).await;
}

#[tokio::test]
async fn sizes_and_reasons_come_along_and_no_value() {
    let clock = TestClock::new();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let ears = Arc::clone(&heard);
    let cache = Cache::memory()
        .clock(Arc::new(clock.clone()))
        .max_entries(1)
        .on_event(move |event| ears.lock().unwrap().push(format!("{event:?}")))
        .build()
        .unwrap();
    cache.set("first", "s3ntinel".to_owned(), MINUTE).await.unwrap();
    cache.set("second", "s3ntinel".to_owned(), MINUTE).await.unwrap();
    cache.get::<String>("second").await.unwrap();
    clock.advance(MINUTE);
    cache.get::<String>("second").await.unwrap();
    let heard = heard.lock().unwrap().join("\n");
    for part in [
        "key: Some(\"first\"), kind: Evicted { bytes: Some(32), bound: Entries }",
        "key: Some(\"second\"), kind: Stored { bytes: Some(32) }",
        "key: Some(\"second\"), kind: Hit { bytes: Some(32) }",
        "key: Some(\"second\"), kind: Expired { bytes: Some(32) }",
    ] {
        assert!(heard.contains(part), "{part} in {heard}");
    }
    assert!(!heard.contains("s3ntinel"), "{heard}");
}

/// FM-57. The listener uses the cache in every event, also of the key that it is told of, which
/// would deadlock under a shard's lock.
#[test]
fn a_listener_may_use_the_cache_and_may_panic() {
    let cell: Arc<OnceLock<Cache>> = Arc::default();
    let (inner, panics) = (Arc::clone(&cell), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&panics);
    let cache = Cache::memory()
        .max_entries(2)
        .on_event(move |event| {
            if let (Some(cache), Some(key)) = (inner.get(), event.key) {
                assert!(cache.try_get::<String>(key).is_none());
                let _ = cache.stats();
            }
            counted.fetch_add(1, Relaxed);
            panic!("a bug in a listener");
        })
        .build()
        .unwrap();
    cell.set(cache.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for key in ["a", "b", "c"] {
            cache.set(key, 1_u32, Ttl::Never).await.unwrap();
        }
        assert!(cache.get::<u32>("c").await.unwrap().is_some());
        assert!(cache.delete("c").await.unwrap());
    });
    // Stored three times, evicted once, hit, deleted.
    assert_eq!((panics.load(Relaxed), cache.stats().hook_panics), (6, 6));
    let stats = cache.stats();
    assert_eq!((stats.size, stats.hits), (Some(1), 1));
}

#[derive(Debug, Clone)]
enum Act {
    Get(u8),
    Set(u8),
    Delete(u8),
    Load(u8, bool),
    Advance(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u8..12).prop_map(Act::Get),
        2 => (0_u8..12).prop_map(Act::Set),
        1 => (0_u8..12).prop_map(Act::Delete),
        2 => ((0_u8..12), any::<bool>()).prop_map(|(key, fails)| Act::Load(key, fails)),
        1 => (1_u8..40).prop_map(Act::Advance),
    ]
}

proptest! {
    /// A listener that counts has the figures of `stats()`.
    #[test]
    fn events_and_statistics_agree(acts in prop::collection::vec(act(), 1..120)) {
        let clock = TestClock::new();
        let counts: Arc<Mutex<std::collections::HashMap<&'static str, u64>>> = Arc::default();
        let counting = Arc::clone(&counts);
        let cache = Cache::memory()
            .max_entries(8)
            .clock(Arc::new(clock.clone()))
            .on_event(move |event| {
                *counting.lock().unwrap().entry(event.kind.label()).or_default() += 1;
                if let EventKind::Evicted { bytes, .. } = event.kind {
                    assert!(bytes.is_some());
                }
            })
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for act in &acts {
                match *act {
                    Act::Get(key) => drop(cache.get::<u8>(&key.to_string()).await.unwrap()),
                    Act::Set(key) => cache.set(&key.to_string(), key, MINUTE).await.unwrap(),
                    Act::Delete(key) => drop(cache.delete(&key.to_string()).await.unwrap()),
                    Act::Load(key, fails) => {
                        let load = move || async move { if fails { Err(()) } else { Ok(key) } };
                        let _ = cache.get_or_load(&key.to_string(), load).ttl(MINUTE).await;
                    }
                    Act::Advance(seconds) => clock.advance(Duration::from_secs(seconds.into())),
                }
            }
        });
        let (stats, counts) = (cache.stats(), counts.lock().unwrap());
        let of = |label: &str| counts.get(label).copied().unwrap_or(0);
        prop_assert_eq!((of("hit"), of("miss")), (stats.hits, stats.misses));
        prop_assert_eq!(of("loaded") + of("load_failed"), stats.loads);
        prop_assert_eq!(of("load_failed"), stats.load_failures);
        prop_assert_eq!(Some(of("evicted")), stats.evictions);
    }
}
