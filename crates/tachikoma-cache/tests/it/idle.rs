//! Time to idle: what nobody reads goes, within its TTL.

use std::sync::Arc;
use std::time::Duration;

use tachikoma_cache::{Cache, KeyTtl, TestClock};
use tachikoma_testkit::{RedisServer, Resp, Stopwatch};

const RIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis.acl");

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn memory() -> (Cache, TestClock) {
    let clock = TestClock::new();
    let cache = Cache::memory().clock(Arc::new(clock.clone())).time_to_idle(ms(1000));
    (cache.build().unwrap(), clock)
}

#[tokio::test]
async fn a_read_lets_an_entry_stay_for_another_idle_time() {
    let (cache, clock) = memory();
    cache.set("k", 1_u32, ms(60_000)).await.unwrap();
    for _ in 0..10 {
        clock.advance(ms(999));
        assert!(cache.get::<u32>("k").await.unwrap().is_some());
    }
    assert_eq!(cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(1000)));
    clock.advance(ms(1000));
    assert!(cache.get::<u32>("k").await.unwrap().is_none());
    assert_eq!(cache.ttl("k").await.unwrap(), KeyTtl::NoKey);
}

/// People who look at a cache do not keep in it what no request asks for.
#[tokio::test]
async fn who_only_looks_keeps_nothing() {
    let clock = TestClock::new();
    let cache = Cache::memory().clock(Arc::new(clock.clone())).time_to_idle(ms(1000));
    let cache = cache.track_top_keys(true).build().unwrap();
    cache.set("k", 1_u32, ms(60_000)).await.unwrap();
    clock.advance(ms(600));
    assert_eq!(cache.top_keys(10).unwrap().by_bytes.len(), 1);
    let info = cache.entry_info("k").await.unwrap().unwrap();
    assert_eq!(info.gone_in, KeyTtl::Expires(ms(59_400)));
    assert!(cache.top_keys(10).unwrap().by_hits.is_empty(), "nor does it count");
    clock.advance(ms(400));
    assert!(cache.get::<u32>("k").await.unwrap().is_none());
}

#[tokio::test]
async fn no_read_keeps_an_entry_beyond_its_ttl() {
    let (cache, clock) = memory();
    cache.set("k", 1_u32, ms(2500)).await.unwrap();
    for _ in 0..3 {
        clock.advance(ms(800));
        assert!(cache.get::<u32>("k").await.unwrap().is_some());
    }
    assert_eq!(cache.ttl("k").await.unwrap(), KeyTtl::Expires(ms(100)));
    clock.advance(ms(100));
    assert!(cache.get::<u32>("k").await.unwrap().is_none());
}

#[tokio::test]
async fn a_load_has_its_own_idle_time_and_touch_keeps_it() {
    let (cache, clock) = memory();
    let load = cache.get_or_load("k", || async { Ok::<u32, ()>(1) });
    load.ttl(ms(60_000)).time_to_idle(ms(300)).await.unwrap();
    clock.advance(ms(299));
    assert!(cache.touch("k", ms(120_000)).await.unwrap());
    clock.advance(ms(299));
    assert!(cache.try_get::<u32>("k").is_some());
    clock.advance(ms(300));
    assert!(cache.try_get::<u32>("k").is_none());
}

#[tokio::test]
async fn what_was_not_read_is_counted_out_and_freed() {
    let (cache, clock) = memory();
    for key in ["a", "b", "c"] {
        cache.set(key, 1_u32, ms(60_000)).await.unwrap();
    }
    clock.advance(ms(900));
    assert!(cache.get::<u32>("a").await.unwrap().is_some());
    clock.advance(ms(500));
    assert_eq!(cache.stats().size, Some(1));
    assert_eq!(cache.keys().await.unwrap().keys, ["a"]);
    clock.advance(ms(500));
    assert_eq!(cache.stats().size, Some(0));
}

/// The milliseconds that Redis keeps the key for.
fn kept(server: &RedisServer) -> i64 {
    match server.command(&["PTTL", "tachikoma:{vk}"]) {
        Resp::Integer(millis) => millis,
        other => panic!("{other:?}"),
    }
}

/// In Redis the server keeps the entry for its idle time and up to an eighth more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_what_is_read_and_frees_what_is_not() {
    let server = RedisServer::start();
    let url = format!("{}?time_to_idle=800ms&store_timeout=5s", server.url_of_user_in(RIGHTS));
    let cache = Cache::connect(&url).await.unwrap();
    cache.set("k", 1_u32, ms(60_000)).await.unwrap();
    let first = kept(&server);
    assert!((0..=900).contains(&first), "{first}");
    let clock = Arc::clone(cache.clock());
    let reading = Stopwatch::start();
    while reading.elapsed() < ms(2000) {
        assert!(cache.get::<u32>("k").await.unwrap().is_some(), "it is read all the time");
        clock.sleep(ms(20)).await;
    }
    let left = kept(&server);
    assert!((1..=900).contains(&left), "{left}");
    assert_eq!(server.command(&["ACL", "LOG"]), Resp::Array(Vec::new()));
    clock.sleep(ms(1000)).await;
    assert!(cache.get::<u32>("k").await.unwrap().is_none(), "nobody read it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_does_not_let_redis_keep_what_has_no_idle_time_or_less_ttl() {
    let server = RedisServer::start();
    let url = format!("{}?store_timeout=5s", server.url());
    let plain = Cache::connect(&url).await.unwrap();
    let idle = Cache::connect(&format!("{url}&time_to_idle=30s")).await.unwrap();
    plain.set("k", 1_u32, ms(60_000)).await.unwrap();
    assert!(idle.get::<u32>("k").await.unwrap().is_some());
    assert!((50_000..=60_000).contains(&kept(&server)), "{}", kept(&server));
    idle.set("k", 1_u32, ms(10_000)).await.unwrap();
    assert!(idle.get::<u32>("k").await.unwrap().is_some());
    plain.clock().sleep(ms(100)).await;
    assert!((1..=10_000).contains(&kept(&server)), "{}", kept(&server));
}
