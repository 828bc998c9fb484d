//! Top keys by hits and by bytes, on each store.

use std::sync::Arc;
use std::time::Duration;

use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::{Cache, ErrorKind, TestClock, Ttl};
use tachikoma_testkit::RedisServer;

const MINUTE: Duration = Duration::from_secs(60);

/// `hot:n` is looked up 4,000 / (n + 1) times among 2,000 cold keys; `large:n` holds 10 n KB.
async fn counts(cache: &Cache, clock: &TestClock, cold: u32) {
    let (_, before) = (cache.get::<u32>("nobody").await.unwrap(), clock.now_millis());
    for n in 0..10_u32 {
        cache.set(&format!("large:{n}"), "x".repeat(n as usize * 10_000), MINUTE).await.unwrap();
    }
    for n in 0..5_u32 {
        cache.set(&format!("hot:{n}"), n, MINUTE).await.unwrap();
    }
    for round in 0..4_000_u32 {
        for n in (0..5).filter(|n| round % (n + 1) == 0) {
            assert!(cache.get::<u32>(&format!("hot:{n}")).await.unwrap().is_some());
        }
        if round < cold {
            cache.set(&format!("cold:{round}"), 1_u32, MINUTE).await.unwrap();
            cache.get::<u32>(&format!("cold:{round}")).await.unwrap();
        }
    }
    let top = cache.top_keys(3).unwrap();
    assert_eq!(top.since.as_millis(), before);
    let hot: Vec<_> = top.by_hits.iter().map(|hot| &*hot.key).collect();
    assert_eq!(hot, ["hot:0", "hot:1", "hot:2"]);
    let first = &top.by_hits[0];
    assert!(first.hits.abs_diff(4_000) <= first.error + 1_300, "five deviations: {first:?}");
    let large: Vec<_> = top.by_bytes.iter().map(|large| &*large.key).collect();
    assert_eq!(large, ["large:9", "large:8", "large:7"]);
    assert!(top.by_bytes[0].bytes.abs_diff(90_000) < 100, "{top:?}");

    cache.set("large:9", String::new(), Ttl::Never).await.unwrap();
    cache.delete("large:8").await.unwrap();
    assert_eq!(cache.top_keys(1).unwrap().by_bytes[0].key, "large:7");
    clock.advance(MINUTE);
    let left = cache.top_keys(100).unwrap().by_bytes;
    assert_eq!(left.len(), 1, "the rest has expired: {left:?}");
    cache.reset_top_keys().unwrap();
    let top = cache.top_keys(100).unwrap();
    assert_eq!((top.since.as_millis(), top.by_hits.len()), (before + 60_000, 0));
}

trait Millis {
    fn now_millis(&self) -> u64;
}

impl Millis for TestClock {
    fn now_millis(&self) -> u64 {
        tachikoma_cache::Clock::now(self).as_millis()
    }
}

#[tokio::test]
async fn a_cache_in_memory_counts_its_top_keys() {
    let clock = TestClock::new();
    let builder = Cache::memory().clock(Arc::new(clock.clone())).track_top_keys(true);
    counts(&builder.build().unwrap(), &clock, 2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_in_redis_counts_its_top_keys() {
    let (server, clock) = (RedisServer::start(), TestClock::new());
    let (config, _) = RedisConfig::from_url(&server.url()).unwrap();
    let config = config.timeout(Duration::from_secs(10));
    let store = RedisStore::connect(config, Arc::new(clock.clone())).await.unwrap();
    let builder = Cache::on(Arc::new(store))
        .clock(Arc::new(clock.clone()))
        .store_timeout(Duration::from_secs(10))
        .track_top_keys(true);
    counts(&builder.build().unwrap(), &clock, 100).await;
}

#[tokio::test]
async fn what_was_evicted_is_no_longer_a_large_key() {
    let cache = Cache::memory().max_entries(1).track_top_keys(true).build().unwrap();
    cache.set("large", "x".repeat(10_000), Ttl::Never).await.unwrap();
    cache.set("small", 1_u32, Ttl::Never).await.unwrap();
    let top = cache.top_keys(10).unwrap();
    assert_eq!(top.by_bytes.len(), 1);
    assert_eq!(top.by_bytes[0].key, "small");
}

#[tokio::test]
async fn without_being_asked_nothing_is_counted() {
    let cache = Cache::memory().build().unwrap();
    assert_eq!(cache.top_keys(10).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(cache.reset_top_keys().unwrap_err().kind(), ErrorKind::Unsupported);
    let cache = Cache::connect("memory:?track_top_keys=true").await.unwrap();
    assert!(cache.top_keys(10).unwrap().by_hits.is_empty());
}
